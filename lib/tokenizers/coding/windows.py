# SPDX-License-Identifier: Apache-2.0
"""Equal-info windows of up to 16 bits, tabulated: no model at run time (arXiv 2404.03626)."""

import dataclasses
import functools

import numba
import numpy as np
from numpy.typing import ArrayLike

from lib.errors import InputError
from lib.tokenizers import base
from lib.tokenizers.coding import slices, walk
from lib.tokenizers.coding.tabulate import LIMIT_BITS, MODES, WindowTable

LONGEST = 1 << 28  # bytes of all texts


class EqualInfo(base.Tokenizer):
  """EqualInfoAC[b, v] of 'Training LLMs over Neurally Compressed Text', tabulated.

  A text is cut into the longest pieces that fit a window; each is written in b bits, and the bits
  are sliced into tokens. The last window contains the rest of the text, which fits because every
  prefix of a fitting piece fits; zero bits fill the last token. The last token of a window covers
  all its bytes, the others none.

  The mode 'greedy' is not lossless: several texts can share a window, and `byte_lengths` counts
  the bytes of the text that it decodes to.

  Args:
    table: the windows, from `tabulate` or `number`.
    token_bits: 8, 12 or 16, at most b.
  """

  family = 'equal_info'
  fixed_lengths = True

  def __init__(self, table: WindowTable, token_bits: int = 16):
    self.table = table
    self.token_bits = slices.check(token_bits, table.bits)
    self.lossless = table.mode != 'greedy'

  @property
  def vocab_size(self) -> int:
    """Number of ids."""
    return 1 << self.token_bits

  @functools.cached_property
  def _following(self) -> np.ndarray:
    """Uint16 [n, 256]: the text with one more byte, or where that does not fit the byte's text.

    A window has ended exactly where this is below 256, the texts of single bytes.
    """
    table = self.table
    following = np.tile(np.arange(256, dtype=np.uint16), (table.parent.size, 1))
    following[table.parent[256:], table.last[256:]] = np.arange(256, table.parent.size)
    return following

  @functools.cached_property
  def _lengths(self) -> np.ndarray:
    """Bytes in each text, int32 [n + 1]; the last, index -1, is that of no text."""
    return _depths(self.table.parent)

  @functools.cached_property
  def _emitted(self) -> np.ndarray:
    """Bytes in what is written of each text, int32 [n]."""
    return self._lengths[self.table.cut]

  @functools.cached_property
  def _code_lengths(self) -> np.ndarray:
    """Bytes of the text of each code, int32 [2^b]."""
    return self._lengths[self.table.text]

  @functools.cached_property
  def _spelled(self) -> tuple[np.ndarray, ...]:
    """What `walk.decode` copies from: the texts of all codes, and where each begins."""
    lengths = self._code_lengths
    begins = np.cumsum(lengths, dtype=np.int64) - lengths
    spelled = _spell(self.table.parent, self.table.last, self.table.text, lengths)
    return walk.words(spelled, begins, lengths), spelled, begins

  def encode(self, data: bytes) -> np.ndarray:
    """Returns ids, int32 [n]."""
    symbols = np.frombuffer(data, np.uint8)
    codes = walk.encode(self._following, self._emitted, self.table.code, symbols)
    if self.token_bits == self.table.bits:
      return codes.astype(np.int32)
    return slices.unpack(slices.pack(codes, self.table.bits), self.token_bits)

  def cover(self, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids, and how many bytes of `data` each covers, int32 [n] both.

    In the mode 'greedy' `byte_lengths` counts the bytes that the ids decode to instead.
    """
    if self.table.mode != 'greedy':
      return super().cover(data)
    ids = self.encode(data)
    _, ends = slices.windows(ids.size, self.token_bits, self.table.bits)
    lengths = np.zeros(ids.size, np.int32)
    lengths[ends] = _walked(self._following, np.frombuffer(data, np.uint8))
    return ids, lengths

  def codes(self, ids: np.ndarray) -> np.ndarray:
    """The codes of the whole windows in checked `ids` [n], int32 [windows]."""
    if self.token_bits == self.table.bits:
      return ids
    count, _ = slices.windows(ids.size, self.token_bits, self.table.bits)
    return slices.unpack(slices.pack(ids, self.token_bits), self.table.bits)[:count]

  def decode(self, ids: ArrayLike) -> bytes:
    """The texts of the windows, joined; raises InputError for ids out of range or cut short."""
    ids = self.check_ids(ids)
    slices.check_whole(ids.size, self.token_bits, self.table.bits)
    codes = self.codes(ids)
    size = int(self._code_lengths[codes].sum(dtype=np.int64))
    words, spelled, begins = self._spelled
    return walk.decode(words, spelled, begins, self._code_lengths, codes, size).tobytes()

  def byte_lengths(self, ids: ArrayLike) -> np.ndarray:
    """Bytes covered by each of `ids` [n], int32 [n]: none by those of a window cut short."""
    ids = self.check_ids(ids)
    _, ends = slices.windows(ids.size, self.token_bits, self.table.bits)
    lengths = np.zeros(ids.size, np.int32)
    lengths[ends] = self._code_lengths[self.codes(ids)]
    return lengths

  def token_bytes(self, token: int) -> bytes | None:
    """The text of a window's code, where a token is a whole window."""
    if self.token_bits < self.table.bits:
      return super().token_bytes(token)
    return self._texts[self.check_ids([token])[0]]

  def windows(self) -> tuple[np.ndarray, list[bytes]]:
    """The tokens of each code, and its text."""
    bits = self.table.bits
    if bits % self.token_bits:
      return super().windows()
    stream = slices.pack(np.arange(1 << bits), bits)
    return slices.unpack(stream, self.token_bits).reshape(1 << bits, -1), self._texts

  @functools.cached_property
  def _texts(self) -> list[bytes]:
    """The text of each code; empty for one that has none."""
    known = self.table.pieces
    return [known[i] if i >= 0 else b'' for i in self.table.text.tolist()]

  def state(self) -> base.State:
    """The table's arrays, and mode, window and token bits."""
    arrays = {
      field.name: getattr(self.table, field.name) for field in dataclasses.fields(self.table)
    }
    mode = base.byte_array(self.table.mode.encode())
    bits = np.array([self.table.bits, self.token_bits], np.int32)
    return {**arrays, 'mode': mode, 'bits': bits}

  @classmethod
  def from_state(cls, state: base.State) -> 'EqualInfo':
    """Rebuilds from `state()`."""
    window_bits, token_bits = state['bits'].tolist()
    arrays = {name: state[name] for name in ('parent', 'last', 'code', 'cut', 'text')}
    mode = state['mode'].tobytes().decode()
    table = WindowTable(mode=mode, bits=window_bits, **arrays)
    _check(table)
    return cls(table, token_bits)


def _check(table: WindowTable) -> None:
  """Raises InputError for a table whose walk could leave it: compiled loops do not look."""
  parent, cut, text, size = table.parent, table.cut, table.text, table.parent.size
  first, places = np.arange(256), np.arange(size)
  dtypes = [array.dtype for array in (parent, table.last, cut, table.code, text)]
  fits = (
    table.mode in MODES
    and 1 <= table.bits <= LIMIT_BITS
    and dtypes == [np.int32, np.uint8, np.int32, np.uint16, np.int32]
    and 256 <= size <= 1 << LIMIT_BITS
    and parent.shape == table.last.shape == cut.shape == table.code.shape == (size,)
    and text.shape == (1 << table.bits,)
    and (parent[:256] == -1).all()
    and (table.last[:256] == first).all()
    and ((parent[256:] >= 0) & (parent[256:] < places[256:])).all()
    and ((cut >= 0) & (cut < size)).all()
    and ((text >= -1) & (text < size)).all()
    and (table.code < 1 << table.bits).all()
  )
  if fits:
    lengths = _depths(parent)
    fits = (lengths[cut] <= lengths[:-1]).all() and lengths[text].sum(dtype=np.int64) <= LONGEST
  if not fits:
    raise InputError('its arrays are no table of windows')


@numba.njit(cache=True, nogil=True)
def _walked(following, symbols):
  """Bytes in each of the longest texts that fit, one after the other."""
  lengths = np.zeros(symbols.size, np.int32)
  text, count = 0, -1
  for symbol in symbols:
    text = int(following[text, symbol]) if count >= 0 else int(symbol)
    count += text < 256
    lengths[count] += 1
  return lengths[: count + 1].copy()


@numba.njit(cache=True, nogil=True)
def _depths(parent):
  lengths = np.zeros(parent.size + 1, np.int32)
  for i in range(parent.size):
    lengths[i] = lengths[parent[i]] + 1
  return lengths


@numba.njit(cache=True, nogil=True)
def _spell(parent, last, text, lengths):
  out = np.empty(lengths.sum(), np.uint8)
  end = 0
  for i in range(text.size):
    end += lengths[i]
    place, node = end, text[i]
    while node >= 0:
      place -= 1
      out[place] = last[node]
      node = parent[node]
  return out
