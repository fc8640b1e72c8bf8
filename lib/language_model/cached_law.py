# SPDX-License-Identifier: Apache-2.0
"""A trained model's law of the next token at the nodes of texts that are read byte by byte.

Each node is read once into a cache: a slot is a node, which sees its ancestors. What a node sees of
a long text is what `TrainedModel.token_loss` shows it (`lib.language_model.scoring`), by its number
of tokens.

Legend: B texts, N new tokens, S slots, V vocabulary.
"""

import functools
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from lib.decoding.byte_view import Node
from lib.errors import InputError
from lib.language_model import tree_law
from lib.language_model.scoring import power_of_two
from lib.language_model.trained_model import TrainedModel
from lib.models.decoder import LanguageModel
from lib.models.kv_cache import Cache

TOGETHER = 8  # texts whose windows begin again at once
FEW = 8  # nodes of each text that are asked for at once
WIDE = 2  # slots, as a multiple of the context


class _Read(NamedTuple):
  """A node in the cache: the window that it was read in, its slot, and the slots that it sees."""

  window: int
  slot: int
  sees: np.ndarray


class CachedLaw:
  """The law of the next token of B texts, of each of which a tree of tokens is read.

  Results for a text depend on the text, on B and on the order of its nodes alone.

  Args:
    model: with a BOS token, whose embedding draws no rows.
    texts: B.
  """

  def __init__(self, model: TrainedModel, texts: int):
    tree_law.check(model)
    if not model.module.decoder.reads_mask:
      raise InputError('this decoder cannot read a tree of tokens over a cache: use `byte_loss`.')
    self._model, self._texts, self._slots = model, texts, WIDE * model.context
    self._cache = model.module.decoder.empty_cache(texts, self._slots)
    self._used = np.zeros(texts, np.int32)
    self._read: list[Any] = [weakref.WeakKeyDictionary() for _ in range(texts)]
    self.tokens = 0  # that were read

  def reset(self, texts: Sequence[int]) -> None:
    """Forgets what was read of these texts."""
    for text in texts:
      self._used[text], self._read[text] = 0, weakref.WeakKeyDictionary()

  def _missing(self, text: int, nodes: Sequence[Node]) -> list[Node]:
    """The nodes, of one window, and their ancestors that it lacks: parents before children."""
    number, start = tree_law.window(nodes[0].depth, self._model.context)
    found: dict[Node, None] = {}
    for node in nodes:
      path: list[Node] = []
      one: Node | None = node
      while one is not None and one.depth >= start and one not in found:
        known = self._read[text].get(one)
        if known is not None and known.window == number:
          break
        path.append(one)
        one = one.parent
      found |= dict.fromkeys(reversed(path))
    return [*found]

  def __call__(self, texts: Sequence[int], nodes: Sequence[Node]) -> np.ndarray:
    """P(token | tokens of a node), float64 [n, V]."""
    out = np.zeros((len(nodes), self._model.module.embedding.vocab_size))
    windows = [tree_law.window(node.depth, self._model.context)[0] for node in nodes]
    waiting = list(range(len(nodes)))
    while waiting:  # a few nodes of each text at a time, of one window
      now: dict[int, list[int]] = {}
      for i in waiting:
        some = now.setdefault(texts[i], [i])
        if i not in some and len(some) < FEW and windows[i] == windows[some[0]]:
          some.append(i)
      asked = {text: {nodes[i]: i for i in some} for text, some in now.items()}
      paths = {text: self._missing(text, [*some]) for text, some in asked.items()}
      crowded = lambda text: self._used[text] + len(paths[text]) >= self._slots
      full = [text for text in paths if crowded(text)]
      self._make_room(full)
      for text in full:
        paths[text] = self._missing(text, [*asked[text]])
        if crowded(text):  # one node at a time
          self.reset([text])
          asked[text] = dict([*asked[text].items()][:1])
          paths[text] = self._missing(text, [*asked[text]])
      waiting = [i for i in waiting if nodes[i] not in asked[texts[i]]]
      for least in (1, FEW):  # of all texts at once
        part = {text: path for text, path in paths.items() if len(path) <= least}
        paths = {text: path for text, path in paths.items() if text not in part}
        self._extend(part, asked, out, self._texts, least)
      long = [*paths]
      for begin in range(0, len(long), TOGETHER):
        part = {text: paths[text] for text in long[begin : begin + TOGETHER]}
        self._extend(part, asked, out, TOGETHER)
    return out

  def _extend(
    self, paths: Mapping[int, list[Node]], asked: Mapping[int, Mapping[Node, int]],
    out: np.ndarray, rows: int, least: int = 1,
  ) -> None:  # fmt: skip
    """Reads new nodes of some texts, and writes the laws at those that are asked for.

    Args:
      paths: the new nodes of each text, parents before children.
      asked: of each text, node -> row of `out`.
      out: [n, V].
      rows: of the batch: all texts, or `TOGETHER`.
      least: columns of the batch, at least.
    """
    if not paths:
      return
    length = max(least, power_of_two(max(map(len, paths.values()))))
    length = min(length, self._slots - 1)  # a batch of all slots is for an empty cache
    which = np.arange(rows) if rows == self._texts else np.resize([*paths], rows)
    ids, places = (np.zeros((rows, length), np.int32) for _ in range(2))
    mask = np.zeros((rows, length, self._slots), bool)
    mask[:, :, 0] = True  # padding sees something
    counts = np.zeros(rows, np.int32)
    wanted = np.zeros((rows, min(length, FEW)), np.int32)
    row_of: dict[int, int] = {}
    for row, text in enumerate(which.tolist()):
      if text not in paths:
        continue
      path = paths[text]
      first_row = row_of.setdefault(text, row)
      if first_row != row:  # the same text again, to fill up
        for array in (ids, places, mask, counts, wanted):
          array[row] = array[first_row]
        continue
      counts[row] = len(path)
      places_of = {node: at for at, node in enumerate(path)}
      wanted[row, : len(asked[text])] = [places_of[node] for node in asked[text]]
      for at, node in enumerate(path):
        number, start = tree_law.window(path[-1].depth, self._model.context)
        slot = int(self._used[text]) + at
        sees = np.zeros(self._slots, bool)
        if node.parent is not None and node.depth > start:
          sees = self._read[text][node.parent].sees.copy()
        sees[slot] = True
        self._read[text][node] = _Read(number, slot, sees)
        ids[row, at] = self._model.first_id if node.parent is None else node.token
        places[row, at], mask[row, at] = node.depth - start, sees
    self._cache = self._cache._replace(lengths=jnp.asarray(self._used))
    step = _step(self._model.module, rows == self._texts)
    logits, self._cache = step(
      self._model.variables, ids, places, mask, counts, wanted, which.astype(np.int32), self._cache
    )
    found = np.asarray(logits)
    for text, path in paths.items():
      self._used[text] += len(path)
      self.tokens += len(path)
      for scores, place in zip(found[row_of[text]], asked[text].values()):
        # Sums of the same rounded exponentials: the law adds up to 1 in float64.
        exps = np.exp(scores - scores.max()).astype(np.float64)
        out[place] = exps / exps.sum()

  def _make_room(self, texts: Sequence[int]) -> None:
    """Keeps of each text the nodes of its last two windows that are still in use."""
    if not texts:
      return
    path = np.full((self._texts, self._slots), -1, np.int32)
    lengths = self._used.copy()
    for text in texts:
      read = self._read[text]
      last = max((one.window for one in read.values()), default=0)
      kept = {node: one for node, one in read.items() if one.window >= last - 1}
      slots = sorted(one.slot for one in kept.values())
      new = {slot: place for place, slot in enumerate(slots)}
      read.clear()
      for node, one in kept.items():
        sees = np.zeros(self._slots, bool)
        sees[: len(slots)] = one.sees[slots]
        read[node] = _Read(one.window, new[one.slot], sees)
      path[text, : len(slots)] = slots
      lengths[text], self._used[text] = 0, len(slots)
    self._cache = _compact(self._cache, jnp.asarray(lengths), jnp.asarray(path))


