# SPDX-License-Identifier: Apache-2.0
"""Compiled loops of BPE encoders: pieces of a text to ids, and which tokens can be neighbours.

Encoding joins the pair of neighbours with the lowest rank, the leftmost of several, until no merge
applies. Four methods give this result. A piece that is a token is found by one look-up. A short
piece is merged in place. For a longer piece, one pass finds the last token of each prefix. A piece
longer than the list of merges is scanned once for each merge. If two merges make the same token, a
heap of pairs is used instead.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np

SHORT = 48  # bytes up to which a piece is merged in place
CACHE = 1 << 14  # words of a text whose ids are cached
NONE = np.int64(1) << 62  # a rank that no merge has


class Tables(NamedTuple):
  """The tables of an encoder.

  Attributes:
    pairs: int64 [size, 3], a hash table of rows (left, right, rank); rank -1 where empty.
    made: int32 [ranks], the token that each rank makes.
    symbols: int32 [256], the id of each byte.
    lengths: int32 [d], bytes of each token.
    words: uint64, the bytes of all tokens, each padded with zeros to whole words.
    places: int64 [d], where the words of each token begin in `words`.
    hashes: uint64 [slots], of the tokens that are the encoding of their own bytes.
    ids: int32 [slots], those tokens; -1 where empty.
    parts: int32 [d, 2], the two tokens that each token is merged from; empty if two merges make
      the same token.
    edges: int64 [slots], a trie of those tokens: node · 256 + byte of each child, -1 where empty.
    children: int32 [slots], the child.
    fails: int32 [nodes], the node of the longest proper suffix.
    longest: int32 [nodes], the longest token that the bytes of a node end with, or -1.
    shorter: int32 [d], the longest token that is a proper suffix of a token, or -1.
  """

  pairs: np.ndarray
  made: np.ndarray
  symbols: np.ndarray
  lengths: np.ndarray
  words: np.ndarray
  places: np.ndarray
  hashes: np.ndarray
  ids: np.ndarray
  parts: np.ndarray
  edges: np.ndarray
  children: np.ndarray
  fails: np.ndarray
  longest: np.ndarray
  shorter: np.ndarray


def tables(
  pieces: Sequence[bytes],
  symbols: np.ndarray,
  pairs: np.ndarray,
  made: np.ndarray,
  parts: np.ndarray,
  whole: np.ndarray | None = None,
) -> Tables:
  """The tables of an encoder.

  Args:
    pieces: the bytes of each token; empty ones are never emitted.
    symbols: int32 [256], the token of each byte.
    pairs: int64 [size, 3], as in `Tables`.
    made: int32 [ranks].
    parts: int32 [d, 2], (left, right) of each token, its own id if it is a byte; empty if two
      merges make the same token.
    whole: bool [d], tokens that a piece of equal bytes becomes although no merges make them.
  """
  lengths = np.array([len(piece) for piece in pieces], np.int32)
  sizes = -(-lengths.astype(np.int64) // 8)
  data = padded(b''.join(piece + bytes(-len(piece) % 8) for piece in pieces))
  words, places = data.view(np.uint64), np.cumsum(sizes) - sizes
  no_edges = np.full(2, -1, np.int64), np.zeros(2, np.int32)
  bare = Tables(
    pairs, made, symbols, lengths, words, places, np.zeros(2, np.uint64), np.full(2, -1, np.int32),
    parts[:0], *no_edges, np.zeros(1, np.int32), np.full(1, -1, np.int32), lengths * 0 - 1,
  )  # fmt: skip
  alone = own(bare, data)
  found = bare._replace(
    **dict(zip(('hashes', 'ids'), _index(bare, alone if whole is None else whole)))
  )
  if not len(parts):
    return found
  names = ('edges', 'children', 'fails', 'longest', 'shorter')
  return found._replace(parts=parts, **dict(zip(names, _automaton(bare, alone))))


def encode(data: bytes, stops: np.ndarray, tables: Tables, cache: bool = True) -> np.ndarray:
  """The ids of a text, int32 [n]; no token crosses the end of a piece.

  Args:
    data: the text, of bytes that `tables.symbols` has.
    stops: int64 [pieces], where each piece ends.
    tables: of the encoder.
    cache: whether the ids of words are stored for later occurrences in this text.
  """
  symbols = padded(data)
  return _encode(symbols, symbols.view(np.uint64), stops, tables, CACHE if cache else 0)


def padded(data: bytes) -> np.ndarray:
  """The bytes, padded with zeros so that eight bytes can be read from each place, uint8 [n]."""
  return np.frombuffer(data + bytes(16 + -len(data) % 8), np.uint8)


def last_tokens(data: bytes, tables: Tables) -> np.ndarray:
  """The last token of the encoding of each prefix data[: i + 1] as one piece, int32 [n].

  No two merges of the encoder may make the same token.
  """
  symbols = np.frombuffer(data, np.uint8)
  return _walk(symbols, 0, symbols.size, tables, np.empty(symbols.size, np.int32))


@numba.njit(cache=True, nogil=True)
def rules(merges: np.ndarray) -> np.ndarray:
  """A hash table of merges: int64 [size, 3] rows (left, right, rank), -1 where empty.

  Args:
    merges: int32 [m, 2], or [m, 3] with the rank; by default the rank is the number of the row.
      Of equal pairs the first counts.
  """
  size = 2
  while size < 2 * len(merges):
    size *= 2
  table = np.full((size, 3), -1, np.int64)
  for row in range(len(merges)):
    slot = slot_of(table, merges[row, 0], merges[row, 1])
    if table[slot, 2] < 0:
      table[slot, 0], table[slot, 1] = merges[row, 0], merges[row, 1]
      table[slot, 2] = merges[row, 2] if merges.shape[1] > 2 else row
  return table


@numba.njit(cache=True, nogil=True)
def slot_of(table: np.ndarray, left: int, right: int) -> int:
  """The row of the pair, or else the empty row in which it would be stored."""
  mask = len(table) - 1
  slot = (left * 0x9E3779B1 ^ right * 0x85EBCA77) & mask
  while table[slot, 2] >= 0 and (table[slot, 0] != left or table[slot, 1] != right):
    slot = (slot + 1) & mask
  return slot


@numba.njit(inline='always')
def rank_of(pairs, left, right):
  """The rank of a pair; NONE if no merge joins it."""
  rank = pairs[slot_of(pairs, left, right), 2]
  return rank if rank >= 0 else NONE


@numba.njit(inline='always')
def _word(words, i, size):
  """The bytes from `i`, at most eight of `size`, as a number."""
  shift = np.uint64((i & 7) << 3)
  low = words[i >> 3] >> shift
  high = (words[(i >> 3) + 1] << np.uint64(1)) << (np.uint64(63) - shift)
  word = low | high
  if size < 8:
    word &= (np.uint64(1) << np.uint64(8 * size)) - np.uint64(1)
  return word


@numba.njit(inline='always')
def hash_of(words, start, size):
  """A hash of `size` bytes from `start` in `words`, a `padded` text."""
  found = np.uint64(size) * np.uint64(0x9E3779B97F4A7C15)
  for at in range(0, size, 8):
    found = (found ^ _word(words, start + at, size - at)) * np.uint64(0xD6E8FEB86659FD93)
    found ^= found >> np.uint64(32)
  return found


@numba.njit(inline='always')
def same(one, start, other, place, size):
  """Whether `size` bytes from `start` in words `one` are those from `place` in words `other`."""
  for at in range(0, size, 8):
    if _word(one, start + at, size - at) != _word(other, place + at, size - at):
      return False
  return True


@numba.njit(cache=True, nogil=True)
def _find(words, start, size, hashed, tables):
  """The token of these bytes, or -1."""
  mask = tables.ids.size - 1
  slot = np.int64(hashed & np.uint64(mask))
  while True:
    token = tables.ids[slot]
    if token < 0:
      return token
    if (
      tables.hashes[slot] == hashed
      and tables.lengths[token] == size
      and same(words, start, tables.words, tables.places[token] * 8, size)
    ):
      return token
    slot = (slot + 1) & mask


@numba.njit(cache=True, nogil=True)
def _index(tables, kept):
  """The hash table of the tokens that are `kept`; of equal bytes the first."""
  size = 4
  while size < 2 * kept.size + 2:
    size *= 2
  hashes, ids = np.zeros(size, np.uint64), np.full(size, -1, np.int32)
  for token in range(kept.size):
    if kept[token] and tables.lengths[token] > 0:
      hashed = hash_of(tables.words, tables.places[token] * 8, tables.lengths[token])
      slot = np.int64(hashed & np.uint64(size - 1))
      repeated = False
      while ids[slot] >= 0:
        other = ids[slot]
        repeated |= tables.lengths[other] == tables.lengths[token] and same(
          tables.words, tables.places[other] * 8, tables.words, tables.places[token] * 8,
          tables.lengths[token],
        )  # fmt: skip
        slot = (slot + 1) & (size - 1)
      if not repeated:
        hashes[slot], ids[slot] = hashed, token
  return hashes, ids


@numba.njit(cache=True, nogil=True)
def own(tables: Tables, data: np.ndarray) -> np.ndarray:
  """Which tokens encode their own bytes, bool [d]; `data` is `tables.words` as bytes."""
  found = np.zeros(tables.lengths.size, np.bool_)
  most = max(np.max(tables.lengths) if tables.lengths.size else 0, 1)
  ids, ranks = np.empty(most, np.int32), np.empty(most, np.int64)
  for token in range(found.size):
    start = tables.places[token] * 8
    size = tables.lengths[token]
    if size > SHORT:
      count = _by_heap(data, start, start + size, tables, ids, 0)
    else:
      count = _in_place(data, start, start + size, tables, ids, 0, ranks)
    found[token] = count == 1 and ids[0] == token
  return found


@numba.njit(cache=True, nogil=True)
def _encode(data, words, stops, tables, cache):
  size = stops[-1] if stops.size else 0
  # Of a type: for a plain 0 all that is called with it would be compiled a second time.
  ids, count, start = np.empty(size, np.int32), np.int64(0), np.int64(0)
  ranks, last = np.empty(SHORT, np.int64), np.empty(0, np.int32)
  seen = np.full((cache, 4), -1, np.int64)  # words: start, size, where their ids are, how many
  for stop in stops:
    length = stop - start
    if length == 1:
      ids[count] = tables.symbols[data[start]]
      count, start = count + 1, stop
      continue
    hashed = hash_of(words, start, length)
    token = _find(words, start, length, hashed, tables)
    if token >= 0:
      ids[count] = token
      count, start = count + 1, stop
      continue
    slot = np.int64(hashed >> np.uint64(40)) & (cache - 1) if cache else 0
    if cache and seen[slot, 1] == length and same(words, start, words, seen[slot, 0], length):
      for i in range(seen[slot, 3]):
        ids[count + i] = ids[seen[slot, 2] + i]
      count, start = count + seen[slot, 3], stop
      continue
    begin = count
    if length <= SHORT:
      count = _in_place(data, start, stop, tables, ids, count, ranks)
    elif len(tables.parts) and length > tables.made.size:
      count = _by_rank(data, start, stop, tables, ids, count)
    elif len(tables.parts):
      if last.size < length:
        last = np.empty(length, np.int32)
      count = _by_walk(data, start, stop, tables, ids, count, last)
    else:
      count = _by_heap(data, start, stop, tables, ids, count)
    if cache:
      seen[slot, 0], seen[slot, 1], seen[slot, 2], seen[slot, 3] = (
        start,
        length,
        begin,
        count - begin,
      )
    start = stop
  return ids[:count].copy()


@numba.njit(cache=True, nogil=True)
def _in_place(data, start, stop, tables, ids, begin, ranks):
  """Writes the ids of a piece from ids[begin] on; returns the end."""
  size = stop - start
  for i in range(size):
    ids[begin + i] = tables.symbols[data[start + i]]
  for i in range(size - 1):
    ranks[i] = rank_of(tables.pairs, ids[begin + i], ids[begin + i + 1])
  while size > 1:
    best = 0
    for i in range(1, size - 1):
      if ranks[i] < ranks[best]:
        best = i
    if ranks[best] == NONE:
      break
    place = begin + best
    ids[place] = tables.made[ranks[best]]
    size -= 1
    for i in range(best + 1, size):
      ids[begin + i] = ids[begin + i + 1]
    for i in range(best + 1, size - 1):
      ranks[i] = ranks[i + 1]
    if best > 0:
      ranks[best - 1] = rank_of(tables.pairs, ids[place - 1], ids[place])
    if best < size - 1:
      ranks[best] = rank_of(tables.pairs, ids[place], ids[place + 1])
  return begin + size


@numba.njit(cache=True, nogil=True)
def _by_heap(data, start, stop, tables, ids, begin):
  """As `_in_place`, in O(n log n) time."""
  size = stop - start
  heads, tails = (
    np.empty(size, np.int32),
    np.empty(size, np.int32),
  )  # the token that begins, and that ends, at each place
  for i in range(size):
    heads[i] = tails[i] = tables.symbols[data[start + i]]
  heap, count = np.empty(3 * size, np.int64), 0  # rank · 2³² + place
  for p in range(size - 1):
    count = note(heap, count, rank_of(tables.pairs, heads[p], heads[p + 1]), p)
  while count:
    rank, p = heap[0] >> 32, heap[0] & 0xFFFFFFFF
    count = pop(heap, count)
    middle = p + tables.lengths[heads[p]] if heads[p] >= 0 else size
    if middle >= size or rank_of(tables.pairs, heads[p], heads[middle]) != rank:
      continue  # the pair no longer exists
    whole = tables.made[rank]
    end = p + tables.lengths[whole]
    heads[middle] = -1
    heads[p] = tails[end - 1] = whole
    if p > 0:
      other = tails[p - 1]
      count = note(heap, count, rank_of(tables.pairs, other, whole), p - tables.lengths[other])
    if end < size:
      count = note(heap, count, rank_of(tables.pairs, whole, heads[end]), p)
  for p in range(size):
    if heads[p] >= 0:
      ids[begin] = heads[p]
      begin += 1
  return begin


@numba.njit(cache=True, nogil=True)
def note(heap: np.ndarray, count: int, rank: int, place: int) -> int:
  """Puts rank · 2³² + place, unless NONE, into a heap of `count`; returns the new count."""
  if rank == NONE:
    return count
  key = rank << 32 | place
  child = count
  while child > 0 and heap[(child - 1) // 2] > key:
    heap[child] = heap[(child - 1) // 2]
    child = (child - 1) // 2
  heap[child] = key
  return count + 1


@numba.njit(cache=True, nogil=True)
def pop(heap: np.ndarray, count: int) -> int:
  """Removes the least entry of the heap; returns the number left."""
  count -= 1
  key, parent = heap[count], 0
  while True:
    child = 2 * parent + 1
    if child >= count:
      break
    if child + 1 < count and heap[child + 1] < heap[child]:
      child += 1
    if heap[child] >= key:
      break
    heap[parent] = heap[child]
    parent = child
  heap[parent] = key
  return count


@numba.njit(cache=True, nogil=True)
def _by_rank(data, start, stop, tables, ids, begin):
  """As `_in_place`: applies each merge in turn, from left to right, at all places of its pair.

  A pair can only arise by an earlier merge, so all its places are known in time, from left to
  right. Places at which the pair no longer exists are skipped.
  """
  size, merges = stop - start, tables.made.size
  cells = np.empty(size, np.int32)  # a token's id is at its first and at its last byte
  first, last = np.full(merges, -1, np.int64), np.full(merges, -1, np.int64)
  places, link = np.empty(3 * size, np.int32), np.empty(3 * size, np.int64)
  used = np.int64(0)  # entries of the linked lists, one list a merge: first -> link -> ... -> last
  for p in range(size):
    cells[p] = tables.symbols[data[start + p]]
  for p in range(size - 1):
    used = _link(tables.pairs, cells[p], cells[p + 1], p, first, last, places, link, used)
  for rank in range(merges):
    made, entry = tables.made[rank], first[rank]
    left, right = tables.parts[made, 0], tables.parts[made, 1]
    while entry >= 0:
      p = places[entry]
      entry = link[entry]
      middle, end = p + tables.lengths[left], p + tables.lengths[made]
      if cells[p] != left or cells[middle] != right:
        continue
      cells[middle] = -1
      cells[p] = cells[end - 1] = made
      if p > 0:
        other = cells[p - 1]
        before = p - tables.lengths[other]
        used = _link(tables.pairs, other, made, before, first, last, places, link, used)
      if end < size:
        used = _link(tables.pairs, made, cells[end], p, first, last, places, link, used)
  p = 0
  while p < size:
    ids[begin] = cells[p]
    p += tables.lengths[cells[p]]
    begin += 1
  return begin


@numba.njit(cache=True, nogil=True)
def _link(pairs, left, right, place, first, last, places, link, used):
  """Appends `place` to the list of the merge that joins (left, right), if there is one."""
  rank = pairs[slot_of(pairs, left, right), 2]
  if rank < 0:
    return used
  if first[rank] < 0:
    first[rank] = used
  else:
    link[last[rank]] = used
  last[rank], places[used], link[used] = used, place, -1
  return used + 1


@numba.njit(cache=True, nogil=True)
def _by_walk(data, start, stop, tables, ids, begin, last):
  """As `_in_place`, in time proportional to the length of the piece."""
  _walk(data, start, stop, tables, last)
  size, end = stop - start, begin
  while size > 0:
    ids[end] = last[size - 1]
    size -= tables.lengths[ids[end]]
    end += 1
  i, j = begin, end - 1
  while i < j:
    ids[i], ids[j] = ids[j], ids[i]
    i, j = i + 1, j - 1
  return end


@numba.njit(cache=True, nogil=True)
def _walk(data, start, stop, tables, last):
  """Writes the last token of each prefix of data[start:stop] to `last`.

  It is the only token that ends the prefix and can follow the last token of the prefix before it.
  """
  node = 0
  for i in range(start, stop):
    byte = np.int64(data[i])
    child = _child(tables.edges, tables.children, node, byte)
    while child < 0 and node > 0:
      node = tables.fails[node]
      child = _child(tables.edges, tables.children, node, byte)
    node = max(child, 0)
    token = tables.longest[node]
    while True:
      before = i - start - tables.lengths[token]
      if before < 0 or _meets(tables, last[before], token):
        break
      token = tables.shorter[token]
    last[i - start] = token
  return last


@numba.njit(inline='always')
def _child(edges, children, node, byte):
  key = node << 8 | byte
  mask = edges.size - 1
  slot = (key * 0x9E3779B97F4A7C1 >> 20) & mask
  while edges[slot] >= 0:
    if edges[slot] == key:
      return np.int64(children[slot])
    slot = (slot + 1) & mask
  return np.int64(-1)


@numba.njit(cache=True, nogil=True)
def _automaton(tables, kept):
  """The Aho–Corasick automaton of the tokens that are `kept`."""
  data = tables.words.view(np.uint8)
  most = 1
  for token in range(kept.size):
    most += tables.lengths[token] if kept[token] else 0
  size = 4
  while size < 2 * most:
    size *= 2
  edges, children = np.full(size, -1, np.int64), np.zeros(size, np.int32)
  own, parent, bytes_ = (
    np.full(most, -1, np.int32),
    np.zeros(most, np.int32),
    np.zeros(most, np.uint8),
  )
  depth, nodes = np.zeros(most, np.int32), 1
  for token in range(kept.size):
    if not kept[token] or tables.lengths[token] == 0:
      continue
    node, start = 0, tables.places[token] * 8
    for i in range(start, start + tables.lengths[token]):
      child = _child(edges, children, node, np.int64(data[i]))
      if child < 0:
        key = np.int64(node) << 8 | np.int64(data[i])
        slot = (key * 0x9E3779B97F4A7C1 >> 20) & (size - 1)
        while edges[slot] >= 0:
          slot = (slot + 1) & (size - 1)
        edges[slot], children[slot] = key, nodes
        parent[nodes], bytes_[nodes], depth[nodes] = node, data[i], depth[node] + 1
        child, nodes = nodes, nodes + 1
      node = child
    own[node] = token
  fails, longest = np.zeros(nodes, np.int32), np.full(nodes, -1, np.int32)
  shorter = np.full(kept.size, -1, np.int32)
  for node in np.argsort(depth[:nodes], kind='mergesort'):
    if node > 0:
      fail, child = np.int64(parent[node]), np.int64(-1)
      while fail > 0 and child < 0:
        fail = np.int64(fails[fail])
        child = _child(edges, children, fail, np.int64(bytes_[node]))
      fails[node] = max(child, 0)
      longest[node] = longest[fails[node]]
      if own[node] >= 0:
        shorter[own[node]], longest[node] = longest[node], own[node]
  return edges, children, fails, longest, shorter


@numba.njit(cache=True, nogil=True)
def boundaries(tables: Tables) -> np.ndarray:
  """Whether the boundary between a and b survives encoding: bool [d, d], entry (a, b).

  Exact for tokens that encode their own bytes, if no two merges make the same token.
  """
  size = len(tables.lengths)
  holds = np.empty((size, size), np.bool_)
  for a in range(size):
    holds[a] = boundary_row(tables, a)
  return holds


@numba.njit(cache=True, nogil=True)
def boundary_row(tables: Tables, a: int) -> np.ndarray:
  """The row of `boundaries` for a token `a`: bool [d]."""
  holds = np.empty(len(tables.lengths), np.bool_)
  for b in range(holds.size):
    holds[b] = _meets(tables, a, b)
  return holds


@numba.njit(cache=True, nogil=True)
def _meets(tables, a, b):
  # Undoes the merges inside a and b, the last one first: x and y touch the boundary until
  # the merges that make x_end and y_end take them away from it.
  parts, none = tables.parts, len(tables.parts)
  x, y, x_end, y_end = a, b, none, none
  while True:
    rank = tables.pairs[slot_of(tables.pairs, x, y), 2]
    made = tables.made[rank] if rank >= 0 else none
    # Where one merge would take x from both sides (a run of x), the left side comes first; where
    # it would take y from both sides, the left side is across the boundary.
    if made < x_end and made <= y_end and made < none:
      return False
    x_byte, y_byte = parts[x, 0] == x, parts[y, 0] == y
    if x_byte and y_byte:
      return True
    if not x_byte and (x > y or y_byte):
      x, x_end = parts[x, 1], x
    else:
      y, y_end = parts[y, 0], y
