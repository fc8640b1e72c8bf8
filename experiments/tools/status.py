# SPDX-License-Identifier: Apache-2.0
"""Prints the progress of a run: `python -m experiments.tools.status WORKDIR`.

Reads the files in the workdir, which can be in a bucket, and writes nothing, so it can be used at
any time. Exits with code 2 if WORKDIR is not a workdir.
"""

import os
import pathlib
import tempfile
import time
from typing import Any

import numpy as np

from experiments.tools import command
from lib import mirror
from lib.errors import InputError
from lib.train import metrics

QUIET = 120  # seconds without a write after which a run no longer passes for alive


def report(folder: pathlib.Path, now: float) -> str:
  """The state of a run, read from its files at the time `now`, in seconds since 1970."""
  tables = sorted((folder / 'tables').glob('*.json'), key=_written)
  words = [f'tables finished: {", ".join(path.stem for path in tables) or "none"}']
  lines = metrics.read(folder / 'metrics.jsonl')
  return '\n'.join([*words, *_training(folder, lines, now), _pulse(folder, now)])


def _training(folder: pathlib.Path, lines: list[dict[str, Any]], now: float) -> list[str]:
  """The model that wrote last: its step, loss, rates, time left and last checkpoint."""
  if not lines:
    return ['no model has trained yet']
  name = lines[-1]['run']
  words = [f'model: {name}']
  if steps := [line for line in lines if line['run'] == name and 'loss' in line]:
    last, before = steps[-1], steps[-11:][0]
    words.append(
      f'step {last["step"]:,} of {last["steps"]:,}: loss {_mean(last["loss"])}, '
      f'{_mean(last["bits_per_byte"])} bits/byte, {last["tokens_per_second"]:,.0f} tokens/s'
    )
    if before['step'] < last['step'] < last['steps']:
      pace = (last['seconds'] - before['seconds']) / (last['step'] - before['step'])
      left = _duration(pace * (last['steps'] - last['step']))
      words.append(f'time left: {left} of steps; evaluations and checkpoints come on top')
  checkpoints = (folder / 'checkpoints' / name).glob('*')
  saved = sorted((int(path.name), path) for path in checkpoints if path.name.isdigit())
  if not saved:
    return [*words, 'last checkpoint: none yet']
  step, newest = saved[-1]
  age = now - _written(_newest(newest))
  return [*words, f'last checkpoint: step {step:,}, {_duration(age)} ago']


def _pulse(folder: pathlib.Path, now: float) -> str:
  """Whether the run seems alive, judged by the age of its last write."""
  newest = _newest(folder)
  age = now - _written(newest)
  if newest.name == 'report.md':  # the last that a run writes
    return f'finished {_duration(age)} ago: report.md is written'
  if age < QUIET:
    return f'last write {_duration(age)} ago: the run seems alive'
  return (
    f'last write {_duration(age)} ago: the run was stopped, or does something that writes nothing, '
    'such as compiling or a long table'
  )


def _newest(folder: pathlib.Path) -> pathlib.Path:
  """The newest file below a folder; the folder itself if it has none."""
  files = (pathlib.Path(room, name) for room, _, names in os.walk(folder) for name in names)
  return max(files, key=_written, default=folder)


def _written(path: pathlib.Path) -> float:
  """The time a file was written; long ago if the run has just removed it."""
  try:
    return path.stat().st_mtime
  except FileNotFoundError:
    return 0.0


def _mean(value: float | list | None) -> str:
  """The mean over replicas, if there are several; non-finite numbers are null in the file."""
  return f'{np.mean(np.array(value, float)):.4f}'


def _duration(seconds: float) -> str:
  """As 12 s, 3 min, 5.2 h or 4.0 days."""
  for limit, unit, name in ((120, 1, 's'), (7200, 60, 'min')):
    if seconds < limit:
      return f'{max(seconds, 0) / unit:.0f} {name}'
  return f'{seconds / 3600:.1f} h' if seconds < 172_800 else f'{seconds / 86_400:.1f} days'


def outline(url: str, folder: pathlib.Path) -> pathlib.Path:
  """Lays out a bucket's workdir below `folder`: names and times, and what a report reads.

  Raises:
    InputError: no such kind of URL, or its package is not installed.
  """
  there, root = mirror.opened(url)
  for found in there.find(root):
    path = folder / found.removeprefix(root).lstrip('/')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(there.cat_file(found) if path.name == 'metrics.jsonl' else b'')
    written = there.modified(found).timestamp()
    os.utime(path, (written, written))
  return folder


def execute(*places: str) -> None:
  """Prints the report of the given workdir; raises InputError if it is not one."""
  if len(places) != 1:
    raise InputError('which run? Name its folder: python -m experiments.tools.status WORKDIR.')
  with tempfile.TemporaryDirectory() as own:
    here = '://' not in places[0]
    folder = pathlib.Path(places[0]) if here else outline(places[0], pathlib.Path(own))
    if not (folder / 'config.json').is_file():
      raise InputError(
        f'{places[0]} is not a workdir: it has no config.json; name the --workdir of a run.'
      )
    print(report(folder, time.time()))


if __name__ == '__main__':
  command.main('status', execute, more=True)
