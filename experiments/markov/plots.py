# SPDX-License-Identifier: Apache-2.0
"""The plots of the Markov experiment, drawn from its rows and metrics alone."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.markov import transformer
from experiments.markov.streams import make_source
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


def _select(rows: Sequence[Row], table: str, column: str, **where: Any) -> list[tuple[dict, float]]:
  """(fields, measured) of the rows of a table and column that match `where`."""
  found = []
  for row in rows:
    if row.table == table and row.column == column and row.measured is not None:
      parts = results.parts(row.row)
      if all(parts.get(key) == str(value) for key, value in where.items()):
        found.append((parts, row.measured))
  return found


def _by_size(rows, table, column, **where) -> plots.Series:
  points = sorted(
    (int(parts['d']), value) for parts, value in _select(rows, table, column, **where)
  )
  return [d for d, _ in points], [value for _, value in points]


def _dictionary_size(rows, config) -> list[Callable]:
  """Loss against dictionary size, a panel for each order."""
  panels = []
  for k in config.orders:
    series = {}
    for tokenizer, encoders in (('bpe', ('merges', 'greedy', 'minimal')), ('lzw', ('greedy',))):
      for encoder in encoders:
        where = {'k': k, 'tokenizer': tokenizer, 'encoder': encoder}
        x, y = _by_size(rows, 'token_ngram', 'unigram_nats_per_char', **where)
        if x:
          series[f'{tokenizer.upper()}, {encoder}: unigram'] = (x, y)
    if not series:
      continue
    where = {'k': k, 'tokenizer': 'bpe', 'encoder': 'merges'}
    series['BPE, merges: bigram'] = _by_size(rows, 'token_ngram', 'bigram_nats_per_char', **where)
    where = {'k': k, 'tokenizer': 'lzw', 'encoder': 'greedy'}
    x, y = _by_size(rows, 'token_ngram', 'bound_nats_per_char', **where)
    if x:
      series['bound for LZW, where not vacuous'] = (x, y)
    source = make_source(config, k)
    levels = {'entropy rate H∞': source.entropy_rate, 'character unigram': source.ngram_loss(0)}
    panels.append(
      plots.curves(f'order k = {k}', 'dictionary size d', PER_CHAR, series, levels, log_x=True)
    )
  return panels


def _bound(rows) -> list[Callable]:
  """LZW, the toy tokenizer and the bound, a panel for each p."""
  panels = []
  labels = dict.fromkeys(results.parts(row.row)['p'] for row in rows if row.table == 'bound')
  for p in labels:
    series = {
      'LZW, measured': _by_size(rows, 'bound', 'lzw_nats_per_char', p=p),
      'fixed blocks, closed form': _by_size(rows, 'bound', 'toy_nats_per_char', p=p),
      'bound H∞/(1−ε), where not vacuous': _by_size(rows, 'bound', 'bound_nats_per_char', p=p),
    }
    rate = _select(rows, 'bound', 'entropy_rate_nats_per_char', p=p)[0][1]
    title = f'order 1, p = {p}'
    levels = {'entropy rate H∞': rate}
    panels.append(plots.curves(title, 'dictionary size d', PER_CHAR, series, levels, log_x=True))
  return panels


def _learning_curves(rows, config, run) -> list[Callable]:
  """Validation loss by step and by seconds of training, a pair of panels for each p and tying."""
  panels = []
  measured = any(row.table == 'transformer' for row in rows)
  arms = transformer.arms(config) if measured else []
  for p, tied in dict.fromkeys((arm['p'], arm['tied']) for arm in arms):
    by_step, by_second, styles = {}, {}, {}
    for arm in (arm for arm in arms if (arm['p'], arm['tied']) == (p, tied)):
      history = metrics.read(run.workdir / 'metrics.jsonl', transformer.run_name(arm))
      lines = transformer.evaluated(history)
      loss = [float(np.mean(line['validation/nats_per_byte'])) for line in lines]
      label = f'{arm["tokenizer"]}, k = {arm["k"]}'
      color = f'C{list(config.orders).index(arm["k"])}'
      styles[label] = {'color': color, 'linestyle': STROKES[arm['tokenizer']]}
      by_step[label] = ([line['step'] for line in lines], loss)
      by_second[label] = ([line['seconds'] for line in lines], loss)
    source = make_source(config, config.orders[0], p)
    levels = {'entropy rate H∞': source.entropy_rate, 'character unigram': source.ngram_loss(0)}
    title = f'p = q = {p}, {"tied" if tied else "untied"}' if p else config.source.kind
    panels += [
      plots.curves(title, 'step', PER_CHAR, by_step, levels, styles=styles),
      plots.curves(
        f'{title}: by time',
        'seconds of training, all seeds',
        PER_CHAR,
        by_second,
        levels,
        styles=styles,
      ),
    ]
  return panels


def _gain(rows, config) -> list[Callable]:
  """What each model gains over the one before it: token unigram, token bigram, network."""
  p, tied = config.transformer.probabilities[0], config.transformer.tied[0]
  where = {'tied': tied} | ({'p': p} if config.source.kind == 'switching' else {})
  gains: dict[str, list[float]] = {}
  for k in config.orders:
    level = lambda column, tokenizer: [
      value
      for parts, value in _select(
        rows, 'transformer', column, k=k, tokenizer=tokenizer, **where
      )
      if 'seed' not in parts
    ]  # fmt: skip
    losses = [level(f'{what}nats_per_char', 'bpe') for what in ('unigram_', 'bigram_', '')]
    alone = level('nats_per_char', 'characters')
    if not (all(losses) and alone):
      return []
    (unigram,), (bigram,), (network,) = losses
    start = make_source(config, k, p).ngram_loss(0)
    for label, gain in {
      'unigram over tokens, over a unigram of characters': start - unigram,
      'bigram over tokens, over their unigram': unigram - bigram,
      'transformer over tokens, over their bigram': bigram - network,
      'transformer over characters, over their unigram': start - alone[0],
    }.items():
      gains.setdefault(label, []).append(gain)
  source = make_source(config, config.orders[0], p)
  levels = {'all there is to gain': source.ngram_loss(0) - source.entropy_rate}
  groups = [f'k = {k}' for k in config.orders]
  title = f'The gain split: BPE-{config.transformer.vocab_size}, or characters'
  return [plots.bars(title, PER_CHAR, groups, gains, levels)]


def _real_text(rows, config) -> list[Callable]:
  """Unigram loss against dictionary size, with character m-grams as levels."""
  series = {}
  for tokenizer, label in (('bpe', 'BPE'), ('unigram', 'Unigram'), ('wordpiece', 'WordPiece')):
    x, y = _by_size(rows, 'real_text', 'bits_per_byte', tokenizer=tokenizer)
    if x:
      series[f'unigram over {label} tokens'] = (x, y)
  levels = {
    f'bytes, {parts["order"]}-byte context': value
    for parts, value in _select(rows, 'real_text', 'bits_per_byte', tokenizer='bytes')
  }
  if not series:
    return []
  title = f'{config.data.source}, held-out documents'
  return [plots.curves(title, 'dictionary size d', 'bits per byte', series, levels, log_x=True)]
