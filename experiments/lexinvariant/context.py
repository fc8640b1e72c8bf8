# SPDX-License-Identifier: Apache-2.0
"""Perplexity against position on text: trained rows beside fresh random ones (Figures 3 and 7)."""

from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.lexinvariant import models, text
from experiments.lexinvariant.markov import bins
from lib.evals import renaming
from lib.report.results import Row, mean_and_sem, name


def check(config: ConfigDict) -> None:
  """Raises InputError for text or models that cannot be had."""
  text.check(config)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Trains a pair of models a corpus and vocabulary, and scores both on the same test text."""
  rows = []
  for corpus in text.corpora(config):
    ids = text.held_out(corpus, 'test', config.text.test_length, config.text.test_sequences)
    scores: dict[str, list[np.ndarray]] = {}
    histories: dict[str, list[list[dict]]] = {}
    for kind in models.EMBEDDINGS:
      scores[kind], histories[kind] = [], []
      for seed in text.seeds(config):
        trained = text.fit(config, run, corpus, kind, seed)
        scores[kind].append(models.scorer(trained.model, corpus.vocab_size)(trained.variables, ids))
        histories[kind].append(trained.history)
        rows += _curve(corpus, kind, seed, trained.history)
    for kind, nats in scores.items():
      rows += _by_position(f'{corpus.row},{name(embedding=kind)}', config, nats)
    if corpus.alphabet:
      for order, predictor in enumerate(('counting_unigram', 'counting_bigram')):
        counted = renaming.counting_nats(ids, corpus.vocab_size, order)
        rows += _by_position(f'{corpus.row},{name(predictor=predictor)}', config, [counted])
    gap = _gap(corpus, config, scores['learned'], scores['lexinvariant'])
    first_gap = next(row.measured for row in gap if row.column.startswith('relative_gap_at_'))
    rows += [*gap, *_estimate(corpus, config, histories, first_gap or 0.0)]
  return rows


def starts(length: int, window: int) -> list[int]:
  """First symbols of the windows, counted from 1: the paper's, and the last that fits."""
  last = length - window + 1
  return [start for start in (1, 25, 50, *range(100, length, 100)) if start < last] + [last]


def _windows(nats: np.ndarray, length: int, window: int) -> dict[int, np.ndarray]:
  """Perplexity [N] of each window of nats [N, T], by its first symbol."""
  return {
    start: np.exp(nats[:, start - 1 : start - 1 + window].mean(axis=1))
    for start in starts(length, window)
  }


def _by_position(row: str, config: ConfigDict, nats: list[np.ndarray]) -> list[Row]:
  """Perplexities of models [seeds] from nats [N, T]; the error is over sequences."""
  options = config.text
  mean = np.mean(nats, axis=0)
  note = f'mean over {len(mean)} sequences of windows of {options.window}; error over sequences'
  rows = []
  for start, values in _windows(mean, options.test_length, options.window).items():
    value, sem = mean_and_sem(values.tolist())
    rows.append(Row('context', row, f'perplexity_at_{start}', value, sem, note=note))
  for start, end in bins(options.test_length):
    rows.append(Row('context', row, f'perplexity_{start}_{end}', np.exp(mean[:, start:end].mean())))
  # Perplexities of single symbols are not averaged: a few surprises would be all of the mean.
  nats_last, sem = mean_and_sem(mean[:, -1].tolist())
  value = np.exp(nats_last)
  error = None if sem is None else value * sem
  column = f'perplexity_at_context_{options.test_length - 1}'
  return [*rows, Row('context', row, column, value, error, note='of the last symbol alone')]


