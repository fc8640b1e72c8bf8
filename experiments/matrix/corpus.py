# SPDX-License-Identifier: Apache-2.0
"""The same bytes as rows of any tokenizer's tokens, and what a model pays to read them.

Text is cut into examples of `grid.example_bytes` bytes wherever they end, and each is read alone:
so every tokenizer has equally many bytes of context, and every byte is scored. Rows are as long as
the longest example and have as many whole examples as fit (`lib.data.pipeline.fitted`); attention
and positions stop at their borders. A step reads about `grid.batch_bytes` bytes.

FLOPs are counted by formula, from the tokens of the examples themselves, padding left out: forward,
2 for each parameter of the decoder and each entry of the readout and token, and 4·L·D for each pair
of a token and one that it sees; training, three times that. Where M1 makes the tokens, its 2 a
parameter and byte come on top, once in reading and once in training. To look up or to draw rows
of an embedding counts as nothing.
"""

import functools
from collections.abc import Iterator, Sequence

import grain
import numpy as np
from ml_collections import ConfigDict

from experiments import coders, runner
from experiments.matrix import tokens
from lib import stats
from lib.data import epochs, excerpts, files, pipeline, sources
from lib.data.ngram_text import NgramText
from lib.errors import InputError
from lib.evals import ngram
from lib.mesh import batch_devices
from lib.report.results import Row
from lib.tokenizers import Tokenizer
from lib.train.experiment import Batch

BYTES_A_TOKEN = 4  # about the most that tokens of the grid cover
SHORT = 2.0  # bytes a token below which a tokenizer's tokens are short
MOST = 4  # examples of one held-out document: documents are the units of errors


