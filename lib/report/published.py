# SPDX-License-Identifier: Apache-2.0
"""Published numbers: data files with a source, shown with measured rows of the same scale."""

import dataclasses
import fnmatch
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from lib.report.results import Row, coordinates

UNPUBLISHED = 'the paper gives no such number'
# The origin of a number that the paper does not print.
EVIDENCE = {
  '': 'published',
  'derived': 'derived',  # by us, from a formula or from numbers that are printed
  'recalled': 'recalled',  # from memory, not from the text
  'secondary': 'secondary',  # from another work
}
FOLDER = pathlib.Path(__file__).parent / 'published'


def load(paper: str) -> dict[str, Any]:
  """The data of `published/PAPER.json`; empty if there is no such file.

  It has `paper`, `source` and `entries`, each with table, row, column, value, unit, source and
  `where`: the facts of a run (scale, source parameters) under which the number is comparable. An
  entry that the paper does not print has `evidence`, a key of EVIDENCE.
  """
  path = FOLDER / f'{paper}.json'
  return json.loads(path.read_text()) if path.exists() else {'entries': []}


def attach(rows: Sequence[Row], paper: str, facts: Mapping[str, Any]) -> list[Row]:
  """Rows with `published` filled in, and with a note on the published number.

  A published number whose `where` differs from the run's `facts` is kept out of the column and
  named in the note together with the difference.
  """
  entries: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
  for entry in load(paper)['entries']:
    entries.setdefault((entry['table'], entry['row'], entry['column']), []).append(entry)
  return [_beside(row, entries.get((row.table, row.row, row.column), []), facts) for row in rows]


def unmeasured(paper: str) -> list[Row]:
  """Rows for published numbers of a paper's own models or settings, which no recipe measures.

  `unmeasured` in the paper's file says which: reason -> patterns of addresses.
  """
  data, rows = load(paper), []
  reasons = [(why, form) for why, forms in data.get('unmeasured', {}).items() for form in forms]
  for entry in data['entries']:
    place = entry['table'], entry['row'], entry['column']
    why = [why for why, form in reasons if fnmatch.fnmatchcase(' / '.join(place), form)]
    if why:
      note = f'not measured: {why[0]}'
      where = coordinates(entry['row'])
      rows.append(Row(entry['table'], where, entry['column'], None, unit=entry['unit'], note=note))
  return rows


def _beside(row: Row, entries: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> Row:
  join = lambda note: '; '.join(part for part in (row.note, note) if part)
  for entry in entries:
    value, where, source = entry['value'], entry.get('where', {}), entry['source']
    if all(facts.get(key) == value for key, value in where.items()):
      if isinstance(value, str):  # such as the bits of a code
        return dataclasses.replace(row, note=join(f'published {value} ({source})'))
      evidence = entry.get('evidence', '')
      return dataclasses.replace(row, published=value, evidence=evidence, note=join(source))
  for entry in entries:
    scale = ', '.join(f'{key}={value}' for key, value in entry['where'].items())
    value = entry['value'] if isinstance(entry['value'], str) else f'{entry["value"]:g}'
    word = EVIDENCE[entry.get('evidence', '')]
    note = f'{word} {value} at {scale} ({entry["source"]}): not this scale'
    return dataclasses.replace(row, note=join(note))
  return dataclasses.replace(row, note=join(UNPUBLISHED))
