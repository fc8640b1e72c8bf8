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
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import fit, recipe
from experiments.recipe import Pictures, Run
from experiments.visual_unicode import loss, models, text
from experiments.visual_unicode.text import Text
from lib import stats, tokenizers
from lib.data import facts, pipeline, questions
from lib.data.questions import Question
from lib.errors import InputError
from lib.evals import multiple_choice as choice
from lib.language_model import TrainedModel
from lib.models.decoder import LanguageModel
from lib.report import plots
from lib.report.results import Row, Rows, select
from lib.stats import Estimate
from lib.tokenizers.base import Tokenizer
from lib.train import processes

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
LEAK = 'check: no fact here was ever shown, so beyond ±4 something leaks'


@dataclasses.dataclass(frozen=True)
class Case:
  """Questions that several models answered, each model all or its own.

  Attributes:
    where: coordinates of the rows, but for the protocol.
    questions: of each model.
    answers: of each model.
    groups: of each model's questions, those that are not independent; None if all are.
    alike: all models answer the same questions.
  """

  where: Mapping[str, str]
  questions: Sequence[Sequence[Question]]
  answers: Sequence[choice.Answers]
  groups: Sequence[Sequence[Any]] | None = None
  alike: bool = False

  @functools.cached_property
  def quantities(self) -> list[Mapping[str, choice.Ratio]]:
    """Every score of each model."""
    return [choice.quantities(one, asked) for one, asked in zip(self.answers, self.questions)]

  def values(self, key: str) -> np.ndarray:
    """A score of each model, [S]."""
    return np.array([choice.value(one[key]) for one in self.quantities])

  def mean(self, key: str) -> float:
    """A score, over models."""
    return float(self.values(key).mean())

  def sums(self, key: str) -> tuple[np.ndarray, np.ndarray]:
    """What is summed above and below the line, [S, N] each, of models with equal questions."""
    above, below = (np.stack([one[key][part] for one in self.quantities]) for part in (0, 1))
    return above, below

  def estimate(self, key: str) -> Estimate:
    """A score: over seeds with facts of their own, or over seeds × questions that all answer."""
    if self.alike:
      above, below = self.sums(key)
      if np.all(below.sum(axis=1) > 0):
        return stats.crossed(stats.contributions(above, below), 'seeds×questions')
    return stats.mean(self.values(key), 'seeds')


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
  draft = text.draft(config)
  draft.reasoning.sample = min(options.sample, CHECKED)
  choice.letters(open_text(draft).tokenizer, options.options)
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
    for seed in fit.seeds(config, options)
  ]  # fmt: skip


def documents(
  config: ConfigDict, seed: int, training: str = 'questions', stream: int | None = None
) -> facts.FactDocuments:
  """What a model of a seed is trained on, or another stream of documents of its facts."""
  options, base = config.reasoning, bases(config)[seed - config.seed]
  share = options.asked if training == 'questions' else 0.0
  stream = seed if stream is None else stream
  return facts.FactDocuments(base, DOCUMENTS, stream, share, options.spaced)


def open_text(config: ConfigDict) -> Text:
  """The tokenizer of the facts, learned from training documents of all seeds, and its glyphs."""
  options, kind = config.reasoning, config.tokenizer.kind
  if kind not in ('unicode', 'restricted'):
    tokenizer = text.open_text(config).tokenizer
  else:
    streams = [documents(config, seed) for seed in fit.seeds(config, options)]
    sample = tuple(stream[i] for stream in streams for i in range(options.sample))
    tokenizer = _tokenizer(sample, kind, options.vocab_size, options.longest)
  return Text('facts', tokenizer, text.draw(config, tokenizer))


@functools.cache
def _tokenizer(sample: tuple[bytes, ...], kind: str, vocab_size: int, longest: int) -> Tokenizer:
  train = tokenizers.train_unicode if kind == 'unicode' else tokenizers.train_restricted
  return train(sample, vocab_size, longest)


def train(
  config: ConfigDict, run: Run, opened: Text, arm: str, training: str
) -> tuple[list[TrainedModel], float | None]:
  """A model for each seed, trained on its facts, and the learning rate; or as they begin."""
  options = config.reasoning

  def batches(seed: int, stream: int | None = None):
    return pipeline.batches(
      documents(config, seed, training, stream),
      opened.tokenizer,
      batch_size=options.batch_size,
      length=options.length,
      seed=seed,
    )

  if training == 'none':
    model, seeds = (
      models.make_model(config, options, arm, opened.glyphs),
      fit.seeds(config, options),
    )
    batch = next(iter(batches(config.seed)))
    return fit.untrained(model, batch, seeds, options.length, opened.tokenizer), None
  # Only the first seed chooses the rate.
  validation = list(itertools.islice(batches(config.seed, VALIDATION), options.validation))
  table = f'reasoning/{training}'
  trained = models.train(config, run, options, table, arm, opened, batches, validation)
  return [one.model for one in trained], trained[0].rate


