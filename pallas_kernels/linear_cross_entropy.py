# SPDX-License-Identifier: Apache-2.0
"""Readout and softmax cross-entropy in one operation: hidden vectors in, nats out.

The logits [N, V] are the largest array of a language model with a large vocabulary. Only the
reference holds them; the others make them tile by tile, and again in the backward pass.

Legend: N positions, D model width, V vocabulary; tiles of n positions and v vocabulary rows.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

IMPLEMENTATIONS = ('reference', 'chunked', 'pallas')
HELD = 2**26  # by default the reference may hold so many logits: 256 MiB in float32
CHUNK = 4096  # vocabulary rows of which 'chunked' holds logits


@dataclasses.dataclass(frozen=True)
class BlockSizes:
  """Tiles of the Pallas kernel.

  Attributes:
    n: positions a tile, a multiple of 8.
    v: vocabulary rows a tile, a multiple of 128.
  """

  n: int = 256
  v: int = 512

  def __post_init__(self) -> None:
    if self.n % 8 or self.v % 128 or min(self.n, self.v) < 1:
      raise ValueError(f'tiles of {self.n} × {self.v}: n must be a multiple of 8 and v of 128.')

  def check_memory(self, dim: int, itemsize: int, limit: int = 12 * 2**20) -> None:
    """Raises ValueError if the tiles do not fit a TPU core's vector memory beside each other."""
    blocks = 2 * itemsize * dim * (self.n + self.v)  # double-buffered inputs
    used = blocks + 4 * dim * max(self.n, self.v) + 3 * 4 * self.n * self.v
    if used > limit:
      raise ValueError(
        f'tiles of {self.n} × {self.v} at width {dim} take {used / 2**20:.1f} MiB of '
        f'{limit / 2**20:.0f} MiB vector memory: choose smaller ones.'
      )


def linear_cross_entropy_reference(
  hidden: jax.Array, table: jax.Array, bias: jax.Array, targets: jax.Array
) -> jax.Array:
  """The specification: float32 logits of every id, then log-softmax at the target."""
  logits_nv = (
    jnp.einsum('nd,vd->nv', hidden, table, preferred_element_type=jnp.float32) + bias[None]
  )
  picked_n = jnp.take_along_axis(logits_nv, targets[:, None], axis=-1)[:, 0]
  return jax.nn.logsumexp(logits_nv, axis=-1) - picked_n


# --- tiles: the parts that 'chunked' and 'pallas' share -------------------------------------------


def _logits(h_nd, w_vd, b_1v):
  """Float32 logits [n, v] of one tile."""
  product = lax.dot_general(
    h_nd, w_vd, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
  )
  return product + b_1v


def _accumulate(logits_nv, hit_nv, top_n1, total_n1, picked_n1):
  """Running maximum, sum of exponentials below it, and the target's logit, after one more tile."""
  new_top_n1 = jnp.maximum(top_n1, logits_nv.max(axis=1, keepdims=True))
  exponentials_nv = jnp.exp(logits_nv - new_top_n1)
  total_n1 = total_n1 * jnp.exp(top_n1 - new_top_n1) + exponentials_nv.sum(axis=1, keepdims=True)
  picked_n1 = picked_n1 + jnp.where(hit_nv, logits_nv, 0.0).sum(axis=1, keepdims=True)
  return new_top_n1, total_n1, picked_n1


def _slope(logits_nv, hit_nv, lse_n1, g_n1):
  """Derivative of the loss by the logits of one tile: g · (softmax − one-hot)."""
  return g_n1 * (jnp.exp(logits_nv - lse_n1) - hit_nv.astype(jnp.float32))


def _columns(start, shape):
  return start + lax.broadcasted_iota(jnp.int32, shape, 1)


# --- chunked: a scan over the vocabulary, on any backend ------------------------------------------


def _chunks(table, bias):
  """The table and bias as [chunks, v, D] and [chunks, 1, v]; rows past V have bias −∞."""
  size = min(CHUNK, table.shape[0])
  spare = -table.shape[0] % size
  table = jnp.pad(table, ((0, spare), (0, 0)))
  bias = jnp.pad(bias, (0, spare), constant_values=-jnp.inf)
  starts = jnp.arange(0, table.shape[0], size, dtype=jnp.int32)
  return starts, table.reshape(-1, size, table.shape[1]), bias.reshape(-1, 1, size)


