# SPDX-License-Identifier: Apache-2.0
"""Softmax cross-entropy under a table of random rows for each sequence, which is never stored.

Row v of sequence b is a function of b's seed and v (`random_rows`), so tiles of the tables are
computed where they are multiplied, in both passes: memory depends neither on B · V · D nor on T ·
V. Only hidden vectors have a gradient; rows are not trained.

Legend: B batch, T length, D width of a row, V vocabulary; tiles of t positions and v rows.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels import softmax_tiles as tiles
from pallas_kernels.implementations import (
  VECTOR_MEMORY,
  check_implementation,
  check_vector_memory,
)
from pallas_kernels.linear_cross_entropy import linear_cross_entropy_reference
from pallas_kernels.random_rows import check, random_rows, random_tile

HELD = 2**26  # numbers in rows and logits that the default may store: 256 MiB in float32
UNSEEN = -1e30  # logit of a row past V; finite, since a tile of −∞ alone would give NaN


@dataclasses.dataclass(frozen=True)
class BlockSizes:
  """Tiles of the Pallas kernels.

  Attributes:
    t: positions of a tile, a multiple of 128. All rows are computed again for each tile.
    v: rows of a tile, a multiple of 256.
  """

  t: int = 512
  v: int = 256

  def __post_init__(self) -> None:
    if self.t % 128 or self.v % 256 or min(self.t, self.v) < 1:
      raise ValueError(
        f'tiles of {self.t} × {self.v}: positions must be a multiple of 128 and rows of 256.'
      )

  @classmethod
  def fitting(cls, length: int, dim: int, itemsize: int) -> 'BlockSizes':
    """The most positions that fit vector memory, up to 512 or the text's length; else the
    fewest.
    """
    fits = lambda t: cls(t).memory(dim, itemsize) <= VECTOR_MEMORY
    needed = -(-length // 128) * 128
    return cls(next((t for t in (512, 256) if t <= needed and fits(t)), 128))

  def memory(self, dim: int, itemsize: int) -> int:
    """Bytes of a TPU core's vector memory that the backward kernel takes."""
    read_and_written = 4 * itemsize * dim * self.t  # double-buffered
    rows = (8 + itemsize) * dim * self.v  # bits and entries, then in the dtype of the product
    return read_and_written + 4 * dim * self.t + rows + 2 * 4 * self.t * self.v


def _table(seed, ids, hidden):
  """Rows of ids [v] under one seed, as the hidden vectors' dtype holds them."""
  return random_rows(seed[None], ids, hidden.shape[-1]).astype(hidden.dtype)


def lexinvariant_cross_entropy_reference(
  hidden: jax.Array, seeds: jax.Array, targets: jax.Array, vocab_size: int
) -> tuple[jax.Array, jax.Array]:
  """The specification: the tables as arrays, then the LM head's reference for each sequence.

  The logit of an ignored target (−1) is 0.
  """

  def one(h_td, seed, t_t):
    table = _table(seed, jnp.arange(vocab_size), h_td)
    return linear_cross_entropy_reference(h_td, table, jnp.zeros(vocab_size), t_t)

  return jax.vmap(one)(hidden, seeds, targets)


# --- chunked: a scan over the vocabulary, on any backend; tiles are [t, v] ------------------------


def _chunk(start, size, vocab_size, h_td, seed, targets):
  """Rows of a chunk, their logits, and where they are the targets'."""
  ids = start + jnp.arange(size)
  rows = _table(seed, ids, h_td)
  logits = jnp.where((ids < vocab_size)[None], tiles.products(h_td, rows), UNSEEN)
  return rows, logits, tiles.hits(start, targets[:, None], logits.shape, axis=1)


def _chunked_forward(vocab_size, size, hidden, seeds, targets):
  def one(h_td, seed, t_t):
    def body(carry, start):
      _, logits, hit = _chunk(start, size, vocab_size, h_td, seed, t_t)
      return tiles.accumulate(logits, hit, *carry, axis=1), None

    column = lambda value: jnp.full((h_td.shape[0], 1), value, jnp.float32)
    first = (column(-jnp.inf), column(0.0), column(0.0))
    (top, total, picked), _ = lax.scan(body, first, jnp.arange(0, vocab_size, size))
    return (top + jnp.log(total))[:, 0], picked[:, 0]

  return jax.vmap(one)(hidden, seeds, targets)


