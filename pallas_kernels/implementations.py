# SPDX-License-Identifier: Apache-2.0
"""What every kernel is compiled for, and what it refuses in the same words."""

from collections.abc import Iterable

import jax

BACKENDS = {'pallas': 'tpu', 'triton': 'gpu'}  # of implementations that need one
VECTOR_MEMORY = 12 * 2**20  # bytes that a kernel may plan with, of the 16 MiB XLA grants it


def backend() -> str:
  """What a program will run on: 'cpu', 'gpu' or 'tpu', of the mesh in force or of this process.

  A mesh may be of devices that are not there, for which a program is only compiled.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  return device.platform if device else jax.default_backend()


def check_implementation(kernel: str, name: str, known: Iterable[str], interpret: object) -> None:
  """Raises ValueError for an implementation that the kernel has not, or the backend cannot run."""
  if name not in known:
    raise ValueError(
      f'{kernel} has no implementation {name!r}; choose None or one of {", ".join(known)}.'
    )
  wanted = BACKENDS.get(name)
  if wanted and not interpret and backend() != wanted:
    raise ValueError(
      f'implementation {name!r} runs on a {wanted.upper()}, not on {backend()}: '
      "leave it None, or name 'reference'."
    )


def check_vector_memory(tiles: str, used: int) -> None:
  """Raises ValueError if what a kernel holds at once does not fit a TPU core's vector memory."""
  if used > VECTOR_MEMORY:
    raise ValueError(
      f'{tiles} take {used / 2**20:.1f} MiB of {VECTOR_MEMORY / 2**20:.0f} MiB vector memory: '
      'choose smaller ones.'
    )
