# SPDX-License-Identifier: Apache-2.0
"""Multiple choice after training on a base of facts: what is known and how it is written, apart.

The published scores are of one sampled token on MMLU, where no model is above chance and the gap
between frozen and trained rows is that of the probability of writing a letter at all. Here the same
answers are scored by log-likelihood, by one sampled token and by two.
"""

import dataclasses
import functools
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
from lib import tokenizers
from lib.data import facts, pipeline, questions
from lib.data.questions import Question
from lib.errors import InputError
from lib.evals import multiple_choice as choice
from lib.evals import ratios
from lib.report import plots
from lib.report.results import Row, mean_and_sem, name
from lib.train import processes

CAPTION = (
  'Multiple choice on synthetic facts in the template of MMLU, the same answers scored by '
  'log-likelihood over the letters (`log_likelihood`) and as published, by one or two sampled '
  'tokens (`sampled_1`, `sampled_2`, in expectation). Facts are `asked` in training (here in '
  'wordings that were never seen), `told` in sentences only, or `unseen`, which must be at chance. '
  'Models: `none` is untrained, `sentences` never saw the template, `questions` saw it, the answer '
  'after a space in a given share of them. `accuracy_given_letter` and `p_valid_letter` are the '
  'two factors of a sampled score.'
)
SUMMARY = (
  'training=(none|questions).*facts=(asked|unseen),wording=test',
  ('accuracy', 'accuracy_low', 'accuracy_high', 'accuracy_given_letter', 'p_valid_letter',
   'p_space', 'chance', 'z_from_chance'),
)  # fmt: skip
PROTOCOLS = {
  'log_likelihood': 'log_likelihood',
  'sampled_1': 'one_token',
  'sampled_2': 'two_tokens',
}
TRAININGS = ('none', 'sentences', 'questions')
CASES = (('asked', 'train'), ('asked', 'test'), ('told', 'test'), ('unseen', 'test'))
DOCUMENTS = 2**20  # of training: more than any run reads
RUNS = 10  # of sampling, as published


@dataclasses.dataclass(frozen=True)
class Case:
  """Questions that several models answer, each model all or its own.

  Attributes:
    row: beginning of the rows' names.
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
  choice.letters(open_text(config).tokenizer, options.options)
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


def documents(config: ConfigDict, seed: int, training: str = 'questions') -> facts.FactDocuments:
  """What a model of a seed is trained on."""
  options = config.reasoning
  share = options.asked if training == 'questions' else 0.0
  base = bases(config)[seed - config.seed]
  return facts.FactDocuments(base, DOCUMENTS, seed, share, options.spaced)


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

  def batches(seed: int):
    return pipeline.batches(
      documents(config, seed, training), opened.tokenizer, batch_size=options.batch_size,
      length=options.length, seed=seed,
    )  # fmt: skip

  if training != 'none':
    return models.fit(
      config, run, options, f'reasoning/{training}', arm, opened.glyphs, batches
    )  # fmt: skip
  model = models.make_model(options, arm, opened.glyphs, jnp.dtype(config.dtype))
  batch = next(iter(batches(config.seed)))
  begin = jax.jit(model.init)
  seeds = range(config.seed, config.seed + options.seeds)
  return [
    Trained(model, begin(jax.random.key(seed), batch, jax.random.key(seed)), [], 0)
    for seed in seeds
  ]  # fmt: skip


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Trains every arm on facts and asks it what it was asked, what it was told and what not."""
  options, opened, rows = config.reasoning, open_text(config), []
  for arm in options.arms:
    for training in TRAININGS:
      if training == 'sentences' and arm not in options.naive_arms:
        continue
      trained = fit(config, run, opened, arm, training)
      row = name(arm=arm, training=training)
      for facts_kind, wording in CASES:
        case = _facts_case(config, row, facts_kind, wording)
        rows += _rows(case, ask(config, run, opened.tokenizer, trained, case))
      if options.questions and training == 'questions':
        rows += _own(config, run, row, opened.tokenizer, trained)
    if options.questions and arm in config.loss.arms:
      tokenizer = text.open_text(config).tokenizer
      row = name(arm=arm, training='text')
      rows += _own(config, run, row, tokenizer, loss.fit(config, run, arm))
  return rows


