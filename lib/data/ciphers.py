# SPDX-License-Identifier: Apache-2.0
"""Text of a small alphabet, and the substitution ciphers of Section 3.3 of arXiv 2305.16349."""

import numpy as np

from lib.data.sources import Source
from lib.errors import InputError


def fold_table(alphabet: bytes, stand_in: bytes = b' ') -> bytes:
  """What each byte becomes in `alphabet`: bytes [256], for `bytes.translate`.

  A byte of the alphabet stays, an upper-case letter becomes lower case where only that is there,
  tab and carriage return become a space where there is one, all others become `stand_in`.
  """
  _check_distinct(alphabet, 'The alphabet')
  if len(stand_in) != 1 or stand_in not in alphabet:
    raise InputError(
      f'The stand-in must be one byte of the alphabet {alphabet!r}; got {stand_in!r}.'
    )

  def folded(symbol: bytes) -> bytes:
    wanted = [symbol, symbol.lower(), *([b' '] if symbol in b'\t\r' else [])]
    return next((byte for byte in wanted if byte in alphabet), stand_in)

  return b''.join(folded(bytes([byte])) for byte in range(256))


def fold(document: bytes, alphabet: bytes, stand_in: bytes = b' ') -> bytes:
  """`document` in `alphabet` by `fold_table`, byte for byte: the length stays."""
  return document.translate(fold_table(alphabet, stand_in))


class Folded:
  """A source whose documents are those of `source`, folded into `alphabet` by `fold_table`."""

  def __init__(self, source: Source, alphabet: bytes, stand_in: bytes = b' '):
    self._source = source
    self._table = fold_table(alphabet, stand_in)

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> bytes:
    return self._source[index].translate(self._table)


def random_key(alphabet: bytes, movable: bytes, seed: int) -> bytes:
  """A substitution cipher: the byte that enciphers each byte, bytes [256].

  The bytes of `movable` are permuted, uniformly among all permutations, so that some may keep
  their place; all others stay. The paper permutes the lower-case letters. Over the ids of
  `alphabet` the true key is that of `decipher(alphabet, key, alphabet)`.

  Raises:
    InputError: a byte repeated, or one of `movable` outside of `alphabet`, named with its place.
  """
  _check_distinct(alphabet, 'The alphabet')
  _check_distinct(movable, 'The set of movable bytes')
  _check_inside(movable, alphabet)
  permuted = np.random.default_rng(seed).permutation(np.frombuffer(movable, np.uint8))
  return bytes.maketrans(movable, permuted.tobytes())


def encipher(text: bytes, key: bytes, alphabet: bytes) -> bytes:
  """The cipher text of `text` by a key from `random_key`; InputError for a byte outside."""
  _check_key(key)
  _check_inside(text, alphabet)
  return text.translate(key)


def decipher(text: bytes, key: bytes, alphabet: bytes) -> bytes:
  """The plain text of `text` by the key that enciphered it; InputError for a byte outside."""
  _check_key(key)
  _check_inside(text, alphabet)
  return text.translate(bytes.maketrans(key, bytes(range(256))))


def _check_distinct(symbols: bytes, name: str) -> None:
  if not symbols or len(set(symbols)) < len(symbols):
    raise InputError(f'{name} must hold at least one byte, and each only once; got {symbols!r}.')


def _check_inside(text: bytes, alphabet: bytes) -> None:
  if foreign := text.translate(None, alphabet):
    raise InputError(
      f'Byte {foreign[:1]!r} at position {text.index(foreign[0])} is outside the alphabet '
      f'{alphabet!r}; fold the text first.'
    )


def _check_key(key: bytes) -> None:
  if sorted(key) != list(range(256)):
    raise InputError(f'A key must be a permutation of the 256 bytes; got {len(key)} bytes.')
