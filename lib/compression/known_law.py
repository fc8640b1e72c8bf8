# SPDX-License-Identifier: Apache-2.0
"""A Markov source as a coder's byte model, and codes of its text.

`Chain` is the perfect byte model, in both forms that `lib.tokenizers.coding.model` names,
`NextByte` and `Stepper`. A text's first symbols have the stationary law, since a text may begin
anywhere in the stream. Bytes outside the alphabet have probability 0, which a coder raises to its
minimum; in a text they are read as the first symbol.

`numbered` (equal-info windows) and `code_lengths` (arithmetic coding in one stream) code over the
source's own alphabet, for comparison with frequencies of all 256 bytes.
"""

import numpy as np

from lib.tasks.markov.chains import MarkovSource
from lib.tokenizers.base import Dictionary
from lib.tokenizers.coding import arithmetic
from lib.tokenizers.coding.model import MemoizedModel
from lib.tokenizers.coding.tabulate import heaviest, tabulate


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
    streams: texts that are read in parallel.
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


def numbered(source: MarkovSource, bits: int) -> Dictionary:
  """Equal-info windows over the source's own alphabet, as a greedy dictionary.

  A text fits a window if its interval under the law of the source encloses a cell of 2^-bits.
  Intervals are exact, from frequencies of 14 bits. Of more than 2^bits texts the most probable are
  kept. The texts are closed under beginnings, so that the longest one that fits is the longest
  match.
  """
  one, known = arithmetic.PRECISION, source.order
  quantised = [arithmetic.quantise(law).tolist() for law in laws(source)]
  pieces, weights = [], []
  pending = [(b'', 0, 0, 1)]  # text, its context, its interval in units of 2^-(14 × length)
  while pending:
    text, context, low, width = pending.pop()
    length = len(text)
    frequencies = quantised[min(length, known)][context]
    unit = 1 << one * (length + 1)
    for symbol in range(source.alphabet_size):
      start, stop = frequencies[symbol], frequencies[symbol + 1]
      below, wide = (low << one) + width * start, width * (stop - start)
      first = -(-(below << bits) // unit)  # the first cell that begins in the interval
      if (first + 1) * unit > (below + wide) << bits:
        continue
      longer = text + source.alphabet[symbol : symbol + 1]
      pieces.append(longer)
      weights.append(wide / unit)
      after = (
        int(source.next_contexts[context, symbol])
        if length >= known
        else context + symbol * source.alphabet_size**length
      )
      pending.append((longer, after, below, wide))
  kept = heaviest(pieces, np.array(weights), 1 << bits)
  return Dictionary([pieces[i] for i in kept], 'greedy', source.alphabet)


def byte_windows(source: MarkovSource, bits: int) -> Dictionary:
  """As `numbered`, with frequencies for all 256 bytes, but only texts that the source can
  produce.
  """
  table = tabulate(MemoizedModel(Chain(source)), bits, 'numbered')
  pieces = [piece for piece in table.pieces if set(piece) <= set(source.alphabet)]
  return Dictionary(pieces, 'greedy', source.alphabet)


def code_lengths(source: MarkovSource, documents: np.ndarray) -> dict[str, float]:
  """Nats per character of arithmetic coding of documents [D, L] under the source's law.

  Returns:
    `nats` over the source's own alphabet, without an end mark; `rounding` is the part
    of it due to whole bits at the end of each stream. `impossible_symbols` is the extra cost of
    frequencies for all 256 bytes, and `end_mark` that of an end mark on top of those.
  """
  known, order, size = laws(source), source.order, source.alphabet_size
  places = np.minimum(np.arange(documents.shape[1]), order)
  rows = np.cumsum([0, *map(len, known)])[places] + np.zeros_like(documents)
  for back in range(1, order + 1):  # the symbol `back` places before, where it is known
    weight = size ** (places[back:] - back)
    rows[:, back:] += documents[:, :-back] * weight
  stacked = np.concatenate(known)
  in_bytes = np.pad(stacked, ((0, 0), (0, 256 - size)))
  spent = {}
  tables = {
    'own': arithmetic.quantise(stacked),
    'bytes': arithmetic.quantise(in_bytes),
    'marked': arithmetic.quantise(in_bytes, marks=1),
  }
  for what, cumulative in tables.items():
    costs = arithmetic.PRECISION - np.log2(np.diff(cumulative.astype(np.int64)))
    spent[what] = costs[rows, documents].sum()
  spent['marked'] += arithmetic.PRECISION * len(documents)
  whole = sum(
    arithmetic.encode(document, tables['own'][row])[1] for document, row in zip(documents, rows)
  )
  per_character = lambda bits: float(bits * np.log(2) / documents.size)
  return {
    'nats': per_character(whole),
    'rounding': per_character(whole - spent['own']),
    'impossible_symbols': per_character(spent['bytes'] - spent['own']),
    'end_mark': per_character(spent['marked'] - spent['bytes']),
  }
