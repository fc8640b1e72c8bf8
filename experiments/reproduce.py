# SPDX-License-Identifier: Apache-2.0
"""Runs the recipes of all papers and the grid, and reports the verdicts on their claims in one
page.

  python -m experiments.reproduce --scale=cpu --workdir=runs/reproduce
  python -m experiments.reproduce --gather=runs/markov,runs/lex --workdir=runs/reproduce

Each recipe runs by its own command in WORKDIR/NAME; after an interruption, the same command resumes
it. Writes WORKDIR/report.html, a single file, and report.md. If a recipe fails, its name is
printed, the others are reported, and the exit code is 1. With --gather nothing is run. With
--record the pages in docs/results and the README's table are written from these runs.
"""

import importlib
import io
import json
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from configs.common import SCALES
from experiments import documents
from experiments.documents import recipe_of
from experiments.minutes import MINUTES, TimeLeft
from experiments.recipe import plain
from experiments.tools import command
from experiments.workdir import ASIDE, check_place, settings
from lib import atomic, provenance
from lib.errors import InputError
from lib.report import page, published, results, sections
from lib.report.sections import Section

ROOT = pathlib.Path(__file__).parents[1]
RECIPES = tuple(MINUTES)
NEXT = (  # commands to try after the report
  'python -m experiments.reproduce --scale=cpu --workdir=runs/reproduce  # all claims, hours',
  'python -m experiments.matrix --config=configs/matrix.py:smoke --config.data.source=MY_TEXT.txt',
  'tensorboard --logdir runs  # curves of training, after: pip install tensorboard',
)

SCALE = flags.DEFINE_enum('scale', 'cpu', SCALES, 'Scale of every recipe.')
ONLY = flags.DEFINE_list('only', list(RECIPES), 'Recipes to run.')
GATHER = flags.DEFINE_list('gather', [], 'Workdirs of finished runs to report; runs nothing.')
RECORD = flags.DEFINE_bool('record', False, 'Also write docs/results and the table of the README.')
WORKDIR = flags.DEFINE_string('workdir', 'runs/reproduce', 'Folder for the runs and the report.')


def execute() -> None:
  """Runs the recipes, unless runs are gathered, and writes the report."""
  for name in ONLY.value:
    if name not in RECIPES:
      raise InputError(f'recipe {name!r} in --only is not one of {", ".join(RECIPES)}.')
  check_place(WORKDIR.value)
  workdir = pathlib.Path(WORKDIR.value)
  found = {pathlib.Path(folder): '' for folder in GATHER.value}
  if not found:
    try:
      workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise InputError(f'cannot write to the workdir {workdir}: {error.strerror}.') from error
    signal.signal(signal.SIGTERM, _stop)
    try:
      found = run_all(ONLY.value, SCALE.value, workdir)
    except KeyboardInterrupt:
      print('reproduce: stopped; the same command resumes it.', file=sys.stderr)
      sys.exit(130)
  judged = report(found, workdir)
  if RECORD.value:
    print('Recorded:', *documents.record(judged), sep='\n  ')
  if failed := [fault for fault in found.values() if fault]:
    print(*failed, sep='\n', file=sys.stderr)
    sys.exit(1)


def report(found: Mapping[pathlib.Path, str], workdir: pathlib.Path) -> list[Section]:
  """Writes report.html and report.md of the runs in some folders, prints an overview of the
  verdicts, and returns the runs, judged.

  Args:
    found: folder -> an error message, or ''.
    workdir: folder of the report.

  Raises:
    InputError: a folder without results and without an error.
  """
  judged, remarks = [], []
  for folder, fault in found.items():
    try:
      judged.append(read(folder, fault))
    except InputError:
      if not fault:
        raise
      remarks.append(fault)
  workdir.mkdir(parents=True, exist_ok=True)
  written = workdir / 'report.html', workdir / 'report.md'
  blocks = sections.report(judged, remarks, NEXT)
  atomic.write(written[0], page.html(sections.TITLE, blocks))
  atomic.write(written[1], page.markdown(blocks, workdir))
  for one in judged:
    print(sections.terminal(one), end='\n\n')
  print(f'Report: {written[0]}; the same as text: {written[1]}')
  print('Next:', *NEXT, sep='\n  ')
  return judged


def _stop(*_: Any) -> None:
  raise KeyboardInterrupt


def settings_of(name: str, scale: str) -> dict[str, Any]:
  """The config of a recipe at a scale, as its run keeps it."""
  config = importlib.import_module(f'configs.{name}').get_config(scale)
  return settings(plain(config))


def run_all(names: Sequence[str], scale: str, workdir: pathlib.Path) -> dict[pathlib.Path, str]:
  """Runs every recipe that has not been run; returns folder -> error message, or ''."""
  progress = Progress(names, scale, workdir)
  found = {}
  for name in names:
    folder = workdir / name
    code = 0 if finished(name, scale, folder) else run(name, scale, folder, progress)
    found[folder] = ''
    if code:
      found[folder] = (
        f'{name} ended with exit code {code}; its message is above, and its command resumes where '
        f'it stopped: {" ".join(command_of(name, scale, folder)[1:])}'
      )
      print(found[folder], file=sys.stderr, flush=True)
  return found


