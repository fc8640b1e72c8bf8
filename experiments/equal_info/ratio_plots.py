# SPDX-License-Identifier: Apache-2.0
"""Plots of the tables ratio and uniformity, from their rows alone."""

from collections.abc import Callable, Mapping, Sequence

from experiments.coders import Method
from experiments.equal_info.m2_plots import LOSSY
from lib.report import plots, results
from lib.report.results import Row


def draw(rows: Sequence[Row]) -> dict[str, list[Callable]]:
  """Panels of each picture; none where its table is not there."""
  return {'ratio.png': _ratio(rows), 'uniformity.png': _uniformity(rows)}


def _label(fields: Mapping[str, str]) -> str:
  """The tokenizer of a row, marked if it does not give every text back."""
  return fields['method'] + LOSSY * (not Method(fields['method'], None).lossless)


def _ratio(rows: Sequence[Row]) -> list[Callable]:
  """Bytes a token by method, a panel for each vocabulary, up to what M1 allows."""
  found: dict[str, dict[str, float]] = {}
  most = None
  for row in rows:
    if row.table == 'ratio' and row.column == 'bytes_per_token' and row.measured is not None:
      fields = results.parts(row.row)
      if fields['method'] == 'm1':
        most = row.measured
      else:
        found.setdefault(fields.get('v', 'of its own'), {})[_label(fields)] = row.measured
  panels = []
  for vocabulary, values in found.items():
    bits = {'256': 8, '65536': 16}.get(vocabulary)
    levels = {'the most that M1 allows': most * bits / 8} if most and bits else {}
    title = f'vocabulary {vocabulary}'
    panels.append(plots.ranked(title, 'bytes per token', values, levels))
  return panels


def _uniformity(rows: Sequence[Row]) -> list[Callable]:
  """KL divergence to uniform by counts alone, and what as many random bytes show."""
  cells = {(row.row, row.column): row.measured for row in rows if row.table == 'uniformity'}
  panels = []
  for kind, title in (('ngrams', 'strings at every bit'), ('tokens', 'strings end to end')):
    series: dict[str, tuple[list[float], list[float]]] = {}
    random: tuple[list[float], list[float]] = ([], [])
    for (row, column), value in cells.items():
      fields = results.parts(row)
      if column == 'kl_bits' and value and fields['kind'] == kind:
        x, y = series.setdefault(_label(fields), ([], []))
        x.append(int(fields['n']))
        y.append(value)
        if fields['method'] == 'ac':
          random[0].append(int(fields['n']))
          random[1].append(value - (cells[row, 'kl_bits_corrected'] or 0.0))
    if series:
      series['random bytes, as many as of ac'] = random
      styles = {'random bytes, as many as of ac': {'color': '0.35', 'linestyle': '--'}}
      label = 'KL divergence to uniform by counts, bits'
      panels.append(plots.curves(title, 'bits n', label, series, log_y=True, styles=styles))
  return panels
