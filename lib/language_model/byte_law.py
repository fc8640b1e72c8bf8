# SPDX-License-Identifier: Apache-2.0
"""A trained model's law of bytes: the byte view (`lib.decoding.byte_view`) over a cache.

The covers of a text are a tree of token sequences. Each node is read once: a slot of the cache is a
node, which sees its ancestors. What a node sees of a long text is what `TrainedModel.token_loss`
shows it (`lib.language_model.scoring`), by its number of tokens: so the sum over covers is at least
the probability of the text's own tokens.

Legend: B texts, N new tokens, S slots, V vocabulary.
"""

import functools
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from lib.decoding.byte_view import ByteTexts, Node, Vocabulary
from lib.errors import InputError
from lib.language_model.trained_model import TrainedModel, draws_rows
from lib.models.decoder import LanguageModel
from lib.models.kv_cache import Cache
from lib.tokenizers import covers
from lib.tokenizers.base import Dictionary

TEXTS = 32  # read in parallel
TOGETHER = 8  # texts whose windows begin again at once
CHECKED = 16  # bytes after which the sum of a law is computed
WIDE = 4  # slots, as a multiple of the context


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
    if model.bos is None:
      raise InputError('this model has no BOS token: it says nothing about the first bytes.')
    if draws_rows(model):
      raise InputError('the embedding of this model draws its rows: it has no one law of bytes.')
    self._model, self._texts, self._slots = model, texts, WIDE * model.context
    self._cache = model.module.decoder.empty_cache(texts, self._slots)
    self._used = np.zeros(texts, np.int32)
    self._read: list[Any] = [weakref.WeakKeyDictionary() for _ in range(texts)]
    self.tokens = 0  # that were read

  def reset(self, texts: Sequence[int]) -> None:
    """Forgets what was read of these texts."""
    for text in texts:
      self._used[text], self._read[text] = 0, weakref.WeakKeyDictionary()

  def _window(self, depth: int) -> tuple[int, int]:
    """The window in which a node predicts, and its first place."""
    context = self._model.context
    step = max(1, context // 2)
    number = 0 if depth < context else (depth - context) // step + 1
    return number, number * step

  def _missing(self, text: int, node: Node) -> list[Node]:
    """The node and its ancestors that are not read yet in its window, oldest first."""
    number, start = self._window(node.depth)
    found: list[Node] = []
    one: Node | None = node
    while one is not None and one.depth >= start:
      known = self._read[text].get(one)
      if known is not None and known.window == number:
        break
      found.append(one)
      one = one.parent
    return found[::-1]

  def __call__(self, texts: Sequence[int], nodes: Sequence[Node]) -> np.ndarray:
    """P(token | tokens of a node), float64 [n, V]."""
    out = np.zeros((len(nodes), self._model.module.embedding.vocab_size))
    waiting = list(range(len(nodes)))
    while waiting:  # one node of each text at a time
      now = {texts[i]: i for i in reversed(waiting)}
      waiting = [i for i in waiting if now[texts[i]] != i]
      paths = {text: self._missing(text, nodes[i]) for text, i in now.items()}
      long = [text for text, path in paths.items() if len(path) != 1]
      for begin in range(0, len(long), TOGETHER):
        part = long[begin : begin + TOGETHER]
        self._extend({text: paths.pop(text) for text in part}, now, out, TOGETHER)
      if paths:
        self._extend(paths, now, out, self._texts)
    return out

  def _extend(
    self, paths: Mapping[int, list[Node]], now: Mapping[int, int], out: np.ndarray, rows: int
  ) -> None:
    """Reads the nodes of the path of each text, and writes the law after the last one."""
    last = {text: path[-1] for text, path in paths.items()}
    length = _power_of_two(max(map(len, paths.values())))
    full = [text for text in paths if self._used[text] + length > self._slots]
    self._make_room(full)
    if crowded := [text for text in full if self._used[text] + length > self._slots]:
      self.reset(crowded)
    paths = {**paths, **{text: self._missing(text, last[text]) for text in full}}
    length = _power_of_two(max(map(len, paths.values())))
    which = np.arange(rows) if rows == self._texts else np.resize([*paths], rows)
    ids, places = (np.zeros((rows, length), np.int32) for _ in range(2))
    mask = np.zeros((rows, length, self._slots), bool)
    mask[:, :, 0] = True  # padding sees something
    counts = np.zeros(rows, np.int32)
    row_of: dict[int, int] = {}
    for row, text in enumerate(which.tolist()):
      path = paths.get(text, [])
      first_row = row_of.setdefault(text, row)
      if first_row != row:  # the same text again, to fill up
        for array in (ids, places, mask, counts):
          array[row] = array[first_row]
        continue
      counts[row] = len(path)
      for at, node in enumerate(path):
        number, start = self._window(path[-1].depth)
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
      self._model.variables, ids, places, mask, counts, which.astype(np.int32), self._cache
    )
    found = np.asarray(logits)
    for text, path in paths.items():
      self._used[text] += len(path)
      self.tokens += len(path)
      scores = found[row_of[text]]
      # Sums of the same rounded exponentials: the law adds up to 1 in float64.
      exps = np.exp(scores - scores.max()).astype(np.float64)
      out[now[text]] = exps / exps.sum()

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


