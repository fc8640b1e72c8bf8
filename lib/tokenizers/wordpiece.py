# SPDX-License-Identifier: Apache-2.0
"""WordPiece over bytes (arXiv 1609.08144), trained by Hugging Face tokenizers: lossless."""

import functools
import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from lib.errors import InputError
from lib.tokenizers import base, utf8

BASE = 512  # each byte as the start of a word and as its continuation
CONTINUES = '\u2192'  # marks a continuation; it is not among the characters of ByteLevel
WORD = 64  # bytes; matching time is cubic in a word's length
CHUNK = 2**15  # characters; on longer texts the library slows down


class WordPiece(utf8.TextDictionary):
  """Splits text as GPT-2 does, then every 64 bytes, then into the longest pieces from the left.

  Args:
    pieces: the bytes of each id.
    continues: bool [d], whether a piece continues a word; the others start one.

  Raises:
    InputError: a repeated piece, or a byte that lacks a piece for the start or inside of a word.
  """

  family = 'wordpiece'

  def __init__(self, pieces: Sequence[bytes], continues: ArrayLike):
    super().__init__(pieces)
    self.continues = np.asarray(continues, np.bool_)
    keys = list(zip(self.continues.tolist(), self.pieces, strict=True))
    self._ids = {key: i for i, key in enumerate(keys)}
    needed = {(flag, bytes([byte])) for flag in (False, True) for byte in range(256)}
    if len(self._ids) < len(keys) or not needed <= self._ids.keys():
      raise InputError(
        'WordPiece needs every byte both as a start and as a continuation, and no piece twice'
      )
    vocab = {_written(piece, flag): i for (flag, piece), i in self._ids.items()}
    self._tokenizer = _tokenizer(vocab)

  @functools.cached_property
  def byte_ids(self) -> np.ndarray:
    """The id of each single byte as the start of a word, int32 [256]."""
    return np.array([self._ids[False, bytes([byte])] for byte in range(256)], np.int32)

  def encode_text(self, text: str) -> list[int]:
    """Returns ids; long texts go through the library in chunks."""
    return [i for chunk in _chunks(text) for i in self._tokenizer.encode(chunk).ids]

  def state(self) -> base.State:
    """Concatenated pieces with their lengths, and which continue a word."""
    return {
      'bytes': base.byte_array(b''.join(self.pieces)),
      'lengths': self.lengths,
      'continues': self.continues,
    }

  @classmethod
  def from_state(cls, state: base.State) -> 'WordPiece':
    """Rebuilds from `state()`."""
    return cls(base.split(state['bytes'].tobytes(), state['lengths']), state['continues'])


def train_wordpiece(documents: Sequence[bytes], vocab_size: int) -> WordPiece:
  """Trains exactly `vocab_size` pieces, each seen twice or more; invalid UTF-8 is skipped.

  Raises:
    InputError: fewer than 512 pieces, or more than the documents yield.
  """
  from tokenizers import trainers

  if vocab_size < BASE:
    raise InputError(
      f'a WordPiece vocabulary of {vocab_size} is too small: each byte as start and as '
      f'continuation of a word takes {BASE}'
    )
  singles = [(bytes([byte]), flag) for flag in (False, True) for byte in range(256)]
  tokenizer = _tokenizer({})
  trainer = trainers.WordPieceTrainer(
    vocab_size=vocab_size,
    min_frequency=2,
    # The single bytes get fixed ids, on which the order of tied merges depends.
    special_tokens=[_written(piece, flag) for piece, flag in singles],
    continuing_subword_prefix=CONTINUES,
    show_progress=False,
  )
  texts = (part for document in documents for part in utf8.cut(document) if isinstance(part, str))
  tokenizer.train_from_iterator(texts, trainer)
  vocab = tokenizer.get_vocab()
  if len(vocab) < vocab_size:
    raise InputError(
      f'a WordPiece vocabulary of {vocab_size} is too large for these documents: '
      f'ask for {len(vocab)} or less'
    )
  written = sorted(vocab, key=vocab.__getitem__)
  return WordPiece([_read(token) for token in written], [CONTINUES in token for token in written])


def _tokenizer(vocab: dict[str, int]):
  """The library's tokenizer: bytes as printable characters, in words of limited length."""
  import tokenizers
  from tokenizers import models, pre_tokenizers

  model = models.WordPiece(
    vocab, unk_token='', max_input_chars_per_word=2 * WORD, continuing_subword_prefix=CONTINUES
  )
  tokenizer = tokenizers.Tokenizer(model)
  words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.FixedLength(WORD)])
  return tokenizer


def _chunks(text: str) -> Iterator[str]:
  """Cuts a long text before single spaces, where words always end."""
  start = 0
  while start < len(text):
    space = re.compile(r'\w (?=\w)').search(text, start + CHUNK)
    stop = space.start() + 1 if space else len(text)
    yield text[start:stop]
    start = stop


@functools.cache
def byte_characters() -> str:
  """ByteLevel's character for each byte: the byte itself if printable, else from U+0100."""
  prints = {*range(33, 127), *range(161, 173), *range(174, 256)}
  others = iter(range(256, 512))
  return ''.join(chr(byte if byte in prints else next(others)) for byte in range(256))


def _written(piece: bytes, continues: bool) -> str:
  return CONTINUES * continues + ''.join(byte_characters()[byte] for byte in piece)


def _read(token: str) -> bytes:
  return bytes(byte_characters().index(character) for character in token.removeprefix(CONTINUES))
