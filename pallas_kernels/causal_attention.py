# SPDX-License-Identifier: Apache-2.0
"""Causal attention of packed rows with a bias for each distance; no [T, T] array is held.

The Pallas kernels are flash attention (Dao et al. 2022) with time in the lanes: a tile of scores
has keys as rows and queries as columns, so that a query's maximum and sum are rows too. A tile of
biases is one row of them by distance, spread over the tile; the gradient of the biases is folded
back the same way. Of JAX's own TPU kernels flash_attention takes such a bias only as an array
[B, H, T, T], and splash_attention takes none.

Legend: B batch, T length, H heads, K width of a head, N buckets of distances; tiles of t tokens.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.attention import attention, attention_reference

IMPLEMENTATIONS = ('reference', 'xla', 'pallas')
DTYPES = ('float32', 'bfloat16')
UNSEEN = -1e30  # a score: −∞ − −∞ would be no number
PADDING = -1  # segment of the tokens that fill the last tile


@dataclasses.dataclass(frozen=True)
class BlockSizes:
  """Tiles of the Pallas kernels.

  Attributes:
    t: most queries, and keys, a tile: a power of two, at least 128. Shorter texts get less.
  """

  t: int = 512

  def __post_init__(self) -> None:
    if self.t < 128 or self.t & (self.t - 1):
      raise ValueError(f'tiles of {self.t} tokens: t must be a power of two, at least 128.')

  def fitted(self, length: int) -> int:
    """Tokens a tile for texts of this length."""
    return min(self.t, max(128, 1 << (length - 1).bit_length()))

  def check_memory(self, width: int, itemsize: int, limit: int = 14 * 2**20) -> None:
    """Raises ValueError if the tiles do not fit a TPU core's vector memory beside each other."""
    blocks = 2 * itemsize * width * self.t * 6  # double-buffered: q, k, v, a slope, two results
    used = blocks + 4 * self.t * (2 * width + 8 * self.t)  # sums; scores, and biases twice as wide
    if used > limit:
      raise ValueError(
        f'tiles of {self.t} tokens at width {width} take {used / 2**20:.1f} MiB of '
        f'{limit / 2**20:.0f} MiB vector memory: choose smaller ones.'
      )


def bias_and_mask(
  segments: jax.Array, table: jax.Array | None, starts: tuple[int, ...]
) -> tuple[jax.Array | None, jax.Array]:
  """What the other implementations hold: biases [1, H, T, T] or None, and mask [B, 1, T, T]."""
  length = segments.shape[1]
  distance = np.arange(length)[:, None] - np.arange(length)[None]
  mask = (segments[:, :, None] == segments[:, None]) & (distance >= 0)[None]
  if table is None:
    return None, mask[:, None]
  bucket = np.searchsorted(starts, np.maximum(distance, 0), side='right') - 1
  return table[None, :, bucket], mask[:, None]


def causal_attention_reference(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segments: jax.Array,
  table: jax.Array | None = None,
  starts: tuple[int, ...] = (),
) -> jax.Array:
  """The specification: `jax.nn.dot_product_attention` with the whole mask and bias."""
  return attention_reference(q, k, v, *bias_and_mask(segments, table, starts))


# --- pallas: TPU kernels --------------------------------------------------------------------------


