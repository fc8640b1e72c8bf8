# SPDX-License-Identifier: Apache-2.0
"""Rows as Markdown tables: measured numbers with their errors, and published numbers."""

import csv
import dataclasses
import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence

from lib.report.page import ruled
from lib.report.published import EVIDENCE, UNPUBLISHED
from lib.report.results import ABOUT_LOSSY, FIELDS, LOSSY, Row, as_line
from lib.stats import Estimate

SMALLEST = 5e-5  # below it, four decimals show nothing
MOST = 4  # most different numbers of units that are all listed
YES_OR_NO = 'yes/no'  # the unit of values that are 1 or 0
COUNTS = {'bytes', 'characters', 'documents', 'ids', 'letters', 'operations', 'pairs',
          'parameters', 'rank', 'rows', 'steps', 'texts', 'tokens'}  # units  # fmt: skip


def cell(row: Row) -> str:
  """'0.5004 ± 0.0003 (published 0.5004)'; a dash if nothing was measured."""
  if row.estimate is None:
    return '–'
  text = with_error(row.estimate, row.unit)
  if row.published is not None:
    text += f' ({EVIDENCE[row.evidence]} {printed(row.published, row.unit)})'
  return text


def with_error(estimate: Estimate, unit: str = '') -> str:
  """'0.5004 ± 0.0003': a value with one standard error, if it has one."""
  sem = estimate.sem or 0.0  # below 1e-9 the spread is rounding
  return number(estimate.value, unit, sem) + (f' ± {_error(sem)}' if sem > 1e-9 else '')


def _error(sem: float) -> str:
  return '<0.0001' if sem < SMALLEST else number(sem, sem=sem)


def interval(estimate: Estimate) -> str:
  """'[−0.0012, +0.0030]': the 95 % interval of a difference; '' if it is unknown."""
  half = estimate.half_width()
  if half is None:
    return ''
  ends = (estimate.value - half, estimate.value + half)
  return f'[{", ".join(signed(end, sem=estimate.sem) for end in ends)}]'


def signed(value: float, unit: str = '', sem: float | None = None) -> str:
  """A difference, with its sign."""
  text = number(value, '' if unit == YES_OR_NO else unit, sem)
  return text if value < 0 else f'+{text}'


def errors(rows: Sequence[Row]) -> list[list[str]]:
  """The meaning of ± in each table: a header, and a row for each table and unit."""
  found: dict[tuple[str, str], list[Row]] = {}
  for row in rows:
    if row.measured is not None and row.sem is not None:
      found.setdefault((row.table, row.over or 'not stated'), []).append(row)
  head = ['table', '± is one standard error over', 'n', 'df of Student’s t']
  return [head] + [
    [table, over, _listed([row.n for row in these]), _listed([_df(row.df) for row in these])]
    for (table, over), these in found.items()
  ]


def errors_in_words(rows: Sequence[Row]) -> str:
  """'± is one standard error over documents (n 57).': of the rows of one table."""
  _, *lines = errors(rows)
  units = [f'{over} (n {n})' if n else f'units that are {over}' for _, over, n, _ in lines]
  return f'± is one standard error over {"; or over ".join(units)}.' if units else ''


def _df(value: float | None) -> str:
  return '' if value is None else f'{value:.3g}'


def _listed(texts: Sequence[str]) -> str:
  """Different texts in numerical order: all if they are few, otherwise the first and the last."""
  order = lambda text: [float(part) for part in re.findall(r'[\d.]+', text)]
  found = sorted({text for text in texts if text}, key=order)
  return ', '.join(found) if len(found) <= MOST else f'{found[0]} to {found[-1]}'


def number(value: float, unit: str = '', sem: float | None = None) -> str:
  """A number as text: four decimals, a power of ten if it is tiny, a count, or yes or no.

  With a standard error `sem` it has as many decimals as two digits of the error, at most four.
  """
  if unit == YES_OR_NO:
    return 'yes' if value else 'no'
  if sem and sem >= SMALLEST:
    text = f'{value:,.{min(4, max(0, 1 - math.floor(math.log10(sem))))}f}'
  elif value == int(value) and (unit in COUNTS or abs(value) >= 2):
    text = f'{int(value):,}'
  elif 0 < abs(value) < SMALLEST:
    text = f'{value:.2g}'
  else:
    text = f'{value:.4f}' if abs(value) < 100 else f'{value:,.1f}'
  return f'−{text[1:]}' if text[0] == '-' else text


def printed(value: float, unit: str = '') -> str:
  """A number as a paper prints it: at most four decimals, and none that are zeros at the end."""
  text = number(value, unit)
  return text.rstrip('0').rstrip('.') if '.' in text and 'e' not in text else text


def markdown(rows: Sequence[Row], captions: Mapping[str, str] | None = None) -> str:
  """All tables of `rows`: a line for each row, a column for each quantity, then the notes."""
  return '\n'.join(
    _table(table, [row for row in rows if row.table == table], (captions or {}).get(table, ''))
    for table in dict.fromkeys(row.table for row in rows)
  )


def grid(rows: Sequence[Row]) -> list[list[str]]:
  """The cells of one table: a header, and a line for each row, marked if lossy."""
  columns = list(dict.fromkeys(row.column for row in rows))
  cells = {(row.row, row.column): cell(row) for row in rows}
  return [['row', *columns]] + [
    [line.replace(',', ', ') + mark, *(cells.get((line, column), '') for column in columns)]
    for line, mark in _marks(rows).items()
  ]


