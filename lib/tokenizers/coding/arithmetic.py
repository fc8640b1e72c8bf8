# SPDX-License-Identifier: Apache-2.0
"""An exact integer arithmetic coder: probabilities to integers, symbols to bits and back.

A text's interval is [low, low + width) in units of 2^-(32 + bits), with 2^32 <= width < 2^33:
`bits` counts the doublings since the start, where the interval is [0, 1) and width is 2^32. A
symbol keeps its share, rounded down to whole units. The code is the shortest dyadic interval
[v, v + 1) / 2^n that the text's interval encloses, the leftmost of equals, so whatever follows
these n bits decodes to the same text; n is `bits` or one more.

All integers are int64: a width times a 14-bit frequency has 47 bits.
"""

from collections.abc import Sequence

import numba
import numpy as np

from lib.errors import InputError

PRECISION = 14  # log2 of what the frequencies of all symbols add up to
UNIT = 1 << 32  # the least width; a whole number of these is where `low` has its `bits`
LOOKAHEAD = 8  # bytes that a step may write beyond those that are full

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
    precision: log2 of the sum of the frequencies, at most 15.
    marks: further symbols, after the S, of frequency 1.

  Returns:
    uint16 [N, S + marks + 1], from 0 to 2^precision.

  Raises:
    InputError: a row that holds no distribution, or more symbols than frequencies.
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
      f'row {np.flatnonzero(wrong)[0]} of the probabilities is no distribution: every entry must '
      'be a number, none negative, and one above 0'
    )
  # Relative to the largest, so that no row is lost to rounding; products have 55 bits.
  scaled = np.rint(probabilities / largest[:, None].astype(np.float64) * 2**40).astype(np.int64)
  frequencies = np.ones((rows, symbols + marks), np.int64)
  frequencies[:, :symbols] += scaled * free // scaled.sum(axis=1, keepdims=True)
  best = scaled.argmax(axis=1)
  frequencies[np.arange(rows), best] += (1 << precision) - frequencies.sum(axis=1)
  cumulative = np.zeros((rows, symbols + marks + 1), np.uint16)
  np.cumsum(frequencies, axis=1, out=cumulative[:, 1:], dtype=np.uint16)
  return cumulative


def lanes(count: int) -> np.ndarray:
  """Fresh coders, LANE [count]: each interval is [0, 1)."""
  state = np.zeros(count, LANE)
  state['width'] = UNIT
  return state


