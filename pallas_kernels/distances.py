# SPDX-License-Identifier: Apache-2.0
"""Biases of causal attention by distance: as arrays, and computed tile by tile inside kernels.

There are two kinds. A *table* has a number for each head and bucket of distances (T5). A tile is
made by spreading one row of biases by distance; the gradient of a tile is folded back into such a
row.

*Vectors*, one for each distance up to M and one for all larger distances, are multiplied with
queries like keys (Shaw et al. 2018). Softmax is unchanged if a constant is added to all scores of a
query, so the last vector is subtracted from all vectors; then keys at distance M or more have no
bias. The rest is the product of 128 queries with the vectors of a window of W + 128 distances (W is
M rounded up to a multiple of 128), in which column c is shifted down by c rows, so that a row
belongs to a key. Only blocks within this distance are computed. Forward, this adds a share (W +
128) / T to the products of a text's pairs: for M = 128 a half at T = 512, and a sixteenth at T =
4,096. Biases as an array [H, T, T] would take 4·H·T² bytes per text and layer: with 12 heads 13 MB
and 805 MB.

Legend: B batch, T length, H heads, K width of a head, N buckets, M largest distance with its own
bias; tiles of t tokens, of which s are keys.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

LANES = 128


class Biases(NamedTuple):
  """Biases as kernels read them; also their gradient.

  Attributes:
    table: float32 [H, N, 1], or None.
    ends: int32 [N, 2], the first distance in each bucket and behind it, or None.
    vectors: [W + 128, K], row l for distance W − l, or None; as gradient [H, W + 128, K].
  """

  table: jax.Array | None
  ends: jax.Array | None
  vectors: jax.Array | None


def for_kernels(
  table: jax.Array | None, vectors: jax.Array | None, starts: tuple[int, ...], dtype: jnp.dtype
) -> Biases:
  """Biases as kernels read them, from a table [H, N] and vectors [M + 1, K]."""
  ends = None
  if table is not None:
    stops = [*starts[1:], np.iinfo(np.int32).max]
    ends = jnp.asarray(np.stack([starts, stops], axis=1), jnp.int32)
    table = table.astype(jnp.float32)[..., None]
  if vectors is not None:
    last = len(vectors) - 1
    width = -(-last // LANES) * LANES
    falling = (vectors[:-1] - vectors[-1:])[::-1]  # of distances M − 1 … 0
    vectors = jnp.pad(falling, ((width - last + 1, LANES - 1), (0, 0))).astype(dtype)
  return Biases(table, ends, vectors)


def bias_and_mask(
  q: jax.Array,
  segments: jax.Array,
  table: jax.Array | None,
  vectors: jax.Array | None,
  starts: tuple[int, ...],
) -> tuple[jax.Array | None, jax.Array]:
  """The same as arrays: biases [1 or B, H, T, T] or None, and mask [B, 1, T, T]."""
  length = q.shape[1]
  distance = np.arange(length)[:, None] - np.arange(length)[None]
  mask = (segments[:, :, None] == segments[:, None]) & (distance >= 0)[None]
  distance, bias = np.maximum(distance, 0), None
  if table is not None:
    bias = table[None, :, np.searchsorted(starts, distance, side='right') - 1]
  if vectors is not None:
    met = jnp.einsum('bthk,nk->bhtn', q, vectors.astype(q.dtype)) * q.shape[3] ** -0.5
    index = np.minimum(distance, len(vectors) - 1)[None, None]
    near = jnp.take_along_axis(met, jnp.asarray(index), axis=-1)
    bias = near if bias is None else bias + near
  return bias, mask[:, None]


def product(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int) -> jax.Array:
  """Float32 matrix product, summed over one axis of each factor."""
  return lax.dot_general(
    a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=jnp.float32
  )


# --- tables, in kernels ---------------------------------------------------------------------------


def spread(row: jax.Array) -> jax.Array:
  """Rows s = 0…t − 1 of [t, t] from a row [1, 2t] by distance: entry (s, i) is that at t + i − s.

  By doubling: rows whose index s has a bit set are the rows without it, rolled by that bit.
  """
  rows = jnp.broadcast_to(row, (8, row.shape[1]))
  rows = pltpu.roll(rows, 0, 1, stride=1, stride_axis=0)
  while len(rows) < row.shape[1] // 2:
    rows = jnp.concatenate([rows, pltpu.roll(rows, len(rows), 1)])
  return rows[:, row.shape[1] // 2 :]


def folded(tile: jax.Array) -> jax.Array:
  """The sums [1, 2t] by distance of a tile [t, t], the transpose of `spread`."""
  size = 2 * len(tile)
  rows = jnp.concatenate([jnp.zeros_like(tile), tile], axis=1)
  while len(rows) > 1:
    half = len(rows) // 2
    rows = rows[:half] + pltpu.roll(rows[half:], size - half, 1)
  return rows


def hot(ends: jax.Array, first: jax.Array, size: int) -> jax.Array:
  """Whether each distance first, first + 1, … is in each bucket: 0 or 1, [N, size]."""
  distance = first + lax.broadcasted_iota(jnp.int32, (len(ends), size), 1)
  return ((distance >= ends[:, :1]) & (distance < ends[:, 1:])).astype(jnp.float32)


# --- vectors, in kernels --------------------------------------------------------------------------


def slanted(columns: jax.Array, back: bool = False) -> jax.Array:
  """[m, 128] with column c rolled down by c rows, or up again, one bit of c after another."""
  column = lax.broadcasted_iota(jnp.int32, columns.shape, 1)
  for bit in range(LANES.bit_length() - 1):
    step = (len(columns) - (1 << bit)) if back else 1 << bit
    columns = jnp.where(column >> bit & 1 == 1, pltpu.roll(columns, step, 0), columns)
  return columns


def _near(tile: int, window: int) -> Iterator[tuple[int, slice, list[tuple[slice, slice]]]]:
  """Blocks of 128 queries that have keys in reach, for each distance between tiles.

  Yields:
    How many tiles apart queries and keys are, which of the queries, and for each block of keys in
    reach which of the tile's and which rows of the queries' window.
  """
  blocks, reach = tile // LANES, window // LANES - 1
  block = lambda i: slice(i * LANES, (i + 1) * LANES)
  for apart in range(-(-reach // blocks) + 1):
    for a in range(blocks):
      gaps = [(b, apart * blocks + a - b) for b in range(blocks)]
      keys = [(block(b), block(reach - gap)) for b, gap in gaps if 0 <= gap <= reach]
      if keys:
        yield apart, block(a), keys


def add_near(apart: jax.Array, q_ref: Any, vectors_ref: Any, tile_ref: Any) -> None:
  """Adds to a tile [s, t] the products of its queries with the vectors of their distances."""
  for tiles, queries, keys in _near(len(tile_ref), len(vectors_ref)):

    @pl.when(apart == tiles)
    def _(queries=queries, keys=keys):
      window = slanted(product(vectors_ref[...], q_ref[0, 0, :, queries], 1, 0))
      for rows, part in keys:
        tile_ref[rows, queries] += window[part]


def add_near_slopes(
  apart: jax.Array,
  d_scores_st: jax.Array,
  q_ref: Any,
  vectors_ref: Any,
  d_q_ref: Any,
  d_vectors_ref: Any,
) -> None:
  """Adds a tile's part to the gradients with respect to its queries [K, t] and the vectors."""
  size = len(vectors_ref)
  for tiles, queries, keys in _near(len(d_scores_st), size):

    @pl.when(apart == tiles)
    def _(queries=queries, keys=keys):
      parts = {part.start: d_scores_st[rows, queries] for rows, part in keys}
      none = jnp.zeros((LANES, LANES), jnp.float32)
      window = jnp.concatenate([parts.get(at, none) for at in range(0, size, LANES)])
      slope = slanted(window, back=True).astype(q_ref.dtype)
      d_q_ref[:, queries] += product(vectors_ref[...], slope, 0, 0)
      d_vectors_ref[0] += product(slope, q_ref[0, 0, :, queries], 1, 1)
