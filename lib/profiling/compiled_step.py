# SPDX-License-Identifier: Apache-2.0
"""Memory, FLOPs and collectives of a compiled training step, also for devices that are not
attached.

The step is that of the training loop (`lib.train.state`), lowered from shapes and compiled for the
devices of a mesh. Memory is the compiler's figure for one device. Collectives are read from the
compiled program; those in loops are counted once per iteration.
"""

import collections
import contextlib
import dataclasses
import math
import re
import time
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from lib.parallel import sharding
from lib.parameters import describe, initial_variables
from lib.train.experiment import Experiment
from lib.train.optimizer import Optimizer
from lib.train.state import compile_lowered, prepare

COLLECTIVES = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute')
# Targets of Pallas kernels in a compiled program: TPUs; Triton up to jaxlib 0.10.2, and later.
KERNELS = ('tpu_custom_call', '__gpu$xla.gpu.triton', 'triton_kernel_call_ffi')
BITS = {
  'pred': 8,
  'bf16': 16,
  'f8e4m3fn': 8,
  'f8e5m2': 8,
  'token': 0,
}  # others have a numbered suffix


@dataclasses.dataclass(frozen=True)
class Collectives:
  """The collectives of one kind in a step, as one device sees them.

  Attributes:
    count: executions in a step.
    bytes: of their results.
    sent: bytes that a device sends in ring algorithms.
    unknown: of `count`, those in loops of unknown length, which are counted once per loop.
  """

  count: int = 0
  bytes: int = 0
  sent: float = 0.0
  unknown: int = 0


@dataclasses.dataclass(frozen=True)
class Step:
  """A compiled training step. Bytes are those of one device.

  Attributes:
    arguments: state and batch.
    outputs: outputs without the donated state.
    temporaries: activations, gradients and the compiler's own buffers.
    code: the program.
    collectives: kind -> its collectives; those between slices have kinds of their own.
    kernels: places in the program that call a Pallas kernel; one in a loop counts once.
    parameters: trained ones, of the whole model.
    flops: of all devices, as modules declare them.
    compiler_flops: of one device by the compiler, which counts the body of a loop once and a kernel
      not at all.
    seconds: of compilation: CPU time of all threads, which other jobs on the machine hardly change.
  """

  arguments: int
  outputs: int
  temporaries: int
  code: int
  collectives: Mapping[str, Collectives]
  kernels: int
  parameters: int
  flops: float
  compiler_flops: float
  seconds: float

  @property
  def bytes(self) -> int:
    """All of it."""
    return self.arguments + self.outputs + self.temporaries + self.code


def compile_step(
  experiment: Experiment,
  optimizer: Optimizer,
  batch: Mapping[str, jax.ShapeDtypeStruct],
  mesh: Mesh,
  accumulate: int = 1,
  seeds: int = 0,
) -> Step:
  """Compiles the step that `loop.train` would run on this mesh, from shapes alone.

  With `seeds`, each device of the mesh trains one model by `jax.pmap`.

  Raises:
    InputError: a batch that does not divide over the devices.
    jax.errors.JaxRuntimeError: the compiler refuses it; RESOURCE_EXHAUSTED: it does not fit.
  """
  placed = placed_shapes(batch, mesh, 0 if seeds else experiment.batch_axis)
  with contextlib.nullcontext() if seeds else jax.set_mesh(mesh):
    training = prepare(
      experiment, optimizer, placed, range(seeds) if seeds else 0, mesh, accumulate
    )
    lowered = training.step.lower(training.shapes, placed)
    start = time.process_time()
    compiled = compile_lowered(lowered)
  variables = training.shapes['variables']
  return account(compiled, variables, training.flops, time.process_time() - start)


def compile_method(
  module: Any,
  method: str,
  batch: Mapping[str, jax.ShapeDtypeStruct],
  mesh: Mesh,
  dtype: jax.typing.DTypeLike,
) -> Step:
  """Compiles a method of a language model, whose weights are `dtype`; otherwise as `compile_step`.

  '__call__' scores the tokens of a batch, 'logits' gives the logits after each.
  """
  placed = placed_shapes(batch, mesh, 0)

  def call(variables: Any, batch: Mapping[str, jax.Array]) -> Any:
    return module.apply(variables, batch, jax.random.key(0), method=method)

  with jax.set_mesh(mesh):
    made = describe(lambda key, batch: initial_variables(module, key, batch), placed)
    variables = jax.tree.map(
      lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=place),
      made.shapes,
      sharding.shardings(made.shapes, made.declared, mesh),
    )
    lowered = jax.jit(call).lower(variables, placed)
    start = time.process_time()
    compiled = compile_lowered(lowered)
  flops = made.flops * math.prod(batch['targets'].shape)
  return account(compiled, variables, flops, time.process_time() - start)


