# SPDX-License-Identifier: Apache-2.0
"""Rows as Markdown: one table each, measured with its error, the published number after it."""

import re
import textwrap
from collections.abc import Mapping, Sequence

from lib.report.published import EVIDENCE, UNPUBLISHED
from lib.report.results import ABOUT_LOSSY, LOSSY, Row
from lib.stats import Estimate

MOST = 4  # different numbers of units that are all listed


def cell(row: Row) -> str:
  """'0.5004 ± 0.0003 (published 0.5004)'; a dash where nothing was measured."""
  if row.estimate is None:
    return '–'
  text = with_error(row.estimate)
  if row.published is not None:
    text += f' ({EVIDENCE[row.evidence]} {number(row.published)})'
  return text


def with_error(estimate: Estimate) -> str:
  """'0.5004 ± 0.0003': a value with one standard error, where it has one."""
  shown = estimate.sem is not None and estimate.sem > 1e-9  # below that the spread is rounding
  return number(estimate.value) + (f' ± {estimate.sem:.2g}' if shown else '')


def interval(estimate: Estimate) -> str:
  """'[-0.0012, +0.0030]': the 95 % interval of a difference; '' where it is unknown."""
  half = estimate.half_width()
  if half is None:
    return ''
  return f'[{signed(estimate.value - half)}, {signed(estimate.value + half)}]'


def signed(value: float) -> str:
  """A difference, with its sign."""
  size = abs(value)
  return ('−' if value < 0 else '+') + (f'{size:.2g}' if 0 < size < 5e-5 else number(size))


def errors(rows: Sequence[Row]) -> list[list[str]]:
  """What ± is in each table: a head, and a line for each table and unit."""
  found: dict[tuple[str, str], list[Row]] = {}
  for row in rows:
    if row.measured is not None and row.sem is not None:
      found.setdefault((row.table, row.over or 'not stated'), []).append(row)
  head = ['table', '± is one standard error over', 'n', 'df of Student’s t']
  return [head] + [
    [table, over, _listed([row.n for row in these]), _listed([_df(row.df) for row in these])]
    for (table, over), these in found.items()
  ]


def _errors_in_words(rows: Sequence[Row]) -> str:
  """'± is one standard error over documents (n 57).': of the rows of one table."""
  _, *lines = errors(rows)
  units = [f'{over} (n {n})' if n else f'units that are {over}' for _, over, n, _ in lines]
  return f'± is one standard error over {"; or over ".join(units)}.' if units else ''


def _df(value: float | None) -> str:
  return '' if value is None else f'{value:.3g}'


def _listed(texts: Sequence[str]) -> str:
  """Different texts, in the order of their numbers: all of a few, else the first and the last."""
  order = lambda text: [float(part) for part in re.findall(r'[\d.]+', text)]
  found = sorted({text for text in texts if text}, key=order)
  return ', '.join(found) if len(found) <= MOST else f'{found[0]} to {found[-1]}'


def number(value: float) -> str:
  """A loss with four decimals, a count without."""
  if value == int(value) and abs(value) >= 2:
    return f'{int(value):,}'
  return f'{value:.4f}' if abs(value) < 100 else f'{value:,.1f}'


def markdown(rows: Sequence[Row], captions: Mapping[str, str] | None = None) -> str:
  """All tables of `rows`: a line for each row name, a column for each quantity, then the notes."""
  return '\n'.join(
    _table(table, [row for row in rows if row.table == table], (captions or {}).get(table, ''))
    for table in dict.fromkeys(row.table for row in rows)
  )


def grid(rows: Sequence[Row]) -> list[list[str]]:
  """The cells of one table's rows: a head, and a line for each row name, marked where lossy."""
  columns = list(dict.fromkeys(row.column for row in rows))
  cells = {(row.row, row.column): cell(row) for row in rows}
  return [['row', *columns]] + [
    [line + mark, *(cells.get((line, column), '') for column in columns)]
    for line, mark in _marks(rows).items()
  ]


def _marks(rows: Sequence[Row]) -> dict[str, str]:
  """Row name -> the mark after it, in the order of the rows."""
  marks = dict.fromkeys((row.row for row in rows), '')
  return marks | {row.row: f' {LOSSY}' for row in rows if row.lossy}


def legend(rows: Sequence[Row]) -> str:
  """What the mark in `grid` says; '' where no row has it."""
  return ABOUT_LOSSY if any(row.lossy for row in rows) else ''


def ruled(cells: Sequence[Sequence[str]]) -> str:
  """A head and lines of cells as a Markdown table, its columns aligned."""
  widths = [max(map(len, column)) for column in zip(*cells)]
  lines = [cells[0], ['-' * width for width in widths], *cells[1:]]
  padded = [[text.ljust(width) for text, width in zip(line, widths)] for line in lines]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in padded)


def _table(table: str, rows: Sequence[Row], caption: str) -> str:
  lines = [f'### {table}', '']
  if words := ' '.join(part for part in (caption, _errors_in_words(rows)) if part):
    lines += [*textwrap.wrap(words, 100), '']
  lines.append(ruled(grid(rows)))
  notes: dict[str, list[str]] = {}
  for row in rows:
    for note in row.note.split('; '):
      if note and note != UNPUBLISHED:
        notes.setdefault(note, []).append(row.row)
  lines += ['', legend(rows), ''] if legend(rows) else ['']
  for note, where in notes.items():
    places = list(dict.fromkeys(where))
    shown = '; '.join(places[:4]) + (f' and {len(places) - 4} more' if len(places) > 4 else '')
    lines.append(f'- {note} ({shown})')
  return '\n'.join(lines) + '\n'
