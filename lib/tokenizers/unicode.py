# SPDX-License-Identifier: Apache-2.0
"""The Unicode-centric tokenizer of arXiv 2507.04886: each id is a code point or an n-gram.

| ids             | text                                                            |
|-----------------|-----------------------------------------------------------------|
| 0x0000-0xD7FF   | that code point                                                 |
| 0xD800-0xDFFF   | the first 2,048 n-grams                                         |
| 0xE000-0xE07F   | nothing: 128 special tokens, never emitted                      |
| 0xE080-0xE0FF   | the byte that the id ends in                                    |
| 0xE100-0xF8FF   | the next 6,144 n-grams                                          |
| 0xF900-0xFFFE   | that code point                                                 |
| 0xFFFF          | nothing                                                         |
| 0x10000-0x1FFFE | further n-grams, where there are 131,072 ids; 0x1FFFF: nothing  |

The paper's tables have 256 special tokens and no way to write code points above U+FFFF or in the
private range. Here their UTF-8 bytes, and all bytes that are no UTF-8, take the place of half the
special tokens, so that every byte string comes back.
"""

import functools
import unicodedata
from collections.abc import Sequence

import numpy as np

from lib.errors import InputError
from lib.tokenizers import base, bpe_apply, unicode_merge

SIZES = (0x10000, 0x20000)
LONGEST = 16  # characters in an n-gram: more would be words


class Unicode(base.Dictionary):
  """One id for each code point of the Basic Multilingual Plane, and merges into n-grams.

  The merges are all splits of each n-gram into two tokens, ordered by length (longest first) and
  then by code points, not by frequency. The first merge in that order is applied first, anywhere
  in the text (BPE without words). So an n-gram whose parts are never both formed is never emitted,
  as in the paper.

  Args:
    ngrams: strings of 2 or more code points, each with an id, in any order.
    vocab_size: 65,536 or 131,072.

  Raises:
    InputError: another size, too many n-grams for it, or a string that is no such n-gram.
  """

  family = 'unicode'

  def __init__(self, ngrams: Sequence[str] = (), vocab_size: int = SIZES[0]):
    places = ngram_ids(vocab_size)
    if len(ngrams) > places.size:
      raise InputError(
        f'{len(ngrams)} n-grams do not fit {vocab_size} ids: give {places.size} or fewer'
      )
    self.ngrams = sorted(ngrams, key=lambda gram: (-len(gram), gram))
    self._ids = dict(zip(self.ngrams, places.tolist(), strict=False))
    points = [*range(0xD800), *range(unicode_merge.PRIVATE[1], 0xFFFF)]
    pieces = [b''] * vocab_size
    for point in points:
      pieces[point] = chr(point).encode()
    known = {chr(point) for point in points}
    for gram, i in self._ids.items():
      if not 2 <= len(gram) <= LONGEST or not known.issuperset(gram):
        raise InputError(
          f'{gram!a} is not an n-gram: it should have 2 to {LONGEST} characters of the Basic '
          'Multilingual Plane outside its private range'
        )
      pieces[i] = gram.encode()
    if len(self._ids) < len(ngrams):
      raise InputError('an n-gram is given twice: each may occur once')
    for byte in range(0x80, 0x100):
      pieces[unicode_merge.BYTES + byte] = bytes([byte])
    super().__init__(pieces)

  def encode(self, data: bytes) -> np.ndarray:
    """Returns ids, int32 [n]."""
    cells = unicode_merge.symbols(base.byte_array(data))
    return unicode_merge.merge(cells, *self._merging)

  @functools.cached_property
  def merges(self) -> np.ndarray:
    """The ids (left, right) that are joined, int32 [m, 2], by falling precedence."""
    return np.array([(left, right) for left, right, _ in self._rules()], np.int32).reshape(-1, 2)

  @functools.cached_property
  def _merging(self) -> tuple[np.ndarray, ...]:
    """The arguments of `unicode_merge.merge` besides the text."""
    joins = np.zeros(self.vocab_size, bool)
    joins[[ord(character) for character in set(''.join(self.ngrams))]] = True
    made = np.array([whole for _, _, whole in self._rules()], np.int32)
    lengths = np.ones(self.vocab_size, np.int32)
    lengths[list(self._ids.values())] = [len(gram) for gram in self._ids]
    return joins, self.merges, bpe_apply.rules(self.merges), made, lengths

  def _rules(self) -> list[tuple[int, int, int]]:
    """(left, right, whole) of every split of every n-gram into two tokens."""
    token = lambda part: ord(part) if len(part) == 1 else self._ids.get(part)
    splits = (
      (token(gram[:cut]), token(gram[cut:]), whole)
      for gram, whole in self._ids.items()
      for cut in range(1, len(gram))
    )
    return [(a, b, whole) for a, b, whole in splits if a is not None and b is not None]

  def state(self) -> base.State:
    """The n-grams end to end with their lengths in bytes, and the number of ids."""
    grams = [gram.encode() for gram in self.ngrams]
    return {
      'ngrams': base.byte_array(b''.join(grams)),
      'lengths': np.array([len(gram) for gram in grams], np.int32),
      'vocab_size': np.array(self.vocab_size, np.int32),
    }

  @classmethod
  def from_state(cls, state: base.State) -> 'Unicode':
    """Rebuilds from `state()`."""
    grams = base.split(state['ngrams'].tobytes(), state['lengths'])
    return cls([gram.decode() for gram in grams], int(state['vocab_size']))


