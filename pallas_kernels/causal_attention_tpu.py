# SPDX-License-Identifier: Apache-2.0
"""The kernels of `causal_attention` for TPUs: flash attention (Dao et al. 2022).

Time runs along the lanes: a tile of scores has keys as rows and queries as columns, so the maxima
and sums of queries are rows too.

Legend: B batch, T length, H heads, K width of a head; tiles of t tokens, s the keys among them.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels import distances
from pallas_kernels.distances import product
from pallas_kernels.implementations import VECTOR_MEMORY, check_vector_memory

UNSEEN = -1e30  # a score; finite, since −∞ − (−∞) is NaN
PADDING = -1  # segment of the tokens that fill the last tile


@dataclasses.dataclass(frozen=True)
class BlockSizes:
  """Tiles of the Pallas kernels.

  Attributes:
    t: queries and keys of a tile: a power of two, at least 128.
  """

  t: int

  def __post_init__(self) -> None:
    if self.t < 128 or self.t & (self.t - 1):
      raise ValueError(f'tiles of {self.t} tokens: t must be a power of two, at least 128.')

  @classmethod
  def fitting(cls, length: int, width: int, itemsize: int) -> 'BlockSizes':
    """The largest tiles that fit vector memory, up to 512 or the text's length; else the
    smallest.
    """
    fits = lambda t: cls(t).memory(width, itemsize) <= VECTOR_MEMORY
    return cls(next((t for t in (512, 256) if t < 2 * length and fits(t)), 128))

  def memory(self, width: int, itemsize: int) -> int:
    """Bytes of a TPU core's vector memory that the kernel with the largest need takes."""
    blocks = 2 * itemsize * width * self.t * 6  # double-buffered: q, k, v, a slope, two results
    return blocks + 4 * self.t * (2 * width + 8 * self.t)  # sums; scores, and biases twice as wide


def _scores(apart, q_ref, k_ref, mine_ref, theirs_ref, biases, spare):
  """Scores [s, t] of a tile of queries, and of a tile of keys a number of tiles before it."""
  tile, width = q_ref.shape[3], q_ref.shape[2]
  scores = product(k_ref[0, 0], q_ref[0, 0], 0, 0)
  if biases.vectors is not None:
    (tile_ref,) = spare
    tile_ref[...] = scores
    distances.add_near(apart, q_ref, biases.vectors, tile_ref)
    scores = tile_ref[...]
  scores *= width**-0.5
  first = (apart - 1) * tile
  if biases.table is not None:
    hot = distances.hot(biases.ends[...], first, 2 * tile)
    scores += distances.spread((biases.table[0] * hot).sum(axis=0, keepdims=True))
  key, query = (lax.broadcasted_iota(jnp.int32, scores.shape, axis) for axis in (0, 1))
  seen = (theirs_ref[0].reshape(tile, 1) == mine_ref[0]) & (first + tile + query - key >= 0)
  return jnp.where(seen, scores, UNSEEN)


def _forward_kernel(structure, q_ref, k_ref, v_ref, mine_ref, theirs_ref, *refs):
  biases = jax.tree.unflatten(structure, refs[: structure.num_leaves])
  out_ref, lse_ref, top_ref, total_ref, sum_ref, *spare = refs[structure.num_leaves :]
  i, j = pl.program_id(2), pl.program_id(3)

  @pl.when(j == 0)
  def _():
    top_ref[...] = jnp.full_like(top_ref, UNSEEN)
    total_ref[...] = jnp.zeros_like(total_ref)
    sum_ref[...] = jnp.zeros_like(sum_ref)

  @pl.when(j <= i)
  def _():
    scores_st = _scores(i - j, q_ref, k_ref, mine_ref, theirs_ref, biases, spare)
    top_1t = jnp.maximum(top_ref[...], scores_st.max(axis=0, keepdims=True))
    weights_st, shrink_1t = jnp.exp(scores_st - top_1t), jnp.exp(top_ref[...] - top_1t)
    total_ref[...] = total_ref[...] * shrink_1t + weights_st.sum(axis=0, keepdims=True)
    v_ks = v_ref[0, 0]
    sum_ref[...] = sum_ref[...] * shrink_1t + product(v_ks, weights_st.astype(v_ks.dtype), 1, 0)
    top_ref[...] = top_1t

  @pl.when(j == i)
  def _():
    out_ref[0, 0] = (sum_ref[...] / total_ref[...]).astype(out_ref.dtype)
    lse_ref[0, 0] = top_ref[...] + jnp.log(total_ref[...])


def _slopes(apart, refs, biases, spare):
  """Weights [s, t] of a tile, and the gradient of the loss with respect to its scores."""
  q_ref, k_ref, v_ref, mine_ref, theirs_ref, lse_ref, inner_ref, d_out_ref = refs
  scores_st = _scores(apart, q_ref, k_ref, mine_ref, theirs_ref, biases, spare)
  weights_st = jnp.exp(scores_st - lse_ref[0, 0])
  d_weights_st = product(v_ref[0, 0], d_out_ref[0, 0], 0, 0)
  return weights_st, weights_st * (d_weights_st - inner_ref[0, 0])


