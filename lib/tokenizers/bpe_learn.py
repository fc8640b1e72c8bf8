# SPDX-License-Identifier: Apache-2.0
"""The compiled loop that learns merges from pair counts.

The text is one array `cells`, in which the id of a token is written at its first and at its last
cell. So the token after a token at p begins at p + its length, and the token before it ends at p -
1. Two tokens can become neighbours only in the step that makes one of them. So all places of a pair
are known, from left to right, after that step. Later their number only falls: a place is out of
date if its cells no longer have the two ids.
"""

import heapq
from collections.abc import Sequence

import numba
import numpy as np

BASE = np.uint64(0x9E3779B97F4A7C15)  # of the hashes of bytes
# Properties of a token's bytes that a veto tests.
BEGINS, ENDS, COLON, INSIDE, WORDS, SIZE = range(6)


def learn(
  cells: np.ndarray,
  size: int,
  tokens: Sequence[bytes],
  weights: np.ndarray | None = None,
  min_count: int = 1,
  overlap: bool = False,
  shared: bool = False,
  most_words: int = 0,
  most_bytes: int = 0,
  colon_space: bool = True,
  edges: np.ndarray | None = None,
) -> np.ndarray:
  """Learns merges until there are `size` tokens or no pair occurs `min_count` times.

  Ties go to the lowest (left, right).

  Args:
    cells: int [n], ids of the tokens so far; -1 between texts, which no pair crosses.
    size: tokens wanted.
    tokens: the bytes of each token so far.
    weights: int64 [n], weight of each cell, equal within a text; None means 1.
    min_count: at least 1.
    overlap: whether overlapping occurrences all count ('000' contains '00' twice), or only those
      found from left to right without overlap.
    shared: whether pairs with equal bytes make the same token.
    most_words: most pieces between spaces in a token; 0: no limit.
    most_bytes: most bytes of a token; 0: no limit.
    colon_space: whether a token may contain a colon followed by a space.
    edges: bool [n + 1], cells at which a word begins or a text ends. If given, tokens of different
      words are a pair only if each is one or several whole words. None: no words.

  Returns:
    merges, int32 [m, 2]. Each makes the next id, unless it shares an earlier one.
  """
  if weights is None:
    weights = np.ones(0, np.int64)
  if edges is None:
    edges = np.ones(0, np.bool_)
  limits = np.array([most_words, most_bytes, not colon_space], np.int64)
  features = np.array([_features(token) for token in tokens], np.int64).reshape(-1, 6)
  hashes = np.array([_hash(token) for token in tokens], np.uint64).reshape(-1, 2)
  return _learn(
    cells.astype(np.int32), weights, edges, len(tokens), max(size, len(tokens)),
    max(min_count, 1), overlap, shared, limits, features, hashes,
  )  # fmt: skip


def _features(token: bytes) -> list[int]:
  words = len(list(filter(None, token.split(b' '))))
  return [
    token[:1] == b' ', token[-1:] == b' ', token[-1:] == b':', b': ' in token, words, len(token)
  ]  # fmt: skip


def _hash(token: bytes) -> tuple[int, int]:
  """A hash of the bytes, and the factor by which it is multiplied if as many bytes follow."""
  found, power = 0, 1
  for byte in token:
    found, power = (found * int(BASE) + byte + 1) % 2**64, power * int(BASE) % 2**64
  return found, power


