# SPDX-License-Identifier: Apache-2.0
"""The attention kernel of packed rows, on the mesh in use."""

import math

import jax
from jax.sharding import PartitionSpec

from lib.parallel.mesh import BATCH_AXES, TENSOR, batch_devices
from pallas_kernels.causal_attention import causal_attention


def packed_attention(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  segments: jax.Array,
  table: jax.Array | None,
  vectors: jax.Array | None,
  starts: tuple[int, ...],
) -> jax.Array:
  """`causal_attention` by a kernel, each device with its own texts and heads.

  A compiler cannot split a kernel, so `shard_map` gives each device its part. Texts or heads that
  do not divide over their axes are replicated along them.
  """

  def local(q, k, v, segments, table, vectors):
    return causal_attention(q, k, v, segments, table=table, vectors=vectors, starts=starts)

  mesh = jax.sharding.get_abstract_mesh()
  if math.prod(mesh.shape.values()) == 1:
    return local(q, k, v, segments, table, vectors)
  head_axis = TENSOR if q.shape[2] % mesh.shape[TENSOR] == 0 else None
  batch_axes = BATCH_AXES if q.shape[0] % batch_devices(mesh) == 0 else None
  batch = PartitionSpec(batch_axes)
  heads = PartitionSpec(batch_axes, None, head_axis)
  return jax.shard_map(
    local,
    in_specs=(heads, heads, heads, batch, PartitionSpec(head_axis), PartitionSpec()),
    out_specs=heads,
    check_vma=False,
  )(q, k, v, segments, table, vectors)
