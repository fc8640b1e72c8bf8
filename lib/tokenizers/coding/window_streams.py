# SPDX-License-Identifier: Apache-2.0
"""Equal-info windows of any width; the byte model runs at every byte (arXiv 2404.03626)."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lib.errors import InputError
from lib.tokenizers import base
from lib.tokenizers.base import Coded
from lib.tokenizers.coding import arithmetic, slices, window_steps
from lib.tokenizers.coding.model import Stepper
from lib.tokenizers.coding.stepping import Stepped, drive

WINDOWS = (16, 24, 32, 64, 128)
KEPT = 24  # bytes of the widest window and what `seal` writes beyond


class SteppedEqualInfo(Stepped):
  """EqualInfoAC[b, v] of many documents in parallel; for b = 16 the tokens are those of the table.

  Modes are 'greedy' and 'exact', as in `tabulate`; the coder is reset at each window. The length of
  a document is not stored: the last window contains the rest, or, where 'exact' has no cell for
  it, the last few windows do. The decoder of greedy follows the paper's appendix D.5: the longest
  text whose code is the window's.

  Args:
    stepper: the byte model.
    model: its name, such as a digest of its weights.
    bits: b, one of WINDOWS.
    mode: 'greedy' or 'exact'.
    token_bits: 8, 12 or 16, at most b.
    reset: the byte model is reset every `reset` windows (0: never). Only greedy has a choice, and
      it can be decoded for 1 only, since its decoder reads beyond a window before it knows its end.
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

  def cover_batch(self, documents: Sequence[bytes]) -> list[Coded]:
    """Each document as tokens."""
    return drive(self.stepper, _Encoder(self), documents, self.progress)

  def decode_all(self, ids: Sequence[ArrayLike]) -> list[tuple[bytes, np.ndarray]]:
    """The bytes of each row of ids, and how many each id covers; see the base class."""
    if self.reset != 1:
      raise InputError('windows are decoded only where M1 is reset at each of them (reset=1)')
    rows = [self.check_ids(row) for row in ids]
    for row in rows:
      slices.check_whole(row.size, self.token_bits, self.bits)
    return drive(self.stepper, _Decoder(self), rows, self.progress)

  def token_lengths(self, windows: np.ndarray, count: int) -> np.ndarray:
    """Bytes a token, int32 [count], from those of the windows [n]: a window's last has all."""
    lengths = np.zeros(count, np.int32)
    lengths[slices.windows(count, self.token_bits, self.bits)[1]] = windows
    return lengths

  def state(self) -> base.State:
    """The byte model's name, the widths, the mode and the reset."""
    numbers = np.array([self.bits, self.reset], np.int32)
    return {**super().state(), 'window': numbers, 'mode': base.byte_array(self.mode.encode())}

  @classmethod
  def options(cls, state: base.State) -> dict[str, Any]:
    """The other arguments of the constructor, by name."""
    bits, reset = state['window'].tolist()
    mode = state['mode'].tobytes().decode()
    return {**super().options(state), 'bits': bits, 'mode': mode, 'reset': reset}


class _Lanes:
  """The common part of encoder and decoder: N rows of data, coders, and space for results."""

  marks = 0
  precision = arithmetic.PRECISION

  def __init__(self, codec: SteppedEqualInfo):
    streams = codec.stepper.streams
    self.codec = codec
    self.exact = codec.mode == 'exact'
    self.coders = arithmetic.lanes(streams)
    self.lanes = np.zeros(streams, window_steps.LANE)
    self.data = np.zeros((streams, 0), np.uint8)
    self.out = np.zeros((streams, 64), np.uint8)
    self.ends = np.zeros((streams, 64), np.bool_)  # the bytes at which windows end
    self.root = arithmetic.quantise(codec.stepper.start()[None])[0]

  def start(self, lane: int, data: np.ndarray) -> bool:
    """Sets a lane to `data`, uint8 [n]; returns whether there is any."""
    self.data = _wider(self.data, data.size)
    self.data[lane, : data.size] = data
    self.coders[lane] = arithmetic.lanes(1)[0]
    self.lanes[lane] = np.zeros(1, window_steps.LANE)[0]
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
    return window_steps.encode(
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
    return window_steps.decode(
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
  """`array` [N, columns], or a copy of twice the columns or more where `size` is beyond them."""
  columns = array.shape[1]
  if size <= columns:
    return array
  return np.pad(array, ((0, 0), (0, max(size - columns, columns))))
