# SPDX-License-Identifier: Apache-2.0
"""Lexinvariance as a regulariser (section 3.6): names hidden in part while a model is trained.

The paper scores BIG-bench, which is out of reach here. In its place small models learn text and
in-context tasks side by side: what hiding names costs shows on text, what it gives on tasks over
symbols that were never seen, or whose names are hidden.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import grain
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from experiments import runner
from experiments.lexinvariant import models, text
from lib import stats
from lib.data import epochs, excerpts, in_context, pipeline, sources
from lib.data.in_context import Example, ExampleDocuments, Symbols
from lib.errors import InputError
from lib.evals import in_context as scores
from lib.report.results import Row, name
from lib.tokenizers import Characters
from lib.train.experiment import Variables

HELD_OUT = b'0123456789'  # symbols that no training document holds
ALPHABET = text.LETTERS + in_context.FORMAT + HELD_OUT
TOKENIZER = Characters(ALPHABET)
TEXT = 'letters'  # the vocabulary that text is folded into
TRAIN, TEST = 1 << 20, 3 << 20  # seeds of examples; sizes were chosen on others
NORM = 'validation/row_norm'
NORM_NOTE = 'mean length of a trained row over √width; a random Gaussian row has 1'


class Arm(NamedTuple):
  """How names are hidden while a model is trained.

  Attributes:
    embedding: permuted (B_p; the standard model at p = 0), mixed, interchangeable or lexinvariant.
    p: probability that a name is hidden.
    per: of 'permuted', whether types or occurrences are chosen.
  """

  embedding: str
  p: float = 0.0
  per: str = 'type'

  @property
  def row(self) -> str:
    """Name of the arm in the tables."""
    if self.embedding == 'lexinvariant':
      return name(embedding=self.embedding)
    per = {'per': self.per} if self.embedding == 'permuted' else {}
    return name(embedding=self.embedding, p=self.p, **per)


STANDARD, LEXINVARIANT = Arm('permuted'), Arm('lexinvariant')


def check(config: ConfigDict) -> None:
  """Raises InputError for models, text or tasks that cannot be had."""
  options = config.regularizer
  models.check(options, 'regularizer', len(ALPHABET))
  for arm in arms(config):
    if arm.embedding not in (*models.PARTIAL, 'lexinvariant') or not 0 <= arm.p <= 1:
      raise InputError(
        f'regularizer.arms: {tuple(arm)} is not (embedding, p, per) with an embedding of '
        f'{", ".join(models.PARTIAL)}, lexinvariant and p in 0…1.'
      )
  for field in ('seeds', 'examples', 'test_sequences'):
    if options[field] < 1:
      raise InputError(f'regularizer.{field} must be 1 or more; got {options[field]}.')
  examples(config, 1, HELD_OUT)  # too few symbols for the task are named here
  longest = max(len(ExampleDocuments(task, 1, 0)[0]) for task in _training_tasks(config))
  if longest > options.length:
    raise InputError(
      f'regularizer.length {options.length} is too short for a task of {longest} symbols.'
    )
  for split in ('train', 'validation', 'test'):
    sources.open_source(options.source, split)
  epochs.check('regularizer.source', options.source, _text_bytes(config), config.scale)


def _text_bytes(config: ConfigDict) -> int:
  """Bytes of text that training reads: a quarter of the rows."""
  options = config.regularizer
  return options.steps * options.batch_size * options.length // 4


def arms(config: ConfigDict) -> list[Arm]:
  """Every arm of the table."""
  return [Arm(*arm) for arm in config.regularizer.arms]


def seeds(config: ConfigDict) -> range:
  """Seeds of the models of each arm."""
  return range(config.seed, config.seed + config.regularizer.seeds)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Trains every arm, and scores text, tasks, and tasks over symbols without a known name."""
  rows = []
  nats: dict[str, np.ndarray] = {}
  given: dict[Arm, dict[str, Sequence[scores.Answers]]] = {}
  questions = {symbols: asked(config, symbols) for symbols in SYMBOLS}
  for arm in arms(config):
    trained = {seed: fit(config, run, arm, seed) for seed in seeds(config)}
    rows.append(
      models.rate_row('regularizer', arm.row, config.regularizer, chosen(config, run, arm))
    )
    nats[arm.row] = _text_nats(config, list(trained.values()))
    given[arm] = {}
    for symbols, tasks in questions.items():
      for task, these in tasks.items():
        found = given[arm][f'{task}_{{}}_{symbols}'] = [
          answers(config, one, symbols, these) for one in trained.values()
        ]
        chance = max(scores.guessing(these).values(), key=lambda one: one.value)
        note = f'of {len(these)} answers over {SYMBOLS[symbols]}'
        column = f'{task}_{{}}_{symbols}'
        rows += accuracy_rows('regularizer', arm.row, column, found, chance, note)
    for seed, one in trained.items():
      rows += _norms(f'{arm.row},{name(seed=seed)}', one.history)
    rows += _last_norms(arm, [one.history for one in trained.values()])
  return [*rows, *_above_permuted(given), *_text(config, nats)]


