# SPDX-License-Identifier: Apache-2.0
"""Learning curves of transplants, and how much training of a model from scratch they are worth.

WECHSEL's claim of up to 64 times less training is about the speed, not about the end.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.fit import Fitted
from lib import stats
from lib.report import plots
from lib.report.plots import Panel
from lib.report.results import Row, Rows, select

METRIC = 'validation/bits_per_byte'
COLUMNS = ('validation_bits_per_byte', 'steps_of_scratch', 'speed_up')
CAPTION = (
  'Learning curves on validation text, the same for all. `steps_of_scratch` is the number of steps '
  'after which `scratch`, a model trained from random weights, is as good; `speed_up` is that '
  'number over the steps of the method. Each has its own schedule of the learning rate, that of '
  '`scratch` is longer. `random` has the old decoder and random rows: what it gains is the '
  "decoder's. ± is one standard error over seeds."
)


def steps_to(curve: Mapping[int, float], level: float) -> tuple[float, bool]:
  """The step at which a curve first comes down to a level, and whether it does.

  Between two points it is a line. A curve that stays above the level gives its last step.
  """
  steps, values = [*curve], [*curve.values()]
  for i, value in enumerate(values):
    if value <= level:
      if i == 0:
        return float(steps[0]), True
      share = (values[i - 1] - level) / (values[i - 1] - value)
      return steps[i - 1] + share * (steps[i] - steps[i - 1]), True
  return float(steps[-1]), False


def add(
  rows: Rows, where: Mapping[str, Any], fitted: Sequence[Fitted], scratch: Sequence[Fitted] = ()
) -> None:
  """Adds the points of a learning curve, compared with models from scratch of as many seeds."""
  curves = [one.curve(METRIC) for one in fitted]
  baselines = [one.curve(METRIC) for one in scratch]
  for step in curves[0]:
    at = {**where, 'step': step}
    levels = [float(curve[step]) for curve in curves]
    rows.add(at, COLUMNS[0], stats.mean(levels), 'bits/byte')
    if baselines:
      found = [steps_to(one, level) for one, level in zip(baselines, levels, strict=True)]
      worth, short = np.array([steps for steps, _ in found]), sum(not there for _, there in found)
      note = f'at least: {short} of {len(found)} models do not become as good' if short else ''
      rows.add(at, COLUMNS[1], stats.mean(worth), 'steps', note)
      if step:
        rows.add(at, COLUMNS[2], stats.mean(worth / step), '', note)


def by_steps(rows: Iterable[Row]) -> dict[str, list[tuple[float, Row]]]:
  """Method, with its share of a dictionary -> (step, row)."""
  points: dict[str, list[tuple[float, Row]]] = {}
  for row in rows:
    share = row.where.get('dictionary', '0')
    label = row.where['method'] + (f', {share} % of the dictionary' if share != '0' else '')
    points.setdefault(label, []).append((float(row.where['step']), row))
  return points


def panels(rows: Sequence[Row], table: str) -> list[Panel]:
  """The curves, and the speed-up of each method."""
  found = []
  for column, title in ((COLUMNS[0], 'Learning curves'), (COLUMNS[2], 'Speed-up over scratch')):
    if points := by_steps(select(rows, table, column)):
      found.append(plots.row_curves(title, 'steps', column.replace('_', ' '), points))
  return found
