# SPDX-License-Identifier: Apache-2.0
"""Multiple choice after training on a base of facts: what is known and how it is written, apart.

The published scores are of one sampled token on MMLU, where no model is above chance and the gap
between frozen and trained rows is that of the probability of writing a letter at all. Here the same
answers are scored by log-likelihood, by one sampled token and by two.
"""

import dataclasses
import functools
import itertools
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.visual_unicode import loss, models, text
from experiments.visual_unicode.models import Trained
from lib import stats, tokenizers
from lib.data import facts, pipeline, questions
from lib.data.questions import Question
from lib.errors import InputError
from lib.evals import multiple_choice as choice
from lib.report import plots
from lib.report.results import Row, name
from lib.stats import Estimate
from lib.train import processes

CAPTION = (
  'Multiple choice on synthetic facts in the template of MMLU, the same answers scored by '
  'log-likelihood over the letters (`log_likelihood`) and as published, by one or two sampled '
  'tokens (`sampled_1`, `sampled_2`, in expectation). Facts are `asked` in training (here in '
  'wordings that were never seen), `told` (shown in sentences only), or `unseen`, which must be at '
  'chance. '
  'Models: `none` is untrained, `sentences` never saw the template, `questions` saw it, the answer '
  'after a space in a given share of them. `accuracy_above_chance` has guessing taken out, '
  '(accuracy − chance) / (1 − chance): the share that is known. `accuracy_given_letter` and '
  '`p_valid_letter` are the two factors of a sampled score. Errors are over seeds, each with '
  'its own facts. Differences of arms are paired by seed, with the residual variance of all arms. '
  'Each arm has its own `learning_rate`, chosen by the loss on other documents of the facts in '
  'training, with one seed and a share of the steps.'
)
SUMMARY = (
  'training=(none|questions).*facts=(asked|unseen),wording=test',
  ('accuracy', 'accuracy_above_chance', 'difference_accuracy', 'accuracy_given_letter',
   'p_valid_letter', 'p_space', 'chance', 'z_from_chance'),
)  # fmt: skip
PROTOCOLS = {
  'log_likelihood': 'log_likelihood',
  'sampled_1': 'one_token',
  'sampled_2': 'two_tokens',
}
TRAININGS = ('none', 'sentences', 'questions')
CASES = (('asked', 'train'), ('asked', 'test'), ('told', 'test'), ('unseen', 'test'))
DOCUMENTS = 2**20  # of training: more than any run reads
VALIDATION = 2**20  # the stream of validation documents is that of this seed
CHECKED = 2000  # documents of each seed that the tokenizer of a check is learned from at most
RUNS = 10  # of sampling, as published


@dataclasses.dataclass(frozen=True)
class Case:
  """Questions that several models answer, each model all or its own.

  Attributes:
    row: end of the rows' names.
    questions: of each model.
    groups: of each model's questions, those that are not independent; None if all are.
    alike: all models answer the same questions.
  """

  row: str
  questions: Sequence[Sequence[Question]]
  groups: Sequence[Sequence[Any]] | None = None
  alike: bool = False


def check(config: ConfigDict) -> None:
  """Raises InputError for models, facts or questions that cannot be had."""
  options = config.reasoning
  text.check(config)
  models.check(options, 'reasoning')
  for base in bases(config):
    facts.FactDocuments(base, 1, config.seed, options.asked, options.spaced)
  for arm in options.naive_arms:
    if arm not in options.arms:
      raise InputError(f'reasoning.naive_arms: {arm!r} is not one of {", ".join(options.arms)}.')
  if options.validation < 1:
    raise InputError(f'reasoning.validation must be 1 or more; got {options.validation}.')
  choice.letters(open_text(draft(config)).tokenizer, options.options)
  if options.questions:
    own_questions(config)
    loss.check(config)


def bases(config: ConfigDict) -> list[facts.FactBase]:
  """A base of facts for each seed."""
  options = config.reasoning
  return [
    facts.FactBase(
      options.entities, options.attributes, options.words, options.options, options.told,
      options.unseen, seed,
    )
    for seed in range(config.seed, config.seed + options.seeds)
  ]  # fmt: skip


def draft(config: ConfigDict) -> ConfigDict:
  """The config with a tokenizer that is learned fast, from fewer documents."""
  found = text.draft(config)
  found.reasoning.sample = min(found.reasoning.sample, CHECKED)
  return found