def _gap(
  corpus: text.Corpus, config: ConfigDict, learned: list[np.ndarray], random: list[np.ndarray]
) -> list[Row]:
  """How far random rows are behind, at the start and at the end, and in all."""
  options, row = config.text, corpus.row
  gaps = []  # of each pair of seeds: relative gap by window
  for one, other in zip(learned, random, strict=True):
    below, above = (_windows(x, options.test_length, options.window) for x in (one, other))
    gaps.append({start: above[start].mean() / below[start].mean() - 1 for start in below})
  rows = []
  for start in gaps[0]:
    value, sem = mean_and_sem([gap[start] for gap in gaps])
    note = 'mean perplexity above that of learned rows, relative; error over seeds'
    rows.append(
      Row('context', row, f'relative_gap_at_{start}', value, sem, unit='ratio', note=note)
    )
  first, last = min(gaps[0]), max(gaps[0])
  value, sem = mean_and_sem([gap[first] / gap[last] for gap in gaps])
  rows.append(Row('context', row, 'gap_shrinks_by', value, sem, unit='ratio',
                  note=f'relative gap at {first} over that at {last}'))  # fmt: skip
  regret = np.mean(random, axis=0) - np.mean(learned, axis=0)
  value, sem = mean_and_sem(regret.sum(axis=1).tolist())
  budget = renaming.log_permutations(corpus.vocab_size)
  late = regret[:, -options.window :].mean()
  return [
    *rows,
    Row('context', row, f'regret_nats_over_{options.test_length}', value, sem, unit='nats',
        note='total of nats above learned rows; an ideal predictor needs at most log V!'),
    Row('context', row, 'log_v_factorial_nats', budget, unit='nats'),
    Row('context', row, 'late_regret_nats_per_symbol', late, unit='nats',
        note=f'over the last {options.window} symbols: not ambiguity but what was not learned'),
  ]  # fmt: skip


def _curve(corpus: text.Corpus, kind: str, seed: int, history: list[dict]) -> list[Row]:
  """Validation perplexity late in the context, by training step."""
  row = f'{corpus.row},{name(embedding=kind, seed=seed)}'
  return [
    Row('context', row, f'late_perplexity_at_step_{line["step"]}', line[key])
    for line in history
    if (key := 'validation/late_perplexity') in line
  ]


SHRINKING = 3  # times: what one would like to see of the gap from first to last window


def _estimate(
  corpus: text.Corpus, config: ConfigDict, histories: dict[str, list[list[dict]]], first_gap: float
) -> list[Row]:
  """How many training symbols the gap would take to shrink threefold, if the last half went on."""
  options, key = config.text, 'validation/late_perplexity'
  late = {
    kind: np.log([[line[key] for line in one if key in line] for one in several])
    for kind, several in histories.items()
  }
  steps = np.array([line['step'] for line in histories['lexinvariant'][0] if key in line])
  regret = (late['lexinvariant'] - late['learned']).mean(axis=0)
  where = steps >= options.steps / 2
  symbols = steps[where] * options.batch_size * options.length
  note = (
    f'log-log line through the last half of training ({where.sum()} evaluations): an estimate from '
    'one run, whose rate and aids fall meanwhile, and no law of scaling'
  )
  put = lambda column, value, sem=None, unit='': Row(
    'context', corpus.row, f'estimate_{column}', value, sem, unit=unit, note=note
  )
  found = power_law(symbols, regret[where])
  if found is None or first_gap <= 0:
    return [put('late_regret_slope', None)]
  rows = [put('late_regret_slope', found.slope, found.slope_sem)]
  if found.slope + found.slope_sem < 0:
    needed, error = found.reaches(float(np.log(np.log1p(first_gap / SHRINKING))))
    for name_of, shift in (('', 0), ('_low', -error), ('_high', error)):
      rows.append(put(f'symbols_for_threefold{name_of}', float(np.exp(needed + shift))))
  return rows


class PowerLaw(NamedTuple):
  """log y = intercept + slope log x, by least squares.

  Attributes:
    slope: and its standard error.
    slope_sem: from the scatter about the line.
    intercept: of log y.
    covariance: [2, 2] of slope and intercept.
  """

  slope: float
  slope_sem: float
  intercept: float
  covariance: np.ndarray

  def reaches(self, log_y: float) -> tuple[float, float]:
    """log x where the line is at log y, and its standard error (first order)."""
    log_x = (log_y - self.intercept) / self.slope
    gradient = -np.array([log_x, 1.0]) / self.slope
    return float(log_x), float(np.sqrt(gradient @ self.covariance @ gradient))


def power_law(x: np.ndarray, y: np.ndarray) -> PowerLaw | None:
  """The line through points [n], or None for fewer than 3 or any y that is not above 0."""
  if len(x) < 3 or not np.all(y > 0):
    return None
  (slope, intercept), covariance = np.polyfit(np.log(x), np.log(y), 1, cov=True)
  return PowerLaw(float(slope), float(covariance[0, 0] ** 0.5), float(intercept), covariance)