def _chunked_forward(hidden, table, bias, targets):
  def body(carry, chunk):
    start, w_vd, b_1v = chunk
    logits_nv = _logits(hidden, w_vd, b_1v)
    hit_nv = _columns(start, logits_nv.shape) == targets[:, None]
    return _accumulate(logits_nv, hit_nv, *carry), None

  column = lambda value: jnp.full((hidden.shape[0], 1), value, jnp.float32)
  first = (column(-jnp.inf), column(0.0), column(0.0))
  (top, total, picked), _ = lax.scan(body, first, _chunks(table, bias))
  lse = top + jnp.log(total)
  return (lse - picked)[:, 0], lse


def _chunked_backward(hidden, table, bias, targets, lse, g):
  def body(d_hidden, chunk):
    start, w_vd, b_1v = chunk
    logits_nv = _logits(hidden, w_vd, b_1v)
    hit_nv = _columns(start, logits_nv.shape) == targets[:, None]
    slope_nv = _slope(logits_nv, hit_nv, lse, g[:, None])
    low = slope_nv.astype(hidden.dtype)
    d_hidden += jnp.dot(low, w_vd, preferred_element_type=jnp.float32)
    d_rows = lax.dot_general(
      low, hidden, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
    )
    return d_hidden, (d_rows, slope_nv.sum(axis=0))

  zero = jnp.zeros(hidden.shape, jnp.float32)
  d_hidden, (d_table, d_bias) = lax.scan(body, zero, _chunks(table, bias))
  d_table = d_table.reshape(-1, table.shape[1])[: table.shape[0]]
  return d_hidden, d_table, d_bias.ravel()[: table.shape[0]]


# --- pallas: TPU kernels --------------------------------------------------------------------------


def _forward_kernel(h_ref, w_ref, b_ref, t_ref, nats_ref, lse_ref, top_ref, total_ref, picked_ref):
  j = pl.program_id(1)

  @pl.when(j == 0)
  def _():
    top_ref[...] = jnp.full_like(top_ref, -jnp.inf)
    total_ref[...] = jnp.zeros_like(total_ref)
    picked_ref[...] = jnp.zeros_like(picked_ref)

  logits_nv = _logits(h_ref[...], w_ref[...], b_ref[...])
  hit_nv = _columns(j * w_ref.shape[0], logits_nv.shape) == t_ref[...]
  top, total, picked = _accumulate(logits_nv, hit_nv, top_ref[...], total_ref[...], picked_ref[...])
  top_ref[...], total_ref[...], picked_ref[...] = top, total, picked

  @pl.when(j == pl.num_programs(1) - 1)
  def _():
    lse_ref[...] = top + jnp.log(total)
    nats_ref[...] = lse_ref[...] - picked


def _hidden_kernel(h_ref, w_ref, b_ref, t_ref, lse_ref, g_ref, d_hidden_ref, sum_ref):
  j = pl.program_id(1)

  @pl.when(j == 0)
  def _():
    sum_ref[...] = jnp.zeros_like(sum_ref)

  logits_nv = _logits(h_ref[...], w_ref[...], b_ref[...])
  hit_nv = _columns(j * w_ref.shape[0], logits_nv.shape) == t_ref[...]
  slope_nv = _slope(logits_nv, hit_nv, lse_ref[...], g_ref[...]).astype(w_ref.dtype)
  sum_ref[...] += jnp.dot(slope_nv, w_ref[...], preferred_element_type=jnp.float32)

  @pl.when(j == pl.num_programs(1) - 1)
  def _():
    d_hidden_ref[...] = sum_ref[...].astype(d_hidden_ref.dtype)


