# SPDX-License-Identifier: Apache-2.0
"""Causal attention of packed rows with trained biases by distance, without any [T, T] array.

`implementation=None` means the Pallas kernels on a TPU, and on a GPU with bfloat16; elsewhere it
means 'xla'. RESULTS.md has the times on an H200 compared with 'xla' and cuDNN, written by
`python -m pallas_kernels.bench --kernels causal_attention`. The TPU kernels have not been timed.

Why not the kernels of libraries:

* JAX's flash_attention for TPUs accepts biases only as an array [B, H, T, T], and its
  splash_attention accepts none. Both put the width of a head along the lanes, of which
  visual_unicode fills 32 of 128; the kernels here put time along the lanes.
* cuDNN accepts biases, and segments, only as arrays in the dtype of the queries, and always
computes
  their gradient. So it saves no memory if there are biases; only the bench calls it.

Legend: B batch, T length, H heads, G heads of keys and values, K width of a head, N buckets of
distances, M largest distance with its own bias; tiles of t tokens.
"""

import jax
import jax.numpy as jnp

from pallas_kernels.attention import attention, attention_reference, check_heads
from pallas_kernels.causal_attention_tpu import BlockSizes, pallas
from pallas_kernels.causal_attention_triton import WIDTHS, triton
from pallas_kernels.distances import bias_and_mask
from pallas_kernels.implementations import VECTOR_MEMORY, backend, check_implementation

IMPLEMENTATIONS = ('reference', 'xla', 'pallas', 'triton')
DTYPES = ('float32', 'bfloat16')  # dtypes of the TPU kernels


def causal_attention_reference(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segments: jax.Array,
  table: jax.Array | None = None,
  vectors: jax.Array | None = None,
  starts: tuple[int, ...] = (),
) -> jax.Array:
  """The specification: `jax.nn.dot_product_attention` with the whole mask and bias."""
  return attention_reference(q, k, v, *bias_and_mask(q, segments, table, vectors, starts))


def xla(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segments: jax.Array,
  table: jax.Array | None = None,
  vectors: jax.Array | None = None,
  starts: tuple[int, ...] = (),
) -> jax.Array:
  """The same result by `pallas_kernels.attention`."""
  bias, mask = bias_and_mask(q, segments, table, vectors, starts)
  return attention(q, k, v, bias, mask=mask)


def preferred(width: int, dtype: jnp.dtype) -> str:
  """The default implementation of `causal_attention`: 'pallas', 'triton' or 'xla'."""
  dtype, where = jnp.dtype(dtype), backend()
  fits = BlockSizes(128).memory(width, dtype.itemsize) <= VECTOR_MEMORY
  if where == 'tpu' and dtype.name in DTYPES and fits:
    return 'pallas'
  return 'triton' if where == 'gpu' and dtype == jnp.bfloat16 and width in WIDTHS else 'xla'


def _check(q, table, vectors, starts):
  """Raises ValueError for biases that do not fit the queries or each other."""
  buckets = 0 if table is None else table.shape[1]
  if len(starts) != buckets or list(starts[:1]) not in ([], [0]) or sorted(starts) != list(starts):
    raise ValueError(
      f'starts of {len(starts)} buckets do not fit a table of {buckets}: they rise from 0, one for '
      'each bucket.'
    )
  if vectors is not None and (vectors.ndim != 2 or vectors.shape[1] != q.shape[3]):
    raise ValueError(
      f'vectors {list(vectors.shape)} do not fit queries of width {q.shape[3]}: there is one of '
      'that width for each distance.'
    )


def causal_attention(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segments: jax.Array,
  *,
  table: jax.Array | None = None,
  vectors: jax.Array | None = None,
  starts: tuple[int, ...] = (),
  implementation: str | None = None,
  blocks: BlockSizes | None = None,
  interpret: object = False,
) -> jax.Array:
  """Returns [B, T, H, K]: softmax(q·(k + vector)/√K + bias) over the keys a token may see, times v.

  A token sees itself and the tokens before it that have its segment.

  Args:
    q: queries [B, T, H, K].
    k: keys [B, T, G, K]; G divides H, and head h of queries sees head h // (H / G) of keys.
    v: values [B, T, G, K].
    segments: int32 [B, T], the document that each token is of, none below 0.
    table: biases [H, N], one for each bucket of distances, or None.
    vectors: [M + 1, K], one for each distance, the last for all from M on, or None.
    starts: the least distance in each bucket, [N], rising from 0.
    implementation: 'reference'; 'xla' (`pallas_kernels.attention`, with arrays [B, H, T, T], on
      any backend); 'pallas' (on a TPU) and 'triton' (on a GPU, for heads of 16,
      32, 64 or 128), which hold a tile [t, t] of each text; or None for 'pallas' on a TPU, 'triton'
      on a GPU with bfloat16, and 'xla' elsewhere and where these cannot run.
    blocks: tiles of 'pallas'; None for the largest that fit, of 512 at most.
    interpret: emulate 'pallas' or 'triton' on any backend (for tests: slow); True, or for 'pallas'
      pltpu.InterpretParams.

  Raises:
    ValueError: no such implementation, one that cannot run here, tiles that do not fit, or biases
      that do not fit the queries or each other.
  """
  chosen = implementation or preferred(q.shape[3], q.dtype)
  check_implementation('causal_attention', chosen, IMPLEMENTATIONS, interpret)
  check_heads(q, k)
  _check(q, table, vectors, starts)
  if chosen == 'pallas':
    if q.dtype.name not in DTYPES:
      raise ValueError(f'queries of {q.dtype}: the kernels take {" or ".join(DTYPES)}.')
    return pallas(q, k, v, segments, table, vectors, starts, blocks, interpret)
  if chosen == 'triton':
    if not interpret and q.shape[3] not in WIDTHS:
      raise ValueError(f'heads of width {q.shape[3]}: the GPU kernels take one of {WIDTHS}.')
    return triton(q, k, v, segments, table, vectors, starts, interpret=bool(interpret))
  by_name = {'reference': causal_attention_reference, 'xla': xla}
  return by_name[chosen](q, k, v, segments, table, vectors, starts)