def _query_kernel(structure, trained, *refs):
  inputs, refs = refs[:8], refs[8:]
  biases = jax.tree.unflatten(structure, refs[: structure.num_leaves])
  d_q_ref, *others = refs[structure.num_leaves :]
  d_biases = jax.tree.unflatten(trained, others[: trained.num_leaves])
  sum_ref, *spare = others[trained.num_leaves :]
  q_ref, k_ref = inputs[:2]
  b, i, j = (pl.program_id(axis) for axis in (1, 2, 3))

  @pl.when((b == 0) & (i == 0) & (j == 0))  # all texts of a head accumulate into one block
  def _():
    for ref in jax.tree.leaves(d_biases):
      ref[...] = jnp.zeros_like(ref)

  @pl.when(j == 0)
  def _():
    sum_ref[...] = jnp.zeros_like(sum_ref)

  @pl.when(j <= i)
  def _():
    apart, tile = i - j, q_ref.shape[3]
    _, d_scores_st = _slopes(apart, inputs, biases, spare)
    sum_ref[...] += product(k_ref[0, 0], d_scores_st.astype(k_ref.dtype), 1, 0)
    if biases.table is not None:
      hot = distances.hot(biases.ends[...], (apart - 1) * tile, 2 * tile)
      by_bucket = hot * distances.folded(d_scores_st)
      d_biases.table[0] += by_bucket.sum(axis=1, keepdims=True)
    if biases.vectors is not None:
      distances.add_near_slopes(
        apart, d_scores_st, q_ref, biases.vectors, sum_ref, d_biases.vectors
      )

  @pl.when(j == i)
  def _():
    d_q_ref[0, 0] = (sum_ref[...] * d_q_ref.shape[2] ** -0.5).astype(d_q_ref.dtype)


def _key_kernel(structure, tiles, *refs):
  inputs, refs = refs[:8], refs[8:]
  biases = jax.tree.unflatten(structure, refs[: structure.num_leaves])
  d_k_ref, d_v_ref, sum_k_ref, sum_v_ref, *spare = refs[structure.num_leaves :]
  q_ref, d_out_ref = inputs[0], inputs[-1]
  j, step = pl.program_id(2), pl.program_id(3)  # over the tiles of all heads that see these keys
  i = lax.rem(step, tiles)

  @pl.when(step == 0)
  def _():
    sum_k_ref[...] = jnp.zeros_like(sum_k_ref)
    sum_v_ref[...] = jnp.zeros_like(sum_v_ref)

  @pl.when(j <= i)
  def _():
    weights_st, d_scores_st = _slopes(i - j, inputs, biases, spare)
    sum_v_ref[...] += product(d_out_ref[0, 0], weights_st.astype(d_out_ref.dtype), 1, 1)
    sum_k_ref[...] += product(q_ref[0, 0], d_scores_st.astype(q_ref.dtype), 1, 1)

  @pl.when(step == pl.num_programs(3) - 1)
  def _():
    d_k_ref[0, 0] = (sum_k_ref[...] * d_k_ref.shape[2] ** -0.5).astype(d_k_ref.dtype)
    d_v_ref[0, 0] = sum_v_ref[...].astype(d_v_ref.dtype)


def _specs(q, k, tile, keys_outside):
  """Specs of queries, keys, a number for each query, the two rows of segments; and of a bias.

  The grid is (heads, texts, tiles of queries, tiles of keys), and the last axis is summed over. For
  gradients of keys it is (heads of keys, texts, tiles of keys, tiles of queries of all their
  heads).
  """
  sharing, tiles = q.shape[1] // k.shape[1], q.shape[3] // tile
  # Keys after all queries of a tile contribute nothing: the loaded block stays, and none is loaded.
  place: Callable
  if keys_outside:
    place = lambda g, b, j, step: (
      g * sharing + lax.div(step, tiles),
      b,
      jnp.maximum(lax.rem(step, tiles), j),
      j,
    )
  else:
    place = lambda h, b, i, j: (h, b, i, jnp.minimum(i, j))
  spec = lambda shape, at: pl.BlockSpec(shape, lambda *ids: at(*place(*ids)))

  def bias(array):
    """A head's own where there are three dimensions, else the whole."""
    if array.ndim == 3:
      return spec((1, *array.shape[1:]), lambda h, b, i, j: (h, 0, 0))
    return spec(array.shape, lambda h, b, i, j: (0, 0))

  return (
    spec((1, 1, q.shape[2], tile), lambda h, b, i, j: (b, h, 0, i)),
    spec((1, 1, q.shape[2], tile), lambda h, b, i, j: (b, lax.div(h, sharing), 0, j)),
    spec((1, 1, 1, tile), lambda h, b, i, j: (b, h, 0, i)),
    [
      spec((1, 1, tile), lambda h, b, i, j: (b, 0, i)),
      spec((1, 1, tile), lambda h, b, i, j: (b, 0, j)),
    ],
    bias,
  )