class Encoder:
  """N streams side by side: symbols in, one a stream and step, bytes out."""

  def __init__(self, streams: int, precision: int = PRECISION):
    self._lanes = lanes(streams)
    self._out = np.zeros((streams, 64), np.uint8)
    self._precision = precision

  def put(self, symbols: np.ndarray, cumulative: np.ndarray, active: np.ndarray) -> None:
    """Narrows the streams where `active` [N] to `symbols` [N] under `cumulative` [N, S + 1]."""
    self._out = room(self._out, self._lanes)
    _put(self._lanes, self._out, symbols, cumulative, active, self._precision)

  def settled(self) -> np.ndarray:
    """How many bytes at the front of each stream no later symbol can change, int64 [N].

    A carry adds at most 2 to the last full byte and passes on only through bytes that overflow.
    """
    full = self._lanes['bits'] >> 3
    counts = [
      max(np.flatnonzero(self._out[i, :n] < 0xFE)[-1:].tolist() or [0]) for i, n in enumerate(full)
    ]
    return np.array(counts, np.int64)

  def finish(self) -> tuple[list[bytes], np.ndarray]:
    """Each stream's shortest code, zero bits after it up to a byte, and its bits, int64 [N]."""
    self._out = room(self._out, self._lanes)
    bits = _finish(self._lanes, self._out)
    return [self._out[i, : (n + 7) // 8].tobytes() for i, n in enumerate(bits)], bits


class Decoder:
  """N streams side by side: asks for the next symbol's frequencies, gives the symbol.

  Bits after a stream's end are zeros. The caller knows where to stop.
  """

  def __init__(self, streams: Sequence[bytes], precision: int = PRECISION):
    self._data = np.zeros((len(streams), max(map(len, streams), default=0) + LOOKAHEAD), np.uint8)
    for row, stream in zip(self._data, streams, strict=True):
      row[: len(stream)] = np.frombuffer(stream, np.uint8)
    self._lanes = lanes(len(streams))
    for lane, row in zip(self._lanes, self._data, strict=True):
      lane['low'] = int.from_bytes(row[:4].tobytes(), 'big')
    self._precision = precision

  @property
  def bits(self) -> np.ndarray:
    """Whole bits of information taken from each stream so far, int64 [N]."""
    return self._lanes['bits']

  def get(self, cumulative: np.ndarray, active: np.ndarray) -> np.ndarray:
    """The next symbols, int64 [N], under `cumulative` [N, S + 1]; 0 where not `active` [N]."""
    return _get(self._lanes, self._data, cumulative, active, self._precision)


def encode(symbols: np.ndarray, cumulative: np.ndarray, precision: int = PRECISION):
  """One stream whole: `symbols` [n] under `cumulative` [n, S + 1], or [1, S + 1] for all.

  Returns:
    The code, zero bits after it up to a byte, and its number of bits.
  """
  out = np.zeros(symbols.size * precision // 8 + 2 * LOOKAHEAD, np.uint8)
  bits = _encode(lanes(1), out, symbols, cumulative, precision)
  return out[: (bits + 7) // 8].tobytes(), bits


def room(out: np.ndarray, state: np.ndarray) -> np.ndarray:
  """`out` [N, bytes], or a copy of at least twice the bytes if a step might not fit in."""
  need = int((state['begin'] + (state['bits'] >> 3)).max(initial=0)) + 3 * LOOKAHEAD
  if need <= out.shape[1]:
    return out
  return np.pad(out, ((0, 0), (0, max(need - out.shape[1], out.shape[1]))))


@numba.njit(cache=True, nogil=True)
def narrow(low, width, start, stop, precision):
  """The part [start, stop) / 2^precision of an interval: low, width before normalisation."""
  cut = (width * start) >> precision
  return low + cut, ((width * stop) >> precision) - cut


@numba.njit(cache=True, nogil=True)
def doublings(width):
  """How often `width` > 0 must be doubled to be normal."""
  count = 0
  while width << count < UNIT:
    count += 1
  return count


@numba.njit(cache=True, nogil=True)
def shortest(low, width):
  """The shortest dyadic interval enclosed: its start, and the bits it takes beyond `bits`."""
  start = -(-low // UNIT) * UNIT
  if start + UNIT <= low + width:
    return start, 0
  half = UNIT // 2
  return -(-low // half) * half, 1


@numba.njit(cache=True, nogil=True)
def carry(lane, out, low):
  """Adds what of `low` exceeds the bits not yet written to the bytes before; returns the rest."""
  top = 32 + (lane.bits & 7)
  more = low >> top
  place = lane.begin + (lane.bits >> 3) - 1
  low -= more << top
  while more:
    total = out[place] + more
    out[place] = total & 255
    more = total >> 8
    place -= 1
  return low


@numba.njit(cache=True, nogil=True)
def push(lane, out, start, stop, precision):
  """Narrows a lane to [start, stop) / 2^precision and writes the bytes that are full."""
  low, width = narrow(lane.low, lane.width, start, stop, precision)
  low = carry(lane, out, low)
  bits = lane.bits
  while width < UNIT:
    low, width, bits = low << 1, width << 1, bits + 1
    if bits & 7 == 0:
      out[lane.begin + (bits >> 3) - 1] = low >> 32
      low &= UNIT - 1
  lane.low, lane.width, lane.bits = low, width, bits


@numba.njit(cache=True, nogil=True)
def seal(lane, out, start):
  """Writes `start`, units in place of the lane's low, to the end: five bytes from the open one."""
  value = carry(lane, out, start) << (8 - (lane.bits & 7))
  place = lane.begin + (lane.bits >> 3)
  for i in range(5):
    out[place + i] = (value >> (32 - 8 * i)) & 255


@numba.njit(cache=True, nogil=True)
def pull(lane, data, start, stop, precision):
  """Narrows a decoder's lane, whose `low` counts from the interval's low to the code."""
  cut, width = narrow(0, lane.width, start, stop, precision)
  low, bits = lane.low - cut, lane.bits
  while width < UNIT:
    place = lane.begin * 8 + 32 + bits
    bit = data[place >> 3] >> (7 - (place & 7)) & 1 if place >> 3 < data.size else 0
    low, width, bits = low << 1 | bit, width << 1, bits + 1
  lane.low, lane.width, lane.bits = low, width, bits


@numba.njit(cache=True, nogil=True)
def find(offset, width, cumulative, precision):
  """The symbol whose share of `width` holds `offset`."""
  first, last = 0, cumulative.size - 2
  while first < last:
    middle = (first + last + 1) >> 1
    if (width * cumulative[middle]) >> precision <= offset:
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
def _finish(state, out):
  bits = np.empty(state.size, np.int64)
  for i in range(state.size):
    start, extra = shortest(state[i].low, state[i].width)
    bits[i] = state[i].bits + extra
    seal(state[i], out[i], start)
  return bits


@numba.njit(cache=True, nogil=True)
def _encode(state, out, symbols, cumulative, precision):
  lane, several = state[0], len(cumulative) > 1
  for i in range(symbols.size):
    row, s = cumulative[i if several else 0], symbols[i]
    push(lane, out, np.int64(row[s]), np.int64(row[s + 1]), precision)
  start, extra = shortest(lane.low, lane.width)
  seal(lane, out, start)
  return lane.bits + extra


@numba.njit(cache=True, nogil=True)
def _get(state, data, cumulative, active, precision):
  symbols = np.zeros(state.size, np.int64)
  for i in range(state.size):
    if active[i]:
      row = cumulative[i]
      s = symbols[i] = find(state[i].low, state[i].width, row, precision)
      pull(state[i], data[i], np.int64(row[s]), np.int64(row[s + 1]), precision)
  return symbols
