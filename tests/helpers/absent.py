# SPDX-License-Identifier: Apache-2.0
"""Meshes of one device that is not attached; code inside `on` is traced and lowered for it."""

import contextlib

import jax
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from lib.parallel.mesh import AXES

KINDS = {'cpu': 'cpu', 'tpu': 'TPU v5 lite', 'gpu': 'NVIDIA H200'}  # as JAX names devices


def on(platform: str) -> contextlib.AbstractContextManager[None]:
  """The mesh of a CPU, TPU or GPU, in force."""
  device = AbstractDevice(device_kind=KINDS[platform], num_cores=None, platform=platform)
  mesh = AbstractMesh((1, 1, 1), AXES, (AxisType.Auto,) * 3, abstract_device=device)
  return jax.sharding.use_abstract_mesh(mesh)


def lowered_for_gpu(function, *arguments) -> str:
  """The text of a program for a GPU; arguments may be shapes."""
  with on('gpu'):
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=('cuda',)).as_text()
