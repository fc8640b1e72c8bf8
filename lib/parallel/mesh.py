# SPDX-License-Identifier: Apache-2.0
"""The axes of the mesh, and the rows of a batch that belong to this process."""

import math

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

AXES = ('data', 'fsdp', 'tensor')
BATCH_AXES = ('data', 'fsdp')  # over which the rows of a batch are spread
TENSOR = 'tensor'  # over which heads, MLP and vocabulary are


def batch_devices(mesh: Mesh | AbstractMesh) -> int:
  """How many parts a batch has on a mesh; 1 on the empty one."""
  return math.prod(mesh.shape.get(axis, 1) for axis in BATCH_AXES)


def own_rows(rows: int) -> np.ndarray:
  """Which rows of a batch are on devices of this process, bool [rows].

  It depends on the mesh in use (`jax.set_mesh`); without one, all rows are.
  """
  mesh = jax.sharding.get_mesh()
  if mesh.empty or jax.process_count() == 1:
    return np.ones(rows, bool)
  found = np.zeros(rows, bool)
  place = NamedSharding(mesh, PartitionSpec(BATCH_AXES))
  for span in place.addressable_devices_indices_map((rows,)).values():
    found[span] = True
  return found
