# SPDX-License-Identifier: Apache-2.0
"""Table `curve`: what H-Nets cut, over the steps of training, and a text with its cuts."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.hierarchy import arms
from experiments.recipe import Pictures, Run, Table, TrainSpecs, text_of
from lib import stats
from lib.report import plots
from lib.report.plots import Panel, Picture
from lib.report.results import Row, Rows, select

COLUMNS = {  # metric of training -> column, unit
  'cuts/chunks_per_byte': ('chunks_per_byte', 'chunks/byte'),
  'cuts/f1': ('boundary_f1', ''),
  'cuts/f1_chance': ('boundary_f1_chance', ''),
  'validation/bits_per_byte': ('validation_bits_per_byte', 'bits/byte'),
}
CUT = '|'  # before a byte that begins a chunk
SHOWN = 6  # texts with their cuts
DRAWN, WIDTH = 2, 100  # of them in the picture, and characters of a line


def measure(config: ConfigDict, run: Run) -> Rows:
  """The cuts of validation texts over the steps, the mean over seeds; writes `cuts.txt`."""
  rows, written, chosen = Rows('curve'), [], arms.Chosen()
  for arm in arms.every(config, ['hnet']):
    trained = arms.train(config, run, arm, chosen)
    for metric, (column, unit) in COLUMNS.items():
      curves = [one.curve(metric) for one in trained.fitted]
      for step in curves[0]:
        found = stats.mean([float(curve[step]) for curve in curves])
        rows.add({**arm.where, 'step': step}, column, found, unit)
    texts, begins = trained.corpus.text['test'].texts, trained.cuts()[0].begins
    lines = [*map(_marked, texts[:SHOWN], begins)]
    written.append(f'target {arm.target}\n' + '\n'.join(lines) + '\n')
  run.keep('cuts.txt', '\n'.join(written))
  return rows


def _marked(text: bytes, begins: np.ndarray) -> str:
  """The text on one line, with a bar before each byte that begins a chunk."""
  parts = np.split(np.frombuffer(text, np.uint8), np.flatnonzero(begins[1:]) + 1)
  shown = lambda part: bytes(part).decode('utf-8', 'backslashreplace')
  return CUT.join(map(shown, parts)).replace('\n', '⏎')


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Chunks a byte and F1 over the steps, and texts with their cuts."""
  found: list[Panel] = []
  for column, title in (
    ('chunks_per_byte', 'How often a chunk begins'),
    ('boundary_f1', 'Do chunks begin with words?'),
  ):
    points = lambda column, label, arm: {
      label: [
        (float(row.where['step']), row)
        for row in select(rows, 'curve', column, **{k: str(v) for k, v in arm.where.items()})
      ]
    }
    lines: dict[str, Any] = {}
    every = arms.every(config, ['hnet'])
    for arm in every:  # all targets come first, so that they have the same colours in both panels
      lines |= points(column, f'target {arm.target}', arm)
    for arm in every if column == 'boundary_f1' else ():
      lines |= points('boundary_f1_chance', f'chance, target {arm.target}', arm)
    if all(lines.values()):
      found.append(plots.row_curves(title, 'step', column.replace('_', ' '), lines))
  path = run.workdir / 'cuts.txt'
  if found and path.exists():
    cut = _wrapped(path.read_text())
    found.append(Panel(functools.partial(_write, '\n'.join(cut)), 0.4 + 0.16 * len(cut)))
  caption = 'What H-Nets cut while they learn; below, texts with a bar where a chunk begins.'
  return {'curve.png': Picture(caption, found)}


def _wrapped(text: str) -> list[str]:
  """The first texts of each target, in lines that fit a picture."""
  lines = []
  for part in text.split('\n\n'):
    title, *texts = part.split('\n')
    cut = [
      one[first : first + WIDTH] for one in texts[:DRAWN] for first in range(0, len(one), WIDTH)
    ]
    lines += [title, *cut, '']
  return lines


def _write(text: str, axis: Any) -> None:
  """Draws lines of text, for which the layout makes no room."""
  axis.set_axis_off()
  axis.text(
    0, 1, text, family='monospace', fontsize=6.5, linespacing=1.3, va='top', parse_math=False,
    transform=axis.transAxes,
  ).set_in_layout(False)  # fmt: skip


def train_specs(config: ConfigDict) -> TrainSpecs:
  """The H-Nets."""
  return arms.train_specs(config, arms.every(config, ['hnet']))


TABLE = Table(
  'curve',
  measure,
  caption='H-Nets over the steps of training, on validation text: chunks a byte, and F1 of their '
  'beginnings against those of words, next to the F1 of as many cuts at random. ± is one standard '
  'error over seeds. `cuts.txt` has test texts with a bar where a chunk begins.',
  shown=('chunks_per_byte', 'boundary_f1', 'boundary_f1_chance', 'validation_bits_per_byte'),
  check=arms.check,
  pictures=pictures,
  train_specs=train_specs,
  sources=text_of,
)
