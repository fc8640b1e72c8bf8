# SPDX-License-Identifier: Apache-2.0
"""The four position encodings of the decoder.

Legend: B batch, T queries, S keys, H heads, K width of a head.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lib.errors import InputError

SCHEMES = ('learned', 't5', 'relative', 'rotary')


def causal_distances(length: int) -> np.ndarray:
  """Distance from each of [T] keys to each later query: int [1, T, T]; negative for keys after
  it.
  """
  return (np.arange(length)[:, None] - np.arange(length)[None])[None]


def t5_buckets(count: int, buckets: int = 32, max_distance: int = 128) -> np.ndarray:
  """Bucket of each distance 0…count − 1, int [count] (T5, Raffel et al. 2020, section 2.1).

  The first half of the buckets is exact; the rest grows logarithmically up to `max_distance`.

  Raises:
    InputError: a `max_distance` within the exact buckets.
  """
  distance = np.arange(count)
  exact = buckets // 2
  if max_distance <= exact:
    raise InputError(
      f'max_distance={max_distance} of T5 positions must be above {exact}, half of the buckets.'
    )
  log_ratio = np.log(np.maximum(distance, 1) / exact) / np.log(max_distance / exact)
  far = exact + (log_ratio * (buckets - exact)).astype(np.int64)
  return np.where(distance < exact, distance, np.minimum(far, buckets - 1))


class T5Bias(nn.Module):
  """A learned bias for each head and distance bucket, shared by all layers."""

  heads: int
  buckets: int = 32
  max_distance: int = 128

  def setup(self) -> None:
    """Makes the table of biases [H, buckets]."""
    shape = (self.heads, self.buckets)
    self.table = self.param('bias', nn.initializers.normal(0.02), shape)

  def starts(self) -> tuple[int, ...]:
    """The least distance in each bucket."""
    bucket_of = t5_buckets(self.max_distance + 1, self.buckets, self.max_distance)
    return tuple(np.searchsorted(bucket_of, np.arange(self.buckets)).tolist())

  def __call__(self, distance_bts: np.ndarray | jax.Array) -> jax.Array:
    """Bias [1 or B, H, T, S] of distances, to be added to attention logits."""
    bucket_of = t5_buckets(self.max_distance + 1, self.buckets, self.max_distance)
    if isinstance(distance_bts, np.ndarray):  # fixed at compile time
      which = bucket_of[np.clip(distance_bts, 0, self.max_distance)]
    else:
      which = jnp.asarray(bucket_of)[jnp.clip(distance_bts, 0, self.max_distance)]
    return jnp.moveaxis(self.table[:, which], 0, 1)


class RelativeKeys(nn.Module):
  """Learned vectors for each distance that queries meet like keys (Shaw et al. 2018, eq. 3).

  Distances beyond `max_distance` share the last vector, so lengths extrapolate. One instance per
  layer; the value-side vectors of the paper are left out.
  """

  head_dim: int
  max_distance: int = 128

  def setup(self) -> None:
    """Makes the vectors [max_distance + 1, K]."""
    init = nn.initializers.normal(self.head_dim**-0.5)
    self.vectors = self.param('vectors', init, (self.max_distance + 1, self.head_dim))

  def __call__(self, q_bthk: jax.Array, distance_bts: np.ndarray | jax.Array) -> jax.Array:
    """Bias [B, H, T, S] of queries [B, T, H, K], to be added to attention logits."""
    vectors = self.vectors.astype(q_bthk.dtype)
    by_distance = jnp.einsum('bthk,nk->bhtn', q_bthk, vectors) * self.head_dim**-0.5
    index = jnp.clip(jnp.asarray(distance_bts), 0, self.max_distance)[:, None]
    return jnp.take_along_axis(by_distance, index, axis=-1)


class Rotary(NamedTuple):
  """The rotary embedding (Su et al. 2021), with the stretching of Llama 3 (arXiv 2407.21783).

  Attributes:
    base: the slowest pair of a head turns by about 1 / base a position.
    scaling: factor, low and high frequency factor, and the length L before stretching; or None.
      Pairs with a wavelength above L / low are slowed by the factor, those below L / high are not,
      and those between by a share that is linear in L / wavelength.
  """

  base: float = 10_000.0
  scaling: tuple[float, float, float, int] | None = None

  def frequencies(self, half: int) -> np.ndarray:
    """By how much each of `half` pairs turns a position, in radians."""
    frequency = self.base ** (-np.arange(half) / half)
    if self.scaling is None:
      return frequency
    factor, low, high, length = self.scaling
    turns = length * frequency / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return frequency * (kept + (1 - kept) / factor)

  def rotate(self, x_bthk: jax.Array, positions: jax.Array) -> jax.Array:
    """Queries or keys [B, T, H, K] turned by their positions [B, T].

    The order of rounding is that of `transformers`. Its frequencies are computed in float32, and
    these in float64, so that now and then a cosine or sine rounds to the next number in bfloat16.
    """
    frequency = self.frequencies(x_bthk.shape[-1] // 2)
    angle = positions[:, :, None, None].astype(jnp.float32) * frequency[None, None, None]
    cos, sin = jnp.cos(angle).astype(x_bthk.dtype), jnp.sin(angle).astype(x_bthk.dtype)
    left, right = jnp.split(x_bthk, 2, axis=-1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)
