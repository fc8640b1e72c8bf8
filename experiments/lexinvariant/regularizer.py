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
from ml_collections import ConfigDict

from experiments import runner
from experiments.lexinvariant import models, text
from lib.data import ciphers, in_context, pipeline, sources
from lib.data.in_context import Example, ExampleDocuments, Symbols
from lib.errors import InputError
from lib.evals import in_context as scores
from lib.report.results import Row, mean_and_sem, name
from lib.tokenizers import Characters
from lib.train.experiment import Variables

HELD_OUT = b'0123456789'  # symbols that no training document holds
ALPHABET = text.LETTERS + in_context.FORMAT + HELD_OUT
TOKENIZER = Characters(ALPHABET)
TRAIN, TEST = 1 << 20, 3 << 20  # seeds of examples; sizes were chosen on others
TEXT_BYTES = 2**22  # of the training text


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


def arms(config: ConfigDict) -> list[Arm]:
  """Every arm of the table."""
  return [Arm(*arm) for arm in config.regularizer.arms]


def seeds(config: ConfigDict) -> range:
  """Seeds of the models of each arm."""
  return range(config.seed, config.seed + config.regularizer.seeds)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Trains every arm, and scores text, tasks, and tasks over symbols without a known name."""
  rows = []
  for arm in arms(config):
    trained = {seed: fit(config, run, arm, seed) for seed in seeds(config)}
    rows += _text(config, arm, list(trained.values()))
    readers = [models.reader(one) for one in trained.values()]
    for symbols in SYMBOLS:
      found = [accuracies(config, reader, symbols) for reader in readers]
      for task in found[0]:
        note = f'of {config.regularizer.examples} answers over {SYMBOLS[symbols]}'
        rows.append(mean_accuracy('regularizer', arm.row, f'{task}_accuracy_{symbols}',
                          [one[task] for one in found], note))  # fmt: skip
    for seed, one in trained.items():
      rows += _norms(f'{arm.row},{name(seed=seed)}', one.history)
  return rows


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
  options = config.regularizer.copy_and_resolve_references()
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


def fit(config: ConfigDict, run: runner.Run, arm: Arm, seed: int) -> models.Trained:
  """A model of an arm, trained now or by another table of this run."""
  options = of_arm(config, arm)
  held = _stretches(config, 'validation')

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
    f'regularizer/{arm.row},{name(seed=seed)}',
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
  documents = _InTurn(_texts(config, 'train', TEXT_BYTES), *made)
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
  """What is learned beside text, in turn."""
  options, symbols = config.regularizer, Symbols(text.LETTERS)
  lookup = in_context.LookUp(symbols, options.pairs, options.questions)
  return [lookup, lookup, in_context.Permutation(symbols, options.demonstrations)]


def _texts(config: ConfigDict, split: str, size: int) -> list[bytes]:
  """Stretches of a row's length of a split's documents, folded into letters and white space."""
  source, length = sources.open_source(config.regularizer.source, split), config.regularizer.length
  whole = ciphers.fold(b'\n'.join(sources.sample(source, size)), text.ALPHABETS['letters'])
  return [whole[at : at + length] for at in range(0, len(whole) - length + 1, length)]


def _stretches(config: ConfigDict, split: str) -> np.ndarray:
  """ids [N, T] of held-out text, drawn from the whole split."""
  options = config.regularizer
  found = _texts(config, split, TEXT_BYTES)
  order = np.random.default_rng(0).permutation(len(found))[: options.test_sequences]
  return np.stack([TOKENIZER.encode(found[i]) for i in order])


def examples(config: ConfigDict, count: int, alphabet: bytes) -> dict[str, list[Example]]:
  """Questions of each task over an alphabet, from seeds that no training example has."""
  options, symbols = config.regularizer, Symbols(alphabet)
  tasks: dict[str, in_context.Task] = {
    'lookup': in_context.LookUp(symbols, options.pairs),
    'permutation': in_context.Permutation(symbols, options.demonstrations),
  }
  made = {task: ExampleDocuments(law, count, TEST) for task, law in tasks.items()}
  return {task: [one.example(i) for i in range(count)] for task, one in made.items()}


def accuracies(
  config: ConfigDict, reader: scores.Logits, symbols: str
) -> Mapping[str, scores.Accuracy]:
  """Generation accuracy of a model in each task over symbols known, held out or concealed."""
  options = config.regularizer
  asked = examples(config, options.examples, HELD_OUT if symbols == 'held_out' else text.LETTERS)
  hidden = np.float32(symbols == 'concealed')
  logits = lambda batch: reader(dict(batch) | {'concealed': hidden})
  return {
    task: scores.generation_accuracy(logits, these, TOKENIZER, length=options.length)
    for task, these in asked.items()
  }


def _text(config: ConfigDict, arm: Arm, trained: Sequence[models.Trained]) -> list[Row]:
  """Nats of held-out text under its own names, and the norms of trained rows at the end."""
  ids = _stretches(config, 'test')
  by_seed = [models.scorer(one.model, len(ALPHABET))(one.variables, ids) for one in trained]
  values = [nats.mean() for nats in by_seed] if len(by_seed) > 1 else by_seed[0].mean(axis=1)
  value, sem = mean_and_sem([float(v) for v in values])
  note = f'{len(ids)} stretches of {config.regularizer.length}, no name hidden'
  return [Row('regularizer', arm.row, 'text_nats_per_symbol', value, sem, unit='nats', note=note)]


def mean_accuracy(
  table: str, row: str, column: str, found: Sequence[scores.Accuracy], note: str
) -> Row:
  """Mean accuracy of several models; the error is over them, or over examples for a single one."""
  value, sem = mean_and_sem([one.symbols for one in found])
  sem = found[0].symbols_sem if sem is None else sem
  return Row(table, row, column, value, sem, unit='fraction', note=note)


def _norms(row: str, history: Sequence[Mapping]) -> list[Row]:
  """Length of the letters' trained rows by step; random rows have 1."""
  return [
    Row('regularizer', row, f'row_norm_at_step_{line["step"]}', line[key],
        note='mean length of a trained row over √width; a random Gaussian row has 1')
    for line in history
    if (key := 'validation/row_norm') in line
  ]  # fmt: skip
