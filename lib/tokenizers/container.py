# SPDX-License-Identifier: Apache-2.0
"""A file as tokens in one container, cut into documents so that memory stays bounded.

All numbers are big-endian. A header of 72 bytes:

  magic        8 bytes, MAGIC
  version      2
  width        2, bits an id: those of the largest
  documents    4
  fingerprint  32, the tokenizer's
  size         8, bytes of the text
  payload      8, bytes of the container after the header
  crc          4, CRC32 of the text
  check        4, CRC32 of the header before it

Then each document: its bytes (4), their CRC32 (4), its ids (4), the CRC32 (4) of these twelve bytes
and of the packed ids, and the ids, `width` bits each, first bit highest, zero bits up to a byte.
"""

import io
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numba
import numpy as np

from lib.errors import InputError
from lib.tokenizers import documents
from lib.tokenizers.base import Tokenizer

MAGIC, VERSION = b'\x89tokens\n', 1
DOCUMENT = 1 << 20  # bytes of the longest document
IDS = 1 << 24  # most ids of a document, for any tokenizer
HEADER = struct.Struct('>8sHHI32sQQI')
ENTRY = struct.Struct('>III')
CHECK = struct.Struct('>I')


class Header(NamedTuple):
  """The header of a container; see the module."""

  width: int
  documents: int
  fingerprint: bytes
  size: int
  payload: int
  crc: int

  @property
  def length(self) -> int:
    """Bytes of the whole container."""
    return HEADER.size + CHECK.size + self.payload


def write(
  out: BinaryIO, tokenizer: Tokenizer, chunks: Iterable[bytes], verify: bool = False
) -> Header:
  """Encodes chunks of at most DOCUMENT bytes into a container.

  Args:
    out: a seekable file at its beginning; the header is written last.
    tokenizer: any. If it is not lossless, every document is decoded before it is written.
    chunks: the text.
    verify: decode every document in any case.

  Raises:
    InputError: a document that is not restored, or that the tokenizer cannot encode.
  """
  width = id_bits(tokenizer.vocab_size)
  verify = verify or not tokenizer.lossless
  out.write(bytes(HEADER.size + CHECK.size))
  count, size, payload, crc = 0, 0, 0, 0
  for group in _groups(chunks, tokenizer.preferred_batch):
    rows = tokenizer.encode_batch(group)
    if verify:
      _verify(tokenizer, group, rows, size)
    for chunk, ids in zip(group, rows, strict=True):
      payload += out.write(_entry(chunk, ids, width))
      crc = zlib.crc32(chunk, crc)
    count, size = count + len(group), size + sum(map(len, group))
  header = Header(width, count, bytes.fromhex(tokenizer.fingerprint), size, payload, crc)
  out.seek(0)
  out.write(_sealed(HEADER.pack(MAGIC, VERSION, *header)))
  out.seek(0, os.SEEK_END)
  return header


def read_header(source: BinaryIO, name: str) -> Header:
  """Reads the header and compares it with the file's size; errors name the file `name`.

  Raises:
    InputError: no container, another version, or one that is cut short, too long or damaged.
  """
  begin = source.tell()
  found = source.seek(0, os.SEEK_END) - begin
  source.seek(begin)
  start = source.read(HEADER.size + CHECK.size)
  if start[: len(MAGIC)] != MAGIC[: len(start)] or not start:
    raise InputError(f'{name} is not a container of tokens: make one with `encode`')
  if len(start) < HEADER.size + CHECK.size:
    raise InputError(f'{name} is cut short: {found} bytes are less than a header')
  fields, check = start[: HEADER.size], CHECK.unpack(start[HEADER.size :])[0]
  if zlib.crc32(fields) != check:
    raise InputError(f'{name} is damaged: the checksum of its header differs')
  _, version, *rest = HEADER.unpack(fields)
  if version != VERSION:
    raise InputError(f'{name} has format version {version}; this program reads {VERSION}')
  header = Header(*rest)
  if found != header.length:
    what = 'is cut short' if found < header.length else 'has something after its end'
    raise InputError(f'{name} {what}: {found} bytes where {header.length} should be')
  return header


def read(source: BinaryIO, tokenizer: Tokenizer, name: str = 'the container') -> Iterator[bytes]:
  """Yields the documents of a container, each checked; errors name the file `name`.

  Sizes are checked before memory is allocated, checksums before decoding. Use the documents only
  after the last one: the end can be damaged.

  Raises:
    InputError: as `read_header`; a container of another tokenizer; damage; or a document that is
      not restored.
  """
  header = read_header(source, name)
  if header.fingerprint.hex() != tokenizer.fingerprint:
    raise InputError(
      f'{name} was made by another tokenizer, {header.fingerprint.hex()[:12]}; this one is '
      f'{tokenizer.fingerprint[:12]}: name the file that it was made with'
    )
  if header.width != id_bits(tokenizer.vocab_size):
    raise InputError(f'{name} is damaged: {header.width} bits an id do not fit its tokenizer')
  entries = _entries(source, header, name)
  size, crc = 0, 0
  for group in _groups(entries, tokenizer.preferred_batch):
    for entry in group:
      documents.check_size(tokenizer, entry.ids, entry.size, f'{name}: the text from byte {size}')
    found = tokenizer.decode_batch([entry.ids for entry in group])
    for data, entry in zip(found, group, strict=True):
      documents.check(data, entry.size, entry.crc, f'{name}: the text from byte {size}')
      size, crc = size + len(data), zlib.crc32(data, crc)
      yield data
  if (size, crc) != (header.size, header.crc):
    raise InputError(f'{name} is damaged: its documents are not those of its header')


