# SPDX-License-Identifier: Apache-2.0
"""Averaging predictions over several samples of the random rows."""

import numpy as np
from ml_collections import ConfigDict
from scipy.special import logsumexp

from experiments.lexinvariant import text_models
from experiments.recipe import Run, Table
from lib import stats
from lib.evals.sequences import token_nats
from lib.report.results import Rows


def check(config: ConfigDict) -> None:
  """Raises InputError for missing text, models that cannot be built, or numbers of samples below
  1.
  """
  text_models.check(config)


def measure(config: ConfigDict, run: Run) -> Rows:
  """Nats of the mean of K predictions, on test text, against those of single draws."""
  rows = Rows('draws')
  for corpus in text_models.corpora(config):
    held = text_models.held_out(corpus, 'test', config.text.length, config.text.test_sequences)
    nats = [
      [token_nats(one.model, held.ids, draw) for draw in range(max(config.draws.counts))]
      for one in text_models.train(config, run, corpus, 'lexinvariant')
    ]
    rows += of_nats(config, corpus, np.array(nats), held.documents)
  return rows


def of_nats(
  config: ConfigDict, corpus: text_models.Corpus, nats: np.ndarray, documents: np.ndarray
) -> Rows:
  """`nats` [S, K, N, T] of S models under K draws; gains are of the same sequences."""
  rows, late = Rows('draws'), config.text.window
  draws, single = nats.shape[1], nats.mean(axis=1)
  for count in config.draws.counts:
    mixed = np.log(count) - logsumexp(-nats[:, :count], axis=1)
    gain = single - mixed
    for column, values, note in (
      ('nats_per_symbol', mixed, 'of the mean of the predictions of K samples'),
      ('gain_nats_per_symbol', gain, f'over single samples, averaged over {draws}'),
      ('late_gain_nats_per_symbol', gain[..., -late:], f'over the last {late} symbols'),
    ):
      found = stats.crossed(stats.over_groups(values.mean(axis=-1), documents))
      rows.add(corpus.where | {'draws': count}, column, found, 'nats', note)
  if draws > 1:
    spread = nats.std(axis=1, ddof=1).mean(axis=(1, 2))
    note = 'standard deviation of one symbol’s nats over draws'
    rows.add(corpus.where, 'spread_nats', stats.mean(spread), 'nats', note)
  return rows


TABLE = Table(
  'draws',
  measure,
  'Predictions averaged over K samples of the random rows, and the loss of a single sample.',
  ('nats_per_symbol', 'gain_nats_per_symbol', 'spread_nats'),
  check=check,
  sources=text_models.read,
  descriptions=text_models.describe,
)
