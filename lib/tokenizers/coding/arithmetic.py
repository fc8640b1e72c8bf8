# SPDX-License-Identifier: Apache-2.0
"""An exact integer arithmetic coder: probabilities to integers, symbols to bits and back.

A text's interval is [low, low + width) in units of 2^-(32 + bits), with 2^32 <= width < 2^33:
`bits` counts the doublings since the start, where the interval is [0, 1) and width is 2^32. A
symbol keeps its share, rounded down to whole units. The code is the shortest dyadic interval
[v, v + 1) / 2^n that the text's interval encloses, the leftmost of equals, so any bits after
these n decode to the same text; n is `bits` or one more.

All integers are int64: a width times a 14-bit frequency has 47 bits.
"""

import numba
import numpy as np

from lib.errors import InputError

PRECISION = 14  # log2 of what the frequencies of all symbols add up to
FINE = 24  # the same for a model whose bits are to be kept to a thousandth
UNIT = 1 << 32  # the least width; a whole number of these is where `low` has its `bits`
LOOKAHEAD = 8  # bytes that a step may write ahead
Integer = int | np.int64

LANE = np.dtype(
  [
    ('low', np.int64),  # the units of `low` that are not yet bytes: 32 + bits % 8 bits
    ('width', np.int64),
    ('bits', np.int64),
    ('begin', np.int64),  # where in the output this interval's bytes begin
  ]
)


def quantise(probabilities: np.ndarray, precision: int = PRECISION, marks: int = 0) -> np.ndarray:
  """Integer cumulative frequencies, each at least 1, of rows of probabilities.

  One rounding, to 2^-40 of the largest; the rest is integers. Each symbol gets 1 and its share of
  the others, rounded down; what is left over goes to the most probable symbol, the lowest of
  equals.

  Args:
    probabilities: [N, S], not negative; they need not add up to 1.
    precision: log2 of the sum of the frequencies, at most FINE.
    marks: further symbols, after the S, of frequency 1.

  Returns:
    uint16 [N, S + marks + 1], from 0 to 2^precision; uint32 above 15.

  Raises:
    InputError: a row that is not a distribution, or more symbols than frequencies.
  """
  rows, symbols = probabilities.shape
  free = (1 << precision) - symbols - marks
  if free < 0:
    raise InputError(f'{symbols + marks} symbols need more than {precision} bits of precision')
  with np.errstate(invalid='ignore', over='ignore'):
    largest = probabilities.max(axis=1, initial=0)
    wrong = ~((probabilities >= 0).all(axis=1) & (largest > 0) & np.isfinite(largest))
  if wrong.any():
    raise InputError(
      f'row {np.flatnonzero(wrong)[0]} of the probabilities is not a distribution: every entry '
      'must be a number, none negative, and one above 0'
    )
  # Relative to the largest, so that no row is lost to rounding; products have 55 bits.
  unit = 2.0 ** min(40, 62 - precision)
  scaled = np.rint(probabilities / largest[:, None].astype(np.float64) * unit).astype(np.int64)
  frequencies = np.ones((rows, symbols + marks), np.int64)
  frequencies[:, :symbols] += scaled * free // scaled.sum(axis=1, keepdims=True)
  best = scaled.argmax(axis=1)
  frequencies[np.arange(rows), best] += (1 << precision) - frequencies.sum(axis=1)
  dtype = np.uint16 if precision <= 15 else np.uint32
  cumulative = np.zeros((rows, symbols + marks + 1), dtype)
  np.cumsum(frequencies, axis=1, out=cumulative[:, 1:], dtype=dtype)
  return cumulative


def lanes(count: int) -> np.ndarray:
  """Fresh coders, LANE [count]: each interval is [0, 1)."""
  state = np.zeros(count, LANE)
  state['width'] = UNIT
  return state


