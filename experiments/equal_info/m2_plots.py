# SPDX-License-Identifier: Apache-2.0
"""The pictures of the tables m2, windows and decompress, from their rows."""

import re
from collections.abc import Callable, Sequence

from experiments.coders import Method
from lib.report import plots, results
from lib.report.results import Row

MARKS = 'osD^v<>PX*hp'
LOSSY = ' (lossy)'  # after the name of a tokenizer that does not give every text back


def draw(rows: Sequence[Row]) -> dict[str, list[Callable]]:
  """File name -> panels; none for a table that was not run."""
  return {'m2.png': _m2(rows), 'windows.png': _windows(rows), 'decompress.png': _decompress(rows)}


def _cells(rows: Sequence[Row], table: str) -> dict[str, dict[str, float]]:
  """Row name -> column -> measured value."""
  found: dict[str, dict[str, float]] = {}
  for row in rows:
    if row.table == table and row.measured is not None:
      found.setdefault(row.row, {})[row.column] = row.measured
  return found


def _by_step(cells: dict[str, float], column: str) -> plots.Series:
  """(steps, values) of the columns `column`_at_step_N."""
  found = sorted(
    (int(match[1]), value)
    for name, value in cells.items()
    if (match := re.fullmatch(rf'{column}_at_step_(\d+)', name))
  )
  return [step for step, _ in found], [value for _, value in found]


def _m2(rows: Sequence[Row]) -> list[Callable]:
  """Bits per byte against FLOPs per byte and bytes per step; M2 below models without context."""
  every = _cells(rows, 'm2')
  cells = {row: found for row, found in every.items() if 'budget=' not in row}
  if not cells:
    return []
  panels = []
  for column, label in (
    ('mflops_per_byte', 'MFLOP per byte, M1 counted as in the paper'),
    ('bytes_per_step', 'bytes per step'),
  ):
    series: dict[str, plots.Series] = {}
    for row, found in cells.items():
      method = _method(row)
      x, y = series.setdefault(method, ([], []))
      series[method] = [*x, found[column]], [*y, found['bits_per_byte']]
    styles = {
      method: {
        'marker': MARKS[i % len(MARKS)], 'markersize': 6, 'color': f'C{i % 10}',
        'fillstyle': 'none' if LOSSY in method else 'full',
      }
      for i, method in enumerate(series)
    }  # fmt: skip
    panels.append(
      plots.curves('M2 on held-out text', label, 'bits per byte', series, log_x=True, styles=styles)
    )
  first = {_method(row): found for row, found in reversed(cells.items())}
  names = list(first)[::-1]
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


def _method(row: str) -> str:
  """'model=M,method=greedy16,v=256' as 'greedy16, v=256 (lossy)'."""
  parts = results.parts(row)
  words = parts['method'] + (f', v={parts["v"]}' if 'v' in parts else '')
  return words + LOSSY * (not Method(parts['method'], None).lossless)


def _windows(rows: Sequence[Row]) -> list[Callable]:
  """The gap to uniform by width, and accuracy by position and step for each width."""
  cells = _cells(rows, 'windows')
  whole = {row: found for row, found in cells.items() if 'position=' not in row}
  if not whole:
    return []
  gap: dict[str, plots.Series] = {}
  for row, found in whole.items():
    parts = results.parts(row)
    x, y = gap.setdefault(f'v = {parts["v"]}', ([], []))
    gap[f'v = {parts["v"]}'] = [*x, int(parts['b'])], [*y, found['gap_bits_per_token']]
  panels = [
    plots.curves('What M2 learns of a token', 'bits of a window', 'bits below uniform', gap,
                 log_x=True)
  ]  # fmt: skip
  for row in whole:
    series = {
      f'token {found.rpartition("=")[2]} of the window': _by_step(cells[found], 'accuracy')
      for found in cells
      if found.startswith(f'{row},position=')
    }
    if series:
      title = row.replace(',', ', ') + LOSSY * ('mode=greedy' in row)
      panels.append(plots.curves(title, 'training step', 'accuracy', series))
  return panels


def _decompress(rows: Sequence[Row]) -> list[Callable]:
  """Accuracy on the text's bytes while training, and at the end by half of the text."""
  cells = _cells(rows, 'decompress')
  if not cells:
    return []
  label = lambda row: 'control: no tokens' if row == 'method=none' else _method(row)
  series = {label(row): _by_step(found, 'accuracy') for row, found in cells.items()}
  bars = {
    label(row): [found['accuracy_first_half'], found['accuracy_second_half']]
    for row, found in cells.items()
  }
  halves = ['first half of the text', 'second half']
  return [
    plots.curves('Decompression, validation texts', 'training step', 'byte accuracy', series),
    plots.bars('Decompression, test texts', 'byte accuracy', halves, bars, {}),
  ]
