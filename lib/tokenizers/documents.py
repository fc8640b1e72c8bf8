# SPDX-License-Identifier: Apache-2.0
"""Many documents through any tokenizer: one by one, or side by side where it runs a model."""

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lib.errors import InputError
from lib.tokenizers.base import Dictionary, Tokenizer
from lib.tokenizers.coding.stepping import Coded, Stepped
from lib.tokenizers.coding.windows import EqualInfo


def together(tokenizer: Tokenizer) -> int:
  """Documents that are best handed over at once."""
  return tokenizer.stepper.streams if isinstance(tokenizer, Stepped) else 1


def encode(tokenizer: Tokenizer, documents: Sequence[bytes]) -> list[Coded]:
  """Each document as tokens; raises InputError for bytes that the tokenizer cannot stand for."""
  if isinstance(tokenizer, Stepped):
    return tokenizer.encode_all(documents)
  coded = []
  for document in documents:
    ids, lengths = tokenizer.cover(document)
    coded.append(Coded(ids, lengths, len(document), zlib.crc32(document)))
  return coded


def ids_of(tokenizer: Tokenizer, documents: Sequence[bytes]) -> list[np.ndarray]:
  """The ids alone, int32 [n] each: the bytes that an id covers can take as long as a decoding."""
  if isinstance(tokenizer, Stepped):
    return [coded.ids for coded in tokenizer.encode_all(documents)]
  return [tokenizer.encode(document) for document in documents]


def decode(tokenizer: Tokenizer, rows: Sequence[ArrayLike]) -> list[bytes]:
  """The bytes of each row of ids; raises InputError for ids that are no encoding."""
  if isinstance(tokenizer, Stepped):
    return [data for data, _ in tokenizer.decode_all(rows)]
  return [tokenizer.decode(row) for row in rows]


def check_size(tokenizer: Tokenizer, ids: np.ndarray, size: int, name: str) -> None:
  """Raises InputError unless `ids` decode to `size` bytes, where that can be told beforehand."""
  if isinstance(tokenizer, Dictionary | EqualInfo):
    found = int(tokenizer.byte_lengths(ids).sum(dtype=np.int64))
    if found != size:
      raise InputError(f'{name} comes back as {found} bytes where {size} should be')


def restored(tokenizer: Tokenizer, documents: Sequence[bytes]) -> float:
  """The share of the documents that come back, byte for byte."""
  found = decode(tokenizer, ids_of(tokenizer, documents))
  return sum(a == b for a, b in zip(found, documents, strict=True)) / len(documents)


def check(data: bytes, size: int, crc: int, name: str) -> None:
  """Raises InputError unless `data` has this many bytes with this CRC32."""
  if (len(data), zlib.crc32(data)) != (size, crc):
    raise InputError(
      f'{name} comes back as {len(data)} bytes with CRC32 {zlib.crc32(data):08x} where {size} with '
      f'{crc:08x} should be'
    )
