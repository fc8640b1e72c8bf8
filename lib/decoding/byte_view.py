# SPDX-License-Identifier: Apache-2.0
"""The law of the next byte under a model of tokens, exact for every text.

The probability of a text x is the sum over its covers (`lib.tokenizers.covers`). They form a tree:
each is a canonical sequence of tokens shorter than x, a node, and one more token. So every text
that begins with x is counted once, wherever x ends, also inside a token or a character.

A model gives some probability to sequences that no text has as its encoding: it leaks. What leaks
at a node is in no text, so the laws of the next byte add up to less than 1 by as much.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from lib.errors import InputError
from lib.tokenizers.covers import Follow, State, Words

END = 256  # the symbol after the last byte of a text


@dataclasses.dataclass(eq=False, slots=True, weakref_slot=True)
class Node:
  """A canonical sequence of tokens that is the beginning of a text.

  Attributes:
    parent: the node without the last token; None for the empty sequence.
    token: the last token; −1 for the empty sequence.
    depth: number of tokens.
    place: number of bytes.
    state: what may follow (`lib.tokenizers.covers`).
  """

  parent: 'Node | None'
  token: int
  depth: int
  place: int
  state: State

  def ids(self) -> list[int]:
    """The tokens."""
    found: list[int] = []
    node: Node | None = self
    while node is not None and node.parent is not None:
      found.append(node.token)
      node = node.parent
    return found[::-1]


class Tree(NamedTuple):
  """The covers of a text: nodes, and the tokens after them that go beyond it.

  Attributes:
    nodes: parents before children.
    parents: of each the number of its parent; of the first −1.
    over: for each node and byte after it that a token may cover: the number of the node, the place
      after the byte, and the first and last of the tokens by their bytes (`Words.interval`).
    live: the nodes after which a token may go beyond the text, by number.
  """

  nodes: list[Node]
  parents: list[int]
  over: list[tuple[int, int, int, int]]
  live: list[int]

  def trunk(self) -> Node:
    """The tokens with which all covers of the text begin."""
    found = {self.nodes[number] for number in self.live}
    while len(found) > 1:
      deepest = max(found, key=lambda node: node.depth)
      assert deepest.parent is not None
      found = found - {deepest} | {deepest.parent}
    return found.pop()


class Vocabulary:
  """The tokens of a model as bytes.

  Args:
    pieces: the bytes of each of V ids; those without any are in no text.
    follow: which tokens may follow each other.
    ends: ids that end a text.
  """

  def __init__(self, pieces: Sequence[bytes], follow: Follow, ends: Sequence[int] = ()):
    self.words, self.follow, self.ends = Words(pieces), follow, np.array(ends, int)
    self.root = Node(None, -1, 0, 0, follow.start)
    self.allowed = functools.lru_cache(1 << 14)(self._allowed)
    self._allowed_bytes = functools.lru_cache(1 << 14)(lambda state: self.allowed(state).tobytes())
    self.after = functools.lru_cache(1 << 16)(follow.after)
    self.split = functools.lru_cache(1 << 16)(self._split)

  def _allowed(self, state: State) -> np.ndarray:
    """Which tokens may follow, in the order of their bytes: bool [n]."""
    return self.follow.allowed(state)[self.words.order]

  def _split(self, start: bytes) -> tuple[range, np.ndarray, np.ndarray, int]:
    """The tokens that begin with these bytes, by the byte after them.

    Returns:
      The places of the tokens that are just these bytes; the next bytes, and where the tokens of
      each begin; where the last of them end.
    """
    first, stop = self.words.interval(start)
    exact = self.words.exact(start)
    begin = first + len(exact)
    after = np.array([piece[len(start)] for piece in self.words.ordered[begin:stop]], int)
    firsts = np.flatnonzero(np.diff(after, prepend=-1))
    return exact, after[firsts], begin + firsts, stop

  def child(self, node: Node, token: int) -> Node:
    """The node with one more token."""
    place = node.place + len(self.words.pieces[token])
    return Node(node, token, node.depth + 1, place, self.after(node.state, token))

  def tree(self, text: bytes, root: Node | None = None) -> Tree:
    """The covers of a text.

    Args:
      text: any bytes.
      root: tokens with which all of them begin; None for the empty sequence.

    Raises:
      InputError: no tokens cover it.
    """
    root = self.root if root is None else root
    nodes, parents, rows, live = [root], [-1], [self._allowed_bytes(root.state)], [0]
    over = []
    for stop in range(root.place + 1, len(text) + 1):
      kept = []
      for number in live:
        held = text[nodes[number].place : stop]
        first, last = self.words.interval(held)
        row = rows[number]
        if row.find(1, first, last) < 0:
          continue
        over.append((number, stop, first, last))
        exact = self.words.exact(held)
        for place in exact:
          if row[place]:
            kept.append(len(nodes))
            nodes.append(self.child(nodes[number], int(self.words.order[place])))
            parents.append(number)
            rows.append(self._allowed_bytes(nodes[-1].state))
        if row.find(1, first + len(exact), last) >= 0:
          kept.append(number)
      if not kept:
        raise not_covered(text[:stop])
      live = kept
    return Tree(nodes, parents, over, live)

  def settled(self, ids: Sequence[int], sizes: Sequence[int]) -> Node:
    """The longest beginning of an encoding that no further text can change.

    It ends before a word that is certain to begin there, for example, or after a special token.

    Args:
      ids: an encoding.
      sizes: bytes of the text that each covers.
    """
    found = node = self.root
    for token, size in zip(ids, sizes, strict=True):
      if not self.words.pieces[token]:
        found = Node(node, token, node.depth + 1, node.place + size, self.root.state)
        node = found
        continue
      if self.follow.certain(node.state, token):
        found = node
      node = self.child(node, token)
    return found

  def nodes(self, ids: Sequence[int]) -> Node:
    """The node of tokens.

    Raises:
      InputError: the tokens are no beginning of an encoding.
    """
    node = self.root
    for token in ids:
      if not self.follow.allowed(node.state)[token]:
        raise InputError(f'token {token} cannot follow the tokens before it: no text has them.')
      node = self.child(node, int(token))
    return node


class Law(Protocol):
  """The law of the next token of several texts."""

  def reset(self, texts: Sequence[int]) -> None:
    """Forgets what was read of these texts."""
    ...

  def __call__(self, texts: Sequence[int], nodes: Sequence[Node]) -> np.ndarray:
    """P(token | tokens of a node), [n, V], for one node of each text or several."""
    ...


def not_covered(text: bytes) -> InputError:
  """The error for a text that is not the beginning of any tokens' bytes."""
  return InputError(f'no tokens of this model cover the text that ends with {text[-20:]!r}.')