def _chunked_backward(vocab_size, size, hidden, seeds, targets, lse, g_lse, g_picked):
  def one(h_td, seed, t_t, *columns):
    def body(d_hidden, start):
      rows, logits, hit = _chunk(start, size, vocab_size, h_td, seed, t_t)
      slope = tiles.slope(logits, hit, *(x[:, None] for x in columns)).astype(h_td.dtype)
      return d_hidden + jnp.dot(slope, rows, preferred_element_type=jnp.float32), None

    zero = jnp.zeros(h_td.shape, jnp.float32)
    return lax.scan(body, zero, jnp.arange(0, vocab_size, size))[0]

  return (jax.vmap(one)(hidden, seeds, targets, lse, g_lse, g_picked),)


# --- pallas: TPU kernels; tiles are [v, t], so that what is kept for positions lies in rows -------


def _tile(vocab_size, size, seeds_ref, h_ref, t_ref):
  """Rows of this step's tile, their logits, and where they are the targets'."""
  b, start = pl.program_id(0), pl.program_id(2) * size
  rows = random_tile((seeds_ref[b, 0], seeds_ref[b, 1]), start, size, h_ref.shape[1])
  rows = rows.astype(h_ref.dtype)
  logits_vt = tiles.products(rows, h_ref[...])
  if vocab_size % size:
    known = start + lax.broadcasted_iota(jnp.int32, logits_vt.shape, 0) < vocab_size
    logits_vt = jnp.where(known, logits_vt, UNSEEN)
  return rows, logits_vt, tiles.hits(start, t_ref[...], logits_vt.shape, axis=0)


def _forward_kernel(make_tile, seeds_ref, h_ref, t_ref, lse_ref, picked_ref, *scratch):
  j, last = pl.program_id(2), pl.num_programs(2) - 1
  _, logits_vt, hit_vt = make_tile(seeds_ref, h_ref, t_ref)
  tiles.forward_step(j, last, logits_vt, hit_vt, (lse_ref, picked_ref), scratch)


def _hidden_kernel(
  make_tile, seeds_ref, h_ref, t_ref, lse_ref, gl_ref, gp_ref, d_hidden_ref, sum_ref
):
  j, last = pl.program_id(2), pl.num_programs(2) - 1
  rows, logits_vt, hit_vt = make_tile(seeds_ref, h_ref, t_ref)
  slope_vt = tiles.slope(logits_vt, hit_vt, lse_ref[...], gl_ref[...], gp_ref[...])
  part = tiles.transposed_product(slope_vt.astype(rows.dtype), rows)
  tiles.add_step(j, last, part, sum_ref, d_hidden_ref)


def _padded(blocks, hidden, targets, *rows):
  """Inputs in whole tiles: positions past T have no target and no weight."""
  spare = -hidden.shape[1] % blocks.t
  return (
    jnp.pad(hidden, ((0, 0), (0, spare), (0, 0))),
    jnp.pad(targets, ((0, 0), (0, spare)), constant_values=-1)[:, None],
    *(jnp.pad(row, ((0, 0), (0, spare)))[:, None] for row in rows),
  )


def _specs(blocks, dim):
  """Specs of a tile [t, D] of hidden vectors, and of a row [1, t] of positions."""
  matrix = pl.BlockSpec((None, blocks.t, dim), lambda b, i, j, seeds: (b, i, 0))
  return matrix, pl.BlockSpec((None, 1, blocks.t), lambda b, i, j, seeds: (b, 0, i))


def _call(options, kernel, outputs, scratch, seeds, hidden, *rows):
  """A kernel over sequences, tiles of positions and tiles of rows; outputs are (spec, shape)s."""
  vocab_size, blocks, interpret = options
  count, length, dim = hidden.shape
  matrix, row = _specs(blocks, dim)
  return pl.pallas_call(
    functools.partial(kernel, functools.partial(_tile, vocab_size, blocks.v)),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=1,
      grid=(count, length // blocks.t, -(-vocab_size // blocks.v)),
      in_specs=[matrix, *[row] * len(rows)],
      out_specs=[spec for spec, _ in outputs],
      scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
    ),
    out_shape=[shape for _, shape in outputs],
    compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel', 'parallel', 'arbitrary')),
    interpret=interpret,
  )(seeds, hidden, *rows)