def _marks(rows: Sequence[Row]) -> dict[str, str]:
  """Row name -> the mark after it, in the order of the rows."""
  marks = dict.fromkeys((row.row for row in rows), '')
  return marks | {row.row: f' {LOSSY}' for row in rows if row.lossy}


def legend(rows: Sequence[Row]) -> str:
  """The explanation of the mark in `grid`; '' if no row has it."""
  return ABOUT_LOSSY if any(row.lossy for row in rows) else ''


def _table(table: str, rows: Sequence[Row], caption: str) -> str:
  lines = [f'### {table}', '']
  if words := ' '.join(part for part in (caption, errors_in_words(rows)) if part):
    lines += [*textwrap.wrap(words, 100), '']
  lines.append(ruled(grid(rows)))
  lines += ['', legend(rows), ''] if legend(rows) else ['']
  lines += [f'- {note}' for note in notes(rows)]
  return '\n'.join(lines) + '\n'


def notes(rows: Sequence[Row]) -> list[str]:
  """The notes of a table's rows: '`nats`: as the paper (k=1; k=2 and 3 more)'."""
  found: dict[str, dict[str, list[str]]] = {}  # note -> column -> rows
  for row in rows:
    for note in row.note.split('; '):
      if note and note != UNPUBLISHED:
        found.setdefault(note, {}).setdefault(row.column, []).append(row.row)
  lines = []
  for note, columns in found.items():
    where = list(dict.fromkeys(row for some in columns.values() for row in some))
    listed = _few([f'`{column}`' for column in columns], ', ')
    everywhere = len(where) == len({row.row for row in rows})
    lines.append(f'{listed}: {note}' + ('' if everywhere else f' ({_few(where, "; ")})'))
  return lines


def _few(texts: Sequence[str], mark: str) -> str:
  more = len(texts) - MOST
  return mark.join(texts[:MOST]) + (f' and {more} more' if more > 0 else '')


def narrow(rows: Sequence[Row], width: int = 80, lines: int = 12) -> str:
  """Tables for a terminal: limited columns and lines, without notes and published numbers."""
  by_table = [
    [row for row in rows if row.table == table]
    for table in dict.fromkeys(row.table for row in rows)
  ]
  return '\n\n'.join(_narrow(some, width, lines) for some in by_table) + '\n'


def _narrow(rows: Sequence[Row], width: int, lines: int) -> str:
  """One table; coordinates that all rows share are in its title."""
  places = list({row.row: row for row in rows}.values())
  keys = list(dict.fromkeys(key for row in places for key in row.where))
  alike = [key for key in keys if len({row.where.get(key) for row in places}) == 1]
  title = [rows[0].table, *(f'{key}={places[0].where[key]}' for key in alike)]
  marked = any(row.lossy for row in rows)
  fields = [
    [key, *(row.where.get(key, '') for row in places[:lines])] for key in keys if key not in alike
  ] + [['', *(LOSSY * row.lossy for row in places[:lines])]] * marked
  shown = [[*map(str.ljust, field, [max(map(len, field))] * len(field))] for field in fields]
  left = [' '.join(parts) for parts in zip(*shown)] or [''] * (1 + len(places[:lines]))
  left = [text if len(text) <= width // 2 else text[: width // 2 - 1] + '…' for text in left]
  found = {(row.row, row.column): cell(dataclasses.replace(row, published=None)) for row in rows}
  columns = list(dict.fromkeys(row.column for row in rows))
  head, body = [left[0]], left[1:]
  used, more = 0, 0
  for column in columns:
    texts = [found.get((row.row, column), '') for row in places[:lines]]
    name = textwrap.wrap(column.replace('_', ' '), max(9, *map(len, texts)))
    size = max(map(len, (*name, *texts)))
    if len(body[0]) + 2 + size > width and used:
      more += 1
      continue
    used += 1
    blank, high = ' ' * len(head[-1]), max(len(head), len(name))
    head = [blank] * (high - len(head)) + head
    above = [''] * (high - len(name)) + name
    head = [line + '  ' + text.rjust(size) for line, text in zip(head, above)]
    body = [line + '  ' + text.rjust(size) for line, text in zip(body, texts)]
  rest = [f'{len(places) - lines} more rows'] * (len(places) > lines)
  rest += [f'{more} more column{"s" * (more > 1)}'] * (more > 0)
  told = [f'({" and ".join(rest)}: tables/{rows[0].table}.csv)'] * bool(rest)
  return '\n'.join(line.rstrip() for line in ('  '.join(title), *head, *body, *told))


def as_csv(rows: Sequence[Row]) -> str:
  """The rows of one table as CSV, one per line, with a field for each coordinate."""
  keys = list(dict.fromkeys(key for row in rows for key in row.where))
  fields = [field for field in FIELDS if field not in ('table', 'row')]
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow([*keys, *fields])
  for row in rows:
    line = as_line(row)
    line = {key: '' if value is None else value for key, value in line.items()}
    writer.writerow([*(row.where.get(key, '') for key in keys), *(line[one] for one in fields)])
  return text.getvalue()
