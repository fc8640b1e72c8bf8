# SPDX-License-Identifier: Apache-2.0
"""Equal-info windows of up to 16 bits as a table: all texts that fit into a window, and codes.

If coder and byte model are reset at each window, a window does not depend on the text before it. So
the windows are a dictionary, computed once from the tree of texts; the byte model is not needed any
more.

A text fits a window of b bits if its interval encloses a cell [v, v + 1) / 2^b. If a text fits,
all its prefixes fit, so the longest text that fits is found by a walk from the root. Modes:

  greedy    the paper's: the code is the shortest dyadic interval, zeros after it. Texts share
            codes, so it is not lossless; a code decodes to the longest text that has it.
  delay     appendix A.5: the longest text that fits is cut back to the shortest that has the same
            code. (The shortest of all, since a code can recur after a change: only then does every
            code have one text.)
  exact     each text owns at most one cell (see `own`); the longest text that fits is cut back to
            the longest that owns one.
  numbered  the texts of greedy in lexicographic order; the most probable if there are too many.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numba
import numpy as np

from lib.errors import InputError
from lib.tokenizers.coding import arithmetic
from lib.tokenizers.coding.model import NextByte

MODES = ('greedy', 'delay', 'exact', 'numbered')
LIMIT_BITS = 16
SPARE = 256  # cells of a text that can spare one
BATCH = 1024  # texts that the byte model reads at once: always this many, the last ones empty


@dataclasses.dataclass(frozen=True)
class WindowTable:
  """The n texts of a window and its 2^b codes.

  Texts come by length, then in lexicographic order: the first 256 are the single bytes.

  Attributes:
    mode: one of MODES.
    bits: b.
    parent: int32 [n], the text without its last byte; -1 = the empty text.
    last: uint8 [n], the last byte.
    cut: int32 [n], the text that is emitted where this one is the longest that fits.
    code: uint16 [n], the code of that.
    text: int32 [2^b], the text of each code, also of unused codes; -1 = none.
  """

  mode: str
  bits: int
  parent: np.ndarray
  last: np.ndarray
  cut: np.ndarray
  code: np.ndarray
  text: np.ndarray

  @property
  def pieces(self) -> list[bytes]:
    """The texts."""
    pieces: list[bytes] = []
    for parent, last in zip(self.parent.tolist(), self.last.tolist()):
      pieces.append((pieces[parent] if parent >= 0 else b'') + bytes([last]))
    return pieces


class _Level(NamedTuple):
  """Texts of one length, [m]: their place in the tree and, in cells, the interval of each."""

  parent: np.ndarray  # int64, the index among all texts
  last: np.ndarray  # uint8
  low: np.ndarray  # int64, all of it, in units of 2^-(32 + bits)
  width: np.ndarray  # int64
  bits: np.ndarray  # int64
  code: np.ndarray  # int64, of the shortest dyadic interval, or of the `own` cell, -1 = none


def tabulate(model: NextByte, bits: int, mode: str) -> WindowTable:
  """Walks the tree of all texts that fit a window, one length at a time.

  Raises:
    InputError: a window of fewer than 9 or more than 16 bits, or an unknown mode.
  """
  if mode not in MODES:
    raise InputError(f'window mode {mode!r} is unknown: use one of {", ".join(MODES)}')
  if not 9 <= bits <= LIMIT_BITS:
    raise InputError(f'a window of {bits} bits has no table: there must be 9 to {LIMIT_BITS} bits')
  zero = np.zeros(1, np.int64)
  level = _Level(zero - 1, zero.astype(np.uint8), zero, zero + arithmetic.UNIT, zero, zero)
  texts = np.zeros((1, 0), np.uint8)
  levels: list[_Level] = []
  begin = -1  # index of the level's first text; the empty text has none
  while level.parent.size:
    following = _expand(model, level, texts, begin, bits, mode == 'exact' and begin >= 0)
    texts = np.concatenate([texts[following.parent - begin], following.last[:, None]], axis=1)
    begin += level.parent.size
    level = following
    levels.append(level)
  return _table(mode, bits, _Level(*map(np.concatenate, zip(*levels))))


def frequencies(
  model: NextByte, texts: np.ndarray, lengths: np.ndarray, precision: int = arithmetic.PRECISION
) -> np.ndarray:
  """Cumulative frequencies after each of up to BATCH texts, uint16 [n, 257].

  Args:
    model: the byte model, which always sees BATCH texts.
    texts: uint8 [n, L], zeros beyond a text's length.
    lengths: int [n].
    precision: log2 of what frequencies add up to.
  """
  missing = BATCH - len(texts)
  prefixes = np.pad(texts, ((0, missing), (0, 0 if texts.shape[1] else 1)))
  rows = model(prefixes, np.pad(lengths, (0, missing)).astype(np.int32))
  return arithmetic.quantise(rows[: len(texts)], precision)


def _expand(
  model: NextByte, level: _Level, texts: np.ndarray, begin: int, bits: int, exact: bool
) -> _Level:
  """The texts one byte longer that fit; where `exact`, each of `level` gets its own cell first."""
  precision = min(arithmetic.PRECISION, bits)
  parts = []
  for start in range(0, len(texts), BATCH):
    here = slice(start, start + BATCH)
    lengths = np.full(len(texts[here]), texts.shape[1])
    cumulative = frequencies(model, texts[here], lengths, precision)
    low, width, scale, code = (array[here] for array in level[2:])
    single = texts.shape[1] == 1
    parts.append(
      _children(begin + start, low, width, scale, code, cumulative, precision, bits, exact, single)
    )
  return _Level(*map(np.concatenate, zip(*parts)))


@numba.njit(cache=True, nogil=True)
def fits(
  low: arithmetic.Integer, width: arithmetic.Integer, shift: arithmetic.Integer
) -> bool | np.bool:
  """Whether [low, low + width) encloses a cell of 2^shift units; below 0 a cell is no unit."""
  if shift <= 0:
    return width > 0
  cell = 1 << shift
  return -(-low // cell) * cell + cell <= low + width


@numba.njit(cache=True, nogil=True)
def own(
  low: arithmetic.Integer,
  width: arithmetic.Integer,
  row: np.ndarray,
  precision: int,
  shift: int,
  single: bool,
) -> tuple[arithmetic.Integer, arithmetic.Integer]:
  """The cell of 2^shift units that belongs to a text and to none of its extensions.

  It is the first enclosed cell with a boundary between two following bytes strictly inside, which
  therefore no longer text encloses. If there is none, single bytes, so that every text can be cut,
  and texts of SPARE cells, so that ends are short, keep the last enclosed cell, and following
  bytes share what is before it. Other texts have none. A cell of less than a unit is taken as the
  unit's first.

  Args:
    low: of an interval that encloses a cell.
    width: its width.
    row: cumulative frequencies of the following byte, [257].
    single: whether the text is one byte.

  Returns:
    The cell's start or -1, and the width that the following bytes share.
  """
  cell = 1 << max(shift, 0)
  first = -(-low // cell) * cell
  last = (low + width) // cell * cell - cell
  for boundary in row[1:-1]:
    place = low + ((width * np.int64(boundary)) >> precision)
    start = place // cell * cell
    if start > last or cell == 1:
      break
    if start >= first and place > start:
      return start, width
  if single or last - first >= (SPARE - 1) * cell:
    return last, last - low
  return -1, width


@numba.njit(cache=True, nogil=True)
def _children(begin, low, width, bits, code, cumulative, precision, window, exact, single):
  size = low.size * 256
  parent, last = np.empty(size, np.int64), np.empty(size, np.uint8)
  lows, widths = np.empty(size, np.int64), np.empty(size, np.int64)
  scales, codes = np.empty(size, np.int64), np.empty(size, np.int64)
  found = 0
  for i in range(low.size):
    shift, share = 32 + bits[i] - window, width[i]
    if exact:
      start, share = own(low[i], width[i], cumulative[i], precision, shift, single)
      code[i] = start >> shift
    for symbol in range(256):
      start, stop = np.int64(cumulative[i, symbol]), np.int64(cumulative[i, symbol + 1])
      below, wide = arithmetic.narrow(low[i], share, start, stop, precision)
      if fits(below, wide, shift):
        more = arithmetic.doublings(wide)
        below, wide = below << more, wide << more
        parent[found], last[found], scales[found] = begin + i, symbol, bits[i] + more
        lows[found], widths[found] = below, wide
        codes[found] = arithmetic.shortest(below, wide)[0] >> (shift + more)
        found += 1
  return (
    parent[:found].copy(),
    last[:found].copy(),
    lows[:found].copy(),
    widths[:found].copy(),
    scales[:found].copy(),
    codes[:found].copy(),
  )


def _table(mode: str, bits: int, found: _Level) -> WindowTable:
  """Gives the texts their codes and the codes their texts."""
  size = found.parent.size
  shift = 32 + found.bits - bits
  first, high = -(-found.low >> shift), found.low + found.width
  # What decoding follows: a whole cell, or the point where zeros without end lead.
  stop = high >> shift if mode == 'exact' else -(-high >> shift)
  text = np.zeros(1 << bits, np.int32)
  for i in range(size):  # the longest stays
    text[first[i] : stop[i]] = i
  cut = np.arange(size, dtype=np.int32)
  if mode == 'greedy':
    text[found.code] = cut  # texts of one code begin one another: the longest stays
  elif mode == 'delay':
    text[found.code[::-1]] = cut[::-1]
    cut = text[found.code]
  elif mode == 'exact':
    for i in np.flatnonzero(found.code < 0).tolist():  # those without a cell; a single byte has one
      cut[i] = cut[found.parent[i]]
  parent, code = found.parent.astype(np.int32), found.code[cut].astype(np.uint16)
  table = WindowTable(mode, bits, parent, found.last, cut, code, text)
  if mode == 'numbered':
    pieces, probabilities = table.pieces, found.width * 0.5 ** (32 + found.bits)
    return number([pieces[i] for i in heaviest(pieces, probabilities, 1 << bits)], bits)
  return table


def heaviest(pieces: Sequence[bytes], weights: np.ndarray, count: int) -> np.ndarray:
  """Indices of the single bytes, then of the heaviest others, the first of equals: `count` in all.

  If no piece outweighs its prefixes, and these come before it, they are kept with it.
  """
  longer = np.array([len(piece) > 1 for piece in pieces])
  return np.lexsort((-weights, longer))[:count]


def number(pieces: Iterable[bytes], bits: int) -> WindowTable:
  """The table of texts, which include all single bytes and all prefixes of each text.

  Raises:
    InputError: more than 2^bits texts, or some that are missing.
  """
  ordered = sorted(set(pieces), key=lambda piece: (len(piece), piece))
  place = {piece: i for i, piece in enumerate(ordered)}
  missing = {bytes([byte]) for byte in range(256)} | {piece[:-1] for piece in ordered}
  missing -= {b'', *ordered}
  if missing or len(ordered) > 1 << bits or b'' in place:
    raise InputError(
      f'{len(ordered)} texts for {bits} bits, without {min(missing, default=b"")!r}: give at most '
      f'{1 << bits}, with all single bytes and the beginnings of each text, and no empty text'
    )
  by_text = sorted(range(len(ordered)), key=ordered.__getitem__)
  code = np.empty(len(ordered), np.uint16)
  code[by_text] = np.arange(len(ordered))
  text = np.full(1 << bits, -1, np.int32)
  text[: len(ordered)] = by_text
  parent = np.array([place.get(piece[:-1], -1) for piece in ordered], np.int32)
  last = np.array([piece[-1] for piece in ordered], np.uint8)
  cut = np.arange(len(ordered), dtype=np.int32)
  return WindowTable('numbered', bits, parent, last, cut, code, text)
