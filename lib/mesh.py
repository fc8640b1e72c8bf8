# SPDX-License-Identifier: Apache-2.0
"""The axes of the one mesh, for all who place arrays on it or read where they lie."""

import math

from jax.sharding import AbstractMesh, Mesh

AXES = ('data', 'fsdp', 'tensor')
BATCH_AXES = ('data', 'fsdp')  # over which the rows of a batch are spread
TENSOR = 'tensor'  # over which heads, MLP and vocabulary are


def batch_devices(mesh: Mesh | AbstractMesh) -> int:
  """How many parts a batch has on a mesh; 1 on the empty one."""
  return math.prod(mesh.shape.get(axis, 1) for axis in BATCH_AXES)
