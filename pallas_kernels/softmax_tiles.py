# SPDX-License-Identifier: Apache-2.0
"""A softmax over a vocabulary seen tile by tile: what the fused losses share.

`axis` is the axis of a tile along which the vocabulary lies. What is kept for each position has
size 1 along it.

Legend: n positions and v vocabulary rows of a tile, D model width.
"""

import jax
import jax.numpy as jnp
from jax import lax

VECTOR_MEMORY = 12 * 2**20  # bytes that a kernel may plan with, of the 16 MiB XLA grants it


def check_vector_memory(tiles: str, used: int) -> None:
  """Raises ValueError if what a kernel holds at once does not fit a TPU core's vector memory."""
  if used > VECTOR_MEMORY:
    raise ValueError(
      f'{tiles} take {used / 2**20:.1f} MiB of {VECTOR_MEMORY / 2**20:.0f} MiB vector memory: '
      'choose smaller ones.'
    )


def products(a_xd: jax.Array, b_yd: jax.Array) -> jax.Array:
  """Inner products [x, y] of rows, in float32."""
  return lax.dot_general(a_xd, b_yd, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)


def hits(start: jax.Array, targets: jax.Array, shape: tuple[int, int], axis: int) -> jax.Array:
  """Where a tile that begins at vocabulary row `start` holds the target of each position."""
  return start + lax.broadcasted_iota(jnp.int32, shape, axis) == targets


def accumulate(
  logits: jax.Array,
  hit: jax.Array,
  top: jax.Array,
  total: jax.Array,
  picked: jax.Array,
  *,
  axis: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Running maximum, sum of exponentials below it, and the target's logit, after one more tile."""
  new_top = jnp.maximum(top, logits.max(axis=axis, keepdims=True))
  new_total = jnp.exp(logits - new_top).sum(axis=axis, keepdims=True)
  picked = picked + jnp.where(hit, logits, 0.0).sum(axis=axis, keepdims=True)
  return new_top, total * jnp.exp(top - new_top) + new_total, picked


def slope(
  logits: jax.Array, hit: jax.Array, lse: jax.Array, g_lse: jax.Array, g_picked: jax.Array
) -> jax.Array:
  """Derivative by the logits of one tile: g_lse · softmax + g_picked · one-hot."""
  return g_lse * jnp.exp(logits - lse) + jnp.where(hit, g_picked, 0.0)


def nats_and_lse(
  lse: jax.Array, picked: jax.Array, targets: jax.Array, vocab_size: int
) -> tuple[jax.Array, jax.Array]:
  """The loss of each position: (lse − target's logit, lse); (0, 0) below id 0, NaN from V on."""
  ignored = targets < 0
  nats = jnp.where(targets < vocab_size, lse - picked, jnp.nan)
  return jnp.where(ignored, 0.0, nats), jnp.where(ignored, 0.0, lse)
