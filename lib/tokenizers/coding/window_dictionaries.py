# SPDX-License-Identifier: Apache-2.0
"""Dictionaries that a byte model selects: tokens as wide as windows, without the windows' waste.

All contain the 256 single bytes, so they are lossless. If a dictionary also contains the prefixes
of its texts (`top` and `parsed`), `number` makes it a table for `EqualInfo`; any is a `Dictionary`.
"""

from collections.abc import Sequence

import numba
import numpy as np

from lib.tokenizers.base import Dictionary
from lib.tokenizers.coding.arithmetic import PRECISION
from lib.tokenizers.coding.model import NextByte
from lib.tokenizers.coding.tabulate import BATCH, frequencies, heaviest

POOL, ROUNDS = 4, 6


def likely(model: NextByte, count: int) -> tuple[list[bytes], np.ndarray]:
  """The single bytes, then the most probable longer texts: `count` texts, log2 probabilities.

  Best first: no text is more probable than its beginnings, so the byte model sees little more than
    `count`
  texts, and the beginnings of all that are given are given before them.
  """
  texts, scores, waiting = [b''], np.zeros(1), np.ones(1, bool)
  while True:
    bar = np.partition(scores, -count - 1)[-count - 1] if scores.size > count else -np.inf
    open_ = np.flatnonzero(waiting & (scores >= bar))
    if open_.size == 0:
      break
    best = open_[np.argsort(-scores[open_], kind='stable')[:BATCH]]
    cumulative = frequencies(model, *_rows([texts[i] for i in best]))
    more = scores[best, None] + np.log2(np.diff(cumulative.astype(np.int64))) - PRECISION
    row, symbol = np.nonzero(more >= bar)
    texts += [texts[best[r]] + bytes([s]) for r, s in zip(row.tolist(), symbol.tolist())]
    waiting[best] = False
    scores = np.append(scores, more[row, symbol])
    waiting = np.append(waiting, np.ones(row.size, bool))
  kept = 1 + heaviest(texts[1:], scores[1:], count)
  return [texts[i] for i in kept], scores[kept]


def top(model: NextByte, bits: int = 16) -> list[bytes]:
  """The 2^bits most probable texts: the longest matches on average, if the byte model forgot at
  each.
  """
  return likely(model, 1 << bits)[0]


def parsed(model: NextByte, text: bytes, bits: int = 16) -> list[bytes]:
  """The 2^bits candidates that most often begin where a token of `text` begins.

  Candidates are the byte model's most probable texts, POOL times as many. Token boundaries
  depend on the selection, so it is repeated ROUNDS times, first from `top`; ties go to the more
  probable.

  Args:
    model: the byte model.
    text: the byte model's samples, training text, or both.
    bits: log2 of the number kept; with 16 the candidates' trie takes 270 MB.
  """
  pieces, _ = likely(model, POOL << bits)
  candidates = Dictionary(pieces, alphabet=bytes(range(256))).trie
  kept = np.arange(len(pieces)) < 1 << bits
  for _ in range(ROUNDS):
    counts = _begun(candidates.children, candidates.token, kept, np.frombuffer(text, np.uint8))
    kept[:] = False
    kept[heaviest(pieces, counts, 1 << bits)] = True
  return [pieces[i] for i in np.flatnonzero(kept)]


def pruned(
  pieces: Sequence[bytes], text: bytes, bits: int = 16, encoder: str = 'greedy'
) -> list[bytes]:
  """Prunes the pieces that `text` uses least, half of the excess at a time, down to 2^bits.

  Args:
    pieces: more than 2^bits, such as `likely` gives: all single bytes, and of pieces used equally
      often the first stays.
    text: the byte model's samples, training text, or both.
    bits: log2 of the number kept.
    encoder: of `Dictionary`, by which use is counted: longest match or fewest tokens.
  """
  size, left = 1 << bits, list(pieces)
  while len(left) > size:
    codec = Dictionary(left, encoder, bytes(range(256)))
    uses = np.bincount(codec.encode(text), minlength=len(left))
    excess = len(left) - size
    fewer = len(left) - (excess if excess <= size >> 6 else excess // 2)
    left = [left[i] for i in np.sort(heaviest(left, uses, fewer))]
  return left


def _rows(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
  """Texts as uint8 [n, L], zeros beyond each, and their lengths."""
  lengths = np.array([len(text) for text in texts])
  rows = np.zeros((len(texts), lengths.max()), np.uint8)
  rows[np.arange(rows.shape[1]) < lengths[:, None]] = np.frombuffer(b''.join(texts), np.uint8)
  return rows, lengths


@numba.njit(cache=True, nogil=True)
def _begun(children, token, kept, symbols):
  """How often each candidate begins where a longest match among those `kept` begins."""
  counts = np.zeros(kept.size, np.int64)
  start = 0
  while start < symbols.size:
    node, stop = 0, start
    for i in range(start, symbols.size):
      node = children[node, symbols[i]]
      if node < 0:
        break
      counts[token[node]] += 1
      if kept[token[node]]:
        stop = i + 1
    start = stop
  return counts
