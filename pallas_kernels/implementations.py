# SPDX-License-Identifier: Apache-2.0
"""The backend that a kernel is compiled for, and checks that all kernels share."""

from collections.abc import Iterable

import jax

BACKENDS = {
  'pallas': 'tpu',
  'triton': 'gpu',
}  # implementations that need a certain backend
VECTOR_MEMORY = 12 * 2**20  # bytes that a kernel may use, of the 16 MiB that XLA allows


def backend() -> str:
  """The backend of the mesh in use, or else of this process: 'cpu', 'gpu' or 'tpu'.

  The devices of a mesh need not be attached; programs for them are only compiled.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  return device.platform if device else jax.default_backend()


def check_implementation(kernel: str, name: str, known: Iterable[str], interpret: object) -> None:
  """Raises ValueError if the kernel lacks this implementation, or the backend cannot run it."""
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
  """Raises ValueError if the data of a kernel does not fit a TPU core's vector memory."""
  if used > VECTOR_MEMORY:
    raise ValueError(
      f'{tiles} take {used / 2**20:.1f} MiB of {VECTOR_MEMORY / 2**20:.0f} MiB vector memory: '
      'choose smaller ones.'
    )
