# SPDX-License-Identifier: Apache-2.0
"""Published numbers: data files with a source, set beside measured rows of the same scale."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lib.report.results import Row

UNPUBLISHED = 'the paper gives no such number'
UNMEASURED = 'not measured: a model of the paper'
# What a number is evidence of, where it is not printed in the paper itself.
EVIDENCE = {
  '': 'published',
  'derived': 'derived',  # by us, from a formula or from numbers that are printed
  'recalled': 'recalled',  # from memory, not from the text
  'secondary': 'secondary',  # from another work
}
FOLDER = pathlib.Path(__file__).parent / 'published'


def load(paper: str) -> dict[str, Any]:
  """The data of `published/PAPER.json`; none, where there is no such file.

  It holds `paper`, `source` and `entries`, each with table, row, column, value, unit, source and
  `where`: the facts of a run (scale, source parameters) under which the number is comparable. An
  entry that the paper does not print itself has `evidence`, a key of EVIDENCE.
  """
  path = FOLDER / f'{paper}.json'
  return json.loads(path.read_text()) if path.exists() else {'entries': []}


def attach(rows: Sequence[Row], paper: str, facts: Mapping[str, Any]) -> list[Row]:
  """Rows with `published` filled in, and with a note that says what the published number is.

  A published number whose `where` differs from the run's `facts` is kept out of the column and
  named in the note together with the difference.
  """
  entries: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
  for entry in load(paper)['entries']:
    entries.setdefault((entry['table'], entry['row'], entry['column']), []).append(entry)
  return [_beside(row, entries.get((row.table, row.row, row.column), []), facts) for row in rows]


def unmeasured(
  paper: str, table: str, wanted: Callable[[Mapping[str, Any]], bool] = lambda entry: True
) -> list[Row]:
  """Rows for what a paper published of its own models, beside which nothing is measured."""
  return [
    Row(table, entry['row'], entry['column'], None, unit=entry['unit'],
        note='not measured: a model of the paper')
    for entry in load(paper)['entries']
    if entry['table'] == table and wanted(entry)
  ]  # fmt: skip


def _beside(row: Row, entries: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> Row:
  join = lambda note: '; '.join(part for part in (row.note, note) if part)
  for entry in entries:
    where = entry.get('where', {})
    if all(facts.get(key) == value for key, value in where.items()):
      return dataclasses.replace(
        row,
        published=entry['value'],
        evidence=entry.get('evidence', ''),
        note=join(entry['source']),
      )
  for entry in entries:
    scale = ', '.join(f'{key}={value}' for key, value in entry['where'].items())
    word = EVIDENCE[entry.get('evidence', '')]
    note = f'{word} {entry["value"]:g} at {scale} ({entry["source"]}): not this scale'
    return dataclasses.replace(row, note=join(note))
  return dataclasses.replace(row, note=join(UNPUBLISHED))
