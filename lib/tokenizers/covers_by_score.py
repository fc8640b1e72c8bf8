# SPDX-License-Identifier: Apache-2.0
"""Which tokens may follow in a unigram encoding, the best-scored one (`lib.tokenizers.covers`).

The best encoding of a text up to a place does not depend on what comes after it. So tokens begin an
encoding if and only if they are the encoding of their own bytes, and a token may follow if the best
way to the place where it ends is by this token. That depends on the scores of the best ways to the
places that a longer token can begin at: the reach is the length of the longest token. Scores are
rounded as SentencePiece rounds them, so that ties are decided in the same way.

A character that is no piece is written by the tokens of its bytes, at a low score. Bytes that are
no UTF-8, and characters that SentencePiece does not restore, divide a text into parts.
"""

import codecs
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np

from lib.tokenizers import trie

UNKNOWN = 10.0  # how much less than the worst piece an unknown character scores


class Place(NamedTuple):
  """What the next token depends on.

  Attributes:
    tail: the last bytes of the part of text, at most those of the longest piece.
    scores: of the best ways to the ends of its characters, and to its beginning: float32.
    begun: the bytes so far of a character that is written by bytes.
  """

  tail: bytes
  scores: tuple[float, ...]
  begun: bytes


class BestScore:
  """The encodings of a SentencePiece unigram model.

  Args:
    pieces: the bytes of each of V ids.
    scores: float32 [V], of each piece of whole characters; −inf for other ids.
    byte_ids: int [256], the ids of single bytes.
    refused: characters that are always written by their bytes.
  """

  start = Place(b'', (0.0,), b'')

  def __init__(
    self, pieces: Sequence[bytes], scores: np.ndarray, byte_ids: np.ndarray, refused: str = ''
  ):
    self._pieces, self._scores = pieces, scores.astype(np.float32)
    self._byte_ids, self._refused = byte_ids, refused.encode()
    self._byte = {int(token): bytes([byte]) for byte, token in enumerate(byte_ids)}
    scored = np.isfinite(scores)
    self._unknown = np.float32(self._scores[scored].min() - np.float32(UNKNOWN))
    self._ids = {pieces[token]: token for token in np.flatnonzero(scored).tolist()}
    self._longest = max(map(len, self._ids))
    inside = {*b''.join(self._ids)}  # bytes of any piece
    self._always = [token for byte, token in enumerate(byte_ids.tolist()) if byte not in inside]
    self._rare = [i for i in inside if i < 0x80 and bytes([i]) not in self._ids]
    spelled = [piece if one else b'' for piece, one in zip(pieces, scored.tolist(), strict=True)]
    lengths = np.array([len(piece) for piece in spelled], np.int32)
    known = trie.build(np.frombuffer(b''.join(spelled), np.uint8), lengths, 256)
    self._trie: tuple[Any, ...] = (*known, *_nodes(*known))
    self.allowed = functools.lru_cache(1 << 10)(self._allowed)

  def _allowed(self, state: Place) -> np.ndarray:
    """Tokens by which the best way to their end goes."""
    if state.begun:  # the character is completed, or its bytes are no text
      row = self.allowed(self.start).copy()
      for byte in range(0x80, 0xC0):
        character = state.begun + bytes([byte])
        if size := _size(character):
          row[self._byte_ids[byte]] = size > len(character) or self._by_bytes(state, character)
      return row
    places = _ends(state.tail)
    tail, before = np.frombuffer(state.tail, np.uint8), np.array(state.scores, np.float32)
    row = _best(self._trie, self._scores, self._unknown, tail, np.array(places), before)
    row[self._always] = True
    row[self._byte_ids[0x80:]] = True  # a text may end inside a character
    for byte in self._rare:
      row[self._byte_ids[byte]] = self._way(state, bytes([byte]))[1]
    return row

  def _by_bytes(self, state: Place, character: bytes) -> bool:
    """Whether a character is written by the tokens of its bytes."""
    return character == self._refused or (
      character not in self._ids and self._way(state, character)[1]
    )

  def _way(self, state: Place, new: bytes) -> tuple[list[float], bool]:
    """Scores of the best ways to the ends of new characters, and whether the last goes by them.

    The new bytes are a piece, or a character that is none.
    """
    text, places, scores = state.tail + new, _ends(state.tail), [*state.scores]
    chosen = -1
    for end in _ends(new)[1:]:
      stop, chosen, best = len(state.tail) + end, -1, 0.0
      for start, score in zip(places, scores, strict=True):
        if (token := self._ids.get(text[start:stop])) is not None:
          way = float(self._scores[token] + np.float32(score))
        elif start == places[-1]:
          way = float(self._unknown + np.float32(score))
        else:
          continue
        if chosen < 0 or way > best:
          chosen, best = start, way
      places, scores = [*places, stop], [*scores, best]
    return scores, chosen == len(state.tail)

  def after(self, state: Place, token: int) -> Place:
    """The place after one more token."""
    byte = self._byte.get(token)
    if byte is None:
      return self._longer(state if not state.begun else self.start, self._pieces[token])
    if state.begun and not _size(state.begun + byte):
      state = self.start  # what has begun is no text
    begun = state.begun + byte
    size = _size(begun)
    if begun == self._refused or not size:
      return self.start
    if size == len(begun):
      return self._longer(state, begun)
    return state._replace(begun=begun)

  def _longer(self, state: Place, new: bytes) -> Place:
    """The place after a piece, or after a character that is none."""
    tail, scores = state.tail + new, self._way(state, new)[0]
    ends = _ends(tail)
    first = next(i for i, end in enumerate(ends) if len(tail) - end < self._longest)
    return Place(tail[ends[first] :], tuple(scores[first:]), b'')

  def certain(self, state: Place, token: int) -> bool:
    """Where a part of text begins."""
    return state == self.start


