# SPDX-License-Identifier: Apache-2.0
"""Random rows that are computed where they are needed, from a seed, an id and a channel alone.

An entry is a function of a counter, id · D + channel, so that a gather of rows, a tile of a table
and the whole table agree. The hash is two rounds of `lowbias32` (Wellons), keyed with 64 bits.

Entries are N(0, 1) by Box–Muller: a hash, 15 operations for an angle, half a logarithm and a root
each. The bits are the same everywhere, the floats to rounding. What that comes to in a kernel is in
RESULTS.md (lexinvariant_cross_entropy).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_u = np.uint32


def _mix(x):
  x = (x ^ (x >> _u(16))) * _u(0x7FEB352D)
  x = (x ^ (x >> _u(15))) * _u(0x846CA68B)
  return x ^ (x >> _u(16))


def _bits(seed, row, column, width):
  """32 random bits for each (row, column) of a table of so many columns, all uint32."""
  cell = row * _u(width) + column
  return _mix(_mix(cell ^ seed[0]) + seed[1])


def _columns(row, size):
  return lax.broadcasted_iota(jnp.uint32, (*row.shape[:-1], size), row.ndim - 1)


def _float(integers):
  return integers.astype(jnp.int32).astype(jnp.float32)  # a path that every backend has


def _unit(bits):
  """Uniform numbers inside of (0, 1), from the upper 24 bits."""
  return (_float(bits >> _u(8)) + 0.5) * np.float32(2**-24)


def _normals(seed, row, dim):
  """Rows [..., D] of numbers uint32 [..., 1]; the seed's two words are scalars or [..., 1].

  Pairs of entries are the coordinates of a point in the plane.
  Its angle is within an eighth of a turn of an axis, which two bits choose: there short series are
  cosine and sine to the last bits, and the functions' reduction of any angle is not paid for.
  """
  half = -(-dim // 2)
  column = _columns(row, half)
  radius = jnp.sqrt(-2.0 * jnp.log(_unit(_bits(seed, row, column, 2 * half))))
  bits = _bits(seed, row, column + _u(half), 2 * half)
  radius = jnp.where((bits >> _u(31)) == 0, radius, -radius)
  x = (_unit(bits << _u(2)) - 0.5) * np.float32(np.pi / 2)
  y = x * x
  cosine = 1 + y * (-1 / 2 + y * (1 / 24 + y * (-1 / 720 + y * (1 / 40320))))
  sine = x * (1 + y * (-1 / 6 + y * (1 / 120 + y * (-1 / 5040 + y * (1 / 362880)))))
  along = (bits & _u(1 << 30)) == 0
  pair = (jnp.where(along, cosine, sine), jnp.where(along, sine, cosine))
  return jnp.concatenate([radius * each for each in pair], axis=-1)[..., :dim]


def check(vocab_size: int, dim: int) -> None:
  """Raises ValueError for a table of more entries than there are counters."""
  if vocab_size * (dim + 1) > 2**32:
    raise ValueError(f'{vocab_size} rows of width {dim} have more than the 2³² entries counted.')


def random_rows(seeds: jax.Array, ids: jax.Array, dim: int) -> jax.Array:
  """The rows of ids: independent entries of N(0, 1), float32 [..., D].

  Args:
    seeds: uint32 [..., 2] for ids [...], or dimensions of 1 in the place of theirs.
    ids: int32 [...].
    dim: D.
  """
  row = ids[..., None].astype(jnp.uint32)
  return _normals((seeds[..., :1], seeds[..., 1:]), row, dim)


def random_tile(
  seed: tuple[jax.Array, jax.Array], start: jax.Array, size: int, dim: int
) -> jax.Array:
  """`random_rows` of the ids start … start + size − 1 under one seed, [size, D]: for kernels."""
  row = start.astype(jnp.uint32) + lax.broadcasted_iota(jnp.uint32, (size, 1), 0)
  return _normals(seed, row, dim)
