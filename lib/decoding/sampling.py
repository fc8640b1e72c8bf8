# SPDX-License-Identifier: Apache-2.0
"""The sampling loop: many texts at once, each token read once, with a cache.

A text's samples depend on its prompt and its key, not on the other texts of the batch.

Legend: B texts, N tokens read at once, V vocabulary.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from lib.decoding.constraints import Constraint, allow
from lib.errors import InputError
from lib.models.decoder import LanguageModel
from lib.models.kv_cache import Cache

CHUNK = 16  # most tokens of a text that are sampled between reads by the host
UNLIMITED = np.iinfo(np.int32).max


class Sampling(NamedTuple):
  """How an id is sampled from the model's distribution.

  Attributes:
    temperature: divides the logits; 0 takes the likeliest id.
    top_k: sample among this many of the likeliest ids; 0 for all.
    top_p: sample among the fewest of the likeliest ids whose probabilities sum to this or more.
  """

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0

  def check(self) -> None:
    """Raises InputError for values out of range."""
    if not (self.temperature >= 0 and self.top_k >= 0 and 0 < self.top_p <= 1):
      raise InputError(
        'temperature and top_k must be 0 or more and top_p above 0 and at most 1; got '
        f'{self.temperature}, {self.top_k} and {self.top_p}.'
      )


PLAIN = Sampling()
GREEDY = Sampling(temperature=0.0)


def log_probabilities(logits: jax.Array, allowed: jax.Array, how: Sampling) -> jax.Array:
  """Log-probabilities [B, V] of the next id; −inf for excluded ids.

  The logits of the allowed ids are divided by the temperature; then the `top_k` likeliest are kept;
  then, of these, the fewest whose probabilities sum to `top_p`. Of equally likely ids the lower
  comes first.

  Args:
    logits: [B, V].
    allowed: bool [B, V], with one id or more in each row.
    how: its fields may be traced.
  """
  size = logits.shape[-1]
  ranks = jnp.arange(size)[None]
  greedy = how.temperature == 0
  scores = jnp.where(allowed, logits.astype(jnp.float32), -jnp.inf)
  scores = scores / jnp.where(greedy, 1.0, how.temperature)

  def likeliest(scores: jax.Array) -> jax.Array:
    order = jnp.argsort(-scores, axis=-1)
    kept = ranks < jnp.where(how.top_k == 0, size, how.top_k)
    ranked = jnp.where(kept, jnp.take_along_axis(scores, order, axis=-1), -jnp.inf)
    share = jax.nn.softmax(ranked)
    kept &= (jnp.cumsum(share, axis=-1) - share < how.top_p) | (how.top_p == 1)
    return jnp.where(jnp.take_along_axis(kept, jnp.argsort(order), axis=-1), scores, -jnp.inf)

  cut = ~greedy & ((how.top_k > 0) | (how.top_p < 1))
  scores = jax.lax.cond(cut, likeliest, lambda scores: scores, scores)
  best = jnp.argmax(scores, axis=-1)[:, None]
  return jax.nn.log_softmax(jnp.where(greedy & (ranks != best), -jnp.inf, scores))


class Rules(NamedTuple):
  """How a run samples, the same at each of its steps.

  Attributes:
    how: temperature, top-k and top-p.
    next_state: int32 [states, V]; see `Constraint`.
    keys: random keys [B].
    ends: bool [V], ids that end a text.
    limits: int32 [B], the most tokens of each text.
  """

  how: Sampling
  next_state: jax.Array
  keys: jax.Array
  ends: jax.Array
  limits: jax.Array


class Texts(NamedTuple):
  """The state of each text.

  Attributes:
    last: int32 [B], the last token sampled, which the model has not read yet.
    sampled: int32 [B], number of tokens sampled.
    state: int32 [B], of the constraint.
    going: bool [B], false once the text has ended.
  """

  last: jax.Array
  sampled: jax.Array
  state: jax.Array
  going: jax.Array

  def sample_next(self, logits: jax.Array, rules: Rules, which: jax.Array) -> 'Texts':
    """One more token of the texts `which` [B], from logits [B, V]."""
    allowed = rules.next_state[self.state] >= 0
    scores = log_probabilities(logits, allowed, rules.how)
    keys = jax.vmap(jax.random.fold_in)(rules.keys, self.sampled)
    noise = jax.vmap(lambda key: jax.random.gumbel(key, scores.shape[1:]))(keys)
    token = jnp.argmax(scores + noise, axis=-1).astype(jnp.int32)  # a sample of the softmax
    sampled = self.sampled + 1
    going = ~rules.ends[token] & (sampled < rules.limits)
    drawn = Texts(token, sampled, rules.next_state[self.state, token], going)
    return jax.tree.map(lambda new, old: jnp.where(which, new, old), drawn, self)


def stream(
  model: LanguageModel,
  variables: Mapping[str, Any],
  prompts: Sequence[Sequence[int] | np.ndarray],
  *,
  slots: int,
  keys: jax.Array,
  how: Sampling = PLAIN,
  constraint: Constraint | None = None,
  ends: Sequence[int] = (),
  limit: int | None = None,
  window: int = 1,
  rows: Any = None,
) -> Iterator[list[np.ndarray]]:
  """The continuation of each prompt as it is sampled, in parts of up to `CHUNK` ids [n] per text.

  When a text fills its slots, only its newer half is kept, and read again as a new text.

  Args:
    model: the module.
    variables: of the model.
    prompts: ids of each, of which the first is BOS.
    slots: tokens in the cache, BOS included: at most the context of training.
    keys: random keys [B], one for each text.
    how: temperature, top-k and top-p.
    constraint: the ids allowed; all by default.
    ends: ids that end a text; they are returned too.
    limit: the most ids of each text; no limit by default.
    window: tokens of a window; what is kept of a full cache begins where a window does.
    rows: the embedding's sampled rows for these texts and `slots` places, if it samples any.

  Raises:
    InputError: no prompt, a prompt without BOS, or sampling options out of range.
  """
  how.check()
  if not prompts or not all(map(len, prompts)):
    raise InputError('sampling needs at least one prompt, and BOS at the beginning of each.')
  size = model.embedding.vocab_size
  constraint = constraint or allow(range(size), size, len(prompts))
  rules = Rules(
    how,
    jnp.asarray(constraint.next_state),
    keys,
    jnp.zeros(size, bool).at[np.array(ends, int)].set(True),
    jnp.full(len(prompts), UNLIMITED if limit is None else limit),
  )
  return _stream(model, variables, prompts, slots, rules, constraint.start, window, rows)


def _stream(model, variables, prompts, slots, rules, start, window, rows):
  """`stream`, once its arguments have been checked."""
  prefill, step = _compiled(model)
  known = [[int(i) for i in prompt] for prompt in prompts]  # visible ids; the last may be unread
  forgotten = -(-slots // 2 // window) * window  # whole windows
  zeros = jnp.zeros(len(known), jnp.int32)
  going = np.asarray(rules.limits) > 0
  texts = Texts(zeros, zeros, jnp.asarray(start), jnp.asarray(going))
  cache = model.decoder.empty_cache(len(known), slots)
  anew = going
  while going.any():
    if anew.any():
      for ids in (known[i] for i in np.flatnonzero(anew)):
        while len(ids) > slots:
          del ids[1 : 1 + forgotten]
      prompt_ids, counts = _padded(
        [ids if new else ids[:1] for ids, new in zip(known, anew)], slots
      )
      cache, texts = prefill(variables, rows, rules, prompt_ids, counts, anew, cache, texts)
      found = np.where(anew, texts.last, -1)[:, None]
    else:
      room = slots - max(len(ids) for ids, more in zip(known, going) if more) + 1
      cache, texts, found = step(variables, rows, rules, cache, texts, min(room, CHUNK))
    new = [row[row >= 0] for row in np.asarray(found)]
    for ids, more in zip(known, new):
      ids += more.tolist()
    yield new
    going = np.asarray(texts.going)
    anew = going & np.array([len(ids) > slots for ids in known])


def sample(
  model: LanguageModel,
  variables: Mapping[str, Any],
  prompts: Sequence[Sequence[int] | np.ndarray],
  *,
  limit: int,
  slots: int | None = None,
  **options: Any,
) -> list[np.ndarray]:
  """The ids [at most `limit`] that follow each prompt; by default the cache has room for all of it.

  Arguments are those of `stream`.
  """
  slots = slots or max(map(len, prompts), default=0) + limit
  parts = stream(model, variables, prompts, slots=slots, limit=limit, **options)
  return [np.concatenate(one) for one in zip([np.zeros(0, np.int32)] * len(prompts), *parts)]


def _padded(rows: Sequence[Sequence[int]], slots: int) -> tuple[np.ndarray, np.ndarray]:
  """Rows of ids as one array [B, N] and their lengths; N is a power of two or `slots`."""
  counts = np.array([len(row) for row in rows], np.int32)
  ids = np.zeros((len(rows), min(1 << int(counts.max() - 1).bit_length(), slots)), np.int32)
  for padded, row in zip(ids, rows):
    padded[: len(row)] = row
  return ids, counts


@functools.cache
def _compiled(model: LanguageModel) -> tuple[Callable, Callable]:
  """Prefill and steps, compiled once for all equal models."""

  def logits_after(bound, ids, positions, last, cache, rows):
    hidden, cache = bound.extend(ids, positions, None, cache, rows)
    hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)
    return bound.embedding.logits(hidden, rows)[:, 0], cache

  def read(variables: Mapping[str, Any], *args: Any) -> tuple[jax.Array, Cache]:
    return cast(tuple[jax.Array, Cache], model.apply(variables, *args, method=logits_after))

  @functools.partial(jax.jit, donate_argnums=6)
  def prefill(variables, rows, rules, ids, counts, which, cache, texts):
    """Reads ids [B, N], `counts` [B] of each, into the empty slots of the texts `which` [B];
    samples a
    token."""
    places = jnp.broadcast_to(jnp.arange(ids.shape[1])[None], ids.shape)
    empty = cache.rollback(jnp.where(which, 0, cache.lengths))
    # Rows of other texts write to empty slots, after those in use.
    logits, longer = read(variables, ids, places, counts - 1, empty, rows)
    lengths = jnp.where(which, counts, cache.lengths)
    return longer.rollback(lengths), texts.sample_next(logits, rules, which)

  @functools.partial(jax.jit, donate_argnums=3)
  def step(variables, rows, rules, cache, texts, steps):
    """Up to `steps` more tokens of each text: int32 [B, CHUNK], filled up with −1."""
    nothing = jnp.full((len(texts.last), CHUNK), -1, jnp.int32)

    def going(carry):
      place, _, texts, _ = carry
      return (place < steps) & texts.going.any()

    def one(carry):
      place, cache, texts, found = carry
      ids, positions = texts.last[:, None], cache.lengths[:, None]
      lengths = cache.lengths + texts.going
      logits, cache = read(variables, ids, positions, jnp.zeros_like(texts.last), cache, rows)
      drawn = texts.sample_next(logits, rules, texts.going)
      found = found.at[:, place].set(jnp.where(texts.going, drawn.last, -1))
      return place + 1, cache.rollback(lengths), drawn, found

    _, cache, texts, found = jax.lax.while_loop(going, one, (0, cache, texts, nothing))
    return cache, texts, found

  return prefill, step
