# SPDX-License-Identifier: Apache-2.0
"""Kernels compiled ahead of time for TPUs that are not there, and what their schedules say.

Needs libtpu, which `make aot` and `make bench` install. It reads its environment once, so this is
for processes that have not touched a TPU.
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
  """The static schedule of one Pallas kernel: a step of its grid, less stalls and transfers.

  Attributes:
    kernel: name of its body.
    bundles: instruction words, at best one a cycle; the body of a loop counts once.
    matrix_cycles: the fewest cycles in which the matrix units can take what the kernel gives them.
    spills: stores of values that found no register.
  """

  kernel: str
  bundles: int
  matrix_cycles: int
  spills: int


@functools.cache
def _dump() -> tempfile.TemporaryDirectory:
  """Where libtpu writes schedules, once it is told to."""
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
  """Compiles each Pallas kernel that the function calls by itself, and reads its schedule.

  In a process that has compiled nothing for TPUs before: libtpu is told once to write schedules,
  and then takes several times as long for whatever it compiles.
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
