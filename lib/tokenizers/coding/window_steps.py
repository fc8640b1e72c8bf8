# SPDX-License-Identifier: Apache-2.0
"""Compiled steps of equal-info windows, many documents in parallel, one byte of each per step."""

import numba
import numpy as np

from lib.tokenizers.coding import arithmetic
from lib.tokenizers.coding.arithmetic import PRECISION, UNIT
from lib.tokenizers.coding.tabulate import fits, own

LANE = np.dtype(
  [
    ('pos', np.int64),  # the next byte
    ('head', np.int64),  # the window's first byte
    ('best', np.int64),  # where the window ends if it ends here; head = nowhere yet
    ('size', np.int64),  # bytes of the document, or when decoding of the stream
    ('floor', np.int64),  # when decoding: the interval's low, its last 32 bits
    ('windows', np.int64),
  ]
)


@numba.njit(cache=True, nogil=True)
def encode(
  lanes: np.ndarray,
  coders: np.ndarray,
  arrays: tuple[np.ndarray, ...],
  root: np.ndarray,
  cumulative: np.ndarray,
  active: np.ndarray,
  window: int,
  exact: bool,
  every: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """One byte of each document: the bytes for the byte model, where it is reset first, and which
  lanes are done.

  Args:
    lanes: LANE [N], the state of each document.
    coders: `arithmetic.LANE` [N], of its window.
    arrays: of each document the bytes, the stream, where windows end, and the code kept, [N, …].
    root: frequencies of a text's first byte, uint16 [257].
    cumulative: those of each document's next byte, [N, 257].
    active: bool [N].
    window: b, bits.
    exact: the mode, or greedy.
    every: the byte model is reset every `every` windows (0: never).
  """
  data, out, ends, kept = arrays
  symbols, forget = np.zeros(lanes.size, np.uint8), np.zeros(lanes.size, np.bool_)
  done = np.zeros(lanes.size, np.bool_)
  for i in range(lanes.size):
    if not active[i]:
      continue
    lane, coder, row = lanes[i], coders[i], cumulative[i]
    if exact and lane.pos > lane.head:
      _keep(lane, coder, row, out[i], kept[i], window)
    if lane.pos == lane.size or not _goes_on(coder, row, data[i, lane.pos], window):
      _close(lane, coder, out[i], ends[i], kept[i], window, exact)
      if lane.pos == lane.size:
        done[i] = True
        continue
      forget[i] = every > 0 and lane.windows % every == 0
      if forget[i]:
        row = root
    symbol = data[i, lane.pos]
    arithmetic.push(coder, out[i], np.int64(row[symbol]), np.int64(row[symbol + 1]))
    lane.pos += 1
    symbols[i] = symbol
  return symbols, forget, done


@numba.njit(cache=True, nogil=True)
def _keep(lane, coder, row, out, kept, window):
  """If the window's text owns a cell, keeps its code, and leaves the rest to what follows."""
  shift = 32 + coder.bits - window
  start, share = own(coder.low, coder.width, row, PRECISION, shift, lane.pos == lane.head + 1)
  coder.width = share
  if start >= 0:
    lane.best = lane.pos
    full = coder.bits >> 3
    kept[:full] = out[coder.begin : coder.begin + full]
    kept[full:] = 0
    arithmetic.seal(kept, 0, coder.bits, start)


@numba.njit(cache=True, nogil=True)
def _goes_on(coder, row, symbol, window):
  start, stop = np.int64(row[symbol]), np.int64(row[symbol + 1])
  low, width = arithmetic.narrow(coder.low, coder.width, start, stop, PRECISION)
  return fits(low, width, 32 + coder.bits - window)


@numba.njit(cache=True, nogil=True)
def _close(lane, coder, out, ends, kept, window, exact):
  """Writes the window and begins the next, at the byte after the window's last."""
  if exact:
    lane.pos = lane.best
    out[coder.begin : coder.begin + kept.size] = kept
  else:
    arithmetic.finish(coder, out)
  ends[lane.pos - 1] = True
  lane.head = lane.pos
  lane.windows += 1
  coder.low, coder.width, coder.bits = 0, UNIT, 0
  coder.begin += window >> 3


@numba.njit(cache=True, nogil=True)
def decode(
  lanes: np.ndarray,
  coders: np.ndarray,
  arrays: tuple[np.ndarray, ...],
  root: np.ndarray,
  cumulative: np.ndarray,
  active: np.ndarray,
  window: int,
  exact: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """One byte of each document; see `encode`, but `arrays` are stream, bytes and ends.

  A coder's `low` counts from the interval's low.
  """
  data, out, ends = arrays
  symbols, forget = np.zeros(lanes.size, np.uint8), np.zeros(lanes.size, np.bool_)
  done = np.zeros(lanes.size, np.bool_)
  for i in range(lanes.size):
    if not active[i]:
      continue
    lane, coder, row = lanes[i], coders[i], cumulative[i]
    symbol, place = -1, lane.windows * (window >> 3)  # of the window after the one being read
    if lane.pos > lane.head:
      cell = data[i, place - (window >> 3) : place]
      symbol = _next_in_window(lane, coder, row, cell, window, exact)
    if symbol < 0:
      if lane.pos > lane.head:
        if lane.best > lane.head:  # else no text has this code: all that was read
          lane.pos = lane.best
        ends[i, lane.pos - 1] = True
      if place == lane.size:
        done[i] = True
        continue
      forget[i], row, cell = True, root, data[i, place : place + (window >> 3)]
      lane.head, lane.best, lane.floor = lane.pos, lane.pos, 0
      lane.windows += 1
      coder.low, coder.width, coder.bits = 0, UNIT, 0
      arithmetic.fill(coder, cell)
      symbol = arithmetic.find(coder.low, coder.width, row)
    _descend(lane, coder, row, symbol, cell)
    out[i, lane.pos] = symbol
    lane.pos += 1
    symbols[i] = symbol
  return symbols, forget, done


@numba.njit(cache=True, nogil=True)
def _next_in_window(lane, coder, row, cell, window, exact):
  """The window's next byte, or -1 where it ends; sets `best` if it may end here."""
  shift = 32 + coder.bits - window
  if exact:
    single = lane.pos == lane.head + 1
    _, coder.width = own(lane.floor, coder.width, row, PRECISION, shift, single)
    lane.best = lane.pos
    if coder.low >= coder.width:
      return -1
  elif _is_code(lane.floor, coder, cell):
    lane.best = lane.pos
  symbol = arithmetic.find(coder.low, coder.width, row)
  start, stop = np.int64(row[symbol]), np.int64(row[symbol + 1])
  cut, width = arithmetic.narrow(0, coder.width, start, stop, PRECISION)
  if exact:
    enclosed = coder.low + (1 << max(shift, 0)) <= cut + width
    return symbol if enclosed else -1
  return symbol if fits(lane.floor + cut, width, shift) else -1


@numba.njit(cache=True, nogil=True)
def _is_code(floor, coder, cell):
  """Whether the shortest code of the text so far, zeros after it, is the window's."""
  if arithmetic.shortest(floor, coder.width)[0] - floor != coder.low:
    return False
  known = 32 + coder.bits  # bits of the window that `low` has
  for place in range(known >> 3, cell.size):
    if cell[place] & (255 >> (known & 7) if place == known >> 3 else 255):
      return False
  return True


@numba.njit(cache=True, nogil=True)
def _descend(lane, coder, row, symbol, cell):
  start, stop = np.int64(row[symbol]), np.int64(row[symbol + 1])
  lane.floor += arithmetic.narrow(0, coder.width, start, stop, PRECISION)[0]
  before = coder.bits
  arithmetic.pull(coder, cell, start, stop)
  lane.floor = (lane.floor << (coder.bits - before)) & (UNIT - 1)
