# SPDX-License-Identifier: Apache-2.0
"""A Markov source as the byte model of a coder: an M1 that is never wrong.

It is both forms that `lib.tokenizers.coding.model` names, `NextByte` and `Stepper`. A text's first
symbols have the stationary law, since a text may begin anywhere in the stream. Bytes outside the
alphabet have probability 0, which a coder raises to what it needs; a text with such bytes, which
the source never writes, is read as if they were the first symbol.
"""

import numpy as np

from lib.data.markov import MarkovSource


def laws(source: MarkovSource) -> list[np.ndarray]:
  """P(symbol | the n symbols before it) for n = 0 … k, [A^n, A] each, oldest least significant.

  The law of n < k known symbols is that of a text that begins anywhere in the stream.
  """
  found = []
  for known in range(source.order):
    joint = source.block_law(known + 1).reshape(source.alphabet_size, -1).T
    found.append(joint / joint.sum(axis=1, keepdims=True))
  return [*found, source.kernel]


class Chain:
  """Next-byte probabilities of a source.

  Args:
    source: of order k over A symbols.
    streams: texts that are read side by side.
  """

  def __init__(self, source: MarkovSource, streams: int = 64):
    self.source, self.streams = source, streams
    self._laws = laws(source)
    self._known = np.zeros(streams, np.int64)
    self._contexts = np.zeros(streams, np.int64)

  def _given(self, known: np.ndarray, contexts: np.ndarray) -> np.ndarray:
    """float32 [N, 256] after the last `known` [N] symbols, whose number in base A is `contexts`."""
    out = np.zeros((known.size, 256), np.float32)
    first, count = self.source.alphabet[0], self.source.alphabet_size
    for size in np.unique(known).tolist():
      where = np.flatnonzero(known == size)
      out[where, first : first + count] = self._laws[size][contexts[where]]
    return out

  def _symbols(self, data: np.ndarray) -> np.ndarray:
    symbols = data.astype(np.int64) - self.source.alphabet[0]
    return np.where((symbols >= 0) & (symbols < self.source.alphabet_size), symbols, 0)

  def __call__(self, prefixes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """After each text: float32 [N, 256]; see `NextByte`."""
    known = np.minimum(lengths, self.source.order).astype(np.int64)
    contexts = np.zeros(known.size, np.int64)
    symbols = self._symbols(prefixes)
    for place in range(self.source.order):  # of the last `known` symbols, the oldest first
      where = np.flatnonzero(place < known)
      symbol = symbols[where, (lengths - known)[where] + place]
      contexts[where] += symbol * self.source.alphabet_size**place
    return self._given(known, contexts)

  def start(self) -> np.ndarray:
    """Of the empty text, float32 [256]."""
    return self._given(np.zeros(1, np.int64), np.zeros(1, np.int64))[0]

  def reset(self, which: np.ndarray) -> None:
    """Forgets the texts where `which` [streams] is true."""
    self._known[which] = self._contexts[which] = 0

  def step(self, symbols: np.ndarray) -> np.ndarray:
    """Appends one byte to each text, uint8 [streams]; float32 [streams, 256]."""
    size, order = self.source.alphabet_size, self.source.order
    full = self._known == order
    self._contexts = np.where(full, self._contexts // size, self._contexts)
    place = np.where(full, order - 1, self._known)
    self._contexts += self._symbols(symbols) * size**place
    self._known = np.minimum(self._known + 1, order)
    return self._given(self._known, self._contexts)
