# SPDX-License-Identifier: Apache-2.0
"""AC: each document as one arithmetic-coded stream under a byte model (arXiv 2404.03626)."""

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lib.tokenizers.base import Coded
from lib.tokenizers.coding import arithmetic, slices
from lib.tokenizers.coding.baselines import END, check_end, token_lengths
from lib.tokenizers.coding.model import Stepper
from lib.tokenizers.coding.stepping import Stepped, drive


class SteppedAC(Stepped):
  """AC without windows: the byte model sees the whole document, up to its context.

  Ends of documents and the bytes that a token covers are as in `StaticAC`.
  """

  family = 'ac'
  precision = arithmetic.PRECISION  # log2 of the sum of the coder's frequencies

  def __init__(self, stepper: Stepper, model: str, token_bits: int = 8):
    super().__init__(stepper, model, token_bits)

  def cover_batch(self, documents: Sequence[bytes]) -> list[Coded]:
    """Each document as tokens."""
    encoder = _Encoder(self.stepper.streams, self.token_bits, self.precision)
    return drive(self.stepper, encoder, documents, self.progress)

  def decode_all(self, ids: Sequence[ArrayLike]) -> list[tuple[bytes, np.ndarray]]:
    """The bytes of each row of ids, and how many each id covers; see the base class."""
    rows = [self.check_ids(row) for row in ids]
    decoder = _Decoder(self.stepper.streams, self.token_bits, self.precision)
    return drive(self.stepper, decoder, rows, self.progress)


class _Encoder:
  marks = 1

  def __init__(self, streams: int, token_bits: int, precision: int):
    self.precision = precision
    self._encoder = arithmetic.Encoder(streams, precision)
    self._token_bits = token_bits
    self._rest = [iter(())] * streams  # symbols to come
    self._data = [b''] * streams
    self._places: list[list[int]] = [[]] * streams

  def begin(self, lane, job):
    self._data[lane], self._rest[lane], self._places[lane] = job, iter([*job, END]), []
    return True

  def step(self, cumulative, active):
    symbols = np.array([next(r) if a else 0 for r, a in zip(self._rest, active, strict=True)])
    self._encoder.put(symbols, cumulative, active)
    for lane in np.flatnonzero(active & (symbols != END)):
      self._places[lane].append(self._encoder.lanes['bits'][lane])
    done = symbols == END
    return np.where(done, 0, symbols).astype(np.uint8), np.zeros(len(active), bool), done

  def take(self, lane):
    ids = slices.of_code(*self._encoder.finish(lane), self._token_bits)
    places, data = np.array(self._places[lane], np.int64), self._data[lane]
    lengths = token_lengths(places, self._token_bits, ids.size)
    return Coded(ids, lengths, len(data), zlib.crc32(data))


class _Decoder:
  marks = 1

  def __init__(self, streams: int, token_bits: int, precision: int):
    self.precision = precision
    self._decoder = arithmetic.Decoder(streams, precision)
    self._token_bits = token_bits
    self._count = np.zeros(streams, np.int64)  # tokens
    self._data = [bytearray() for _ in range(streams)]
    self._places: list[list[int]] = [[]] * streams

  def begin(self, lane, job):
    self._decoder.begin(lane, slices.pack(job, self._token_bits).tobytes())
    self._count[lane], self._data[lane], self._places[lane] = job.size, bytearray(), []
    return job.size > 0

  def step(self, cumulative, active):
    symbols = self._decoder.get(cumulative, active)
    bits, size = self._decoder.lanes['bits'], self._count * self._token_bits
    done = active & ((symbols == END) | (bits > size))
    for lane in np.flatnonzero(done):
      ended, left = symbols[lane] == END and bits[lane] <= size[lane], size[lane] - bits[lane]
      check_end(ended, left, int(self._count[lane]), self._token_bits)
    for lane in np.flatnonzero(active & ~done):
      self._data[lane].append(symbols[lane])
      self._places[lane].append(bits[lane])
    return np.where(done, 0, symbols).astype(np.uint8), np.zeros(len(active), bool), done

  def take(self, lane):
    places = np.array(self._places[lane], np.int64)
    lengths = token_lengths(places, self._token_bits, int(self._count[lane]))
    return bytes(self._data[lane]), lengths