class OfIds:
  """A law that is a function of the ids alone: (ids) -> probabilities [V]."""

  def __init__(self, next_token: Callable[[tuple[int, ...]], np.ndarray]):
    self._next_token = next_token

  def reset(self, texts: Sequence[int]) -> None:
    """There is nothing to forget."""

  def __call__(self, texts: Sequence[int], nodes: Sequence[Node]) -> np.ndarray:
    """As the function says."""
    return np.stack([self._next_token(tuple(node.ids())) for node in nodes])


@dataclasses.dataclass(eq=False)
class _Live:
  """A node with a token that goes beyond the text, and its weight relative to P(text)."""

  node: Node
  weight: float
  row: np.ndarray  # of the tokens that may follow, by their bytes, float64 [n]
  end: float


class ByteTexts:
  """Several texts that are read byte by byte, with the law of the next byte of each.

  Args:
    vocabulary: of the model.
    law: of the model. It is asked once for each node.
    count: number of texts.
    beam: the most nodes of a text that are kept, by the probability of the tokens that continue
      the text after them; None for all, which is exact.
    strict: refuse a text that no tokens cover; else its probability is 0, and its laws are zeros.

  Attributes:
    log_probability: log P(text) of each, float64 [count].
    evaluations: nodes at which the model was asked.
    leak: −log of the probability of tokens that may follow, summed over these nodes, in nats.
  """

  def __init__(
    self, vocabulary: Vocabulary, law: Law, count: int, beam: int | None = None, strict: bool = True
  ):
    self._strict = strict
    self._vocabulary, self._law, self._beam = vocabulary, law, beam
    self._text = [bytearray() for _ in range(count)]
    self._live: list[list[_Live]] = [[] for _ in range(count)]
    self.log_probability = np.zeros(count)
    self.evaluations, self.leak = 0, 0.0
    self._leaking = np.zeros(count)

  def begin(self, which: Sequence[int], nodes: Sequence[Node] | None = None) -> None:
    """Starts texts again: empty, or after the tokens of nodes, which are then certain."""
    nodes = [self._vocabulary.root] * len(which) if nodes is None else nodes
    self._law.reset(which)
    for text in which:
      self._text[text], self._live[text] = bytearray(), []
      self.log_probability[text] = self._leaking[text] = 0
    self._add(which, [dataclasses.replace(node, place=0) for node in nodes], [1.0] * len(which))

  def _add(self, texts: Sequence[int], nodes: Sequence[Node], weights: Sequence[float]) -> None:
    """Asks the model at new nodes."""
    if not nodes:
      return
    known, order = self._vocabulary, self._vocabulary.words.order
    rows = self._law(texts, nodes)
    self.evaluations += len(nodes)
    for text, node, weight, row in zip(texts, nodes, weights, rows, strict=True):
      kept = np.where(known.allowed(node.state), row[order], 0.0)
      end = float(row[known.ends].sum())
      mass = float(kept.sum()) + end
      self.leak -= np.log(min(mass, 1.0)) if mass else 0.0
      self._leaking[text] += weight * max(0.0, 1.0 - mass)
      self._live[text].append(_Live(node, weight, kept, end))

  def next_bytes(self) -> np.ndarray:
    """P(byte | text), and after these P(end | text): float64 [count, 257]."""
    out = np.zeros((len(self._text), END + 1))
    for text, (read, live) in enumerate(zip(self._text, self._live, strict=True)):
      for one in live:
        held = bytes(read[one.node.place :])
        _, after, begins, stop = self._vocabulary.split(held)
        if after.size:
          # Each segment is summed by itself: differences of running sums would lose digits.
          out[text, after] += one.weight * np.add.reduceat(one.row[:stop], begins)
        if not held:
          out[text, END] += one.weight * one.end
    return out

  def leaking(self) -> np.ndarray:
    """How much less than 1 the laws of the next byte add up to, float64 [count]."""
    return self._leaking.copy()

  def append(self, which: Sequence[int], bytes_: Sequence[int]) -> None:
    """One more byte of the texts `which`.

    Raises:
      InputError: no tokens cover a text.
    """
    texts, nodes, weights = [], [], []
    for text, byte in zip(which, bytes_, strict=True):
      read, total = self._text[text], 0.0
      read.append(byte)
      beyond: list[tuple[float, _Live, int]] = []  # mass, a node, and a token to append or −1
      for one in self._live[text]:
        held = bytes(read[one.node.place :])
        first, stop = self._vocabulary.words.interval(held)
        mass = one.weight * float(one.row[first:stop].sum())
        if mass > 0:
          total += mass
          exact, after, _, _ = self._vocabulary.split(held)
          for place in exact:
            ending = one.weight * float(one.row[place])
            if ending > 0:
              beyond.append((ending, one, int(self._vocabulary.words.order[place])))
            mass -= ending
          if after.size and mass > 0:
            beyond.append((mass, one, -1))
      if not total and not self._strict:
        self.log_probability[text], self._live[text] = -np.inf, []
        continue
      if not total:
        raise not_covered(bytes(read))
      self.log_probability[text] += np.log(total)
      self._leaking[text] = 0
      if self._beam is not None:
        beyond.sort(key=operator.itemgetter(0), reverse=True)
        ended = [one for one in beyond if one[2] >= 0][:1]  # any bytes may follow this one
        beyond = ended + [one for one in beyond if one not in ended][: self._beam - len(ended)]
      self._live[text] = [one for _, one, token in beyond if token < 0]
      for one in self._live[text]:
        one.weight /= total
      for mass, one, token in beyond:
        if token >= 0:
          texts.append(text)
          nodes.append(self._vocabulary.child(one.node, token))
          weights.append(mass / total)
    self._add(texts, nodes, weights)

  def nats(self, strings: Sequence[bytes]) -> list[np.ndarray]:
    """Reads a string for each text: −log P(byte | text) of each of its bytes, float64 [n] each."""
    found = [np.zeros(len(string)) for string in strings]
    for place in range(max(map(len, strings), default=0)):
      some = [i for i, string in enumerate(strings) if place < len(string)]
      before = self.log_probability[some].copy()
      self.append(some, [strings[i][place] for i in some])
      for i, nats in zip(some, before - self.log_probability[some], strict=True):
        found[i][place] = nats
    return found
