# SPDX-License-Identifier: Apache-2.0
"""The plots of the Markov experiment, drawn from its rows and metrics alone."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments import runner
from experiments.markov import transformer
from experiments.markov.streams import make_source
from lib import stats
from lib.report import plots, results
from lib.report.results import Row
from lib.train import metrics

PER_CHAR = 'nats per character'
STROKES = {'characters': '--', 'bpe': '-'}


def draw(rows: Sequence[Row], config: ConfigDict, run: runner.Run) -> list[str]:
  """Draws the plots whose tables are there; returns their file names."""
  pictures = {
    'token_ngram.png': _dictionary_size(rows, config),
    'bound.png': _bound(rows),
    'transformer.png': _learning_curves(rows, config, run),
    'gain.png': _gain(rows, config),
    'real_text.png': _real_text(rows, config),
  }
  return plots.save(run.workdir, pictures)


def _select(rows: Sequence[Row], table: str, column: str, **where: Any) -> list[tuple[dict, Row]]:
  """(fields, row) of the measured rows of a table and column that match `where`."""
  found = []
  for row in rows:
    if row.table == table and row.column == column and row.measured is not None:
      parts = results.parts(row.row)
      if all(parts.get(key) == str(value) for key, value in where.items()):
        found.append((parts, row))
  return found


@dataclasses.dataclass
class Curves:
  """Series for a panel, with the errors of their points."""

  series: dict[str, plots.Series] = dataclasses.field(default_factory=dict)
  errors: dict[str, plots.Errors] = dataclasses.field(default_factory=dict)

  def add(self, label: str, rows: Sequence[Row], table: str, column: str, **where: Any) -> None:
    """A curve over the dictionary size, if there is a row for it."""
    found = sorted(
      ((int(parts['d']), row) for parts, row in _select(rows, table, column, **where)),
      key=lambda point: point[0],
    )
    if found:
      self.series[label] = [d for d, _ in found], [row.measured or 0.0 for _, row in found]
      self.errors[label] = [row.sem for _, row in found]

  def panel(self, title: str, y_label: str, levels: dict[str, float]) -> Callable:
    """The panel, over a logarithmic axis of sizes."""
    x_label = 'dictionary size d (± one standard error)'
    return plots.curves(
      title, x_label, y_label, self.series, levels, log_x=True, errors=self.errors
    )


def _dictionary_size(rows, config) -> list[Callable]:
  """Loss against dictionary size, a panel for each order."""
  panels = []
  for k in config.orders:
    found, table = Curves(), 'token_ngram'
    for tokenizer, encoders in (('bpe', ('merges', 'greedy', 'minimal')), ('lzw', ('greedy',))):
      for encoder in encoders:
        where = {'k': k, 'tokenizer': tokenizer, 'encoder': encoder}
        label = f'{tokenizer.upper()}, {encoder}: unigram'
        found.add(label, rows, table, 'unigram_nats_per_char', **where)
    if not found.series:
      continue
    where = {'k': k, 'tokenizer': 'bpe', 'encoder': 'merges'}
    found.add('BPE, merges: bigram', rows, table, 'bigram_nats_per_char', **where)
    where = {'k': k, 'tokenizer': 'lzw', 'encoder': 'greedy'}
    label = 'bound for LZW, where not vacuous'
    found.add(label, rows, table, 'bound_nats_per_char', **where)
    source = make_source(config, k)
    levels = {'entropy rate H∞': source.entropy_rate, 'character unigram': source.ngram_loss(0)}
    panels.append(found.panel(f'order k = {k}', PER_CHAR, levels))
  return panels


def _bound(rows) -> list[Callable]:
  """LZW, the toy tokenizer and the bound, a panel for each p."""
  panels = []
  labels = dict.fromkeys(results.parts(row.row)['p'] for row in rows if row.table == 'bound')
  for p in labels:
    found = Curves()
    for label, column in (
      ('LZW, exact for each dictionary', 'lzw'),
      ('fixed blocks, closed form', 'toy'),
      ('bound H∞/(1−ε), where not vacuous', 'bound'),
    ):
      found.add(label, rows, 'bound', f'{column}_nats_per_char', p=p)
    rate = _select(rows, 'bound', 'entropy_rate_nats_per_char', p=p)[0][1].measured or 0.0
    panels.append(found.panel(f'order 1, p = {p}', PER_CHAR, {'entropy rate H∞': rate}))
  return panels


def _learning_curves(rows, config, run) -> list[Callable]:
  """Validation loss by step and by seconds of training, a pair of panels for each p and tying."""
  panels = []
  measured = any(row.table == 'transformer' for row in rows)
  arms = transformer.arms(config) if measured else []
  for p, tied in dict.fromkeys((arm['p'], arm['tied']) for arm in arms):
    by_step, by_second, styles, errors = {}, {}, {}, {}
    for arm in (arm for arm in arms if (arm['p'], arm['tied']) == (p, tied)):
      history = metrics.read(run.workdir / 'metrics.jsonl', transformer.run_name(arm))
      lines = transformer.evaluated(history)
      over_seeds = [stats.mean(line['validation/nats_per_byte']) for line in lines]
      loss = [found.value for found in over_seeds]
      label = f'{arm["tokenizer"]}, k = {arm["k"]}'
      color = f'C{list(config.orders).index(arm["k"])}'
      styles[label] = {'color': color, 'linestyle': STROKES[arm['tokenizer']]}
      errors[label] = [found.sem for found in over_seeds]
      by_step[label] = ([line['step'] for line in lines], loss)
      by_second[label] = ([line['seconds'] for line in lines], loss)
    source = make_source(config, config.orders[0], p)
    levels = {'entropy rate H∞': source.entropy_rate, 'character unigram': source.ngram_loss(0)}
    title = f'p = q = {p}, {"tied" if tied else "untied"}' if p else config.source.kind
    draw_curves = functools.partial(plots.curves, styles=styles, errors=errors)
    x_labels = 'step (± one standard error)', 'seconds of training, all seeds'
    panels += [
      draw_curves(title, x_labels[0], PER_CHAR, by_step, levels),
      draw_curves(f'{title}: by time', x_labels[1], PER_CHAR, by_second, levels),
    ]
  return panels


def _gain(rows, config) -> list[Callable]:
  """What each model gains over the one before it: token unigram, token bigram, network."""
  p, tied = config.transformer.probabilities[0], config.transformer.tied[0]
  where = {'tied': tied} | ({'p': p} if config.source.kind == 'switching' else {})
  gains: dict[str, list[float]] = {}
  errors: dict[str, list[float | None]] = {}
  for k in config.orders:
    level = lambda column, tokenizer: [
      row.estimate
      for parts, row in _select(rows, 'transformer', column, k=k, tokenizer=tokenizer, **where)
      if 'seed' not in parts and row.estimate
    ]  # fmt: skip
    columns = ('unigram_nats_per_char', 'bigram_nats_per_char', 'above_bigram_nats_per_char')
    found = [level(column, 'bpe') for column in columns]
    alone = level('nats_per_char', 'characters')
    if not (all(found) and alone):
      return []
    (unigram,), (bigram,), (above,) = found
    start = stats.Estimate(make_source(config, k, p).ngram_loss(0), 0.0)
    for label, gain in {
      'unigram over tokens, over a unigram of characters': stats.difference(start, unigram),
      'bigram over tokens, over their unigram': stats.difference(unigram, bigram),
      'transformer over tokens, over their bigram': above.times(-1),
      'transformer over characters, over their unigram': stats.difference(start, alone[0]),
    }.items():
      gains.setdefault(label, []).append(gain.value)
      errors.setdefault(label, []).append(gain.sem)
  source = make_source(config, config.orders[0], p)
  levels = {'all there is to gain': source.ngram_loss(0) - source.entropy_rate}
  groups = [f'k = {k}' for k in config.orders]
  title = f'The gain split: BPE-{config.transformer.vocab_size}, or characters'
  return [plots.bars(title, PER_CHAR, groups, gains, levels, errors)]


def _real_text(rows, config) -> list[Callable]:
  """Unigram loss against dictionary size, with character m-grams as levels."""
  found = Curves()
  names = {'bpe': 'BPE (within words)', 'unigram': 'Unigram', 'wordpiece': 'WordPiece'}
  for tokenizer, label in names.items():
    label = f'unigram over {label} tokens'
    found.add(label, rows, 'real_text', 'bits_per_byte', tokenizer=tokenizer)
  levels = {
    f'bytes, {parts["order"]}-byte context': row.measured or 0.0
    for parts, row in _select(rows, 'real_text', 'bits_per_byte', tokenizer='bytes')
  }
  if not found.series:
    return []
  return [found.panel(f'{config.data.source}, held-out documents', 'bits per byte', levels)]
