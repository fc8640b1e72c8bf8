# SPDX-License-Identifier: Apache-2.0
"""A softmax over a vocabulary seen tile by tile: what the fused losses share.

`axis` is the axis of a tile along which the vocabulary lies. What is kept for each position has
size 1 along it.

Legend: n positions and v vocabulary rows of a tile, D model width.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl

Arrays = tuple[jax.Array, ...]


def products(a_xd: jax.Array, b_yd: jax.Array) -> jax.Array:
  """Inner products [x, y] of rows, in float32."""
  return lax.dot_general(a_xd, b_yd, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)


def hits(
  start: jax.Array | int, targets: jax.Array, shape: tuple[int, ...], axis: int
) -> jax.Array:
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


def forward_step(
  j: jax.Array | int,
  last: jax.Array | int,
  logits_vn: jax.Array,
  hit_vn: jax.Array,
  outputs: tuple[Any, Any],
  scratch: tuple[Any, Any],
) -> None:
  """What a forward kernel does with vocabulary tile j of positions in rows [1, n].

  Args:
    j: the tile, from 0.
    last: the last one.
    logits_vn: of the tile.
    hit_vn: where they are the targets'.
    outputs: references of log-sum-exp and target's logit, [1, n], complete after the last tile.
    scratch: references [1, n] of float32 that stay between tiles.
  """
  (lse_ref, picked_ref), (top_ref, total_ref) = outputs, scratch

  @pl.when(j == 0)
  def _():
    top_ref[...] = jnp.full_like(top_ref, -jnp.inf)
    total_ref[...] = jnp.zeros_like(total_ref)
    picked_ref[...] = jnp.zeros_like(picked_ref)

  kept = (top_ref, total_ref, picked_ref)
  for ref, value in zip(kept, accumulate(logits_vn, hit_vn, *(ref[...] for ref in kept), axis=0)):
    ref[...] = value

  @pl.when(j == last)
  def _():
    lse_ref[...] = top_ref[...] + jnp.log(total_ref[...])


def add_step(
  j: jax.Array | int, last: jax.Array | int, part: jax.Array, sum_ref: Any, out_ref: Any
) -> None:
  """Adds a tile's part to a float32 sum, which is written out after the last tile.

  A column may be written as a row.
  """

  @pl.when(j == 0)
  def _():
    sum_ref[...] = jnp.zeros_like(sum_ref)

  sum_ref[...] += part

  @pl.when(j == last)
  def _():
    out_ref[...] = sum_ref[...].reshape(out_ref.shape).astype(out_ref.dtype)


def transposed_product(a_xy: jax.Array, b_xz: jax.Array) -> jax.Array:
  """aᵀ · b, [y, z], in float32."""
  return lax.dot_general(a_xy, b_xz, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def with_gradients(
  forward: Callable, backward: Callable, trained: Arrays, fixed: Arrays
) -> tuple[jax.Array, jax.Array]:
  """forward(*trained, *fixed): log-sum-exp and target's logit, with a gradient given by hand.

  Args:
    forward: as above.
    backward: (*trained, *fixed, lse, g_lse, g_picked) -> the derivatives by each of `trained`.
    trained: arrays.
    fixed: integer arrays, of which there is no derivative.
  """
  return forward(*trained, *fixed)


def _forward(forward, backward, trained, fixed):
  lse, picked = forward(*trained, *fixed)
  return (lse, picked), (trained, fixed, lse)


def _backward(forward, backward, residuals, g):
  trained, fixed, lse = residuals
  slopes = backward(*trained, *fixed, lse, *g)
  none = tuple(np.zeros(x.shape, jax.dtypes.float0) for x in fixed)
  return tuple(slope.astype(x.dtype) for slope, x in zip(slopes, trained, strict=True)), none


with_gradients.defvjp(_forward, _backward)


def nats_and_lse(
  lse: jax.Array, picked: jax.Array, targets: jax.Array, vocab_size: int
) -> tuple[jax.Array, jax.Array]:
  """The loss of each position: (lse − target's logit, lse); (0, 0) below id 0, NaN from V on."""
  ignored = targets < 0
  nats = jnp.where(targets < vocab_size, lse - picked, jnp.nan)
  return jnp.where(ignored, 0.0, nats), jnp.where(ignored, 0.0, lse)
