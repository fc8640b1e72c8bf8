# SPDX-License-Identifier: Apache-2.0
"""Pieces as a trie, and the two ways to cut a text into them: longest match and fewest tokens."""

from typing import NamedTuple

import numba
import numpy as np


class Trie(NamedTuple):
  """The prefixes of all pieces over A symbols.

  Attributes:
    children: int32 [nodes, A], the node reached by one more symbol; -1 = none, node 0 = root.
    token: int32 [nodes], the id of the piece that ends here; -1 = none.
  """

  children: np.ndarray
  token: np.ndarray


def build(symbols: np.ndarray, lengths: np.ndarray, width: int) -> Trie:
  """The trie of pieces given end to end: uint8 `symbols` below `width`, cut by int32 `lengths`."""
  return Trie(*_build(symbols, lengths, width))


@numba.njit(cache=True, nogil=True)
def _build(symbols, lengths, width):
  # Pages of these arrays are touched only as nodes are made.
  children = np.empty((symbols.size + 1, width), np.int32)
  token = np.empty(symbols.size + 1, np.int32)
  children[0], token[0] = -1, -1
  nodes, start = 1, 0
  for piece in range(lengths.size):
    node = 0
    for symbol in symbols[start : start + lengths[piece]]:
      if children[node, symbol] < 0:
        children[node, symbol] = nodes
        children[nodes], token[nodes] = -1, -1
        nodes += 1
      node = children[node, symbol]
    if node > 0 and token[node] < 0:
      token[node] = piece
    start += lengths[piece]
  return children[:nodes].copy(), token[:nodes].copy()


@numba.njit(cache=True, nogil=True)
def greedy(children: np.ndarray, token: np.ndarray, symbols: np.ndarray) -> tuple[np.ndarray, int]:
  """Takes the longest piece at each point.

  Returns:
    ids, int32 [n], and the position where no piece fits, or -1.
  """
  ids = np.empty(symbols.size, np.int32)
  count, start = 0, 0
  while start < symbols.size:
    node, stop = 0, start
    for i in range(start, symbols.size):
      node = children[node, symbols[i]]
      if node < 0:
        break
      if token[node] >= 0:
        ids[count] = token[node]
        stop = i + 1
    if stop == start:
      return ids[:count].copy(), start
    count, start = count + 1, stop
  return ids[:count].copy(), -1


@numba.njit(cache=True, nogil=True)
def minimal(children: np.ndarray, token: np.ndarray, symbols: np.ndarray) -> tuple[np.ndarray, int]:
  """Takes the fewest pieces, by dynamic programming from the end; of equals the longest first.

  Returns:
    ids, int32 [n], and the furthest position that pieces reach if they do not cover all, or -1.
  """
  size = symbols.size
  cost = np.full(size + 1, size + 1, np.int32)  # tokens from here to the end; size + 1 = no way
  cost[size] = 0
  first = np.empty(size, np.int32)  # id of the first piece from here
  after = np.empty(size, np.int32)  # where that piece ends
  for start in range(size - 1, -1, -1):
    node = 0
    for i in range(start, size):
      node = children[node, symbols[i]]
      if node < 0:
        break
      if token[node] >= 0 and cost[i + 1] + 1 <= cost[start]:
        cost[start] = cost[i + 1] + 1
        first[start], after[start] = token[node], i + 1
  if cost[0] > size:
    return first[:0].copy(), _reach(children, token, symbols)
  ids = np.empty(cost[0], np.int32)
  start = 0
  for count in range(ids.size):
    ids[count] = first[start]
    start = after[start]
  return ids, -1


@numba.njit(cache=True, nogil=True)
def _reach(children, token, symbols):
  reached = np.zeros(symbols.size + 1, np.bool_)
  reached[0] = True
  furthest = 0
  for start in range(symbols.size):
    if not reached[start]:
      continue
    furthest = start
    node = 0
    for i in range(start, symbols.size):
      node = children[node, symbols[i]]
      if node < 0:
        break
      if token[node] >= 0:
        reached[i + 1] = True
  return furthest
