# SPDX-License-Identifier: Apache-2.0
"""How well a tokenizer restores documents."""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lib.errors import InputError
from lib.tokenizers.base import Tokenizer


def check_size(tokenizer: Tokenizer, ids: np.ndarray, size: int, name: str) -> None:
  """Raises InputError unless `ids` decode to `size` bytes, if the size is known before decoding."""
  if tokenizer.fixed_lengths:
    found = int(tokenizer.byte_lengths(ids).sum(dtype=np.int64))
    if found != size:
      raise InputError(f'{name} comes back as {found} bytes where {size} should be')


class Restored(NamedTuple):
  """How much of some documents a tokenizer restores; 1, 1 and 0 for a lossless one.

  Attributes:
    share_bytes: restored bytes, in order (the longest common subsequence of a document
      and its decoded tokens), per byte of the documents.
    share_documents: documents that are restored byte for byte.
    share_unknown: bytes covered by unknown tokens, per byte.
    share_fallback: bytes written one by one because the library behind the tokenizer does not give
      them back, per byte; they come back, but cost a token each.
  """

  share_bytes: float
  share_documents: float
  share_unknown: float
  share_fallback: float


def restored(
  tokenizer: Tokenizer, documents: Sequence[bytes], rows: Sequence[np.ndarray] | None = None
) -> Restored:
  """Restored and unknown shares of documents that are encoded and decoded.

  Args:
    tokenizer: any.
    documents: the texts.
    rows: their ids, if they are encoded already.
  """
  rows = tokenizer.encode_batch(documents) if rows is None else rows
  found = tokenizer.decode_batch(rows)
  unknown = list(tokenizer.unknown_ids)
  coded = tokenizer.cover_batch(documents) if unknown else []
  size = max(sum(map(len, documents)), 1)
  per_byte = lambda counts: float(sum(counts) / size)
  return Restored(
    per_byte(_common(a, b) for a, b in zip(documents, found, strict=True)),
    sum(a == b for a, b in zip(documents, found, strict=True)) / max(len(documents), 1),
    per_byte(int(one.byte_lengths[np.isin(one.ids, unknown)].sum()) for one in coded),
    per_byte(map(tokenizer.fallback_bytes, documents)),
  )


def _common(one: bytes, other: bytes) -> int:
  """Length of the longest common subsequence, by the bits of integers (Hyyrö 2004)."""
  if one == other:
    return len(one)
  places: dict[int, int] = {}  # byte -> the bits of its places in `one`
  for byte in set(one):
    marked = one.translate(bytes(48 + (i == byte) for i in range(256)))[::-1]
    places[byte] = int(marked, 2)
  every = (1 << len(one)) - 1
  rows = every  # a bit is 0 where the subsequence grows
  for byte in other:
    both = rows & places.get(byte, 0)
    rows = ((rows + both) | (rows - both)) & every
  return len(one) - rows.bit_count()


def check(data: bytes, size: int, crc: int, name: str) -> None:
  """Raises InputError unless `data` has this many bytes with this CRC32."""
  if (len(data), zlib.crc32(data)) != (size, crc):
    raise InputError(
      f'{name} comes back as {len(data)} bytes with CRC32 {zlib.crc32(data):08x} where {size} with '
      f'{crc:08x} should be'
    )
