# SPDX-License-Identifier: Apache-2.0
"""A Unicode tokenizer with fewer ids, for small models (after arXiv 2507.04886).

Text is segmented by the full tokenizer. A token that is not kept is spelled with its characters,
and a character that is not kept with its UTF-8 bytes, so it stays lossless.
"""

import functools
import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lib.errors import InputError
from lib.tokenizers import base, unicode_merge
from lib.tokenizers.unicode import SIZES, Unicode, train_unicode

BYTES = np.r_[:0x80, unicode_merge.BYTES + 0x80 : unicode_merge.BYTES + 0x100]  # id of each byte


class Restricted(base.Dictionary):
  """Some ids of a Unicode tokenizer, renumbered in their order; those of bytes are always kept.

  Args:
    whole: the full tokenizer.
    kept: its ids that are kept.

  Raises:
    InputError: an unknown id, or one that has no text.
  """

  family = 'restricted'

  def __init__(self, whole: Unicode, kept: ArrayLike):
    self.whole = whole
    self.kept = np.union1d(whole.check_ids(kept), BYTES)
    if np.any(whole.lengths[self.kept] == 0):
      empty = self.kept[whole.lengths[self.kept] == 0][0]
      raise InputError(f'id {empty} has no text: keep ids of characters and n-grams')
    super().__init__([whole.pieces[i] for i in self.kept])

  def encode(self, data: bytes) -> np.ndarray:
    """Returns ids, int32 [n]."""
    starts, lengths, written = self._spelled
    ids = self.whole.encode(data)
    counts = lengths[ids]
    ends = np.cumsum(counts)
    within = np.arange(ends[-1] if ids.size else 0) - np.repeat(ends - counts, counts)
    return written[np.repeat(starts[ids], counts) + within]

  @functools.cached_property
  def _spelled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How each id of the whole is written: first place and length in the ids that follow."""
    place = np.full(self.whole.vocab_size, -1, np.int32)
    place[self.kept] = np.arange(self.kept.size)

    def spell(i: int) -> list[int]:
      if place[i] >= 0:
        return [place[i]]
      piece = self.whole.pieces[i]
      if i in self._grams:
        return [part for character in piece.decode() for part in spell(ord(character))]
      return place[BYTES[list(piece)]].tolist()

    spelled = [spell(i) for i in range(self.whole.vocab_size)]
    lengths = np.array([len(ids) for ids in spelled])
    return np.cumsum(lengths) - lengths, lengths, np.fromiter(itertools.chain(*spelled), np.int32)

  @functools.cached_property
  def _grams(self) -> frozenset[int]:
    """Ids of the whole tokenizer that have several characters."""
    return frozenset(i for i, piece in enumerate(self.whole.pieces) if _characters(piece) > 1)

  def state(self) -> base.State:
    """That of the whole, and the ids kept."""
    return self.whole.state() | {'kept': self.kept.astype(np.int32)}

  @classmethod
  def from_state(cls, state: base.State) -> 'Restricted':
    """Rebuilds from `state()`."""
    return cls(Unicode.from_state(state), state['kept'])


def _characters(piece: bytes) -> int:
  return sum(byte & 0xC0 != 0x80 for byte in piece)


def train_restricted(
  documents: Sequence[bytes], vocab_size: int, longest: int = 3, always: str = ''
) -> Restricted:
  """Learns n-grams, and keeps the ids that the documents use most.

  Args:
    documents: to learn from.
    vocab_size: ids in all; the 256 of bytes are among them.
    longest: characters of the longest n-gram; 1 for characters alone.
    always: characters that are kept whether or not they occur.

  Raises:
    InputError: fewer ids than bytes and `always` need.
  """
  whole = train_unicode(documents, longest=longest) if longest > 1 else Unicode()
  certain = np.union1d([ord(character) for character in always], BYTES).astype(np.int32)
  if vocab_size < certain.size:
    raise InputError(
      f'{vocab_size} ids do not hold the {certain.size} of bytes and of characters that must be '
      f'kept: give {certain.size} or more'
    )
  counts = np.zeros(whole.vocab_size, np.int64)
  for document in documents:
    counts += np.bincount(whole.encode(document), minlength=whole.vocab_size)
  counts[certain] = 0
  frequent = np.argsort(-counts, kind='stable')[: vocab_size - certain.size]
  return Restricted(whole, np.union1d(certain, frequent[counts[frequent] > 0]))


def train_characters(documents: Sequence[bytes], vocab_size: int, always: str = '') -> Restricted:
  """The most frequent Unicode characters; see `train_restricted`."""
  return train_restricted(documents, vocab_size, longest=1, always=always)


def train_largest(
  documents: Sequence[bytes], vocab_size: int, longest: int = 3
) -> Unicode | Restricted:
  """Characters and n-grams in at most `vocab_size` ids; `Restricted` below 65,536."""
  fitting = [size for size in SIZES if size <= vocab_size]
  if not fitting:
    return train_restricted(documents, vocab_size, longest)
  return train_unicode(documents, fitting[-1], longest)
