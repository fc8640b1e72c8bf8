# SPDX-License-Identifier: Apache-2.0
"""Rows of black and white pictures by id: bits in memory, floats only for the ids asked for.

A picture of D pixels takes D bits, padded to a multiple of 128, where a row of floats takes 32
times as much. Bits lie so that unpacking moves nothing between the 128 lanes of a TPU: pixel
128·p + l of a token is a bit of word l, and the words of one row hold as many tokens as fit.

Legend: N ids, V tokens, D pixels, P planes of 128 pixels, C tokens in a row of words; tiles of n.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.implementations import backend, check_implementation, check_vector_memory

IMPLEMENTATIONS = ('reference', 'pallas')
LANES, WORD = 128, 32
LARGEST = LANES * WORD  # pixels


@dataclasses.dataclass(frozen=True)
class BlockSizes:
  """Tiles of the Pallas kernel.

  Attributes:
    n: ids a tile, a multiple of 128: so many copies are under way at once.
  """

  n: int = 128

  def __post_init__(self) -> None:
    if self.n % 128 or self.n < 1:
      raise ValueError(f'tiles of {self.n} ids: n must be a multiple of 128.')

  def memory(self, pixels: int, itemsize: int) -> int:
    """Bytes of a TPU core's vector memory that the kernel takes."""
    return self.n * (2 * itemsize * planes(pixels) * LANES + 4 * (8 + 4) * LANES)