def documents(
  config: ConfigDict, seed: int, training: str = 'questions', stream: int | None = None
) -> facts.FactDocuments:
  """What a model of a seed is trained on, or another stream of documents of its facts."""
  options = config.reasoning
  share = options.asked if training == 'questions' else 0.0
  base = bases(config)[seed - config.seed]
  return facts.FactDocuments(
    base, DOCUMENTS, seed if stream is None else stream, share, options.spaced
  )


def open_text(config: ConfigDict) -> text.Text:
  """The tokenizer of the facts, learned from training documents of all seeds, and its glyphs."""
  options, kind = config.reasoning, config.tokenizer.kind
  if kind not in ('unicode', 'restricted'):
    tokenizer = text.open_text(config).tokenizer
  else:
    seeds = range(config.seed, config.seed + options.seeds)
    streams = [documents(config, seed) for seed in seeds]
    sample = tuple(stream[i] for stream in streams for i in range(options.sample))
    tokenizer = _tokenizer(sample, kind, options.vocab_size, options.longest)
  return text.Text('facts', tokenizer, text.draw(config, tokenizer))


@functools.cache
def _tokenizer(sample: tuple[bytes, ...], kind: str, vocab_size: int, longest: int):
  if kind == 'unicode':
    return tokenizers.train_unicode(sample, vocab_size, longest)
  return tokenizers.train_restricted(sample, vocab_size, longest)


def fit(
  config: ConfigDict, run: runner.Run, opened: text.Text, arm: str, training: str
) -> list[Trained]:
  """A model for each seed, trained on its facts, or as it begins."""
  options = config.reasoning

  def batches(seed: int, stream: int | None = None):
    return pipeline.batches(
      documents(config, seed, training, stream), opened.tokenizer, batch_size=options.batch_size,
      length=options.length, seed=seed,
    )  # fmt: skip

  if training != 'none':
    # Only the first seed is validated.
    validation = list(itertools.islice(batches(config.seed, VALIDATION), options.validation))
    table = f'reasoning/{training}'
    return models.fit(config, run, options, table, arm, opened.glyphs, batches, validation)
  model = models.make_model(options, arm, opened.glyphs, jnp.dtype(config.dtype))
  seeds = range(config.seed, config.seed + options.seeds)
  return models.untrained(model, next(iter(batches(config.seed))), seeds)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Trains every arm on facts and asks about facts of each kind."""
  options, opened, rows = config.reasoning, open_text(config), []
  by_arm: dict[str, dict[str, np.ndarray]] = {}  # case -> arm -> accuracies [S]
  for arm in options.arms:
    for training in TRAININGS:
      if training == 'sentences' and arm not in options.naive_arms:
        continue
      trained = fit(config, run, opened, arm, training)
      rate = name(arm=arm, training=training), 'learning_rate', trained[0].rate
      if training != 'none':
        rows.append(Row('reasoning', *rate, note='at its peak'))
      for facts_kind, wording in CASES:
        case = _facts_case(config, training, facts_kind, wording)
        each = _quantities(case, answers := ask(config, run, opened.tokenizer, trained, case))
        rows += _rows(arm, case, each, answers)
        for protocol in PROTOCOLS:
          cell = f'{case.row},{name(protocol=protocol)}'
          by_arm.setdefault(cell, {})[arm] = _of_seeds(each, f'accuracy_{PROTOCOLS[protocol]}')
      if options.questions and training == 'questions':
        rows += _own(config, run, arm, training, opened.tokenizer, trained)
    if options.questions and arm in config.loss.arms:
      tokenizer = text.open_text(config).tokenizer
      rows += _own(config, run, arm, 'text', tokenizer, loss.fit(config, run, arm))
  for cell, accuracies in by_arm.items():
    rows += _differences(options.references, cell, accuracies)
  return rows


def _differences(
  references: Sequence[str], cell: str, accuracies: Mapping[str, np.ndarray]
) -> list[Row]:
  """Arms less reference arms, paired by seed."""
  return [
    Row.of('reasoning', f'{name(arm=arm, against=reference)},{cell}', 'difference_accuracy', found,
           unit='ratio', note='above 0: better than the reference; paired by seed')
    for reference in references
    if reference in accuracies and len(accuracies) > 1
    for arm, found in stats.arms(accuracies, reference).items()
  ]  # fmt: skip


def _facts_case(config: ConfigDict, training: str, kind: str, wording: str) -> Case:
  asked = [base.questions(kind, wording) for base in bases(config)]
  # The wordings of a fact are one after the other.
  per_fact = len(facts.ASKED[wording])
  groups = [[(seed, i // per_fact) for i in range(len(some))] for seed, some in enumerate(asked)]
  return Case(name(training=training, facts=kind, wording=wording), asked, groups)


def own_questions(config: ConfigDict) -> list[Question]:
  """The user's questions, at most `reasoning.limit` of them where that is not 0."""
  options = config.reasoning
  found = questions.read_questions(options.questions, options.split)
  return found[: options.limit or None]