def _spread(row):
  """Rows s = 0…t − 1 of [t, t] from a row [1, 2t] by distance: entry (s, i) is that at t + i − s.

  By doubling: rows with a bit set in s are those without, rolled by it.
  """
  rows = jnp.broadcast_to(row, (8, row.shape[1]))
  rows = pltpu.roll(rows, 0, 1, stride=1, stride_axis=0)
  while len(rows) < row.shape[1] // 2:
    rows = jnp.concatenate([rows, pltpu.roll(rows, len(rows), 1)])
  return rows[:, row.shape[1] // 2 :]


def _folded(tile):
  """The sums [1, 2t] by distance of a tile [t, t], as `_spread` lays them out: its transpose."""
  size = 2 * len(tile)
  rows = jnp.concatenate([jnp.zeros_like(tile), tile], axis=1)
  while len(rows) > 1:
    half = len(rows) // 2
    rows = rows[:half] + pltpu.roll(rows[half:], size - half, 1)
  return rows


def _hot(starts_ref, first, size):
  """Whether each of the distances first, first + 1, … lies in a bucket: 0 or 1, [N, size]."""
  ends = starts_ref[...]
  distance = first + lax.broadcasted_iota(jnp.int32, (len(ends), size), 1)
  return ((distance >= ends[:, :1]) & (distance < ends[:, 1:])).astype(jnp.float32)


def _scores(first, q_ref, k_ref, mine_ref, theirs_ref, bias_refs):
  """Scores [s, t] of a tile of keys and queries whose first two are first + t apart."""
  tile, width = q_ref.shape[3], q_ref.shape[2]
  scores = _product(k_ref[0, 0], q_ref[0, 0], 0, 0) * width**-0.5
  if bias_refs:
    table_ref, starts_ref = bias_refs
    hot = _hot(starts_ref, first, 2 * tile)
    scores += _spread((table_ref[0] * hot).sum(axis=0, keepdims=True))
  key, query = (lax.broadcasted_iota(jnp.int32, scores.shape, axis) for axis in (0, 1))
  seen = (theirs_ref[0].reshape(tile, 1) == mine_ref[0]) & (first + tile + query - key >= 0)
  return jnp.where(seen, scores, UNSEEN)


def _product(a, b, axis_a, axis_b):
  """Float32 matrix product that sums over an axis of each."""
  return lax.dot_general(
    a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=jnp.float32
  )


def _forward_kernel(biased, q_ref, k_ref, v_ref, mine_ref, theirs_ref, *refs):
  bias_refs, (out_ref, lse_ref, top_ref, total_ref, sum_ref) = refs[: 2 * biased], refs[-5:]
  i, j = pl.program_id(2), pl.program_id(3)

  @pl.when(j == 0)
  def _():
    top_ref[...] = jnp.full_like(top_ref, UNSEEN)
    total_ref[...] = jnp.zeros_like(total_ref)
    sum_ref[...] = jnp.zeros_like(sum_ref)

  @pl.when(j <= i)
  def _():
    first = (i - j - 1) * q_ref.shape[3]
    scores_st = _scores(first, q_ref, k_ref, mine_ref, theirs_ref, bias_refs)
    top_1t = jnp.maximum(top_ref[...], scores_st.max(axis=0, keepdims=True))
    weights_st, shrink_1t = jnp.exp(scores_st - top_1t), jnp.exp(top_ref[...] - top_1t)
    total_ref[...] = total_ref[...] * shrink_1t + weights_st.sum(axis=0, keepdims=True)
    v_ks = v_ref[0, 0]
    sum_ref[...] = sum_ref[...] * shrink_1t + _product(v_ks, weights_st.astype(v_ks.dtype), 1, 0)
    top_ref[...] = top_1t

  @pl.when(j == i)
  def _():
    out_ref[0, 0] = (sum_ref[...] / total_ref[...]).astype(out_ref.dtype)
    lse_ref[0, 0] = top_ref[...] + jnp.log(total_ref[...])


def _slopes(first, refs, bias_refs):
  """Weights [s, t] of a tile, and the derivatives of the loss by its scores."""
  q_ref, k_ref, v_ref, mine_ref, theirs_ref, lse_ref, inner_ref, d_out_ref = refs
  scores_st = _scores(first, q_ref, k_ref, mine_ref, theirs_ref, bias_refs)
  weights_st = jnp.exp(scores_st - lse_ref[0, 0])
  d_weights_st = _product(v_ref[0, 0], d_out_ref[0, 0], 0, 0)
  return weights_st, weights_st * (d_weights_st - inner_ref[0, 0])


def _query_kernel(biased, *refs):
  inputs, bias_refs = refs[:8], refs[8 : 8 + 2 * biased]
  d_q_ref, *d_table_ref, sum_ref = refs[8 + 2 * biased :]
  k_ref, tile = inputs[1], d_q_ref.shape[3]
  b, i, j = (pl.program_id(axis) for axis in (1, 2, 3))

  @pl.when((b == 0) & (i == 0) & (j == 0))  # all texts of a head add to one block
  def _():
    for ref in d_table_ref:
      ref[...] = jnp.zeros_like(ref)

  @pl.when(j == 0)
  def _():
    sum_ref[...] = jnp.zeros_like(sum_ref)

  @pl.when(j <= i)
  def _():
    first = (i - j - 1) * tile
    _, d_scores_st = _slopes(first, inputs, bias_refs)
    sum_ref[...] += _product(k_ref[0, 0], d_scores_st.astype(k_ref.dtype), 1, 0)
    for ref in d_table_ref:
      by_bucket = _hot(bias_refs[1], first, 2 * tile) * _folded(d_scores_st)
      ref[0] += by_bucket.sum(axis=1, keepdims=True)

  @pl.when(j == i)
  def _():
    d_q_ref[0, 0] = (sum_ref[...] * d_q_ref.shape[2] ** -0.5).astype(d_q_ref.dtype)


def _key_kernel(biased, *refs):
  inputs, bias_refs = refs[:8], refs[8 : 8 + 2 * biased]
  d_k_ref, d_v_ref, sum_k_ref, sum_v_ref = refs[-4:]
  q_ref, d_out_ref = inputs[0], inputs[-1]
  j, i = pl.program_id(2), pl.program_id(3)

  @pl.when(i == 0)
  def _():
    sum_k_ref[...] = jnp.zeros_like(sum_k_ref)
    sum_v_ref[...] = jnp.zeros_like(sum_v_ref)

  @pl.when(j <= i)
  def _():
    first = (i - j - 1) * q_ref.shape[3]
    weights_st, d_scores_st = _slopes(first, inputs, bias_refs)
    sum_v_ref[...] += _product(d_out_ref[0, 0], weights_st.astype(d_out_ref.dtype), 1, 1)
    sum_k_ref[...] += _product(q_ref[0, 0], d_scores_st.astype(q_ref.dtype), 1, 1)

  @pl.when(i == pl.num_programs(3) - 1)
  def _():
    d_k_ref[0, 0] = (sum_k_ref[...] * d_k_ref.shape[2] ** -0.5).astype(d_k_ref.dtype)
    d_v_ref[0, 0] = sum_v_ref[...].astype(d_v_ref.dtype)


def _specs(q, tile, bias, keys_outside):
  """Specs of queries, keys, a number for each query, the two rows of segments, and the biases.

  The grid is (heads, texts, tiles, tiles): the last is that summed over, of keys, or of queries
  where the tiles of keys are outside.
  """
  # Keys after all queries of a tile give nothing: then what was loaded stays, and nothing is.
  if keys_outside:
    spec = lambda shape, at: pl.BlockSpec(shape, lambda h, b, j, i: at(h, b, jnp.maximum(i, j), j))
  else:
    spec = lambda shape, at: pl.BlockSpec(shape, lambda h, b, i, j: at(h, b, i, jnp.minimum(i, j)))
  return (
    spec((1, 1, q.shape[2], tile), lambda h, b, i, j: (b, h, 0, i)),
    spec((1, 1, q.shape[2], tile), lambda h, b, i, j: (b, h, 0, j)),
    spec((1, 1, 1, tile), lambda h, b, i, j: (b, h, 0, i)),
    [
      spec((1, 1, tile), lambda h, b, i, j: (b, 0, i)),
      spec((1, 1, tile), lambda h, b, i, j: (b, 0, j)),
    ],
    [
      spec((1, *part.shape[1:]), lambda h, b, i, j: (h, 0, 0))
      if part.ndim == 3
      else spec(part.shape, lambda h, b, i, j: (0, 0))
      for part in bias
    ],
  )


def _call(kernel, q, tile, in_specs, out_specs, outputs, scratch, interpret):
  batch, heads, _, length = q.shape
  return pl.pallas_call(
    kernel,
    grid=(heads, batch, length // tile, length // tile),
    in_specs=in_specs,
    out_specs=out_specs,
    out_shape=[jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in outputs],
    scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'arbitrary', 'arbitrary', 'arbitrary')
    ),
    interpret=interpret,
  )


