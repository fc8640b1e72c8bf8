# SPDX-License-Identifier: Apache-2.0
"""Compiles a recipe's training step for accelerators that are not attached, and shows its memory
and cost. For a Hugging Face folder it compiles logits, scoring and a training step.

python -m experiments.tools.aot --config=equal_info:paper --topology=v5p:8x8x4
python -m experiments.tools.aot --folder=DIR --topology=v5e:16x16

TPU topologies need libtpu: `make pod` downloads it into .cache/libtpu, to which PYTHONPATH must
then be set. `h200x8` needs the CUDA plugin of the extra `cuda`; `cpu:8` needs nothing. docs/pod.md
explains the output.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import math
import pathlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments.command_line import CONFIGS
from experiments.recipe import TrainSpec
from experiments.tools import command, kept, steps
from lib import provenance
from lib.data import pipeline
from lib.errors import InputError
from lib.language_model import huggingface
from lib.objectives.next_token import next_token
from lib.parallel import sharding
from lib.parallel.mesh import AXES
from lib.profiling import compiled_step, topologies
from lib.train import optimizer
from lib.train.experiment import Experiment
from pallas_kernels.chips import CHIPS, Chip

CONFIG = config_flags.DEFINE_config_file(
  'config', f'{CONFIGS}/markov.py:paper', 'NAME:SCALE or FILE.py:SCALE.', lock_config=True
)
TOPOLOGY = flags.DEFINE_list(
  'topology',
  ['cpu:8'],
  'Such as v5p:8x8x4, v5e:16x16, v6e:16x16, h200x8, cpu:8; empty: only --scaling.',
)
SLICES = flags.DEFINE_integer('slices', 1, 'Number of TPU slices.', lower_bound=1)
FOLDER = flags.DEFINE_string(
  'folder', '', 'A Hugging Face folder instead of a recipe; only its config.json is read.'
)
MODEL = flags.DEFINE_string('model', '', 'Which model of the recipe; by default the largest.')
OUT = flags.DEFINE_string('out', 'runs/aot', 'Folder for aot.md and aot.json.')
SCALING = flags.DEFINE_bool('scaling', False, 'Also estimate scaling from 8 to 1,024 v5p chips.')
HEADER = (
  'model', 'topology', 'data × fsdp × tensor', 'remat', 'accumulate', 'parameters',
  'state and batch', 'returned', 'temporaries', 'program', 'of memory', 'collectives a step',
  'kernels', 'TFLOP a chip', 'by the compiler', 'compiled in, CPU time',
  'fits',
)  # fmt: skip
ESTIMATES = (
  'scaling', 'chips', 'rows', 'computing, ms', 'sending, ms', 'rows a second', 'of full rate',
)  # fmt: skip
SIZES = ('v5p:2x2x2', 'v5p:4x4x4', 'v5p:8x8x4', 'v5p:8x8x16')
LENGTH = 4096  # tokens at most of the texts that a folder's model is compiled for, one a chip
PAGE = """# Training steps compiled for accelerators that are not attached