def finished(name: str, scale: str, folder: pathlib.Path) -> bool:
  """Whether the folder has all tables of this config."""
  try:
    content = json.loads((folder / 'results.json').read_text())
  except (OSError, ValueError):
    return False
  there = {row['table'] for row in content['rows'] if row['measured'] is not None}
  same = not changed(content['config'], settings_of(name, scale))
  return same and set(MINUTES[name]) <= there


def command_of(name: str, scale: str, folder: pathlib.Path) -> list[str]:
  """The command of a recipe."""
  config = ROOT / 'configs' / f'{name}.py'
  flags_of_it = [f'--config={config}:{scale}', f'--workdir={folder}']
  return [sys.executable, '-m', f'experiments.{name}', *flags_of_it]


def run(name: str, scale: str, folder: pathlib.Path, progress: 'Progress') -> int:
  """Runs a recipe and passes on its progress; returns its exit code."""
  folder.mkdir(parents=True, exist_ok=True)
  with open(folder / 'summary.txt', 'w') as summary:
    job = subprocess.Popen(
      command_of(name, scale, folder.absolute()), cwd=ROOT, stdout=summary, stderr=subprocess.PIPE
    )
    assert job.stderr
    try:
      for line in io.TextIOWrapper(job.stderr, newline='', errors='replace'):
        if mark := re.match(r'\[\d+/\d+\] (\w+)', line):
          progress.reaches(name, mark[1])
        sys.stderr.write(line)  # bars end in a carriage return
        sys.stderr.flush()
    except KeyboardInterrupt:
      job.terminate()  # it saves its state
      job.wait()
      raise
    return job.wait()


class Progress:
  """Progress of all recipes together.

  Args:
    names: of recipes, in the order of running.
    scale: of all.
    workdir: of all; its finished tables take no time.
  """

  def __init__(self, names: Sequence[str], scale: str, workdir: pathlib.Path):
    self._tables = {
      (name, table): minutes
      for name in names
      if not finished(name, scale, workdir / name)
      for table, minutes in MINUTES[name].items()
      if not (workdir / name / 'tables' / f'{table}.json').exists()
    }
    self._left = TimeLeft(self._tables, 1.0 if scale == 'cpu' else None)

  def reaches(self, name: str, table: str) -> None:
    """Reports the start of a table; earlier tables of the recipe are finished."""
    if (name, table) in self._tables:
      number = list(self._tables).index((name, table)) + 1
      left = self._left.reaches((name, table))
      print(
        f'== {name}, {table}: table {number} of {len(self._tables)}, {left}',
        file=sys.stderr, flush=True,
      )  # fmt: skip


def read(folder: pathlib.Path, fault: str = '') -> Section:
  """The run in a folder with its verdicts; an unfinished run has fewer tables.

  Raises:
    InputError: there is no run of a recipe.
  """
  try:
    content = _contents(folder)
    name, config = content['experiment'], content['config']
    if name not in RECIPES:
      raise KeyError(name)
    rows = results.from_json(content['rows'])
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(
      f'{folder} contains no results.json of a recipe; let its command finish, or leave it out.'
    ) from error
  other = changed(config, settings_of(name, config['scale']))
  return recipe_of(name).section(content, rows, other, folder, fault)


def _contents(folder: pathlib.Path) -> dict[str, Any]:
  """results.json, or its equivalent from the tables of an unfinished run."""
  if (folder / 'results.json').exists() or folder.name not in RECIPES:
    return json.loads((folder / 'results.json').read_text())
  config = json.loads((folder / 'config.json').read_text())
  kept = [results.read_rows(path) for path in sorted((folder / 'tables').glob('*.json'))]
  rows = [row for table in kept for row in table['rows']]
  facts = recipe_of(folder.name).facts(ConfigDict(config))
  return {
    'experiment': folder.name,
    'config': config,
    'devices': [],
    'seconds': sum(table['seconds'] for table in kept),
    'made': {str(number): table['made'] for number, table in enumerate(kept)},
    'rows': [results.as_line(row) for row in published.attach(rows, folder.name, facts)],
  }


def changed(config: Mapping[str, Any], scale: Mapping[str, Any]) -> dict[str, str]:
  """Fields in which a run's config differs from the scale's, with the run's values.

  A field that came after the run was not changed in it.
  """
  one, other = provenance.flat(config), provenance.flat(scale)
  return {
    key: json.dumps(value, ensure_ascii=False)
    for key, value in sorted(one.items())
    if value != other.get(key) and key.split('.')[0] not in ASIDE
  }


if __name__ == '__main__':
  command.main('reproduce', execute)
