# SPDX-License-Identifier: Apache-2.0
"""Several processes that run one program: how they meet, wait for each other and agree.

Each reads the rows of its own devices (`lib.data.lanes`), which do not depend on how many processes
there are. All of these functions do nothing in a process that is alone.
"""

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lib.errors import InputError
from lib.parallel import sharding


def join() -> None:
  """Makes this process one of several; to be called before anything asks for a device.

  JAX itself finds the others on Cloud TPU, on GKE, under SLURM and under Open MPI. Elsewhere
  JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID say it.

  Raises:
    InputError: neither says it.
  """
  number = lambda name: int(os.environ[name]) if name in os.environ else None
  try:
    jax.distributed.initialize(
      num_processes=number('JAX_NUM_PROCESSES'), process_id=number('JAX_PROCESS_ID')
    )
  except ValueError as error:
    raise InputError(
      'no other process is to be found: start under SLURM, on Cloud TPU or GKE, or set '
      'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; leave out --distributed for '
      'a process that is alone.'
    ) from error


def is_primary() -> bool:
  """Whether this is the process that writes what there is one of."""
  return jax.process_index() == 0


def first_only(path: pathlib.Path, make: Callable[[], None]) -> None:
  """Lets the first process make a file that is not there; all return when it is."""
  if is_primary() and not path.exists():
    make()
  wait(f'{path} is made')


def wait(what: str) -> None:
  """Returns when all processes have come to this place, whose name is `what`."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)


def broadcast(values: Any) -> np.ndarray:
  """What the first process holds, given an array of the same shape on each."""
  if jax.process_count() == 1:
    return np.asarray(values)
  return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(values)))


def gathered(value: Any) -> list[Any]:
  """JSON-like values of all processes, in their order; each process gives its own."""
  if jax.process_count() == 1:
    return [value]
  text = np.frombuffer(json.dumps(value).encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.array(text.size))
  padded = np.zeros(sizes.max(), np.uint8)
  padded[: text.size] = text
  every = multihost_utils.process_allgather(padded)
  return [json.loads(row[:size].tobytes()) for row, size in zip(every, sizes, strict=True)]


def stopping(step: int) -> bool:
  """Whether SIGTERM has come to one of several processes, and `step` is where all shall stop.

  To be asked at every step by all. JAX has the signal, and chooses a step that none has passed.
  """
  return jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step)


def local_mesh(mesh: Mesh) -> Mesh:
  """Where this process computes by itself: on one device of its own, if there are others."""
  return mesh if jax.process_count() == 1 else sharding.make_mesh({}, jax.local_devices()[:1])


def gather_to_host(tree: Any, mesh: Mesh) -> Any:
  """Arrays over the devices of all processes as whole arrays on a device of this one."""
  if jax.process_count() == 1:
    return tree
  everywhere = NamedSharding(mesh, PartitionSpec())
  whole = jax.jit(lambda leaves: leaves, out_shardings=everywhere)(tree)
  with jax.set_mesh(local_mesh(mesh)):
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), whole)