def _call(kernel, q, tile, in_specs, out_specs, outputs, scratch, interpret, sharing=1):
  batch, heads, _, length = q.shape
  return pl.pallas_call(
    kernel,
    grid=(heads // sharing, batch, length // tile, sharing * length // tile),
    in_specs=in_specs,
    out_specs=out_specs,
    out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in outputs],
    scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'arbitrary', 'arbitrary', 'arbitrary')
    ),
    interpret=interpret,
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _flash(tile, interpret, q, k, v, segments, biases):
  """[B, H, K, T] of q of that shape, k and v [B, G, K, T], segments [B, 1, T]; T whole tiles."""
  return _forward(tile, interpret, q, k, v, segments, biases)[0]


def _spare(tile, biases):
  """Scratch in which vectors are added to scores."""
  return [] if biases.vectors is None else [(tile, tile)]


def _forward(tile, interpret, q, k, v, segments, biases):
  given, structure = jax.tree.flatten(biases)
  query, key, row, places, bias = _specs(q, k, tile, keys_outside=False)
  numbers = jax.ShapeDtypeStruct((*q.shape[:2], 1, q.shape[3]), jnp.float32)
  out, lse = _call(
    functools.partial(_forward_kernel, structure),
    q, tile,
    [query, key, key, *places, *map(bias, given)],
    [query, row],
    [q, numbers],
    [(1, tile), (1, tile), (q.shape[2], tile), *_spare(tile, biases)],
    interpret,
  )(q, k, v, segments, segments, *given)  # fmt: skip
  return out, (q, k, v, segments, biases, out, lse)


def _backward(tile, interpret, saved, d_out):
  q, k, v, segments, biases, out, lse = saved
  inner = jnp.einsum(
    'bhkt,bhkt->bht', out, d_out, preferred_element_type=jnp.float32
  )[:, :, None]  # fmt: skip
  given, structure = jax.tree.flatten(biases)
  inputs = (q, k, v, segments, segments, lse, inner, d_out, *given)
  width, scale = q.shape[2], q.shape[2] ** -0.5
  by_head = lambda x: jax.ShapeDtypeStruct((q.shape[1], *x.shape[-2:]), jnp.float32)
  summed, trained = jax.tree.flatten(jax.tree.map(by_head, biases._replace(ends=None)))
  query, key, row, places, bias = _specs(q, k, tile, keys_outside=False)
  d_q, *found = _call(
    functools.partial(_query_kernel, structure, trained),
    q, tile,
    [query, key, key, *places, row, row, query, *map(bias, given)],
    [query, *map(bias, summed)],
    [q, *summed],
    [(width, tile), *_spare(tile, biases)],
    interpret,
  )(*inputs)  # fmt: skip
  query, key, row, places, bias = _specs(q, k, tile, keys_outside=True)
  d_k, d_v = _call(
    functools.partial(_key_kernel, structure, q.shape[3] // tile),
    q, tile,
    [query, key, key, *places, row, row, query, *map(bias, given)],
    [key, key],
    [k, v],
    [(width, tile), (width, tile), *_spare(tile, biases)],
    interpret,
    sharing=q.shape[1] // k.shape[1],
  )(*inputs)  # fmt: skip
  none = lambda x: None if x is None else np.zeros(x.shape, jax.dtypes.float0)
  d_biases = jax.tree.unflatten(trained, found)._replace(ends=none(biases.ends))
  if biases.vectors is not None:  # all heads have the same
    d_vectors = (d_biases.vectors.sum(axis=0) * scale).astype(biases.vectors.dtype)
    d_biases = d_biases._replace(vectors=d_vectors)
  return d_q, d_k, d_v, none(segments), d_biases


_flash.defvjp(_forward, _backward)


def pallas(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segments: jax.Array,
  table: jax.Array | None = None,
  vectors: jax.Array | None = None,
  starts: tuple[int, ...] = (),
  blocks: BlockSizes | None = None,
  interpret: object = False,
) -> jax.Array:
  """`causal_attention` by these kernels on any backend, for ahead-of-time compilation."""
  (_, length, _, width), itemsize = q.shape, q.dtype.itemsize
  blocks = blocks or BlockSizes.fitting(length, width, itemsize)
  used = blocks.memory(width, itemsize)
  check_vector_memory(f'tiles of {blocks.t} tokens at width {width}', used)
  spare = -length % blocks.t
  in_lanes = lambda x: jnp.pad(x.transpose(0, 2, 3, 1), ((0, 0), (0, 0), (0, 0), (0, spare)))
  segments = jnp.pad(segments, ((0, 0), (0, spare)), constant_values=PADDING)[:, None]
  biases = distances.for_kernels(table, vectors, starts, q.dtype)
  out = _flash(blocks.t, interpret, in_lanes(q), in_lanes(k), in_lanes(v), segments, biases)
  return out[..., :length].transpose(0, 3, 1, 2)