def _facts_case(config: ConfigDict, row: str, kind: str, wording: str) -> Case:
  asked = [base.questions(kind, wording) for base in bases(config)]
  # The wordings of a fact are one after the other.
  per_fact = len(facts.ASKED[wording])
  groups = [[(seed, i // per_fact) for i in range(len(some))] for seed, some in enumerate(asked)]
  return Case(f'{row},{name(facts=kind, wording=wording)}', asked, groups)


def own_questions(config: ConfigDict) -> list[Question]:
  """The user's questions, at most `reasoning.limit` of them where that is not 0."""
  options = config.reasoning
  found = questions.read_questions(options.questions, options.split)
  return found[: options.limit or None]


def _own(config, run, row, tokenizer, trained) -> list[Row]:
  asked = own_questions(config)
  source = pathlib.Path(config.reasoning.questions.rstrip('/')).stem.replace(',', '_')
  case = Case(f'{row},{name(questions=source)}', [asked] * len(trained), alike=True)
  return _rows(case, ask(config, run, tokenizer, trained, case))


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
  key = jax.random.key(0)  # of no account: rows that are given are not drawn

  @jax.jit
  def speak(variables: Any, batch: Mapping[str, jax.Array], places: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(model.apply(variables, batch, places, key, method='logits_at'))

  return speak


def _rows(case: Case, answers: Sequence[choice.Answers]) -> list[Row]:
  """All protocols of a case: means over models; intervals over questions, or over facts."""
  each = [choice.quantities(one, asked) for one, asked in zip(answers, case.questions)]
  found = ratios.mean_over(each) if case.alike else ratios.pooled(each)
  if case.groups is not None:
    labels = [label for some in case.groups for label in some]
    found = {column: ratios.grouped(ratio, labels) for column, ratio in found.items()}
  over = 'questions of the mean over seeds' if case.alike else 'the facts of all seeds'
  rows = []
  for protocol, quantity in PROTOCOLS.items():
    row = f'{case.row},{name(protocol=protocol)}'
    put = lambda column, value, error=None, note='', row=row: rows.append(
      Row('reasoning', row, column, value, error, unit='ratio', note=note)
    )
    of_seeds = lambda key: mean_and_sem([ratios.value(one[key]) for one in each])
    whole = ratios.estimate(found[f'accuracy_{quantity}'])
    put(
      'accuracy',
      *of_seeds(f'accuracy_{quantity}'),
      'mean ± standard error over seeds' + ('' if case.alike else ', each with facts of its own'),
    )
    put('accuracy_low', whole.low, note=f'95 % interval over {over}')
    put('accuracy_high', whole.high)
    put('chance', ratios.value(found['chance']))
    subjects = [question.subject for question in case.questions[0]]
    if case.alike and len(set(subjects)) > 1:
      put(
        'accuracy_macro',
        ratios.macro(found[f'accuracy_{quantity}'], subjects),
        note=f'mean over {len(set(subjects))} subjects',
      )
    if protocol == 'log_likelihood':
      _of_likelihood(put, case, found, whole)
    else:
      _of_sampling(put, case, answers, of_seeds, protocol)
  return rows


def _of_likelihood(put: Callable, case: Case, found: Mapping, whole: ratios.Estimate) -> None:
  """Whether places are chosen alike, and how far from chance the answers are."""
  value = lambda key: ratios.value(found[key])
  for form in ('bare', 'spaced'):
    put(
      f'accuracy_{form}',
      value(f'accuracy_log_likelihood_{form}'),
      note='of the letter alone, or of a space and the letter',
    )
  put('balanced_accuracy', value('balanced_accuracy'), note='each place of the right option alike')
  put('best_constant', value('best_constant'), note='always naming the commonest right place')
  chosen = [key for key in found if key.startswith('chosen_')]
  put('most_chosen', max(map(value, chosen)), note='share of the place that is chosen most')
  put('truncated', value('truncated'))
  if whole.sem:
    z = (whole.value - value('chance')) / whole.sem
    note = 'standard errors above chance'
    if 'facts=unseen' in case.row:
      note = 'check: no fact here was ever shown, so that beyond ±4 something leaks'
    put('z_from_chance', z, note=note)


def _of_sampling(
  put: Callable, case: Case, answers: Sequence[choice.Answers], of_seeds: Callable, protocol: str
) -> None:
  """The factors of a sampled score, and the score as drawn."""
  suffix, index = ('', 0) if protocol == 'sampled_1' else ('_two_tokens', 1)
  quantity = PROTOCOLS[protocol]
  put('accuracy_given_letter', *of_seeds(f'accuracy_{quantity}_given_letter'))
  put('p_valid_letter', *of_seeds(f'p_valid_letter{suffix}'))
  put('p_space', *of_seeds('p_space'), 'of the first token')
  put('p_other_blank', *of_seeds('p_other_blank'), 'a letter after it would count as published')
  drawn = [
    choice.sampled(one, asked, RUNS, seed)[index]
    for seed, (one, asked) in enumerate(zip(answers, case.questions))
  ]
  per_run = np.mean(drawn, axis=0)
  put(
    'accuracy_drawn',
    float(per_run.mean()),
    float(per_run.std(ddof=1)),
    f'± is the standard deviation of {RUNS} runs of sampling',
  )


def panels(rows: Sequence[Row]) -> list[Callable]:
  """Scores of asked facts in new wordings by protocol, a group of bars for each model."""
  form = re.compile(r'arm=(.+),training=(.+),facts=asked,wording=test,protocol=(.+)')
  found: dict[str, dict[str, float]] = {}
  chance = 0.0
  for row in rows:
    parts = form.fullmatch(row.row)
    if row.table == 'reasoning' and parts and row.measured is not None:
      arm, training, protocol = parts.groups()
      if row.column == 'accuracy':
        found.setdefault(protocol, {})[f'{arm}\n{training}'] = row.measured
      elif row.column == 'chance':
        chance = row.measured
  if not found:
    return []
  groups = list(found['log_likelihood'])
  series = {protocol: [scores[group] for group in groups] for protocol, scores in found.items()}
  title = 'Facts asked in new wordings, by arm and training'
  return [plots.bars(title, 'accuracy', groups, series, {'chance': chance})]
