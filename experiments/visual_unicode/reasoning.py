# SPDX-License-Identifier: Apache-2.0
"""Multiple choice after training on a base of facts: what is known and how it is written, apart.

The published scores are of one sampled token on MMLU, where no model is above chance and the gap
between frozen and trained rows is that of the probability of writing a letter at all. Here the same
answers are scored by log-likelihood, by one sampled token and by two.
"""

import functools
import itertools
import pathlib
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments import fit, recipe
from experiments.recipe import Pictures, Run
from experiments.visual_unicode import loss, models, text
from experiments.visual_unicode.text import Text
from lib.data import pipeline
from lib.errors import InputError
from lib.language_model import TrainedModel
from lib.parallel import processes
from lib.report import plots
from lib.report.plots import Picture
from lib.report.results import Row, Rows, select
from lib.tasks import facts, multiple_choice, questions
from lib.tasks.multiple_choice import PROTOCOLS, Case
from lib.tasks.questions import Question
from lib.tokenizers.base import Tokenizer
from lib.tokenizers.restricted import train_restricted
from lib.tokenizers.unicode import train_unicode

TRAININGS = ('none', 'sentences', 'questions')
CASES = (('asked', 'train'), ('asked', 'test'), ('told', 'test'), ('unseen', 'test'))
DOCUMENTS = 2**20  # of training: more than any run reads
VALIDATION = 2**20  # the stream of validation documents is that of this seed
CHECKED = 2000  # documents of each seed that the tokenizer of a check is learned from at most


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
  draft = text.draft(config)
  draft.reasoning.sample = min(options.sample, CHECKED)
  multiple_choice.letters(open_text(draft).tokenizer, options.options)
  if options.questions:
    own_questions(config)
    loss.check(config)


def bases(config: ConfigDict) -> list[facts.FactBase]:
  """A base of facts for each seed."""
  options = config.reasoning
  return [
    facts.FactBase(
      options.entities,
      options.attributes,
      options.words,
      options.options,
      options.told,
      options.unseen,
      seed,
    )
    for seed in fit.seeds(config, options)
  ]


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
  return Text('facts', tokenizer, text.render_tokens(config, tokenizer))


@functools.cache
def _tokenizer(sample: tuple[bytes, ...], kind: str, vocab_size: int, longest: int) -> Tokenizer:
  train = train_unicode if kind == 'unicode' else train_restricted
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
      lanes=options.lanes,
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
  trained = models.train(config, run, options, table, arm, opened, batches, validation, '')
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
        case = Case(asked, answers, groups, unknown=kind == 'unseen')
        case.add(rows, {'arm': arm} | of_case)
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
    for where, found in models.differences(accuracies, options.references):
      rows.add(where | dict(cell), 'difference_accuracy', found, 'ratio', note)
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
  Case(asked, answers, alike=True).add(rows, where | {'questions': source})


def ask(
  config: ConfigDict,
  run: Run,
  trained: Sequence[TrainedModel],
  asked: Sequence[Sequence[Question]],
) -> list[multiple_choice.Answers]:
  """What each model answers to its questions."""
  options, tokenizer = config.reasoning, trained[0].tokenizer
  assert tokenizer is not None
  return [
    multiple_choice.ask(
      one.next_log_probs,
      some,
      tokenizer,
      processes.local_mesh(run.mesh),
      length=options.context,
      batch_size=options.ask_batch,
      layout=options.layout,
    )
    for one, some in zip(trained, asked, strict=True)
  ]


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
  panel = plots.row_bars(title, 'accuracy', groups, several, levels)
  caption = (
    'Multiple choice on facts, by what the rows are and how the model was trained, scored by '
    'log-likelihood and by one or two sampled tokens. Bars: one standard error over seeds.'
  )
  return {'reasoning.png': Picture(caption, [panel])}


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
  train_specs=lambda config: models.train_specs(config, 'reasoning', config.reasoning.vocab_size),
  sources=recipe.text_of,
)
