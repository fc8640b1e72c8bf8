# SPDX-License-Identifier: Apache-2.0
"""Text of a small alphabet: bytes folded into it, one by one, and sources of folded documents."""

from lib.data.sources import Source
from lib.errors import InputError


def fold_table(alphabet: bytes, stand_in: bytes = b' ') -> bytes:
  """The image of each byte in `alphabet`: bytes [256], for `bytes.translate`.

  A byte of the alphabet is kept. An upper-case letter becomes lower case if only that is in the
  alphabet, tab and carriage return become a space if that is, and all others become `stand_in`.
  """
  check_distinct(alphabet, 'The alphabet')
  if len(stand_in) != 1 or stand_in not in alphabet:
    raise InputError(
      f'The stand-in must be one byte of the alphabet {alphabet!r}; got {stand_in!r}.'
    )

  def folded(symbol: bytes) -> bytes:
    wanted = [symbol, symbol.lower(), *([b' '] if symbol in b'\t\r' else [])]
    return next((byte for byte in wanted if byte in alphabet), stand_in)

  return b''.join(folded(bytes([byte])) for byte in range(256))


def fold(document: bytes, alphabet: bytes, stand_in: bytes = b' ') -> bytes:
  """`document` in `alphabet` by `fold_table`, byte for byte, so the length does not change."""
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


def check_distinct(symbols: bytes, name: str) -> None:
  """Raises InputError for an empty or repeated set of symbols, which the message calls `name`."""
  if not symbols or len(set(symbols)) < len(symbols):
    raise InputError(f'{name} must contain at least one byte, and each only once; got {symbols!r}.')
