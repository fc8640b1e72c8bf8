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
  text = data.decode('utf-8', 'surrogateescape')  # a byte that is no UTF-8 becomes U+DC80..DCFF
  for i, part in enumerate(re.split(f'([\udc80-\udcff{re.escape(refused)}]+)', text)):
    if part:
      yield part.encode('utf-8', 'surrogateescape') if i % 2 else part


def boundary(data: Buffer, at: int) -> int:
  """The last place at or before `at` where no UTF-8 character is cut; `at` amid other bytes."""
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


class TextDictionary(base.Dictionary):
  """A dictionary whose text is cut by a library, and which has a token for each single byte.

  Subclasses set `refused`, the characters that the library does not give back.
  """

  refused = ''

  @abc.abstractmethod
  def encode_text(self, text: str) -> list[int]:
    """Returns ids whose pieces join to the UTF-8 of `text`, which has no `refused` character."""

  @functools.cached_property
  @abc.abstractmethod
  def byte_ids(self) -> np.ndarray:
    """The id of each single byte, int32 [256]."""

  def encode(self, data: bytes) -> np.ndarray:
    """Returns ids, int32 [n]."""
    parts = [np.zeros(0, np.int32)]
    for part in cut(data, self.refused):
      if isinstance(part, str):
        parts.append(np.array(self.encode_text(part), np.int32))
      else:
        parts.append(self.byte_ids[base.byte_array(part)])
    return np.concatenate(parts)

  def fallback_bytes(self, data: bytes) -> int:
    """Bytes that are no UTF-8, that the library refuses, or in text that it does not give back."""
    return sum(
      self.text_fallback(part) if isinstance(part, str) else len(part)
      for part in cut(data, self.refused)
    )

  def text_fallback(self, text: str) -> int:
    """Bytes of text that is written in single bytes because the library does not give it back."""
    del text
    return 0
