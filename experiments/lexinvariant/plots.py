# SPDX-License-Identifier: Apache-2.0
"""The pictures of the recipe, from its rows."""

import math
import re
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.lexinvariant import cipher, text
from lib.report import plots, results
from lib.report.results import Row


def draw(rows: Sequence[Row], config: ConfigDict, run: runner.Run) -> list[str]:
  """Writes the pictures of the tables that are there, and names them."""
  pictures = {
    'theory.png': _theory(rows, config),
    'markov.png': _markov(rows, config),
    'context.png': _context(rows, config),
    'cipher.png': _cipher(rows),
    'cipher_keys.png': _keys(config, run),
    'in_context.png': _in_context(rows),
    'regularizer.png': _regularizer(rows, config),
  }
  return plots.save(run.workdir, pictures)


def _numbered(rows: Sequence[Row], table: str, row: str, pattern: str) -> plots.Series:
  """(x, value) of the columns of one row whose name ends in a number that `pattern` finds."""
  found = sorted(
    (int(match[1]), one.measured)
    for one in rows
    if one.table == table and one.row == row and (match := re.fullmatch(pattern, one.column))
    if one.measured is not None
  )
  return [x for x, _ in found], [y for _, y in found]


def _theory(rows: Sequence[Row], config: ConfigDict) -> list[Callable]:
  """Average distance against length, under both bounds, for the smallest and largest alphabet."""
  panels = []
  for size in sorted({min(config.theory.alphabets), max(config.theory.alphabets)}):
    series = {
      label: _numbered(rows, 'theory', f'd={size}', pattern)
      for label, pattern in (
        ('measured, exact Bayes', r'average_l1_at_(\d+)'),
        ('√(2 log d!/T)', r'bound_l1_at_(\d+)'),
        ('paper’s rate (d/T)^¼', r'paper_rate_l1_at_(\d+)'),
      )
    }
    if all(x for x, _ in series.values()):
      series = {label: (x, [math.log10(value) for value in y]) for label, (x, y) in series.items()}
      title = f'Distance of p′ from p, d = {size}'
      panels.append(plots.curves(title, 'T', 'log10 average L1', series, log_x=True))
  return panels


def _markov(rows: Sequence[Row], config: ConfigDict) -> list[Callable]:
  """Perplexity by position for each predictor, and regret against training step."""
  by_position = {}
  for predictor in dict.fromkeys(
    row.row.removeprefix('predictor=')
    for row in rows
    if row.table == 'markov' and 'seed=' not in row.row
  ):
    x, y = _numbered(rows, 'markov', f'predictor={predictor}', r'perplexity_\d+_(\d+)')
    by_position[predictor.replace('_', ' ')] = (x, y)
  if not by_position:
    return []
  regret = {
    f'seed {seed}': _numbered(
      rows, 'markov', f'predictor=lexinvariant,seed={seed}', r'regret_at_step_(\d+)'
    )
    for seed in range(config.seed, config.seed + config.markov.seeds)
  }
  budget = math.lgamma(config.markov.alphabet + 1)
  levels = {'log d!': budget, '2 log d!': 2 * budget}
  return [
    plots.curves(
      f'Perplexity by position, d = {config.markov.alphabet}', 'up to position', 'perplexity',
      by_position, log_x=True,
    ),
    plots.curves('Total regret while training', 'step', 'nats', regret, levels),
  ]  # fmt: skip


def _context(rows: Sequence[Row], config: ConfigDict) -> list[Callable]:
  """Perplexity and relative gap by the window's first symbol, and the way of training."""
  panels = []
  names = dict.fromkeys(row.row for row in rows if row.table == 'context')
  corpora = [row for row in names if 'embedding=' not in row and 'predictor=' not in row]
  for corpus in corpora:
    series = {
      _last(row): _numbered(rows, 'context', row, r'perplexity_at_(\d+)')
      for row in names
      if row.startswith(f'{corpus},') and 'seed=' not in row
    }
    budget = _value(rows, corpus, 'log_v_factorial_nats') / config.text.window
    floor = _numbered(rows, 'context', f'{corpus},embedding=learned', r'perplexity_at_(\d+)')
    # All of log V! within one window, were learned rows as good as the truth.
    series['ideal: at most learned · V!^(1/k)'] = floor[0], [y * math.exp(budget) for y in floor[1]]
    label = f'first symbol of {config.text.window}'
    panels.append(plots.curves(f'Perplexity, {corpus}', label, 'perplexity', series))
  if corpora:
    gap = {
      corpus: _numbered(rows, 'context', corpus, r'relative_gap_at_(\d+)') for corpus in corpora
    }
    panels.append(plots.curves('Gap of random rows', label, 'relative to learned rows', gap))
    way = {
      ' '.join(part.partition('=')[2] for part in row.split(',')): _numbered(
        rows, 'context', row, r'late_perplexity_at_step_([1-9]\d*)'
      )
      for row in names
      if 'seed=' in row
    }
    title = 'Validation perplexity late in the context'
    panels.append(plots.curves(title, 'step', 'perplexity', way))
  return panels


