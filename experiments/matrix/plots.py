# SPDX-License-Identifier: Apache-2.0
"""The pictures of the recipe: the grid as heat maps and against its costs, budget, Markov table."""

from collections.abc import Callable, Mapping, Sequence

from ml_collections import ConfigDict

from experiments import runner
from experiments.matrix import budget, grid, markov, tokens
from experiments.matrix.cells import BITS, GAIN
from lib.report import plots
from lib.report.results import LOSSY, Row, name

UNRANKED = f'{LOSSY} not lossless, not ranked'


def draw(rows: Sequence[Row], config: ConfigDict, run: runner.Run) -> list[str]:
  """Writes the pictures of the tables that are there, and names them."""
  pictures = {
    'matrix.png': _heat(rows, config),
    'pareto.png': _pareto(rows, config),
    'budget.png': _budget(rows),
    'markov.png': _markov(rows, config),
  }
  return plots.save(run.workdir, pictures)


def _column(rows: Sequence[Row], table: str, column: str) -> dict[str, Row]:
  return {
    row.row: row
    for row in rows
    if (row.table, row.column) == (table, column) and row.measured is not None
  }


def _labels(rows: Sequence[Row], config: ConfigDict) -> dict[str, str]:
  """Label of each tokenizer of the grid -> what pictures call it."""
  lossy = {row.row for row in rows if row.table == grid.TOKENIZERS and row.lossy}
  labels = tokens.labels(config.grid.tokenizers).values()
  return {label: label + LOSSY * (name(tokenizer=label) in lossy) for label in labels}


def _heat(rows: Sequence[Row], config: ConfigDict) -> list[Callable]:
  """Gains and bits per byte of all cells."""
  labels, embeddings = _labels(rows, config), config.grid.embeddings
  legend = UNRANKED if any(shown.endswith(LOSSY) for shown in labels.values()) else ''
  panels = []
  for column, title, unit in (
    (GAIN, 'What a model gains over a unigram', 'bits per byte below the unigram'),
    (BITS, 'Every tokenizer under every embedding', 'bits per byte'),
  ):
    found = _column(rows, grid.GRID, column)
    cells = [[_value(found, grid.row_of(label, kind)) for kind in embeddings] for label in labels]
    if any(value is not None for line in cells for value in line):
      panels.append(plots.heat_map(title, cells, [*labels.values()], embeddings, unit, legend))
  return panels


def _value(found: Mapping[str, Row], row: str) -> float | None:
  return found[row].measured if row in found else None


def _pareto(rows: Sequence[Row], config: ConfigDict) -> list[Callable]:
  """Bits per byte against FLOPs a byte."""
  bits, costs = (_column(rows, grid.GRID, column) for column in (BITS, 'mflops_per_byte'))
  labels = _labels(rows, config)
  points: dict[str, dict[str, tuple[float, float]]] = {}
  for kind in config.grid.embeddings:
    for label, shown in labels.items():
      row = grid.row_of(label, kind)
      cost, value = _value(costs, row), _value(bits, row)
      if cost is not None and value is not None:
        points.setdefault(kind, {})[shown] = (cost, value)
  if not points:
    return []
  unranked = [shown for shown in labels.values() if shown.endswith(LOSSY)]
  title = 'Bits and cost of a byte, at equal FLOPs of training'
  x_label = 'MFLOP to read a byte' + f' ({UNRANKED})' * bool(unranked)
  return [plots.trade(title, x_label, 'bits per byte', points, unranked)]


def _budget(rows: Sequence[Row]) -> list[Callable]:
  """Bits per byte of the unigram and of the models, with errors."""
  groups = [*_column(rows, budget.TABLE, 'times')]
  if not groups:
    return []
  labels = {'unigram_bits_per_byte': 'unigram over its tokens', BITS: 'model, learned rows'}
  series, errors = {}, {}
  for column, label in labels.items():
    found = _column(rows, budget.TABLE, column)
    series[label] = [found[row].measured or 0.0 for row in groups]
    errors[label] = [found[row].sem for row in groups]
  [times] = {row.measured for row in _column(rows, budget.TABLE, 'times').values()}
  names = [row.removeprefix('tokenizer=') for row in groups]
  title = f'At {times:g} times the FLOPs of the grid'
  return [plots.bars(title, 'bits per byte', names, series, {}, errors)]


def _markov(rows: Sequence[Row], config: ConfigDict) -> list[Callable]:
  """Nats a character above the entropy rate, a panel for each order."""
  above = _column(rows, markov.TABLE, 'above_entropy_rate_nats_per_char')
  panels = []
  for order in config.orders:
    begin = f'{name(k=order)},'
    found = {
      row.removeprefix(begin).replace('tokenizer=', '').replace(',', ', '): cell
      for row, cell in above.items()
      if row.startswith(begin)
    }
    if found:
      values = {label: cell.measured or 0.0 for label, cell in found.items()}
      errors = {label: cell.sem for label, cell in found.items()}
      title, label = f'Order {order}', 'nats per character above H∞'
      panels.append(plots.ranked(title, label, values, {}, '%.4f', errors))
  return panels