def _size(data: bytes) -> int:
  """Bytes of the character that the data is or begins; 0 where it begins none."""
  try:
    _, used = codecs.utf_8_decode(data, 'strict', False)
  except UnicodeDecodeError:
    return 0
  return used or 2 + (data[0] >= 0xE0) + (data[0] >= 0xF0)


def _ends(text: bytes) -> list[int]:
  """The places before each character of well-formed text, and at its end."""
  return [*(i for i, byte in enumerate(text) if byte & 0xC0 != 0x80), len(text)]


@numba.njit(cache=True, nogil=True)
def _nodes(children, token):
  """Of each node of a trie: its parent, last byte and depth, and whether a character ends there."""
  size = token.size
  parent, symbol = np.zeros(size, np.int64), np.zeros(size, np.int64)
  depth, missing = np.zeros(size, np.int64), np.zeros(size, np.int64)
  for node in range(size):  # parents come first
    for byte in range(256):
      child = children[node, byte]
      if child < 0:
        continue
      parent[child], symbol[child], depth[child] = node, byte, depth[node] + 1
      begins = (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
      missing[child] = missing[node] - 1 if missing[node] else begins
  return parent, symbol, depth, missing == 0


@numba.njit(cache=True, nogil=True)
def _best(pieces, scores, unknown, tail, places, before):
  """Whether the best way to the end of each piece after a tail goes by this piece, bool [V].

  Args:
    pieces: their trie, and of its nodes what `_nodes` returns.
    scores: float32 [V].
    unknown: score of a character that is no piece.
    tail: uint8 [n].
    places: int64 [k + 1], where its characters begin, and n.
    before: float32 [k + 1], scores of the best ways to these places.
  """
  children, token, parent, symbol, depth, whole = pieces
  found, starts = np.zeros(scores.size, np.bool_), places.size - 1
  # The nodes that the bytes from a place in the tail to the end of a node's bytes lead to.
  reached = np.full((token.size, starts), -1, np.int64)
  for j in range(starts):
    node = 0
    for i in range(places[j], tail.size):
      node = children[node, tail[i]]
      if node < 0:
        break
    reached[0, j] = node
  best = np.zeros(token.size, np.float32)
  best[0] = before[starts]
  path = np.zeros(depth.max() + 1, np.int64)
  for node in range(1, token.size):
    for j in range(starts):
      if reached[parent[node], j] >= 0:
        reached[node, j] = children[reached[parent[node], j], symbol[node]]
    if not whole[node]:
      continue
    # Where the last piece begins: at this depth, or in the tail (`size`).
    chosen, value, size = -1, np.float32(0), depth[node]
    for j in range(starts):
      if reached[node, j] >= 0 and token[reached[node, j]] >= 0:
        way = scores[token[reached[node, j]]] + before[j]
        if chosen < 0 or way > value:
          chosen, value = size, way
    above = node
    for i in range(size, -1, -1):
      path[i], above = above, parent[above]
    last = size - 1
    while not whole[path[last]]:
      last -= 1
    for i in range(last + 1):
      if not whole[path[i]]:
        continue
      own = 0
      for x in range(i + 1, size + 1):
        own = children[own, symbol[path[x]]]
        if own < 0:
          break
      if own >= 0 and token[own] >= 0:
        way = scores[token[own]] + best[path[i]]
      elif i == last:
        way = unknown + best[path[i]]
      else:
        continue
      if chosen < 0 or way > value:
        chosen, value = i, way
    best[node] = value
    if token[node] >= 0:
      found[token[node]] = chosen == 0
  return found
