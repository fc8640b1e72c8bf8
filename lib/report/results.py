# SPDX-License-Identifier: Apache-2.0
"""The results of a run: rows of measured numbers, and the file results.json."""

import dataclasses
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lib import atomic, provenance
from lib.errors import InputError
from lib.provenance import Identity
from lib.stats import Estimate

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'numba',
            'tensorflow-datasets', 'sentencepiece', 'tokenizers')  # fmt: skip
LOSSY = '†'  # marks rows of tokenizers that are not lossless, in every table
ABOUT_LOSSY = (
  f'{LOSSY} The tokenizer does not restore every text, so its bits per byte are too low.'
)


@dataclasses.dataclass(frozen=True)
class Row:
  """One number of one table.

  Attributes:
    table: stable name of the table.
    where: the row's coordinates, name -> value, such as {'k': 2}; each value is kept as text.
    column: the quantity with its unit, such as nats_per_char.
    measured: the value, or None (`note` gives the reason).
    sem: standard error of the value, or None.
    published: the paper's value at the same scale, or None.
    unit: unit of the value.
    note: how to read the number; what the published one is, or why there is none.
    n: number of independent units of the error: '57', or '3×57' for seeds × documents.
    over: the kind of these units, such as 'documents' or 'seeds×documents'.
    df: degrees of freedom of Student's t; None if no rule can be tested.
    evidence: origin of the published number if the paper does not print it: a key of
      lib.report.published.EVIDENCE.
    lossy: the row is about a tokenizer that is not lossless. Tables mark it with LOSSY, and
      it is never called the best.
  """

  table: str
  where: Mapping[str, Any]
  column: str
  measured: float | None
  sem: float | None = None
  published: float | None = None
  unit: str = ''
  note: str = ''
  n: str = ''
  over: str = ''
  df: float | None = None
  evidence: str = ''
  lossy: bool = False

  def __post_init__(self) -> None:
    where = {key: str(value) for key, value in self.where.items()}
    object.__setattr__(self, 'where', where)

  @classmethod
  def of(
    cls, table: str, where: Mapping[str, Any], column: str, estimate: Estimate, **rest: Any
  ) -> 'Row':
    """A row with the value and the error of an estimate; `rest` is unit and note."""
    value, sem, n, over, df = estimate
    return cls(table, where, column, value, sem, n=n, over=over, df=df, **rest)

  @property
  def row(self) -> str:
    """The coordinates as results.json has them: `name=value` pairs joined by commas."""
    return name(**self.where)

  @property
  def estimate(self) -> Estimate | None:
    """The measured value with its error; None if nothing was measured."""
    if self.measured is None:
      return None
    return Estimate(self.measured, self.sem, self.n, self.over, self.df)


def name(**parts: Any) -> str:
  """A row name: `name(k=2, r=8)` is 'k=2,r=8'."""
  return ','.join(f'{key}={value}' for key, value in parts.items())


def coordinates(row: str) -> dict[str, str]:
  """The coordinates of a row in a file: 'k=2,r=8' is {'k': '2', 'r': '8'}.

  A comma that no `name=` follows belongs to the value, as in 'of=bhts,bshk->bhtk'.
  """
  return dict(part.split('=', 1) for part in re.split(',(?=[^,=]+=)', row)) if row else {}


class Rows(list[Row]):
  """The rows of one table, in the order in which they are measured.

  Args:
    table: its name.
    lossy: coordinates, such as {'tokenizer': 'bpe'} -> whether that tokenizer is not lossless.
  """

  def __init__(self, table: str, lossy: Callable[[Mapping[str, str]], bool] = lambda where: False):
    super().__init__()
    self.table, self.lossy = table, lossy

  def add(
    self,
    where: Mapping[str, Any],
    column: str,
    found: Estimate | float | None,
    unit: str = '',
    note: str = '',
  ) -> None:
    """Adds a number: an estimate with its error, a plain value, or None."""
    if not isinstance(found, Estimate):
      found = Estimate(found, None)  # type: ignore[arg-type]
    row = Row.of(self.table, where, column, found, unit=unit, note=note)
    self.append(dataclasses.replace(row, lossy=self.lossy(row.where)))

  def add_loss(
    self,
    where: Mapping[str, Any],
    what: str,
    nats: Estimate | float,
    note: str = '',
    per: str = 'char',
  ) -> None:
    """Adds a loss in nats and in bits per character or byte; `what` names it ('' = the loss)."""
    found = nats if isinstance(nats, Estimate) else Estimate(nats)
    prefix = f'{what}_' if what else ''
    self.add(where, f'{prefix}nats_per_{per}', found, f'nats/{per}', note)
    self.add(where, f'{prefix}bits_per_{per}', found.times(1 / math.log(2)), f'bits/{per}')


