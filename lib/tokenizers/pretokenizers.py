# SPDX-License-Identifier: Apache-2.0
"""Pretokenizers: a text cut into pieces, which no token of a tokenizer then crosses.

A rule is a name of RULES, names joined by `+` (each cuts the pieces of the one before), or `regex:`
and a regular expression. The pieces are the matches of the regular expression and what lies between
them, so they join to the text. Each run of invalid UTF-8 is a piece of its own.

Where a cut stands can depend on text after it: under `none`, `digit1` and `digit3_l2r` on nothing;
under `digit3_r2l` on the rest of the run of digits; under all others on the rest of a run of
whitespace and on three more characters.
"""

import functools
import reprlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numba
import numpy as np

from lib.errors import InputError
from lib.tokenizers import bpe_apply, unicode_classes
from lib.tokenizers.unicode_classes import (
  BLANK,
  END,
  LOWER,
  MARK,
  NEWLINE,
  NUMBER,
  OTHER,
  QUOTE,
  SLASH,
  SPACE,
  UNCASED,
  UPPER,
)

_SPACES = r'\s*[\r\n]+|\s+(?!\S)|\s+'
_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPERS, _LOWERS = r'[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]', r'[\p{Ll}\p{Lm}\p{Lo}\p{M}]'
# The rules and their regular expressions. `words` takes combining marks for letters, so that it
# does not cut the words of Indic scripts; `digits_punct` (SuperBPE's second stage) as well.
# gpt2, cl100k and o200k are as tiktoken 0.14 has them.
RULES = {
  'none': '',
  'words': r'[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|'
  + _SPACES,
  'digits_punct': r'\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]{2,}[\r\n/]*| +(?!\S)',
  'digit1': r'\p{N}',
  'digit3_l2r': r'\p{N}{1,3}',
  'digit3_r2l': r'\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))',
  'gpt2': r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+$|\s+(?!\S)|\s",
  'cl100k': r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
  r'\s+$|\s*[\r\n]|\s+(?!\S)|\s',
  'o200k': rf'[^\r\n\p{{L}}\p{{N}}]?{_UPPERS}*{_LOWERS}+{_CONTRACTION}?|'
  rf'[^\r\n\p{{L}}\p{{N}}]?{_UPPERS}+{_LOWERS}*{_CONTRACTION}?|'
  r'\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|' + _SPACES,
}
REGEX = 'regex:'


def patterns(rule: str) -> list[str]:
  """The regular expressions of a rule, each for the pieces of the one before.

  They are written as the library `tokenizers` reads them. `$` is the end of the text.

  Raises:
    InputError: an unknown rule, or a regular expression that the library does not read.
  """
  if rule.startswith(REGEX):
    _split(rule.removeprefix(REGEX))
    return [rule.removeprefix(REGEX)]
  return [RULES[name].replace('$', r'\z') for name in _names(rule) if name != 'none']


def cut(data: bytes, rule: str) -> np.ndarray:
  """Where each piece of `data` ends under `rule`, int64 [pieces]; the last is the end of the data.

  Raises:
    InputError: as `patterns`.
  """
  return cut_each([data], rule)


def cut_each(documents: Sequence[bytes], rule: str, single: bool = False) -> np.ndarray:
  """Where each piece of documents ends in them joined, int64 [pieces]; each is cut by itself.

  Args:
    documents: any bytes.
    rule: a pretokenizer.
    single: cut after each byte of invalid UTF-8.

  Raises:
    InputError: as `patterns`.
  """
  joined = b''.join(documents)
  ends = _cut_all(documents, joined, rule)
  if not single:
    return ends
  runs, broken = _texts(np.frombuffer(joined, np.uint8), _ends(documents))
  cuts = np.repeat(broken, np.diff(runs, prepend=0))  # after which bytes
  cuts[ends - 1] = True
  return 1 + np.flatnonzero(cuts)