@functools.partial(jax.jit, donate_argnums=0)
def _compact(cache: Cache, lengths: jax.Array, path: jax.Array) -> Cache:
  return cache.rollback(lengths, path)


@functools.cache
def _step(module: LanguageModel, every: bool) -> Any:
  """Reads new tokens of all texts, or of some; compiled once for each module."""

  def logits_after(bound, ids, places, mask, wanted, cache):
    hidden, cache = bound.extend(ids, places, mask, cache, None)
    hidden = jnp.take_along_axis(hidden, wanted[..., None], axis=1)
    return bound.embedding.logits(hidden, None), cache

  @functools.partial(jax.jit, donate_argnums=7)
  def step(variables, ids, places, mask, counts, wanted, which, cache):
    part = cache
    if not every:
      part = Cache(cache.keys[:, which], cache.values[:, which], *(one[which] for one in cache[2:]))
    before = part.lengths
    logits, part = cast(
      tuple[jax.Array, Cache],
      module.apply(variables, ids, places, mask, wanted, part, method=logits_after),
    )
    part = part.rollback(before + counts)
    if every:
      return logits, part
    put = lambda old, new: old.at[which].set(new)
    layers = lambda old, new: old.at[:, which].set(new)
    return logits, Cache(
      layers(cache.keys, part.keys),
      layers(cache.values, part.values),
      *(put(old, new) for old, new in zip(cache[2:], part[2:], strict=True)),
    )

  return step
