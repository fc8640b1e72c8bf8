# SPDX-License-Identifier: Apache-2.0
"""The loss of an LM head on GPUs, whose logits stay in registers, by Pallas's Triton backend.

A block of threads computes a tile of logits and writes a reduction of it. Without gradients this is
one number per position: float32 logits are never written to memory.

With gradients, the block also writes the tile's exponentials, relative to its own maximum, in the
dtype of the products. When a part of the positions has passed the whole vocabulary, its log-sum-exp
is known. One multiplication turns the exponentials into gradients with respect to the logits, and
the two products with these follow at once. So there are three matrix products, not four. The
weights of positions in the loss are only known later. If all positions with a target have the same
weight, as in a mean, the gradient is scaled. Otherwise logits and gradients are computed again, for
one part of the vocabulary at a time.

Legend: N positions, D model width, V vocabulary; tiles of n positions, v rows and d of the width.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from pallas_kernels import softmax_tiles as tiles

FILL = -1e30  # bias of the rows that fill the last tile
PARTS = 16  # parts of the positions or of the ids; the logit gradients of one part are stored
POSITIONS, IDS = 1024, 4096  # least positions and ids of a part


# A tile's positions, vocabulary rows and columns of the width (powers of two); its warps; the
# stages of its pipeline; and the tiles of positions that use the same rows one after another, from
# the cache. Chosen on an H200 at width 1,024: the fastest of ten tile sizes and of four group
# sizes.
TILE_N, TILE_V, TILE_D = 128, 256, 64
WARPS, STAGES, GROUP = 8, 3, 16


def _place(count_n: int):
  """The tile of this step; each group of positions passes the whole vocabulary."""
  step, rows = pl.program_id(0), pl.num_programs(0) // count_n
  group, inside = step // (GROUP * rows), step % (GROUP * rows)
  height = jnp.minimum(count_n - group * GROUP, GROUP)
  i, j = group * GROUP + inside % height, inside // height
  return i, j, pl.ds(i * TILE_N, TILE_N), pl.ds(j * TILE_V, TILE_V)


def _logits(positions, rows, h_ref, w_ref, b_ref):
  def product(k, sum_nv):
    part = pl.ds(k * TILE_D, TILE_D)
    return sum_nv + tiles.products(h_ref[positions, part], w_ref[rows, part])

  zero = jnp.zeros((TILE_N, TILE_V), jnp.float32)
  return lax.fori_loop(0, h_ref.shape[1] // TILE_D, product, zero) + b_ref[rows][None]


def _sum_kernel(h_ref, w_ref, b_ref, part_ref, *exponentials_ref):
  _, j, positions, rows = _place(h_ref.shape[0] // TILE_N)
  logits_nv = _logits(positions, rows, h_ref, w_ref, b_ref)
  top = logits_nv.max(axis=1)
  exponentials = jnp.exp(logits_nv - top[:, None])
  log = jnp.log(exponentials.sum(axis=1))
  part_ref[0, j, positions], part_ref[1, j, positions] = top, log
  for ref in exponentials_ref:
    ref[positions, rows] = exponentials.astype(ref.dtype)


def _slope_kernel(h_ref, w_ref, b_ref, t_ref, lse_ref, gl_ref, gp_ref, slope_ref, sum_ref):
  i, j, positions, rows = _place(h_ref.shape[0] // TILE_N)
  logits_nv = _logits(positions, rows, h_ref, w_ref, b_ref)
  hit_nv = tiles.hits(j * TILE_V, t_ref[positions][:, None], logits_nv.shape, axis=1)
  columns = (ref[positions][:, None] for ref in (lse_ref, gl_ref, gp_ref))
  slope_nv = tiles.slope(logits_nv, hit_nv, *columns)
  slope_ref[positions, rows] = slope_nv.astype(slope_ref.dtype)
  sum_ref[i, rows] = slope_nv.sum(axis=0)


def _call(kernel: Callable, interpret: bool, outputs: Sequence, *arrays: jax.Array) -> Any:
  whole = lambda x: pl.BlockSpec(x.shape, lambda i: (0,) * x.ndim)
  (count, _), (rows, _) = arrays[0].shape, arrays[1].shape
  return pl.pallas_call(
    kernel,
    grid=((count // TILE_N) * (rows // TILE_V),),
    in_specs=[whole(x) for x in arrays],
    out_specs=[whole(x) for x in outputs],
    out_shape=outputs,
    compiler_params=plgpu.CompilerParams(num_warps=WARPS, num_stages=STAGES),
    interpret=interpret,
  )(*arrays)


def _to(x: jax.Array, *multiples: int, fill: float = 0) -> jax.Array:
  """An array padded so that its first axes are multiples."""
  spare = [(0, -length % multiple) for length, multiple in zip(x.shape, multiples)]
  return jnp.pad(x, spare + [(0, 0)] * (x.ndim - len(spare)), constant_values=fill)


def _part(count: int, least: int, tile: int) -> int:
  """Size of a part of the positions or ids: equal parts, in whole tiles."""
  times = -(-count // max(least, count // PARTS))
  return -(-count // (times * tile)) * tile


def _picked(hidden, table, bias, targets):
  """Each target's logit, 0 for the target −1."""
  at = jnp.maximum(targets, 0)
  logit = jnp.einsum('nd,nd->n', hidden, table[at], preferred_element_type=jnp.float32) + bias[at]
  return jnp.where(targets < 0, 0.0, logit)