def _table_kernel(h_ref, w_ref, b_ref, t_ref, lse_ref, g_ref, d_table_ref, d_bias_ref, sum_ref):
  j, i = pl.program_id(0), pl.program_id(1)

  @pl.when(i == 0)
  def _():
    sum_ref[...] = jnp.zeros_like(sum_ref)
    d_bias_ref[...] = jnp.zeros_like(d_bias_ref)

  logits_nv = _logits(h_ref[...], w_ref[...], b_ref[...])
  hit_nv = _columns(j * w_ref.shape[0], logits_nv.shape) == t_ref[...]
  slope_nv = _slope(logits_nv, hit_nv, lse_ref[...], g_ref[...])
  d_bias_ref[...] += slope_nv.sum(axis=0, keepdims=True)
  sum_ref[...] += lax.dot_general(
    slope_nv.astype(h_ref.dtype), h_ref[...], (((0,), (0,)), ((), ())),
    preferred_element_type=jnp.float32,
  )  # fmt: skip

  @pl.when(i == pl.num_programs(1) - 1)
  def _():
    d_table_ref[...] = sum_ref[...].astype(d_table_ref.dtype)


def _padded(hidden, table, bias, targets, blocks):
  """Inputs padded to whole tiles: rows past V have bias −∞, positions past N hit no target."""
  spare_n, spare_v = -hidden.shape[0] % blocks.n, -table.shape[0] % blocks.v
  return (
    jnp.pad(hidden, ((0, spare_n), (0, 0))),
    jnp.pad(table, ((0, spare_v), (0, 0))),
    jnp.pad(bias, (0, spare_v), constant_values=-1e30)[None],  # −∞ − −∞ would be no number
    jnp.pad(targets, (0, spare_n), constant_values=-1)[:, None],
  )


def _specs(blocks, dim, order):
  """Specs of hidden, table, bias and a column of positions; `order` maps the grid to (i, j)."""
  spec = lambda shape, place: pl.BlockSpec(shape, lambda *grid: place(*order(*grid)))
  return (
    spec((blocks.n, dim), lambda i, j: (i, 0)),
    spec((blocks.v, dim), lambda i, j: (j, 0)),
    spec((1, blocks.v), lambda i, j: (0, j)),
    spec((blocks.n, 1), lambda i, j: (i, 0)),
  )


def _call(kernel, grid, specs, outputs, scratch, interpret, dtypes=(jnp.float32, jnp.float32)):
  return pl.pallas_call(
    kernel,
    grid=grid,
    in_specs=specs[0],
    out_specs=specs[1],
    out_shape=[jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in zip(outputs, dtypes)],
    scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
    compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel', 'arbitrary')),
    interpret=interpret,
  )


