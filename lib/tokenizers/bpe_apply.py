# SPDX-License-Identifier: Apache-2.0
"""Compiled loops that apply ordered merges to a text, and tell which tokens can meet under them.

A text under merging is one array `cells`: a token's id stands at its first and at its last
character. So the token after one at p begins at p + its length, and the token before it ends at
p - 1. Two tokens can only become neighbours when the later made of the two is made. Hence the
places of a pair are all known, left to right, right after that merge; later they only get fewer,
and a place is out of date exactly if the two ids no longer stand there.
"""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def rules(merges: np.ndarray) -> np.ndarray:
  """A hash table of the merges: int64 [size, 3] rows (left, right, rule); -1 where empty.

  Of equal merges the first counts, for the others never find their pair.
  """
  size = 2
  while size < 2 * len(merges):
    size *= 2
  table = np.full((size, 3), -1, np.int64)
  for rule in range(len(merges)):
    slot = slot_of(table, merges[rule, 0], merges[rule, 1])
    if table[slot, 2] < 0:
      table[slot, 0], table[slot, 1], table[slot, 2] = merges[rule, 0], merges[rule, 1], rule
  return table


@numba.njit(cache=True, nogil=True)
def slot_of(table: np.ndarray, left: int, right: int) -> int:
  """The row of the pair, or the empty row where it would be."""
  mask = len(table) - 1
  slot = (left * 0x9E3779B1 ^ right * 0x85EBCA77) & mask
  while table[slot, 2] >= 0 and (table[slot, 0] != left or table[slot, 1] != right):
    slot = (slot + 1) & mask
  return slot


@numba.njit(cache=True, nogil=True)
def apply(
  symbols: np.ndarray, merges: np.ndarray, table: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
  """Applies each rule in order, left to right without overlap: ids, int32 [n].

  Args:
    symbols: uint8 [n].
    merges: int32 [m, 2].
    table: `rules(merges)`.
    lengths: int32 [d], characters in each token.
  """
  cells = symbols.astype(np.int32)
  first, last = np.full(len(merges), -1, np.int64), np.full(len(merges), -1, np.int64)
  places, link = np.empty(3 * cells.size, np.int32), np.empty(3 * cells.size, np.int64)
  used = 0  # entries of the linked lists, one list a rule: first -> link -> ... -> last
  for p in range(cells.size - 1):
    used = _note(table, cells[p], cells[p + 1], p, first, last, places, link, used)
  for rule in range(len(merges)):
    left, right, made = merges[rule, 0], merges[rule, 1], lengths.size - len(merges) + rule
    entry = first[rule]
    while entry >= 0:
      p = places[entry]
      entry = link[entry]
      middle, end = p + lengths[left], p + lengths[made]
      if cells[p] != left or cells[middle] != right:
        continue
      cells[middle] = -1
      cells[p] = cells[end - 1] = made
      if p > 0:
        other = cells[p - 1]
        used = _note(table, other, made, p - lengths[other], first, last, places, link, used)
      if end < cells.size:
        used = _note(table, made, cells[end], p, first, last, places, link, used)
  return collect(cells, lengths)


@numba.njit(cache=True, nogil=True)
def _note(table, left, right, place, first, last, places, link, used):
  """Appends `place` to the list of the rule that joins (left, right), if there is one."""
  rule = table[slot_of(table, left, right), 2]
  if rule < 0:
    return used
  if first[rule] < 0:
    first[rule] = used
  else:
    link[last[rule]] = used
  last[rule], places[used], link[used] = used, place, -1
  return used + 1


@numba.njit(cache=True, nogil=True)
def collect(cells: np.ndarray, lengths: np.ndarray) -> np.ndarray:
  """The ids that are left: each cell that begins a token holds its id, int32 [n]."""
  ids = np.empty(cells.size, np.int32)
  count, p = 0, 0
  while p < cells.size:
    ids[count] = cells[p]
    p += lengths[cells[p]]
    count += 1
  return ids[:count].copy()


@numba.njit(cache=True, nogil=True)
def boundaries(merges: np.ndarray, letters: int) -> np.ndarray:
  """Where no rule joins across: bool [d, d], entry (a, b) for a boundary between a and b.

  Exact for tokens that the rules make of their own characters.
  """
  size = letters + len(merges)
  joined = np.full((size, size), size, np.int32)  # the token made of a pair; `size` = none
  for rule in range(len(merges) - 1, -1, -1):
    joined[merges[rule, 0], merges[rule, 1]] = letters + rule
  holds = np.empty((size, size), np.bool_)
  for a in range(size):
    for b in range(size):
      holds[a, b] = _holds(joined, merges, letters, a, b)
  return holds


@numba.njit(cache=True, nogil=True)
def _holds(joined, merges, letters, a, b):
  # Undoes the merges inside a and b from the last: x and y are what touches the boundary until
  # the rules that make x_end and y_end take them away from it.
  x, y, x_end, y_end = a, b, len(joined), len(joined)
  while True:
    made = joined[x, y]
    # Where one rule would take x from both sides (a run of x), the left side comes first; where
    # it would take y from both sides, the left side is across the boundary.
    if made < x_end and made <= y_end and made < len(joined):
      return False
    if x < letters and y < letters:
      return True
    if x > y:
      x, x_end = merges[x - letters, 1], x
    else:
      y, y_end = merges[y - letters, 0], y
