# SPDX-License-Identifier: Apache-2.0
"""Learning curves of transplants, and how many steps of training from scratch they save.

WECHSEL's claim of up to 64 times less training is about the steps to an equal loss, not about the
loss at the end.
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
Curve = Mapping[int, float]  # training step -> bits per byte
COLUMNS = ('validation_bits_per_byte', 'steps_of_scratch', 'speed_up')
CAPTION = (
  'Bits per byte of the same validation text during training. `scratch` has random weights; each '
  'of its points is the end of a training of that many steps, whose learning rate has its full '
  'warm-up and decay. The other curves are each of one training, with the peak of '
  '`continued.rate`, by default that of `scratch`. `steps_of_scratch`, at the end of a training, '
  'is the number of steps after which `scratch` is as good, on lines between its points; '
  '`speed_up` is that number over the steps of the method. `random` has the old decoder and random '
  'rows, so it shows the gain from the decoder alone. ± is one standard error over seeds.'
)


def steps_to(curve: Curve, level: float) -> tuple[float, bool]:
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


def ends(scratch: Mapping[int, Sequence[Fitted]]) -> list[Curve]:
  """The curve of each seed of models from scratch: before training, and each end of a training.

  Args:
    scratch: number of training steps -> the models of all seeds.
  """
  starts = [float(one.curve(METRIC)[0]) for one in scratch[max(scratch)]]
  return [
    {0: start} | {steps: models[i].last(METRIC) for steps, models in sorted(scratch.items())}
    for i, start in enumerate(starts)
  ]


def add(rows: Rows, where: Mapping[str, Any], curves: Sequence[Curve]) -> None:
  """Adds the points of a learning curve of several seeds."""
  for step in curves[0]:
    levels = [float(curve[step]) for curve in curves]
    rows.add({**where, 'step': step}, COLUMNS[0], stats.mean(levels), 'bits/byte')


def add_speed(
  rows: Rows, where: Mapping[str, Any], fitted: Sequence[Fitted], scratch: Sequence[Curve]
) -> None:
  """Adds the learning curve of transplants, and the steps from scratch to the loss at their end."""
  curves = [one.curve(METRIC) for one in fitted]
  add(rows, where, curves)
  step = max(curves[0])
  found = [steps_to(one, float(curve[step])) for one, curve in zip(scratch, curves, strict=True)]
  worth, short = np.array([steps for steps, _ in found]), sum(not there for _, there in found)
  note = f'at least: {short} of {len(found)} models do not become as good' if short else ''
  rows.add({**where, 'step': step}, COLUMNS[1], stats.mean(worth), 'steps', note)
  rows.add({**where, 'step': step}, COLUMNS[2], stats.mean(worth / step), '', note)


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
  curves, speeds = (by_steps(select(rows, table, COLUMNS[i])) for i in (0, 2))
  if not speeds:
    return []
  bars = {label: [row for _, row in points] for label, points in speeds.items()}
  return [
    plots.row_curves('Learning curves', 'steps', 'validation bits per byte', curves),
    plots.row_bars('Speed-up over scratch', 'times', ['end of training'], bars, {}),
  ]
