# SPDX-License-Identifier: Apache-2.0
"""A trained model's law of bytes: probabilities of texts, summed over covers (`byte_view`).

A known text is read at once (`tree_law`). What a node sees of a long text is what
`TrainedModel.token_loss` shows it, so the sum over covers is at least the probability of the text's
own tokens.

Legend: V vocabulary.
"""

import collections
import functools
import itertools
import operator
import weakref
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numba
import numpy as np

from lib import stats
from lib.decoding.byte_view import ByteTexts, Node, Vocabulary, not_covered
from lib.errors import InputError
from lib.language_model import cached_law, tree_law
from lib.language_model.trained_model import TrainedModel
from lib.tokenizers import covers
from lib.tokenizers.base import Dictionary, Tokenizer

TEXTS = 32  # read in parallel
CHECKED = 64  # bytes after which the sum of a law is computed


def vocabulary(model: TrainedModel, every: bool = False) -> Vocabulary:
  """The tokens of a model as bytes; with `every`, all ways to write a text count.

  Raises:
    InputError: a model without tokenizer, one whose embedding draws rows, or a tokenizer that
      `covers.follow` refuses.
  """
  tokenizer = model.tokenizer
  if tokenizer is None:
    raise InputError('this model has no tokenizer: its symbols are not text.')
  size = model.module.embedding.vocab_size
  special = getattr(tokenizer, 'special_tokens', ())
  blank = {i for i in (*special, *model.ends, model.bos) if i is not None and i < size}
  known = _VOCABULARIES.setdefault(tokenizer, {})
  key = size, model.ends, frozenset(blank), every
  if key not in known:
    follow = covers.follow(tokenizer)
    assert isinstance(tokenizer, Dictionary)
    pieces = [*covers.spelled(tokenizer), *[b''] * (size - tokenizer.vocab_size)]
    pieces = [b'' if token in blank else piece for token, piece in enumerate(pieces)]
    follow = covers.Anything(pieces) if every else _Longer(follow, len(pieces))
    known[key] = Vocabulary(pieces, follow, model.ends)
  return known[key]


_VOCABULARIES: weakref.WeakKeyDictionary[Tokenizer, dict] = weakref.WeakKeyDictionary()


class _Longer:
  """What may follow, for a model with more ids than its tokenizer."""

  def __init__(self, follow: covers.Follow, size: int):
    self._follow, self._size, self.start = follow, size, follow.start
    self.after, self.certain = follow.after, follow.certain
    self._row = functools.lru_cache(1 << 12)(self._allowed)

  def allowed(self, state: covers.State) -> np.ndarray:
    """The same tokens, bool [V of the model]."""
    return self._row(state)

  def _allowed(self, state: covers.State) -> np.ndarray:
    found = self._follow.allowed(state)
    return np.pad(found, (0, self._size - len(found)))


class ByteLoss(NamedTuple):
  """How a model scores some texts byte by byte.

  Attributes:
    nats: −log P(byte | bytes before) of each byte, float64 [bytes] of each text.
    evaluations: nodes at which the model was evaluated.
    leak: before each token of the text's own encoding, −log of the probability of all tokens that
      may follow and of the end: nats, float64 [tokens] of each text.
    sum_error: the largest |bytes + end + leak − 1| over the distributions that were checked.
  """

  nats: list[np.ndarray]
  evaluations: int
  leak: list[np.ndarray]
  sum_error: float

  def leak_per_token(self, groups: Sequence[Hashable] | None = None) -> stats.Estimate:
    """The mean of a token, with its error over groups of texts, by default over texts."""
    return stats.ratio([one.sum() for one in self.leak], [one.size for one in self.leak], groups)


