# SPDX-License-Identifier: Apache-2.0
"""Equal-info windows under a stepping M1: any width, and M1 not reset at every window."""

import zlib
from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import ArrayLike

from lib.errors import InputError
from lib.tokenizers import base
from lib.tokenizers.coding import arithmetic, slices
from lib.tokenizers.coding.arithmetic import PRECISION, UNIT
from lib.tokenizers.coding.model import Stepper
from lib.tokenizers.coding.stepping import Coded, Stepped, drive
from lib.tokenizers.coding.tabulate import fits, own

WINDOWS = (16, 24, 32, 64, 128)
KEPT = 24  # bytes of the widest window and what `seal` writes beyond


class SteppedEqualInfo(Stepped):
  """EqualInfoAC[b, v] of many documents at once; for b = 16 the same tokens as the table's.

  Modes are 'greedy' and 'exact', as in `tabulate`; the coder begins anew at each window. Ends of
  documents need no length: the last window holds what is left, or, where 'exact' has no cell for
  that, the last few do. The decoder of greedy follows the paper's appendix D.5: the longest text
  whose code is the window's.

  Args:
    stepper: M1.
    model: M1's name, such as a digest of its weights.
    bits: b, one of WINDOWS.
    mode: 'greedy' or 'exact'.
    token_bits: 8, 12 or 16, at most b.
    reset: M1 forgets all at every so manieth window's begin; 0 = never. Greedy only has a choice,
      and is decoded for 1 only, since its decoder reads beyond a window before it knows its end.
  """

  family = 'stepped_equal_info'

  def __init__(
    self,
    stepper: Stepper,
    model: str,
    bits: int,
    mode: str = 'exact',
    token_bits: int = 16,
    reset: int = 1,
  ):
    super().__init__(stepper, model, token_bits)
    slices.check(token_bits, bits)
    if bits not in WINDOWS or mode not in ('greedy', 'exact'):
      raise InputError(
        f'windows of {bits} bits in mode {mode!r}: use one of {WINDOWS} and greedy or exact'
      )
    if reset < 0 or (mode == 'exact' and reset != 1):
      raise InputError(
        f'M1 reset at every window number {reset}: use 1, or with greedy also 2 and more, or 0'
      )
    self.bits = bits
    self.mode = mode
    self.reset = reset
    self.lossless = mode == 'exact'

  def encode_all(self, documents: Sequence[bytes]) -> list[Coded]:
    """Each document as tokens."""
    return drive(self.stepper, _Encoder(self), documents)

  def decode_all(self, ids: Sequence[ArrayLike]) -> list[tuple[bytes, np.ndarray]]:
    """The bytes of each row of ids, and how many each id covers; see the base class."""
    if self.reset != 1:
      raise InputError('windows are decoded only where M1 is reset at each of them (reset=1)')
    rows = [self.check_ids(row) for row in ids]
    for row in rows:
      slices.check_whole(row.size, self.token_bits, self.bits)
    return drive(self.stepper, _Decoder(self), rows)

  def token_lengths(self, windows: np.ndarray, count: int) -> np.ndarray:
    """Bytes a token, int32 [count], from those of the windows [n]: a window's last has all."""
    lengths = np.zeros(count, np.int32)
    lengths[slices.windows(count, self.token_bits, self.bits)[1]] = windows
    return lengths

  def state(self) -> base.State:
    """M1's name, the widths, the mode and the reset."""
    numbers = np.array([self.bits, self.reset], np.int32)
    return {**super().state(), 'window': numbers, 'mode': base.byte_array(self.mode.encode())}


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


