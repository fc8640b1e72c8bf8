# SPDX-License-Identifier: Apache-2.0
"""Devices by name, to compile a step for; they need not be attached."""

import importlib.util
import re

import jax
from jax.experimental import topologies

from lib.errors import InputError
from pallas_kernels.chips import CHIPS, Chip, without_a_server

TOPOLOGY = re.compile(
  r'cpu:(?P<cpus>[1-9]\d*)|h200x(?P<cards>[1-9]\d*)|(?P<tpu>v5e|v5p|v6e):\d+(x\d+){1,2}'
)
# XLA's description of a CUDA device, from the data sheet of the H200.
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 141000000000 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H200"
"""


def chip_of(topology: str) -> Chip | None:
  """The accelerator of a topology; None for the CPU."""
  return CHIPS.get(re.split('[:x]', topology)[0])


def devices(topology: str, slices: int = 1) -> list[jax.Device]:
  """Devices that a step can be compiled for; they need not be attached.

  Args:
    topology: a TPU slice such as v5e:16x16, v5p:8x8x4 or v6e:16x16; h200x8, cards of one host; or
      cpu:8, which this process must have (`jax_num_cpu_devices`).
    slices: of a TPU, connected by the data centre's network.

  Raises:
    InputError: no such topology, too few CPU devices, or a compiler that is not installed.
  """
  match = TOPOLOGY.fullmatch(topology)
  if not match or slices < 1 or (slices > 1 and not match['tpu']):
    raise InputError(
      f'topology {topology!r} of {slices} slices is not one of v5e:AxB, v5p:AxBxC, v6e:AxB (TPUs, '
      'in one slice or more), h200xN or cpu:N.'
    )
  if match['cpus']:
    found, wanted = jax.devices('cpu'), int(match['cpus'])
    if len(found) < wanted:
      raise InputError(f'this process has {len(found)} devices of the CPU: {topology} takes more.')
    return found[:wanted]
  try:
    if match['cards']:
      shape = f'1x1x{match["cards"]}'
      _needs('jax_plugins.xla_cuda13', topology, "the extra cuda: pip install -e '.[cuda]'")
      return topologies.get_topology_desc(
        shape, platform='cuda', target_config=H200, topology=shape
      ).devices
    _needs('libtpu', topology, 'libtpu: `make pod` puts it into .cache/libtpu, for PYTHONPATH')
    without_a_server()
    return topologies.get_topology_desc(topology, platform='tpu', num_slices=slices).devices
  except (ValueError, jax.errors.JaxRuntimeError) as error:
    raise InputError(f'topology {topology!r} is refused: {str(error).splitlines()[0]}') from error


def _needs(module: str, topology: str, what: str) -> None:
  try:
    found = importlib.util.find_spec(module)
  except ModuleNotFoundError:
    found = None
  if not found:
    raise InputError(f'to compile for {topology} takes {what}.')
