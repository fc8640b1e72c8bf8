# SPDX-License-Identifier: Apache-2.0
"""Tokenizers: bytes to ids and back, one file a family; `save` and `load` keep any of them."""

import os

from lib.errors import InputError
from lib.tokenizers import files, foreign
from lib.tokenizers.base import Dictionary, Tokenizer
from lib.tokenizers.blocks import Blocks
from lib.tokenizers.bpe import BPE, train_bpe, train_sequential_bpe
from lib.tokenizers.characters import Characters
from lib.tokenizers.coding.baselines import GZip, StaticAC, train_static_ac
from lib.tokenizers.coding.windows import EqualInfo
from lib.tokenizers.foreign import ByteLevel, Foreign
from lib.tokenizers.lzw import LZW, train_lzw
from lib.tokenizers.restricted import Restricted, train_restricted
from lib.tokenizers.sentencepiece import SentencePiece, train_sentencepiece
from lib.tokenizers.unicode import Unicode, train_unicode
from lib.tokenizers.wordpiece import WordPiece, train_wordpiece

__all__ = [
  'BPE',
  'FAMILIES',
  'LZW',
  'Blocks',
  'ByteLevel',
  'Characters',
  'Dictionary',
  'EqualInfo',
  'Foreign',
  'GZip',
  'Restricted',
  'SentencePiece',
  'StaticAC',
  'Tokenizer',
  'Unicode',
  'WordPiece',
  'load',
  'save',
  'train_bpe',
  'train_lzw',
  'train_restricted',
  'train_sentencepiece',
  'train_sequential_bpe',
  'train_static_ac',
  'train_unicode',
  'train_wordpiece',
]

FAMILIES: dict[str, type[Tokenizer]] = {
  'bpe': BPE,
  'blocks': Blocks,
  'byte_level': ByteLevel,
  'characters': Characters,
  'dictionary': Dictionary,
  'equal_info': EqualInfo,
  'foreign': Foreign,
  'gzip': GZip,
  'lzw': LZW,
  'restricted': Restricted,
  'sentencepiece': SentencePiece,
  'static_ac': StaticAC,
  'unicode': Unicode,
  'wordpiece': WordPiece,
}


def save(tokenizer: Tokenizer, path: str | os.PathLike) -> None:
  """Writes the tokenizer to one file with a checksum, whole or not at all.

  Raises:
    InputError: its class is not the one that FAMILIES names for its family, so that `load` could
      not give it back.
  """
  if FAMILIES.get(tokenizer.family) is not type(tokenizer):
    raise InputError(
      f'{type(tokenizer).__name__} cannot be saved: give it a family of its own and add it to '
      'FAMILIES in lib/tokenizers/__init__.py'
    )
  files.write(path, tokenizer.family, tokenizer.state())


def load(path: str | os.PathLike) -> Tokenizer:
  """Reads what `save` wrote, a `tokenizer.json` of Hugging Face or a SentencePiece `.model`.

  Raises:
    InputError: any other or a damaged file.
  """
  if foreign.recognised(path):
    return foreign.read(path)
  family, state = files.read(path)
  if family not in FAMILIES:
    raise InputError(f'{path} holds a {family!r} tokenizer: known are {", ".join(FAMILIES)}')
  with files.rebuilding(path, f'{family} tokenizer'):
    return FAMILIES[family].from_state(state)