class _Lanes:
  """What encoder and decoder have in common: N rows of data, coders, and room for results."""

  marks = 0

  def __init__(self, codec: SteppedEqualInfo):
    streams = codec.stepper.streams
    self.codec = codec
    self.exact = codec.mode == 'exact'
    self.coders = arithmetic.lanes(streams)
    self.lanes = np.zeros(streams, LANE)
    self.data = np.zeros((streams, 0), np.uint8)
    self.out = np.zeros((streams, 64), np.uint8)
    self.ends = np.zeros((streams, 64), np.bool_)  # the bytes at which windows end
    self.root = arithmetic.quantise(codec.stepper.start()[None])[0]

  def start(self, lane: int, data: np.ndarray) -> bool:
    """Sets a lane to `data`, uint8 [n]; returns whether there is any."""
    self.data = _wider(self.data, data.size)
    self.data[lane, : data.size] = data
    self.coders[lane] = arithmetic.lanes(1)[0]
    self.lanes[lane] = np.zeros(1, LANE)[0]
    self.lanes[lane]['size'] = data.size
    self.out[lane], self.ends[lane] = 0, False
    return data.size > 0

  def windows(self, lane: int) -> np.ndarray:
    """Bytes in each window, int64 [n]."""
    return np.diff(np.flatnonzero(self.ends[lane]), prepend=-1)


class _Encoder(_Lanes):
  def __init__(self, codec):
    super().__init__(codec)
    self.kept = np.zeros((len(self.lanes), KEPT), np.uint8)

  def begin(self, lane, job):
    self.ends = _wider(self.ends, len(job))
    return self.start(lane, np.frombuffer(job, np.uint8))

  def step(self, cumulative, active):
    self.out = arithmetic.room(self.out, self.coders)
    return _encode(
      self.lanes,
      self.coders,
      (self.data, self.out, self.ends, self.kept),
      self.root,
      cumulative,
      active,
      self.codec.bits,
      self.exact,
      self.codec.reset,
    )

  def take(self, lane):
    stream = self.out[lane, : self.coders[lane]['begin']]
    ids = slices.unpack(stream, self.codec.token_bits)
    data = self.data[lane, : self.lanes[lane]['size']].tobytes()
    lengths = self.codec.token_lengths(self.windows(lane), ids.size)
    return Coded(ids, lengths, len(data), zlib.crc32(data))


class _Decoder(_Lanes):
  def __init__(self, codec):
    super().__init__(codec)
    self.count = np.zeros(len(self.lanes), np.int64)  # tokens

  def begin(self, lane, job):
    stream = slices.pack(job, self.codec.token_bits)
    windows, _ = slices.windows(job.size, self.codec.token_bits, self.codec.bits)
    self.count[lane] = job.size
    return self.start(lane, stream[: windows * self.codec.bits // 8])

  def step(self, cumulative, active):
    need = int(self.lanes['pos'].max()) + 2
    self.out, self.ends = _wider(self.out, need), _wider(self.ends, need)
    return _decode(
      self.lanes,
      self.coders,
      (self.data, self.out, self.ends),
      self.root,
      cumulative,
      active,
      self.codec.bits,
      self.exact,
    )

  def take(self, lane):
    data = self.out[lane, : self.lanes[lane]['pos']].tobytes()
    return data, self.codec.token_lengths(self.windows(lane), int(self.count[lane]))


def _wider(array: np.ndarray, size: int) -> np.ndarray:
  """`array` [N, columns], or if `size` is more than its columns a copy of at least twice as many."""
  columns = array.shape[1]
  if size <= columns:
    return array
  return np.pad(array, ((0, 0), (0, max(size - columns, columns))))


@numba.njit(cache=True, nogil=True)
def _encode(lanes, coders, arrays, root, cumulative, active, window, exact, every):
  """One byte of each document: the bytes for M1, where it forgets before them, and who is done."""
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
    arithmetic.push(coder, out[i], np.int64(row[symbol]), np.int64(row[symbol + 1]), PRECISION)
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
def _decode(lanes, coders, arrays, root, cumulative, active, window, exact):
  """One byte of each document; see `_encode`. A coder's `low` counts from the interval's low."""
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
      symbol = arithmetic.find(coder.low, coder.width, row, PRECISION)
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
  symbol = arithmetic.find(coder.low, coder.width, row, PRECISION)
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
  arithmetic.pull(coder, cell, start, stop, PRECISION)
  lane.floor = (lane.floor << (coder.bits - before)) & (UNIT - 1)
