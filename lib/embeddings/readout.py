# SPDX-License-Identifier: Apache-2.0
"""The loss of a readout over rows that all sequences share, on whatever mesh is in force."""

import flax.linen as nn
import jax

from lib.mesh import BATCH_AXES, TENSOR, batch_devices
from pallas_kernels.linear_cross_entropy import linear_cross_entropy, sharded_linear_cross_entropy

LOG_SUM = 'log_sum'  # what is sown


def readout_nats(
  module: nn.Module,
  hidden: jax.Array,
  table: jax.Array,
  targets: jax.Array,
  bias: jax.Array | None = None,
) -> jax.Array:
  """Nats [B, T] (float32) of targets [B, T] under softmax(hidden · tableᵀ + bias).

  Where the mesh spreads the vocabulary, each device reads its own rows. For a z-loss the log of the
  softmax's denominator, [B, T], is sown as `intermediates/…/log_sum` of the module.

  Args:
    module: the embedding.
    hidden: [B, T, D].
    table: [V, D].
    targets: int32 [B, T].
    bias: [V] or None.
  """
  mesh = jax.sharding.get_abstract_mesh()
  devices = mesh.shape.get(TENSOR, 1)
  even = table.shape[0] % devices == 0 and targets.shape[0] % batch_devices(mesh) == 0
  if devices > 1 and even:
    nats, log_sum = sharded_linear_cross_entropy(
      hidden, table, targets, bias=bias, axis=TENSOR, batch_axes=BATCH_AXES
    )
  else:
    nats, log_sum = linear_cross_entropy(hidden, table, targets, bias=bias)
  module.sow('intermediates', LOG_SUM, log_sum)
  return nats
