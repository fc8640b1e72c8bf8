# SPDX-License-Identifier: Apache-2.0
"""LM head and softmax cross-entropy in one operation: hidden vectors in, nats out.

The logits [N, V] are the largest array of a language model with a large vocabulary. Only the
reference stores them. The others compute them tile by tile, and again in the backward pass, which
'triton' avoids if the loss is a mean.

Each implementation returns two numbers per position, the log-sum-exp of its logits and its target's
logit, with gradients for both. Nats, z-loss, ignored targets and a sharded vocabulary are a few
lines on top of these; only 'triton' includes them, if the vocabulary is not sharded.

Legend: N positions, D model width, V vocabulary; tiles of n positions and v vocabulary rows.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

from pallas_kernels import linear_cross_entropy_triton as linear_triton
from pallas_kernels import softmax_tiles as tiles
from pallas_kernels.implementations import (
  VECTOR_MEMORY,
  backend,
  check_implementation,
  check_vector_memory,
)

HELD = 2**26  # most logits of the reference by default: 256 MiB in float32
CHUNK = 4096  # most vocabulary rows whose logits 'chunked' stores at once
PARTS = 16  # parts of the vocabulary; 'chunked' stores the logits of one


@dataclasses.dataclass(frozen=True)
class BlockSizes:
  """Tiles of the Pallas kernels, multiples of 128.

  Attributes:
    n: positions of a tile.
    v: vocabulary rows of a tile.
  """

  n: int
  v: int

  def __post_init__(self) -> None:
    if self.n % 128 or self.v % 128 or min(self.n, self.v) < 1:
      raise ValueError(f'tiles of {self.n} × {self.v}: both must be multiples of 128.')

  @classmethod
  def fitting(cls, dim: int, itemsize: int) -> 'BlockSizes':
    """The largest square tiles that fit vector memory, up to 512; else the smallest."""
    sizes = (512, 256, 128)
    fits = (size for size in sizes if cls(size, size).memory(dim, itemsize) <= VECTOR_MEMORY)
    size = next(fits, sizes[-1])
    return cls(size, size)

  def memory(self, dim: int, itemsize: int) -> int:
    """Bytes of a TPU core's vector memory that the kernel with the largest need takes."""
    read = 2 * itemsize * dim * (self.n + self.v)  # double-buffered inputs
    summed = (4 + 2 * itemsize) * dim * max(self.n, self.v)  # and the double-buffered result
    return read + summed + 2 * 4 * self.n * self.v


