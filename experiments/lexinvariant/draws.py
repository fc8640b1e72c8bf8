# SPDX-License-Identifier: Apache-2.0
"""Averaging predictions over several draws of the random rows."""

import numpy as np
from ml_collections import ConfigDict
from scipy.special import logsumexp

from experiments import runner
from experiments.lexinvariant import models, text
from lib import stats
from lib.errors import InputError
from lib.report.results import Row, name


def check(config: ConfigDict) -> None:
  """Raises InputError for text, models or numbers of draws that cannot be had."""
  text.check(config)
  if not config.draws.counts or min(config.draws.counts) < 1:
    raise InputError(f'draws.counts must name numbers of 1 or more; got {config.draws.counts}.')


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Nats of the mean of K predictions, on test text, against those of single draws."""
  rows = []
  for corpus in text.corpora(config):
    held = text.held_out(corpus, 'test', config.text.length, config.text.test_sequences)
    nats = []
    for seed in text.seeds(config):
      trained = text.fit(config, run, corpus, 'lexinvariant', seed)
      nats.append([
        models.scorer(trained.model, corpus.vocab_size, draw)(trained.variables, held.ids)
        for draw in range(max(config.draws.counts))
      ])  # fmt: skip
    rows += _rows(config, corpus, np.array(nats), held.documents)
  return rows


def _rows(
  config: ConfigDict, corpus: text.Corpus, nats: np.ndarray, documents: np.ndarray
) -> list[Row]:
  """`nats` [S, K, N, T] of S models under K draws; gains are of the same sequences."""
  _, draws, sequences, _ = nats.shape
  single = nats.mean(axis=1)
  late = config.text.window
  below = stats.by_group(np.ones(sequences), documents)
  rows = []
  for count in config.draws.counts:
    row = f'{corpus.row},{name(draws=count)}'
    mixed = np.log(count) - logsumexp(-nats[:, :count], axis=1)
    gain = single - mixed
    for column, values, note in (
      ('nats_per_symbol', mixed, 'of the mean of the predictions of K draws'),
      ('gain_nats_per_symbol', gain, f'on single draws, whose mean over {draws} is taken'),
      ('late_gain_nats_per_symbol', gain[..., -late:], f'over the last {late} symbols'),
    ):
      above = stats.by_group(values.mean(axis=-1), documents)
      found = stats.crossed(stats.contributions(above, below))
      rows.append(Row.of('draws', row, column, found, unit='nats', note=note))
  if draws > 1:
    spread = nats.std(axis=1, ddof=1).mean(axis=(1, 2))
    note = 'standard deviation of one symbol’s nats over draws'
    rows.append(
      Row.of('draws', corpus.row, 'spread_nats', stats.mean(spread), unit='nats', note=note)
    )
  return rows
