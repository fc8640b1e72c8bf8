# SPDX-License-Identifier: Apache-2.0
"""Compiled loops of the Unicode tokenizer: UTF-8 to ids, and merges by rank within a run.

A merge of low rank may become possible only through one of a higher rank, so the merges are not
applied one after the other as in `bpe_apply`: of the pairs that stand in a text, the one of the
lowest rank is joined, the leftmost first, until no pair has a rank.
"""

import numba
import numpy as np

from lib.tokenizers.bpe_apply import note, pop, rank_of

PRIVATE = (0xE000, 0xF900)  # code points whose ids have another meaning
BYTES = 0xE000  # the id of a byte from 0x80 on is this much higher


@numba.njit(cache=True, nogil=True)
def symbols(data: np.ndarray) -> np.ndarray:
  """The id of each character, int32 [n], from bytes uint8: its code point where that is an id.

  Every other byte has an id of its own: those of code points above U+FFFE or in the private range,
  and what is no UTF-8. All of them are 0x80 or more, for ASCII is always well formed.
  """
  ids = np.empty(data.size, np.int32)
  count, p = 0, 0
  while p < data.size:
    byte = np.int32(data[p])
    rest = 0  # continuation bytes of a character that is an id
    point = byte
    if 0xC2 <= byte < 0xE0 and p + 1 < data.size and data[p + 1] >> 6 == 2:
      rest, point = 1, (byte & 0x1F) << 6 | data[p + 1] & 0x3F
    elif (
      0xE0 <= byte < 0xF0 and p + 2 < data.size and data[p + 1] >> 6 == 2 and data[p + 2] >> 6 == 2
    ):
      point = (byte & 0x0F) << 12 | (data[p + 1] & 0x3F) << 6 | data[p + 2] & 0x3F
      # Below U+0800 it would be overlong; surrogates are no characters.
      if (0x800 <= point < 0xD800) or PRIVATE[1] <= point < 0xFFFF:
        rest = 2
    ids[count] = point if rest or byte < 0x80 else BYTES + byte
    count += 1
    p += 1 + rest
  return ids[:count].copy()


@numba.njit(cache=True, nogil=True)
def merge(
  cells: np.ndarray,
  joins: np.ndarray,
  merges: np.ndarray,
  table: np.ndarray,
  made: np.ndarray,
  lengths: np.ndarray,
) -> np.ndarray:
  """Joins pairs by rank: ids, int32 [n].

  Args:
    cells: int32 [m], ids of characters; overwritten.
    joins: bool [V], which characters occur in a merge at all.
    merges: int32 [ranks, 2], (left, right).
    table: `bpe_apply.rules(merges)`.
    made: int32 [ranks], what each makes.
    lengths: int32 [V], characters in each id.
  """
  # A token's id is written at its first and at its last character.
  heap = np.empty(3 * cells.size, np.int64)  # rank · 2³² + place
  start = 0
  while start < cells.size:
    stop = start
    while stop < cells.size and joins[cells[stop]]:
      stop += 1
    count = 0
    for p in range(start, stop - 1):
      count = note(heap, count, rank_of(table, cells[p], cells[p + 1]), p)
    while count:
      rank, p = heap[0] >> 32, heap[0] & 0xFFFFFFFF
      count = pop(heap, count)
      left, right = merges[rank, 0], merges[rank, 1]
      middle = p + lengths[left]
      if cells[p] != left or cells[middle] != right:
        continue
      whole = made[rank]
      end = p + lengths[whole]
      cells[middle] = -1
      cells[p] = cells[end - 1] = whole
      if p > start:
        other = cells[p - 1]
        count = note(heap, count, rank_of(table, other, whole), p - lengths[other])
      if end < stop:
        count = note(heap, count, rank_of(table, whole, cells[end]), p)
    start = max(stop, start + 1)
  ids = np.empty(cells.size, np.int32)
  count, p = 0, 0
  while p < cells.size:
    ids[count] = cells[p]
    p += lengths[cells[p]]
    count += 1
  return ids[:count].copy()
