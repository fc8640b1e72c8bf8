# SPDX-License-Identifier: Apache-2.0
"""Text tokenizers over bytes: well-formed text goes to a library, any other byte gets a token."""

import abc
import functools
import mmap
import re
from collections.abc import Iterator

import numpy as np

from lib.tokenizers import base

Buffer = bytes | mmap.mmap


def cut(data: bytes, refused: str = '') -> Iterator[str | bytes]:
  """Cuts `data` into well-formed text, as str, and the rest, as bytes; joined they are `data`.

  Args:
    data: any bytes.
    refused: characters to leave as bytes although they are well formed.
  """
  text = data.decode('utf-8', 'surrogateescape')  # a byte that is not UTF-8 becomes U+DC80..DCFF
  for i, part in enumerate(re.split(f'([\udc80-\udcff{re.escape(refused)}]+)', text)):
    if part:
      yield part.encode('utf-8', 'surrogateescape') if i % 2 else part


def boundary(data: Buffer, at: int) -> int:
  """The last place at or before `at` that is not inside a UTF-8 character."""
  for back in range(min(4, at + 1)):  # a character has at most three continuation bytes 10xxxxxx
    if at - back == len(data) or data[at - back] & 0xC0 != 0x80:
      return at - back
  return at


def pieces(text: str, size: int) -> Iterator[str]:
  """Cuts `text` between characters into pieces of at most `size` bytes of UTF-8, 4 or more."""
  data = text.encode()
  start = 0
  while start < len(data):
    stop = boundary(data, min(start + size, len(data)))
    yield data[start:stop].decode()
    start = stop


def character_ends(text: str) -> np.ndarray:
  """The bytes of UTF-8 before each character and at the end, int64 [characters + 1]."""
  points = np.frombuffer(text.encode('utf-32-le'), np.uint32)
  widths = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
  return np.concatenate([[0], np.cumsum(widths, dtype=np.int64)])


class TextDictionary(base.Dictionary):
  """A dictionary with a token for each byte, whose text is segmented by a library.

  It is lossless for any library: a token is kept if its text is the text at its place, and all else
  is written in single bytes, which `fallback_bytes` counts.
  Subclasses set `refused`, characters that the library never restores.
  """

  refused = ''

  @abc.abstractmethod
  def encode_text(self, text: str) -> list[int]:
    """Returns the library's ids of a text that has no `refused` character."""

  def encode_places(self, text: str) -> tuple[list[int], list[int]]:
    """The same ids, and the end of each in characters."""
    ids = self.encode_text(text)
    return ids, [len(text)] * len(ids)

  @functools.cached_property
  @abc.abstractmethod
  def byte_ids(self) -> np.ndarray:
    """The id of each single byte, int32 [256]."""

  def encode(self, data: bytes) -> np.ndarray:
    """Returns ids, int32 [n]."""
    ids, single = self._encode(data)
    self.on_fallback(single)
    return ids

  def fallback_bytes(self, data: bytes) -> int:
    """Number of bytes that are not UTF-8, that are refused, or whose token is not restored."""
    return self._encode(data)[1]

  def _encode(self, data: bytes) -> tuple[np.ndarray, int]:
    """Ids, int32 [n], and the number of bytes in byte fallback."""
    parts, single = [np.zeros(0, np.int32)], 0
    for part in cut(data, self.refused):
      if isinstance(part, bytes):
        ids, kept = self.byte_ids[base.byte_array(part)], 0
        size = len(part)
      else:
        ids, kept = self._kept(part)
        size = len(part.encode())
      parts.append(ids)
      single += size - kept
    return np.concatenate(parts), single

  def _kept(self, text: str) -> tuple[np.ndarray, int]:
    """Ids that join to the text, int32 [n], and the bytes that the library's among them cover."""
    ids, data = self.encode_text(text), text.encode()
    if b''.join(map(self.pieces.__getitem__, ids)) == data:
      return np.array(ids, np.int32), len(data)
    ids, stops = self.encode_places(text)
    ends = character_ends(text)[stops].tolist()
    one_by_one = lambda start, stop: self.byte_ids[base.byte_array(data[start:stop])].tolist()
    found: list[int] = []
    kept, done, start = 0, 0, 0
    for i, stop in zip(ids, ends, strict=True):
      piece = self.pieces[i]
      at = data.find(piece, start, stop) if piece else -1
      if at < 0:
        start = max(start, stop)  # nothing is searched twice
        continue
      found += [*one_by_one(done, at), i]
      kept += len(piece)
      done = start = at + len(piece)
    return np.array(found + one_by_one(done, len(data)), np.int32), kept
