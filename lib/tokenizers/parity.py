# SPDX-License-Identifier: Apache-2.0
"""Parity-aware BPE (2508.04796): each merge is for the language whose text is longest so far."""

from collections.abc import Mapping, Sequence

import numba
import numpy as np

from lib.errors import InputError
from lib.tokenizers import base, bpe_learn, pretokenizers
from lib.tokenizers.bpe import BPE, gpt2_alphabet

BLOCK = 256  # pairs that share an upper bound of their counts


def train_parity(
  documents: Mapping[str, Sequence[bytes]],
  parallel: Mapping[str, Sequence[bytes]],
  vocab_size: int,
  rule: str = 'words',
  min_count: int = 2,
) -> BPE:
  """A BPE that makes translations of one text about equally long.

  Before each merge, the language is found whose parallel text has the most tokens. Of the pairs in
  that language's documents the most frequent is merged, in all languages; ties go to the lowest
  (left, right). A language without a pair that occurs `min_count` times is passed over.

  Args:
    documents: of each of two or more languages, to count on.
    parallel: the same text in each language.
    vocab_size: the most tokens, 256 or more.
    rule: of `pretokenizers`.
    min_count: of a pair that is merged, at least 1.

  Raises:
    InputError: a smaller vocabulary, fewer than two languages, or others in `parallel`.
  """
  alphabet = gpt2_alphabet()
  if vocab_size < len(alphabet):
    raise InputError(f'{vocab_size} tokens cannot hold the bytes: ask for {len(alphabet)} or more')
  if len(documents) < 2 or documents.keys() != parallel.keys():
    raise InputError(
      f'parity needs documents and parallel text of the same two or more languages; got '
      f'{", ".join(documents) or "none"}, and {", ".join(parallel) or "none"}'
    )
  symbols = np.argsort(base.byte_array(alphabet)).astype(np.int32)
  parts = []
  for language, name in enumerate(documents):
    for texts, counted in ((documents[name], True), (parallel[name], False)):
      cells, weights = pretokenizers.count(texts, rule).cells(symbols)
      zeros = np.zeros_like(weights)
      of = np.full(cells.size, language, np.int32)
      parts.append((cells, of, weights if counted else zeros, zeros if counted else weights))
  cells, group, weights, scored = map(np.concatenate, zip(*parts, strict=True))
  merges = _learn(
    cells, group, weights, scored, len(documents), len(alphabet), vocab_size, max(min_count, 1)
  )
  return BPE(alphabet, merges, rule=rule)


