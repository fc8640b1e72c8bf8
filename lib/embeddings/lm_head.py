# SPDX-License-Identifier: Apache-2.0
"""The loss of an LM head over rows that all sequences share, on any mesh."""

import functools

import flax.linen as nn
import jax

from lib.parallel.mesh import BATCH_AXES, TENSOR, batch_devices
from lib.parameters import declare_flops
from pallas_kernels.linear_cross_entropy import (
  linear_cross_entropy,
  preferred,
  sharded_linear_cross_entropy,
)


def lm_head_loss(
  module: nn.Module,
  hidden: jax.Array,
  table: jax.Array,
  targets: jax.Array,
  bias: jax.Array | None = None,
  z_loss: float = 0.0,
) -> jax.Array:
  """Nats [B, T] (float32) of targets [B, T] under softmax(hidden · tableᵀ + bias).

  If the mesh shards the vocabulary, each device reads its own rows. The z-loss, [B, T], is sown as
  the loss 'z_loss' of the module.

  Args:
    module: the embedding.
    hidden: [B, T, D].
    table: [V, D].
    targets: int32 [B, T].
    bias: [V] or None.
    z_loss: weight of the squared log of the softmax's denominator.
  """
  mesh = jax.sharding.get_abstract_mesh()
  devices, parts = mesh.shape.get(TENSOR, 1), batch_devices(mesh)
  even = table.shape[0] % devices == 0 and targets.shape[0] % parts == 0
  logits = targets.size * table.shape[0]
  by_kernel = devices * parts > 1 and preferred(logits, hidden.dtype) == 'triton'
  if even and (devices > 1 or by_kernel):
    axis = TENSOR if devices > 1 else None
    call = functools.partial(sharded_linear_cross_entropy, axis=axis, batch_axes=BATCH_AXES)
  else:  # the compiler must shard this case, and it cannot shard a kernel
    name = 'chunked' if by_kernel else None
    call = functools.partial(linear_cross_entropy, implementation=name)
  nats, penalties = call(hidden, table, targets, bias=bias, z_loss=z_loss)
  declare_flops(module, 2 * table.size)
  if z_loss and not module.is_initializing():
    module.sow('losses', 'z_loss', penalties)
  return nats
