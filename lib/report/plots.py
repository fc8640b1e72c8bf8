# SPDX-License-Identifier: Apache-2.0
"""Plots as PNG files, drawn without a display; an arm has the same colour in all plots.

Matplotlib is imported only when a plot is drawn, since importing it is slow.
"""

import dataclasses
import io
import math
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lib import atomic
from lib.report.results import Row

Series = tuple[Sequence[float], Sequence[float]]  # x, y
Errors = Sequence[float | None]  # of each point
Points = Sequence[tuple[float, Row]]  # x, and the row that has y and its error

COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
MARKERS, DASHES = 'osD^v<>PX*hp', ('-', '--', '-.', ':')
HATCHES = ('', '///', '...', '\\\\\\', 'xxx', '--', 'ooo')
ARMS = {  # colours of arms by the first word of the label; others get the rest
  'bytes': 0, 'characters': 0, 'trained': 0, 'control': 0, 'bpe': 1, 'glyphs': 1,
  'sentencepiece': 2, 'lexinvariant': 2, 'random': 3, 'static_ac': 3, 'lzw': 4, 'gzip': 4,
  'greedy': 5, 'numbered': 5, 'exact': 5, 'delay': 5, 'pruned': 5, 'parsed': 5, 'top': 5, 'ac': 6,
  'parts': 0, 'mean': 0, 'multivariate': 0, 'focus': 1, 'tokenadapt': 2, 'wechsel': 2, 'omp': 4,
  'ridge': 5, 'scratch': 6, 'known': 6,
}  # fmt: skip
EMBEDDINGS = {  # kinds of rows in words
  'learned': 'trained rows',
  'lexinvariant': 'lexinvariant (random rows)',
  'glyph': 'glyphs, frozen',
  'random': 'random rows, frozen',
  'code': 'id in binary, frozen',
}
STYLE: Any = {
  'font.size': 11, 'axes.titlesize': 12, 'legend.fontsize': 10, 'axes.grid': True,
  'grid.alpha': 0.25, 'lines.markersize': 5, 'hatch.linewidth': 0.6, 'savefig.dpi': 120,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Panel:
  """A function that draws into matplotlib axes.

  Attributes:
    draw: the function.
    height: in inches, its legend included.
    labels: of its legend below the axes; panels with equal labels share one.
  """

  draw: Callable[[Any], None]
  height: float = 3.8
  labels: tuple[str, ...] = ()

  def __call__(self, axis: Any) -> None:
    """Draws into the axes."""
    self.draw(axis)


class Picture(NamedTuple):
  """A caption, and panels, or a PNG."""

  caption: str
  panels: Sequence[Panel] | bytes


def save(folder: pathlib.Path, pictures: Mapping[str, Picture]) -> dict[str, str]:
  """Writes each picture (file name -> picture) that has panels; returns their captions."""
  drawn = {name: picture for name, picture in pictures.items() if picture.panels}
  for name, (_, panels) in drawn.items():
    atomic.write(folder / name, panels if isinstance(panels, bytes) else _png(panels))
  return {name: picture.caption for name, picture in drawn.items()}


def _png(panels: Sequence[Panel]) -> bytes:
  """Up to three panels below each other, or more in two columns."""
  import matplotlib
  from matplotlib.figure import Figure

  columns = 1 if len(panels) <= 3 else 2
  lines = [panels[first : first + columns] for first in range(0, len(panels), columns)]
  labels = panels[0].labels if len({panel.labels for panel in panels}) == 1 else ()
  shared = labels if len(panels) > 1 else ()
  heights = [max(panel.height for panel in line) - _legend_height(shared) for line in lines]
  size = 6.8 if columns == 1 else 11, sum(heights) + _legend_height(shared)
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(len(lines), columns, squeeze=False, height_ratios=heights)
    for axis in axes.flat[len(panels) :]:
      axis.remove()
    for axis, panel in zip(axes.flat, panels):
      panel(axis)
      if shared:
        axis.get_legend().remove()
    if shared:
      handles, names = axes.flat[0].get_legend_handles_labels()
      ncols = columns * _columns(names)
      figure.legend(handles, names, loc='outside lower center', ncols=ncols, frameon=False)
    picture = io.BytesIO()
    # A legend below a narrow axis may be wider than the layout allows for.
    figure.savefig(picture, format='png', bbox_inches='tight', pad_inches=0.05)
  return picture.getvalue()


def looks(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
  """Label -> matplotlib's colour, marker and line: the same for an arm in every panel."""
  labels = list(dict.fromkeys(labels))
  known = {label: _color(label) for label in labels}
  free = [color for color in range(len(COLORS)) if color not in known.values()] or [*range(7)]
  found, taken = {}, Counter[int]()
  for label in labels:
    color = known[label]
    if color is None:
      color = free[sum(taken[one] for one in free) % len(free)]
    nth, taken[color] = taken[color], taken[color] + 1
    found[label] = {
      'color': COLORS[color],
      'marker': MARKERS[(color + 7 * nth) % len(MARKERS)],
      'linestyle': DASHES[nth % len(DASHES)],
      'fillstyle': 'none' if 'lossy' in label else 'full',
    }
  return found


def _color(label: str) -> int | None:
  word = re.match('[a-z_]*', label.lower())
  return ARMS.get(word[0]) if word else None


def curves(
  title: str,
  x_label: str,
  y_label: str,
  series: Mapping[str, Series],
  levels: Mapping[str, float] | None = None,
  log_x: bool = False,
  log_y: bool = False,
  errors: Mapping[str, Errors] | None = None,
) -> Panel:
  """A panel of labelled curves over horizontal reference levels.

  `errors` are drawn as error bars, or as a band if there are many points; None is not drawn.
  """
  labels = [*series, *(levels or {})]

  def draw(axis: Any) -> None:
    for label, look in looks(series).items():
      x, y = series[label]
      many = len(x) > 12
      look['markevery'] = max(1, len(x) // 8)
      lengths = _lengths((errors or {}).get(label))
      if many and lengths:
        axis.plot(x, y, label=label, **look)
        low, high = ([value + sign * e for value, e in zip(y, lengths)] for sign in (-1, 1))
        axis.fill_between(x, low, high, color=look['color'], alpha=0.2, linewidth=0)
      else:
        axis.errorbar(x, y, yerr=lengths, capsize=3, label=label, **look)
    for index, (label, level) in enumerate((levels or {}).items()):
      shade = f'{0.2 + 0.4 * index / len(levels or {}):.2f}'
      axis.axhline(level, color=shade, linestyle=['--', ':', '-.'][index % 3], label=label)
    if log_x:
      axis.set_xscale('log', base=2)
      places = sorted({value for x, _ in series.values() for value in x})
      if len(places) <= 8 and all(place == int(place) for place in places):
        axis.set_xticks(places)
      axis.xaxis.minorticks_off()
      axis.xaxis.set_major_formatter(_plain)
    if log_y:
      axis.set_yscale('log')
      low, high = axis.get_ylim()
      axis.yaxis.set_major_formatter(_plain)
      axis.yaxis.set_minor_formatter(_plain if high < 12 * low else '')
    _finish(axis, title, x_label, y_label)

  return Panel(draw, 3.4 + _legend_height(labels), tuple(labels))


def row_curves(
  title: str, x_label: str, y_label: str, points: Mapping[str, Points], **rest: Any
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
  """A panel of grouped bars from zero, one bar per series in each group, with reference levels.

  `errors` are drawn as error bars; None is not drawn.
  """
  labels, lines = [*series, *levels], [line for group in groups for line in group.split('\n')]
  crowded = len(groups) * max(map(len, lines)) > 60

  def draw(axis: Any) -> None:
    width = 0.8 / len(series)
    for index, (label, look) in enumerate(looks(series).items()):
      places = [group + (index - (len(series) - 1) / 2) * width for group in range(len(groups))]
      lengths = _lengths((errors or {}).get(label))
      axis.bar(
        places, series[label], width, label=label, yerr=lengths, capsize=2, color=look['color'],
        hatch=HATCHES[index % len(HATCHES)], edgecolor='white', error_kw={'ecolor': '0.3'},
      )  # fmt: skip
    for label, level in levels.items():
      axis.axhline(level, color='0.35', linestyle='--', label=label)
    axis.axhline(0, color='0.2', linewidth=0.8)
    names = [group.replace('\n', ' ') for group in groups] if crowded else groups
    axis.set_xticks(range(len(groups)), names)
    if crowded:
      axis.tick_params('x', rotation=30)
      for name in axis.get_xticklabels():
        name.set(ha='right', rotation_mode='anchor')
    _finish(axis, title, '', y_label, above=crowded, ticks=max(one.count('\n') for one in groups))

  height = 3.5 + _legend_height(labels) + 0.9 * crowded
  return Panel(draw, height, () if crowded else tuple(labels))


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
  if errors is None or not any(errors):
    return None
  return [float('nan') if error is None else error for error in errors]


def ranked(
  title: str,
  x_label: str,
  rows: Mapping[str, Row],
  levels: Mapping[str, float],
  number: str = '{:.2f}',
) -> Panel:
  """A panel of horizontal bars, one per name, with numbers next to the names and vertical levels.

  Standard errors of the rows are drawn as error bars.
  """
  values = [row.measured or 0.0 for row in rows.values()]

  def draw(axis: Any) -> None:
    lengths = _lengths([row.sem for row in rows.values()])
    axis.barh(range(len(rows)), values, xerr=lengths, capsize=3, color=COLORS[0], ecolor='0.3')
    names = [f'{label}  {number.format(value)}' for label, value in zip(rows, values)]
    axis.set_yticks(range(len(rows)), names)
    axis.invert_yaxis()
    for label, level in levels.items():
      axis.axvline(level, color='0.2', linestyle='--', label=label)
    _finish(axis, title, x_label, '')

  return Panel(draw, 1.2 + 0.3 * len(rows) + 0.24 * bool(levels))


def intervals(
  title: str, x_label: str, found: Mapping[str, tuple[float, float, float]], margin: float
) -> Panel:
  """A panel of means with their intervals (mean, low, high), one per line, over a band of ±
  margin.
  """

  def draw(axis: Any) -> None:
    axis.axvspan(-margin, margin, color='0.9', label=f'within {margin:g}')
    axis.axvline(0, color='0.5', linewidth=0.8)
    for place, (label, look) in enumerate([*looks(found).items()][::-1]):
      mean, low, high = found[label]
      axis.plot([low, high], [place, place], color=look['color'])
      axis.plot([mean], [place], look['marker'], color=look['color'])
    axis.set_yticks(range(len(found)), [*found][::-1])
    axis.set_ylim(-0.6, len(found) - 0.4)
    _finish(axis, title, x_label, '')

  return Panel(draw, 1.4 + 0.3 * len(found))


def words(title: str, places: Any, written: Sequence[str], x_label: str, y_label: str) -> Panel:
  """A panel of words at places [N, 2]; words that would overlap an earlier word are left out."""

  def draw(axis: Any) -> None:
    axis.scatter(places[:, 0], places[:, 1], s=4, color='0.75')
    low, span = places.min(0), (places.max(0) - places.min(0)) + 1e-9
    boxes: list[tuple[float, float, float]] = []  # middle, and half the width, in parts of the axis
    for place, word in zip(places, written, strict=True):
      (x, y), half = (place - low) / span, 0.008 * (len(word) + 1)
      if any(abs(x - u) < half + w and abs(y - v) < 0.03 for u, v, w in boxes):
        continue
      boxes.append((x, y, half))
      axis.text(*place, word, fontsize=9, ha='center', va='center', parse_math=False)
    axis.set_title(title)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.set_xticks([])
    axis.set_yticks([])

  return Panel(draw, 5.2)


def matrix(title: str, values: Any, labels: Sequence[str], x_label: str, y_label: str) -> Panel:
  """A panel of a square matrix of shares, from white (0) to dark (1)."""

  def draw(axis: Any) -> None:
    image = axis.imshow(values, vmin=0, vmax=1, cmap='Blues', interpolation='nearest')
    for ticks in (axis.set_xticks, axis.set_yticks):
      ticks(range(len(labels)), labels, fontsize=8)
    axis.grid(visible=False)
    axis.set_title(title)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.figure.colorbar(image, ax=axis, label='share')

  return Panel(draw, 5.4)


def heat_map(
  title: str,
  values: Sequence[Sequence[float | None]],
  lines: Sequence[str],
  columns: Sequence[str],
  label: str,
  legend: str = '',
) -> Panel:
  """A heat map of numbers, `values[line][column]`; lower is lighter, and None is a cross.

  `legend` is a line of text below the panel.
  """

  def draw(axis: Any) -> None:
    known = [value for line in values for value in line if value is not None]
    grid = [[float('nan') if value is None else value for value in line] for line in values]
    image = axis.imshow(grid, cmap='Blues', aspect='auto', interpolation='nearest')
    dark = (min(known) + max(known)) / 2
    for y, line in enumerate(values):
      for x, value in enumerate(line):
        shade = 'white' if value is not None and value > dark else 'black'
        text = '×' if value is None else f'{value:.2f}'.replace('-', '−')
        axis.text(x, y, text, ha='center', va='center', color=shade, fontsize=10)
    names = [name.replace(', ', ',\n').replace(' (', '\n(') for name in columns]
    axis.set_xticks(range(len(columns)), names, fontsize=9)
    axis.set_yticks(range(len(lines)), lines)
    axis.grid(visible=False)
    axis.set_title(title)
    axis.set_xlabel(legend)
    axis.figure.colorbar(image, ax=axis, label=label)

  return Panel(draw, 1.8 + 0.36 * len(lines))


def trade(
  title: str,
  x_label: str,
  y_label: str,
  rows: Mapping[str, Mapping[str, tuple[float, Row]]],
  unranked: Collection[str] = (),
) -> Panel:
  """A panel of points (x, row of y), series -> name -> point, both better when smaller.

  A line joins the points that no other point beats in both (the Pareto front), without the names in
  `unranked`. Each name is written once, above its points. Bars are standard errors.
  """
  points = {
    label: {name: (x, row.measured or 0.0) for name, (x, row) in named.items()}
    for label, named in rows.items()
  }

  def draw(axis: Any) -> None:
    every = sorted(point for named in points.values() for point in named.values())
    ranked = sorted(
      point for named in points.values() for name, point in named.items() if name not in unranked
    )
    best = [(x, y) for i, (x, y) in enumerate(ranked) if all(y < other for _, other in ranked[:i])]
    if best:
      axis.step(*zip(*best), where='post', color='0.6', linestyle='--', label='the best for less')
    for label, look in looks(points).items():
      lengths = _lengths([row.sem for _, row in rows[label].values()])
      x, y = zip(*points[label].values())
      look |= {'linestyle': '', 'alpha': 0.8, 'capsize': 2, 'elinewidth': 0.8}
      axis.errorbar(x, y, yerr=lengths, label=label, **look)
    high: dict[str, tuple[float, float]] = {}  # the highest point of each name
    for named in points.values():
      for name, point in named.items():
        high[name] = max(high.get(name, point), point, key=lambda p: p[1])
    bars = [
      (row.measured or 0.0, row.sem or 0.0) for named in rows.values() for _, row in named.values()
    ]
    low, top = min(y - error for y, error in bars), max(y + error for y, error in bars)
    tall = top - low or 1.0
    gap, last = 0.05 * (every[-1][0] - every[0][0]), float('-inf')
    for name in sorted(high, key=lambda name: high[name][0]):
      last = max(high[name][0], last + gap)  # names side by side do not overlap
      axis.annotate(
        name, high[name], (last, top + 0.1 * tall), fontsize=9, rotation=90, ha='center',
        va='bottom', arrowprops={'arrowstyle': '-', 'color': '0.85'},
      )  # fmt: skip
    axis.set_ylim(low - 0.05 * tall, top + 0.75 * tall)
    axis.margins(x=0.08)
    _finish(axis, title, x_label, y_label)

  return Panel(draw, 5.4)


def _plain(value: float, _: int) -> str:
  """The label of a tick on a logarithmic axis."""
  return f'{value:,.0f}' if value >= 10 else f'{value:.3g}'


def _columns(labels: Sequence[str]) -> int:
  return 1 if max(map(len, labels), default=0) > 38 else 2


def _legend_height(labels: Sequence[str]) -> float:
  return 0.24 * math.ceil(len(labels) / _columns(labels))


def _finish(
  axis: Any, title: str, x_label: str, y_label: str, above: bool = False, ticks: int = 0
) -> None:
  """Labels, and a legend below the axes or `above` them; `ticks` are additional lines of tick
  labels.
  """
  from matplotlib.transforms import ScaledTranslation

  axis.set_xlabel(x_label)
  axis.set_ylabel(y_label)
  axis.set_axisbelow(True)
  _, labels = axis.get_legend_handles_labels()
  axis.set_title(title, pad=72 * _legend_height(labels) + 10 if above else None)
  if not labels:
    return
  below = -0.55 if x_label else -0.35 - 0.18 * ticks
  shift = ScaledTranslation(0, 0 if above else below, axis.figure.dpi_scale_trans)
  axis.legend(
    ncols=_columns(labels), loc='lower center' if above else 'upper center', frameon=False,
    bbox_to_anchor=(0.5, 1.0 if above else 0.0), bbox_transform=axis.transAxes + shift,
  )  # fmt: skip