def placed_shapes(
  batch: Mapping[str, jax.ShapeDtypeStruct], mesh: Mesh, axis: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes of a batch with their shardings."""
  places = sharding.batch_shardings(batch, mesh, axis)
  return {
    name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=places[name])
    for name, array in batch.items()
  }


def account(
  compiled: jax.stages.Compiled, variables: Mapping[str, Any], flops: float, seconds: float
) -> Step:
  """The figures of a compiled step, whose variables have these shapes."""
  memory: Any = compiled.memory_analysis()
  program = compiled.as_text() or ''
  params = jax.tree.leaves(variables['params'])
  return Step(
    arguments=memory.argument_size_in_bytes,
    outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
    temporaries=memory.temp_size_in_bytes,
    code=memory.generated_code_size_in_bytes,
    collectives=collectives(program),
    kernels=kernels(program),
    parameters=sum(leaf.size for leaf in params),
    flops=flops,
    compiler_flops=(compiled.cost_analysis() or {}).get('flops', math.nan),
    seconds=seconds,
  )


def kernels(hlo: str) -> int:
  """Places in a compiled program (XLA's text of it) that call a Pallas kernel."""
  return sum(hlo.count(f'custom_call_target="{name}"') for name in KERNELS)


def collectives(hlo: str) -> dict[str, Collectives]:
  """The collectives of a compiled program (XLA's text of it), by kind."""
  found: dict[str, Collectives] = collections.defaultdict(Collectives)
  programs, entry = computations(hlo)

  def visit(name: str, times: int, known: bool) -> None:
    for line in programs.get(name, ()):
      if one := _collective(line):
        kind, size, sent = one
        old = found[kind]
        found[kind] = Collectives(
          old.count + times,
          old.bytes + times * size,
          old.sent + times * sent,
          old.unknown + (0 if known else times),
        )
      turns = _turns(line, programs) if ' while(' in line else 1
      for called in CALLED.findall(line):
        for one in re.findall(r'%?([\w.\-]+)', called):
          visit(one, times * (turns or 1), known and turns is not None)

  visit(entry, 1, True)
  return dict(found)


def _collective(line: str) -> tuple[str, int, float] | None:
  """The collective that a line starts: kind, bytes of its result, and bytes that a device sends.

  Between TPU slices, hosts send the data of devices over the data-centre network.
  """
  if match := INSTRUCTION.match(line):
    shape, kind, start = match.groups()
    size = _bytes(shape, bool(start))
    return kind, size, size * _around(kind, _group(line))
  if match := BETWEEN_SLICES.match(line):
    size = _bytes(match[1], True)
    return f'{match[2].lower().replace("_", "-")} between slices', size, size
  return None


BETWEEN_SLICES = re.compile(
  r'\s+(?:ROOT )?%?[\w.\-]+ = (.*?) send\(.*_xla_megascale_transfer_type="(\w+)"'
)
INSTRUCTION = re.compile(rf'\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ({"|".join(COLLECTIVES)})(-start)?\(')
CALLED = re.compile(r'(?:body|calls|branch_computations)=(\{[^}]*\}|%?[\w.\-]+)')


def computations(hlo: str) -> tuple[dict[str, list[str]], str]:
  """Lines of each computation by its name, and the name of the first to run."""
  programs: dict[str, list[str]] = {}
  entry = name = ''
  for line in hlo.splitlines():
    if head := re.match(r'(ENTRY )?%?([\w.\-]+) .*\{$', line):
      name = head[2]
      entry = name if head[1] else entry
      programs[name] = []
    elif name and line.startswith(' '):
      programs[name].append(line)
  return programs, entry


def _turns(line: str, programs: Mapping[str, list[str]]) -> int | None:
  """Iterations of a loop: the compiler's figure, or the limit of its counter from 0."""
  if said := re.search(r'"known_trip_count":\{"n":"(\d+)"', line):
    return int(said[1])
  condition = re.search(r'condition=%?([\w.\-]+)', line)
  lines = programs.get(condition[1], []) if condition else []
  until = re.search(r'ROOT .* compare\(%?[\w.\-]+, %?([\w.\-]+)\), direction=LT', '\n'.join(lines))
  value = until and re.search(
    rf'%?{re.escape(until[1])} = s32\[\]\S* constant\((\d+)\)', '\n'.join(lines)
  )
  return int(value[1]) if value else None


def _bytes(shape: str, start: bool) -> int:
  """Bytes of a result; for the (operand, result) pairs of asynchronous collectives, the
  result's.
  """
  sizes = [
    math.prod(int(size) for size in dims.split(',') if size) * _bits(kind) // 8
    for kind, dims in re.findall(r'(\w+)\[([\d,]*)\]', shape)
  ]
  return max(sizes, default=0) if start else sum(sizes)


def _bits(kind: str) -> int:
  return BITS[kind] if kind in BITS else int(re.sub(r'\D', '', kind))


def _group(line: str) -> int:
  """Devices that take part in one collective together."""
  if groups := re.search(r'replica_groups=\[\d+,(\d+)\]', line):
    return int(groups[1])
  if groups := re.search(r'replica_groups=\{\{([\d,]+)\}', line):
    return groups[1].count(',') + 1
  if groups := re.search(r'replica_groups=mesh\[(.*?)\] \{(.*?)\}', line):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", groups[1]))  # of axes; a part of one is :(offset)size
    axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", groups[2])
    return math.prod(int(part or sizes[axis]) for axis, part in axes)
  return 2


def _around(kind: str, group: int) -> float:
  """Bytes that a device sends around a ring, for each byte of the result."""
  if kind == 'all-reduce':
    return 2 * (group - 1) / group
  if kind == 'reduce-scatter':
    return group - 1.0
  return 1.0 if kind == 'collective-permute' else (group - 1) / group
