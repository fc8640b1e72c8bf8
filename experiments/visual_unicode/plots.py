# SPDX-License-Identifier: Apache-2.0
"""The pictures of the recipe."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.visual_unicode import growth, models, neighbours, reasoning, text
from lib import atomic
from lib.data import glyphs
from lib.report import plots
from lib.report.results import Row, parts
from lib.stats import Estimate


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


def _cells(rows: Sequence[Row], table: str, column: str) -> dict[str, Row]:
  """Measured rows of a column by name, single seeds left out."""
  return {
    row.row: row
    for row in rows
    if row.table == table and row.column == column and row.measured is not None
    if 'seed=' not in row.row
  }


Point = tuple[float, float, float | None]  # x, y and the standard error of y


def _curves(
  title: str, x_label: str, y_label: str, points: Mapping[str, Sequence[Point]], **rest: Any
) -> Callable:
  """A panel of curves with error bars."""
  ordered = {label: sorted(some, key=lambda point: point[0]) for label, some in points.items()}
  series = {label: ([x for x, _, _ in some], [y for _, y, _ in some])
            for label, some in ordered.items()}  # fmt: skip
  errors = {label: [error for _, _, error in some] for label, some in ordered.items()}
  return plots.curves(title, x_label, y_label, series, errors=errors, **rest)


def _loss(rows: Sequence[Row], config: ConfigDict) -> list[Callable]:
  """Validation loss by step, and paired differences with their intervals."""
  way: dict[str, list[Point]] = {}
  for row in rows:
    at = re.fullmatch(r'validation_bits_per_byte_at_([1-9]\d*)', row.column)
    if row.table == 'loss' and at and row.measured is not None:
      arm = row.row.removeprefix('arm=')
      way.setdefault(models.LABELS[arm], []).append((int(at[1]), row.measured, row.sem))
  if not way:
    return []
  # The LM head's first steps are alike and steep: from half-way on differences can be seen.
  last = max(point[0] for points in way.values() for point in points)
  late = {arm: [one for one in points if one[0] >= last / 2] for arm, points in way.items()}
  dashed = {arm: {'linestyle': '--'} for arm in way if arm.startswith('trained')}
  label = 'bits per byte ± standard error'
  panels = [
    _curves('Validation loss', 'step', label, way, styles=dashed),
    _curves('Validation loss, second half', 'step', label, late, styles=dashed),
  ]
  differences = _cells(rows, 'loss', 'difference_bits_per_byte')
  for reference in config.loss.references:
    suffix = f',against={reference}'
    found = {}
    for name, row in differences.items():
      half = Estimate(row.measured or 0.0, row.sem, df=row.df).half_width()
      if name.endswith(suffix) and half is not None and row.measured is not None:
        arm = models.LABELS[name.removeprefix('arm=').removesuffix(suffix)]
        found[arm] = (row.measured, row.measured - half, row.measured + half)
    if found:
      title = f'Test loss less that of “{models.LABELS[reference]}”, 95 % intervals'
      panels.append(plots.intervals(title, 'bits per byte', found, config.loss.margin))
  return panels


def _homoglyphs(rows: Sequence[Row]) -> list[Callable]:
  """What an attacked context costs, by rate, a panel for each list of look-alikes."""
  series: dict[str, dict[str, list[Point]]] = {}
  for row in _cells(rows, 'homoglyphs', 'extra_bits_per_byte').values():
    at = parts(row.row)
    kind = ', bytes' if at['tokens'] == 'bytes' else ''
    label = models.LABELS[at['arm']] + kind
    points = series.setdefault(at['list'], {}).setdefault(label, [(0.0, 0.0, None)])
    points.append((float(at['rate']), row.measured or 0.0, row.sem))
  label = 'extra bits per byte ± standard error'
  return [
    _curves(f'Cost of look-alikes in the context ({listed})', 'letters replaced', label, points)
    for listed, points in series.items()
  ]


def _unseen(rows: Sequence[Row]) -> list[Callable]:
  """Bits per byte and accuracy of names by group of letters."""
  panels = []
  for column, title in (
    ('bits_per_byte', 'Names of letters: bits per byte'),
    ('accuracy', 'Names of letters: characters right'),
  ):
    cells = {
      row: cell
      for row, cell in _cells(rows, 'unseen_script', column).items()
      if row.startswith('script=')
    }
    groups = list(dict.fromkeys(row.partition(',arm=')[0] for row in cells))
    arms = list(dict.fromkeys(row.partition(',arm=')[2] for row in cells))
    if groups:
      of = {models.LABELS[arm]: [cells[f'{group},arm={arm}'] for group in groups] for arm in arms}
      series = {arm: [cell.measured or 0.0 for cell in some] for arm, some in of.items()}
      errors = {arm: [cell.sem for cell in some] for arm, some in of.items()}
      titles = [' '.join(part.partition('=')[2] for part in group.split(',')) for group in groups]
      y_label = f'{column.replace("_", " ")} ± standard error'
      panels.append(plots.bars(title, y_label, titles, series, {}, errors))
  return panels


def _neighbours(run: runner.Run) -> list[Callable]:
  """Tokens in the plane of two principal components, in each space."""
  kept = run.workdir / neighbours.MAPS
  if not kept.exists():
    return []
  with np.load(kept) as maps:
    written = [repr(str(token))[1:-1].replace(' ', '␣') for token in maps['tokens']]
    return [plots.words(title, maps[title], written) for title in maps.files if title != 'tokens']