def _cipher(rows: Sequence[Row]) -> list[Callable]:
  """Precision of the keys that each solver finds, by window."""
  names = dict.fromkeys(
    row.row for row in rows if row.table == 'cipher' and row.column == 'precision_at_0'
  )
  by_corpus: dict[str, dict[str, plots.Series]] = {}
  for row in names:
    corpus, solver = row.split(',solver=')
    series = by_corpus.setdefault(corpus, {})
    series[solver] = _numbered(rows, 'cipher', row, r'precision_at_(\d+)')
  return [
    plots.curves(f'Keys of ciphers, {corpus}', 'first symbol of the window', 'precision', series)
    for corpus, series in by_corpus.items()
  ]


def _keys(config: ConfigDict, run: runner.Run) -> list[Callable]:
  """Key matrices by window; the right key is the diagonal."""
  kept = run.workdir / cipher.MATRICES
  if not kept.exists():
    return []
  alphabet = text.ALPHABETS[config.text.vocabularies[0]]
  labels = [chr(byte) for byte in alphabet.replace(b' ', b'_').replace(b'\n', b'/')]
  with np.load(kept) as matrices:
    return [
      plots.matrix(title, values, labels if len(labels) <= 64 else [], 'read as', 'plain symbol')
      for title, values in matrices.items()
    ]


def _in_context(rows: Sequence[Row]) -> list[Callable]:
  """Accuracy of both embeddings next to guessing, by corpus, and of the pair that was trained."""
  panels: dict[str, dict[str, dict[str, float]]] = {}  # title -> who answers -> task -> accuracy
  for row in rows:
    if row.table == 'in_context' and row.column == 'accuracy':
      parts = results.parts(row.row)
      who = parts.get('embedding') or f'guess: {parts["predictor"].replace("_", " ")}'
      task = f'{parts["task"]}\n{parts["symbols"].replace("_", " ")}'
      where = parts.get('data', 'trained on the tasks')
      title = f'{where}, {parts["vocabulary"]}' if 'vocabulary' in parts else where
      panels.setdefault(title, {}).setdefault(who, {})[task] = row.measured or 0.0
  return [
    plots.bars(
      f'In-context tasks, {title}', 'accuracy', list(next(iter(by_who.values()))),
      {who: list(values.values()) for who, values in by_who.items()}, {},
    )
    for title, by_who in panels.items()
  ]  # fmt: skip


def _regularizer(rows: Sequence[Row], config: ConfigDict) -> list[Callable]:
  """What B_p gives and costs by p, and how long trained rows grow."""
  mine = [row for row in rows if row.table == 'regularizer' and row.measured is not None]
  by_column: dict[str, plots.Series] = {}
  for row in mine:
    if match := re.fullmatch(r'embedding=permuted,p=([\d.]+),per=type', row.row):
      x, y = by_column.setdefault(row.column, ([], []))
      cast(list, x).append(float(match[1]))
      cast(list, y).append(row.measured)
  if not by_column:
    return []
  accuracy = {
    column.replace('_accuracy_', ', ').replace('_', ' '): series
    for column, series in by_column.items()
    if '_accuracy_' in column and '_above_chance_' not in column
  }
  seed = f',seed={config.seed}'
  norms = {
    row.removesuffix(seed).removeprefix('embedding='): _numbered(
      rows, 'regularizer', row, r'row_norm_at_step_(\d+)'
    )
    for row in dict.fromkeys(one.row for one in mine if one.row.endswith(seed))
  }
  text_nats = {'B_p per type': by_column['text_nats_per_symbol']}
  return [
    plots.curves('Tasks by how many names are hidden', 'p', 'accuracy', accuracy),
    plots.curves('Text under its own names', 'p', 'nats per symbol', text_nats),
    plots.curves('Length of trained rows', 'step', 'over √width', norms, {'random rows': 1.0}),
  ]


def _last(row: str) -> str:
  return row.rpartition('=')[2].replace('_', ' ')


def _value(rows: Sequence[Row], row: str, column: str) -> float:
  [value] = [one.measured for one in rows if one.row == row and one.column == column]
  return value or 0.0
