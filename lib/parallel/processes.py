# SPDX-License-Identifier: Apache-2.0
"""Several processes that run one program: start, barriers, broadcasts.

Each reads the rows of its own devices (`lib.data.lanes`), which do not depend on how many processes
there are. With one process, all of these functions do nothing.
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
  """Joins the other processes; call it before the first use of a device.

  JAX itself finds the others on Cloud TPU, on GKE, under SLURM and under Open MPI. Elsewhere
  the variables JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and
  JAX_PROCESS_ID are needed.

  Raises:
    InputError: none of these.
  """
  number = lambda name: int(os.environ[name]) if name in os.environ else None
  try:
    jax.distributed.initialize(
      num_processes=number('JAX_NUM_PROCESSES'), process_id=number('JAX_PROCESS_ID')
    )
  except ValueError as error:
    raise InputError(
      'no other process was found: start under SLURM, on Cloud TPU or GKE, or set '
      'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; leave out --distributed for '
      'a single process.'
    ) from error


def is_primary() -> bool:
  """Whether this process writes the files that exist once."""
  return jax.process_index() == 0


def first_only(path: pathlib.Path, make: Callable[[], None]) -> None:
  """The first process makes a missing file; all processes return when it exists."""
  if is_primary() and not path.exists():
    make()
  wait(f'{path} is made')


def wait(what: str) -> None:
  """A barrier of all processes, called `what`."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)


def broadcast(values: Any) -> np.ndarray:
  """The first process's array, given an array of the same shape on each."""
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
  """Whether a process got SIGTERM and all processes are to stop at `step`.

  All processes call it at every step. JAX handles the signal, and chooses a step that none has
  passed.
  """
  return jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step)


def local_mesh(mesh: Mesh) -> Mesh:
  """The mesh for computations of this process alone: one of its devices, if there are several
  processes."""
  return mesh if jax.process_count() == 1 else sharding.make_mesh({}, jax.local_devices()[:1])


def gather_to_host(tree: Any, mesh: Mesh) -> Any:
  """Arrays that are sharded over all processes, as whole arrays on a device of this one."""
  if jax.process_count() == 1:
    return tree
  everywhere = NamedSharding(mesh, PartitionSpec())
  whole = jax.jit(lambda leaves: leaves, out_shardings=everywhere)(tree)
  with jax.set_mesh(local_mesh(mesh)):
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), whole)
