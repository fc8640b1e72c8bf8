# SPDX-License-Identifier: Apache-2.0
"""The pictures of the tables, drawn from their rows; tables that were not run have no panel."""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence

from experiments import coders
from lib.report import plots
from lib.report.plots import Picture
from lib.report.results import Row, cells_of

LOSSY = ' (lossy)'  # after the name of a tokenizer that is not lossless
RANDOM = 'random bytes, as many as of ac'
BITS = {'256': 8, '65536': 16}  # of a token, by vocabulary


def label(where: Mapping[str, str]) -> str:
  """The tokenizer of a row, such as 'greedy16, v=256 (lossy)'."""
  shown = [where['method'], *([f'v={where["v"]}'] if 'v' in where else [])]
  return ', '.join(shown) + LOSSY * coders.lossy(where)


def _by_step(cells: Mapping[str, Row], column: str) -> plots.Points:
  """(step, row) of the columns `column`_at_step_N."""
  return [
    (float(match[1]), row)
    for name, row in cells.items()
    if (match := re.fullmatch(rf'{column}_at_step_(\d+)', name))
  ]


def _grouped(points: Sequence[tuple[str, float, Row]]) -> dict[str, list[tuple[float, Row]]]:
  """Points by name, from (name, x, row)."""
  found: dict[str, list[tuple[float, Row]]] = {}
  for name, x, row in points:
    found.setdefault(name, []).append((x, row))
  return found


def ratio(rows: Sequence[Row]) -> Picture:
  """Bytes per token by method, a panel for each vocabulary, with the limit given by M1."""
  found: dict[str, dict[str, Row]] = {}
  most = None
  for where, cells in cells_of(rows, 'ratio'):
    if where.get('method') == 'm1':
      most = cells['bytes_per_token'].measured
    elif 'bytes_per_token' in cells:
      shown = where['method'] + LOSSY * coders.lossy(where)
      found.setdefault(where.get('v', ''), {})[shown] = cells['bytes_per_token']
  panels = []
  for vocabulary, named in found.items():
    bits = BITS.get(vocabulary)
    levels = {'the most that M1 allows': most * bits / 8} if most and bits else {}
    size = f'Tokens of {bits} bits' if bits else 'Vocabularies of their own'
    panels.append(plots.ranked(size, 'bytes per token', named, levels))
  caption = (
    'How many bytes of held-out text a token covers, by tokenizer. Bars: one standard error over '
    'documents.'
  )
  return Picture(caption, panels)


def uniformity(rows: Sequence[Row]) -> Picture:
  """KL divergence from uniform, uncorrected, and that of as many random bytes."""
  panels = []
  for kind, title in (('ngrams', 'Strings at every bit'), ('tokens', 'Strings end to end')):
    points = []
    for where, cells in cells_of(rows, 'uniformity'):
      row = cells.get('kl_bits')
      if where['kind'] == kind and row and row.measured:
        n = int(where['n'])
        points.append((where['method'] + LOSSY * coders.lossy(where), n, row))
        if where['method'] == 'ac':
          value = row.measured - (cells['kl_bits_corrected'].measured or 0.0)
          points.append((RANDOM, n, dataclasses.replace(row, measured=value, sem=None)))
    if points:
      axes = 'bits n of a string', 'KL divergence to uniform, bits'
      panels.append(plots.row_curves(title, *axes, _grouped(points), log_y=True))
  caption = (
    'How far strings of n bits of the coded text are from random ones, by counts alone; what as '
    'many random bytes show is the least that can be seen.'
  )
  return Picture(caption, panels)


def m2(rows: Sequence[Row]) -> Picture:
  """Bits per byte against FLOPs per byte; M2 next to models that read no context."""
  every = [(label(where), found) for where, found in cells_of(rows, 'm2') if 'budget' not in where]
  if not every:
    return Picture('', [])
  value = lambda found, column: found[column].measured or 0.0
  points = _grouped(
    [(name, value(found, 'mflops_per_byte'), found['bits_per_byte']) for name, found in every]
  )
  x_label, y_label = 'MFLOP to read a byte, M1 counted as in the paper', 'bits per byte'
  panels = [plots.row_curves('M2 by the cost of a byte', x_label, y_label, points, log_x=True)]
  first = dict(reversed(every))
  names = [*first][::-1]
  unigram = 'unigram_bits_per_byte'
  bars = {
    'uniform': [first[name]['uniform_bits_per_byte'] for name in names],
    'unigram': [first[name][unigram] for name in names],
    'unigram of whole windows': [_window_unigram(first[name]) for name in names],
    'M2': [first[name]['bits_per_byte'] for name in names],
  }
  panels.append(plots.row_bars('M2 and models that read no context', y_label, names, bars, {}))
  caption = (
    'Bits per byte of the language model M2 over each kind of tokens of held-out text. Of tokens '
    'that are no windows, the unigram of windows is that of tokens. Bars: one standard error over '
    'seeds and documents.'
  )
  return Picture(caption, panels)


def _window_unigram(cells: Mapping[str, Row]) -> Row:
  """The better unigram over whole windows; for tokenizers without such windows, that over
  tokens.
  """
  columns = 'window_unigram_bits_per_byte', 'window_unigram_bits_per_byte_whole_corpus'
  found = [cells[column] for column in columns if column in cells]
  return min(found or [cells['unigram_bits_per_byte']], key=lambda row: row.measured or 0.0)


def windows(rows: Sequence[Row]) -> Picture:
  """The gap to uniform by width, and accuracy by position and step for each width."""
  cells = cells_of(rows, 'windows')
  whole = [(where, found) for where, found in cells if 'position' not in where]
  if not whole:
    return Picture('', [])
  gap = _grouped(
    [(f'{where["v"]} ids', int(where['b']), found['gap_bits_per_token']) for where, found in whole]
  )
  title, unit = 'What M2 learns of a token', 'bits below uniform'
  panels = [plots.row_curves(title, 'bits of a window', unit, gap, log_x=True)]
  of = lambda where: {key: value for key, value in where.items() if key != 'position'}
  parts = [(where, found) for where, found in cells if 'position' in where]
  for key, group in itertools.groupby(parts, lambda part: of(part[0])):
    series = {
      f'token {where["position"]} of the window': _by_step(found, 'accuracy')
      for where, found in group
    }
    title = f'Windows of {key["b"]} bits ({key["mode"]}), {key["v"]} ids{LOSSY * coders.lossy(key)}'
    panels.append(plots.row_curves(title, 'training step', 'accuracy', series))
  caption = 'How much of a token M2 learns, by the width of windows and by the place in a window.'
  return Picture(caption, panels)


def decompress(rows: Sequence[Row]) -> Picture:
  """Accuracy on the text's bytes while training, and at the end by half of the text."""
  cells = [
    ('control: no tokens' if where['method'] == 'none' else label(where), found)
    for where, found in cells_of(rows, 'decompress')
  ]
  if not cells:
    return Picture('', [])
  series = {arm: _by_step(found, 'accuracy') for arm, found in cells}
  bars = {
    arm: [found['accuracy_first_half'], found['accuracy_second_half']] for arm, found in cells
  }
  halves = ['first half of the text', 'second half']
  y_label = 'share of bytes that are right'
  panels = [
    plots.row_curves('Validation texts, while training', 'training step', y_label, series),
    plots.row_bars('Test texts, after training', y_label, halves, bars, {}),
  ]
  caption = (
    'A decoder that reads the tokens and writes the text, next to one that gets no tokens. Bars: '
    'one standard error over seeds and texts.'
  )
  return Picture(caption, panels)
