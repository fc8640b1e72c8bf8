# SPDX-License-Identifier: Apache-2.0
"""Perplexity against position on text: trained rows and fresh random ones (Figures 3 and 7)."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments import fit
from experiments.lexinvariant import decoders, text_models
from experiments.lexinvariant.markov import bins
from experiments.recipe import Pictures, Run, Table
from lib import stats
from lib.evals.sequences import token_nats
from lib.report import plots
from lib.report.plots import EMBEDDINGS, Picture
from lib.report.results import Row, Rows, select, series
from lib.stats import Estimate
from lib.tasks.markov import renaming

COUNTING = ('counting_unigram', 'counting_bigram')  # in context, by their order
LEARNED, RANDOM = (('embedding', kind) for kind in decoders.EMBEDDINGS)
LAW = ('predictor', 'law')
# (embedding or predictor, its name) -> nats [S, N, T] of S models; S = 1 where none is trained.
Scores = dict[tuple[str, str], np.ndarray]


def measure(config: ConfigDict, run: Run) -> Rows:
  """Trains a pair of models for each corpus, vocabulary and seed; all score the same test text."""
  rows, options = Rows('context'), config.text
  for place, corpus in enumerate(text_models.corpora(config)):
    held = text_models.held_out(corpus, 'test', options.length, options.test_sequences)
    scores: Scores = {}
    for kind in decoders.EMBEDDINGS:
      trained = dict(zip(fit.seeds(config, options), text_models.train(config, run, corpus, kind)))
      if place == 0:  # the corpus that the rate is chosen on
        fit.add_rate(rows, {'embedding': kind}, options, trained[config.seed].rate)
      scores['embedding', kind] = np.stack(
        [token_nats(one.model, held.ids, seed) for seed, one in trained.items()]
      )
      for seed, one in trained.items():
        for step, value in one.curve('validation/late_perplexity').items():
          where = corpus.where | {'embedding': kind, 'seed': seed}
          rows.add(where, f'late_perplexity_at_step_{step}', value)
    if corpus.alphabet:
      for order, predictor in enumerate(COUNTING):
        counted = renaming.counting_nats(held.ids, corpus.tokenizer.vocab_size, order)
        scores['predictor', predictor] = counted[None]
    if (exact := text_models.law_nats(corpus, held.ids)) is not None:
      scores[LAW] = exact[None]
    rows += of_scores(config, corpus, scores, held.documents)
  return rows


def of_scores(
  config: ConfigDict, corpus: text_models.Corpus, scores: Scores, documents: np.ndarray
) -> Rows:
  """All rows of a corpus, whose sequences are of `documents` [N].

  Standard errors are over documents, and for trained models also over seeds; with one seed that
  part is unknown.
  """
  rows, options, where = Rows('context'), config.text, corpus.where
  mean = lambda values: stats.crossed(stats.over_groups(values, documents))
  untrained = lambda values: stats.mean(stats.over_groups(values[0], documents), 'documents')
  for key, nats in scores.items():
    estimate = mean if key in (LEARNED, RANDOM) else untrained
    _add_by_position(rows, where | dict([key]), options, nats, estimate)
  learned, random = scores[LEARNED], scores[RANDOM]
  note = text_models.epochs_note(config, corpus.source, corpus.vocabulary)
  _add_gap(rows, where, options, learned, random, documents, note)
  for key in [key for key in scores if key[1] in COUNTING]:
    counted = np.repeat(scores[key], len(learned), axis=0)
    _add_gap(rows, where | dict([key]), options, learned, counted, documents)
    saved = counted - random
    for place, part in (
      ('first', saved[..., : options.window]),
      ('last', saved[..., -options.window :]),
    ):
      column = f'nats_below_{key[1]}_{place}'
      note = f'per symbol, in the {place} window of {options.window}'
      rows.add(where | dict([RANDOM]), column, mean(part.mean(-1)), 'nats', note)
  note = 'total of nats above learned rows; an ideal predictor needs at most log V!'
  regret = mean((random - learned).sum(axis=-1))
  rows.add(where, f'regret_nats_over_{options.length}', regret, 'nats', note)
  most = renaming.log_permutations(corpus.tokenizer.vocab_size)
  rows.add(where, 'log_v_factorial_nats', most, 'nats')
  if LAW in scores:
    note = f'total over {options.length} symbols above the exact law of the text'
    for key in (LEARNED, RANDOM):
      regret = mean((scores[key] - scores[LAW]).sum(axis=-1))
      rows.add(where | dict([key]), 'regret_nats', regret, 'nats', note)
  return rows


def starts(length: int, window: int) -> list[int]:
  """First symbols of the windows, counted from 1: the paper's, and the last that fits."""
  last = length - window + 1
  return [start for start in (1, 25, 50, *range(100, length, 100)) if start < last] + [last]


def _windows(nats: np.ndarray, options: ConfigDict) -> dict[int, np.ndarray]:
  """Perplexity [S, N] of each window of nats [S, N, T], by its first symbol."""
  return {
    start: np.exp(nats[..., start - 1 : start - 1 + options.window].mean(axis=-1))
    for start in starts(options.length, options.window)
  }


