# SPDX-License-Identifier: Apache-2.0
"""Stepping a byte model: many texts in parallel, with the same shapes in encoder and decoder."""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from lib.compression.byte_model import BOS, ByteModel, Sizes, exact, make
from lib.models.decoder import LanguageModel
from lib.models.kv_cache import Cache

REFILL_BATCH = 8  # texts whose context is refilled at once
LEAST_ROOM = 64  # least number of cache slots that a step reads; otherwise a larger power of two


class ByteStepper:
  """`streams` texts that the byte model reads in parallel, one byte of each per step, with a cache.

  A step reads the cache slots that a text needs, rounded up to a power of two. So the shape of a
  step depends on the text's length alone. Texts of other lengths are masked out of the step. When
  the context of a text is full, its newer half is read again, for several texts at once, in one
  shape.

  Args:
    model: the byte model.
  """

  def __init__(self, model: ByteModel):
    self.model, self.streams = model, model.sizes.streams
    self._half = model.sizes.context // 2
    self._recent = np.zeros((self.streams, self._half), np.uint8)  # last bytes, newest last
    self._read = np.ones(self.streams, np.int64)  # tokens in the cache, BOS included
    start, self._first = _begin(model.sizes, model.on_device)
    self._start = np.asarray(start)
    self._cache = _all_begun(self._first, self.streams)

  def start(self) -> np.ndarray:
    """Next-byte probabilities of the empty text, float32 [256]."""
    return self._start

  def reset(self, which: np.ndarray) -> None:
    """Forgets the texts where `which` [N] is true: they are empty again."""
    self._read[which] = 1  # the first slot of every cache is BOS

  def step(self, symbols: np.ndarray) -> np.ndarray:
    """Appends one byte to each text, uint8 [N]; next-byte probabilities, float32 [N, 256]."""
    full = np.flatnonzero(self._read == self.model.sizes.context)
    self._recent[:, :-1] = self._recent[:, 1:]
    self._recent[:, -1] = symbols
    rows = np.empty((self.streams, 256), np.float32)
    rooms = self._rooms()
    for room in np.unique(rooms).tolist():
      here = rooms == room
      lengths = np.where(here, self._read, room).astype(np.int32)  # slot `room` does not exist
      given, self._cache = _step(
        (self.model.sizes, room),
        self.model.on_device,
        symbols.astype(np.int32),
        self._cache._replace(lengths=jnp.asarray(lengths)),
      )
      rows[here] = np.asarray(given)[here]
    self._read += 1
    if full.size:
      together = min(REFILL_BATCH, self.streams)
      for begin in range(0, full.size, together):
        which = np.resize(full[begin : begin + together], together)  # the last ones are repeated
        rows[which] = self._refill(which)
      self._read[full] = 1 + self._half
    return rows

  def _rooms(self) -> np.ndarray:
    """Places of the cache that each text's next byte needs, int [N]."""
    least = 1 << np.ceil(np.log2(self._read + 1)).astype(int)
    return np.clip(least, LEAST_ROOM, self.model.sizes.context)

  def _refill(self, which: np.ndarray) -> np.ndarray:
    """Reads the newer half of the texts `which` again; returns the probabilities after them."""
    ids = self._recent[which].astype(np.int32)
    given, self._cache = _refill(
      self.model.sizes, self.model.on_device, ids, self._cache, self._first, which
    )
    return np.asarray(given)


@exact
def _begin(sizes: Sizes, variables: Any) -> tuple[jax.Array, Cache]:
  """Probabilities [256] of the empty text, and the cache of one text after BOS."""
  cache = make(sizes).decoder.empty_cache(1, sizes.context)
  logits, cache = _next(sizes, variables, jnp.full(1, BOS), cache)
  return jax.nn.softmax(logits[0]), cache


@functools.partial(exact, donate=3)
def _step(
  shape: tuple[Sizes, int], variables: Any, ids: jax.Array, cache: Cache
) -> tuple[jax.Array, Cache]:
  """One more byte of each text, within `room` slots: probabilities [N, 256], and the cache."""
  sizes, room = shape
  part = Cache(
    cache.keys[..., :room, :],
    cache.values[..., :room, :],
    cache.ids[:, :room],
    cache.positions[:, :room],
    cache.lengths,
  )
  logits, part = _next(sizes, variables, ids, part)
  cache = Cache(
    cache.keys.at[..., :room, :].set(part.keys),
    cache.values.at[..., :room, :].set(part.values),
    cache.ids.at[:, :room].set(part.ids),
    cache.positions.at[:, :room].set(part.positions),
    cache.lengths,
  )
  return jax.nn.softmax(logits), cache


@functools.partial(exact, donate=3)
def _refill(
  sizes: Sizes, variables: Any, ids: jax.Array, cache: Cache, first: Cache, which: jax.Array
) -> tuple[jax.Array, Cache]:
  """Reads ids [R, T] into empty slots of the texts `which` [R]: probabilities after them, and the
  cache.
  """

  def read(part: Cache, column: jax.Array) -> tuple[Cache, jax.Array]:
    logits, part = _next(sizes, variables, column, part)
    return part, logits

  part, logits = jax.lax.scan(read, _all_begun(first, len(ids)), ids.T)
  cache = Cache(
    cache.keys.at[:, which].set(part.keys),
    cache.values.at[:, which].set(part.values),
    cache.ids.at[which].set(part.ids),
    cache.positions.at[which].set(part.positions),
    cache.lengths,
  )
  return jax.nn.softmax(logits[-1]), cache


def _next(sizes: Sizes, variables: Any, ids: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
  """Logits [N, 256] after one more id [N] of each text, and the cache with it."""

  def read(model: LanguageModel) -> tuple[jax.Array, Cache]:
    hidden, longer = model.extend(ids[:, None], cache.lengths[:, None], None, cache)
    return model.embedding.logits(hidden, None)[:, 0], longer

  return cast(tuple[jax.Array, Cache], make(sizes).apply(variables, method=read))


def _all_begun(first: Cache, streams: int) -> Cache:
  """The cache of one text after BOS, repeated for `streams` texts."""
  return Cache(
    jnp.repeat(first.keys, streams, axis=1),
    jnp.repeat(first.values, streams, axis=1),
    jnp.repeat(first.ids, streams, axis=0),
    jnp.repeat(first.positions, streams, axis=0),
    jnp.repeat(first.lengths, streams),
  )