def _sums(interpret, h, w, b, extra=()):
  """Log-sum-exps [N] of whole tiles, what they were before summing, [2, V / v, N], and extras."""
  parts = jax.ShapeDtypeStruct((2, len(w) // TILE_V, len(h)), jnp.float32)
  parts, *extra = _call(_sum_kernel, interpret, [parts, *extra], h, w, b)
  return jax.nn.logsumexp(parts.sum(axis=0), axis=0), parts, *extra


def forward(
  interpret: bool,
  hidden: jax.Array,
  table: jax.Array,
  bias: jax.Array,
  targets: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Log-sum-exp and target's logit, float32 [N], of hidden [N, D] against a table [V, D]."""
  h, w, b = _to(hidden, TILE_N, TILE_D), _to(table, TILE_V, TILE_D), _to(bias, TILE_V, fill=FILL)
  lse, _ = _sums(interpret, h, w, b)
  return lse[: len(hidden)], _picked(hidden, table, bias, targets)


def backward(
  interpret: bool,
  hidden: jax.Array,
  table: jax.Array,
  bias: jax.Array,
  targets: jax.Array,
  lse: jax.Array,
  g_lse: jax.Array,
  g_picked: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Gradients with respect to hidden, table and bias, from recomputed logits."""
  rows = _part(len(table), IDS, TILE_V)
  h, w, b = _to(hidden, TILE_N, TILE_D), _to(table, rows, TILE_D), _to(bias, rows, fill=FILL)
  t, columns = _to(targets, TILE_N, fill=-1), [_to(x, TILE_N) for x in (lse, g_lse, g_picked)]
  outputs = [
    jax.ShapeDtypeStruct((len(h), rows), h.dtype),
    jax.ShapeDtypeStruct((len(h) // TILE_N, rows), jnp.float32),
  ]

  def part(d_hidden, chunk):
    start, w_vd, b_v = chunk
    slope, sums = _call(_slope_kernel, interpret, outputs, h, w_vd, b_v, t - start, *columns)
    d_hidden += jnp.dot(slope, w_vd, preferred_element_type=jnp.float32)
    d_table = tiles.transposed_product(slope, h).astype(table.dtype)
    return d_hidden, (d_table, sums.sum(axis=0))

  starts = jnp.arange(0, len(w), rows, dtype=jnp.int32)
  chunks = starts, w.reshape(-1, rows, w.shape[1]), b.reshape(-1, rows)
  d_hidden, (d_table, d_bias) = lax.scan(part, jnp.zeros(h.shape, jnp.float32), chunks)
  d_table = d_table.reshape(w.shape)[: len(table), : table.shape[1]]
  return d_hidden[: len(hidden), : hidden.shape[1]], d_table, d_bias.ravel()[: len(table)]


# --- nats and penalty, with the gradient computed in the forward pass
# --------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def loss(
  interpret: bool,
  z_loss: float,
  hidden: jax.Array,
  table: jax.Array,
  bias: jax.Array,
  targets: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Nats of each target and z_loss times the square of the log-sum-exp, float32 [N]; 0 for −1."""
  return _results(z_loss, targets, *forward(interpret, hidden, table, bias, targets))


def _results(z_loss, targets, lse, picked):
  counts = targets >= 0
  return jnp.where(counts, lse - picked, 0.0), jnp.where(counts, z_loss * lse**2, 0.0)


def _with_gradient(interpret, z_loss, hidden, table, bias, targets):
  """Results, and the gradient of the sum of both results."""
  perturbed = table.perturbed, bias.perturbed
  hidden, table, bias, targets = (x.value for x in (hidden, table, bias, targets))
  count = _part(len(hidden), POSITIONS, TILE_N)
  h, w, b = _to(hidden, count, TILE_D), _to(table, TILE_V, TILE_D), _to(bias, TILE_V, fill=FILL)
  exponentials = jax.ShapeDtypeStruct((count, len(w)), h.dtype)

  def part(sums, chunk):
    h_nd, t_n = chunk
    lse, parts, below = _sums(interpret, h_nd, w, b, [exponentials])
    weight = jnp.where(t_n < 0, 0.0, 1 + 2 * z_loss * lse)
    share = jnp.exp(parts[0] - lse[None]) * weight[None]
    wide = below.reshape(count, -1, TILE_V).astype(jnp.float32) * share.T[..., None]
    hit = tiles.hits(0, t_n[:, None], below.shape, axis=1)
    slope = (wide.reshape(below.shape) - hit).astype(h.dtype)
    d_hidden = jnp.dot(slope, w, preferred_element_type=jnp.float32).astype(h.dtype)
    d_table, d_bias = sums
    if d_table is not None:
      d_table += tiles.transposed_product(slope, h_nd)
    if d_bias is not None:
      d_bias += slope.sum(axis=0, dtype=jnp.float32)
    return (d_table, d_bias), (lse, d_hidden)

  zeros = [jnp.zeros(x.shape, jnp.float32) if p else None for x, p in zip((w, b), perturbed)]
  chunks = h.reshape(-1, count, h.shape[1]), _to(targets, count, fill=-1).reshape(-1, count)
  (d_table, d_bias), (lse, d_hidden) = lax.scan(part, tuple(zeros), chunks)
  lse = lse.ravel()[: len(hidden)]
  d_hidden = d_hidden.reshape(h.shape)[: len(hidden), : hidden.shape[1]]
  if d_table is not None:
    d_table = d_table[: len(table), : table.shape[1]].astype(table.dtype)
  if d_bias is not None:
    d_bias = d_bias[: len(table)]
  results = _results(z_loss, targets, lse, _picked(hidden, table, bias, targets))
  return results, (hidden, table, bias, targets, lse, (d_hidden, d_table, d_bias))


def _scaled_or_anew(interpret, z_loss, residuals, slopes):
  hidden, table, bias, targets, lse, found = residuals
  dense = lambda g: jnp.zeros(g.shape, g.dtype) if isinstance(g, ZERO) else g
  g_nats, g_penalty = (dense(g) for g in slopes)
  counts = targets >= 0
  scale = jnp.max(jnp.where(counts, g_nats, -jnp.inf))
  scale = jnp.where(counts.any(), scale, 0.0)  # a part of the batch can be all padding
  even = jnp.where(counts, g_nats == scale, True).all()
  if z_loss:
    even &= jnp.where(counts, g_penalty == scale, True).all()

  def scaled():
    return jax.tree.map(lambda x: (x * scale).astype(x.dtype), found)

  def anew():
    g_lse = jnp.where(counts, g_nats + g_penalty * 2 * z_loss * lse, 0.0)
    g_picked = jnp.where(counts, -g_nats, 0.0)
    new = backward(interpret, hidden, table, bias, targets, lse, g_lse, g_picked)
    cast = lambda x, like: None if like is None else x.astype(like.dtype)
    return tuple(cast(x, like) for x, like in zip(new, found))

  return *lax.cond(even, scaled, anew), None


ZERO = jax.custom_derivatives.SymbolicZero
loss.defvjp(_with_gradient, _scaled_or_anew, symbolic_zeros=True)
