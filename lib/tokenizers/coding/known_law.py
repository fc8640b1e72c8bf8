# SPDX-License-Identifier: Apache-2.0
"""Codes of Markov text whose law is known: equal-info windows, and arithmetic coding in one stream.

Both code over the source's own alphabet; what frequencies for all 256 bytes cost can be compared.
"""

import numpy as np

from lib.data import chain
from lib.data.markov import MarkovSource
from lib.tokenizers.base import Dictionary
from lib.tokenizers.coding import arithmetic
from lib.tokenizers.coding.model import Remembered
from lib.tokenizers.coding.tabulate import heaviest, tabulate


def numbered(source: MarkovSource, bits: int) -> Dictionary:
  """Equal-info windows over the source's own alphabet, as the greedy dictionary that they are.

  A text fits a window if its interval under the law of the source encloses a cell of 2^-bits.
  Intervals are exact, from frequencies of 14 bits. Of more than 2^bits texts the most probable are
  kept. The texts are closed under beginnings, so that the longest one that fits is the longest
  match.
  """
  one, known = arithmetic.PRECISION, source.order
  laws = [arithmetic.quantise(law).tolist() for law in chain.laws(source)]
  pieces, weights = [], []
  pending = [(b'', 0, 0, 1)]  # text, its context, its interval in units of 2^-(14 × length)
  while pending:
    text, context, low, width = pending.pop()
    length = len(text)
    frequencies = laws[min(length, known)][context]
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
  """The same with frequencies for all 256 bytes, less the texts that the source never writes."""
  table = tabulate(Remembered(chain.Chain(source)), bits, 'numbered')
  pieces = [piece for piece in table.pieces if set(piece) <= set(source.alphabet)]
  return Dictionary(pieces, 'greedy', source.alphabet)


def code_lengths(source: MarkovSource, documents: np.ndarray) -> dict[str, float]:
  """Nats per character that arithmetic coding under the source's law spends on documents [D, L].

  Returns:
    `nats` over the source's own alphabet, without an end mark; `rounding` is the part of it that
    the whole bits at the end of each stream take. What else would be added by frequencies for
    all 256 bytes (`impossible_symbols`), and by an end mark on top of those (`end_mark`).
  """
  laws, order, size = chain.laws(source), source.order, source.alphabet_size
  places = np.minimum(np.arange(documents.shape[1]), order)
  rows = np.cumsum([0, *map(len, laws)])[places] + np.zeros_like(documents)
  for back in range(1, order + 1):  # the symbol `back` places before, where it is known
    weight = size ** (places[back:] - back)
    rows[:, back:] += documents[:, :-back] * weight
  stacked = np.concatenate(laws)
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