def _add_by_position(
  rows: Rows,
  where: Mapping[str, str],
  options: ConfigDict,
  nats: np.ndarray,
  estimate: Callable[[np.ndarray], Estimate],
) -> None:
  """Perplexities of models from nats [S, N, T]."""
  note = f'mean over sequences of windows of {options.window} symbols'
  for start, values in _windows(nats, options).items():
    rows.add(where, f'perplexity_at_{start}', estimate(values), note=note)
  for start, end in bins(options.length):
    rows.add(where, f'perplexity_{start}_{end}', np.exp(nats[..., start:end].mean()))
  # Perplexities of single symbols are not averaged: a few outliers would dominate the mean.
  found = estimate(nats[..., -1])
  value = float(np.exp(found.value))
  found = found._replace(value=value, sem=None if found.sem is None else value * found.sem)
  column = f'perplexity_at_context_{options.length - 1}'
  rows.add(where, column, found, note='of the last symbol alone')


def _add_gap(
  rows: Rows,
  where: Mapping[str, str],
  options: ConfigDict,
  learned: np.ndarray,
  other: np.ndarray,
  documents: np.ndarray,
  aside: str = '',
) -> None:
  """How far a predictor is behind learned rows, by window; scores are nats [S, N, T]."""
  places = starts(options.length, options.window)
  windows = [one for nats in (learned, other) for one in _windows(nats, options).values()]
  sums = np.stack([stats.by_group(values, documents) for values in windows], axis=-1)

  def gap(at: int) -> Callable[[np.ndarray], float]:
    return lambda total: total[len(places) + at] / total[at] - 1

  last = len(places) - 1
  gaps = [stats.jackknife(gap(at), sums) for at in range(len(places))]
  note = '; '.join(filter(None, ('mean perplexity above that of learned rows, relative', aside)))
  for start, found in zip(places, gaps):
    rows.add(where, f'relative_gap_at_{start}', found, 'ratio', note)
  note = f'the window at {places[-1]}'
  rows.add(where, 'relative_gap_at_last_window', gaps[-1], 'ratio', note)
  shrinks = stats.jackknife(lambda total: gap(0)(total) / gap(last)(total), sums)
  note = f'relative gap at {places[0]} over that at {places[-1]}'
  rows.add(where, 'gap_shrinks_by', shrinks, 'ratio', note)


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Perplexity and relative gap by the window's first symbol, and the way of training."""
  places = [row.where for row in rows if row.table == 'context']
  places = [dict(one) for one in dict.fromkeys(tuple(where.items()) for where in places)]
  label = f'first symbol of a window of {config.text.window}'
  panels, gaps, ways = [], {}, {}
  for corpus in select(rows, 'context', 'log_v_factorial_nats'):
    title, curves = ', '.join(corpus.where.values()), {}
    for where in [where for where in places if corpus.where.items() < where.items()]:
      last = EMBEDDINGS.get(where.get('embedding', ''), [*where.values()][-1].replace('_', ' '))
      if 'seed' in where:
        way = series(rows, 'context', r'late_perplexity_at_step_([1-9]\d*)', where)
        ways[f'{last}, {title}'] = way
      else:
        curves[last] = series(rows, 'context', r'perplexity_at_(\d+)', where)
    # All of log V! within one window, if learned rows were perfect.
    factor = math.exp((corpus.measured or 0.0) / config.text.window)
    most = [
      (x, dataclasses.replace(row, measured=factor * (row.measured or 0.0), sem=None))
      for x, row in curves[EMBEDDINGS['learned']]
    ]
    curves['ideal: at most trained rows · V!^(1/window)'] = most
    axes = {'log_y': True}
    panels.append(plots.row_curves(f'Text: {title}', label, 'perplexity', curves, **axes))
    gaps[title] = series(rows, 'context', r'relative_gap_at_(\d+)', corpus.where)
  y_label = 'relative to trained rows'
  panels.append(plots.row_curves('Gap of random rows', label, y_label, gaps))
  title = 'Late in the context, while training'
  panels.append(plots.row_curves(title, 'training step', 'validation perplexity', ways))
  caption = (
    'Perplexity of held-out text by position in the context: trained rows, fresh random rows for '
    'each sequence, and counting in the sequence. Bars: one standard error over sequences.'
  )
  return {'context.png': Picture(caption, panels)}


TABLE = Table(
  'context',
  measure,
  'Perplexity against position on held-out text: the same decoder with trained rows and with fresh '
  'random ones for each sequence, next to counting within the sequence. Renaming costs an ideal '
  'predictor at most log V! nats in all. Training and test rows have one length. The BOS token is '
  'read and never predicted; its vector is trained. On endless text regret_nats is the loss above '
  'the exact law of the text.',
  (
    'learning_rate',
    'perplexity_at_1',
    'perplexity_at_157',
    'relative_gap_at_1',
    'relative_gap_at_last_window',
    'gap_shrinks_by',
    'nats_below_counting_bigram_last',
    'regret_nats_over_256',
    'regret_nats',
    'log_v_factorial_nats',
  ),
  check=text_models.check,
  pictures=pictures,
  train_specs=text_models.train_specs,
  sources=text_models.read,
  descriptions=text_models.describe,
)
