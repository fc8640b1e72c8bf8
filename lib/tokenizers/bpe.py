# SPDX-License-Identifier: Apache-2.0
"""Byte-pair encoding: an alphabet and ordered merges, learnt by counts or by the paper's pass."""

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lib.errors import InputError
from lib.tokenizers import base, bpe_apply, bpe_learn, pairs


class BPE(pairs.PairDictionary):
  """Applies its merges in order, each from left to right without overlap.

  The other two encoders take the merges for a mere dictionary and forget their order.

  Args:
    alphabet: the A characters, ids 0 to A - 1.
    merges: int32 [m, 2], row i joins ids (left, right) to id A + i.
    encoder: 'merges', 'greedy' or 'minimal'.
  """

  family = 'bpe'
  encoders = ('merges', 'greedy', 'minimal')

  def __init__(self, alphabet: bytes, merges: ArrayLike, encoder: str = 'merges'):
    super().__init__(alphabet, merges, encoder)

  def encode(self, data: bytes) -> np.ndarray:
    """Returns ids, int32 [n]; raises InputError for a byte outside the alphabet."""
    if self.encoder == 'merges':
      return self._merge(data)
    return super().encode(data)

  def boundaries(self) -> np.ndarray:
    """Which tokens can meet: bool [d, d], true where the merges cut pieces a + b into (a, b).

    A sequence of ids is the encoding of its text by 'merges' exactly if all neighbours can meet.
    """
    holds = bpe_apply.boundaries(self.merges, len(self.alphabet))
    whole = np.array([self._merge(piece).tolist() == [i] for i, piece in enumerate(self.pieces)])
    return holds & whole[:, None] & whole

  def _merge(self, data: bytes) -> np.ndarray:
    return bpe_apply.apply(self.symbols(data), self.merges, self._rules, self.lengths)

  @functools.cached_property
  def _rules(self) -> np.ndarray:
    return bpe_apply.rules(self.merges)


def train_bpe(
  documents: Sequence[bytes],
  vocab_size: int,
  alphabet: bytes | None = base.BYTES,
  min_count: int = 2,
) -> BPE:
  """Merges the most frequent pair until there are `vocab_size` tokens or none occurs `min_count`.

  Pairs are of neighbours in a document, across spaces too. Counts are of occurrences without
  overlap ('000' holds '00' once); ties go to the lowest (left, right). An `alphabet` of None is the
  bytes that occur.

  Raises:
    InputError: a byte outside `alphabet`, or an alphabet larger than `vocab_size`.
  """
  alphabet, symbols, size = pairs.prepare(documents, vocab_size, alphabet)
  return BPE(alphabet, bpe_learn.learn(symbols, len(alphabet), size, max(min_count, 1)))


def train_sequential_bpe(data: bytes, texts: int) -> BPE:
  """Algorithm 1 of 'Toward a Theory of Tokenization in LLMs': each merge sees a text of its own.

  `data` is cut into d = `texts` equal texts (what is left over is not used). In text i, encoded
  with the merges so far, the most frequent pair is merged if it occurs more than log d times;
  otherwise text i adds nothing.
  """
  size = len(data) // texts if texts > 0 else 0
  if size < 2:
    raise InputError(f'{len(data)} bytes do not make {texts} texts of two characters or more')
  bpe = BPE(base.letters(data), [])
  for start in range(0, size * texts, size):
    merge, count = _most_frequent_pair(bpe.encode(data[start : start + size]), bpe.vocab_size)
    if count > math.log(texts):
      bpe = BPE(bpe.alphabet, np.vstack([bpe.merges, merge]))
  return bpe


def _most_frequent_pair(ids: np.ndarray, size: int) -> tuple[tuple[int, int], int]:
  """The pair that occurs most often without overlap, the lowest such; and its count."""
  changes = np.flatnonzero(np.diff(ids, prepend=-1))
  run = np.arange(ids.size) - np.repeat(changes, np.diff(changes, append=ids.size))
  # Within a run of one id, pairs begin at its even places only.
  counted = (ids[:-1] != ids[1:]) | (run[:-1] % 2 == 0)
  keys, counts = np.unique(
    (ids[:-1].astype(np.int64) * size + ids[1:])[counted], return_counts=True
  )
  if not counts.size:
    return (0, 0), 0
  best = np.argmax(counts)
  return (int(keys[best] // size), int(keys[best] % size)), int(counts[best])