def ngram_ids(vocab_size: int) -> np.ndarray:
  """The ids that n-grams may have, in the order in which they are given out."""
  if vocab_size not in SIZES:
    raise InputError(
      f'{vocab_size} ids asked for: a Unicode tokenizer has {SIZES[0]} or {SIZES[1]}'
    )
  return np.r_[0xD800:0xE000, 0xE100:0xF900, 0x10000 : max(0x10000, vocab_size - 1)]


def train_unicode(
  documents: Sequence[bytes], vocab_size: int = SIZES[0], longest: int = 3, min_count: int = 2
) -> Unicode:
  """Takes the most frequent n-grams of 2 to `longest` letters.

  N-grams are counted at every place within runs of letters, their marks and apostrophes, so that
  none contains a space or a digit. The most frequent of each length are taken, then the second
  most frequent of each, and so on while ids are left. Memory: about 50 bytes per character.

  Raises:
    InputError: no n-gram occurs `min_count` times, or `longest` is out of range.
  """
  if not 2 <= longest <= LONGEST:
    raise InputError(f'n-grams of up to {longest} characters asked for: choose 2 to {LONGEST}')
  room = ngram_ids(vocab_size).size
  gap = np.array([ord(' ')], np.int32)
  parts = [gap]
  for document in documents:
    parts += [unicode_merge.symbols(base.byte_array(document)), gap]
  ranked = [
    (rank, length, gram)
    for length, grams in _frequent(np.concatenate(parts), longest, min_count, room)
    for rank, gram in enumerate(grams)
  ]
  if not ranked:
    raise InputError(f'no two letters occur {min_count} times together: give more text')
  return Unicode([gram for _, _, gram in sorted(ranked)[:room]], vocab_size)


def _frequent(symbols: np.ndarray, longest: int, min_count: int, most: int):
  """Yields n and the at most `most` n-grams of it, by falling counts, then by code points."""
  inside = _letters()[symbols]
  places = np.flatnonzero(inside)
  prefix = symbols.astype(np.int64)  # a number for the n-gram at each place, in the order of all
  for n in range(2, longest + 1):
    places = places[inside[places + n - 1]]  # the last symbol is a gap, so none runs over
    keys = prefix[places] << 16 | symbols[places + n - 1]
    _, first, which, counts = np.unique(
      keys, return_index=True, return_inverse=True, return_counts=True
    )
    prefix[places] = which
    order = np.argsort(-counts, kind='stable')[:most]
    order = order[counts[order] >= min_count]
    yield n, [''.join(map(chr, symbols[p : p + n])) for p in places[first[order]]]


@functools.cache
def _letters() -> np.ndarray:
  """Which of the ids below 0x10000 are letters, marks on them or the apostrophe."""
  return np.array(
    [unicodedata.category(chr(i))[0] in 'LM' or i == ord("'") for i in range(0x10000)]
  )