def linear_cross_entropy_reference(
  hidden: jax.Array, table: jax.Array, bias: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The specification: float32 logits of every id, their log-sum-exp [N] and the target's [N].

  The logit of an ignored target (−1) is 0.
  """
  logits_nv = (
    jnp.einsum('nd,vd->nv', hidden, table, preferred_element_type=jnp.float32) + bias[None]
  )
  picked_n = jnp.take_along_axis(logits_nv, jnp.maximum(targets, 0)[:, None], axis=-1)[:, 0]
  return jax.nn.logsumexp(logits_nv, axis=-1), jnp.where(targets < 0, 0.0, picked_n)


# --- chunked: a scan over the vocabulary, on any backend; tiles are [N, v] ------------------------


def _chunks(table, bias):
  """The table and bias as [chunks, v, D] and [chunks, 1, v]; rows past V have bias −∞."""
  size = min(CHUNK, -(-table.shape[0] // (128 * PARTS)) * 128)
  spare = -table.shape[0] % size
  table = jnp.pad(table, ((0, spare), (0, 0)))
  bias = jnp.pad(bias, (0, spare), constant_values=-jnp.inf)
  starts = jnp.arange(0, table.shape[0], size, dtype=jnp.int32)
  return starts, table.reshape(-1, size, table.shape[1]), bias.reshape(-1, 1, size)


def _chunk(hidden, targets, chunk):
  """Logits of a chunk, and where they are the targets'."""
  start, w_vd, b_1v = chunk
  logits_nv = tiles.products(hidden, w_vd) + b_1v
  return logits_nv, tiles.hits(start, targets[:, None], logits_nv.shape, axis=1)


def _chunked_forward(hidden, table, bias, targets):
  def body(carry, chunk):
    return tiles.accumulate(*_chunk(hidden, targets, chunk), *carry, axis=1), None

  column = lambda value: jnp.full((hidden.shape[0], 1), value, jnp.float32)
  first = (column(-jnp.inf), column(0.0), column(0.0))
  (top, total, picked), _ = lax.scan(body, first, _chunks(table, bias))
  return (top + jnp.log(total))[:, 0], picked[:, 0]


def _chunked_backward(hidden, table, bias, targets, lse, g_lse, g_picked):
  columns = [x[:, None] for x in (lse, g_lse, g_picked)]

  def body(d_hidden, chunk):
    logits_nv, hit_nv = _chunk(hidden, targets, chunk)
    slope_nv = tiles.slope(logits_nv, hit_nv, *columns)
    low = slope_nv.astype(hidden.dtype)
    d_hidden += jnp.dot(low, chunk[1], preferred_element_type=jnp.float32)
    d_table = tiles.transposed_product(low, hidden).astype(table.dtype)
    return d_hidden, (d_table, slope_nv.sum(axis=0))

  zero = jnp.zeros(hidden.shape, jnp.float32)
  d_hidden, (d_table, d_bias) = lax.scan(body, zero, _chunks(table, bias))
  d_table = d_table.reshape(-1, table.shape[1])[: table.shape[0]]
  return d_hidden, d_table, d_bias.ravel()[: table.shape[0]]


# --- pallas: TPU kernels; tiles are [v, n], so that what is kept for positions lies in rows -------


def _tile(j, h_ref, w_ref, b_ref, t_ref):
  """Logits of vocabulary tile j, and where they are the targets'."""
  logits_vn = tiles.products(w_ref[...], h_ref[...]) + b_ref[...].reshape(-1, 1)
  return logits_vn, tiles.hits(j * w_ref.shape[0], t_ref[...], logits_vn.shape, axis=0)


def _forward_kernel(h_ref, w_ref, b_ref, t_ref, lse_ref, picked_ref, *scratch):
  j, last = pl.program_id(1), pl.num_programs(1) - 1
  logits_vn, hit_vn = _tile(j, h_ref, w_ref, b_ref, t_ref)
  tiles.forward_step(j, last, logits_vn, hit_vn, (lse_ref, picked_ref), scratch)


def _hidden_kernel(h_ref, w_ref, b_ref, t_ref, lse_ref, gl_ref, gp_ref, d_hidden_ref, sum_ref):
  j, last = pl.program_id(1), pl.num_programs(1) - 1
  logits_vn, hit_vn = _tile(j, h_ref, w_ref, b_ref, t_ref)
  slope_vn = tiles.slope(logits_vn, hit_vn, lse_ref[...], gl_ref[...], gp_ref[...])
  part = tiles.transposed_product(slope_vn.astype(w_ref.dtype), w_ref[...])
  tiles.add_step(j, last, part, sum_ref, d_hidden_ref)


def _table_kernel(
  h_ref, w_ref, b_ref, t_ref, lse_ref, gl_ref, gp_ref, d_table_ref, d_bias_ref, sum_ref, bias_ref
):
  j, i, last = pl.program_id(0), pl.program_id(1), pl.num_programs(1) - 1
  logits_vn, hit_vn = _tile(j, h_ref, w_ref, b_ref, t_ref)
  slope_vn = tiles.slope(logits_vn, hit_vn, lse_ref[...], gl_ref[...], gp_ref[...])
  part = jnp.dot(slope_vn.astype(h_ref.dtype), h_ref[...], preferred_element_type=jnp.float32)
  tiles.add_step(i, last, part, sum_ref, d_table_ref)
  tiles.add_step(i, last, slope_vn.sum(axis=1, keepdims=True), bias_ref, d_bias_ref)


def _padded(blocks, hidden, table, bias, targets, *rows):
  """Inputs in whole tiles: rows past V have bias −∞, positions past N have neither target nor
  weight.
  """
  spare_n, spare_v = -hidden.shape[0] % blocks.n, -table.shape[0] % blocks.v
  return (
    jnp.pad(hidden, ((0, spare_n), (0, 0))),
    jnp.pad(table, ((0, spare_v), (0, 0))),
    jnp.pad(bias, (0, spare_v), constant_values=-1e30)[None],  # finite, since −∞ − (−∞) is NaN
    jnp.pad(targets, (0, spare_n), constant_values=-1)[None],
    *(jnp.pad(row, (0, spare_n))[None] for row in rows),
  )


def _specs(blocks, dim, order):
  """Specs of hidden, table, bias and a row of positions; `order` maps the grid to (i, j)."""
  spec = lambda shape, place: pl.BlockSpec(shape, lambda *grid: place(*order(*grid)))
  return (
    spec((blocks.n, dim), lambda i, j: (i, 0)),
    spec((blocks.v, dim), lambda i, j: (j, 0)),
    spec((1, blocks.v), lambda i, j: (0, j)),  # a column would take 128 times its size
    spec((1, blocks.n), lambda i, j: (0, i)),
  )


def _call(kernel, grid, in_specs, outputs, scratch, interpret):
  """A kernel over a grid whose second axis is summed over; outputs are pairs (spec, shape)."""
  return pl.pallas_call(
    kernel,
    grid=grid,
    in_specs=in_specs,
    out_specs=[spec for spec, _ in outputs],
    out_shape=[shape for _, shape in outputs],
    scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
    compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel', 'arbitrary')),
    interpret=interpret,
  )


def _pallas_forward(blocks, interpret, hidden, table, bias, targets):
  arrays = _padded(blocks, hidden, table, bias, targets)
  (n, dim), v = arrays[0].shape, arrays[1].shape[0]
  *matrices, row = _specs(blocks, dim, lambda i, j: (i, j))
  lse, picked = _call(
    _forward_kernel,
    (n // blocks.n, v // blocks.v),
    [*matrices, row],
    [(row, jax.ShapeDtypeStruct((1, n), jnp.float32))] * 2,
    [(1, blocks.n)] * 2,
    interpret,
  )(*arrays)
  return lse[0, : hidden.shape[0]], picked[0, : hidden.shape[0]]


def _pallas_backward(blocks, interpret, hidden, table, bias, targets, *rows):
  arrays = _padded(blocks, hidden, table, bias, targets, *rows)
  (n, dim), v = arrays[0].shape, arrays[1].shape[0]
  count_n, count_v = n // blocks.n, v // blocks.v
  shape_of = lambda x, dtype: jax.ShapeDtypeStruct(x.shape, dtype)
  h_spec, w_spec, b_spec, row = _specs(blocks, dim, lambda i, j: (i, j))
  (d_hidden,) = _call(
    _hidden_kernel,
    (count_n, count_v),
    [h_spec, w_spec, b_spec, *[row] * 4],
    [(h_spec, shape_of(arrays[0], hidden.dtype))],
    [(blocks.n, dim)],
    interpret,
  )(*arrays)
  h_spec, w_spec, b_spec, row = _specs(blocks, dim, lambda j, i: (i, j))
  d_table, d_bias = _call(
    _table_kernel,
    (count_v, count_n),
    [h_spec, w_spec, b_spec, *[row] * 4],
    [(w_spec, shape_of(arrays[1], table.dtype)), (b_spec, shape_of(arrays[2], jnp.float32))],
    [(blocks.v, dim), (blocks.v, 1)],
    interpret,
  )(*arrays)
  return d_hidden[: hidden.shape[0]], d_table[: table.shape[0]], d_bias[0, : table.shape[0]]


# --- the public functions -------------------------------------------------------------------------


def pallas(
  hidden: jax.Array,
  table: jax.Array,
  bias: jax.Array,
  targets: jax.Array,
  blocks: BlockSizes | None = None,
  interpret: bool | pltpu.InterpretParams = False,
) -> tuple[jax.Array, jax.Array]:
  """The same result by the TPU kernels, on any backend, for ahead-of-time compilation."""
  dim, itemsize = hidden.shape[-1], hidden.dtype.itemsize
  blocks = blocks or BlockSizes.fitting(dim, itemsize)
  check_vector_memory(
    f'tiles of {blocks.n} × {blocks.v} at width {dim}', blocks.memory(dim, itemsize)
  )
  forward = functools.partial(_pallas_forward, blocks, interpret)
  backward = functools.partial(_pallas_backward, blocks, interpret)
  return tiles.with_gradients(forward, backward, (hidden, table, bias), (targets,))


def chunked(
  hidden: jax.Array, table: jax.Array, bias: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The same result with the logits of one part of the ids in memory at once."""
  return tiles.with_gradients(
    _chunked_forward, _chunked_backward, (hidden, table, bias), (targets,)
  )


def triton(
  hidden: jax.Array,
  table: jax.Array,
  bias: jax.Array,
  targets: jax.Array,
  interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """The same result by the GPU kernels, on any backend, for ahead-of-time compilation."""
  forward = functools.partial(linear_triton.forward, interpret)
  backward = functools.partial(linear_triton.backward, interpret)
  return tiles.with_gradients(forward, backward, (hidden, table, bias), (targets,))


def preferred(logits: int, dtype: jnp.dtype) -> str:
  """The default implementation of `linear_cross_entropy` for a number of logits."""
  if logits <= HELD:
    return 'reference'
  return 'triton' if backend() == 'gpu' and dtype == jnp.bfloat16 else 'chunked'


def linear_cross_entropy(
  hidden: jax.Array,
  table: jax.Array,
  targets: jax.Array,
  *,
  bias: jax.Array | None = None,
  z_loss: float = 0.0,
  axis: str | None = None,
  implementation: str | None = None,
  blocks: BlockSizes | None = None,
  interpret: bool | pltpu.InterpretParams = False,
) -> tuple[jax.Array, jax.Array]:
  """Nats of each target under softmax(hidden · tableᵀ + bias), and the z-loss of each.

  Args:
    hidden: [..., D] in any float dtype.
    table: [V, D] LM head rows, of the same dtype.
    targets: [...] int32 ids below V. A negative id is ignored: 0 and 0, no gradient. An id of V or
      more gives NaN and NaN.
    bias: [V] or None.
    z_loss: weight of the squared log of the softmax's denominator.
    axis: inside `jax.shard_map`, the mesh axis over which the vocabulary is spread: `table` and
      `bias` are this shard's rows, `targets` ids of the whole. See also
      `sharded_linear_cross_entropy`.
    implementation: 'reference' stores the [..., V] logits. 'chunked' stores a sixteenth of them at
      once, or those of at most 4,096 rows, on any backend. 'pallas' stores none, on a TPU. 'triton'
      stores none, on a GPU; for gradients it stores the exponentials of a sixteenth of the
      positions, at least 1,024 (with an axis, the logit gradients of a sixteenth of the ids). None
      means 'reference' for at most 2²⁶ logits. For more it means 'triton' with bfloat16 on a GPU,
      and 'chunked' elsewhere, which has four matrix products instead of three, all done by the
      fastest library of the backend.
    blocks: tiles of 'pallas'; None for the largest that fit, of 512 at most.
    interpret: emulate 'pallas' or 'triton' on any backend (for tests: slow).

  Returns:
    (nats, penalties), float32 [...].

  Raises:
    ValueError: no such implementation, one that this backend cannot run, or tiles that do not fit.
  """
  h_nd, t_n = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
  size = table.shape[0]
  b_v = jnp.zeros(size, jnp.float32) if bias is None else bias.astype(jnp.float32)
  name = implementation or preferred(h_nd.shape[0] * size, h_nd.dtype)
  by_name: dict[str, Callable] = {
    'reference': linear_cross_entropy_reference,
    'chunked': chunked,
    'pallas': functools.partial(pallas, blocks=blocks, interpret=interpret),
    'triton': functools.partial(triton, interpret=bool(interpret)),
  }
  check_implementation('linear_cross_entropy', name, by_name, interpret)
  local_n = t_n if axis is None else t_n - lax.axis_index(axis) * size
  local_n = jnp.where((local_n >= 0) & (local_n < size), local_n, -1)
  if name == 'triton' and axis is None:
    nats, penalties = linear_triton.loss(bool(interpret), z_loss, h_nd, table, b_v, local_n)
    known = t_n < size
    nats, penalties = (jnp.where(known, x, jnp.nan) for x in (nats, penalties))
    return nats.reshape(targets.shape), penalties.reshape(targets.shape)
  lse, picked = by_name[name](h_nd, table, b_v, local_n)
  if axis is not None:
    top = lax.pmax(lax.stop_gradient(lse), axis)
    lse = top + jnp.log(lax.psum(jnp.exp(lse - top), axis))
    picked, size = lax.psum(picked, axis), size * lax.axis_size(axis)
  nats, lse = tiles.nats_and_lse(lse, picked, t_n, size)
  penalties = jnp.where(t_n < size, z_loss * lse**2, jnp.nan)
  return nats.reshape(targets.shape), penalties.reshape(targets.shape)


def sharded_linear_cross_entropy(
  hidden: jax.Array,
  table: jax.Array,
  targets: jax.Array,
  *,
  axis: str | None,
  batch_axes: Sequence[str] = (),
  bias: jax.Array | None = None,
  **options: Any,
) -> tuple[jax.Array, jax.Array]:
  """`linear_cross_entropy` over the mesh in use (`jax.set_mesh`): each device keeps its rows.

  The compiler cannot shard a kernel, so the part of each device is given here. Devices exchange two
  numbers per position, and the gradients.

  Args:
    hidden: [B, ..., D].
    table: [V, D].
    targets: [B, ...].
    axis: mesh axis over which V is sharded; its size must divide V. None: each device has all rows.
    batch_axes: mesh axes over which B is sharded; their size must divide B.
    bias: [V] or None.
    **options: other arguments of `linear_cross_entropy`.
  """
  batch, rows = PartitionSpec(tuple(batch_axes)), PartitionSpec(axis)

  def local(hidden, table, targets, bias):
    return linear_cross_entropy(hidden, table, targets, bias=bias, axis=axis, **options)

  return jax.shard_map(
    local, in_specs=(batch, rows, batch, rows), out_specs=(batch, batch), check_vma=False
  )(hidden, table, targets, bias)