def chunks(source: BinaryIO, size: int, tokenizer: Tokenizer) -> Iterator[bytes]:
  """A file of `size` bytes in chunks: short ones if a model reads many of them in parallel."""
  streams = tokenizer.preferred_batch
  length = DOCUMENT if streams == 1 else min(max(-(-size // streams), 1 << 10), 1 << 14)
  while chunk := source.read(length):
    yield chunk


def id_bits(vocab_size: int) -> int:
  """Bits of the largest id, at least 1."""
  return max((vocab_size - 1).bit_length(), 1)


class _Entry(NamedTuple):
  size: int
  crc: int
  ids: np.ndarray


def _groups(items: Iterable, count: int) -> Iterator[list]:
  group: list = []
  for item in items:
    group.append(item)
    if len(group) == count:
      yield group
      group = []
  if group:
    yield group


def _verify(tokenizer: Tokenizer, group: list[bytes], rows: list[np.ndarray], begin: int) -> None:
  for chunk, data in zip(group, tokenizer.decode_batch(rows), strict=True):
    if data != chunk:
      raise InputError(
        f'this {tokenizer.family} tokenizer does not give these bytes back (from byte {begin} on): '
        'use a lossless one'
      )
    begin += len(chunk)


def _entry(chunk: bytes, ids: np.ndarray, width: int) -> bytes:
  if len(chunk) > DOCUMENT or ids.size > IDS:
    raise ValueError(f'a document of {len(chunk)} bytes and {ids.size} ids is too long')
  start = ENTRY.pack(len(chunk), zlib.crc32(chunk), ids.size)
  packed = pack(ids, width).tobytes()
  return start + CHECK.pack(zlib.crc32(packed, zlib.crc32(start))) + packed


def _sealed(content: bytes) -> bytes:
  return content + CHECK.pack(zlib.crc32(content))


def _entries(source: BinaryIO, header: Header, name: str) -> Iterator[_Entry]:
  left = header.payload
  for number in range(header.documents):
    start, check = source.read(ENTRY.size), source.read(CHECK.size)
    left -= len(start) + len(check)
    size, crc, count = ENTRY.unpack(start) if len(start) == ENTRY.size else (0, 0, 0)
    need = (count * header.width + 7) // 8
    if len(check) < CHECK.size or size > DOCUMENT or count > IDS or need > left:
      raise InputError(f'{name} is damaged: document {number} has no such sizes')
    packed = source.read(need)
    left -= len(packed)
    if zlib.crc32(packed, zlib.crc32(start)) != CHECK.unpack(check)[0]:
      raise InputError(f'{name} is damaged: the checksum of document {number} differs')
    yield _Entry(size, crc, unpack(np.frombuffer(packed, np.uint8), count, header.width))
  if left:
    raise InputError(f'{name} is damaged: {left} bytes belong to no document')


@numba.njit(cache=True, nogil=True)
def pack(ids: np.ndarray, width: int) -> np.ndarray:
  """Ids of at most 31 bits end to end, uint8 [bytes]; zero bits fill the last byte."""
  out = np.zeros((ids.size * width + 7) // 8, np.uint8)
  held, bits, place = 0, 0, 0
  for i in ids:
    held, bits = held << width | i, bits + width
    while bits >= 8:
      bits -= 8
      out[place] = held >> bits & 255
      place += 1
    held &= (1 << bits) - 1
  if bits:
    out[place] = held << (8 - bits) & 255
  return out


@numba.njit(cache=True, nogil=True)
def unpack(packed: np.ndarray, count: int, width: int) -> np.ndarray:
  """The first `count` ids that `pack` wrote, int32 [count]."""
  ids = np.empty(count, np.int32)
  held, bits, place = 0, 0, 0
  for i in range(count):
    while bits < width:
      held, bits = held << 8 | packed[place], bits + 8
      place += 1
    bits -= width
    ids[i] = held >> bits
    held &= (1 << bits) - 1
  return ids


def to_bytes(tokenizer: Tokenizer, data: bytes) -> bytes:
  """The container of `data`, in memory."""
  out = io.BytesIO()
  write(out, tokenizer, chunks(io.BytesIO(data), len(data), tokenizer))
  return out.getvalue()


def from_bytes(tokenizer: Tokenizer, content: bytes) -> bytes:
  """The data of `to_bytes`; raises InputError as `read` does."""
  return b''.join(read(io.BytesIO(content), tokenizer))
