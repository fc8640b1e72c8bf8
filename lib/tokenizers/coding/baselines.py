# SPDX-License-Identifier: Apache-2.0
"""Compression without a byte model: static arithmetic coding, and gzip (arXiv 2404.03626)."""

import zlib
from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import ArrayLike

from lib.errors import InputError
from lib.tokenizers import base
from lib.tokenizers.coding import arithmetic, slices

LONGEST = 1 << 26  # bytes of a text, 64 times those of a container's document
END = 256  # the symbol after a text's last byte


class StaticAC(base.Tokenizer):
  """StaticAC: one arithmetic-coded stream per text, with fixed frequencies of single bytes.

  An end symbol of the lowest frequency ends the text. It costs about 14 bits per text, and 0.0001
  bits per byte, which the paper does not spend. Zero bits fill the last token. A byte belongs to
  the token with the last whole bit of the information up to the byte's end.

  Args:
    cumulative: uint16 [258], of the 256 bytes and the end, up to 2^14.
    token_bits: 8, 12 or 16.
  """

  family = 'static_ac'

  def __init__(self, cumulative: np.ndarray, token_bits: int = 8):
    steps = np.diff(cumulative.astype(np.int64))
    if (
      cumulative.shape != (END + 2,)
      or cumulative.dtype != np.uint16
      or cumulative[0]
      or (steps < 1).any()
      or (cumulative[-1] != 1 << arithmetic.PRECISION)
    ):
      raise InputError(
        f'cumulative frequencies must rise from 0 to {1 << arithmetic.PRECISION} over 257 symbols'
      )
    self.cumulative = cumulative
    self.token_bits = slices.check(token_bits)

  @property
  def vocab_size(self) -> int:
    """Number of ids."""
    return 1 << self.token_bits

  def encode(self, data: bytes) -> np.ndarray:
    """Returns ids, int32 [n]."""
    code, bits = arithmetic.encode(ended(data), self.cumulative[None])
    return slices.of_code(code, bits, self.token_bits)

  def decode(self, ids: ArrayLike) -> bytes:
    """The text; raises InputError for ids out of range, or that end before their text does."""
    return self._read(ids)[0].tobytes()

  def byte_lengths(self, ids: ArrayLike) -> np.ndarray:
    """Bytes covered by each of `ids` [n], int32 [n]; raises InputError as `decode` does."""
    _, places, count = self._read(ids)
    return token_lengths(places, self.token_bits, count)

  def _read(self, ids: ArrayLike) -> tuple[np.ndarray, np.ndarray, int]:
    """Bytes, the whole bits of information up to the end of each, and the number of ids."""
    ids = self.check_ids(ids)
    if ids.size == 0:
      return np.zeros(0, np.uint8), np.zeros(0, np.int64), 0
    stream = slices.pack(ids, self.token_bits)
    size = ids.size * self.token_bits
    symbols, places = _decode(arithmetic.lanes(1), stream, self.cumulative, size, LONGEST)
    check_length(symbols.size, ids.size)
    whole = symbols.size > 0 and symbols[-1] == END
    check_end(whole, size - int(places[-1]) if whole else 0, ids.size, self.token_bits)
    return symbols[:-1].astype(np.uint8), places[:-1], ids.size

  def state(self) -> base.State:
    """The frequencies and the width of a token."""
    return {'cumulative': self.cumulative, 'token_bits': np.array(self.token_bits, np.int32)}

  @classmethod
  def from_state(cls, state: base.State) -> 'StaticAC':
    """Rebuilds from `state()`."""
    return cls(state['cumulative'], int(state['token_bits']))


def train_static_ac(documents: Sequence[bytes], vocab_size: int = 256) -> StaticAC:
  """Counts the bytes of all documents; `vocab_size` is 2**8, 2**12 or 2**16.

  Raises:
    InputError: another `vocab_size`, or no bytes.
  """
  token_bits = slices.bits_of(vocab_size)
  counts = np.zeros(256, np.int64)
  for document in documents:
    counts += np.bincount(np.frombuffer(document, np.uint8), minlength=256)
  if not counts.any():
    raise InputError('there is no text to count: give documents with text')
  return StaticAC(arithmetic.quantise(counts[None].astype(np.float64), marks=1)[0], token_bits)


def ended(data: bytes) -> np.ndarray:
  """The symbols of a text and its end, uint16 [n + 1]."""
  return np.append(np.frombuffer(data, np.uint8).astype(np.uint16), np.uint16(END))


