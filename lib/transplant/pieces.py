# SPDX-License-Identifier: Apache-2.0
"""The pieces of two tokenizers: which are equal, and how the old one cuts those of the new one.

Legend: V old ids, V′ new ids, N pieces, M parts of all of them.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from lib.errors import InputError
from lib.tokenizers.base import Dictionary, Tokenizer
from lib.tokenizers.foreign import Foreign, Metaspace
from lib.tokenizers.utf8 import TextDictionary


class Parts(NamedTuple):
  """Pieces as the old tokenizer cuts them.

  Attributes:
    ids: int64 [M], old ids, piece after piece.
    bytes: int64 [M], bytes of each.
    offsets: int64 [N + 1], piece i has ids[offsets[i] : offsets[i + 1]].
  """

  ids: np.ndarray
  bytes: np.ndarray
  offsets: np.ndarray

  @property
  def counts(self) -> np.ndarray:
    """Parts of each piece, int64 [N]."""
    return np.diff(self.offsets)

  @property
  def piece(self) -> np.ndarray:
    """The piece that each part belongs to, int64 [M]."""
    return np.repeat(np.arange(len(self.offsets) - 1), self.counts)

  def weights(self, values: np.ndarray, vocab_size: int) -> sparse.csr_array:
    """The matrix [N, V] with these values [M]; those of an old id that occurs twice are added."""
    shape = len(self.offsets) - 1, vocab_size
    return sparse.csr_array((values.astype(np.float32), (self.piece, self.ids)), shape=shape)


def dictionary(tokenizer: Tokenizer | None, which: str) -> Dictionary:
  """The tokenizer, if each of its ids has bytes of its own; raises InputError for any other.

  A tokenizer.json that puts a space before each text is not lossless; its pieces are those of the
  same file without that.
  """
  if isinstance(tokenizer, Foreign) and tokenizer.kind == '.json':
    with contextlib.suppress(InputError):
      return Metaspace(tokenizer.content)
  if not isinstance(tokenizer, Dictionary) or not tokenizer.lossless:
    what = 'none' if tokenizer is None else f'a {tokenizer.family} tokenizer'
    raise InputError(
      f'the {which} tokenizer must be lossless, with fixed bytes for each id, such as byte-level '
      f'BPE or SentencePiece with byte fallback; got {what}.'
    )
  return tokenizer


def of_model(tokenizer: Dictionary) -> Tokenizer:
  """The tokenizer of a model whose pieces these are: the reverse of `dictionary`."""
  if isinstance(tokenizer, Metaspace):
    return Foreign(tokenizer.content, '.json')
  return tokenizer


def match(old: Dictionary, new: Dictionary) -> np.ndarray:
  """The old id with the bytes of each new id, int64 [V′]; −1 where there is none.

  Special tokens match by their names, and never match text. Of several ids with equal bytes the
  first matches the first, the second the second; byte tokens such as <0x41> come after other tokens
  with the same bytes.
  """
  places = {key: i for i, key in _keys(old)}
  matched = np.full(new.vocab_size, -1, np.int64)
  for i, key in _keys(new):
    matched[i] = places.get(key, -1)
  return matched


def _keys(tokenizer: Dictionary) -> Iterator[tuple[int, tuple[bytes | str, int]]]:
  """Each id with its bytes or name, and how many ids before it have the same."""
  seen: Counter[bytes | str] = Counter()
  last = set(tokenizer.byte_ids.tolist()) if isinstance(tokenizer, TextDictionary) else set()
  for i in sorted(range(tokenizer.vocab_size), key=last.__contains__):
    key = tokenizer.special_tokens.get(i, tokenizer.pieces[i])
    yield i, (key, seen[key])
    seen[key] += 1


def parts(old: Dictionary, new: Dictionary, ids: Sequence[int] | np.ndarray) -> Parts:
  """New pieces as the old tokenizer cuts them.

  Special tokens, and pieces with a byte outside the old alphabet, have no parts.
  """
  known = set(old.alphabet)
  wanted = [
    new.pieces[i] if i not in new.special_tokens and known.issuperset(new.pieces[i]) else b''
    for i in map(int, ids)
  ]
  rows = [row.astype(np.int64) for row in old.encode_batch(wanted)]
  found = np.concatenate([np.zeros(0, np.int64), *rows])
  sizes = old.lengths[found].astype(np.int64)
  return Parts(found, sizes, np.cumsum([0, *map(len, rows)]))