Written by `python -m experiments.tools.aot --out=docs`; [pods](pod.md) explains the columns.
Nothing here ran on an accelerator. A new run replaces the section with the same title.
"""
METHODS = {'logits': 'logits', 'scoring': '__call__'}
REFERENCE = 256  # chips on which weak scaling has the config's batch
Tell = Callable[[Sequence[str]], None]  # takes the cells of a row
Making = Callable[[bool], TrainSpec]  # whether to rematerialise -> the plan
Compiling = Callable[['Attempt', Sequence[jax.Device]], compiled_step.Step]


class Attempt(NamedTuple):
  """One way of placing a step on the devices.

  Attributes:
    mesh: sizes of its axes.
    remat: whether layers are computed again in the backward pass.
    accumulate: parts of a batch.
  """

  mesh: Mapping[str, int]
  remat: bool
  accumulate: int


def execute() -> None:
  """Shows and keeps a row for each attempt, up to the first that fits, on each topology."""
  jax.config.update('jax_platforms', 'cpu')  # also on a machine with an accelerator
  jax.config.update('jax_num_cpu_devices', max(map(_cpus, TOPOLOGY.value), default=1))
  jax.config.update('jax_enable_compilation_cache', False)  # its time is one of the answers
  rows: list[Sequence[str]] = []

  def tell(cells: Sequence[str]) -> None:
    print(_line(cells) if rows else _head(HEADER) + '\n' + _line(cells), flush=True)
    rows.append(cells)

  folder = pathlib.Path(FOLDER.value)
  found = of_folder(folder, tell) if FOLDER.value else of_recipe(tell)
  if rows:
    title = folder.name if FOLDER.value else f'{_recipe()}, {CONFIG.value.scale}'
    title += f', {SLICES.value} slices' * (SLICES.value > 1)
    kept.keep(pathlib.Path(OUT.value), 'aot', PAGE, shown, title, _section(rows))
  if None in found:
    sys.exit(1)


def shown(title: str, section: Mapping[str, Any]) -> str:
  """A section of the page."""
  lines = [f'## {title}\n', f'`{section["command"]}`, {section["date"]}, {section["versions"]}.\n']
  return '\n'.join([*lines, _head(HEADER), *map(_line, section['rows']), ''])


def _section(rows: Sequence[Sequence[str]]) -> dict[str, Any]:
  about, versions = provenance.about(), {}
  for package in ('jax', 'libtpu'):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      versions[package] = importlib.metadata.version(package)
  return {
    'command': about['command'],
    'date': about['date'][:10],
    'versions': ', '.join(f'{package} {version}' for package, version in versions.items()),
    'rows': rows,
  }


def _recipe() -> str:
  return pathlib.Path(config_flags.get_config_filename(flags.FLAGS['config'])).stem


def of_recipe(tell: Tell) -> list[compiled_step.Step | None]:
  """The training step of a recipe's model on each topology."""
  config = CONFIG.value
  recipe = steps.load(config_flags.get_config_filename(flags.FLAGS['config']))
  name = steps.chosen(recipe, config, MODEL.value)
  for topology in TOPOLOGY.value:  # those refused are, before minutes go by for the others
    topologies.devices(topology, SLICES.value)
  made = lambda remat: recipe.train_specs(with_remat(config, remat))[name]()
  found = [fit(config, name, made, topology, SLICES.value, tell) for topology in TOPOLOGY.value]
  if SCALING.value:
    scale(config, name, made, tell)
  return found


def of_folder(path: pathlib.Path, tell: Tell) -> list[compiled_step.Step | None]:
  """What a user of a Hugging Face model runs, on each topology; a text for each chip.

  The weights are sharded over all chips. They have the folder's dtype, but float32 in training.
  """
  shape = huggingface.read_shape(path)
  module, length = shape.module, min(shape.context, LENGTH)
  every = [topologies.devices(topology, SLICES.value) for topology in TOPOLOGY.value]
  found = []
  for topology, devices in zip(TOPOLOGY.value, every):
    batch = pipeline.shapes(len(devices), length)
    own = Attempt({'data': SLICES.value, 'fsdp': -1}, False, 1)
    for what, method in METHODS.items():
      compiling = lambda own, devices, method=method, batch=batch: compiled_step.compile_method(
        module, method, batch, sharding.make_mesh(own.mesh, devices), module.decoder.dtype
      )
      found.append(
        first_that_fits(f'{path.name}, {what}', compiling, [own], topology, devices, tell)
      )

    def trained(remat: bool, batch: dict = batch) -> TrainSpec:
      one = module.clone(decoder=module.decoder.clone(remat=remat))
      chain = optimizer.make_optimizer('adamw', lambda _: 1e-4)
      experiment = Experiment(*next_token(one), batches=())
      return TrainSpec(experiment, chain, batch, module.embedding.vocab_size)

    ways = [own, own._replace(remat=True)]
    name = f'{path.name}, training step'
    found.append(first_that_fits(name, _training(trained), ways, topology, devices, tell))
  return found


def _cpus(topology: str) -> int:
  kind, _, count = topology.partition(':')
  return int(count) if kind == 'cpu' and count.isdigit() else 1