def _own(config, run, arm, training, tokenizer, trained) -> list[Row]:
  asked = own_questions(config)
  source = pathlib.Path(config.reasoning.questions.rstrip('/')).stem.replace(',', '_')
  case = Case(name(training=training, questions=source), [asked] * len(trained), alike=True)
  answers = ask(config, run, tokenizer, trained, case)
  return _rows(arm, case, _quantities(case, answers), answers)


def ask(
  config: ConfigDict, run: runner.Run, tokenizer: Any, trained: Sequence[Trained], case: Case
) -> list[choice.Answers]:
  """What each model answers."""
  options = config.reasoning
  speak = speaker(trained[0].model)
  return [
    choice.ask(
      functools.partial(speak, one.variables), asked, tokenizer, processes.own_mesh(run.mesh),
      length=options.context, batch_size=options.ask_batch, layout=options.layout,
    )
    for one, asked in zip(trained, case.questions, strict=True)
  ]  # fmt: skip


@functools.cache
def speaker(model: Any) -> Callable:
  """(variables, batch, places) -> log-probabilities [B, P, V] of the next tokens."""
  key = jax.random.key(0)  # has no effect: these models draw nothing at random

  @jax.jit
  def speak(variables: Any, batch: Mapping[str, jax.Array], places: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(model.apply(variables, batch, places, key, method='logits_at'))

  return speak


Quantities = Mapping[str, choice.Ratio]


def _quantities(case: Case, answers: Sequence[choice.Answers]) -> list[Quantities]:
  """Every score of each model."""
  return [choice.quantities(one, asked) for one, asked in zip(answers, case.questions)]


def _of_seeds(each: Sequence[Quantities], key: str) -> np.ndarray:
  """A score of each model, [S]."""
  return np.array([choice.value(one[key]) for one in each])


def _estimate(case: Case, each: Sequence[Quantities], key: str) -> Estimate:
  """A score: over seeds with facts of their own, or over seeds × questions that all answer."""
  above, below = (np.stack([one[key][part] for one in each]) for part in (0, 1))
  if case.alike and np.all(below.sum(axis=1) > 0):
    return stats.crossed(stats.contributions(above, below), 'seeds×questions')
  return stats.mean(_of_seeds(each, key), 'seeds')


def _rows(
  arm: str, case: Case, each: Sequence[Quantities], answers: Sequence[choice.Answers]
) -> list[Row]:
  """All protocols of a case: means over models."""
  rows: list[Row] = []
  chance = float(_of_seeds(each, 'chance').mean())
  known = _of_seeds(each, 'accuracy_log_likelihood')
  for protocol, quantity in PROTOCOLS.items():
    row = f'{name(arm=arm)},{case.row},{name(protocol=protocol)}'
    put = lambda column, value, note='', row=row: rows.append(
      Row.of('reasoning', row, column, value, unit='ratio', note=note)
      if isinstance(value, Estimate)
      else Row('reasoning', row, column, value, unit='ratio', note=note)
    )
    accuracy = _estimate(case, each, f'accuracy_{quantity}')
    put('accuracy', accuracy, '' if case.alike else 'the seeds have different facts')
    put('accuracy_above_chance', choice.above_chance(accuracy, chance), 'guessing taken out')
    put('chance', chance)
    subjects = [question.subject for question in case.questions[0]]
    if case.alike and len(set(subjects)) > 1:
      put('accuracy_macro', _macro(each, f'accuracy_{quantity}', subjects),
          f'mean over {len(set(subjects))} subjects')  # fmt: skip
    if protocol == 'log_likelihood':
      _of_likelihood(put, case, each, accuracy, chance)
    else:
      _of_sampling(put, case, each, answers, protocol)
      if not case.alike and np.all(known > 0):
        share = _of_seeds(each, f'accuracy_{quantity}') / known
        put('share_of_log_likelihood', stats.mean(share), 'of the accuracy by log-likelihood')
  return rows


def _macro(each: Sequence[Quantities], key: str, subjects: Sequence[str]) -> Estimate:
  """The mean over subjects, such as those of MMLU, of the score in each; error over seeds."""
  above, below = (
    stats.by_group(np.stack([one[key][part] for one in each]), subjects) for part in (0, 1)
  )
  return stats.mean((above / below).mean(axis=1), 'seeds')


def _of_likelihood(
  put: Callable, case: Case, each: Sequence[Quantities], accuracy: Estimate, chance: float
) -> None:
  """Whether places are chosen alike, and how far from chance the answers are."""
  value = lambda key: float(_of_seeds(each, key).mean())
  for form in ('bare', 'spaced'):
    put(
      f'accuracy_{form}',
      value(f'accuracy_log_likelihood_{form}'),
      'of the letter alone, or of a space and the letter',
    )
  put('balanced_accuracy', value('balanced_accuracy'), 'each place of the right option alike')
  put('best_constant', value('best_constant'), 'always naming the commonest right place')
  chosen = [key for key in each[0] if key.startswith('chosen_')]
  put('most_chosen', max(map(value, chosen)), 'share of the place that is chosen most')
  put('truncated', value('truncated'))
  if case.groups is not None:
    above, below = (
      np.concatenate([one['accuracy_log_likelihood'][part] for one in each]) for part in (0, 1)
    )
    labels = [f'{seed} {fact}' for some in case.groups for seed, fact in some]
    accuracy = stats.ratio(above, below, labels, 'facts')
  if accuracy.sem:
    note = 'standard errors above chance'
    if 'facts=unseen' in case.row:
      note = 'check: no fact here was ever shown, so beyond ±4 something leaks'
    put('z_from_chance', (accuracy.value - chance) / accuracy.sem, note)


def _of_sampling(
  put: Callable,
  case: Case,
  each: Sequence[Quantities],
  answers: Sequence[choice.Answers],
  protocol: str,
) -> None:
  """The factors of a sampled score, and the score as drawn."""
  suffix, index = ('', 0) if protocol == 'sampled_1' else ('_two_tokens', 1)
  quantity = PROTOCOLS[protocol]
  of = lambda key: _estimate(case, each, key)
  put('accuracy_given_letter', of(f'accuracy_{quantity}_given_letter'))
  put('p_valid_letter', of(f'p_valid_letter{suffix}'))
  put('p_space', of('p_space'), 'of the first token')
  put('p_other_blank', of('p_other_blank'), 'a letter after it would count as published')
  drawn = [
    choice.sampled(one, asked, RUNS, seed)[index]
    for seed, (one, asked) in enumerate(zip(answers, case.questions))
  ]
  put('accuracy_drawn', stats.mean(np.mean(drawn, axis=1), 'seeds'), f'{RUNS} runs of sampling')
  deviation = float(np.mean(drawn, axis=0).std(ddof=1))
  put('accuracy_drawn_deviation', deviation, f'standard deviation of the {RUNS} runs')


def panels(rows: Sequence[Row]) -> list[Callable]:
  """Scores of asked facts in new wordings by protocol, a group of bars for each model."""
  form = re.compile(r'arm=([^,]+),training=([^,]+),facts=asked,wording=test,protocol=(.+)')
  found: dict[str, dict[str, Row]] = {}
  chance = 0.0
  for row in rows:
    parts = form.fullmatch(row.row)
    if row.table == 'reasoning' and parts and row.measured is not None:
      arm, training, protocol = parts.groups()
      if row.column == 'accuracy':
        group = f'{models.LABELS[arm].replace(", ", chr(10))}\n{training}'
        found.setdefault(protocol.replace('_', ' '), {})[group] = row
      elif row.column == 'chance':
        chance = row.measured
  if not found:
    return []
  groups = list(found['log likelihood'])
  several = {protocol: [scores[group] for group in groups] for protocol, scores in found.items()}
  series = {protocol: [row.measured or 0.0 for row in some] for protocol, some in several.items()}
  errors = {protocol: [row.sem for row in some] for protocol, some in several.items()}
  title = 'Facts asked in new wordings, by arm and training'
  return [
    plots.bars(title, 'accuracy ± standard error', groups, series, {'chance': chance}, errors)
  ]