def _pallas_forward(options, hidden, seeds, targets):
  blocks, length = options[1], hidden.shape[1]
  h, t = _padded(blocks, hidden, targets)
  row = (_specs(blocks, h.shape[2])[1], jax.ShapeDtypeStruct(t.shape, jnp.float32))
  lse, picked = _call(options, _forward_kernel, [row] * 2, [(1, blocks.t)] * 2, seeds, h, t)
  return lse[:, 0, :length], picked[:, 0, :length]


def _pallas_backward(options, hidden, seeds, targets, *rows):
  blocks, length = options[1], hidden.shape[1]
  h, *padded = _padded(blocks, hidden, targets, *rows)
  matrix = (_specs(blocks, h.shape[2])[0], jax.ShapeDtypeStruct(h.shape, h.dtype))
  scratch = [(blocks.t, h.shape[2])]
  (d_hidden,) = _call(options, _hidden_kernel, [matrix], scratch, seeds, h, *padded)
  return (d_hidden[:, :length],)


# --- the public functions -------------------------------------------------------------------------


def pallas(
  hidden: jax.Array,
  seeds: jax.Array,
  targets: jax.Array,
  vocab_size: int,
  blocks: BlockSizes | None = None,
  interpret: bool | pltpu.InterpretParams = False,
) -> tuple[jax.Array, jax.Array]:
  """The same result by the TPU kernels, on any backend, for ahead-of-time compilation."""
  _, length, dim = hidden.shape
  itemsize = hidden.dtype.itemsize
  blocks = blocks or BlockSizes.fitting(length, dim, itemsize)
  check_vector_memory(
    f'tiles of {blocks.t} × {blocks.v} at width {dim}', blocks.memory(dim, itemsize)
  )
  options = (vocab_size, blocks, interpret)
  forward = functools.partial(_pallas_forward, options)
  backward = functools.partial(_pallas_backward, options)
  return tiles.with_gradients(forward, backward, (hidden,), (seeds, targets))


def chunked(
  hidden: jax.Array, seeds: jax.Array, targets: jax.Array, vocab_size: int
) -> tuple[jax.Array, jax.Array]:
  """The same result with at most `HELD` numbers in memory at once, or 128 rows."""
  count, length, dim = hidden.shape
  size = min(vocab_size, max(128, HELD // (count * (length + dim)) // 128 * 128))
  forward = functools.partial(_chunked_forward, vocab_size, size)
  backward = functools.partial(_chunked_backward, vocab_size, size)
  return tiles.with_gradients(forward, backward, (hidden,), (seeds, targets))


def lexinvariant_cross_entropy(
  hidden: jax.Array,
  seeds: jax.Array,
  targets: jax.Array,
  *,
  vocab_size: int,
  implementation: str | None = None,
  blocks: BlockSizes | None = None,
  interpret: bool | pltpu.InterpretParams = False,
) -> tuple[jax.Array, jax.Array]:
  """Nats of each target under softmax(hidden · rowsᵀ), and the log of the softmax's denominator.

  Args:
    hidden: [B, T, D] in float32 or bfloat16.
    seeds: uint32 [B, 2]; the rows are `random_rows(seeds[b], id, D)`, rounded to hidden's
      dtype.
    targets: [B, T] int32 ids below V. A negative id is ignored: 0 nats, 0 log, no gradient. An id
      of V or more gives NaN.
    vocab_size: V.
    implementation: 'reference' stores the tables [B, V, D] and the logits; 'chunked' stores a part
      of both at once, on any backend; 'pallas' stores neither, on a TPU. None means 'reference' if
      it stores at most 2²⁶ numbers, and 'chunked' otherwise.
    blocks: tiles of 'pallas'; None for the largest that fit.
    interpret: emulate 'pallas' on any backend (for tests: slow).

  Returns:
    (nats, log-sum-exp), float32 [B, T].

  Raises:
    ValueError: no such implementation, one that this backend cannot run, or tiles that do
      not fit.
  """
  count, length, dim = hidden.shape
  check(vocab_size, dim)
  held = count * vocab_size * (length + dim)
  name = implementation or ('reference' if held <= HELD else 'chunked')
  by_name: dict[str, Callable] = {
    'reference': lexinvariant_cross_entropy_reference,
    'chunked': chunked,
    'pallas': functools.partial(pallas, blocks=blocks, interpret=interpret),
  }
  check_implementation('lexinvariant_cross_entropy', name, by_name, interpret)
  here = (targets >= 0) & (targets < vocab_size)
  lse, picked = by_name[name](hidden, seeds, jnp.where(here, targets, -1), vocab_size)
  return tiles.nats_and_lse(lse, picked, targets, vocab_size)