@numba.njit(cache=True, nogil=True)
def _learn(cells, group, weights, scored, groups, letters, size, min_count):
  """Merges int32 [m, 2].

  Args:
    cells: int32 [n], as in `bpe_learn.learn`.
    group: int32 [n], the language of each.
    weights, scored: int64 [n], how often each counts in the documents and in the parallel text.
    groups: number of languages.
    letters: ids so far.
    size: ids wanted.
    min_count: at least 1.
  """
  no_edges = np.ones(0, np.bool_)
  merges, lengths = np.empty((size, 2), np.int32), np.ones(size, np.int32)
  tokens, active = np.zeros(groups, np.int64), np.ones(groups, np.bool_)
  for p in range(cells.size):
    tokens[group[p]] += scored[p] if cells[p] >= 0 else 0
  places, used = np.empty(3 * cells.size, np.int32), 0
  # Counts only fall, so `counts` are upper bounds of those of pairs, and `bounds` of a block's.
  keys, spans = np.empty(1 << 12, np.int64), np.empty((1 << 12, 2), np.int64)
  counts, bounds = np.zeros((groups, 1 << 12), np.int64), np.zeros((groups, 1 << 4), np.int64)
  known, made = 0, letters
  spots = np.flatnonzero((cells[:-1] >= 0) & (cells[1:] >= 0)).astype(np.int32)
  pairs, index = bpe_learn.numbered_pairs(cells, spots)
  while True:
    # The places of each new pair go side by side and in order.
    stops = np.zeros(pairs.size + 1, np.int64)
    for i in index:
      stops[i + 1] += 1
    stops = np.cumsum(stops) + used
    while known + pairs.size > keys.size:
      keys = np.concatenate((keys, np.empty_like(keys)))
      spans = np.concatenate((spans, np.empty_like(spans)))
      counts = np.concatenate((counts, np.zeros_like(counts)), axis=1)
      bounds = np.concatenate((bounds, np.zeros_like(bounds)), axis=1)
    for number in range(pairs.size):
      keys[known + number] = pairs[number]
      spans[known + number] = stops[number], stops[number]
    for i in range(index.size):
      pair, language = known + index[i], group[spots[i]]
      places[spans[pair, 1]] = spots[i]
      spans[pair, 1] += 1
      counts[language, pair] += weights[spots[i]]
      bounds[language, pair // BLOCK] = max(bounds[language, pair // BLOCK], counts[language, pair])
    known, used = known + pairs.size, used + index.size
    if made == size:
      return merges[: made - letters].copy()
    pair = -1
    while pair < 0 and active.any():
      worst = -1
      for language in range(groups):
        if active[language] and (worst < 0 or tokens[language] > tokens[worst]):
          worst = language
      pair = _best(
        cells, lengths, places, group, weights, keys, spans, counts, bounds, worst, min_count
      )
      active[worst] = pair >= 0
    if pair < 0:
      return merges[: made - letters].copy()
    left, right = keys[pair] >> 32, keys[pair] & 0xFFFFFFFF
    merges[made - letters, 0], merges[made - letters, 1] = left, right
    lengths[made] = lengths[left] + lengths[right]
    start, stop = spans[pair]
    stop = bpe_learn.join(cells, lengths, places, start, stop, left, right, made)
    counts[:, pair] = 0
    for p in places[start:stop]:
      tokens[group[p]] -= scored[p]
    sides, spots = bpe_learn.neighbours(cells, lengths, no_edges, places[start:stop], made)
    pairs, index = _pairs(sides, made)
    made += 1


@numba.njit(cache=True, nogil=True)
def _pairs(sides, made):
  """The distinct pairs of `bpe_learn.neighbours`, left · 2³² + right, and which is where."""
  number = {np.int64(0): 0 for _ in range(0)}  # numba must see a type
  pairs = np.empty(sides.size, np.int64)
  index = np.empty(sides.size, np.int32)
  for i in range(sides.size):
    other = np.int64(sides[i] // 2)
    key = other << 32 | made if sides[i] % 2 == 0 else np.int64(made) << 32 | other
    if key not in number:
      pairs[len(number)] = key
      number[key] = len(number)
    index[i] = number[key]
  return pairs[: len(number)].copy(), index


@numba.njit(cache=True, nogil=True)
def _best(cells, lengths, places, group, weights, keys, spans, counts, bounds, language, min_count):
  """The most frequent pair of a language, the lowest of several; -1 if none occurs `min_count`."""
  while True:
    most = bounds[language].max()
    if most < min_count:
      return -1
    best = -1
    for block in np.flatnonzero(bounds[language] == most):
      within = counts[language, block * BLOCK : (block + 1) * BLOCK]
      bounds[language, block] = within.max()
      for pair in np.flatnonzero(within == most) + block * BLOCK:
        if best < 0 or keys[pair] < keys[best]:
          best = pair
    if best < 0:
      continue  # the bounds were too high
    left, right = keys[best] >> 32, keys[best] & 0xFFFFFFFF
    counts[:, best], kept = 0, spans[best, 0]
    for i in range(spans[best, 0], spans[best, 1]):
      p = places[i]
      if cells[p] == left and cells[p + lengths[left]] == right:
        places[kept] = p
        kept += 1
        counts[group[p], best] += weights[p]
    spans[best, 1] = kept
    if counts[language, best] == most:
      return best
