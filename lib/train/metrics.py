# SPDX-License-Identifier: Apache-2.0
"""Metrics on disk (JSON lines and TensorBoard) and on the terminal."""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from lib import atomic
from lib.parallel import processes
from lib.progress import Bar
from lib.train.experiment import SUMS

LN2 = math.log(2)


def read(path: str | os.PathLike, run: str | None = None) -> list[dict[str, Any]]:
  """Lines of a metrics file, of one run if named; an incomplete last line is skipped."""
  lines: list[dict[str, Any]] = []
  if not os.path.exists(path):
    return lines
  for text in pathlib.Path(path).read_text(errors='replace').splitlines():
    try:
      line = json.loads(text)
    except (ValueError, RecursionError):
      continue
    if isinstance(line, dict) and {'run', 'step'} <= line.keys() and run in (None, line['run']):
      lines.append(line)
  return lines


class Metrics:
  """Appends metrics of one run to a file that several runs may share.

  Every line is {'run', 'step', ...}. On resume the lines of this run past the restored step are
  removed first, so that each step occurs once. Only process 0 writes.
  """

  def __init__(self, folder: str | os.PathLike, run: str, step: int):
    self._run = run
    self._writes = processes.is_primary()
    if not self._writes:
      return
    from tensorboardX import SummaryWriter  # slow to import, and only process 0 needs it

    folder = pathlib.Path(folder)
    path = folder / 'metrics.jsonl'
    kept = [line for line in read(path) if line['run'] != run or line['step'] <= step]
    atomic.write(path, ''.join(json.dumps(line) + '\n' for line in kept))
    self._file = path.open('a', buffering=1)
    self._board = SummaryWriter(str(folder / 'tensorboard' / run), purge_step=step + 1)

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    """One line. Arrays (one entry per replica) become lists; TensorBoard gets their mean."""
    if not self._writes:
      return
    for name, value in values.items():
      if np.all(np.isfinite(value)):
        self._board.add_scalar(name, float(np.mean(value)), step)
    plain = {name: _plain(np.asarray(value).tolist()) for name, value in values.items()}
    line = {'run': self._run, 'step': step} | plain
    self._file.write(json.dumps(line, allow_nan=False) + '\n')

  def close(self) -> None:
    """Flushes and closes both files."""
    if self._writes:
      self._file.close()
      self._board.close()


def _plain(value: Any) -> Any:
  """Lists and numbers, with null for what is not finite (JSON has no NaN)."""
  if isinstance(value, list):
    return [_plain(item) for item in value]
  return value if math.isfinite(value) else None


def summarise(metrics: Mapping[str, np.ndarray], seconds: float) -> dict[str, Any]:
  """Rates of one step: loss, gradient norm, bits per byte, tokens per second, and the others.

  Any other scalar is a sum over tokens, and becomes a mean. With replicas, the loss is their mean,
  the gradient norm and tokens per second are those of all together, and the rest has an entry for
  each.
  """
  others = metrics.keys() - {'loss', 'gradient_norm', *SUMS}
  scalars = [name for name in others if np.shape(metrics[name]) == np.shape(metrics['tokens'])]
  return {
    'loss': metrics['loss'] / np.size(metrics['nats']),
    'gradient_norm': metrics['gradient_norm'],
    'bits_per_byte': metrics['nats'] / metrics['bytes'] / LN2,
    'tokens_per_second': np.sum(metrics['tokens']) / seconds,
    **{name: metrics[name] / metrics['tokens'] for name in sorted(scalars)},
  }


def progress_bar(label: str, steps: int) -> Bar:
  """A bar that shows steps, rate and time left; silent on processes other than 0."""
  return Bar(total=steps, desc=label, unit='step', disable=not processes.is_primary())


def show(bar: Bar, values: Mapping[str, Any]) -> None:
  """Shows loss, bits per byte and tokens per second next to the bar."""
  bar.set_postfix_str(
    f'loss {np.mean(values["loss"]):.4f}, {np.mean(values["bits_per_byte"]):.4f} bits/byte, '
    f'{values["tokens_per_second"]:,.0f} tokens/s',
    refresh=False,
  )
