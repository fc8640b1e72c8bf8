# SPDX-License-Identifier: Apache-2.0
"""The kernels of `causal_attention` for GPUs, by Pallas's Triton backend (Dao et al. 2022).

Softmax is unchanged if a constant is added to all scores of a query, so the bias of the largest
distance is subtracted from all biases. Then keys at distance P or more have no bias, and their
tiles are plain attention. The other biases are laid out before the kernels run: each tile of
queries and the P + t nearest keys form a strip, in which keys after a query are masked. So a tile
of biases is a block of an array, and so is a tile of their gradient, which a kernel writes and XLA
sums. Biases that are the same for all queries take one strip per head; products of queries with
vectors take one strip per query tile.

Scores are computed as q · k + bias √K, so their exponential is one multiplication and one 2ˣ.

If heads of queries share keys, each computes a part of the keys' gradient, and XLA sums the parts.

Legend: B batch, T length, H heads, G heads of keys and values, K width of a head, P distances that
have a bias, L = P + t keys of a strip; tiles of t queries and as many keys.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from pallas_kernels.softmax_tiles import products

# Chosen on an H200 among 64 and 128 queries, 32 to 128 keys, 4 and 8 warps, and 1 to 4 stages: the
# fastest for all three kernels, or within 10 % of it (widths 64 and 128, lengths 512 and 2,048).
TILE, WARPS, STAGES = 64, 4, 2
WIDTHS = (16, 32, 64, 128)  # supported widths of a head
UNSEEN = -1e30  # a score; finite, since −∞ − (−∞) is NaN
LEAST = -1e15  # initial maximum of each query; above masked scores
PADDING = -1  # segment of the tokens that fill the last tile


def _at(i):
  return pl.ds(i * TILE, TILE)


def _scale(width):
  return width**-0.5 * math.log2(math.e)


class _Strips:
  """The strips of one head of one text, [t or T, L], and the places of tiles in them."""

  def __init__(self, ref):
    self._ref = ref
    self.reach = ref.shape[1] // TILE - 1  # number of earlier tiles that have biases

  def place(self, i, j, alone=False):
    """The place of queries i and keys j in their strip: of each query, or shared by all queries."""
    return _at(0 if alone else i), _at(j - i + self.reach)

  def added(self, i, j):
    """The biases added to the scores of queries i and keys j."""
    alone = self._ref.shape[0] == TILE
    return self._ref[self.place(i, j, alone)].astype(jnp.float32)

  def scores(self, near, i, j, q, k, mine, seg_ref):
    """Scores of queries i, whose segments are `mine`, and keys j; with biases if `near`."""
    scores = products(q, k)
    if near:
      scores += self.added(i, j)
    return jnp.where(mine[:, None] == seg_ref[_at(j)][None], scores, UNSEEN)


def _forward_kernel(q_ref, k_ref, v_ref, seg_ref, strip_ref, out_ref, lse_ref):
  i, strips = pl.num_programs(0) - 1 - pl.program_id(0), _Strips(strip_ref)  # the longest first
  q, mine = q_ref[_at(i), :], seg_ref[_at(i)]
  scale = _scale(q.shape[1])

  def step(near, j, carry):
    top, total, mixed = carry
    scores = strips.scores(near, i, j, q, k_ref[_at(j), :], mine, seg_ref)
    new_top = jnp.maximum(top, scores.max(axis=1))
    weights = jnp.exp2(scores * scale - (new_top * scale)[:, None])
    shrink = jnp.exp2((top - new_top) * scale)
    v = v_ref[_at(j), :]
    part = jnp.dot(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return new_top, total * shrink + weights.sum(axis=1), mixed * shrink[:, None] + part

  carry = (
    jnp.full(TILE, LEAST, jnp.float32),
    jnp.zeros(TILE, jnp.float32),
    jnp.zeros(q.shape, jnp.float32),
  )
  far = jnp.maximum(i - strips.reach, 0)
  carry = lax.fori_loop(0, far, functools.partial(step, False), carry)
  top, total, mixed = lax.fori_loop(far, i + 1, functools.partial(step, True), carry)
  out_ref[_at(i), :] = (mixed / total[:, None]).astype(out_ref.dtype)
  lse_ref[_at(i)] = top * scale + jnp.log2(total)


def _key_kernel(q_ref, k_ref, v_ref, d_out_ref, seg_ref, strip_ref, lse_ref, inner_ref, *outputs):
  j, strips, count = pl.program_id(0), _Strips(strip_ref), q_ref.shape[0] // TILE
  k, v, theirs = k_ref[_at(j), :], v_ref[_at(j), :], seg_ref[_at(j)]

  def step(near, i, carry):
    d_k, d_v = carry
    q, d_out = q_ref[_at(i), :], d_out_ref[_at(i), :]
    scores_st = products(k, q)
    if near:
      scores_st += strips.added(i, j).T
    scores_st = jnp.where(theirs[:, None] == seg_ref[_at(i)][None], scores_st, UNSEEN)
    weights_st = jnp.exp2(scores_st * _scale(k.shape[1]) - lse_ref[_at(i)][None])
    d_v += jnp.dot(weights_st.astype(q.dtype), d_out, preferred_element_type=jnp.float32)
    slopes_st = weights_st * (products(v, d_out) - inner_ref[_at(i)][None])
    d_k += jnp.dot(slopes_st.astype(q.dtype), q, preferred_element_type=jnp.float32)
    return d_k, d_v

  zero, far = jnp.zeros(k.shape, jnp.float32), jnp.minimum(j + 1 + strips.reach, count)
  carry = lax.fori_loop(j, far, functools.partial(step, True), (zero, zero))
  d_k, d_v = lax.fori_loop(far, count, functools.partial(step, False), carry)
  for ref, value in zip(outputs, (d_k * k.shape[1] ** -0.5, d_v), strict=True):
    ref[_at(j), :] = value.astype(ref.dtype)


def _query_kernel(q_ref, k_ref, v_ref, d_out_ref, seg_ref, strip_ref, lse_ref, inner_ref, *outputs):
  d_q_ref, *d_strip_ref = outputs
  i, strips = pl.num_programs(0) - 1 - pl.program_id(0), _Strips(strip_ref)
  q, d_out, mine = q_ref[_at(i), :], d_out_ref[_at(i), :], seg_ref[_at(i)]
  lse, inner = lse_ref[_at(i)][:, None], inner_ref[_at(i)][:, None]

  def step(near, j, d_q):
    k = k_ref[_at(j), :]
    scores = strips.scores(near, i, j, q, k, mine, seg_ref)
    weights = jnp.exp2(scores * _scale(q.shape[1]) - lse)
    slopes = (weights * (products(d_out, v_ref[_at(j), :]) - inner)).astype(k.dtype)
    if near and d_strip_ref:
      d_strip_ref[0][strips.place(i, j)] = slopes
    return d_q + jnp.dot(slopes, k, preferred_element_type=jnp.float32)

  far, d_q = jnp.maximum(i - strips.reach, 0), jnp.zeros(q.shape, jnp.float32)
  d_q = lax.fori_loop(0, far, functools.partial(step, False), d_q)
  d_q = lax.fori_loop(far, i + 1, functools.partial(step, True), d_q)
  d_q_ref[_at(i), :] = (d_q * q.shape[1] ** -0.5).astype(d_q_ref.dtype)


# --- around the kernels ---------------------------------------------------------------------------


def strips_of(
  q: jax.Array, table: jax.Array | None, vectors: jax.Array | None, starts: tuple[int, ...]
) -> jax.Array:
  """The biases as strips, [1 or B, t or T, H or 1, L]; 1 if all texts, queries or heads share
  them.
  """
  last = max(starts[-1] if starts else 0, 0 if vectors is None else len(vectors) - 1)
  near = -(-last // TILE) * TILE
  distance, found = np.arange(near)[::-1], jnp.zeros((1, TILE, 1, near), q.dtype)
  if table is not None:
    row = table[:, np.searchsorted(starts, distance, side='right') - 1] - table[:, -1:]
    found = jnp.broadcast_to(row * q.shape[3] ** 0.5, (1, TILE, *row.shape)).astype(jnp.float32)
  if vectors is not None and near:
    less = vectors[np.minimum(distance, len(vectors) - 1)] - vectors[-1:]
    met = jnp.einsum('bthk,pk->bthp', q, less.astype(q.dtype))
    found = met + jnp.tile(found, (1, q.shape[1] // TILE, 1, 1)).astype(q.dtype)
  # Row i is shifted by i: flatten rows that are longer by one, and cut them again.
  batch, length, heads, _ = found.shape
  rows = found.reshape(batch, length // TILE, TILE, heads, near).swapaxes(2, 3)
  rows = jnp.pad(rows, [(0, 0)] * 4 + [(1, TILE)]).reshape(*rows.shape[:3], -1)
  rows = rows[..., : TILE * (near + TILE)].reshape(*rows.shape[:3], TILE, near + TILE)
  after = np.arange(near + TILE)[None] > np.arange(TILE)[:, None] + near
  rows = jnp.where(after[None, None, None], jnp.asarray(UNSEEN, rows.dtype), rows)
  return rows.swapaxes(2, 3).reshape(batch, length, heads, -1)


def _spec(x: Any, heads: int) -> pl.BlockSpec:
  """The block of an array that belongs to one head of a text, or to the heads that share it."""
  if x.ndim == 2:  # segments [B, T]
    return pl.BlockSpec((None, x.shape[1]), lambda i, h, b: (b, 0))
  if x.ndim == 3:  # [B, H, T]
    return pl.BlockSpec((None, None, x.shape[2]), lambda i, h, b: (b, h, 0))
  own_text, sharing = x.shape[0] > 1, heads // x.shape[2]
  place = lambda i, h, b: (b if own_text else 0, 0, lax.div(h, sharing), 0)
  return pl.BlockSpec((None, x.shape[1], None, x.shape[3]), place)


def _call(kernel: Callable, interpret: bool, arrays: Sequence, outputs: Sequence) -> Sequence:
  """A kernel over tiles, heads and texts."""
  batch, length, heads, _ = arrays[0].shape
  return pl.pallas_call(
    kernel,
    grid=(length // TILE, heads, batch),
    in_specs=[_spec(x, heads) for x in arrays],
    out_specs=[_spec(x, heads) for x in outputs],
    out_shape=outputs,
    compiler_params=plgpu.CompilerParams(num_warps=WARPS, num_stages=STAGES),
    interpret=interpret,
  )(*arrays)


def _like(x: jax.Array) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attention(starts, interpret, q, k, v, table, vectors, segments):
  return _forward(starts, interpret, q, k, v, table, vectors, segments)[0]


def _forward(starts, interpret, q, k, v, table, vectors, segments):
  batch, length, heads, _ = q.shape
  arrays = (q, k, v, segments, strips_of(q, table, vectors, starts))
  outputs = (_like(q), jax.ShapeDtypeStruct((batch, heads, length), jnp.float32))
  out, lse = _call(_forward_kernel, interpret, arrays, outputs)
  return out, (q, k, v, table, vectors, segments, out, lse)


def _backward(starts, interpret, residuals, d_out):
  q, k, v, table, vectors, segments, out, lse = residuals
  strips, pull = jax.vjp(functools.partial(strips_of, starts=starts), q, table, vectors)
  inner = jnp.einsum('bthk,bthk->bht', d_out, out, preferred_element_type=jnp.float32)
  arrays, size = (q, k, v, d_out, segments, strips, lse, inner), strips.shape[3]
  (batch, length, heads, width), groups = q.shape, k.shape[2]
  part = jax.ShapeDtypeStruct(q.shape, k.dtype if heads == groups else jnp.float32)
  parts = _call(_key_kernel, interpret, arrays, (part, part))
  if heads != groups:
    parts = [x.reshape(batch, length, groups, -1, width).sum(axis=3) for x in parts]
  d_k, d_v = parts[0].astype(k.dtype), parts[1].astype(v.dtype)
  trained = [jax.ShapeDtypeStruct((*q.shape[:3], size), q.dtype)] if size > TILE else []
  d_q, *d_strips = _call(_query_kernel, interpret, arrays, (_like(q), *trained))
  if not trained:
    return d_q, d_k, d_v, *jax.tree.map(jnp.zeros_like, (table, vectors)), None
  # Nothing was written for places before the first key.
  first = jnp.arange(q.shape[1]) // TILE * TILE + TILE - size
  there = first[:, None] + jnp.arange(size)[None] >= 0
  slopes = jnp.where(there[None, :, None], d_strips[0], 0) * q.shape[3] ** -0.5
  if strips.shape[:2] == (1, TILE):
    parts = slopes.reshape(-1, *strips.shape[1:])
    slopes = parts.astype(jnp.float32).sum(axis=0, keepdims=True)
  more, d_table, d_vectors = pull(slopes.astype(strips.dtype))
  return d_q + more, d_k, d_v, d_table, d_vectors, None


_attention.defvjp(_forward, _backward)


def triton(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segments: jax.Array,
  table: jax.Array | None = None,
  vectors: jax.Array | None = None,
  starts: tuple[int, ...] = (),
  interpret: bool = False,
) -> jax.Array:
  """The same result by the GPU kernels, on any backend, for ahead-of-time compilation."""
  length = q.shape[1]
  spare = -length % TILE
  q, k, v = (jnp.pad(x, ((0, 0), (0, spare), (0, 0), (0, 0))) for x in (q, k, v))
  segments = jnp.pad(segments, ((0, 0), (0, spare)), constant_values=PADDING)
  return _attention(starts, interpret, q, k, v, table, vectors, segments)[:, :length]
