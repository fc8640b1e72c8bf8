# SPDX-License-Identifier: Apache-2.0
"""Accelerators by name: published rates and sizes, and loading libtpu without a TPU.

The numbers are those of the vendors: cloud.google.com/tpu/docs (pages v5e, v5p, v6e) and the data
sheets of H100 (SXM) and H200.
"""

import dataclasses
import functools
import os

import jax


@dataclasses.dataclass(frozen=True)
class Chip:
  """One accelerator.

  Attributes:
    memory: bytes of its high-bandwidth memory; 0 if it has none of its own.
    flops: peak bfloat16 operations per second.
    bandwidth: peak bytes per second to and from its memory.
    links: bytes per second that it sends to its neighbours over all links.
    axes: number of axes of the network; a ring along one axis of the mesh uses one of them.
  """

  memory: float
  flops: float
  bandwidth: float
  links: float
  axes: int


CHIPS = {
  'v5e': Chip(16e9, 197e12, 819e9, 1600e9 / 8, 2),
  'v5p': Chip(95e9, 459e12, 2765e9, 4800e9 / 8, 3),
  'v6e': Chip(32e9, 918e12, 1640e9, 3584e9 / 8, 2),
  'h100': Chip(80e9, 989e12, 3.35e12, 450e9, 1),
  'h200': Chip(141e9, 989e12, 4.8e12, 450e9, 1),
}
# What JAX calls the kinds of devices.
KINDS = {
  'TPU v5 lite': 'v5e',
  'TPU v5': 'v5p',
  'TPU v6 lite': 'v6e',
  'NVIDIA H100 80GB HBM3': 'h100',
  'NVIDIA H200': 'h200',
}


def chip_here() -> Chip | None:
  """The accelerator of this process; None for a CPU or an unknown device."""
  kind = KINDS.get(jax.devices()[0].device_kind)
  return CHIPS[kind] if kind else None


@functools.cache
def without_a_server() -> None:
  """Lets libtpu load on a machine without a TPU, and without a query to a metadata server.

  libtpu reads its environment once, so call this in processes that have not used a TPU. JAX cannot
  read programs for such a TPU from its compilation cache, so none are written to it.
  """
  os.environ.update(
    TPU_SKIP_MDS_QUERY='1',
    TPU_WORKER_HOSTNAMES='localhost',
    TPU_WORKER_ID='0',
    ALLOW_MULTIPLE_LIBTPU_LOAD='1',
  )
  jax.config.update('jax_enable_compilation_cache', False)
