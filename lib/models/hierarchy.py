# SPDX-License-Identifier: Apache-2.0
"""A hierarchy: a decoder of chunks between decoders of tokens, with the interface of a decoder.

H-Net (arXiv 2507.07955): an encoder reads the tokens, and a router decides where chunks begin. The
inner decoder reads the encoder's vector of the first token of each chunk. Its outputs are smoothed
over the chunks, and copied to all tokens of the chunk. A projection of the encoder's vectors is
added, and a decoder reads the sum. The inner decoder may be a hierarchy itself. All shapes are
static: a row has room for a number of chunks. Further chunks are dropped and counted, and their
tokens belong to the last chunk that had room.

Legend: B batch, T length, N new tokens, S slots of a cache, D model width, C chunks of a row.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lib.errors import InputError
from lib.models.kv_cache import Cache
from lib.models.recurrence import ages, last_slots, recurrence
from lib.models.routers import Seen
from lib.parameters import declare_flops, declared, flops_times

CLIP = 1e-4  # of probabilities that smooth
STAGES = ('', '_2', '_3')  # what the names of metrics of each stage end in


class Chunks(NamedTuple):
  """Where chunks are in rows of tokens.

  Attributes:
    places: int32 [B, C], the token that each chunk begins with; 0 where there is no chunk.
    real: bool [B, C], whether there is a chunk; these come first.
    of_token: int32 [B, T], the newest chunk that begins at or before each token; −1 for none.
    dropped: int32 [B], chunks that had no room.
  """

  places: jax.Array
  real: jax.Array
  of_token: jax.Array
  dropped: jax.Array


def select(begins: jax.Array, room: int) -> Chunks:
  """The chunks of rows in which they begin where `begins`, bool [B, T]: at most `room` of a row."""
  count = jnp.cumsum(begins, axis=1, dtype=jnp.int32)
  rows, tokens = jnp.arange(len(begins))[:, None], jnp.arange(begins.shape[1], dtype=jnp.int32)
  empty = jnp.zeros((len(begins), room), jnp.int32)
  slots = jnp.where(begins, count - 1, room)
  places = empty.at[rows, slots].set(jnp.broadcast_to(tokens[None], begins.shape), mode='drop')
  real = jnp.arange(room)[None] < count[:, -1:]
  return Chunks(places, real, jnp.minimum(count, room) - 1, jnp.maximum(count[:, -1] - room, 0))


def gather(x: jax.Array, places: jax.Array) -> jax.Array:
  """x [B, T, …] at places [B, C]: [B, C, …]."""
  return jnp.take_along_axis(x, places.reshape(*places.shape, *(1,) * (x.ndim - 2)), axis=1)


def smooth(x: jax.Array, weights: jax.Array, before: jax.Array) -> jax.Array:
  """Exponential moving averages y_i = w_i x_i + (1 − w_i) y_{i−1} of x [B, C, D].

  Args:
    x: what is averaged.
    weights: [B, C]; 1 at the first chunk of a document, which no earlier document reaches.
    before: y_{−1}, [B, D].
  """
  weights = weights[..., None]
  return recurrence(1 - weights, weights * x, before)


def straight_through(x: jax.Array, confidence: jax.Array) -> jax.Array:
  """x, to the bit, with the gradient that x · confidence has for the confidence."""
  return x + x * (confidence - jax.lax.stop_gradient(confidence))


def ratio_loss(share: jax.Array, probability: jax.Array, target: float) -> jax.Array:
  """H-Net's loss of F, the share of tokens that begin a chunk, and G, their mean probability.

  N / (N − 1) · ((N − 1) F G + (1 − F) (1 − G)) for a target of N tokens per chunk. Along F = G its
  minimum is 1, at 1 / N. F is a count, so only G has a gradient.
  """
  odds = target - 1
  return target / odds * (odds * share * probability + (1 - share) * (1 - probability))


def stage_factors(rates: Sequence[float]) -> tuple[tuple[str, float], ...]:
  """Factors of the learning rate (`lib.train.optimizer`) by stage, the outermost first.

  The embedding has the factor of the outermost stage. Stages beyond the last factor have that one.
  The model of a router keeps its weights.
  """
  by_depth = [('(/inner.*)' * depth, rate) for depth, rate in enumerate(rates)]
  return (('/router/model/', 0.0), *reversed(by_depth)) if rates else ()


class HierarchyCache(NamedTuple):
  """What a hierarchy has read of B texts, with the interface of `Cache`.

  Attributes:
    own: slots of the tokens; its keys are the encoder's vectors, its values the smoothed vectors,
      of one layer and head.
    chunks: int32 [B, S], chunks that begin up to and with each token.
    router, encoder, decoder, inner: of the parts; None for a part that has none.
  """

  own: Cache
  chunks: jax.Array
  router: Any
  encoder: Any
  decoder: Any
  inner: Any

  @property
  def ids(self) -> jax.Array:
    """Int32 [B, S]."""
    return self.own.ids

  @property
  def positions(self) -> jax.Array:
    """Int32 [B, S], of each token in its text."""
    return self.own.positions

  @property
  def lengths(self) -> jax.Array:
    """Int32 [B], slots in use."""
    return self.own.lengths

  def announce(self, ids: jax.Array, positions: jax.Array) -> 'HierarchyCache':
    """As `Cache.announce`."""
    return self._replace(own=self.own.announce(ids, positions))

  def causal_mask(self, positions: jax.Array) -> jax.Array:
    """As `Cache.causal_mask`."""
    return self.own.causal_mask(positions)

  def rollback(self, lengths: jax.Array, path: jax.Array | None = None) -> 'HierarchyCache':
    """Keeps the first `lengths` [B] tokens of each text; there is no path through a tree."""
    if path is not None:
      raise InputError('a hierarchy reads no trees of drafts: it goes back to a token of its text.')
    chunks = last_slots(self.chunks[..., None], lengths, 1)[:, 0, 0]
    back = lambda cache, to: None if cache is None else cache.rollback(to)
    return HierarchyCache(
      self.own.rollback(lengths),
      self.chunks,
      back(self.router, lengths),
      back(self.encoder, lengths),
      back(self.decoder, lengths),
      back(self.inner, chunks),
    )


class Hierarchy(nn.Module):
  """Tokens, their chunks, and tokens again: vectors to vectors, as `lib.models.decoder.Decoder`.

  Attributes:
    dim: D of the tokens.
    inner_dim: width of the inner decoder, D or more. Before it, trained numbers, 0 at first, fill
      up the vectors; after it, vectors are cut to D.
    encoder, decoder: vectors to vectors of width D (`RecurrentDecoder`, or a `Decoder` with a
      window); None for the identity.
    router: where chunks begin (`lib.models.routers`).
    inner: vectors to vectors of the inner width: a `Decoder` or a `Hierarchy`.
    room: most chunks of a row, as a share of its tokens.
    target: N, the tokens per chunk that the ratio loss aims at; 0 for no such loss.
    ratio_weight: weight of the ratio loss.
    smoothing: the inner decoder's outputs are averaged with those of earlier chunks; the weights
      are the router's probabilities.
    straight: in the gradient alone, these averages are multiplied by the probability of the
      router's decision, to begin a chunk or not.
    dtype: of activations; the router and the averages are float32.
  """

  dim: int
  inner_dim: int
  encoder: nn.Module | None
  router: nn.Module
  inner: nn.Module
  decoder: nn.Module | None
  room: float = 0.5
  target: float = 0.0
  ratio_weight: float = 0.03
  smoothing: bool = True
  straight: bool = True
  dtype: jnp.dtype = jnp.float32
  reads_mask = False

  @property
  def reads_ids(self) -> bool:
    """Whether the router sees ids."""
    return bool(self.router.reads_ids)

  @nn.compact
  def __call__(
    self,
    x_btd: jax.Array,
    positions: jax.Array,
    segments: jax.Array | None,
    cache: HierarchyCache | None = None,
    mask: jax.Array | None = None,
    ids: jax.Array | None = None,
  ) -> tuple[jax.Array, Any]:
    """As `Decoder`: hidden vectors [B, T, D], and None or the longer cache.

    Args:
      x_btd: input vectors.
      positions: [B, T] position of each token in its document.
      segments: [B, T] document number in the row; 0 is padding.
      cache: what was read before, with these tokens announced; then segments are None.
      mask: not read: a token sees all that are not after it.
      ids: int32 [B, T], for a router that reads them.
    """
    self._check()
    x_btd, encoder = self._part(self.encoder, x_btd, positions, segments, cache, 'encoder')
    age = positions if segments is None else ages(segments)
    real = jnp.ones_like(age, bool) if segments is None else segments > 0
    seen = self._seen(x_btd, age, segments, cache, ids)
    probability, router = self.router(seen, None if cache is None else cache.router)
    probability = jnp.where(age == 0, 1.0, probability)
    begins = (probability > 0.5) & real
    length = x_btd.shape[1]
    room = length if cache is not None else math.ceil(self.room * length)
    chunks = select(begins, room)
    if cache is None:
      self._report(begins, probability, real, chunks)

    with flops_times(self.room):
      z, inner = self._inner(gather(x_btd, chunks.places), chunks, segments, cache)
    weights = jnp.clip(gather(probability, chunks.places), CLIP, 1 - CLIP)
    weights = jnp.where(gather(age, chunks.places) == 0, 1.0, weights)
    weights = jnp.where(chunks.real, weights if self.smoothing else 1.0, 0.0)
    z = z.astype(jnp.float32)
    before = jnp.zeros_like(z[:, 0])  # the newest average so far, which tokens before a chunk keep
    if cache is not None:
      before = last_slots(cache.own.values[0, :, 0], cache.lengths, 1)[:, 0]
    averages = jnp.concatenate([before[:, None], smooth(z, weights, before)], axis=1)
    spread = gather(averages, chunks.of_token + 1)
    if segments is not None:  # without room for its own, a document gets no other's
      begun_in = gather(segments, gather(chunks.places, jnp.maximum(chunks.of_token, 0)))
      spread = jnp.where((begun_in == segments)[..., None], spread, 0)
    kept = spread
    if self.straight:
      confidence = jnp.where(begins, probability, 1 - probability)
      spread = straight_through(spread, confidence[..., None])
    declare_flops(self, 2 * self.dim**2)
    zeros = declared(nn.initializers.zeros, ('fsdp', 'tensor'), inputs=1)
    residual = nn.Dense(self.dim, use_bias=False, kernel_init=zeros, name='residual')
    y_btd = (spread + residual(x_btd.astype(jnp.float32))).astype(self.dtype)
    y_btd, decoder = self._part(self.decoder, y_btd, positions, segments, cache, 'decoder')
    if cache is None:
      return y_btd, None
    own = cache.own.append(x_btd[None, :, :, None], kept[None, :, :, None])
    rows, slots = jnp.arange(len(age))[:, None], cache.own.next_slots(length)
    total = last_slots(cache.chunks[..., None], cache.lengths, 1)[:, 0] + chunks.of_token + 1
    counted = cache.chunks.at[rows, slots].set(total, mode='drop')
    return y_btd, HierarchyCache(own, counted, router, encoder, decoder, inner)

  def _check(self) -> None:
    if self.inner_dim < self.dim:
      raise InputError(f'the inner width {self.inner_dim} is below the outer width {self.dim}.')
    if not 0 < self.room <= 1:
      raise InputError(f'room must be a share of tokens, above 0 and at most 1; got {self.room}.')
    if self.target and not self.target > 1:
      raise InputError(f'target must be above 1 token a chunk, or 0 for none; got {self.target}.')

  def _part(self, part, x_btd, positions, segments, cache, name):
    """An outer network over the tokens, and its longer cache or None."""
    if part is None:
      return x_btd, None
    if cache is None:
      return part(x_btd, positions, segments)[0], None
    read = getattr(cache, name).announce(jnp.zeros_like(positions), positions)
    return part(x_btd, positions, None, read, read.causal_mask(positions))

  def _seen(self, x_btd, age, segments, cache, ids) -> Seen:
    if cache is None:
      before = jnp.zeros_like(x_btd[:, :1])
      id_before = None if ids is None else jnp.zeros_like(ids[:, :1])
    else:
      before = last_slots(cache.own.keys[0, :, 0], cache.lengths, 1)
      id_before = last_slots(cache.ids[..., None], cache.lengths, 1)[..., 0]
    shifted = lambda first, x: jnp.concatenate([first, x[:, :-1]], axis=1)
    ids_before = None if ids is None else shifted(id_before, ids)
    return Seen(x_btd, shifted(before, x_btd), ids, ids_before, age, segments)

  def _inner(self, x_bcd, chunks, segments, cache):
    """The inner decoder over the chunks [B, C, D]: its outputs, cut to D, and its longer cache."""
    if more := self.inner_dim - self.dim:
      fill = self.param('fill', nn.initializers.zeros, (more,)).astype(x_bcd.dtype)
      fill = jnp.broadcast_to(fill[None, None], (*x_bcd.shape[:2], more))
      x_bcd = jnp.concatenate([x_bcd, fill], axis=-1)
    order = jnp.broadcast_to(jnp.arange(x_bcd.shape[1], dtype=jnp.int32)[None], x_bcd.shape[:2])
    if cache is None:
      segments = jnp.where(chunks.real, gather(segments, chunks.places), 0)
      z, inner = self.inner(x_bcd, ages(segments), segments)[0], None
    else:
      positions = cache.inner.lengths[:, None] + order
      read = cache.inner.announce(jnp.zeros_like(positions), positions)
      z, longer = self.inner(x_bcd, positions, None, read, read.causal_mask(positions))
      inner = longer.rollback(cache.inner.lengths + chunks.real.sum(axis=1))
    return z[..., : self.dim], inner

  def _report(self, begins, probability, real, chunks) -> None:
    """Sows where chunks begin, their share of the tokens, those dropped, and the ratio loss."""
    if self.is_initializing():
      return
    name = lambda quantity: quantity + STAGES[self.path.count('inner')]
    tokens = real.sum()
    share = begins.sum() / tokens
    mean = jnp.where(real, probability, 0).sum() / tokens
    self.sow('intermediates', 'begins', begins)
    self.sow('metrics', name('chunks_per_token'), share)
    self.sow('metrics', name('mean_probability'), mean)
    self.sow('metrics', name('overflow_share'), chunks.dropped.sum() / begins.sum())
    if self.target:
      loss = ratio_loss(share, mean, self.target)
      self.sow('losses', name('ratio_loss'), self.ratio_weight * loss)

  def empty_cache(self, batch: int, length: int) -> HierarchyCache:
    """A cache for `batch` texts of up to `length` tokens, none of which has begun."""
    own = Cache.empty((1, batch, 1, length, self.dim), self.dtype, jnp.float32)
    chunks = jnp.zeros((batch, length), jnp.int32)
    of = lambda part: None if part is None else part.empty_cache(batch, length)
    parts = (self.router, self.encoder, self.decoder, self.inner)
    return HierarchyCache(own, chunks, *map(of, parts))