SYMBOLS = {  # how the symbols of a task are known to the model
  'known': 'letters, as in training',
  'held_out': 'digits, which no training document holds',
  'concealed': 'letters, the name of every symbol hidden (p = 1)',
}


class _InTurn:
  """One document of each of several sources in turn; a short source begins again."""

  def __init__(self, *turns: sources.Source):
    self._turns = turns

  def __len__(self) -> int:
    return len(self._turns) * max(map(len, self._turns))

  def __getitem__(self, index: int) -> bytes:
    turn, which = divmod(index, len(self._turns))
    return self._turns[which][turn % len(self._turns[which])]


def of_arm(config: ConfigDict, arm: Arm) -> ConfigDict:
  """The section as an arm has it."""
  options = ConfigDict(config.regularizer)
  options.per = arm.per
  return options


def plans(config: ConfigDict) -> dict[str, Callable[[], runner.Plan]]:
  """The arms; all are of about one size."""
  return {
    f'regularizer/{arm.row}': functools.partial(
      models.plan, config, of_arm(config, arm), arm.embedding, len(ALPHABET)
    )
    for arm in arms(config)
  }


@functools.lru_cache(maxsize=32)
def _chosen(run: runner.Run, config: FrozenConfigDict, arm: Arm) -> ConfigDict:
  """The section at the rate of an arm, chosen by text."""

  def loss(short: ConfigDict, rate: float) -> float:
    run_name = f'regularizer/{arm.row},{name(rate=rate)}'
    trained = _fit(config, run, short, run_name, arm, config.seed)
    return models.last(trained.history, 'validation/nats_per_symbol')

  return models.choose_rate(of_arm(config, arm), loss)


def chosen(config: ConfigDict, run: runner.Run, arm: Arm) -> ConfigDict:
  """The section as an arm has it, at the learning rate that validation text chose."""
  return _chosen(run, FrozenConfigDict(config), arm)


def fit(config: ConfigDict, run: runner.Run, arm: Arm, seed: int) -> models.Trained:
  """A model of an arm, trained now or by another table of this run."""
  run_name = f'regularizer/{arm.row},{name(seed=seed)}'
  return _fit(config, run, chosen(config, run, arm), run_name, arm, seed)


def _fit(
  config: ConfigDict, run: runner.Run, options: ConfigDict, run_name: str, arm: Arm, seed: int
) -> models.Trained:
  held = _stretches(config, 'validation').ids

  def validation(model):
    score = models.scorer(model, len(ALPHABET))

    def evaluate(variables: Variables) -> dict[str, float]:
      found = {'nats_per_symbol': float(score(variables, held).mean())}
      embedding = variables['params']['embedding']
      while 'inner' in embedding:
        embedding = embedding['inner']
      rows = embedding.get('table')
      if rows is not None:  # of the letters: those that training text holds
        norms = np.linalg.norm(np.asarray(rows)[: len(text.LETTERS)], axis=1)
        found['row_norm'] = float(norms.mean() / rows.shape[1] ** 0.5)
      return found

    return evaluate

  return models.fit(
    config,
    run,
    options,
    run_name,
    arm.embedding,
    len(ALPHABET),
    batches(config, arm, seed),
    {'validation': validation},
    seed=seed,
  )