def _pallas_forward(blocks, interpret, hidden, table, bias, targets):
  h, w, b, t = _padded(hidden, table, bias, targets, blocks)
  (n, dim), v = h.shape, w.shape[0]
  rows, words, row, column = _specs(blocks, dim, lambda i, j: (i, j))
  specs = ([rows, words, row, column], [column, column])
  scratch = [(blocks.n, 1)] * 3
  grid = (n // blocks.n, v // blocks.v)
  nats, lse = _call(_forward_kernel, grid, specs, [(n, 1)] * 2, scratch, interpret)(h, w, b, t)
  return nats[: hidden.shape[0], 0], lse[: hidden.shape[0]]


def _pallas_backward(blocks, interpret, hidden, table, bias, targets, lse, g):
  h, w, b, t = _padded(hidden, table, bias, targets, blocks)
  spare = h.shape[0] - hidden.shape[0]
  # A padded position has weight 0, so its slope is 0 whatever its logits are.
  lse, g = jnp.pad(lse, ((0, spare), (0, 0))), jnp.pad(g, (0, spare))[:, None]
  (n, dim), v = h.shape, w.shape[0]
  tiles_n, tiles_v = n // blocks.n, v // blocks.v
  rows, words, row, column = _specs(blocks, dim, lambda i, j: (i, j))
  specs = ([rows, words, row, column, column, column], [rows])
  (d_hidden,) = _call(
    _hidden_kernel, (tiles_n, tiles_v), specs, [(n, dim)], [(blocks.n, dim)], interpret, [h.dtype]
  )(h, w, b, t, lse, g)
  rows, words, row, column = _specs(blocks, dim, lambda j, i: (i, j))
  specs = ([rows, words, row, column, column, column], [words, row])
  d_table, d_bias = _call(
    _table_kernel,
    (tiles_v, tiles_n),
    specs,
    [(v, dim), (1, v)],
    [(blocks.v, dim)],
    interpret,
    [w.dtype, jnp.float32],
  )(h, w, b, t, lse, g)
  return d_hidden[: hidden.shape[0]], d_table[: table.shape[0]], d_bias[0, : table.shape[0]]


# --- the public function --------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _tiled(forward, backward, hidden, table, bias, targets):
  return forward(hidden, table, bias, targets)[0]


def _tiled_forward(forward, backward, hidden, table, bias, targets):
  nats, lse = forward(hidden, table, bias, targets)
  return nats, (hidden, table, bias, targets, lse)


def _tiled_backward(forward, backward, residuals, g):
  hidden, table, bias, targets, _ = residuals
  d_hidden, d_table, d_bias = backward(*residuals, g)
  return (
    d_hidden.astype(hidden.dtype),
    d_table.astype(table.dtype),
    d_bias.astype(bias.dtype),
    np.zeros(targets.shape, jax.dtypes.float0),
  )


_tiled.defvjp(_tiled_forward, _tiled_backward)


def linear_cross_entropy(
  hidden: jax.Array,
  table: jax.Array,
  targets: jax.Array,
  *,
  bias: jax.Array | None = None,
  implementation: str | None = None,
  blocks: BlockSizes = BlockSizes(),
  interpret: bool = False,
) -> jax.Array:
  """Nats of each target under softmax(hidden · tableᵀ + bias).

  Args:
    hidden: [..., D] in any float dtype.
    table: [V, D] readout rows, of the same dtype.
    targets: [...] int32 ids below V.
    bias: [V] or None.
    implementation: 'reference' holds the [..., V] logits; 'chunked' holds those of 4,096 rows at a
      time, on any backend; 'pallas' holds none, on a TPU. None takes the reference where it
      would hold at most 2²⁶ logits, and 'chunked' beyond: slower by one more product, but it fits.
    blocks: tiles of 'pallas'.
    interpret: emulate 'pallas' on any backend (for tests: slow).

  Returns:
    [...] float32 nats.

  Raises:
    ValueError: no such implementation, one that this backend cannot run, or tiles that do not fit.
  """
  shape, dim = targets.shape, hidden.shape[-1]
  h_nd, t_n = hidden.reshape(-1, dim), targets.reshape(-1)
  b_v = jnp.zeros(table.shape[0], jnp.float32) if bias is None else bias.astype(jnp.float32)
  if implementation is None:
    implementation = 'reference' if h_nd.shape[0] * table.shape[0] <= HELD else 'chunked'
  if implementation == 'reference':
    nats = linear_cross_entropy_reference(h_nd, table, b_v, t_n)
  elif implementation == 'chunked':
    nats = _tiled(_chunked_forward, _chunked_backward, h_nd, table, b_v, t_n)
  elif implementation == 'pallas':
    if not interpret and jax.default_backend() != 'tpu':
      raise ValueError(
        f"implementation 'pallas' runs on a TPU, not on {jax.default_backend()}: "
        "leave it None, or name 'chunked'."
      )
    nats = pallas(h_nd, table, b_v, t_n, blocks, interpret)
  else:
    raise ValueError(
      f'linear_cross_entropy has no implementation {implementation!r}; choose None or one of '
      f'{", ".join(IMPLEMENTATIONS)}.'
    )
  return nats.reshape(shape)


def pallas(
  hidden: jax.Array,
  table: jax.Array,
  bias: jax.Array,
  targets: jax.Array,
  blocks: BlockSizes = BlockSizes(),
  interpret: bool = False,
) -> jax.Array:
  """The TPU kernels on [N, D], [V, D], float32 [V] and [N], whatever the backend: for compiling."""
  blocks.check_memory(hidden.shape[-1], hidden.dtype.itemsize)
  forward = functools.partial(_pallas_forward, blocks, interpret)
  backward = functools.partial(_pallas_backward, blocks, interpret)
  return _tiled(forward, backward, hidden, table, bias, targets)