def byte_loss(model: TrainedModel, texts: Sequence[bytes], renormalise: bool = False) -> ByteLoss:
  """Scores texts by their bytes, exactly.

  Args:
    model: with a BOS token.
    texts: the documents.
    renormalise: divide the law of each next byte by its sum, so that nothing leaks.

  Raises:
    InputError: a tokenizer that has no byte view, or bytes that no tokens cover.
  """
  known = vocabulary(model)
  tree_law.check(model)
  sums = [_TextSums(known, text) for text in texts]
  for part in tree_law.laws(model, [one.asked for one in sums]):
    sums[part.text].add(part.nodes, part.weights)
  nats, errors = zip(*(one.nats(renormalise) for one in sums)) if sums else ((), ())
  assert model.tokenizer
  along = [one.along(*model.tokenizer.cover(text)) for one, text in zip(sums, texts, strict=True)]
  leak = [-np.log(one.mass[nodes]) for one, nodes in zip(sums, along, strict=True)]
  count = sum(len(one.asked) for one in sums)
  return ByteLoss([*nats], count, leak, max(errors, default=0.0))


@numba.njit(cache=True, nogil=True, fastmath=True)
def _interval_sums(weights, order, allowed, rows, first, last):
  """Sums of float32 [n, V] in float64: of all, of those allowed, and of some intervals of these.

  Args:
    weights: by ids.
    order: int [m], ids by their bytes.
    allowed: bool [n, m], in this order.
    rows: int [k], of each interval.
    first, last: int [k], the interval in this order.

  Returns:
    float64 [n], [n] and [k].
  """
  scale, mass, sums = np.zeros(len(weights)), np.zeros(len(weights)), np.zeros(len(rows))
  for row in range(len(weights)):
    total = 0.0
    for i in range(weights.shape[1]):
      total += np.float64(weights[row, i])
    scale[row] = total
    total = 0.0
    for i in range(len(order)):
      total += np.float64(weights[row, order[i]]) * allowed[row, i]
    mass[row] = total
  for k in range(len(rows)):
    total = 0.0
    for i in range(first[k], last[k]):
      total += np.float64(weights[rows[k], order[i]]) * allowed[rows[k], i]
    sums[k] = total
  return scale, mass, sums