def batches(config: ConfigDict, arm: Arm, seed: int) -> grain.IterDataset:
  """Training batches, a document a row: a quarter text, a half LookUp, a quarter Permutation.

  Each batch says how many names are hidden.
  """
  options = config.regularizer
  count = -(-options.steps * options.batch_size // 4)  # of each turn: no example comes twice
  made = [
    ExampleDocuments(task, count, TRAIN + 3 * seed + n)
    for n, task in enumerate(_training_tasks(config))
  ]
  documents = _InTurn(_texts(config, seed), *made)
  plain = pipeline.batches(
    documents,
    TOKENIZER,
    batch_size=options.batch_size,
    length=options.length,
    seed=seed,
    pack=False,
  )
  if arm.embedding == 'lexinvariant':
    return plain
  return plain.map(
    lambda batch: batch | {'concealed': np.full(len(batch['inputs']), arm.p, np.float32)}
  )


def _training_tasks(config: ConfigDict) -> list[in_context.Task]:
  """The tasks of training documents, in turn."""
  options, symbols = config.regularizer, Symbols(text.LETTERS)
  lookup = in_context.LookUp(symbols, options.pairs, options.questions)
  return [lookup, lookup, in_context.Permutation(symbols, options.demonstrations)]


def _documents(config: ConfigDict, split: str) -> sources.Source:
  return text.folded(config.regularizer.source, TEXT).documents[split]


def _texts(config: ConfigDict, seed: int) -> list[bytes]:
  """Training text in stretches of a row's length, folded into letters and white space."""
  length = config.regularizer.length
  source = _documents(config, 'train')
  whole = b'\n'.join(sources.sample(source, _text_bytes(config) + length, seed))
  return [whole[at : at + length] for at in range(0, len(whole) - length + 1, length)]


def _stretches(config: ConfigDict, split: str) -> text.HeldOut:
  """Held-out text, drawn from the whole split."""
  options = config.regularizer
  found = excerpts.take(
    _documents(config, split),
    length=options.length,
    count=options.test_sequences,
    most=text.of_one_document(options.test_sequences),
    prepare=TOKENIZER.encode,
    name=f'{options.source} ({split})',
  )
  return text.HeldOut(np.stack(found.texts), found.documents)


def examples(config: ConfigDict, count: int, alphabet: bytes) -> dict[str, list[Example]]:
  """Questions of each task over an alphabet, from seeds that no training example has."""
  options, symbols = config.regularizer, Symbols(alphabet)
  tasks: dict[str, in_context.Task] = {
    'lookup': in_context.LookUp(symbols, options.pairs),
    'permutation': in_context.Permutation(symbols, options.demonstrations),
  }
  made = {task: ExampleDocuments(law, count, TEST) for task, law in tasks.items()}
  return {task: [one.example(i) for i in range(count)] for task, one in made.items()}


def asked(config: ConfigDict, symbols: str) -> dict[str, list[Example]]:
  """The questions of each task over symbols known, held out or concealed."""
  alphabet = HELD_OUT if symbols == 'held_out' else text.LETTERS
  return examples(config, config.regularizer.examples, alphabet)


def answers(
  config: ConfigDict, trained: models.Trained, symbols: str, these: Sequence[Example]
) -> scores.Answers:
  """What a model answers to questions over symbols known, held out or concealed."""
  hidden = np.float32(symbols == 'concealed')
  generate = models.generator(trained, length=config.regularizer.length, concealed=hidden)
  return scores.generated_answers(generate, these, TOKENIZER)


def _text_nats(config: ConfigDict, trained: Sequence[models.Trained]) -> np.ndarray:
  """[S, D] whose mean is the nats a symbol of held-out text under its own names."""
  held = _stretches(config, 'test')
  nats = np.stack([
    models.scorer(one.model, len(ALPHABET), seed)(one.variables, held.ids).sum(axis=1)
    for seed, one in enumerate(trained)
  ])  # fmt: skip
  symbols = np.full(len(held.ids), held.ids.shape[1])
  return stats.contributions(
    stats.by_group(nats, held.documents), stats.by_group(symbols, held.documents)
  )


def _text(config: ConfigDict, nats: Mapping[str, np.ndarray]) -> list[Row]:
  """Nats of each arm, [S, D], and by how much they exceed those of both reference arms."""
  note = f'stretches of {config.regularizer.length} symbols, no name hidden'
  put = lambda row, column, found: Row.of('regularizer', row, column, found, unit='nats', note=note)
  rows = [put(row, 'text_nats_per_symbol', stats.crossed(one)) for row, one in nats.items()]
  for column, reference in (('standard', STANDARD), ('lexinvariant', LEXINVARIANT)):
    if reference.row in nats and len(nats) > 1:
      found = stats.arms(nats, reference.row, 'seeds×documents')
      rows += [put(row, f'text_nats_above_{column}', one) for row, one in found.items()]
  return rows


def accuracy_rows(
  table: str,
  row: str,
  column: str,
  found: Sequence[scores.Answers],
  chance: stats.Estimate,
  note: str,
) -> list[Row]:
  """Accuracy of several models on the same examples, as it is and with guessing taken out.

  `column` has {} in the place of the quantity's name.
  """
  right = stats.shares([one.symbols for one in found])
  return [
    Row.of(table, row, column.format('accuracy'), right, unit='fraction', note=note),
    Row.of(table, row, column.format('accuracy_above_chance'), scores.above_chance(right, chance),
           unit='fraction',
           note=f'(accuracy − {chance.value:.3f}) / (1 − {chance.value:.3f}), the best guess’s '
           'accuracy taken out; 0 at least'),
  ]  # fmt: skip


def above(
  table: str,
  row: str,
  column: str,
  found: Sequence[scores.Answers],
  other: Sequence[scores.Answers],
) -> Row:
  """Accuracy of models less that of others of the same seeds, on the same examples.

  The error is over seeds and examples, crossed, of the differences with one gain and one loss added
  to the examples (Bonett and Price 2012, Adjusted Wald confidence interval for a difference of
  binomial proportions based on paired data), so that it is never 0.
  """
  differences = np.stack([a.symbols - b.symbols for a, b in zip(found, other, strict=True)])
  seeds, examples = differences.shape
  added = np.concatenate([differences, np.tile([1.0, -1.0], (seeds, 1))], axis=1)
  error = stats.crossed(added, 'seeds×examples')
  estimate = error._replace(value=float(differences.mean()), n=f'{seeds}×{examples}')
  return Row.of(table, row, column, estimate, unit='fraction',
                note='paired by seed and example')  # fmt: skip


def _above_permuted(given: Mapping[Arm, Mapping[str, Sequence[scores.Answers]]]) -> list[Row]:
  """Accuracy of the arms with some random rows less that of B_p at the same p."""
  return [
    above('regularizer', arm.row, column.format('accuracy_above_permuted'), found, other[column])
    for arm, columns in given.items()
    if arm.embedding in ('mixed', 'interchangeable')
    and (other := given.get(Arm('permuted', arm.p)))
    for column, found in columns.items()
  ]


def _norms(row: str, history: Sequence[Mapping]) -> list[Row]:
  """Length of the letters' trained rows by step; random rows have 1."""
  return [
    Row('regularizer', row, f'row_norm_at_step_{line["step"]}', line[NORM], note=NORM_NOTE)
    for line in history
    if NORM in line
  ]


def _last_norms(arm: Arm, histories: Sequence[Sequence[Mapping]]) -> list[Row]:
  """The same at the end, over seeds."""
  ends = [models.last(history, NORM) for history in histories if any(NORM in h for h in history)]
  if not ends:
    return []
  return [Row.of('regularizer', arm.row, 'row_norm_at_end', stats.mean(ends), note=NORM_NOTE)]