@numba.njit(cache=True, nogil=True)
def _learn(
  cells, weights, edges, letters, size, min_count, overlap, shared, limits, before, hashes_before
):
  merges, rows = np.empty((size, 2), np.int32), 0
  lengths = np.ones(size, np.int32)
  limited, features = limits.any(), np.zeros((size, 6), np.int64)
  features[:letters] = before
  hashes = np.zeros((size, 2), np.uint64)
  hashes[:letters] = hashes_before
  known = {np.uint64(0): np.int64(0)}
  if shared:
    for token in range(letters):
      known[hashes[token, 0]] = np.int64(token)
  places = np.empty(3 * cells.size, np.int32)  # each merge makes at most two new neighbours
  counts, weighed = np.zeros(2 * size + 2, np.int64), np.zeros(2 * size + 2, np.int64)
  # Counts only fall, so the heap holds upper bounds: a pair that comes to the top is counted again.
  # (-bound, left, right, its places: start, stop) of each pair.
  heap, used = _first(cells, weights, edges, min_count, limits, limited, features, places)
  made = letters
  while len(heap) > 0 and made < size:
    bound, left, right, start, stop = heapq.heappop(heap)
    stop, count = _recount(cells, weights, lengths, places, start, stop, left, right, overlap)
    if count < -bound:
      if count >= min_count:
        heapq.heappush(heap, (-count, left, right, start, stop))
      continue
    hashed = hashes[left, 0] * hashes[right, 1] + hashes[right, 0]
    token = made
    if shared and hashed in known:
      token = int(known[hashed])
      if lengths[token] != lengths[left] + lengths[right]:
        continue  # of other cells than before: the cells could not be read
    if rows == len(merges):
      merges = np.concatenate((merges, np.empty_like(merges)))
    merges[rows, 0], merges[rows, 1] = left, right
    rows += 1
    if token == made:
      if shared:
        known[hashed] = np.int64(token)
      lengths[made] = lengths[left] + lengths[right]
      hashes[made, 0], hashes[made, 1] = hashed, hashes[left, 1] * hashes[right, 1]
      _join_features(features, left, right, made)
      made += 1
    stop = join(cells, lengths, places, start, stop, left, right, token)
    keys, spots = neighbours(cells, lengths, edges, places[start:stop], token)
    if token < made - 1:
      keys, spots = _everywhere(cells, lengths, edges, keys, token)
      if used + keys.size > places.size:
        places = np.concatenate((places, np.empty(keys.size + places.size, np.int32)))
    # The places of each key are adjacent and in order.
    distinct = 0
    found = np.empty(keys.size, np.int32)
    for i in range(keys.size):
      if counts[keys[i]] == 0:
        found[distinct] = keys[i]
        distinct += 1
      counts[keys[i]] += 1
      weighed[keys[i]] += weights[spots[i]] if weights.size else 1
    for i in range(distinct):
      key = found[i]
      left, right = (key // 2, token) if key % 2 == 0 else (token, key // 2)
      allowed = not limited or _allowed(features, left, right, limits)
      if weighed[key] >= min_count and allowed:
        heapq.heappush(heap, (-weighed[key], left, right, used, used + counts[key]))
        counts[key], used = used, used + counts[key]
      else:
        counts[key] = -1
    for i in range(keys.size):
      if counts[keys[i]] >= 0:
        places[counts[keys[i]]] = spots[i]
        counts[keys[i]] += 1
    for i in range(distinct):
      counts[found[i]] = weighed[found[i]] = 0
  return merges[:rows].copy()


@numba.njit(cache=True, nogil=True)
def _first(cells, weights, edges, min_count, limits, limited, features, places):
  """The heap of the pairs of a text before any merge, and the number of `places` used."""
  there = (cells[:-1] >= 0) & (cells[1:] >= 0)
  if edges.size:
    there &= ~edges[1:-1] | (edges[:-2] & edges[2:])
  spots = np.flatnonzero(there).astype(np.int32)
  keys, index = numbered_pairs(cells, spots)
  counts, weighed = np.zeros(keys.size, np.int64), np.zeros(keys.size, np.int64)
  for i in range(spots.size):
    counts[index[i]] += 1
    weighed[index[i]] += weights[spots[i]] if weights.size else 1
  heap: list[tuple] = [(0, 0, 0, 0, 0) for _ in range(0)]  # Numba needs the type
  used = 0
  for number in range(keys.size):
    left, right = keys[number] >> 32, keys[number] & 0xFFFFFFFF
    if weighed[number] >= min_count and (not limited or _allowed(features, left, right, limits)):
      heap.append((-weighed[number], left, right, used, used + counts[number]))
      counts[number], used = used, used + counts[number]
    else:
      counts[number] = -1
  for i in range(spots.size):
    if counts[index[i]] >= 0:
      places[counts[index[i]]] = spots[i]
      counts[index[i]] += 1
  heapq.heapify(heap)
  return heap, used


@numba.njit(cache=True, nogil=True)
def numbered_pairs(cells, spots):
  """The distinct pairs at `spots`, left · 2³² + right, int64 [k], and which is where, int32 [n]."""
  keys, index = np.empty(1 << 12, np.int64), np.empty(spots.size, np.int32)
  slots, count = np.full(1 << 13, -1, np.int32), 0
  for i in range(spots.size):
    key = np.int64(cells[spots[i]]) << 32 | np.int64(cells[spots[i] + 1])
    if count == keys.size:
      keys = np.concatenate((keys, np.empty_like(keys)))
      slots = np.full(2 * keys.size, -1, np.int32)
      for number in range(count):
        slots[_slot(slots, keys, keys[number])] = number
    slot = _slot(slots, keys, key)
    if slots[slot] < 0:
      slots[slot], keys[count] = count, key
      count += 1
    index[i] = slots[slot]
  return keys[:count], index


@numba.njit(inline='always')
def _slot(slots, keys, key):
  mask = slots.size - 1
  slot = ((key >> 32) * 0x9E3779B1 ^ (key & 0xFFFFFFFF) * 0x85EBCA77) & mask
  while slots[slot] >= 0 and keys[slots[slot]] != key:
    slot = (slot + 1) & mask
  return slot


@numba.njit(cache=True, nogil=True)
def _allowed(features, left, right, limits):
  """Whether the token of a pair is within the limits."""
  joined = not features[left, ENDS] and not features[right, BEGINS]
  words = features[left, WORDS] + features[right, WORDS] - joined
  colon = features[left, INSIDE] or features[right, INSIDE]
  colon = colon or (features[left, COLON] and features[right, BEGINS])
  size = features[left, SIZE] + features[right, SIZE]
  return (
    (limits[0] == 0 or words <= limits[0])
    and (limits[1] == 0 or size <= limits[1])
    and not (limits[2] and colon)
  )


@numba.njit(cache=True, nogil=True)
def _join_features(features, left, right, made):
  joined = not features[left, ENDS] and not features[right, BEGINS]
  features[made, WORDS] = features[left, WORDS] + features[right, WORDS] - joined
  features[made, INSIDE] = (
    features[left, INSIDE]
    or features[right, INSIDE]
    or (features[left, COLON] and features[right, BEGINS])
  )
  features[made, SIZE] = features[left, SIZE] + features[right, SIZE]
  features[made, BEGINS] = features[left, BEGINS]
  features[made, ENDS], features[made, COLON] = features[right, ENDS], features[right, COLON]


@numba.njit(inline='always')
def _can_join(edges, start, middle, end):
  """Whether the tokens [start, middle) and [middle, end) are in one word, or are whole words."""
  return edges.size == 0 or not edges[middle] or (edges[start] and edges[end])


@numba.njit(cache=True, nogil=True)
def _recount(cells, weights, lengths, places, start, stop, left, right, overlap):
  """Drops places that are out of date; returns the end of the rest, and its count."""
  kept, count, free = start, 0, 0
  for i in range(start, stop):
    p = places[i]
    middle = p + lengths[left]
    if cells[p] == left and cells[middle] == right:
      places[kept] = p
      kept += 1
      if overlap or p >= free:
        count += weights[p] if weights.size else 1
        free = middle + lengths[right]
  return kept, count


@numba.njit(cache=True, nogil=True)
def join(cells, lengths, places, start, stop, left, right, made):
  """Makes token `made` at the places of (left, right); returns the end of its places."""
  kept = start
  for i in range(start, stop):
    p = places[i]
    middle = p + lengths[left]
    if cells[p] == left and cells[middle] == right:
      cells[middle] = -1
      cells[p] = cells[p + lengths[made] - 1] = made
      places[kept] = p
      kept += 1
  return kept


@numba.njit(cache=True, nogil=True)
def neighbours(cells, lengths, edges, joined, made):
  """The places of all pairs with the token `made`, which is at the places `joined`.

  Returns keys and places, int32 [n] each. A key is twice the other token, plus 1 if it follows.
  """
  keys, spots = np.empty(2 * joined.size, np.int32), np.empty(2 * joined.size, np.int32)
  count = 0
  for p in joined:
    end = p + lengths[made]
    # The pair after `made` belongs to the token before it.
    if p > 0 and cells[p - 1] >= 0 and cells[p - 1] != made:
      other = cells[p - 1]
      if _can_join(edges, p - lengths[other], p, end):
        keys[count], spots[count] = 2 * other, p - lengths[other]
        count += 1
    if end < cells.size and cells[end] >= 0 and _can_join(edges, p, end, end + lengths[cells[end]]):
      keys[count], spots[count] = 2 * cells[end] + 1, p
      count += 1
  return keys[:count], spots[:count]


@numba.njit(cache=True, nogil=True)
def _everywhere(cells, lengths, edges, keys, made):
  """As `neighbours`, of those pairs everywhere: `made` stood in the text before."""
  wanted = set(keys)
  keys, spots = np.empty(cells.size, np.int32), np.empty(cells.size, np.int32)
  count, p = 0, 0
  while p < cells.size:
    if cells[p] < 0:
      p += 1
      continue
    after = p + lengths[cells[p]]
    if after < cells.size and cells[after] >= 0:
      key = 2 * cells[p] if cells[after] == made and cells[p] != made else -1
      key = 2 * cells[after] + 1 if cells[p] == made else key
      if key in wanted and _can_join(edges, p, after, after + lengths[cells[after]]):
        keys[count], spots[count] = key, p
        count += 1
    p = after
  return keys[:count].copy(), spots[:count].copy()