class _TextSums:
  """The sums over the covers of a text, from the law of the next token at each of its nodes.

  Attributes:
    asked: the nodes whose laws are needed.
    mass: of each of these, the probability of tokens that may follow, and of the end.
  """

  def __init__(self, known: Vocabulary, text: bytes):
    self._known, self._text, self._tree = known, text, known.tree(text)
    self.asked = [node for node in self._tree.nodes if node.place < len(text)]
    self.mass = np.ones(len(self.asked))
    self._number = {node: i for i, node in enumerate(self._tree.nodes)}
    self._children = collections.defaultdict[tuple[int, int], list[int]](list)  # by node and place
    for i, (node, parent) in enumerate(zip(self._tree.nodes, self._tree.parents, strict=True)):
      self._children[parent, node.place].append(i)
    self._over = np.array(self._tree.over, np.int64).reshape(-1, 4)
    self._share = np.zeros(len(self._over))  # P(tokens over the bytes before a place | node)
    self._token = [1.0] * len(self._tree.nodes)  # P of the last token of each
    self._beyond: dict[tuple[int, int], float] = {}  # node, place -> P(tokens that go beyond it)

  def add(self, nodes: Sequence[Node], weights: np.ndarray) -> None:
    """The laws at some nodes, not scaled, float32 [n, V]."""
    known, words = self._known, self._known.words
    numbers = [self._number[node] for node in nodes]
    row = np.full(len(self._tree.nodes), -1)
    row[numbers] = np.arange(len(nodes))
    which = np.flatnonzero(row[self._over[:, 0]] >= 0)
    of_node, stops, first, last = self._over[which].T
    allowed = np.stack([known.allowed(node.state) for node in nodes])
    scale, mass, sums = _interval_sums(weights, words.order, allowed, row[of_node], first, last)
    self._share[which] = sums / scale[row[of_node]]
    ends = weights[:, known.ends].sum(axis=1, dtype=np.float64)
    self.mass[numbers] = np.minimum((mass + ends) / scale, 1.0)
    for number, place in zip(of_node.tolist(), stops.tolist(), strict=True):
      at, node = row[number], self._tree.nodes[number]
      for child in self._children.get((number, place), ()):
        self._token[child] = float(weights[at, self._tree.nodes[child].token] / scale[at])
      if place % CHECKED == 0 and place < len(self._text):
        self._check(number, place, allowed[at], weights[at], scale[at])
    for number, node in zip(numbers, nodes, strict=True):
      if node.place % CHECKED == 0:
        at = row[number]
        self._check(number, node.place, allowed[at], weights[at], scale[at])

  def _check(
    self, number: int, place: int, allowed: np.ndarray, weights: np.ndarray, scale: float
  ) -> None:
    """The sum of a node's part of the law of the next byte after a place."""
    held = self._text[self._tree.nodes[number].place : place]
    _, after, begins, last = self._known.split(held)
    kept = np.where(allowed, weights[self._known.words.order], np.float32(0))[:last]
    total = np.add.reduceat(kept, begins, dtype=np.float64).sum() if after.size else 0.0
    end = 0.0 if held else weights[self._known.ends].sum(dtype=np.float64)
    self._beyond[number, place] = float(total + end) / scale

  def along(self, ids: np.ndarray, lengths: np.ndarray) -> list[int]:
    """The nodes before each token of an encoding, given its ids and their bytes."""
    number, found, some = 0, [], lengths > 0
    for token, place in zip(ids[some].tolist(), np.cumsum(lengths[some]).tolist(), strict=True):
      found.append(number)
      children = self._children.get((number, place), [number])
      # Of two tokens with these bytes, one begins a word.
      number = next((i for i in children if self._tree.nodes[i].token == token), children[0])
    return found

  def nats(self, renormalise: bool) -> tuple[np.ndarray, float]:
    """−log P of each byte, float64 [bytes], and the error of the sum of some laws, at most."""
    size = len(self._text)
    weight = [1.0] * len(self._tree.nodes)  # of each node, relative to the bytes before a place
    found, leaking, total = np.zeros(size), np.zeros(size + 1), np.ones(size + 1)
    if size:
      leaking[0] = 1 - self.mass[0]
      total[0] = self._beyond[0, 0] + leaking[0]
    entries = zip(*self._over[:, :2].T.tolist(), self._share.tolist(), strict=True)
    for place, group in itertools.groupby(entries, key=operator.itemgetter(1)):
      live = [*group]
      law = sum(weight[number] * share for number, _, share in live)
      if not law:
        raise not_covered(self._text[:place])
      found[place - 1] = -np.log(law)
      ends = []
      for number, _, _ in live:
        weight[number] /= law
        for child in self._children.get((number, place), ()):
          weight[child] = weight[number] * self._token[child]
          ends.append(child)
      if place < size:
        leaking[place] = sum(weight[child] * (1 - self.mass[child]) for child in ends)
        if place % CHECKED == 0:
          there = {*ends, *(number for number, _, _ in live)}
          beyond = sum(weight[number] * self._beyond[number, place] for number in there)
          total[place] = beyond + leaking[place]
    error = np.abs(total - 1).max()
    return found + np.log1p(-leaking[:size]) if renormalise else found, float(error)


def beam_loss(model: TrainedModel, texts: Sequence[bytes], beam: int) -> list[np.ndarray]:
  """−log P(byte | bytes before) of texts, summed over all ways to write them.

  Args:
    model: with a BOS token.
    texts: the documents.
    beam: the most sequences of tokens of a text that are followed.

  Returns:
    Nats of each byte of each text, float64 [bytes] each.

  Raises:
    InputError: as `byte_loss`.
  """
  known, found = vocabulary(model, every=True), []
  for start in range(0, len(texts), TEXTS):
    some = texts[start : start + TEXTS]
    reader = ByteTexts(known, cached_law.CachedLaw(model, len(some)), len(some), beam)
    reader.begin(range(len(some)))
    found += reader.nats(some)
  return found
