# SPDX-License-Identifier: Apache-2.0
"""LiB, 'Less is Better' (2403.00417): a lexicon of units that are learned, rewarded and forgotten.

Units are words, parts of words or groups of words. The learner reads text and joins neighbouring
units. It forgets units that do not occur again in another context, or that make its text longer.
"""

from collections.abc import Iterator, Sequence

import numba
import numpy as np

from lib.errors import InputError
from lib.tokenizers import base

EDGE = -1  # the neighbour of a unit at the end of a sentence
UNSEEN = -2  # no neighbour that could come again
# Columns of what is known of each unit.
NODE, BYTES, CHARACTERS, LIFE, LEFT, RIGHT, RANK, MOVES, ALIVE = range(9)
# Totals of a lexicon.
NODES, UNITS, LISTED = range(3)


class LiB(base.Dictionary):
  """Compares two paths at each place: one begins with the longest unit, one with the second
  longest.

  Both continue with longest units until they meet. The path of fewer units is taken, and of equal
  paths the one with the lower sum of ids. Pieces are in the order of the lexicon, the best first.
  """

  family = 'lib'
  encoders = ('better',)

  def __init__(
    self, pieces: Sequence[bytes], encoder: str = 'better', alphabet: bytes | None = None
  ):
    super().__init__(pieces, encoder, alphabet)

  def encode(self, data: bytes) -> np.ndarray:
    """Returns ids, int32 [n]; raises InputError where the pieces cannot cover `data`."""
    ids, stuck = _encode(self.trie.children, self.trie.token, self.lengths, self.symbols(data))
    if stuck >= 0:
      raise InputError(f'no piece continues from byte {stuck} ({data[stuck : stuck + 8]!r})')
    return ids


def train_lib(
  documents: Sequence[bytes],
  vocab_size: int,
  passes: int = 20,
  sentences: int = 200,
  memorize: float = 0.25,
  life: int = 3,
  forget: float = 0.01,
  move: float = 0.1,
  most_bytes: int = 48,
  seed: int = 0,
) -> LiB:
  """Reads the documents several times; the units that remain at the end are the vocabulary.

  The size results from training, and is at most `vocab_size`: the best units are kept. Sentences
  are lines, and no unit crosses the end of one. All bytes are pieces. The defaults are those of the
  authors' demonstration, except the passes.

  Args:
    documents: any bytes.
    vocab_size: most pieces, at least 256.
    passes: passes over all documents.
    sentences: sentences of a passage, after which units are moved and forgotten.
    memorize: probability that two neighbours are joined.
    life: passages of `sentences` sentences within which a new unit must occur again.
    forget: share of the lexicon, at its end, that is on probation again after each article.
    move: share of its rank by which a unit moves when it is rewarded or punished.
    most_bytes: most bytes of a unit.
    seed: seed of the random choice of units that are joined.

  Raises:
    InputError: a smaller vocabulary, or a number out of range.
  """
  if vocab_size < 256:
    raise InputError(f'{vocab_size} tokens cannot hold the bytes: ask for 256 or more')
  if min(passes, sentences, life, most_bytes) < 1 or not 0 <= min(memorize, forget, move) <= 1:
    raise InputError('passes, sentences, life and most_bytes must be 1 or more, shares 0 or more')
  lexicon = _Lexicon(life, most_bytes)
  rng = np.random.default_rng(seed)
  for _ in range(passes):
    for text, stops in _articles(documents, sentences):
      lexicon.read(text, stops, memorize, rng)
      lexicon.settle(forget, move)
  pieces = lexicon.pieces()
  single = [bytes([byte]) for byte in range(256)]
  units = [piece for piece in pieces if len(piece) > 1][: vocab_size - 256]
  kept = set(units) | set(single)
  known = [piece for piece in pieces if piece in kept]
  return LiB([*known, *(byte for byte in single if byte not in set(known))])


