# SPDX-License-Identifier: Apache-2.0
"""Plots as PNG files, drawn without a display."""

import io
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from lib import atomic
from lib.report.results import Row

Panel = Callable[[Any], None]  # draws into one of matplotlib's axes
Series = tuple[Sequence[float], Sequence[float]]  # x, y
Errors = Sequence[float | None]  # of each point


def save(folder: pathlib.Path, pictures: Mapping[str, Sequence[Panel] | bytes]) -> list[str]:
  """Writes each picture (file name -> panels, or a PNG) that has panels; the names of those."""
  drawn = [picture for picture, panels in pictures.items() if panels]
  for picture in drawn:
    panels = pictures[picture]
    if isinstance(panels, bytes):
      atomic.write(folder / picture, panels)
    else:
      _save(folder / picture, panels)
  return drawn


def _save(path: pathlib.Path, panels: Sequence[Panel]) -> None:
  """Draws one panel a function on a grid of two columns and writes the PNG atomically."""
  columns = min(2, len(panels))
  lines = -(-len(panels) // columns)
  figure = Figure(figsize=(6.4 * columns, 5.2 * lines), layout='constrained')
  axes = figure.subplots(lines, columns, squeeze=False)
  for axis, panel in zip(axes.flat, panels):
    panel(axis)
  for axis in axes.flat[len(panels) :]:
    axis.set_visible(False)
  picture = io.BytesIO()
  figure.savefig(picture, format='png', dpi=110)
  atomic.write(path, picture.getvalue())


def curves(
  title: str,
  x_label: str,
  y_label: str,
  series: Mapping[str, Series],
  levels: Mapping[str, float] | None = None,
  log_x: bool = False,
  log_y: bool = False,
  styles: Mapping[str, Mapping[str, Any]] | None = None,
  errors: Mapping[str, Errors] | None = None,
) -> Panel:
  """A panel of labelled curves over horizontal reference levels.

  `styles` are matplotlib's; `errors` are drawn as bars of ± that much, None as no bar.
  """

  def plot(axis: Any) -> None:
    for label, (x, y) in series.items():
      style = {'marker': 'o' if len(x) < 20 else None, 'markersize': 3.5}
      bars = _lengths((errors or {}).get(label))
      axis.errorbar(
        x, y, yerr=bars, capsize=2, label=label, **style | dict((styles or {}).get(label, {}))
      )
    for index, (label, level) in enumerate((levels or {}).items()):
      shade = f'{0.2 + 0.6 * index / len(levels or {}):.2f}'
      axis.axhline(level, color=shade, linestyle=['--', ':', '-.'][index % 3], label=label)
    if log_x:
      axis.set_xscale('log', base=2)
    if log_y:
      axis.set_yscale('log')
    _finish(axis, title, x_label, y_label)

  return plot


def row_curves(
  title: str,
  x_label: str,
  y_label: str,
  points: Mapping[str, Sequence[tuple[float, Row]]],
  **rest: Any,
) -> Panel:
  """As `curves`, of measured rows: label -> (x, row) in any order, with their standard errors."""
  ordered = {label: sorted(some, key=lambda point: point[0]) for label, some in points.items()}
  series, errors = {}, {}
  for label, some in ordered.items():
    series[label] = [x for x, _ in some], [row.measured or 0.0 for _, row in some]
    errors[label] = [row.sem for _, row in some]
  return curves(title, x_label, y_label, series, errors=errors, **rest)


def bars(
  title: str,
  y_label: str,
  groups: Sequence[str],
  series: Mapping[str, Sequence[float]],
  levels: Mapping[str, float],
  errors: Mapping[str, Errors] | None = None,
) -> Panel:
  """A panel of grouped bars from zero, one bar a series in each group, under reference levels.

  `errors` are drawn as lines of ± that much, None as no line.
  """

  def plot(axis: Any) -> None:
    width = 0.8 / len(series)
    for index, (label, values) in enumerate(series.items()):
      places = [group + (index - (len(series) - 1) / 2) * width for group in range(len(groups))]
      lengths = _lengths((errors or {}).get(label))
      axis.bar(places, values, width, label=label, yerr=lengths, capsize=2)
    for label, level in levels.items():
      axis.axhline(level, color='0.35', linestyle='--', label=label)
    crowded = len(groups) >= 7
    axis.set_xticks(range(len(groups)), groups, rotation=90 if crowded else 0)
    _finish(axis, title, '', y_label)
    if crowded:  # upright names take the legend's place
      axis.legend(fontsize=8, loc='upper right', frameon=False)

  return plot


def row_bars(
  title: str,
  y_label: str,
  groups: Sequence[str],
  rows: Mapping[str, Sequence[Row]],
  levels: Mapping[str, float],
) -> Panel:
  """As `bars`, of measured rows: label -> a row for each group, with their standard errors."""
  series = {label: [row.measured or 0.0 for row in some] for label, some in rows.items()}
  errors = {label: [row.sem for row in some] for label, some in rows.items()}
  return bars(title, y_label, groups, series, levels, errors)


def _lengths(errors: Errors | None) -> list[float] | None:
  """Lengths of error bars; NaN is not drawn."""
  if errors is None:
    return None
  return [float('nan') if error is None else error for error in errors]


def ranked(
  title: str,
  x_label: str,
  values: Mapping[str, float],
  levels: Mapping[str, float],
  number: str = '%.2f',
  errors: Mapping[str, float | None] | None = None,
) -> Panel:
  """A panel of one bar a name, lying, its number next to it, under vertical reference levels.

  `errors` are drawn as lines of ± that much, None as no line.
  """

  def plot(axis: Any) -> None:
    lengths = _lengths([errors.get(label) for label in values]) if errors else None
    bars = axis.barh(
      range(len(values)), list(values.values()), xerr=lengths, capsize=2, label='measured'
    )
    axis.bar_label(bars, fmt=number, fontsize=7, padding=2)
    axis.set_yticks(range(len(values)), list(values), fontsize=8)
    axis.invert_yaxis()
    for label, level in levels.items():
      axis.axvline(level, color='0.35', linestyle='--', label=label)
    _finish(axis, title, x_label, '')

  return plot


def intervals(
  title: str, x_label: str, found: Mapping[str, tuple[float, float, float]], margin: float
) -> Panel:
  """A panel of means with their intervals (mean, low, high), one a line, over a band ± margin."""

  def plot(axis: Any) -> None:
    axis.axvspan(-margin, margin, color='0.9', label=f'within {margin:g}')
    axis.axvline(0, color='0.5', linewidth=0.8)
    for place, (mean, low, high) in enumerate([*found.values()][::-1]):
      axis.plot([low, high], [place, place], color='C0')
      axis.plot([mean], [place], 'o', color='C0', markersize=4)
    axis.set_yticks(range(len(found)), [*found][::-1], fontsize=7)
    _finish(axis, title, x_label, '')

  return plot


def words(title: str, places: Any, written: Sequence[str]) -> Panel:
  """A panel of words at places [N, 2]."""

  def plot(axis: Any) -> None:
    axis.scatter(places[:, 0], places[:, 1], s=0)
    for (x, y), word in zip(places, written, strict=True):
      axis.text(x, y, word, fontsize=7, ha='center', va='center', parse_math=False)
    axis.set_title(title)
    axis.set_xticks([])
    axis.set_yticks([])

  return plot


def matrix(title: str, values: Any, labels: Sequence[str], x_label: str, y_label: str) -> Panel:
  """A panel of a square matrix of shares, from white (0) to dark (1)."""

  def plot(axis: Any) -> None:
    axis.imshow(values, vmin=0, vmax=1, cmap='Blues', interpolation='nearest')
    for ticks in (axis.set_xticks, axis.set_yticks):
      ticks(range(len(labels)), labels, fontsize=6)
    axis.set_title(title)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)

  return plot


