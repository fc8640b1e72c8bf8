# SPDX-License-Identifier: Apache-2.0
"""What an earlier run recorded: tables that are not measured again stay, with their provenance."""

import json
import pathlib
from collections.abc import Mapping, Sequence

from lib.errors import refused
from lib.report import results
from lib.report.results import Row

Made = Mapping[str, Mapping[str, str]]  # table -> how it was measured


def join(
  path: pathlib.Path, rows: Sequence[Row], made: Made, order: Sequence[str]
) -> tuple[list[Row], dict[str, Mapping[str, str]]]:
  """Rows and provenance of all tables: those measured now, and the others of the file.

  Args:
    path: of speed.json, which may be missing.
    rows: measured now.
    made: how they were measured.
    order: of the tables.

  Raises:
    InputError: another file.
  """
  every, old = [*rows], dict[str, Mapping[str, str]]()
  if path.exists():
    with refused(f'{path} has no recorded speeds: delete it'):
      content = json.loads(path.read_text())
      every += [row for row in results.from_json(content['rows']) if row.table not in made]
      unknown = {'machine': content['devices'][0]}
      old = {row.table: unknown for row in every} | content.get('made', {})
  kept = {table: of for table, of in (old | dict(made)).items() if table in order}
  return sorted(every, key=lambda row: order.index(row.table)), kept


def captions(texts: Mapping[str, str], made: Made) -> dict[str, str]:
  """The captions of tables, each with when and on what machine it was measured."""
  when = lambda one: (
    f'on {one["date"]} at commit {one["commit"][:12] or "unknown"}'
    if 'date' in one
    else 'at an earlier commit, which was not recorded,'
  )
  return {
    table: f'{texts[table]} Measured {when(one)} on {one["machine"]}.'
    for table, one in made.items()
  }