def _articles(
  documents: Sequence[bytes], sentences: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Passages of a number of lines: their bytes, uint8 [n], and the end of each line, int64
  [lines].
  """
  lines: list[bytes] = []
  for document in documents:
    for line in document.splitlines(keepends=True):
      lines.append(line)
      if len(lines) == sentences:
        yield base.byte_array(b''.join(lines)), np.cumsum([*map(len, lines)])
        lines = []
  if lines:
    yield base.byte_array(b''.join(lines)), np.cumsum([*map(len, lines)])


class _Lexicon:
  """Units in a trie, each with its rank; the rank of a new unit is behind all others."""

  def __init__(self, life: int, most_bytes: int):
    self._life, self._most = life, most_bytes
    self._edges, self._children = np.full(1 << 10, -1, np.int64), np.zeros(1 << 10, np.int32)
    self._nodes = np.full((1 << 9, 3), -1, np.int32)  # of each node: its unit, parent and byte
    self._units = np.zeros((1 << 8, ALIVE + 1), np.int32)
    self._totals = np.array([1, 0, 0], np.int64)

  def read(
    self, text: np.ndarray, stops: np.ndarray, memorize: float, rng: np.random.Generator
  ) -> None:
    """Reads an article, meeting, joining and judging units."""
    room = 4 * text.size + self._most + 16  # nodes and units of an article, at most
    while len(self._nodes) < self._totals[NODES] + room:
      self._nodes = np.concatenate([self._nodes, np.full_like(self._nodes, -1)])
    while len(self._units) < self._totals[UNITS] + room:
      self._units = np.concatenate([self._units, np.zeros_like(self._units)])
    if self._edges.size < 2 * len(self._nodes):
      self._edges = np.full(2 * len(self._nodes), -1, np.int64)
      self._children = np.zeros(self._edges.size, np.int32)
      _rehash(self._edges, self._children, self._nodes, self._totals[NODES])
    _read(
      text, stops, self._edges, self._children, self._nodes, self._units, self._totals,
      self._life, self._most, memorize, rng,
    )  # fmt: skip

  def settle(self, forget: float, move: float) -> None:
    """Ends an article: units die, move, and come on probation."""
    units = self._units[: self._totals[UNITS]]
    waiting = (units[:, ALIVE] > 0) & (units[:, LIFE] > 0)
    units[waiting, LIFE] -= 1
    units[waiting & (units[:, LIFE] == 0), ALIVE] = 0
    order = self._order()
    ranks = np.arange(order.size)
    moves = units[order, MOVES]
    target = ranks + moves * (np.floor(move * ranks) + 1)
    kept = (moves <= 0) | (target < order.size)
    units[order[~kept], ALIVE] = 0
    # Of a unit that moves to the place of another, the one that rises comes before it.
    order = order[kept][np.lexsort((np.sign(moves[kept]), target[kept]))]
    units[order, RANK] = np.arange(order.size)
    units[:, MOVES] = 0
    end = order[order.size - int(forget * order.size) :]
    end = end[units[end, LIFE] == 0]
    units[end, LIFE], units[end, LEFT], units[end, RIGHT] = self._life, UNSEEN, UNSEEN
    self._totals[LISTED] = order.size

  def pieces(self) -> list[bytes]:
    """The units that are not on probation, the best first."""
    return [self._bytes(i) for i in self._order() if not self._units[i, LIFE]]

  def _order(self) -> np.ndarray:
    there = np.flatnonzero(self._units[: self._totals[UNITS], ALIVE])
    return there[np.argsort(self._units[there, RANK], kind='stable')]

  def _bytes(self, unit: int) -> bytes:
    node, found = self._units[unit, NODE], []
    while node:
      found.append(self._nodes[node, 2])
      node = self._nodes[node, 1]
    return bytes(reversed(found))


@numba.njit(inline='always')
def _slot(edges, key):
  slot = (key * 0x9E3779B97F4A7C1 >> 20) & (edges.size - 1)
  while edges[slot] >= 0 and edges[slot] != key:
    slot = (slot + 1) & (edges.size - 1)
  return slot


@numba.njit(cache=True, nogil=True)
def _rehash(edges, children, nodes, count):
  for node in range(1, count):
    key = np.int64(nodes[node, 1]) << 8 | np.int64(nodes[node, 2])
    slot = _slot(edges, key)
    edges[slot], children[slot] = key, node


@numba.njit(cache=True, nogil=True)
def _match(text, i, end, edges, children, nodes, units):
  """The longest and the second longest unit from `i`; -1 where there is none."""
  node, first, second = 0, -1, -1
  while i < end:
    slot = _slot(edges, np.int64(node) << 8 | np.int64(text[i]))
    if edges[slot] < 0:
      break
    node, i = children[slot], i + 1
    unit = nodes[node, 0]
    if unit >= 0 and units[unit, ALIVE]:
      first, second = unit, first
  return first, second


@numba.njit(cache=True, nogil=True)
def _ahead(text, i, end, edges, children, nodes, units, totals):
  """Where the longest unit from `i` ends, or the character, and its rank."""
  unit, _ = _match(text, i, end, edges, children, nodes, units)
  if unit >= 0:
    return i + units[unit, BYTES], np.int64(units[unit, RANK])
  return _character(text, i, end), totals[LISTED]


@numba.njit(cache=True, nogil=True)
def _character(text, i, end):
  """Where the character at `i` ends; for invalid UTF-8, the byte."""
  byte = text[i]
  size = 1 + (byte >= 0xC2) + (byte >= 0xE0) + (byte >= 0xF0)
  if byte > 0xF4 or i + size > end:
    return i + 1
  for at in range(i + 1, i + size):
    if text[at] & 0xC0 != 0x80:
      return i + 1
  return i + size


@numba.njit(cache=True, nogil=True)
def _add(text, start, stop, characters, edges, children, nodes, units, totals):
  """The unit of these bytes, which is new, or dead, or there already; and whether it is new."""
  node = 0
  for i in range(start, stop):
    key = np.int64(node) << 8 | np.int64(text[i])
    slot = _slot(edges, key)
    if edges[slot] < 0:
      edges[slot], children[slot] = key, totals[NODES]
      nodes[totals[NODES], 1], nodes[totals[NODES], 2] = node, text[i]
      totals[NODES] += 1
    node = children[slot]
  unit = nodes[node, 0]
  if unit >= 0 and units[unit, ALIVE]:
    return unit, False
  if unit < 0:
    unit = totals[UNITS]
    totals[UNITS] += 1
    nodes[node, 0] = unit
  units[unit, NODE], units[unit, BYTES], units[unit, CHARACTERS] = node, stop - start, characters
  units[unit, LIFE], units[unit, MOVES], units[unit, ALIVE] = 0, 0, 1
  units[unit, RANK] = totals[LISTED]
  totals[LISTED] += 1
  return unit, True


@numba.njit(cache=True, nogil=True)
def _read(text, stops, edges, children, nodes, units, totals, life, most, memorize, rng):
  start = np.int64(0)
  for end in stops:
    before, last, i = UNSEEN, EDGE, start  # the unit before the last, the last
    while i < end:
      unit, shorter = _match(text, i, end, edges, children, nodes, units)
      if unit < 0:
        stop = _character(text, i, end)
        unit, _ = _add(text, i, stop, np.int64(1), edges, children, nodes, units, totals)
      elif shorter >= 0 and units[unit, CHARACTERS] > 1:
        a, b = i + units[unit, BYTES], i + units[shorter, BYTES]
        longer, ranks = 0, np.int64(units[unit, RANK]) - units[shorter, RANK]
        while a != b:
          if a < b:
            a, rank = _ahead(text, a, end, edges, children, nodes, units, totals)
            longer, ranks = longer + 1, ranks + rank
          else:
            b, rank = _ahead(text, b, end, edges, children, nodes, units, totals)
            longer, ranks = longer - 1, ranks - rank
        if longer < 0 or (longer == 0 and ranks <= 0):
          units[unit, MOVES] -= 1
        else:
          units[unit, MOVES] += 1
          units[shorter, MOVES] -= 1
          unit = shorter
      stop = i + units[unit, BYTES]
      after = EDGE
      if stop < end:
        after, _ = _match(text, stop, end, edges, children, nodes, units)
      if units[unit, LIFE] > 0:
        left = last >= 0 and units[unit, LEFT] == last
        right = after >= 0 and units[unit, RIGHT] == after
        if not left and not right:
          units[unit, LIFE] = 0
          units[unit, MOVES] -= 1
        else:
          first = i - units[last, BYTES] if left else i
          final = stop if left else stop + units[after, BYTES]
          characters = units[unit, CHARACTERS] + units[last if left else after, CHARACTERS]
          # What is behind the unit is read again, so only here the room could be too small.
          if final - first <= most and totals[NODES] + most < len(nodes):
            made, new = _add(text, first, final, characters, edges, children, nodes, units, totals)
            if new:
              units[made, LIFE], units[made, LEFT], units[made, RIGHT] = life, UNSEEN, UNSEEN
      if last >= 0 and rng.random() < memorize:
        first = i - units[last, BYTES]
        if stop - first <= most:
          characters = units[last, CHARACTERS] + units[unit, CHARACTERS]
          made, new = _add(text, first, stop, characters, edges, children, nodes, units, totals)
          if new:
            units[made, LIFE], units[made, LEFT], units[made, RIGHT] = life, before, after
      before, last, i = last, unit, stop
    start = end


@numba.njit(cache=True, nogil=True)
def _longest(children, token, symbols, i):
  """The longest and the second longest piece from `i`; -1 where there is none."""
  node, first, second = 0, -1, -1
  while i < symbols.size:
    node = children[node, symbols[i]]
    if node < 0:
      break
    i += 1
    if token[node] >= 0:
      first, second = token[node], first
  return first, second


@numba.njit(cache=True, nogil=True)
def _encode(children, token, lengths, symbols):
  """Ids, int32 [n], and the position where no piece fits, or -1."""
  ids, count, i = np.empty(symbols.size, np.int32), 0, np.int64(0)
  while i < symbols.size:
    piece, shorter = _longest(children, token, symbols, i)
    if piece < 0:
      return ids[:count].copy(), i
    a, b = i + lengths[piece], i + lengths[piece]
    if shorter >= 0:
      b = i + lengths[shorter]
      longer, ranks = 0, np.int64(piece) - shorter
      while a != b:
        other, _ = _longest(children, token, symbols, min(a, b))
        if other < 0:
          return ids[:count].copy(), min(a, b)
        if a < b:
          a, longer, ranks = a + lengths[other], longer + 1, ranks + other
        else:
          b, longer, ranks = b + lengths[other], longer - 1, ranks - other
      if longer > 0 or (longer == 0 and ranks > 0):
        piece = shorter
    while i < a:
      ids[count] = piece
      count, i = count + 1, i + lengths[piece]
      if i < a:
        piece, _ = _longest(children, token, symbols, i)
  return ids[:count].copy(), -1
