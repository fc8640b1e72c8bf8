# SPDX-License-Identifier: Apache-2.0
"""Which tokens may follow within the pieces of a pretokenizer (`lib.tokenizers.covers`).

Pretokenizers look only at the classes of characters. So a text is replaced by its shape: one
character represents each class, and long runs are shortened. Of the possible continuations of a
text, one of each shape is tried.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from lib.tokenizers import pretokenizers, unicode_classes, utf8

LIMIT = (1 << 64) - 1


class Inner(Protocol):
  """What may follow within a piece.

  A token that may not follow `start` continues a piece: there is no cut before it.
  """

  start: Any

  def allowed(self, state: Any) -> np.ndarray:
    """The tokens that may come next, bool [V]."""
    ...

  def after(self, state: Any, token: int) -> Any:
    """The state with one more token, in the same piece or another."""
    ...

  def settled(self, state: Any) -> bool:
    """Whether the tokens so far stay whatever comes."""
    ...


@dataclasses.dataclass(frozen=True)
class Open:
  """The text since the last cut that nothing can change, for `Pieces`.

  Attributes:
    shapes: of its parts, between which it can be cut (`_shape`).
    must: for each part but the first, whether the text must be cut before it.
    inner: what may follow within the piece.
  """

  shapes: tuple[bytes, ...]
  must: tuple[bool, ...]
  inner: Any


class Pieces:
  """Tokens within the pieces of a pretokenizer, by what may follow within a piece.

  Args:
    inner: what may follow within a piece.
    pieces: the bytes of each token.
    rule: of `pretokenizers`, one name. Where tokens continue pieces, it is gpt2.
    single: whether each byte of invalid UTF-8 is a piece.
  """

  def __init__(self, inner: Inner, pieces: Sequence[bytes], rule: str, single: bool = False):
    self._inner, self._rule, self._single = inner, rule, single
    self.start = Open((), (), inner.start)
    self._first = inner.allowed(inner.start)
    self._shapes = [_shape(piece) for piece in pieces]
    self._kinds = functools.cache(self._kinds_after)
    self._cuts = functools.cache(self._cut_after)
    self._fitting = functools.cache(self._fit)
    self._row = functools.lru_cache(1 << 14)(self._follow)

  def allowed(self, state: Open) -> np.ndarray:
    """Tokens that a text exists for whose encoding begins so."""
    return self._row(state)

  def after(self, state: Open, token: int) -> Open:
    """Drops the text before the last cut that all texts make."""
    before = b''.join(state.shapes)
    shape = _plain(self._shapes[token], _quoted(before))
    shapes, must = (*state.shapes, shape), state.must
    if state.shapes and not self._first[token]:
      shapes = (*state.shapes[:-1], _uncut(state.shapes[-1] + shape))
    elif state.shapes:
      must = (*must, not self._inner.allowed(state.inner)[token])
      if before.endswith(b'a') and not shape.strip(b'a') and not must[-1] and b"'" not in before:
        # No rule cuts between small letters.
        last = state.shapes[-1]
        shapes, must = (
          (*state.shapes[:-1], last[: len(last.rstrip(b'a')) + _RUN - 1] + b'a'),
          state.must,
        )
    sure = _sure_cuts(b''.join(shapes), self._rule, self._single)
    ends = np.cumsum([len(shape) for shape in shapes]).tolist()
    if certain := [i for i, end in enumerate(ends) if end in sure]:
      shapes, must = shapes[certain[-1] + 1 :], must[certain[-1] + 1 :]
    while len(b''.join(shapes)) > 60 and len(shapes) > 6:  # the middle of a long run
      shapes, must = shapes[:3] + shapes[4:], must[:2] + must[3:]
    inner = self._inner.after(state.inner, token) if shapes else self._inner.start
    return Open(shapes, must[: max(len(shapes) - 1, 0)], inner)

  def certain(self, state: Open, token: int) -> bool:
    """Where all texts are cut before the token."""
    before = b''.join(state.shapes)
    shape = _plain(self._shapes[token], _quoted(before))
    return not before or len(before) in _sure_cuts(before + shape, self._rule, self._single)

  def _follow(self, state: Open) -> np.ndarray:
    ends, maybe = self._tokens(state)
    for token in np.flatnonzero(maybe & ~ends).tolist():
      settled = self._inner.settled(self._inner.after(state.inner, token))
      maybe[token] = settled or self._can_continue(self.after(state, token))
    return ends | maybe

  def _can_continue(self, state: Open) -> bool:
    """Whether any token may follow."""
    ends, maybe = self._tokens(state)
    return bool(ends.any()) or any(
      self._can_continue(self.after(state, token)) for token in np.flatnonzero(maybe).tolist()
    )

  def _tokens(self, state: Open) -> tuple[np.ndarray, np.ndarray]:
    """Tokens that can end a text, and those that can end inside a piece: bool [V] each."""
    meets = self._inner.allowed(state.inner)
    found = self._fitting(state.shapes, state.must)
    return tuple((self._first & cut) | (meets & joined) for cut, joined in found)

  def _fit(self, shapes: tuple[bytes, ...], must: tuple[bool, ...]) -> Any:
    """Tokens that fit after a cut, and without one: bool [V] each, as `_tokens` wants them."""
    text = b''.join(shapes)
    ends = np.cumsum([len(shape) for shape in shapes]).tolist()[:-1]
    possible = sum(1 << end for end in ends)
    needed = sum(1 << end for end, one in zip(ends, must, strict=True) if one)
    group, cut, ended, mask = self._cuts(text)
    fits = (mask & np.uint64(~possible & LIMIT) == 0) & (mask & np.uint64(needed) == needed)
    kinds = self._kinds(bool(_partial(text)), _quoted(text))
    return [
      [kinds.tokens(group[fits & cut & stop]), kinds.tokens(group[fits & ~cut & stop])]
      for stop in (ended, ~ended)
    ]

  def _kinds_after(self, inside: bool, quoted: bool) -> '_Kinds':
    """The kinds of tokens after a text that ends `inside` a character, or just after a quote."""
    return _Kinds([_kind(shape, inside, quoted) for shape in self._shapes])

  def _cut_after(self, text: bytes) -> tuple[np.ndarray, ...]:
    """The ways in which texts cut `text` and a token of each kind that they do not cut.

    Returns:
      Of each way the number of the kind, whether there is a cut before it, whether there is one
      after it, and the cuts in `text` as bits: int [n], bool [n], bool [n], uint64 [n].
    """
    start = _partial(text)
    group, sizes, more = self._kinds(bool(start), _quoted(text)).futures(start)
    docs, places = _places(text, more, self._rule, self._single)
    stop = len(text) + sizes[docs]
    cut, split, ended = (np.zeros(len(more), bool) for _ in range(3))
    cut[docs[places == len(text)]] = True
    cut |= not text
    split[docs[(places > len(text)) & (places < stop)]] = True
    ended[docs[places == stop]] = True
    masks, before = np.zeros(len(more), np.uint64), places < len(text)
    np.bitwise_or.at(masks, docs[before], np.uint64(1) << places[before].astype(np.uint64))
    some, which = np.unique(masks, return_inverse=True)
    ways = np.unique((((group * 2 + cut) * 2 + ended) * len(some) + which)[~split])
    ways, which = np.divmod(ways, len(some))
    return ways >> 2, (ways & 2) > 0, (ways & 1) > 0, some[which]


class _Kinds:
  """Tokens that pretokenizers cannot tell apart, by their shapes."""

  def __init__(self, shapes: Sequence[bytes]):
    self._known = sorted(set(filter(None, shapes)))
    number = {shape: i for i, shape in enumerate(self._known)}
    self._of_token = np.array([number.get(shape, len(number)) for shape in shapes])
    self.futures = functools.cache(self._futures)

  def tokens(self, kinds: np.ndarray) -> np.ndarray:
    """The tokens of some kinds, bool [V]."""
    found = np.zeros(len(self._known) + 1, bool)  # the last is that of tokens without bytes
    found[kinds] = True
    return found[self._of_token]

  def _futures(self, partial: bytes) -> tuple[np.ndarray, np.ndarray, list[bytes]]:
    """What may come after a text that ends with `partial`: a token of each kind, and more.

    Returns:
      Number and bytes of the kind, int64 [n] each, and all that comes, n texts.
    """
    found = [
      (number, len(shape), shape + more)
      for number, shape in enumerate(self._known)
      for more in _futures(partial + shape)
    ]
    groups, sizes, more = zip(*found)
    return np.array(groups, np.int64), np.array(sizes), [*more]


# One character represents each class, in shapes and in continuations.
_CLASSES = unicode_classes
_OF_CLASS = {
  _CLASSES.OTHER: '!',
  _CLASSES.UPPER: 'A',
  _CLASSES.LOWER: 'a',
  _CLASSES.UNCASED: '\u00aa',
  _CLASSES.MARK: '\u0300',
  _CLASSES.NUMBER: '1',
  _CLASSES.SPACE: '\t',
  _CLASSES.NEWLINE: '\n',
  _CLASSES.BLANK: ' ',
  _CLASSES.QUOTE: "'",
  _CLASSES.SLASH: '/',
}
_CONTRACTED = 'sdmtlverSDMTLVER\u017f'  # letters that pretokenizers tell apart after a quote
_RUN = 3  # characters of a class in a row, above which only the number of digits modulo 3 counts


def _shape(piece: bytes) -> bytes:
  """The piece with a character of each class for all of it, and long runs of a class cut short.

  Letters of contractions stay where a quote can come before them. What is no UTF-8 stays.
  """
  found = b''
  for part in utf8.cut(piece):
    if isinstance(part, bytes):
      found += part
      continue
    written = ''
    for at, character in enumerate(part):
      early = at < 2 or "'" in part[at - 2 : at]
      kept = early and character in _CONTRACTED
      written += character if kept else _OF_CLASS[_class(character)]
    for character, run in itertools.groupby(written):
      size = len(list(run))
      if size > _RUN:
        size = _RUN + (size % 3 if character == '1' else 0)
      found += (character * size).encode()
  return found


@functools.cache
def _texts() -> tuple[bytes, ...]:
  """What may come: nothing, a character of any class or one after a blank, contractions."""
  each = [*map(str.encode, _OF_CLASS.values()), b'\xff']
  more = b'sdmtle', b'll', b've', b're', b'11', b'111'
  blanks = [a + b for a in (b' ', b'\t', b'\n') for b in (b'a', b'1', b'!', b' ', b'\n')]
  return (b'', *each, *blanks, b'AA', b'Aa', *map(bytes, zip(more[0])), *more[1:])


@functools.cache
def _completions(start: bytes) -> tuple[bytes, ...]:
  """Bytes after the beginning of a character that make one of each class."""
  size = 2 + (start[0] >= 0xE0) + (start[0] >= 0xF0)
  missing = 6 * (size - len(start))
  point = start[0] & (0x7F >> size)
  for byte in start[1:]:
    point = point << 6 | byte & 0x3F
  classes = unicode_classes.table()[point << missing : (point + 1) << missing]
  found = []
  for kind in np.flatnonzero(np.bincount(classes)):
    for place in np.flatnonzero(classes == kind)[[0, -1]].tolist():
      number = (point << missing) + place
      if not 0xD800 <= number < 0xE000:
        written = chr(number).encode()
        if written.startswith(start):
          found.append(written[len(start) :])
          break
  return tuple(found)


def _partial(text: bytes) -> bytes:
  """The beginning of a character that a text ends with."""
  for size in range(1, 4):
    start = text[-size:]
    if len(start) == size and 0xC2 <= start[0] <= 0xF4:
      whole = 2 + (start[0] >= 0xE0) + (start[0] >= 0xF0)
      return start if size < whole and all(byte & 0xC0 == 0x80 for byte in start[1:]) else b''
  return b''


def _uncut(shape: bytes) -> bytes:
  """The shape of a part of one piece of gpt2: of many characters, the first and last.

  It is letters, digits, marks or whitespace alone, but for the first character. So those in the
  middle do not matter.
  """
  text = _shape(shape).decode('utf-8', 'surrogateescape')
  text = text if len(text) < 6 else text[:2] + text[-3:]  # a character can lack its last byte
  return text.encode('utf-8', 'surrogateescape')


def _quoted(text: bytes) -> bool:
  """Whether the next letter can be that of a contraction."""
  return b"'" in text[-2:]


def _plain(shape: bytes, quoted: bool) -> bytes:
  """The shape without letters of contractions, unless it may have any."""
  if quoted or b"'" in shape:
    return shape
  shape = shape.translate(_PLAIN).replace('\u017f'.encode(), b'a')
  return re.sub(rb'a{4,}|A{4,}', lambda run: run[0][:_RUN], shape)


def _kind(shape: bytes, inside: bool, quoted: bool) -> bytes:
  """The shape, where all that begins characters of the same classes is written the same.

  Continuation bytes are invalid unless the text before is `inside` one, and letters
  are those of contractions only after a quote.
  """
  shape = _plain(shape, quoted)
  rest = shape.lstrip(bytes(range(0x80, 0xC0)))
  if not inside:
    shape = b'\xff' * (len(shape) - len(rest)) + rest
  start = _partial(shape)
  if not start:
    return shape
  classes = tuple(sorted(_OF_CLASS[_class((start + one).decode())] for one in _completions(start)))
  return shape[: -len(start)] + _FIRST.setdefault((len(start), classes), start)


_PLAIN = bytes(
  ord('a') if chr(byte) in 'sdmtlver' else ord('A') if chr(byte) in 'SDMTLVER' else byte
  for byte in range(256)
)
_FIRST: dict[tuple, bytes] = {}  # a beginning of characters of some classes


def _class(character: str) -> int:
  return int(unicode_classes.table()[ord(character)])


def _futures(text: bytes) -> list[bytes]:
  """What may come after a text, such that all its ways to be cut are found."""
  found = list(_texts())
  if start := _partial(text):
    ends = [b'', *map(str.encode, _OF_CLASS.values()), b'\xff']
    found += [one + end for one in _completions(start) for end in ends]
  return found


def _places(
  text: bytes, more: Sequence[bytes], rule: str, single: bool
) -> tuple[np.ndarray, np.ndarray]:
  """Where a text with each of its futures is cut: the future and the place, int [cuts] each."""
  sizes = np.array([len(one) for one in more]) + len(text)
  stops = pretokenizers.cut_each([text + one for one in more], rule, single)
  ends = np.cumsum(sizes)
  docs = np.searchsorted(ends, stops, side='left')
  return docs, stops - (ends - sizes)[docs]


@functools.lru_cache(1 << 16)
def _sure_cuts(text: bytes, rule: str, single: bool) -> frozenset[int]:
  """The places in a text, its end included, at which it is cut whatever comes after it."""
  more = _futures(text)
  _, places = _places(text, more, rule, single)
  counts = np.bincount(places, minlength=len(text) + 1)[: len(text) + 1]
  return frozenset(np.flatnonzero(counts == len(more)).tolist())