def examples(config: ConfigDict, options: ConfigDict, split: str) -> excerpts.Excerpts:
  """The text of a split in examples of `example_bytes`, the same for every tokenizer.

  Raises:
    InputError: no document is that long.
  """
  source, length = config.data.source, options.example_bytes
  return excerpts.take(
    sources.open_source(source, split),
    length=length,
    count=max(1, options[f'{split}_bytes'] // length),
    most=None if split == 'train' else MOST,
    name=f'{source} ({split})',
  )


def check_examples(config: ConfigDict, options: ConfigDict, where: str) -> None:
  """Raises InputError where no document is as long as an example."""
  one = ConfigDict(options.to_dict() | {f'{split}_bytes': 1 for split in files.SPLITS})
  for split in files.SPLITS:
    source = sources.open_source(config.data.source, split)
    if not isinstance(source, NgramText):  # of which each document takes counting its law first
      examples(config, one, split)
    elif options.example_bytes > source.length:
      raise InputError(
        f'{where}.example_bytes must be at most {source.length}, the length of the documents of '
        f'{config.data.source}; got {options.example_bytes}.'
      )


def law_nats(config: ConfigDict, found: excerpts.Excerpts) -> np.ndarray | None:
  """Nats [N] of held-out examples under the law that wrote their text; None if it is unknown.

  The law also sees the document before the example, so no model of the example alone is better on
  average.
  """
  source = sources.open_source(config.data.source, 'test')
  if not isinstance(source, NgramText):
    return None
  nats = []
  for index, text in zip(found.documents, found.texts, strict=True):
    document, size = source[int(index)], len(text)
    [start, *_] = (
      one for one in range(0, len(document), size) if document[one : one + size] == text
    )
    nats.append(source.nats(document)[start : start + size].sum())
  return np.array(nats)


def check_epochs(config: ConfigDict, options: ConfigDict, where: str) -> None:
  """Raises InputError where training at `gpu` or `paper` scale would repeat its text too often.

  Tokens are not made yet, so a token is taken to cover BYTES_A_TOKEN bytes.
  """
  weights = 12 * options.layers * options.dim**2 + config.tokenizers.vocab_size * options.dim
  read = options.teraflops * 1e12 * BYTES_A_TOKEN / (6 * weights)
  epochs.check('data.source', config.data.source, read, config.scale)
  times = read / options.train_bytes
  if config.scale in epochs.REFUSED_AT and times > epochs.MOST:
    raise InputError(
      f'{where}.train_bytes of {options.train_bytes:.3g} would be read {times:.3g} times over, '
      f'which a model memorises; at most {epochs.MOST} epochs are right: set it higher.'
    )


class Corpus:
  """The text of the grid as tokens of one tokenizer.

  Args:
    config: of the recipe.
    run: its workdir keeps tokenizers and tokens.
    name: the tokenizer.
    label: what rows call it.
    options: the section of the config with the text and the models, such as config.grid.
  """

  def __init__(
    self, config: ConfigDict, run: runner.Run, name: str, label: str, options: ConfigDict
  ):
    self._config, self._run, self.name, self.options = config, run, name, options
    self.tokenizer: Tokenizer = tokens.make(config, run, name)
    self.label = label
    encode = lambda found: coders.encode(run, self.tokenizer, found.texts, known=True)
    train, chosen_by, held_out = (examples(config, options, split) for split in files.SPLITS)
    self.train, self.validation, self.test = map(encode, (train, chosen_by, held_out))
    self.validation_bytes = len(chosen_by) * options.example_bytes
    self.train_bytes = len(train) * options.example_bytes
    self.test_examples: Sequence[bytes] = held_out.texts
    _, documents = np.unique(held_out.documents, return_inverse=True)
    self._document = np.repeat(documents, self.test.counts)  # of each held-out token
    self.test_bytes = np.bincount(documents) * float(options.example_bytes)  # [D]
    law = law_nats(config, held_out)
    self.law = None if law is None else np.bincount(documents, law)  # nats [D] of the text's law
    longest = max(int(part.counts.max()) for part in (self.train, self.validation, self.test))
    self.length = -(-longest // 8) * 8

  def by_document(self, nats: np.ndarray) -> np.ndarray:
    """Sums [D] over the tokens of each held-out document of `nats` [tokens], in their order."""
    return np.bincount(self._document, nats, minlength=self.test_bytes.size)

  @functools.cached_property
  def _rows(self) -> dict[str, np.ndarray]:
    return pipeline.fitted(self.train, self.tokenizer.vocab_size, self.length)

  @functools.cached_property
  def batch_size(self) -> int:
    """Rows of a step, a multiple of the devices that share it."""
    devices = batch_devices(self._run.mesh)
    row_bytes = self.train_bytes / len(self._rows['targets'])
    return max(1, round(self.options.batch_bytes / row_bytes / devices)) * devices

  @property
  def step_bytes(self) -> float:
    """Bytes of text that a step reads, on average."""
    return self.train_bytes * self.batch_size / len(self._rows['targets'])

  def batches(self, seed: int) -> grain.IterDataset:
    """Training batches, in a new order in each epoch."""
    return pipeline.rows(self._rows, batch_size=self.batch_size, seed=seed)

  def held_out(self, text: pipeline.Encoded) -> Iterator[Batch]:
    """One pass over `test` or `validation`; the last batch is filled up with empty rows."""
    found = pipeline.fitted(text, self.tokenizer.vocab_size, self.length)
    missing = -len(found['targets']) % self.batch_size
    whole = {field: np.pad(values, ((0, missing), (0, 0))) for field, values in found.items()}
    for start in range(0, len(whole['targets']), self.batch_size):
      part = slice(start, start + self.batch_size)
      yield {field: values[part] for field, values in whole.items()}

  @property
  def bytes_per_token(self) -> float:
    """Of the test text."""
    return float(self.test_bytes.sum() / self.test.tokens.shape[1])

  def forward(self, parameters: int) -> float:
    """FLOPs per byte to read training text with a decoder of this number of parameters."""
    options, counts = self.options, self.train.counts
    weights = parameters + self.tokenizer.vocab_size * options.dim
    pairs = (counts * (counts + 1) // 2).sum()
    flops = 2 * weights * counts.sum() + 4 * options.layers * options.dim * pairs
    return float(flops / self.train_bytes)

  @functools.cached_property
  def m1_flops(self) -> int:
    """FLOPs a byte of M1, where it makes the tokens."""
    return tokens.m1_flops(self._config, self._run, self.name)

  def steps(self, parameters: int) -> int:
    """Training steps that the section's `teraflops` allow."""
    flops = (3 * self.forward(parameters) + self.m1_flops) * self.step_bytes
    return max(1, round(self.options.teraflops * 1e12 / flops))

  def mflops(self, parameters: int) -> float:
    """MFLOP to read a byte with a decoder of this number of parameters, M1 included."""
    return (self.forward(parameters) + self.m1_flops) / 1e6

  @property
  def family(self) -> str:
    """Tokenizers that share a learning rate: a choice for each of them takes too long.

    Rates depend on the number of steps and on how much a token says: tokens of a byte or two, of
    more bytes, and windows of compressed text.
    """
    if tokens.by_windows(self.name):
      return 'windows'
    return 'short' if self.bytes_per_token < SHORT else 'long'

  @property
  def about_test(self) -> str:
    """What is scored, for a note."""
    options = self.options
    return (
      f'{int(self.test_bytes.sum()):,} bytes of {self.test_bytes.size} held-out documents, in '
      f'examples of {options.example_bytes}'
    )

  def costs(self, table: str, row: str, parameters: int) -> list[Row]:
    """Rows of what training reads and spends, and of the bits of a unigram."""
    forward, steps = self.forward(parameters), self.steps(parameters)
    read = steps * self.step_bytes
    spent = (3 * forward + self.m1_flops) * read
    times = read / self.train_bytes
    note = f'{times:.2g} times {self.train_bytes:,} bytes of text'
    nats = stats.ratio(self.unigram, self.test_bytes)
    return [
      Row(table, row, 'steps', steps, unit='steps'),
      Row(table, row, 'training_bytes', read, unit='bytes', note=note),
      Row(table, row, 'training_gflops', spent / 1e9, unit='GFLOP'),
      Row.of(table, row, 'unigram_bits_per_byte', nats.times(1 / np.log(2)), unit='bits/byte',
             note='over the tokens, counted on the training text'),
    ]  # fmt: skip

  @functools.cached_property
  def unigram(self) -> np.ndarray:
    """Nats [D] of each held-out document under a unigram counted on the training text."""
    model = ngram.NGram(self.train.tokens[0], 0, self.tokenizer.vocab_size)
    return self.by_document(model.nats(self.test.tokens[0]))