def fit(
  config: ConfigDict, name: str, made: Making, topology: str, slices: int, tell: Tell
) -> compiled_step.Step | None:
  """Tries one way after the other until the step fits, and tells what came of each."""
  devices, one = topologies.devices(topology, slices), made(False)
  seeds = one.batch['targets'].shape[0]
  hosts = {device.process_index for device in devices}
  if one.alone and len(hosts) == 1 and 1 < seeds <= len(devices):  # as `fit.way` chooses
    where = [Attempt({'data': seeds}, any(_remats(config)), config.accumulate)]
    name = f'{name}, {seeds} seeds by pmap'
    return first_that_fits(name, _one_each(one, seeds), where, topology, devices[:seeds], tell)
  ways = attempts(config, rows_of(one), len(devices))
  return first_that_fits(name, _training(made), ways, topology, devices, tell)


def _one_each(one: TrainSpec, seeds: int) -> Compiling:
  """Compiles the step of several seeds, each on a device of its own."""

  def compiling(attempt: Attempt, devices: Sequence[jax.Device]) -> compiled_step.Step:
    assert one.alone
    mesh = sharding.independent_devices(devices)
    return compiled_step.compile_step(
      one.alone, one.optimizer, one.batch, mesh, attempt.accumulate, seeds
    )

  return compiling


def _training(made: Making) -> Compiling:
  """Compiles the training step of a plan."""

  def compiling(attempt: Attempt, devices: Sequence[jax.Device]) -> compiled_step.Step:
    one, mesh = made(attempt.remat), sharding.make_mesh(attempt.mesh, devices)
    return compiled_step.compile_step(
      one.experiment, one.optimizer, one.batch, mesh, attempt.accumulate
    )

  return compiling


def first_that_fits(
  name: str,
  compiling: Compiling,
  ways: Sequence[Attempt],
  topology: str,
  devices: Sequence[jax.Device],
  tell: Tell,
) -> compiled_step.Step | None:
  """Tries one way after the other on the devices of a topology, and tells what came of each."""
  chip = topologies.chip_of(topology)
  slices = len({getattr(device, 'slice_index', 0) for device in devices})
  where = topology if slices == 1 else f'{slices} × {topology}'
  for attempt in ways:
    row = [name, where, *_shown(attempt)]
    try:
      step = compiling(attempt, devices)
    except (InputError, jax.errors.JaxRuntimeError) as error:
      tell([*row, *[''] * (len(HEADER) - len(row) - 1), _reason(error)])
      continue
    fits = chip is None or step.bytes <= chip.memory
    tell([*row, *_measured(step, chip, len(devices)), 'yes' if fits else 'no'])
    if fits:
      return step
  return None


def rows_of(one: TrainSpec) -> int:
  """Rows of a batch."""
  return one.batch['targets'].shape[one.experiment.batch_axis]


