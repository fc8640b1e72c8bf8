# SPDX-License-Identifier: Apache-2.0
"""Averaging predictions over several draws of the random rows."""

import numpy as np
from ml_collections import ConfigDict
from scipy.special import logsumexp

from experiments import runner
from experiments.lexinvariant import models, text
from lib.errors import InputError
from lib.report.results import Row, mean_and_sem, name


def check(config: ConfigDict) -> None:
  """Raises InputError for text, models or numbers of draws that cannot be had."""
  text.check(config)
  if not config.draws.counts or min(config.draws.counts) < 1:
    raise InputError(f'draws.counts must name numbers of 1 or more; got {config.draws.counts}.')


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Nats of the mean of K predictions, on test text, against those of single draws."""
  rows = []
  for corpus in text.corpora(config):
    ids = text.held_out(corpus, 'test', config.text.test_length, config.text.test_sequences)
    for seed in text.seeds(config):
      trained = text.fit(config, run, corpus, 'lexinvariant', seed)
      nats = np.stack([
        models.scorer(trained.model, corpus.vocab_size, draw)(trained.variables, ids)
        for draw in range(max(config.draws.counts))
      ])  # fmt: skip
      rows += _rows(config, corpus, seed, nats)
  return rows


def _rows(config: ConfigDict, corpus: text.Corpus, seed: int, nats: np.ndarray) -> list[Row]:
  """`nats` [K, N, T]; errors are over sequences, gains are of the same sequences."""
  single = nats.mean(axis=0)
  spread = float(nats.std(axis=0, ddof=1).mean()) if len(nats) > 1 else None
  late = config.text.window
  rows = []
  for count in config.draws.counts:
    row = f'{corpus.row},{name(draws=count, seed=seed)}'
    mixed = np.log(count) - logsumexp(-nats[:count], axis=0)
    gain = single - mixed
    for column, values, note in (
      ('nats_per_symbol', mixed, 'of the mean of the predictions of K draws'),
      ('gain_nats_per_symbol', gain, f'on single draws, whose mean over {len(nats)} is taken'),
      ('late_gain_nats_per_symbol', gain[:, -late:], f'over the last {late} symbols'),
    ):
      value, sem = mean_and_sem(values.mean(axis=1).tolist())
      rows.append(Row('draws', row, column, value, sem, unit='nats', note=note))
  row = f'{corpus.row},{name(seed=seed)}'
  return [*rows, Row('draws', row, 'spread_nats', spread, unit='nats',
                     note='standard deviation of one symbol’s nats over draws')]  # fmt: skip
