# SPDX-License-Identifier: Apache-2.0
"""The forward pass of `linear_cross_entropy` for GPUs, by Pallas's Triton backend.

A block of threads has its positions and goes over the vocabulary, and for each tile of logits over
the width. There is no kernel for the gradients, and None takes 'chunked' on a GPU: a block cannot
hold a sum of n · D, so it would make its logits anew for each part of the width, where chunks make
them once for both gradients, in products that cuBLAS is best at. They hold a sixteenth of the
logits; their price is one product more than the three of a loss that holds all.

Legend: N positions, D model width, V vocabulary; tiles of n positions, v rows and d of the width.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from pallas_kernels import softmax_tiles as tiles

TILE_N, TILE_V, TILE_D = 64, 128, 64  # powers of two, as Triton needs them
FILL = -1e30  # bias of the rows that fill the last tile


def _kernel(h_ref, w_ref, b_ref, t_ref, lse_ref, picked_ref):
  count_v, count_d = w_ref.shape[0] // TILE_V, w_ref.shape[1] // TILE_D
  targets_n1 = t_ref[...]

  def tile(j, carry):
    rows = pl.ds(j * TILE_V, TILE_V)

    def product(k, sum_nv):
      part = pl.ds(k * TILE_D, TILE_D)
      return sum_nv + tiles.products(h_ref[:, part], w_ref[rows, part])

    zero = jnp.zeros((TILE_N, TILE_V), jnp.float32)
    logits_nv = lax.fori_loop(0, count_d, product, zero) + b_ref[:, rows]
    hit_nv = tiles.hits(j * TILE_V, targets_n1, logits_nv.shape, axis=1)
    return tiles.accumulate(logits_nv, hit_nv, *carry, axis=1)

  column = lambda value: jnp.full((TILE_N, 1), value, jnp.float32)
  first = (column(-jnp.inf), column(0.0), column(0.0))
  top, total, picked = lax.fori_loop(0, count_v, tile, first)
  lse_ref[...] = top + jnp.log(total)
  picked_ref[...] = picked


def forward(
  interpret: bool, hidden: jax.Array, table: jax.Array, bias: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Log-sum-exp and target's logit, float32 [N], of hidden [N, D] against a table [V, D]."""
  spare_n, spare_v = -hidden.shape[0] % TILE_N, -table.shape[0] % TILE_V
  spare_d = -hidden.shape[1] % TILE_D
  h = jnp.pad(hidden, ((0, spare_n), (0, spare_d)))
  w = jnp.pad(table, ((0, spare_v), (0, spare_d)))
  b = jnp.pad(bias, (0, spare_v), constant_values=FILL)[None]
  t = jnp.pad(targets, (0, spare_n), constant_values=-1)[:, None]
  whole = lambda x: pl.BlockSpec(x.shape, lambda i: (0, 0))
  column = pl.BlockSpec((TILE_N, 1), lambda i: (i, 0))
  lse, picked = pl.pallas_call(
    _kernel,
    grid=(h.shape[0] // TILE_N,),
    in_specs=[pl.BlockSpec((TILE_N, h.shape[1]), lambda i: (i, 0)), whole(w), whole(b), column],
    out_specs=[column] * 2,
    out_shape=[jax.ShapeDtypeStruct(t.shape, jnp.float32)] * 2,
    compiler_params=triton.CompilerParams(num_warps=4, num_stages=3),
    interpret=interpret,
  )(h, w, b, t)
  return lse[: hidden.shape[0], 0], picked[: hidden.shape[0], 0]