def select(rows: Sequence[Row], table: str, column: str, **where: Any) -> list[Row]:
  """The measured rows of a table and column that have these coordinates, among others."""
  wanted = {key: str(value) for key, value in where.items()}.items()
  return [
    row
    for row in rows
    if (row.table, row.column) == (table, column)
    and row.measured is not None
    and wanted <= row.where.items()
  ]


def cells_of(rows: Sequence[Row], table: str) -> list[tuple[Mapping[str, str], dict[str, Row]]]:
  """The coordinates of each row of a table, and column -> its measured row."""
  found: dict[str, tuple[Mapping[str, str], dict[str, Row]]] = {}
  for row in rows:
    if row.table == table and row.measured is not None:
      found.setdefault(row.row, (row.where, {}))[1][row.column] = row
  return [*found.values()]


def series(
  rows: Sequence[Row], table: str, pattern: str, where: Mapping[str, Any]
) -> list[tuple[float, Row]]:
  """The measured columns of one row whose names contain a number, by that number.

  Args:
    rows: of any tables.
    table: its name.
    pattern: of the columns, a regular expression whose group is the number.
    where: all coordinates of the row.
  """
  exact = {key: str(value) for key, value in where.items()}
  found = [
    (float(match[1]), row)
    for row in rows
    if (row.table, row.where) == (table, exact) and row.measured is not None
    if (match := re.fullmatch(pattern, row.column))
  ]
  return sorted(found, key=lambda point: point[0])


def as_json(content: Any) -> str:
  """A value as JSON text; NaN and infinity are errors."""
  return json.dumps(content, indent=1, allow_nan=False) + '\n'


def write_json(path: str | os.PathLike, content: Any) -> None:
  """Writes JSON atomically: a reader sees the old or the new file, never a partial one."""
  atomic.write(path, as_json(content))


FIELDS = (
  'table', 'row', 'column', 'measured', 'sem', 'n', 'over', 'df', 'published', 'evidence', 'unit',
  'note', 'lossy',
)  # fmt: skip


def as_line(row: Row) -> dict[str, Any]:
  """The row as a mapping for results.json."""
  number = lambda x: None if x is None or not math.isfinite(x) else float(x)
  values = dataclasses.asdict(row) | {'row': row.row}
  values |= {key: number(values[key]) for key in ('measured', 'sem', 'published', 'df')}
  return {field: values[field] for field in FIELDS}


def from_json(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
  """The rows of a file; raises KeyError, TypeError or ValueError for invalid rows."""
  fields = [dict(row) for row in rows]
  return [Row(where=coordinates(one.pop('row')), **one) for one in fields]


def write_rows(
  path: str | os.PathLike,
  rows: Sequence[Row],
  seconds: float,
  identity: Identity,
  made: Mapping[str, str],
) -> None:
  """Writes the rows of a finished table, so that a restart does not repeat it.

  `made` is what `lib.provenance.measured` returned, with 'resumed' if `seconds` are of its end
  alone.
  """
  lines = [as_line(row) for row in rows]
  write_json(path, {'identity': identity, 'seconds': seconds, 'made': dict(made), 'rows': lines})


def read_rows(path: str | os.PathLike) -> dict[str, Any]:
  """Reads what `write_rows` wrote: {'identity', 'seconds', 'made', 'rows'}.

  Raises:
    InputError: a damaged file.
  """
  try:
    content = json.loads(pathlib.Path(path).read_text())
    return {
      'identity': dict(content['identity']),
      'seconds': float(content['seconds']),
      'made': dict(content['made']),
      'rows': from_json(content['rows']),
    }
  except (KeyError, TypeError, ValueError, RecursionError) as error:
    raise InputError(
      f'{path} is damaged ({error}): delete it, and its table is measured again.'
    ) from error


def content(
  rows: Sequence[Row],
  *,
  experiment: str,
  config: Mapping[str, Any],
  overrides: Mapping[str, Any],
  devices: Sequence[str],
  seconds: Mapping[str, float],
  made: Mapping[str, Mapping[str, str]] | None = None,
  pictures: Mapping[str, str] | None = None,
) -> dict[str, Any]:
  """The content of results.json: rows, with the config, code, versions and devices of the run.

  `seconds` is the time of measuring each table, and `made` how it was measured, as `write_rows`
  takes it; by default all was measured now. `pictures` are PNG files with their captions.
  """
  versions = {package: importlib.metadata.version(package) for package in PACKAGES}
  return {
    'experiment': experiment,
    **provenance.about(),
    'config': dict(config),
    'overrides': dict(overrides),
    'versions': {'python': platform.python_version()} | versions,
    'devices': list(devices),
    'seconds': round(sum(seconds.values()), 1),
    'seconds_by_table': {table: round(one, 1) for table, one in seconds.items()},
    'made': made or {table: provenance.measured() for table in seconds},
    'pictures': dict(pictures or {}),
    'rows': [as_line(row) for row in rows],
  }


def write_results(path: str | os.PathLike, rows: Sequence[Row], **about: Any) -> None:
  """Writes results.json: the `content` of rows."""
  write_json(path, content(rows, **about))
