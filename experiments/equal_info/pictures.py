# SPDX-License-Identifier: Apache-2.0
"""The pictures of the tables, from their rows alone; no panel for a table that was not run."""

import itertools
import re
from collections.abc import Mapping, Sequence

from experiments import coders
from lib.report import plots
from lib.report.plots import Panel
from lib.report.results import Row, cells_of

MARKS = 'osD^v<>PX*hp'
LOSSY = ' (lossy)'  # after the name of a tokenizer that does not give every text back
RANDOM = 'random bytes, as many as of ac'


def label(where: Mapping[str, str]) -> str:
  """The tokenizer of a row, such as 'greedy16, v=256 (lossy)'."""
  shown = [where['method'], *([f'v={where["v"]}'] if 'v' in where else [])]
  return ', '.join(shown) + LOSSY * coders.lossy(where)


def _by_step(cells: Mapping[str, float], column: str) -> plots.Series:
  """(steps, values) of the columns `column`_at_step_N."""
  found = sorted(
    (int(match[1]), value)
    for name, value in cells.items()
    if (match := re.fullmatch(rf'{column}_at_step_(\d+)', name))
  )
  return [step for step, _ in found], [value for _, value in found]


def _series(points: Sequence[tuple[str, float, float]]) -> dict[str, plots.Series]:
  """Series by name, from (name, x, y)."""
  found: dict[str, plots.Series] = {}
  for name, x, y in points:
    xs, ys = found.get(name, ([], []))
    found[name] = [*xs, x], [*ys, y]
  return found


def ratio(rows: Sequence[Row]) -> list[Panel]:
  """Bytes a token by method, a panel for each vocabulary, up to what M1 allows."""
  found: dict[str, dict[str, float]] = {}
  most = None
  for where, cells in cells_of(rows, 'ratio'):
    if where.get('method') == 'm1':
      most = cells['bytes_per_token']
    elif 'bytes_per_token' in cells:
      shown = where['method'] + LOSSY * coders.lossy(where)
      found.setdefault(where.get('v', 'of its own'), {})[shown] = cells['bytes_per_token']
  panels = []
  for vocabulary, values in found.items():
    bits = {'256': 8, '65536': 16}.get(vocabulary)
    levels = {'the most that M1 allows': most * bits / 8} if most and bits else {}
    panels.append(plots.ranked(f'vocabulary {vocabulary}', 'bytes per token', values, levels))
  return panels


def uniformity(rows: Sequence[Row]) -> list[Panel]:
  """KL divergence to uniform by counts alone, and what as many random bytes show."""
  panels = []
  for kind, title in (('ngrams', 'strings at every bit'), ('tokens', 'strings end to end')):
    points = []
    for where, cells in cells_of(rows, 'uniformity'):
      if where['kind'] == kind and cells.get('kl_bits'):
        n, value = int(where['n']), cells['kl_bits']
        points.append((where['method'] + LOSSY * coders.lossy(where), n, value))
        if where['method'] == 'ac':
          points.append((RANDOM, n, value - cells['kl_bits_corrected']))
    if points:
      styles = {RANDOM: {'color': '0.35', 'linestyle': '--'}}
      series, unit = _series(points), 'KL divergence to uniform by counts, bits'
      panels.append(plots.curves(title, 'bits n', unit, series, log_y=True, styles=styles))
  return panels


def m2(rows: Sequence[Row]) -> list[Panel]:
  """Bits per byte against FLOPs per byte and bytes per step; M2 below models without context."""
  every = [(label(where), found) for where, found in cells_of(rows, 'm2') if 'budget' not in where]
  if not every:
    return []
  panels = []
  for column, x_label in (
    ('mflops_per_byte', 'MFLOP per byte, M1 counted as in the paper'),
    ('bytes_per_step', 'bytes per step'),
  ):
    series = _series([(name, found[column], found['bits_per_byte']) for name, found in every])
    styles = {
      method: {
        'marker': MARKS[i % len(MARKS)], 'markersize': 6, 'color': f'C{i % 10}',
        'fillstyle': 'none' if LOSSY in method else 'full',
      }
      for i, method in enumerate(series)
    }  # fmt: skip
    title, y_label = 'M2 on held-out text', 'bits per byte'
    panels.append(plots.curves(title, x_label, y_label, series, log_x=True, styles=styles))
  first = dict(reversed(every))
  names = [*first][::-1]
  unigram = 'unigram_bits_per_byte'
  bars = {
    'uniform': [first[name]['uniform_bits_per_byte'] for name in names],
    'unigram': [first[name][unigram] for name in names],
    # Where a token is no window, or a window by itself, its unigram is that of whole windows.
    'unigram of whole windows': [
      min(first[name].get(f'window_{unigram}{which}', first[name][unigram])
          for which in ('', '_whole_corpus')) for name in names
    ],
    'M2': [first[name]['bits_per_byte'] for name in names],
  }  # fmt: skip
  panels.append(plots.bars('M2 and models that read no context', 'bits per byte', names, bars, {}))
  return panels


def windows(rows: Sequence[Row]) -> list[Panel]:
  """The gap to uniform by width, and accuracy by position and step for each width."""
  cells = cells_of(rows, 'windows')
  whole = [(where, found) for where, found in cells if 'position' not in where]
  if not whole:
    return []
  gap = _series(
    [(f'v = {where["v"]}', int(where['b']), found['gap_bits_per_token']) for where, found in whole]
  )
  title, unit = 'What M2 learns of a token', 'bits below uniform'
  panels = [plots.curves(title, 'bits of a window', unit, gap, log_x=True)]
  of = lambda where: {key: value for key, value in where.items() if key != 'position'}
  parts = [(where, found) for where, found in cells if 'position' in where]
  for key, group in itertools.groupby(parts, lambda part: of(part[0])):
    series = {
      f'token {where["position"]} of the window': _by_step(found, 'accuracy')
      for where, found in group
    }
    title = ', '.join(f'{name}={value}' for name, value in key.items()) + LOSSY * coders.lossy(key)
    panels.append(plots.curves(title, 'training step', 'accuracy', series))
  return panels


def decompress(rows: Sequence[Row]) -> list[Panel]:
  """Accuracy on the text's bytes while training, and at the end by half of the text."""
  cells = [
    ('control: no tokens' if where['method'] == 'none' else label(where), found)
    for where, found in cells_of(rows, 'decompress')
  ]
  if not cells:
    return []
  series = {arm: _by_step(found, 'accuracy') for arm, found in cells}
  bars = {
    arm: [found['accuracy_first_half'], found['accuracy_second_half']] for arm, found in cells
  }
  halves = ['first half of the text', 'second half']
  return [
    plots.curves('Decompression, validation texts', 'training step', 'byte accuracy', series),
    plots.bars('Decompression, test texts', 'byte accuracy', halves, bars, {}),
  ]
