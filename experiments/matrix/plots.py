# SPDX-License-Identifier: Apache-2.0
"""The pictures of the recipe: the grid as a heat map and against its costs; the Markov table."""

from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from experiments import runner
from experiments.matrix import grid, markov, tokens
from lib.report import plots
from lib.report.results import Row, name


def draw(rows: Sequence[Row], config: ConfigDict, run: runner.Run) -> list[str]:
  """Writes the pictures of the tables that are there, and names them."""
  pictures = {
    'matrix.png': _heat(rows, config),
    'pareto.png': _pareto(rows, config),
    'markov.png': _markov(rows, config),
  }
  return plots.save(run.workdir, pictures)


def _column(rows: Sequence[Row], table: str, column: str) -> dict[str, float | None]:
  return {row.row: row.measured for row in rows if (row.table, row.column) == (table, column)}


def _heat(rows: Sequence[Row], config: ConfigDict) -> list[Callable]:
  """Bits per byte of all cells."""
  bits = _column(rows, grid.GRID, 'bits_per_byte')
  names, embeddings = config.grid.tokenizers, config.grid.embeddings
  cells = [[bits.get(grid.row_of(token, kind)) for kind in embeddings] for token in names]
  if not any(value is not None for line in cells for value in line):
    return []
  lines = [tokens.label(token) for token in names]
  return [plots.heat_map('Every tokenizer under every embedding', cells, lines, embeddings,
                         'bits per byte')]  # fmt: skip


def _pareto(rows: Sequence[Row], config: ConfigDict) -> list[Callable]:
  """Bits per byte against FLOPs a byte."""
  bits = _column(rows, grid.GRID, 'bits_per_byte')
  costs = _column(rows, grid.GRID, 'mflops_per_byte')
  points: dict[str, dict[str, tuple[float, float]]] = {}
  for kind in config.grid.embeddings:
    for token in config.grid.tokenizers:
      row = grid.row_of(token, kind)
      cost, value = costs.get(row), bits.get(row)
      if cost is not None and value is not None:
        points.setdefault(kind, {})[tokens.label(token)] = (cost, value)
  if not points:
    return []
  title = 'Bits and cost of a byte, at equal FLOPs of training'
  return [plots.trade(title, 'MFLOP to read a byte', 'bits per byte', points)]


def _markov(rows: Sequence[Row], config: ConfigDict) -> list[Callable]:
  """Nats a character above the entropy rate, a panel for each order."""
  above = _column(rows, markov.TABLE, 'above_entropy_rate_nats_per_char')
  panels = []
  for order in config.orders:
    begin = f'{name(k=order)},'
    values = {
      row.removeprefix(begin).replace('tokenizer=', '').replace(',', ', '): value
      for row, value in above.items()
      if row.startswith(begin) and value is not None
    }
    if values:
      panels.append(plots.ranked(f'Order {order}: unigram over tokens',
                                 'nats per character above H∞', values, {}, '%.4f'))  # fmt: skip
  return panels
