# SPDX-License-Identifier: Apache-2.0
"""Compiled walks of a table of windows: bytes to codes, and codes to bytes.

Each step of a walk waits for memory, since the next address depends on the byte just read. So a
long text is cut into LANES stretches that are walked in parallel, each as if a window began there.
The windows of two walks soon coincide: from the first common start on, the windows of the next
stretch are those of the whole text. Until then the walk continues one window at a time, so the
result always equals that of a single walk.
"""

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

LANES = 8
SHORT = 1 << 12  # bytes of a text that is walked in one piece
WORDS = 2  # of eight bytes, that are copied of every text
SPARE = 8 * WORDS  # bytes that copying may write beyond the end


@numba.njit(cache=True, nogil=True)
def encode(
  following: np.ndarray, emitted: np.ndarray, code: np.ndarray, symbols: np.ndarray
) -> np.ndarray:
  """The code of each window, uint16 [windows].

  Args:
    following: uint16 [n, 256], the text with one more byte, or the byte's own text, below 256,
      where that does not fit.
    emitted: int32 [n], bytes in what is written of a text when it can go no further.
    code: uint16 [n], of what is written.
    symbols: uint8 [size].
  """
  table = following, emitted, code
  count = LANES if symbols.size > SHORT else 1
  bounds = np.arange(count + 1) * symbols.size // count
  codes = np.empty(symbols.size + count, np.uint16)
  lanes = np.zeros((count, 4), np.int64)  # next byte, window's begin, its text so far, windows
  for j in range(count if symbols.size else 0):
    lanes[j, 0], lanes[j, 1], lanes[j, 2] = bounds[j] + 1, bounds[j], symbols[bounds[j]]
  steps = (bounds[1:] - lanes[:, 0]).min()
  while steps > 0:
    _side_by_side(table, symbols, bounds, lanes, codes, steps)
    steps = (bounds[1:] - lanes[:, 0]).min()
  return _joined(table, symbols, bounds, lanes, codes)


@numba.njit(cache=True, nogil=True)
def _side_by_side(table, symbols, bounds, lanes, codes, steps):
  """`size` bytes of every lane."""
  following, emitted, code = table
  base = bounds[: len(lanes)] + np.arange(len(lanes))
  # Without signs, for an index that might be negative costs a comparison at each use.
  place, begin = lanes[:, 0].astype(np.uint64), lanes[:, 1].astype(np.uint64)
  text, at = lanes[:, 2].astype(np.uint64), (lanes[:, 3] + base).astype(np.uint64)
  for _ in range(steps):
    for lane in range(len(lanes)):
      j = np.uint64(lane)
      head, node, window = begin[j], text[j], at[j]
      # Written at every byte and kept where a window ends: a branch would be missed often.
      codes[window] = code[node]
      after = np.uint64(following[node, symbols[place[j]]])
      stop = head + np.uint64(emitted[node])
      first = np.uint64(symbols[stop])
      ended = after < np.uint64(256)
      at[j] = window + np.uint64(ended)
      begin[j] = stop if ended else head
      place[j] = (stop if ended else place[j]) + np.uint64(1)
      text[j] = first if ended else after
  lanes[:, 0], lanes[:, 1], lanes[:, 2] = place, begin, text
  lanes[:, 3] = at.astype(np.int64) - base


@numba.njit(cache=True, nogil=True)
def _joined(table, symbols, bounds, lanes, codes):
  """The windows of the whole text from those of the lanes."""
  _, emitted, code = table
  size, count = symbols.size, len(lanes)
  out = np.empty(size, np.uint16)
  j, kept, written = 0, 0, 0  # `kept`: the lane's first window that is the text's
  while True:
    first = bounds[j] + j
    more = lanes[j, 3] - kept
    out[written : written + more] = codes[first + kept : first + lanes[j, 3]]
    written += more
    # The lane continues until its window begins where one of another lane does.
    begin, other, kept, theirs = lanes[j, 1], j + 1, 0, bounds[j + 1]
    while begin < size:
      while other < count and theirs < begin:
        if kept < lanes[other, 3]:
          theirs += emitted[_longest(table, symbols, theirs)]
          kept += 1
        else:  # all its windows begin before
          other += 1
          kept, theirs = 0, bounds[other]
      if other < count and theirs == begin:
        break
      text = _longest(table, symbols, begin)
      out[written] = code[text]
      written += 1
      begin += emitted[text]
    if begin >= size:
      return out[:written].copy()
    j = other


@numba.njit(cache=True, nogil=True)
def _longest(table, symbols, begin):
  """The longest text that fits from `begin` on."""
  text = np.int64(symbols[begin])
  for place in range(begin + 1, symbols.size):
    after = np.int64(table[0][text, symbols[place]])
    if after < 256:
      break
    text = after
  return text


@numba.njit(cache=True, nogil=True)
def decode(
  words: np.ndarray,
  spelled: np.ndarray,
  begins: np.ndarray,
  lengths: np.ndarray,
  codes: np.ndarray,
  size: int,
) -> np.ndarray:
  """The texts of codes end to end, uint8 [size].

  Args:
    words: uint64 [2^b, WORDS], the first bytes of each code's text as they are in memory.
    spelled: uint8, the texts of all codes end to end.
    begins: int64 [2^b], where in it each begins.
    lengths: int32 [2^b].
    codes: int [n].
    size: what the lengths of the codes add up to.
  """
  out = np.empty(size + SPARE, np.uint8)
  place = 0
  for code in codes:
    for word in range(WORDS):
      _store(out, place + 8 * word, words[code, word])  # type: ignore[call-arg]
    length = lengths[code]
    for i in range(SPARE, length):
      out[place + i] = spelled[begins[code] + i]
    place += length
  return out[:size]


def words(spelled: np.ndarray, begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
  """The first bytes of each text as `decode` copies them, zeros beyond its end."""
  places = begins[:, None] + np.arange(SPARE)
  inside = np.arange(SPARE) < lengths[:, None]
  rows = np.where(inside, np.append(spelled, np.uint8(0))[np.where(inside, places, -1)], 0)
  return rows.astype(np.uint8).view(np.uint64)


@intrinsic
def _store(_, out, place, word):
  """Writes eight bytes at any place of a row of bytes: nothing else copies them at once."""

  def generate(context, builder, signature, arguments):
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer())
    builder.store(arguments[2], pointer, align=1)
    return context.get_dummy_value()

  return types.none(out, types.int64, types.uint64), generate
