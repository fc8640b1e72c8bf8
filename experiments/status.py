# SPDX-License-Identifier: Apache-2.0
"""How a run is doing, seen from outside: `python -m experiments.status WORKDIR`.

Reads what the run leaves in its workdir and writes nothing, so it may be asked at any time. Exits
with 2 if the folder is no workdir.
"""

import os
import pathlib
import time
from typing import Any

import numpy as np

from experiments import command
from lib.errors import InputError
from lib.train import metrics

QUIET = 120  # seconds without a write after which a run no longer passes for alive


def report(folder: pathlib.Path, now: float) -> str:
  """What a run's files say at the time `now`, in seconds since 1970.

  Raises:
    InputError: the folder is no workdir.
  """
  if not (folder / 'config.json').is_file():
    raise InputError(f'{folder} is no workdir: it has no config.json; name the --workdir of a run.')
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
  return [*words, f'last checkpoint: step {step:,}, {_duration(now - _written(newest))} ago']


def _pulse(folder: pathlib.Path, now: float) -> str:
  """Whether the run seems alive: from outside, the age of its last write is all there is."""
  files = (pathlib.Path(room, name) for room, _, names in os.walk(folder) for name in names)
  newest = max(files, key=_written)
  age = now - _written(newest)
  if newest.name == 'report.md':  # the last that a run writes
    return f'finished {_duration(age)} ago: {newest}'
  if age < QUIET:
    return f'last write {_duration(age)} ago: the run seems alive'
  return (
    f'last write {_duration(age)} ago: the run was stopped, or does something that writes nothing, '
    'such as compiling or a long table'
  )


def _written(path: pathlib.Path) -> float:
  """When a file was written; long ago if the run has just taken it away."""
  try:
    return path.stat().st_mtime
  except FileNotFoundError:
    return 0.0


def _mean(value: float | list | None) -> str:
  """Of the replicas, if there are several; what was not finite is null in the file."""
  return f'{np.mean(np.array(value, float)):.4f}'


def _duration(seconds: float) -> str:
  """As 12 s, 3 min, 5.2 h or 4.0 days."""
  for limit, unit, name in ((120, 1, 's'), (7200, 60, 'min')):
    if seconds < limit:
      return f'{max(seconds, 0) / unit:.0f} {name}'
  return f'{seconds / 3600:.1f} h' if seconds < 172_800 else f'{seconds / 86_400:.1f} days'


def execute(*folders: str) -> None:
  """Prints the report of the one folder that was named."""
  if len(folders) != 1:
    raise InputError('which run? Name its folder: python -m experiments.status WORKDIR.')
  print(report(pathlib.Path(folders[0]), time.time()))


if __name__ == '__main__':
  command.main('status', execute, more=True)
