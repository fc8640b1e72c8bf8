# SPDX-License-Identifier: Apache-2.0
"""Compiles kernels ahead of time for TPUs that are not attached, and reads their static schedules.

Needs libtpu, which `make aot` and `make bench` install. libtpu reads its environment
once, so use this module in processes that have not used a TPU.
"""

import functools
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.extend.core import jaxprs_in_params
from jax.sharding import SingleDeviceSharding

from pallas_kernels.chips import without_a_server

TOPOLOGIES = {'v5e': 'v5e:2x2', 'v5p': 'v5p:2x2x1', 'v6e': 'v6e:2x2'}


class Schedule(NamedTuple):
  """The static schedule of one Pallas kernel: a step of its grid, without stalls and transfers.

  Attributes:
    kernel: name of its body.
    bundles: instruction words, at most one per cycle; the body of a loop counts once.
    matrix_cycles: the fewest cycles that the matrix units need for the kernel's operations.
    spills: stores of values for which there was no free register.
  """

  kernel: str
  bundles: int
  matrix_cycles: int
  spills: int


@functools.cache
def _dump() -> tempfile.TemporaryDirectory:
  """The folder to which libtpu writes schedules, after it is asked to."""
  folder = tempfile.TemporaryDirectory(prefix='schedules')
  flags = f'--xla_jf_dump_to={folder.name} --xla_jf_dump_llo_text=true'
  os.environ['LIBTPU_INIT_ARGS'] = flags
  return folder


def compile_for(generation: str, function: Callable, shapes: Sequence[jax.ShapeDtypeStruct]) -> Any:
  """The function compiled for one chip of v5e, v5p or v6e; raises what its compiler refuses."""
  without_a_server()
  chip = topologies.get_topology_desc(TOPOLOGIES[generation], platform='tpu').devices[0]
  here = SingleDeviceSharding(chip)
  jitted = jax.jit(function, in_shardings=here, out_shardings=here)
  return jitted.trace(*shapes).lower(lowering_platforms=('tpu',)).compile()


def schedules(
  generation: str, function: Callable, shapes: Sequence[jax.ShapeDtypeStruct]
) -> Iterator[Schedule]:
  """Compiles each Pallas kernel of the function separately, and reads its schedule.

  Use a process that has not compiled for TPUs before: libtpu can be asked only once to write
  schedules, and from then on compiles several times as slowly.
  """
  _dump()
  for call in _pallas_calls(jax.make_jaxpr(function)(*shapes).jaxpr):
    folder = pathlib.Path(_dump().name)
    for path in folder.iterdir():
      path.unlink()

    def alone(*arrays, call=call):
      return call.primitive.bind(*arrays, **call.params)

    inputs = [jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in call.invars]
    compile_for(generation, alone, inputs)
    given, capacity = _slots(folder, 'pre-delay')
    final, _ = _slots(folder, 'final')
    yield Schedule(
      call.params['jaxpr'].debug_info.func_name,
      len(final['MXU']),
      -(-sum(given['MXU']) // capacity['MXU']),
      sum(final['VSTORE:SPILL']),
    )


def _pallas_calls(jaxpr: Any) -> Iterator[Any]:
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'pallas_call':
      yield equation
    else:
      for inner in jaxprs_in_params(equation.params):
        yield from _pallas_calls(inner)


def _slots(folder: pathlib.Path, stage: str) -> tuple[dict[str, list[int]], dict[str, int]]:
  """Slots that each bundle of the kernel `alone` takes, by unit, and how many a bundle has."""
  (path,) = folder.glob(f'*-alone.*-{stage}_hlo-static-per-bundle-utilization.txt')
  _, names, capacity, _, *bundles = path.read_text().splitlines()
  units = [name.strip() for name in names.split(',')]
  columns = zip(*([int(x) for x in line.split()] for line in bundles if line.strip()))
  taken = {unit: list(column) for unit, column in zip(units, columns)}
  return taken, dict(zip(units, map(int, capacity.split())))
