# SPDX-License-Identifier: Apache-2.0
"""Sharding of activations on the mesh in use (`jax.set_mesh`)."""

import jax
from jax.sharding import PartitionSpec

from lib.parallel.mesh import BATCH_AXES, batch_devices


def by_rows(x: jax.Array) -> jax.Array:
  """Activations [B, …] with B spread over the devices that share a batch, if it divides.

  Without this constraint the compiler may gather the activations of all devices instead of a weight
  that is sharded over the same axis. Other axes are left to the compiler.
  """
  mesh = jax.sharding.get_abstract_mesh()
  devices = batch_devices(mesh)
  if devices == 1 or x.shape[0] % devices:
    return x
  others = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)
  return jax.lax.with_sharding_constraint(x, PartitionSpec(BATCH_AXES, *others))