def token_lengths(places: np.ndarray, token_bits: int, count: int) -> np.ndarray:
  """Bytes of each token, int32 [count], of bytes that end at `places` bits [n] of a stream."""
  tokens = np.maximum(-(-places // token_bits), 1) - 1
  return np.bincount(tokens, minlength=count).astype(np.int32)


def check_length(size: int, count: int) -> None:
  """Raises InputError for a text of LONGEST bytes: it would only fill memory."""
  if size >= LONGEST:
    raise InputError(f'{count} token ids unpack to {LONGEST:,} bytes or more')


def check_end(ended: bool, left: int, count: int, token_bits: int) -> None:
  """Raises InputError unless a stream in `count` tokens `ended` in the last of them.

  Args:
    ended: whether the end was decoded.
    left: bits after the whole bits of information up to the end: the code takes none or one more.
  """
  if not ended:
    raise InputError(f'{count} token ids are cut short: the end of the text is not among them')
  if left > token_bits:
    raise InputError(f'{count} token ids continue after the end of the text')


class GZip(base.Tokenizer):
  """GZip: zlib's default level, applied to each text, with header and checksum.

  An odd number of bytes is padded with a zero byte for tokens of 16 bits; zlib's stream marks its
  own end. A token covers the bytes that can be decoded once it is read.
  """

  family = 'gzip'

  def __init__(self, token_bits: int = 8):
    self.token_bits = slices.check(token_bits)

  @property
  def vocab_size(self) -> int:
    """Number of ids."""
    return 1 << self.token_bits

  def encode(self, data: bytes) -> np.ndarray:
    """Returns ids, int32 [n]."""
    return slices.unpack(np.frombuffer(zlib.compress(data), np.uint8), self.token_bits)

  def decode(self, ids: ArrayLike) -> bytes:
    """The text; raises InputError for ids out of range or not a zlib stream."""
    return b''.join(self._read(ids)[0])

  def byte_lengths(self, ids: ArrayLike) -> np.ndarray:
    """Bytes covered by each of `ids` [n], int32 [n]; raises InputError as `decode` does."""
    parts, count = self._read(ids)
    places = np.repeat(8 * np.arange(1, len(parts) + 1), [len(part) for part in parts])
    return token_lengths(places, self.token_bits, count)

  def _read(self, ids: ArrayLike) -> tuple[list[bytes], int]:
    """Bytes of text that each byte of the stream adds, and the number of ids."""
    ids = self.check_ids(ids)
    if ids.size == 0:
      return [], 0
    stream, reader = slices.pack(ids, self.token_bits).tobytes(), zlib.decompressobj()
    parts, size = [], 0
    try:
      for i in range(len(stream)):
        parts.append(reader.decompress(stream[i : i + 1]))
        size += len(parts[-1])
        check_length(size, ids.size)
    except zlib.error as error:
      raise InputError(f'{ids.size} token ids are not a zlib stream: {error}') from error
    check_end(reader.eof, 8 * len(reader.unused_data) + 1, ids.size, self.token_bits)
    return parts, ids.size

  def state(self) -> base.State:
    """The width of a token."""
    return {'token_bits': np.array(self.token_bits, np.int32)}

  @classmethod
  def from_state(cls, state: base.State) -> 'GZip':
    """Rebuilds from `state()`."""
    return cls(int(state['token_bits']))


def train_gzip(documents: Sequence[bytes], vocab_size: int = 256) -> GZip:
  """GZip; nothing is learned, and `vocab_size` is 2**8, 2**12 or 2**16."""
  del documents
  return GZip(slices.bits_of(vocab_size))


@numba.njit(cache=True, nogil=True)
def _decode(state, stream, cumulative, size, limit):
  """At most `limit` symbols, and where each ends, up to the end mark or to `size` bits."""
  lane, capacity, count = state[0], 1024, 0
  symbols, places = np.empty(capacity, np.uint16), np.empty(capacity, np.int64)
  arithmetic.fill(lane, stream)
  while True:
    symbol = arithmetic.find(lane.low, lane.width, cumulative)
    start, stop = np.int64(cumulative[symbol]), np.int64(cumulative[symbol + 1])
    arithmetic.pull(lane, stream, start, stop)
    if lane.bits > size or count == limit:
      return symbols[:count].copy(), places[:count].copy()
    if count == capacity:
      capacity *= 2
      symbols = np.append(symbols, np.empty(count, np.uint16))
      places = np.append(places, np.empty(count, np.int64))
    symbols[count], places[count] = symbol, lane.bits
    count += 1
    if symbol == cumulative.size - 2:
      return symbols[:count].copy(), places[:count].copy()
