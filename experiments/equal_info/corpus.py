# SPDX-License-Identifier: Apache-2.0
"""The text that M2 reads, as tokens of one method."""

import functools
import itertools
from collections.abc import Iterator

import grain
import numpy as np
from ml_collections import ConfigDict

from experiments import coders, runner
from experiments.equal_info import texts
from lib.data import pipeline
from lib.data.encoded import Encoded
from lib.data.excerpts import Excerpts
from lib.tokenizers import EqualInfo
from lib.tokenizers.base import Tokenizer
from lib.tokenizers.coding.window_streams import SteppedEqualInfo
from lib.train.experiment import Batch


class Corpus:
  """The text of M2 as tokens of one method, encoded once a workdir.

  Text is cut into examples of equal bytes, each a stream of its own, as in the paper.

  Args:
    config: of the recipe.
    run: its workdir keeps tokenizers and tokens.
    method: the tokenizer.
  """

  def __init__(self, config: ConfigDict, run: runner.Run, method: coders.Method):
    self.config, self.run, self.method = config, run, method
    self.tokenizer: Tokenizer = coders.make(config, run, method)

  @property
  def vocab_size(self) -> int:
    """V."""
    return self.tokenizer.vocab_size

  @property
  def window_bits(self) -> int:
    """Bits of an equal-info window; 0 for all other tokenizers."""
    if isinstance(self.tokenizer, EqualInfo):
      return self.tokenizer.table.bits
    return self.tokenizer.bits if isinstance(self.tokenizer, SteppedEqualInfo) else 0

  @property
  def window(self) -> int:
    """Tokens of a window, which begins and ends with a token; 0 where there is no such window."""
    bits, token_bits = self.window_bits, self.method.token_bits
    return bits // token_bits if token_bits and bits % token_bits == 0 else 0

  @functools.cached_property
  def train(self) -> Encoded:
    """Training examples; fewer where M1 has to step through them."""
    return self._encode('train')

  @functools.cached_property
  def validation(self) -> Encoded:
    """Examples that training is watched on."""
    return self._encode('validation')

  @functools.cached_property
  def test(self) -> Encoded:
    """Examples that the table is measured on."""
    return self._encode('test')

  def excerpts(self, split: str) -> Excerpts:
    """The text of a split's examples; each knows its document."""
    options = self.config.m2
    total = train_bytes(options, self.method) if split == 'train' else options[f'{split}_bytes']
    return texts.stretches(self.config, split, options.example_bytes, total)

  def _encode(self, split: str) -> Encoded:
    return coders.encode(self.run, self.tokenizer, self.excerpts(split).texts, known=True)

  def batches(self, seed: int) -> grain.IterDataset:
    """Training batches."""
    options = self.config.m2
    return pipeline.batches(
      self.train, self.tokenizer, batch_size=options.batch_size, length=options.length, seed=seed,
      pack=options.pack,
    )  # fmt: skip

  def windows(self, examples: Encoded) -> np.ndarray:
    """The windows of all examples, int64 [W, window]; -1 where the last of one is cut short."""
    size = self.window
    counts = examples.counts
    windows = -(-counts // size)
    found = np.full(int(windows.sum()) * size, -1, np.int64)
    starts = np.cumsum(windows * size) - windows * size  # of each example, in whole windows
    shift = np.repeat(starts - (np.cumsum(counts) - counts), counts)
    found[np.arange(counts.sum()) + shift] = examples.tokens[0]
    return found.reshape(-1, size)

  def windows_read(self, seed: int, steps: int) -> np.ndarray:
    """The windows that M2 reads whole in the rows of its training, int64 [W, window].

    An example that a row goes on with begins amid a window; all of its windows are whole at its
    end, so they are counted from there.
    """
    size = self.window
    found = []
    for batch in itertools.islice(self.batches(seed), steps):
      targets, segments, positions = batch['targets'], batch['segments'], batch['positions']
      first = segments == 1
      goes_on = first & (batch['inputs'][:, :1] != self.vocab_size)
      ends = first.sum(axis=1, keepdims=True)
      place = np.where(goes_on, positions - ends, positions) % size
      known = (segments > 0) & ~(goes_on & (ends == targets.shape[1]))
      last = targets.shape[1] - size + 1
      whole = known[:, :last] & (segments[:, :last] == segments[:, size - 1 :])
      row, start = np.nonzero(whole & (place[:, :last] == 0))
      found.append(targets[row[:, None], start[:, None] + np.arange(size)])
    return np.concatenate(found).astype(np.int64)

  def rows(self, examples: Encoded) -> Iterator[Batch]:
    """One pass over examples, each a row of its own, cropped to the length of training."""
    options = self.config.m2
    longest = -(-int(examples.counts.max()) // 8) * 8
    return iter(
      pipeline.batches(
        examples, self.tokenizer, batch_size=options.batch_size,
        length=min(longest, options.length), seed=0, pack=False, shuffle=False, repeat=False,
      )
    )  # fmt: skip


def train_bytes(options: ConfigDict, method: coders.Method) -> int:
  """Bytes of the train split that M2 is given: fewer where M1 has to step through them."""
  return options.stepped_bytes if method.steps_m1 else options.train_bytes