def _bias_arrays(table, starts):
  """The table [H, N, 1] in float32 and the ends of its buckets [N, 2], or nothing."""
  if table is None:
    return ()
  ends = np.stack([starts, [*starts[1:], np.iinfo(np.int32).max]], axis=1)
  return table.astype(jnp.float32)[..., None], jnp.asarray(ends, jnp.int32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _flash(tile, interpret, starts, q, k, v, segments, table):
  """[B, H, K, T] of q, k and v of that shape; segments [B, 1, T]; T whole tiles."""
  return _forward(tile, interpret, starts, q, k, v, segments, table)[0]


def _forward(tile, interpret, starts, q, k, v, segments, table):
  bias = _bias_arrays(table, starts)
  query, key, row, places, biases = _specs(q, tile, bias, keys_outside=False)
  out, lse = _call(
    functools.partial(_forward_kernel, bool(bias)),
    q, tile,
    [query, key, key, *places, *biases],
    [query, row],
    [(q.shape, q.dtype), ((*q.shape[:2], 1, q.shape[3]), jnp.float32)],
    [(1, tile), (1, tile), (q.shape[2], tile)],
    interpret,
  )(q, k, v, segments, segments, *bias)  # fmt: skip
  return out, (q, k, v, segments, table, out, lse)


def _backward(tile, interpret, starts, saved, d_out):
  q, k, v, segments, table, out, lse = saved
  inner = jnp.einsum(
    'bhkt,bhkt->bht', out, d_out, preferred_element_type=jnp.float32
  )[:, :, None]  # fmt: skip
  bias = _bias_arrays(table, starts)
  inputs = (q, k, v, segments, segments, lse, inner, d_out, *bias)
  sums = [(q.shape[2], tile)]
  query, key, row, places, biases = _specs(q, tile, bias, keys_outside=False)
  d_q, *d_table = _call(
    functools.partial(_query_kernel, bool(bias)),
    q, tile,
    [query, key, key, *places, row, row, query, *biases],
    [query, *biases[:1]],
    [(q.shape, q.dtype), *[(part.shape, part.dtype) for part in bias[:1]]],
    sums,
    interpret,
  )(*inputs)  # fmt: skip
  query, key, row, places, biases = _specs(q, tile, bias, keys_outside=True)
  d_k, d_v = _call(
    functools.partial(_key_kernel, bool(bias)),
    q, tile,
    [query, key, key, *places, row, row, query, *biases],
    [key, key],
    [(k.shape, k.dtype), (v.shape, v.dtype)],
    sums * 2,
    interpret,
  )(*inputs)  # fmt: skip
  d_table = d_table[0][..., 0].astype(table.dtype) if bias else None
  return d_q, d_k, d_v, np.zeros(segments.shape, jax.dtypes.float0), d_table


_flash.defvjp(_forward, _backward)


def pallas(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segments: jax.Array,
  table: jax.Array | None = None,
  starts: tuple[int, ...] = (),
  blocks: BlockSizes = BlockSizes(),
  interpret: object = False,
) -> jax.Array:
  """The TPU kernels, whatever the backend: for compiling."""
  length = q.shape[1]
  tile = blocks.fitted(length)
  BlockSizes(tile).check_memory(q.shape[3], q.dtype.itemsize)
  spare = -length % tile
  in_lanes = lambda x: jnp.pad(x.transpose(0, 2, 3, 1), ((0, 0), (0, 0), (0, 0), (0, spare)))
  segments = jnp.pad(segments, ((0, 0), (0, spare)), constant_values=PADDING)[:, None]
  out = _flash(tile, interpret, starts, in_lanes(q), in_lanes(k), in_lanes(v), segments, table)
  return out[..., :length].transpose(0, 3, 1, 2)


# --- the public function --------------------------------------------------------------------------


def preferred(width: int, dtype: jnp.dtype, blocks: BlockSizes = BlockSizes()) -> str:
  """What `causal_attention` takes where no implementation is named: 'pallas' or 'xla'."""
  if jax.default_backend() != 'tpu' or jnp.dtype(dtype).name not in DTYPES:
    return 'xla'
  try:
    blocks.check_memory(width, jnp.dtype(dtype).itemsize)
  except ValueError:
    return 'xla'
  return 'pallas'


def causal_attention(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segments: jax.Array,
  *,
  table: jax.Array | None = None,
  starts: tuple[int, ...] = (),
  implementation: str | None = None,
  blocks: BlockSizes = BlockSizes(),
  interpret: object = False,
) -> jax.Array:
  """Returns [B, T, H, K]: softmax(q·k/√K + bias) over what a token may see, times v.

  A token sees itself and the tokens before it that have its segment.

  Args:
    q: queries [B, T, H, K].
    k: keys [B, T, H, K].
    v: values [B, T, H, K].
    segments: int32 [B, T], the document that each token is of, none below 0.
    table: biases [H, N], one for each bucket of distances, or None.
    starts: the least distance in each bucket, [N], rising from 0.
    implementation: 'reference'; 'xla' (`pallas_kernels.attention`, with arrays [B, H, T, T], on
      any backend); 'pallas' (on a TPU; of each text it holds a tile [t, t]); or None for 'pallas'
      where it can run and for 'xla' elsewhere.
    blocks: tiles of 'pallas'.
    interpret: emulate 'pallas' on any backend (for tests: slow); True, or pltpu.InterpretParams.

  Raises:
    ValueError: no such implementation, one that cannot run here, tiles that do not fit, or a table
      and starts that do not fit each other.
  """
  chosen = implementation or preferred(q.shape[3], q.dtype, blocks)
  if chosen not in IMPLEMENTATIONS:
    raise ValueError(
      f'causal_attention has no implementation {implementation!r}; choose None or one of '
      f'{", ".join(IMPLEMENTATIONS)}.'
    )
  buckets = 0 if table is None else table.shape[1]
  if len(starts) != buckets or list(starts[:1]) not in ([], [0]) or sorted(starts) != list(starts):
    raise ValueError(
      f'starts of {len(starts)} buckets do not fit a table of {buckets}: they rise from 0, one for '
      'each bucket.'
    )
  if chosen == 'reference':
    return causal_attention_reference(q, k, v, segments, table, starts)
  if chosen == 'xla':
    bias, mask = bias_and_mask(segments, table, starts)
    return attention(q, k, v, bias, mask=mask)
  if not interpret and jax.default_backend() != 'tpu':
    raise ValueError(
      f"implementation 'pallas' runs on a TPU, not on {jax.default_backend()}: leave it None, or "
      "name 'xla'."
    )
  if q.dtype.name not in DTYPES:
    raise ValueError(f'queries of {q.dtype}: the kernels take {" or ".join(DTYPES)}.')
  return pallas(q, k, v, segments, table, starts, blocks, interpret)
