# SPDX-License-Identifier: Apache-2.0
"""The same bytes as rows of any tokenizer's tokens.

Text is cut into examples of an equal number of bytes, at any byte. Each is read separately and in
full, so every tokenizer has the same bytes of context, and every byte is scored. Rows are as long
as the longest example and contain as many whole examples as fit (`pipeline.pack_whole_documents`);
attention and positions stop at their borders.

Training text is held in memory, or it is a stream. A stream reads all documents of the split, each
once in an epoch, in another order each time, in lanes (`lib.data.lanes`). Whole documents are cut,
so the last example of a document is shorter than others. The text in memory is then a sample of
such examples: bytes per token, the unigram, the length of a row and the bytes of a step are those
of the sample. A stream can have an example of more tokens than a row, which the sample's longest
one has. Such an example is split, so no text is left out; its second part does not see the first.
Where tokens are bytes there is no such example.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import grain
import numpy as np

from lib.data import lanes, pipeline
from lib.data.encoded import Encoded
from lib.data.excerpts import Excerpts
from lib.data.sources import Source
from lib.evals import ngram
from lib.tokenizers.base import Tokenizer


class Examples:
  """Examples of the splits train, validation and test as tokens.

  Args:
    tokenizer: of all of them.
    text: split -> its examples, of one length in bytes; those of a stream may be shorter.
    encode: texts -> their tokens.
    batch_bytes: bytes of a step, approximately.
    devices: that share a step.
    stream: documents that training reads; by default it reads the examples of train.

  Attributes:
    train, validation, test: the tokens.
    train_bytes: of the training text in memory.
    context: tokens of the training example that a byte is in, on average over the bytes.
    tokens_per_byte: of the training text.
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
    stream: Source | None = None,
  ):
    self.tokenizer, self.text, self._stream = tokenizer, text, stream
    self.train, self.validation, self.test = (
      encode(text[split].texts) for split in ('train', 'validation', 'test')
    )
    sizes = np.array([len(one) for one in text['train'].texts])
    self.train_bytes = int(sizes.sum())
    self.context = float(np.average(self.train.counts, weights=sizes))
    self.tokens_per_byte = float(self.train.counts.mean() / (self.train_bytes / len(sizes)))
    self._example_bytes = len(text['test'].texts[0])
    _, self._documents = np.unique(text['test'].documents, return_inverse=True)
    self.test_bytes = np.bincount(self._documents) * float(self._example_bytes)
    longest = max(int(part.counts.max()) for part in (self.train, self.validation, self.test))
    self.length = -(-longest // 8) * 8
    self._rows = pipeline.pack_whole_documents(self.train, tokenizer.vocab_size, self.length)
    rows = len(self._rows['targets'])
    self.batch_size = max(1, round(batch_bytes / (self.train_bytes / rows) / devices)) * devices
    self.step_bytes = self.train_bytes * self.batch_size / rows

  def batches(self, seed: int) -> grain.IterDataset:
    """Training batches, in a new order in each epoch."""
    if self._stream is not None:
      return pipeline.batches(
        self._stream,
        self.tokenizer,
        batch_size=self.batch_size,
        length=self.length,
        seed=seed,
        example_bytes=self._example_bytes,
        lanes=lanes.default(self.batch_size, len(self._stream)),
      )
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