def measure(config: ConfigDict, run: Run) -> list[Row]:
  """Trains every arm on facts and asks about facts of each kind."""
  options, opened, rows = config.reasoning, open_text(config), Rows('reasoning')
  by_arm: dict[tuple, dict[str, np.ndarray]] = {}  # case -> arm -> accuracies [S]
  for arm in options.arms:
    for training in TRAININGS:
      if training == 'sentences' and arm not in options.naive_arms:
        continue
      where = {'arm': arm, 'training': training}
      trained, rate = train(config, run, opened, arm, training)
      if rate is not None:
        fit.add_rate(rows, where, options, rate)
      for kind, wording in CASES:
        asked = [base.questions(kind, wording) for base in bases(config)]
        # The wordings of a fact are one after the other.
        each = len(facts.ASKED[wording])
        groups = [[(seed, i // each) for i in range(len(some))] for seed, some in enumerate(asked)]
        of_case = {'training': training, 'facts': kind, 'wording': wording}
        answers = ask(config, run, trained, asked)
        case = Case({'arm': arm} | of_case, asked, answers, groups)
        add_case(rows, case)
        for protocol, quantity in PROTOCOLS.items():
          cell = *of_case.items(), ('protocol', protocol)
          by_arm.setdefault(cell, {})[arm] = case.values(f'accuracy_{quantity}')
      if options.questions and training == 'questions':
        _add_own(rows, config, run, where, trained)
    if options.questions and arm in config.loss.arms:
      trained = [one.model for one in loss.train(config, run, arm)]
      _add_own(rows, config, run, {'arm': arm, 'training': 'text'}, trained)
  note = 'above 0: better than the reference; paired by seed'
  for cell, accuracies in by_arm.items():
    for reference in options.references:
      if reference in accuracies and len(accuracies) > 1:
        for arm, found in stats.arms(accuracies, reference).items():
          where = {'arm': arm, 'against': reference} | dict(cell)
          rows.add(where, 'difference_accuracy', found, 'ratio', note)
  return rows


def own_questions(config: ConfigDict) -> list[Question]:
  """The user's questions, at most `reasoning.limit` of them where that is not 0."""
  options = config.reasoning
  found = questions.read_questions(options.questions, options.split)
  return found[: options.limit or None]


def _add_own(
  rows: Rows, config: ConfigDict, run: Run, where: dict[str, str], trained: Sequence[TrainedModel]
) -> None:
  asked = [own_questions(config)] * len(trained)
  source = pathlib.Path(config.reasoning.questions.rstrip('/')).stem.replace(',', '_')
  answers = ask(config, run, trained, asked)
  add_case(rows, Case(where | {'questions': source}, asked, answers, alike=True))


def ask(
  config: ConfigDict,
  run: Run,
  trained: Sequence[TrainedModel],
  asked: Sequence[Sequence[Question]],
) -> list[choice.Answers]:
  """What each model answers to its questions."""
  options = config.reasoning
  return [
    choice.ask(
      functools.partial(_speaker(one.module), one.variables), some, one.tokenizer,
      processes.own_mesh(run.mesh), length=options.context, batch_size=options.ask_batch,
      layout=options.layout,
    )
    for one, some in zip(trained, asked, strict=True)
  ]  # fmt: skip


@functools.cache
def _speaker(module: LanguageModel) -> jax.stages.Wrapped:
  """(variables, batch, places) -> log-probabilities [B, P, V] of the next tokens."""

  @jax.jit
  def speak(variables: Any, batch: Mapping[str, jax.Array], places: jax.Array) -> jax.Array:
    # The arms draw nothing at random.
    return jax.nn.log_softmax(module.apply(variables, batch, places, None, method='logits_at'))

  return speak


def add_case(rows: Rows, case: Case) -> None:
  """All protocols of a case: means over models."""
  chance = case.mean('chance')
  for protocol, quantity in PROTOCOLS.items():
    where = dict(case.where) | {'protocol': protocol}
    put = functools.partial(rows.add, where, unit='ratio')
    accuracy = case.estimate(f'accuracy_{quantity}')
    put('accuracy', accuracy, note='' if case.alike else 'the seeds have different facts')
    known = choice.above_chance(accuracy, chance)
    put('accuracy_above_chance', known, note='guessing taken out')
    put('chance', chance)
    subjects = [question.subject for question in case.questions[0]]
    if case.alike and len(set(subjects)) > 1:
      # Of MMLU: the mean over subjects of the score in each; error over seeds.
      above, below = (stats.by_group(one, subjects) for one in case.sums(f'accuracy_{quantity}'))
      macro = stats.mean((above / below).mean(axis=1), 'seeds')
      put('accuracy_macro', macro, note=f'mean over {len(set(subjects))} subjects')
    if protocol == 'log_likelihood':
      _add_likelihood(put, case, accuracy, chance)
    else:
      _add_sampling(put, case, protocol)


def _add_likelihood(put: functools.partial, case: Case, accuracy: Estimate, chance: float) -> None:
  """Whether places are chosen alike, and how far from chance the answers are."""
  note = 'of the letter alone, or of a space and the letter'
  for form in ('bare', 'spaced'):
    put(f'accuracy_{form}', case.mean(f'accuracy_log_likelihood_{form}'), note=note)
  note = 'each place of the right option alike'
  put('balanced_accuracy', case.mean('balanced_accuracy'), note=note)
  note = 'always naming the commonest right place'
  put('best_constant', case.mean('best_constant'), note=note)
  chosen = [case.mean(key) for key in case.quantities[0] if key.startswith('chosen_')]
  put('most_chosen', max(chosen), note='share of the place that is chosen most')
  put('truncated', case.mean('truncated'))
  if case.groups is not None:
    above, below = (
      np.concatenate([one['accuracy_log_likelihood'][part] for one in case.quantities])
      for part in (0, 1)
    )
    labels = [f'{seed} {fact}' for some in case.groups for seed, fact in some]
    accuracy = stats.ratio(above, below, labels, 'facts')
  if accuracy.sem:
    note = LEAK if case.where.get('facts') == 'unseen' else 'standard errors above chance'
    put('z_from_chance', (accuracy.value - chance) / accuracy.sem, note=note)


def _add_sampling(put: functools.partial, case: Case, protocol: str) -> None:
  """The factors of a sampled score, the score as drawn, and its share of what is known."""
  index, quantity = int(protocol == 'sampled_2'), f'accuracy_{PROTOCOLS[protocol]}'
  put('accuracy_given_letter', case.estimate(f'{quantity}_given_letter'))
  put('p_valid_letter', case.estimate('p_valid_letter' + '_two_tokens' * index))
  put('p_space', case.estimate('p_space'), note='of the first token')
  note = 'a letter after it would count as published'
  put('p_other_blank', case.estimate('p_other_blank'), note=note)
  drawn = [
    choice.sampled(one, asked, RUNS, seed)[index]
    for seed, (one, asked) in enumerate(zip(case.answers, case.questions))
  ]
  found = stats.mean(np.mean(drawn, axis=1), 'seeds')
  put('accuracy_drawn', found, note=f'{RUNS} runs of sampling')
  deviation = np.mean(drawn, axis=0).std(ddof=1)
  put('accuracy_drawn_deviation', deviation, note=f'standard deviation of the {RUNS} runs')
  known = case.values('accuracy_log_likelihood')
  if not case.alike and np.all(known > 0):
    share = stats.mean(case.values(quantity) / known)
    put('share_of_log_likelihood', share, note='of the accuracy by log-likelihood')


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Scores of asked facts in new wordings by protocol, a group of bars for each model."""
  cases = {'facts': 'asked', 'wording': 'test'}
  found: dict[str, dict[str, Row]] = {}
  for row in select(rows, 'reasoning', 'accuracy', **cases):
    label = models.ARMS[row.where['arm']].label.replace(', ', '\n')
    protocol = row.where['protocol'].replace('_', ' ')
    found.setdefault(protocol, {})[f'{label}\n{row.where["training"]}'] = row
  if not found:
    return {}
  groups = list(found['log likelihood'])
  several = {protocol: [by_group[one] for one in groups] for protocol, by_group in found.items()}
  [*_, chance] = select(rows, 'reasoning', 'chance', **cases)
  title = 'Facts asked in new wordings, by arm and training'
  levels = {'chance': chance.measured or 0.0}
  panel = plots.row_bars(title, 'accuracy ± standard error', groups, several, levels)
  return {'reasoning.png': [panel]}


TABLE = recipe.Table(
  'reasoning',
  measure,
  caption='Multiple choice on synthetic facts in the template of MMLU, the same answers scored by '
  'log-likelihood over the letters (`log_likelihood`) and as published, by one or two sampled '
  'tokens (`sampled_1`, `sampled_2`, in expectation). Facts are `asked` in training (here in '
  'wordings that were never seen), `told` (shown in sentences only), or `unseen`, which must be '
  'at chance. Models: `none` is untrained, `sentences` never saw the template, `questions` saw '
  'it, the answer after a space in a given share of them. `accuracy_above_chance` has guessing '
  'taken out, (accuracy − chance) / (1 − chance): the share that is known. '
  '`accuracy_given_letter` and `p_valid_letter` are the two factors of a sampled score. Errors '
  'are over seeds, each with its own facts. Differences of arms are paired by seed, with the '
  'residual variance of all arms. Each arm has its own `learning_rate`, chosen by the loss on '
  'other documents of the facts in training, with one seed and a share of the steps.',
  shown=(
    'accuracy',
    'accuracy_above_chance',
    'difference_accuracy',
    'accuracy_given_letter',
    'p_valid_letter',
    'p_space',
    'chance',
    'z_from_chance',
  ),
  rows=lambda where: (
    where.get('training') in ('none', 'questions')
    and where.get('facts') in ('asked', 'unseen')
    and where.get('wording') == 'test'
  ),
  check=check,
  pictures=pictures,
  plans=lambda config: models.plans(config, 'reasoning', config.reasoning.vocab_size),
  sources=recipe.text_of,
)