class Encoder:
  """N parallel streams: one symbol per stream and step in, bytes out."""

  def __init__(self, streams: int, precision: int = PRECISION):
    self.lanes, self._precision = lanes(streams), precision
    self._out = np.zeros((streams, 64), np.uint8)

  def put(self, symbols: np.ndarray, cumulative: np.ndarray, active: np.ndarray) -> None:
    """Narrows the streams where `active` [N] to `symbols` [N] under `cumulative` [N, S + 1]."""
    self._out = room(self._out, self.lanes)
    _put(self.lanes, self._out, symbols, cumulative, active, self._precision)

  def finish(self, stream: int) -> tuple[bytes, int]:
    """A stream's shortest code, zero bits after it up to a byte, and its bits; begins a new one."""
    self._out = room(self._out, self.lanes)
    bits = finish(self.lanes[stream], self._out[stream])
    code = self._out[stream, : (bits + 7) // 8].tobytes()
    self.lanes[stream], self._out[stream] = lanes(1)[0], 0
    return code, bits


class Decoder:
  """N parallel streams: takes the next symbol's frequencies, returns the symbol.

  Bits after a stream's end are zeros. The caller knows where to stop.
  """

  def __init__(self, streams: int, precision: int = PRECISION):
    self.lanes, self._precision = lanes(streams), precision
    self._data = np.zeros((streams, 0), np.uint8)

  def begin(self, stream: int, code: bytes) -> None:
    """Sets a stream to the beginning of `code`."""
    more = max(len(code) - self._data.shape[1], 0)
    self._data = np.pad(self._data, ((0, 0), (0, more)))
    self._data[stream] = 0
    self._data[stream, : len(code)] = np.frombuffer(code, np.uint8)
    self.lanes[stream] = lanes(1)[0]
    fill(self.lanes[stream], self._data[stream])

  def get(self, cumulative: np.ndarray, active: np.ndarray) -> np.ndarray:
    """The next symbols, int64 [N], under `cumulative` [N, S + 1]; 0 where not `active` [N]."""
    return _get(self.lanes, self._data, cumulative, active, self._precision)


def encode(symbols: np.ndarray, cumulative: np.ndarray) -> tuple[bytes, int]:
  """One stream whole: `symbols` [n] under `cumulative` [n, S + 1], or [1, S + 1] for all.

  Returns:
    The code, zero bits after it up to a byte, and its number of bits.
  """
  out = np.zeros(symbols.size * PRECISION // 8 + 2 * LOOKAHEAD, np.uint8)
  bits = _encode(lanes(1), out, symbols, cumulative)
  return out[: (bits + 7) // 8].tobytes(), bits


def room(out: np.ndarray, state: np.ndarray) -> np.ndarray:
  """`out` [N, bytes], or a copy of at least twice the bytes if a step might not fit in."""
  need = int((state['begin'] + (state['bits'] >> 3)).max(initial=0)) + 4 * LOOKAHEAD
  if need <= out.shape[1]:
    return out
  return np.pad(out, ((0, 0), (0, max(need - out.shape[1], out.shape[1]))))


@numba.njit(cache=True, nogil=True)
def narrow(
  low: Integer, width: Integer, start: Integer, stop: Integer, precision: int
) -> tuple[Integer, Integer]:
  """The part [start, stop) / 2^precision of an interval: low, width before normalisation."""
  cut = (width * start) >> precision
  return low + cut, ((width * stop) >> precision) - cut


@numba.njit(cache=True, nogil=True)
def doublings(width: Integer) -> int:
  """How often `width` > 0 must be doubled to be normal."""
  count = 0
  while width << count < UNIT:
    count += 1
  return count


@numba.njit(cache=True, nogil=True)
def places(symbols: np.ndarray, cumulative: np.ndarray) -> np.ndarray:
  """The whole bits of information up to the end of each of `symbols` [n], int64 [n].

  They depend on widths alone; `cumulative` is as in `encode`.
  """
  out = np.empty(symbols.size, np.int64)
  bits, several = 0, len(cumulative) > 1
  width: Integer = UNIT
  for i in range(symbols.size):
    row, s = cumulative[i if several else 0], symbols[i]
    _, width = narrow(0, width, np.int64(row[s]), np.int64(row[s + 1]), PRECISION)
    more = doublings(width)
    width, bits = width << more, bits + more
    out[i] = bits
  return out


@numba.njit(cache=True, nogil=True)
def shortest(low: Integer, width: Integer) -> tuple[Integer, int]:
  """The shortest dyadic interval enclosed: its start, and the bits it takes beyond `bits`."""
  start = -(-low // UNIT) * UNIT
  if start + UNIT <= low + width:
    return start, 0
  half = UNIT // 2
  return -(-low // half) * half, 1


@numba.njit(cache=True, nogil=True)
def carry(out: np.ndarray, place: Integer, bits: Integer, low: Integer) -> Integer:
  """Adds what of `low` exceeds the bits not yet written to the bytes before `place`; the rest."""
  top = 32 + (bits & 7)
  more = low >> top
  low -= more << top
  while more:
    place -= 1
    total = out[place] + more
    out[place] = total & 255
    more = total >> 8
  return low


@numba.njit(cache=True, nogil=True)
def push(
  lane: np.record, out: np.ndarray, start: Integer, stop: Integer, precision: int = PRECISION
) -> None:
  """Narrows a lane to [start, stop) / 2^precision and writes the bytes that are full."""
  low, width = narrow(lane.low, lane.width, start, stop, precision)
  bits = lane.bits
  place = lane.begin + (bits >> 3)
  low = carry(out, place, bits, low)
  while width < UNIT:
    low, width, bits = low << 1, width << 1, bits + 1
    if bits & 7 == 0:
      out[place] = low >> 32
      low &= UNIT - 1
      place += 1
  lane.low, lane.width, lane.bits = low, width, bits


@numba.njit(cache=True, nogil=True)
def seal(out: np.ndarray, begin: Integer, bits: Integer, start: Integer) -> None:
  """Writes `start`, units in place of a lane's low, to its end: five bytes from the open one."""
  place = begin + (bits >> 3)
  value = carry(out, place, bits, start) << (8 - (bits & 7))
  for i in range(5):
    out[place + i] = (value >> (32 - 8 * i)) & 255


@numba.njit(cache=True, nogil=True)
def finish(lane: np.record, out: np.ndarray) -> int:
  """Writes the shortest code, zeros after it, and returns its bits."""
  start, extra = shortest(lane.low, lane.width)
  seal(out, lane.begin, lane.bits, start)
  return lane.bits + extra


@numba.njit(cache=True, nogil=True)
def fill(lane: np.record, data: np.ndarray) -> None:
  """Reads the first 32 bits into a fresh decoder's lane."""
  for i in range(4):
    lane.low = lane.low << 8 | (np.int64(data[i]) if i < data.size else 0)


@numba.njit(cache=True, nogil=True)
def pull(
  lane: np.record, data: np.ndarray, start: Integer, stop: Integer, precision: int = PRECISION
) -> None:
  """Narrows a decoder's lane, whose `low` is the code counted from the interval's low."""
  cut, width = narrow(0, lane.width, start, stop, precision)
  low, bits = lane.low - cut, lane.bits
  while width < UNIT:
    place = lane.begin * 8 + 32 + bits
    bit = data[place >> 3] >> (7 - (place & 7)) & 1 if place >> 3 < data.size else 0
    low, width, bits = low << 1 | bit, width << 1, bits + 1
  lane.low, lane.width, lane.bits = low, width, bits


@numba.njit(cache=True, nogil=True)
def find(
  offset: Integer, width: Integer, cumulative: np.ndarray, precision: int = PRECISION
) -> int:
  """The symbol whose share of `width` contains `offset`."""
  first, last = 0, cumulative.size - 2
  while first < last:
    middle = (first + last + 1) >> 1
    if (width * np.int64(cumulative[middle])) >> precision <= offset:
      first = middle
    else:
      last = middle - 1
  return first


@numba.njit(cache=True, nogil=True)
def _put(state, out, symbols, cumulative, active, precision):
  for i in range(state.size):
    if active[i]:
      row, s = cumulative[i], symbols[i]
      push(state[i], out[i], np.int64(row[s]), np.int64(row[s + 1]), precision)


@numba.njit(cache=True, nogil=True)
def _encode(state, out, symbols, cumulative):
  lane, several = state[0], len(cumulative) > 1
  for i in range(symbols.size):
    row, s = cumulative[i if several else 0], symbols[i]
    push(lane, out, np.int64(row[s]), np.int64(row[s + 1]))
  return finish(lane, out)


@numba.njit(cache=True, nogil=True)
def _get(state, data, cumulative, active, precision):
  symbols = np.zeros(state.size, np.int64)
  for i in range(state.size):
    if active[i]:
      row = cumulative[i]
      s = symbols[i] = find(state[i].low, state[i].width, row, precision)
      pull(state[i], data[i], np.int64(row[s]), np.int64(row[s + 1]), precision)
  return symbols
