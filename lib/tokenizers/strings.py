# SPDX-License-Identifier: Apache-2.0
"""Printable strings of tokens, from which a glyph table is rendered."""

from lib.errors import InputError
from lib.tokenizers.base import Tokenizer
from lib.tokenizers.wordpiece import byte_characters

ALPHABETS = ('text', 'byte_level')


def token_strings(tokenizer: Tokenizer, alphabet: str = 'text') -> list[str]:
  """A string for each id.

  Args:
    tokenizer: any.
    alphabet: 'text' (the decoded token; bytes that are not UTF-8 as `\\xNN`) or 'byte_level'
      (GPT-2's printable character for each byte, so that a space becomes Ġ).

  An id without bytes of its own is written `<special_ID>`.

  Raises:
    InputError: another alphabet.
  """
  if alphabet not in ALPHABETS:
    raise InputError(f'alphabet={alphabet!r} is not one of {", ".join(ALPHABETS)}.')
  pieces = [tokenizer.token_bytes(i) or b'' for i in range(tokenizer.vocab_size)]
  if alphabet == 'text':
    written = [piece.decode('utf-8', 'backslashreplace') for piece in pieces]
  else:
    written = [''.join(map(byte_characters().__getitem__, piece)) for piece in pieces]
  return [text or f'<special_{i}>' for i, text in enumerate(written)]
