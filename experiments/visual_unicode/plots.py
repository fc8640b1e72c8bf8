# SPDX-License-Identifier: Apache-2.0
"""The pictures of the recipe."""

import re
from collections.abc import Callable, Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.visual_unicode import growth, neighbours, reasoning, text
from lib import atomic
from lib.data import glyphs
from lib.report import plots
from lib.report.results import Row


def draw(rows: Sequence[Row], config: ConfigDict, run: runner.Run) -> list[str]:
  """Writes the pictures of the tables that are there, and names them."""
  pictures = {
    'loss.png': _loss(rows, config),
    'reasoning.png': reasoning.panels(rows),
    'homoglyphs.png': _homoglyphs(rows),
    'unseen_script.png': _unseen(rows),
    'neighbours.png': _neighbours(run),
    'growth.png': growth.panels(rows),
  }
  return [_contact_sheet(config, run), *plots.save(run.workdir, pictures)]


def _contact_sheet(config: ConfigDict, run: runner.Run) -> str:
  """Some tokens as the models see them."""
  opened = text.open_text(config)
  tokens = text.strings_of(opened.tokenizer, config.glyphs.alphabet)
  atomic.write(run.workdir / 'glyphs.png', glyphs.contact_sheet(opened.glyphs, tokens))
  return 'glyphs.png'


def _values(rows: Sequence[Row], table: str, column: str) -> dict[str, float]:
  """Measured values of a column by row, single seeds left out."""
  return {
    row.row: row.measured
    for row in rows
    if row.table == table and row.column == column and row.measured is not None
    if 'seed=' not in row.row
  }


def _curve(points: Sequence[tuple[float, float]]) -> plots.Series:
  x, y = zip(*sorted(points))
  return x, y


def _loss(rows: Sequence[Row], config: ConfigDict) -> list[Callable]:
  """Validation loss by step, and paired differences with their intervals."""
  way: dict[str, list[tuple[float, float]]] = {}
  for row in rows:
    at = re.fullmatch(r'validation_bits_per_byte_at_([1-9]\d*)', row.column)
    if row.table == 'loss' and at and row.measured is not None:
      way.setdefault(row.row.removeprefix('arm='), []).append((int(at[1]), row.measured))
  if not way:
    return []
  series = {arm: _curve(points) for arm, points in way.items()}
  # The readout's first steps are alike and steep: from half-way on differences can be seen.
  last = max(steps[-1] for steps, _ in series.values())
  late = {arm: _curve([(x, y) for x, y in points if x >= last / 2]) for arm, points in way.items()}
  dashed = {arm: {'linestyle': '--'} for arm in series if arm.startswith('trainable')}
  label = 'bits per byte'
  panels = [
    plots.curves('Validation loss', 'step', label, series, styles=dashed),
    plots.curves('Validation loss, second half', 'step', label, late, styles=dashed),
  ]
  low, high = (_values(rows, 'loss', f'difference_{end}') for end in ('low', 'high'))
  for reference in config.loss.references:
    suffix = f',against={reference}'
    found = {
      row.removeprefix('arm=').removesuffix(suffix): (mean, low[row], high[row])
      for row, mean in _values(rows, 'loss', 'difference_bits_per_byte').items()
      if row.endswith(suffix) and row in low
    }
    if found:
      title = f'Test loss less that of {reference}, 95 % intervals'
      panels.append(plots.intervals(title, label, found, config.loss.margin))
  return panels


def _homoglyphs(rows: Sequence[Row]) -> list[Callable]:
  """What an attacked context costs, by rate."""
  series: dict[str, list[tuple[float, float]]] = {}
  for row, value in _values(rows, 'homoglyphs', 'extra_bits_per_byte').items():
    arm, _, rate = row.partition(',rate=')
    series.setdefault(arm, []).append((float(rate), value))
  if not series:
    return []
  curves = {arm: _curve([(0.0, 0.0), *points]) for arm, points in series.items()}
  title = 'Bits that look-alikes in the context cost'
  return [plots.curves(title, 'letters replaced', 'extra bits per byte of clean text', curves)]


def _unseen(rows: Sequence[Row]) -> list[Callable]:
  """Bits per byte and accuracy of names by group of letters."""
  panels = []
  for column, title in (
    ('bits_per_byte', 'Names of letters: bits per byte'),
    ('accuracy', 'Names of letters: characters right'),
  ):
    values = {
      row: value
      for row, value in _values(rows, 'unseen_script', column).items()
      if row.startswith('script=')
    }
    groups = list(dict.fromkeys(row.partition(',arm=')[0] for row in values))
    arms = list(dict.fromkeys(row.partition(',arm=')[2] for row in values))
    if groups:
      series = {arm: [values[f'{group},arm={arm}'] for group in groups] for arm in arms}
      titles = [' '.join(part.partition('=')[2] for part in group.split(',')) for group in groups]
      panels.append(plots.bars(title, column.replace('_', ' '), titles, series, {}))
  return panels


def _neighbours(run: runner.Run) -> list[Callable]:
  """Tokens in the plane of two principal components, in each space."""
  kept = run.workdir / neighbours.MAPS
  if not kept.exists():
    return []
  with np.load(kept) as maps:
    written = [repr(str(token))[1:-1].replace(' ', '␣') for token in maps['tokens']]
    return [plots.words(title, maps[title], written) for title in maps.files if title != 'tokens']
