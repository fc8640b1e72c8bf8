# SPDX-License-Identifier: Apache-2.0
"""The same bytes as rows of any tokenizer's tokens.

Text is cut into examples of an equal number of bytes, at any byte. Each is read separately and in
full, so every tokenizer has the same bytes of context, and every byte is scored. Rows are as long
as the longest example and contain as many whole examples as fit (`pipeline.pack_whole_documents`);
attention and positions stop at their borders.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import grain
import numpy as np

from lib.data import pipeline
from lib.data.encoded import Encoded
from lib.data.excerpts import Excerpts
from lib.evals import ngram
from lib.tokenizers.base import Tokenizer


class Examples:
  """Examples of the splits train, validation and test as tokens.

  Args:
    tokenizer: of all of them.
    text: split -> its examples, of one length in bytes.
    encode: texts -> their tokens.
    batch_bytes: bytes of a step, approximately.
    devices: that share a step.

  Attributes:
    train, validation, test: the tokens.
    train_bytes: of the training text.
    test_bytes: float64 [D], of each held-out document, the independent unit of errors.
    length, batch_size: tokens of a row, and rows of a step.
    step_bytes: bytes of a step, on average.
  """

  def __init__(
    self,
    tokenizer: Tokenizer,
    text: Mapping[str, Excerpts],
    encode: Callable[[Sequence[bytes]], Encoded],
    batch_bytes: int,
    devices: int,
  ):
    self.tokenizer, self.text = tokenizer, text
    self.train, self.validation, self.test = (
      encode(text[split].texts) for split in ('train', 'validation', 'test')
    )
    size = len(text['test'].texts[0])
    self.train_bytes = len(text['train']) * size
    _, self._documents = np.unique(text['test'].documents, return_inverse=True)
    self.test_bytes = np.bincount(self._documents) * float(size)
    longest = max(int(part.counts.max()) for part in (self.train, self.validation, self.test))
    self.length = -(-longest // 8) * 8
    self._rows = pipeline.pack_whole_documents(self.train, tokenizer.vocab_size, self.length)
    rows = len(self._rows['targets'])
    self.batch_size = max(1, round(batch_bytes / (self.train_bytes / rows) / devices)) * devices
    self.step_bytes = self.train_bytes * self.batch_size / rows

  def batches(self, seed: int) -> grain.IterDataset:
    """Training batches, in a new order in each epoch."""
    return pipeline.batches_of_rows(self._rows, batch_size=self.batch_size, seed=seed)

  def validated(self, seed: int) -> grain.IterDataset:
    """One pass over the validation text, one example per row, the same for every seed."""
    return pipeline.batches(
      self.validation,
      self.tokenizer,
      batch_size=self.batch_size,
      length=self.length,
      seed=0,
      pack=False,
      shuffle=False,
      repeat=False,
    )

  def by_document(self, nats: Sequence[float] | np.ndarray) -> np.ndarray:
    """Sums [D] over the examples of each held-out document of their nats [N]."""
    return np.bincount(self._documents, nats)

  @functools.cached_property
  def unigram(self) -> np.ndarray:
    """Nats [D] of each held-out document under a unigram counted on the training text."""
    model = ngram.NGram(self.train.tokens[0], 0, self.tokenizer.vocab_size)
    return self.by_document(model.by_document([ids for ids, _ in self.test]))

  @property
  def bytes_per_token(self) -> float:
    """Of the test text."""
    return float(self.test_bytes.sum() / self.test.tokens.shape[1])