def _power_of_two(number: int) -> int:
  """The least power of two that is `number` or more."""
  return 1 << (number - 1).bit_length()


@functools.partial(jax.jit, donate_argnums=0)
def _compact(cache: Cache, lengths: jax.Array, path: jax.Array) -> Cache:
  return cache.rollback(lengths, path)


@functools.cache
def _step(module: LanguageModel, every: bool) -> Any:
  """Reads new tokens of all texts, or of some; compiled once for each module."""

  def logits_after(bound, ids, places, mask, last, cache):
    hidden, cache = bound.extend(ids, places, mask, cache, None)
    hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)
    return bound.embedding.logits(hidden, None)[:, 0], cache

  @functools.partial(jax.jit, donate_argnums=6)
  def step(variables, ids, places, mask, counts, which, cache):
    part = cache
    if not every:
      part = Cache(cache.keys[:, which], cache.values[:, which], *(one[which] for one in cache[2:]))
    before = part.lengths
    logits, part = cast(
      tuple[jax.Array, Cache],
      module.apply(
        variables, ids, places, mask, jnp.maximum(counts - 1, 0), part, method=logits_after
      ),
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


def vocabulary(model: TrainedModel, every: bool = False) -> Vocabulary:
  """The tokens of a model as bytes; with `every`, all ways to write a text count.

  Raises:
    InputError: a model without tokenizer, one whose embedding draws rows, or a tokenizer that
      `covers.follow` refuses.
  """
  tokenizer = model.tokenizer
  if tokenizer is None:
    raise InputError('this model has no tokenizer: its symbols are no text.')
  follow = covers.follow(tokenizer)
  assert isinstance(tokenizer, Dictionary)
  blank = [b''] * (model.module.embedding.vocab_size - tokenizer.vocab_size)
  pieces = [*tokenizer.pieces, *blank]
  for token in {*model.ends, *([] if model.bos is None else [model.bos])} & {*range(len(pieces))}:
    pieces[token] = b''
  if every:
    follow = covers.Anything(pieces)
  return Vocabulary(pieces, _Longer(follow, len(pieces)), model.ends)


class _Longer:
  """What may follow, for a model with more ids than its tokenizer."""

  def __init__(self, follow: covers.Follow, size: int):
    self._follow, self._size, self.start = follow, size, follow.start
    self.after = follow.after
    self._row = functools.cache(self._allowed)

  def allowed(self, state: covers.State) -> np.ndarray:
    """The same tokens, bool [V of the model]."""
    return self._row(state)

  def _allowed(self, state: covers.State) -> np.ndarray:
    found = self._follow.allowed(state)
    return np.pad(found, (0, self._size - len(found)))


class ByteLoss(NamedTuple):
  """How a model scores some texts byte by byte.

  Attributes:
    nats: of each byte of each text, float64 [bytes] each: −log P(byte | bytes before).
    evaluations: nodes at which the model was asked.
    leak: −log of the probability that the model gives, at a node, to tokens that may follow, and
      to the end: the mean, in nats.
    sum_error: the most by which the laws of the next byte, with the leak, differ from a sum of 1.
  """

  nats: list[np.ndarray]
  evaluations: int
  leak: float
  sum_error: float


def byte_loss(
  model: TrainedModel, texts: Sequence[bytes], beam: int | None = None, every: bool = False
) -> ByteLoss:
  """Scores texts by their bytes, exactly.

  Args:
    model: with a BOS token.
    texts: the documents.
    beam: the most nodes of a text; None for all.
    every: sum over all ways to write a text, not only its encoding; needs a beam.

  Raises:
    InputError: a tokenizer that has no byte view, or bytes that no tokens cover.
  """
  lanes = min(TEXTS, max(len(texts), 1))
  known = vocabulary(model, every)
  reader = ByteTexts(known, CachedLaw(model, lanes), lanes, beam)
  nats = [np.zeros(len(text)) for text in texts]
  coming = sorted((i for i, text in enumerate(texts) if text), key=lambda i: -len(texts[i]))
  place: dict[int, tuple[int, int]] = {}  # lane -> (text, bytes read)
  steps, worst = 0, 0.0
  while coming or place:
    free = [lane for lane in range(lanes) if lane not in place][: len(coming)]
    if free:
      place |= {lane: (coming.pop(0), 0) for lane in free}
      reader.begin(free)
    active = sorted(place)
    before = reader.log_probability[active].copy()
    if steps % CHECKED == 0:
      whole = reader.next_bytes().sum(axis=1) + reader.leaking()
      worst = max(worst, float(np.abs(whole[active] - 1).max()))
    steps += 1
    reader.append(active, [texts[text][at] for text, at in map(place.__getitem__, active)])
    for lane, old in zip(active, before, strict=True):
      text, at = place[lane]
      nats[text][at] = old - reader.log_probability[lane]
      if at + 1 == len(texts[text]):
        del place[lane]
      else:
        place[lane] = text, at + 1
  return ByteLoss(nats, reader.evaluations, reader.leak / max(reader.evaluations, 1), worst)