def attempts(config: ConfigDict, batch: int, devices: int) -> list[Attempt]:
  """The config's own way, then other meshes, then rematerialisation, then accumulation.

  A batch of B rows reaches gcd(B, devices) of them; `tensor` takes the rest. `fsdp` holds less a
  device than `data`, and sends more.
  """
  rows = math.gcd(batch, devices)
  own = Attempt(config.mesh.to_dict(), any(_remats(config)), config.accumulate)
  split = {'data': 1, 'fsdp': 1, 'tensor': devices // rows}
  found = [own, *(own._replace(mesh=split | {axis: rows}) for axis in ('data', 'fsdp'))]
  if rows == devices and own.mesh == {'data': -1, 'fsdp': 1, 'tensor': 1}:
    del found[1]  # is the first
  if _remats(config):
    found.append(found[-1]._replace(remat=True))
  while batch % (2 * found[-1].accumulate * rows) == 0:
    found.append(found[-1]._replace(accumulate=2 * found[-1].accumulate))
  return found


def scale(config: ConfigDict, name: str, made: Making, tell: Tell) -> None:
  """Prints an estimate of strong and weak scaling, from steps compiled for each size.

  Each chip is taken to compute at its full rate and to send over the links of one axis, one after
  the other: what is hidden behind computation, and what stalls, are both left out.
  """
  estimates = []

  @functools.cache
  def compiled(topology: str, rows: int) -> compiled_step.Step | None:
    return fit(config, name, functools.partial(_resized, made, rows), topology, 1, tell)

  for kind in ('strong', 'weak'):
    for topology in SIZES:
      chip, count = CHIPS['v5p'], len(topologies.devices(topology))
      rows = rows_of(made(False))
      if kind == 'weak':
        rows = max(1, rows * count // REFERENCE)
      if (step := compiled(topology, rows)) is None:
        continue
      compute = step.flops / count / chip.flops
      send = sum(one.sent for one in step.collectives.values()) / (chip.links / chip.axes)
      estimates.append(
        [kind, str(count), str(rows), *(f'{1e3 * t:.3g}' for t in (compute, send)),
         f'{rows / (compute + send):,.0f}', f'{compute / (compute + send):.0%}']
      )  # fmt: skip
  print('\nAn estimate: nothing of it ran.\n')
  print('\n'.join([_head(ESTIMATES), *map(_line, estimates)]), flush=True)


def _resized(made: Making, rows: int, remat: bool) -> TrainSpec:
  """The spec with `rows` rows per batch."""
  one = made(remat)
  axis = one.experiment.batch_axis
  resize = lambda shape: (*shape[:axis], rows, *shape[axis + 1 :])
  batch = {
    field: jax.ShapeDtypeStruct(resize(array.shape), array.dtype)
    for field, array in one.batch.items()
  }
  return dataclasses.replace(one, batch=batch)


def _remats(config: ConfigDict) -> list[bool]:
  """The `remat` fields of the models' sections."""
  sections = [section for section in config.values() if isinstance(section, ConfigDict)]
  return [section.remat for section in sections if 'remat' in section]


def with_remat(config: ConfigDict, remat: bool) -> ConfigDict:
  """The config with `remat` in all sections that have it."""
  changed = config.copy_and_resolve_references()
  for section in changed.values():
    if isinstance(section, ConfigDict) and 'remat' in section:
      section.remat = remat
  return changed


def _shown(attempt: Attempt) -> list[str]:
  mesh = ' × '.join(str(attempt.mesh.get(axis, 1)) for axis in AXES)
  return [mesh.replace('-1', '−1'), 'yes' if attempt.remat else 'no', str(attempt.accumulate)]


def _measured(step: compiled_step.Step, chip: Chip | None, devices: int) -> list[str]:
  parts = (step.arguments, step.outputs, step.temporaries, step.code)
  runs = '; '.join(
    f'{kind} {"≥ " * bool(one.unknown)}{one.count}, {_size(one.bytes)}'
    for kind, one in sorted(step.collectives.items())
  )
  return [
    f'{step.parameters:,}',
    *map(_size, parts),
    f'{step.bytes / chip.memory:.0%} of {_size(chip.memory)}' if chip else '',
    runs or 'none',
    str(step.kernels),
    f'{step.flops / devices / 1e12:.3g}',
    f'{step.compiler_flops / 1e12:.3g}',
    f'{step.seconds:.0f} s',
  ]


def _size(count: float) -> str:
  for unit, scale in (('GB', 1e9), ('MB', 1e6)):
    if count >= scale:
      return f'{count / scale:.3g} {unit}'
  return f'{count / 1e3:.3g} kB'


def _reason(error: Exception) -> str:
  """Why an attempt came to nothing, in one cell."""
  text = str(error)
  if used := re.search(r'Used (\S+) of (\S+) hbm', text):
    return f'no: {used[1]} of {used[2]}'
  return f'no: {text.splitlines()[0][:160]}'.replace('|', '/')


def _head(titles: Sequence[str]) -> str:
  return _line(titles) + '\n' + '|---' * len(titles) + '|'


def _line(cells: Sequence[str]) -> str:
  return f'| {" | ".join(cells)} |'


if __name__ == '__main__':
  command.main('aot', execute)