def planes(pixels: int) -> int:
  """P: bits of each word that one token of so many pixels takes."""
  return -(-pixels // LANES)


def pack(pixels: np.ndarray) -> np.ndarray:
  """Pictures, 0 or 1 [V, D], as int32 words [⌈V / C⌉, 1, 128].

  Raises:
    ValueError: pictures of no pixels, or of more than 4,096.
  """
  count, size = pixels.shape
  if not 0 < size <= LARGEST:
    raise ValueError(f'pictures of {size} pixels: give 1 to {LARGEST}.')
  depth = planes(size)
  each = WORD // depth
  filled = np.pad(pixels.astype(np.uint32), ((0, -count % each), (0, -size % LANES)))
  filled = filled.reshape(-1, each * depth, LANES)  # [rows, bits, words]
  shifts = np.arange(each * depth, dtype=np.uint32)[None, :, None]
  return np.bitwise_or.reduce(filled << shifts, axis=1, keepdims=True).view(np.int32)


def _places(ids, size):
  """The row of words of each id, and the first of its bits there."""
  depth = planes(size)
  each = WORD // depth
  return ids // each, ids % each * depth


def glyph_rows_reference(
  ids: jax.Array, packed: jax.Array, mean: jax.Array, scales: jax.Array
) -> jax.Array:
  """The specification: (pixels − mean) · scale of ids [N], float32 [N, D]."""
  rows, first = _places(ids, mean.size)
  shifts = first[:, None] + jnp.arange(planes(mean.size))[None]
  bits = packed[rows] >> shifts[..., None] & 1
  pixels = bits.reshape(len(ids), -1)[:, : mean.size].astype(jnp.float32)
  return (pixels - mean[None]) * scales[ids][:, None]


# --- pallas: TPU kernel ---------------------------------------------------------------------------


def _kernel(rows_ref, first_ref, scale_ref, mean_ref, packed_ref, out_ref, words_ref, done):
  count = words_ref.shape[0]

  def copy(i):
    source = packed_ref.at[rows_ref[0, 0, i]]
    return pltpu.make_async_copy(source, words_ref.at[i], done)

  @pl.loop(0, count)
  def _(i):
    copy(i).start()

  @pl.loop(0, count)
  def _(i):
    copy(i).wait()

  words = words_ref[...].reshape(count, LANES)
  first, scale = first_ref[0].reshape(count, 1), scale_ref[0].reshape(count, 1)
  for plane in range(out_ref.shape[1] // LANES):
    lanes = slice(plane * LANES, (plane + 1) * LANES)
    pixels = (words >> (first + plane) & 1).astype(jnp.float32)
    out_ref[:, lanes] = ((pixels - mean_ref[:, lanes]) * scale).astype(out_ref.dtype)


def pallas(
  ids: jax.Array,
  packed: jax.Array,
  mean: jax.Array,
  scales: jax.Array,
  dtype: jnp.dtype = jnp.float32,
  blocks: BlockSizes = BlockSizes(),
  interpret: object = False,
) -> jax.Array:
  """The TPU kernel on ids [N], whatever the backend: for compiling."""
  used = blocks.memory(mean.size, jnp.dtype(dtype).itemsize)
  check_vector_memory(f'tiles of {blocks.n} pictures of {mean.size} pixels', used)
  count, width = ids.size, planes(mean.size) * LANES
  ids = jnp.pad(ids, (0, -count % blocks.n))
  rows, first = _places(ids, mean.size)
  tiles = lambda x: x.reshape(-1, 1, blocks.n)  # a column [N, 1] would take 128 times its size
  row = pl.BlockSpec((1, 1, blocks.n), lambda i: (i, 0, 0))
  out = pl.pallas_call(
    _kernel,
    grid=(ids.size // blocks.n,),
    in_specs=[
      pl.BlockSpec((1, 1, blocks.n), lambda i: (i, 0, 0), memory_space=pltpu.SMEM),
      row,
      row,
      pl.BlockSpec((1, width), lambda i: (0, 0)),
      pl.BlockSpec(memory_space=pl.ANY),
    ],
    out_specs=pl.BlockSpec((blocks.n, width), lambda i: (i, 0)),
    out_shape=jax.ShapeDtypeStruct((ids.size, width), dtype),
    scratch_shapes=[pltpu.VMEM((blocks.n, 1, LANES), jnp.int32), pltpu.SemaphoreType.DMA],
    compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel',)),
    interpret=interpret,
  )(
    tiles(rows),
    tiles(first),
    tiles(scales[ids]),
    jnp.pad(mean, (0, width - mean.size))[None],
    packed,
  )
  return out[:count, : mean.size]


# --- the public function --------------------------------------------------------------------------


def glyph_rows(
  ids: jax.Array,
  packed: jax.Array,
  mean: jax.Array,
  scales: jax.Array,
  *,
  dtype: jnp.dtype = jnp.float32,
  implementation: str | None = None,
  blocks: BlockSizes = BlockSizes(),
  interpret: object = False,
) -> jax.Array:
  """Returns [..., D]: the pixels of each id less their mean, times a number of the id's own.

  Nothing in it is trained, and nothing gets a gradient. A map from D to a model's width is a matrix
  product after it.

  Args:
    ids: int32 [...] below V.
    packed: int32 words, from `pack`.
    mean: float32 [D].
    scales: float32 [V].
    dtype: of the result.
    implementation: 'reference' (on any backend), 'pallas' (on a TPU), or None for 'pallas' on one
      TPU and the reference elsewhere.
    blocks: tiles of 'pallas'.
    interpret: emulate 'pallas' on any backend (for tests: slow).

  Raises:
    ValueError: no such implementation, one that cannot run here, or tiles that do not fit.
  """
  mean, scales = lax.stop_gradient((mean, scales))
  flat = ids.reshape(-1)
  if implementation is None:
    alone = jax.sharding.get_abstract_mesh().size <= 1
    implementation = 'pallas' if backend() == 'tpu' and alone else 'reference'
  check_implementation('glyph_rows', implementation, IMPLEMENTATIONS, interpret)
  if implementation == 'pallas':
    rows = pallas(flat, packed, mean, scales, dtype, blocks, interpret)
  else:
    rows = glyph_rows_reference(flat, packed, mean, scales).astype(dtype)
  return rows.reshape(*ids.shape, mean.size)
