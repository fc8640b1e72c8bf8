# SPDX-License-Identifier: Apache-2.0
r"""Measures the training speed of a recipe, and breaks the time of a step down by op.

  python -m experiments.tools.throughput --config=lexinvariant:paper
  python -m experiments.tools.throughput --config=equal_info:paper \
    --model=m2/model=113m,v=65536
  python -m experiments.tools.throughput --peer    # decoders next to PyTorch's (`make throughput`)

Writes throughput.md and throughput.json into --out. Sections of other models and devices are kept.
"""

import datetime
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
from absl import flags
from ml_collections import config_flags

from experiments import runner
from experiments.command_line import CONFIGS
from experiments.recipe import Recipe
from experiments.tools import command, kept, steps
from experiments.tools.throughput import peer, timed_step
from lib import memory
from lib.report import results, tables
from lib.report.results import Row, name

CONFIG = config_flags.DEFINE_config_file(
  'config', f'{CONFIGS}/lexinvariant.py:cpu', 'NAME:SCALE or FILE.py:SCALE.', lock_config=True
)
MODEL = flags.DEFINE_string('model', '', 'Which model of the recipe; by default the largest.')
DTYPES = flags.DEFINE_multi_enum(
  'dtype', [], ['float32', 'bfloat16'], 'Dtype of activations; by default that of the config.'
)
REPEATS = flags.DEFINE_integer(
  'repeats', 4, 'Timed steps of a round; with --peer, rounds.', lower_bound=1
)
PEER = flags.DEFINE_bool('peer', False, 'Instead, compare two decoders with the same in PyTorch.')
RUNS = flags.DEFINE_integer(
  'runs', 3, 'With --peer, processes that measure, over which errors are.', lower_bound=1
)
OUT = flags.DEFINE_string('out', 'runs/throughput', 'Folder for throughput.md and .json.')
FIRST = flags.DEFINE_enum(
  'first_step', 'timed', ['timed', 'left_out', 'only'],
  'Time from the start of a process to its first step; `only` measures nothing else.',
)  # fmt: skip
CAPTIONS = timed_step.CAPTIONS | peer.CAPTIONS
HEAD = """# Throughput

Training steps of the recipes, timed by `python -m experiments.tools.throughput`. Each section gives
its command, date and machine. A new run replaces the section with the same title. If the load is
above the number of cores, other jobs ran too, and rates and times are those of a shared machine.
"""


def execute() -> None:
  """Measures, shows the tables and keeps them."""
  begin = time.perf_counter()
  if PEER.value:
    title, config = 'compared with PyTorch', {}
    if RUNS.value == 1:
      rows = peer.table(peer.cases(), REPEATS.value)
    else:
      again = ['-m', 'experiments.tools.throughput', *sys.argv[1:], '--runs=1']
      rows = peer.over_processes(again, RUNS.value)
  else:
    recipe = steps.load(config_flags.get_config_filename(flags.FLAGS['config']))
    memory.keep_freed(recipe.large_steps)  # as the recipe does
    model = steps.chosen(recipe, CONFIG.value, MODEL.value)
    if FIRST.value == 'only':
      runner.keep_compiled()
      steps.prepare(recipe, CONFIG.value, model).run()
      print('The first step is done.', flush=True)
      return
    title, config = f'{recipe.name}, {CONFIG.value.scale}: {model}', runner.plain(CONFIG.value)
    rows = measure(recipe, model)
  devices = [device.device_kind for device in jax.devices()]
  found = results.content(
    rows, experiment='throughput', config=config, overrides={}, devices=devices,
    seconds={'throughput': time.perf_counter() - begin},
  )  # fmt: skip
  found['made'] = f'{datetime.date.today()}, {command.machine()}'
  kept.keep(pathlib.Path(OUT.value), 'throughput', HEAD, shown, f'{title}, on {devices[0]}', found)
  print(tables.markdown(rows, CAPTIONS))


def measure(recipe: Recipe, model: str) -> list[Row]:
  """The rows of a model in every dtype asked for."""
  dtypes = DTYPES.value or [CONFIG.value.dtype]
  # By other processes, before this one takes the device for itself.
  again = ['-m', 'experiments.tools.throughput', *sys.argv[1:], '--first_step=only']
  first = [
    timed_step.first_steps([*again, f'--config.dtype={dtype}']) if FIRST.value == 'timed' else {}
    for dtype in dtypes
  ]
  jax.config.update('jax_enable_compilation_cache', False)  # its time is one of the answers
  rows: list[Row] = []
  for dtype, seconds in zip(dtypes, first):
    config = CONFIG.value.copy_and_resolve_references()
    config.dtype = dtype
    print(f'{name(dtype=dtype)}: making the state and compiling the step', flush=True)
    step = steps.prepare(recipe, config, model)
    rows += timed_step.table(step, {'dtype': dtype}, dtype, REPEATS.value, seconds)
  return rows


def shown(title: str, found: Mapping[str, Any]) -> str:
  """A section of the page."""
  versions = ', '.join(f'{package} {version}' for package, version in found['versions'].items())
  rows = results.from_json(found['rows'])
  return '\n'.join([
    f'## {title}\n', f'`{found["command"]}`, {found["made"]}; {versions}.\n',
    tables.markdown(rows, CAPTIONS),
  ])  # fmt: skip


if __name__ == '__main__':
  command.main('throughput', execute)
