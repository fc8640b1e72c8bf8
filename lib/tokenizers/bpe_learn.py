# SPDX-License-Identifier: Apache-2.0
"""The compiled loop that learns merges from pair counts; `bpe_apply` says what `cells` are."""

import heapq

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def learn(symbols: np.ndarray, letters: int, size: int, min_count: int) -> np.ndarray:
  """Learns merges until there are `size` tokens or no pair occurs `min_count` times.

  A pair's count is that of its occurrences without overlap, taken from the left; ties go to the
  lowest (left, right).

  Args:
    symbols: int16 [n], all below `letters`; -1 between documents, which no pair crosses.
    letters: characters of the alphabet.
    size: tokens wanted, `letters` or more.
    min_count: at least 1.

  Returns:
    merges, int32 [m, 2].
  """
  cells = symbols.astype(np.int32)
  lengths = np.ones(size, np.int32)
  merges = np.empty((size - letters, 2), np.int32)
  places = np.empty(3 * cells.size, np.int32)  # each merge makes at most two new neighbours
  spots = np.flatnonzero((cells[:-1] >= 0) & (cells[1:] >= 0))
  keys = cells[spots] * letters + cells[spots + 1]
  counts, stops, used = _file(keys, spots, letters**2, min_count, places, 0)
  # Counts only fall, so the heap holds upper bounds: a pair that comes to the top is counted again.
  # (−bound, left, right, its places: start, stop) of each pair; empty, but numba must see a type.
  heap: list[tuple] = [(0, 0, 0, 0, 0) for _ in range(0)]
  for key in np.flatnonzero(counts >= min_count):
    pair = key // letters, key % letters
    heapq.heappush(heap, (-counts[key], *pair, stops[key] - counts[key], stops[key]))
  made = letters
  while len(heap) > 0 and made < size:
    bound, left, right, start, stop = heapq.heappop(heap)
    stop, count = _recount(cells, lengths, places, start, stop, left, right)
    if count < -bound:
      if count >= min_count:
        heapq.heappush(heap, (-count, left, right, start, stop))
      continue
    merges[made - letters, 0], merges[made - letters, 1] = left, right
    lengths[made] = lengths[left] + lengths[right]
    stop = _join(cells, lengths, places, start, stop, left, right, made)
    keys, spots = _neighbours(cells, lengths, places[start:stop], made)
    counts, stops, used = _file(keys, spots, 2 * made + 2, min_count, places, used)
    for key in np.flatnonzero(counts >= min_count):
      left, right = (key // 2, made) if key % 2 == 0 else (made, key // 2)
      heapq.heappush(heap, (-counts[key], left, right, stops[key] - counts[key], stops[key]))
    made += 1
  return merges[: made - letters].copy()


@numba.njit(cache=True, nogil=True)
def _file(keys, spots, kinds, min_count, places, used):
  """Appends to `places` the spots of each key seen `min_count` times, side by side and in order.

  Returns:
    counts and stops in `places` of each key, int64 [kinds] each, and where `places` now ends.
  """
  counts = np.zeros(kinds, np.int64)
  for key in keys:
    counts[key] += 1
  stops = np.full(kinds, -1, np.int64)
  for key in range(kinds):
    if counts[key] >= min_count:
      stops[key] = used
      used += counts[key]
  for i in range(keys.size):
    key = keys[i]
    if stops[key] >= 0:
      places[stops[key]] = spots[i]
      stops[key] += 1
  return counts, stops, used


@numba.njit(cache=True, nogil=True)
def _recount(cells, lengths, places, start, stop, left, right):
  """Drops places out of date; returns where the rest stops, and its count without overlap."""
  kept, count, free = start, 0, 0
  for i in range(start, stop):
    p = places[i]
    middle = p + lengths[left]
    if cells[p] == left and cells[middle] == right:
      places[kept] = p
      kept += 1
      if p >= free:
        count += 1
        free = middle + lengths[right]
  return kept, count


@numba.njit(cache=True, nogil=True)
def _join(cells, lengths, places, start, stop, left, right, made):
  """Makes token `made` at the places of (left, right); returns where the places made stop."""
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
def _neighbours(cells, lengths, joined, made):
  """The places of all pairs with token `made`, which stands at `joined`.

  Returns:
    keys, twice the other token, plus one where it comes after; and places; int32 [n] each.
  """
  keys, spots = np.empty(2 * joined.size, np.int32), np.empty(2 * joined.size, np.int32)
  count = 0
  for p in joined:
    # After `made`, the pair is that of the token before.
    if p > 0 and cells[p - 1] >= 0 and cells[p - 1] != made:
      other = cells[p - 1]
      keys[count], spots[count] = 2 * other, p - lengths[other]
      count += 1
    if p + lengths[made] < cells.size and cells[p + lengths[made]] >= 0:
      keys[count], spots[count] = 2 * cells[p + lengths[made]] + 1, p
      count += 1
  return keys[:count], spots[:count]
