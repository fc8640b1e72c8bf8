# SPDX-License-Identifier: Apache-2.0
"""The same bytes as rows of any tokenizer's tokens, and what a model pays to read them.

Text is cut into examples of `grid.example_bytes` bytes wherever they end, and each is a document:
so every tokenizer has equally many bytes of context, and every byte is scored. Rows are as long as
the longest example and hold as many whole examples as fit (`lib.data.pipeline.fitted`); attention
and positions stop at their borders. A step reads about `grid.batch_bytes` bytes.

FLOPs are counted by formula, from the tokens of the examples themselves, padding left out: forward,
2 for each parameter of the decoder and each entry of the readout and token, and 4·L·D for each pair
of a token and one that it sees; training, three times that. Where M1 makes the tokens, its 2 a
parameter and byte come on top, once in reading and once in training. To look up or to draw rows
of an embedding counts as nothing.
"""

import functools
import math
from collections.abc import Iterator

import grain
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.equal_info import corpus as equal_info
from experiments.equal_info import texts
from experiments.matrix import tokens
from lib.data import pipeline
from lib.data.encoded import Encoded
from lib.evals import ngram
from lib.mesh import batch_devices
from lib.tokenizers import Tokenizer
from lib.train.experiment import Batch


class Corpus:
  """The text of the grid as tokens of one tokenizer.

  Args:
    config: of the recipe.
    run: its workdir keeps tokenizers and tokens.
    name: the tokenizer.
  """

  def __init__(self, config: ConfigDict, run: runner.Run, name: str):
    self._config, self._run, self.name = config, run, name
    self.tokenizer: Tokenizer = tokens.make(config, run, name)
    self.train, self.test = self._encoded('train'), self._encoded('test')
    longest = max(int(part.counts.max()) for part in (self.train, self.test))
    self.length = -(-longest // 8) * 8

  def _encoded(self, split: str) -> Encoded:
    options = self._config.grid
    most = options[f'{split}_bytes']
    examples = texts.stretches(self._config, split, options.example_bytes, most)
    return equal_info.encoded(self._run, self.tokenizer, examples)

  @functools.cached_property
  def _rows(self) -> dict[str, np.ndarray]:
    return pipeline.fitted(self.train, self.tokenizer.vocab_size, self.length)

  @functools.cached_property
  def batch_size(self) -> int:
    """Rows of a step, a multiple of the devices that share it."""
    devices = batch_devices(self._run.mesh)
    row_bytes = self.train.bytes / len(self._rows['targets'])
    return max(1, round(self._config.grid.batch_bytes / row_bytes / devices)) * devices

  @property
  def step_bytes(self) -> float:
    """Bytes of text that a step reads, on average."""
    return self.train.bytes * self.batch_size / len(self._rows['targets'])

  def batches(self, seed: int) -> grain.IterDataset:
    """Training batches, shuffled anew in each epoch."""
    return pipeline.rows(self._rows, batch_size=self.batch_size, seed=seed)

  def held_out(self) -> Iterator[Batch]:
    """One pass over the test text; the last batch is filled up with empty rows."""
    found = pipeline.fitted(self.test, self.tokenizer.vocab_size, self.length)
    missing = -len(found['targets']) % self.batch_size
    whole = {field: np.pad(values, ((0, missing), (0, 0))) for field, values in found.items()}
    for start in range(0, len(whole['targets']), self.batch_size):
      part = slice(start, start + self.batch_size)
      yield {field: values[part] for field, values in whole.items()}

  @property
  def bytes_per_token(self) -> float:
    """Of the test text."""
    return self.test.bytes / self.test.tokens.shape[1]

  def forward(self, parameters: int) -> float:
    """FLOPs a byte of training text to read it with a decoder of so many parameters."""
    options, counts = self._config.grid, self.train.counts
    weights = parameters + self.tokenizer.vocab_size * options.dim
    pairs = (counts * (counts + 1) // 2).sum()
    flops = 2 * weights * counts.sum() + 4 * options.layers * options.dim * pairs
    return float(flops / self.train.bytes)

  @functools.cached_property
  def m1_flops(self) -> int:
    """FLOPs a byte of M1, where it makes the tokens."""
    return tokens.m1_flops(self._config, self._run, self.name)

  def steps(self, parameters: int) -> int:
    """Training steps that `grid.teraflops` allow."""
    flops = (3 * self.forward(parameters) + self.m1_flops) * self.step_bytes
    return max(1, round(self._config.grid.teraflops * 1e12 / flops))

  def levels(self) -> dict[str, float]:
    """Bits a byte of the test text under a uniform and a unigram model of its tokens."""
    size = self.tokenizer.vocab_size
    nats = ngram.NGram(self.train.tokens[0], 0, size).nats(self.test.tokens[0])
    return {
      'uniform_bits_per_byte': math.log2(size) / self.bytes_per_token,
      'unigram_bits_per_byte': float(nats.sum()) / math.log(2) / self.test.bytes,
    }
