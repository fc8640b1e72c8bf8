# SPDX-License-Identifier: Apache-2.0
"""Documents that are tokens already: for tokenizers that are too slow to run at every epoch."""

from collections.abc import Sequence

import numpy as np


class Encoded:
  """A source whose documents are int32 [2, n]: ids, and the bytes that each covers.

  Args:
    documents: (ids, byte lengths) of each, two arrays of one length.
  """

  def __init__(self, documents: Sequence[tuple[np.ndarray, np.ndarray]]):
    self.counts = np.array([len(ids) for ids, _ in documents], np.int64)
    self._stops = np.cumsum(self.counts)
    self.tokens = np.zeros((2, int(self.counts.sum())), np.int32)
    for stop, count, pair in zip(self._stops, self.counts, documents):
      self.tokens[:, stop - count : stop] = pair

  def __len__(self) -> int:
    return self.counts.size

  def __getitem__(self, index: int) -> np.ndarray:
    stop = int(self._stops[index])
    return self.tokens[:, stop - int(self.counts[index]) : stop]

  @property
  def bytes(self) -> int:
    """Bytes that all tokens cover."""
    return int(self.tokens[1].sum(dtype=np.int64))