class Pieces(NamedTuple):
  """The distinct pieces of some texts.

  Attributes:
    data: uint8 [n], the texts end to end and some zeros.
    starts, sizes: int64 [k], first place of each piece in `data`, and its bytes.
    counts: int64 [k], how often it occurs.
  """

  data: np.ndarray
  starts: np.ndarray
  sizes: np.ndarray
  counts: np.ndarray

  def texts(self) -> list[bytes]:
    """The pieces."""
    data = self.data.tobytes()
    return [data[a : a + size] for a, size in zip(self.starts, self.sizes, strict=True)]

  def cells(self, symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The symbol of each byte, int32 [256] -> cells and weights as `bpe_learn.learn` takes them."""
    return _cells(*self, symbols)


def count(documents: Sequence[bytes], rule: str) -> Pieces:
  """The distinct pieces of documents, in the order in which they first come.

  Raises:
    InputError: as `patterns`.
  """
  joined = b''.join(documents)
  stops = _cut_all(documents, joined, rule)
  data = bpe_apply.padded(joined)
  return Pieces(data, *_count(data.view(np.uint64), stops))


def _cut_all(documents: Sequence[bytes], joined: bytes, rule: str) -> np.ndarray:
  data = np.frombuffer(joined, np.uint8)
  ends = _ends(documents)
  names = [] if rule.startswith(REGEX) else [name for name in _names(rule) if name != 'none']
  if rule.startswith(REGEX) or names:
    ends, broken = _texts(data, ends)
  if rule.startswith(REGEX):
    split, stops, start = _split(rule.removeprefix(REGEX)), [ends[:0]], 0
    for end, bad in zip(ends.tolist(), broken.tolist(), strict=True):
      text = joined[start:end].decode(errors='replace')
      pieces = [text[a:b].encode() for _, (a, b) in split.pre_tokenize_str(text)]
      sizes = [end - start] if bad else list(map(len, pieces))
      stops.append(start + np.cumsum(sizes))
      start = end
    return np.concatenate(stops)
  for name in names:
    ends, broken = _cut(
      data, ends, broken, unicode_classes.table(), _machine(name),
      line=name != 'gpt2', tail=name in ('gpt2', 'cl100k'), any_case=name != 'gpt2',
    )  # fmt: skip
  return ends


def _ends(documents: Sequence[bytes]) -> np.ndarray:
  """Where those that are not empty end in all of them joined, int64 [n]."""
  return np.cumsum(list(filter(None, map(len, documents))), dtype=np.int64)


def _names(rule: str) -> list[str]:
  names = rule.split('+')
  if unknown := [name for name in names if name not in RULES]:
    raise InputError(
      f'rule {reprlib.repr(unknown[0])} is not a pretokenizer: use {", ".join(RULES)}, '
      f'several joined by +, or {REGEX}PATTERN'
    )
  return names


@functools.cache
def _split(pattern: str):
  import tokenizers

  try:
    return tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), 'isolated')
  except Exception as error:  # the library has no class for it
    raise InputError(f'{pattern!r} is not a regular expression for pretokens: {error}') from error


# A rule is a machine over the classes of characters. In a state it moves to the next, or first
# cuts before the character (CUT), or calls on one of the actions.
CUT, ACTION = 128, 64
RUN, CONTRACTION, SUFFIX, BACK, FROM_RIGHT, MARKS, BLANKS = range(ACTION, ACTION + 7)
START, LEAD, CAPITALS = range(3)  # states after an action: 'start', 'mark' and 'capitals'
LETTERS, BLANK_CLASSES = (UPPER, LOWER, UNCASED), (SPACE, NEWLINE, BLANK)
PUNCTUATION = (OTHER, QUOTE, SLASH)


@functools.cache
def _machine(rule: str) -> np.ndarray:
  """The table of a named rule, uint8 [states, classes]: the next state, with CUT; or an action."""
  if rule.startswith('digit'):
    first, goes = _digits(rule)
  else:
    first, goes = _words(rule)
  names = list(dict.fromkeys(['start', 'mark', 'capitals', *goes]))
  table = np.zeros((len(names), END + 1), np.uint8)
  number = lambda target: names.index(target) if isinstance(target, str) else target
  table[1:, END] = CUT
  for kind, target in first.items():
    table[0, kind] = number(target)
    table[1:, kind] = number(target) | (CUT if isinstance(target, str) else 0)
  for state, targets in goes.items():
    for kind, target in targets.items():
      table[names.index(state), kind] = number(target)
  return table


Targets = dict[int, str | int]  # of each class the state or action; for all others, CUT


def _digits(rule: str) -> tuple[Targets, dict[str, Targets]]:
  """Where a piece begins and continues, for the rules that cut at some runs only."""
  first: Targets = {**_to(range(END), 'gap'), NUMBER: 'one'}
  if rule == 'digit3_r2l':
    return first | {NUMBER: FROM_RIGHT}, {'gap': _to(set(range(END)) - {NUMBER}, 'gap')}
  if rule == 'digits_punct':
    first |= {BLANK: 'blank', **_to(PUNCTUATION, 'mark')}
  gap = {kind: target for kind, target in first.items() if kind != NUMBER}
  return first, {
    'gap': gap,
    'mark': gap | _to(PUNCTUATION, MARKS),
    'blank': gap | _to((*BLANK_CLASSES, END), BLANKS) | _to(PUNCTUATION, 'blank mark'),
    'blank mark': gap | _to(PUNCTUATION, MARKS),
    'one': {NUMBER: 'two'} if rule != 'digit1' else {},
    'two': {NUMBER: 'three'},
    'three': {},
  }


def _words(rule: str) -> tuple[Targets, dict[str, Targets]]:
  """Where a piece begins and continues, for the rules that cut into words."""
  letters = (*LETTERS, MARK) if rule == 'words' else LETTERS
  marks = PUNCTUATION if rule == 'words' else (*PUNCTUATION, MARK)
  word, run = _to(letters, 'word'), _to(BLANK_CLASSES, RUN)
  more: Targets = {**_to(marks, 'marks'), NEWLINE: 'tail'}
  first = word | _to(marks, 'mark')
  first |= {NUMBER: 'one', SPACE: 'space', NEWLINE: 'line', BLANK: 'blank'}
  goes: dict[str, Targets] = {
    'word': word,
    'mark': more | word,  # a mark may lead a word
    'marks': more,
    'tail': {NEWLINE: 'tail'},
    'one': {NUMBER: 'two'},
    'two': {NUMBER: 'three'},
    'three': {},
    'blank': _to(marks, 'marks') | word | run,
    'space': word | run,
    'line': run | {NEWLINE: 'line'},
  }
  if rule == 'gpt2':
    more = _to(marks, 'marks')
    goes |= {'mark': more, 'marks': more, 'space': run, 'line': run, 'one': {NUMBER: 'one'}}
    goes['blank'] = goes['blank'] | {NUMBER: 'one'}
  if rule in ('gpt2', 'cl100k'):
    first[QUOTE] = 'quote'
    goes['quote'] = goes['mark'] | _to(letters, CONTRACTION)
  if rule == 'o200k':
    goes['tail'] = _to((NEWLINE, SLASH), 'tail')
    cased: Targets = {UPPER: 'capitals', LOWER: 'lower', UNCASED: 'mixed', MARK: 'mixed'}
    first |= cased
    for state in ('mark', 'blank', 'space'):
      goes[state] = goes[state] | cased
    goes['capitals'] = cased | {QUOTE: SUFFIX}
    goes['lower'] = _to((LOWER, UNCASED, MARK), 'lower') | {QUOTE: SUFFIX}
    goes['mixed'] = cased | {UPPER: 'capitals after', QUOTE: SUFFIX}
    # Unless a small letter comes, these capitals are a piece of their own.
    goes['capitals after'] = _to(range(END + 1), BACK) | cased | {UPPER: 'capitals after'}
  return first, goes


def _to(classes: Iterable[int], target: str | int) -> Targets:
  found: Targets = dict.fromkeys(classes, target)
  return found


@numba.njit(cache=True, nogil=True)
def _count(words, stops):
  """Start, size and count of each distinct piece of a text in `words`."""
  starts, sizes = np.empty(1 << 12, np.int64), np.empty(1 << 12, np.int64)
  counts, hashes = np.empty(1 << 12, np.int64), np.empty(1 << 12, np.uint64)
  slots, found, start = np.full(1 << 13, -1, np.int32), 0, 0
  for stop in stops:
    if found == starts.size:
      starts, sizes = np.concatenate((starts, starts)), np.concatenate((sizes, sizes))
      counts, hashes = np.concatenate((counts, counts)), np.concatenate((hashes, hashes))
      slots = np.full(2 * starts.size, -1, np.int32)
      for i in range(found):
        slot = np.int64(hashes[i] & np.uint64(slots.size - 1))
        while slots[slot] >= 0:
          slot = (slot + 1) & (slots.size - 1)
        slots[slot] = i
    size = stop - start
    hashed = bpe_apply.hash_of(words, start, size)
    slot = np.int64(hashed & np.uint64(slots.size - 1))
    while slots[slot] >= 0:
      i = slots[slot]
      if (
        hashes[i] == hashed
        and sizes[i] == size
        and bpe_apply.same(words, starts[i], words, start, size)
      ):
        break
      slot = (slot + 1) & (slots.size - 1)
    if slots[slot] < 0:
      slots[slot], starts[found], sizes[found] = found, start, size
      counts[found], hashes[found] = 0, hashed
      found += 1
    counts[slots[slot]] += 1
    start = stop
  return starts[:found].copy(), sizes[:found].copy(), counts[:found].copy()


@numba.njit(cache=True, nogil=True)
def _cells(data, starts, sizes, counts, symbols):
  cells = np.full(sizes.sum() + sizes.size, -1, np.int32)
  weights, place = np.empty(cells.size, np.int64), 0
  for i in range(sizes.size):
    for byte in data[starts[i] : starts[i] + sizes[i]]:
      cells[place] = symbols[byte]
      weights[place] = counts[i]
      place += 1
    place += 1
  return cells, weights


@numba.njit(inline='always')
def _char(data, i, classes):
  """The class of the character at `i`, and where it ends."""
  byte = np.int64(data[i])
  if byte < 0x80:
    return classes[byte], i + 1
  if byte < 0xE0:
    return classes[(byte & 0x1F) << 6 | data[i + 1] & 0x3F], i + 2
  point = (byte & 0x0F) << 12 | (np.int64(data[i + 1]) & 0x3F) << 6 | data[i + 2] & 0x3F
  if byte < 0xF0:
    return classes[point], i + 3
  return classes[point << 6 | data[i + 3] & 0x3F], i + 4


@numba.njit(cache=True, nogil=True)
def _texts(data, ends):
  """The ends of runs of valid and of invalid UTF-8, and which runs are invalid, bool [n]."""
  stops, broken = np.empty(data.size + 1, np.int64), np.empty(data.size + 1, np.bool_)
  count, i = 0, 0
  for end in ends:
    start = i
    while i < end:
      size = _size(data, i, end)
      bad = size == 0
      if i > start and bad != broken[count]:
        stops[count] = i
        count += 1
      broken[count] = bad
      i += max(size, 1)
    stops[count] = end
    count += 1
  return stops[:count].copy(), broken[:count].copy()


@numba.njit(inline='always')
def _size(data, i, end):
  """Bytes of the character at `i`; 0 where there is none (Unicode, table 3-7)."""
  byte = data[i]
  if byte < 0x80:
    return 1
  size = 2 + (byte >= 0xE0) + (byte >= 0xF0)
  if byte < 0xC2 or byte > 0xF4 or i + size > end:
    return 0
  low = 0xA0 if byte == 0xE0 else 0x90 if byte == 0xF0 else 0x80
  high = 0x9F if byte == 0xED else 0x8F if byte == 0xF4 else 0xBF
  if data[i + 1] < low or data[i + 1] > high:
    return 0
  for at in range(i + 2, i + size):
    if data[at] & 0xC0 != 0x80:
      return 0
  return size


@numba.njit(cache=True, nogil=True)
def _cut(data, ends, broken, classes, table, line, tail, any_case):
  """Cuts each part of `data` that ends at `ends` and is not `broken`.

  Args:
    data: uint8 [n].
    ends: int64 [parts].
    broken: bool [parts].
    classes: uint8 [0x110000].
    table: of `_machine`.
    line: whether whitespace is cut after its last line end.
    tail: whether whitespace at the end of a part is one piece.
    any_case: whether contractions may be capitals.

  Returns:
    where the pieces end, int64 [n], and which of them are broken, bool [n].
  """
  stops, kept = np.empty(data.size + 1, np.int64), np.zeros(data.size + 1, np.bool_)
  count, i = np.int64(0), np.int64(0)
  for part in range(ends.size):
    start, end, state = i, ends[part], START  # where the piece began, the part ends
    if broken[part]:
      stops[count], kept[count], i = end, True, end
      count += 1
      continue
    base = count
    while True:
      kind, after = np.uint8(END), i
      if i < end:
        kind, after = _char(data, i, classes)
      code = table[state, kind]
      if code & ACTION == 0:
        stops[count] = i
        count += code >> 7
        state, i = code & 63, after
        if kind == END:
          break
        continue
      if count > base:
        start = stops[count - 1]
      state = START
      if code == RUN:
        i = _blanks(data, start, end, classes, line, tail)
        stops[count] = i
        count += 1
      elif code in (CONTRACTION, SUFFIX):
        at = i if code == SUFFIX else i - 1
        stop = _contraction(data, at, end, any_case)
        if stop > at:
          i = stop
        if stop > at or code == SUFFIX:
          stops[count] = i
          count += 1
        else:
          state = LEAD
      elif code == BACK:
        stop = i
        while _char(data, _before(data, stop), classes)[0] == UPPER:
          stop = _before(data, stop)
        stops[count] = stop
        count += 1
        state = CAPITALS
      elif code == FROM_RIGHT:
        i, count = _groups(data, start, i, end, classes, stops, count)
      else:
        at = i - 1
        if code == MARKS:
          at = _before(data, i)
          if at > start and data[at - 1] == 32:
            at -= 1
        if at > start:
          stops[count] = at
          count += 1
        i = _marks(data, i, end, classes) if code == MARKS else _spaces(data, at, end, classes)
        stops[count] = i
        count += 1
  return stops[:count].copy(), kept[:count].copy()


@numba.njit(inline='always')
def _before(data, i):
  """Where the character begins that ends at `i`."""
  i -= 1
  while data[i] & 0xC0 == 0x80:
    i -= 1
  return i


@numba.njit(cache=True, nogil=True)
def _blanks(data, i, end, classes, line, tail):
  """The end of a piece of whitespace: up to a last line end, or to the last character."""
  newline, last, stop = i, i, i
  while stop < end:
    kind, after = _char(data, stop, classes)
    if kind != SPACE and kind != BLANK and kind != NEWLINE:
      break
    last, stop = stop, after
    if kind == NEWLINE:
      newline = stop
  if tail and stop == end:
    return stop
  if line and newline > i:
    return newline
  return stop if stop == end or last == i else last


@numba.njit(cache=True, nogil=True)
def _contraction(data, i, end, any_case):
  """The end of 's, 't, 'm, 'd, 'll, 've or 're at `i`, where a quote is; or `i`."""
  fold = 32 if any_case else 0
  one = data[i + 1] | fold if i + 1 < end else 0
  two = data[i + 2] | fold if i + 2 < end else 0
  if one == 115 or one == 116 or one == 109 or one == 100:
    return i + 2
  if (one == 108 and two == 108) or ((one == 118 or one == 114) and two == 101):
    return i + 3
  # U+017F, the long s, is an s in any case.
  if any_case and i + 2 < end and data[i + 1] == 0xC5 and data[i + 2] == 0xBF:
    return i + 3
  return i


@numba.njit(cache=True, nogil=True)
def _groups(data, start, i, end, classes, stops, count):
  """Writes groups of three digits from the right; returns the end of all, and the new count."""
  if i > start:
    stops[count] = i
    count += 1
  digits, stop = 0, i
  while stop < end:
    kind, after = _char(data, stop, classes)
    if kind != NUMBER:
      break
    digits, stop = digits + 1, after
  while i < stop:
    i, digits = _char(data, i, classes)[1], digits - 1
    if digits % 3 == 0:
      stops[count] = i
      count += 1
  return i, count


@numba.njit(cache=True, nogil=True)
def _marks(data, i, end, classes):
  """The end of punctuation marks from `i`, and of line ends and slashes after them."""
  while i < end:
    kind, after = _char(data, i, classes)
    if kind != OTHER and kind != QUOTE and kind != SLASH:
      break
    i = after
  while i < end and (data[i] == 10 or data[i] == 13 or data[i] == 47):
    i += 1
  return i


@numba.njit(cache=True, nogil=True)
def _spaces(data, i, end, classes):
  """The end of the spaces from `i`, without the one before a character that is no whitespace."""
  while i < end and data[i] == 32:
    i += 1
  if i == end:
    return i
  kind = _char(data, i, classes)[0]
  return i if kind in (SPACE, NEWLINE) else i - 1