def heat_map(
  title: str,
  values: Sequence[Sequence[float | None]],
  lines: Sequence[str],
  columns: Sequence[str],
  label: str,
  legend: str = '',
) -> Panel:
  """A panel of numbers, `values[line][column]`, the lower the lighter; what is None has a cross.

  `legend` is a line of text below the panel.
  """

  def plot(axis: Any) -> None:
    known = [value for line in values for value in line if value is not None]
    grid = [[float('nan') if value is None else value for value in line] for line in values]
    image = axis.imshow(grid, cmap='Blues', aspect='auto', interpolation='nearest')
    dark = (min(known) + max(known)) / 2
    for y, line in enumerate(values):
      for x, value in enumerate(line):
        shade = 'white' if value is not None and value > dark else 'black'
        text = '×' if value is None else f'{value:.2f}'
        axis.text(x, y, text, ha='center', va='center', color=shade, fontsize=8)
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(lines)), lines)
    axis.set_title(title)
    axis.set_xlabel(legend)
    axis.figure.colorbar(image, ax=axis, label=label)

  return plot


def trade(
  title: str,
  x_label: str,
  y_label: str,
  points: Mapping[str, Mapping[str, tuple[float, float]]],
  unranked: Collection[str] = (),
) -> Panel:
  """A panel of points (x, y), series -> name -> point, both better when smaller.

  A line joins those that no other beats in both, names in `unranked` left out. Each name is written
  once, above its points.
  """

  def plot(axis: Any) -> None:
    every = sorted(point for named in points.values() for point in named.values())
    ranked = sorted(
      point for named in points.values() for name, point in named.items() if name not in unranked
    )
    best = [(x, y) for i, (x, y) in enumerate(ranked) if all(y < other for _, other in ranked[:i])]
    if best:
      axis.step(*zip(*best), where='post', color='0.6', linestyle='--', label='the best for less')
    for label, named in points.items():
      axis.plot(*zip(*named.values()), 'o', label=label, markersize=5, alpha=0.8)
    high: dict[str, tuple[float, float]] = {}  # the highest point of each name
    for named in points.values():
      for name, point in named.items():
        high[name] = max(high.get(name, point), point, key=lambda p: p[1])
    low, top = min(y for _, y in every), max(y for _, y in every)
    tall = top - low or 1.0
    gap, last = 0.04 * (every[-1][0] - every[0][0]), float('-inf')
    for name in sorted(high, key=lambda name: high[name][0]):
      last = max(high[name][0], last + gap)  # names side by side do not overlap
      axis.annotate(
        name, high[name], (last, top + 0.1 * tall), fontsize=7, rotation=90, ha='center',
        va='bottom', arrowprops={'arrowstyle': '-', 'color': '0.85'},
      )  # fmt: skip
    axis.set_ylim(low - 0.05 * tall, top + 0.45 * tall)
    axis.margins(x=0.08)
    _finish(axis, title, x_label, y_label)

  return plot


def _finish(axis: Any, title: str, x_label: str, y_label: str) -> None:
  axis.set_title(title)
  axis.set_xlabel(x_label)
  axis.set_ylabel(y_label)
  axis.grid(alpha=0.25)
  axis.legend(fontsize=8, ncols=2, loc='upper center', bbox_to_anchor=(0.5, -0.12), frameon=False)
