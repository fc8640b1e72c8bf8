# SPDX-License-Identifier: Apache-2.0
"""A trained lexinvariant transformer on a known Markov chain, against the exact Bayes predictor."""

import grain
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.lexinvariant import models
from lib.data import markov, pipeline
from lib.errors import InputError
from lib.evals import renaming
from lib.report.results import Row, mean_and_sem, name
from lib.tokenizers import Characters

# Seeds of streams that never share text.
TRAIN, TEST, VALIDATION = 1 << 20, 2 << 20, 3 << 20


def check(config: ConfigDict) -> None:
  """Raises InputError for a model or chain that cannot be built."""
  if config.markov.alphabet > renaming.MAX_ALPHABET:
    raise InputError(
      f'markov.alphabet {config.markov.alphabet} is too large for exact Bayes, which enumerates '
      f'all renamings of at most {renaming.MAX_ALPHABET} symbols.'
    )
  for field in ('seeds', 'test_sequences'):
    if config.markov[field] < 1:
      raise InputError(f'markov.{field} must be 1 or more; got {config.markov[field]}.')
  make_source(config)
  models.check(config.markov, 'markov', config.markov.alphabet)


def make_source(config: ConfigDict) -> markov.MarkovSource:
  """The chain, which training and the exact predictor both know."""
  options = config.markov
  return markov.random_kernel(1, options.alphabet, options.chain_seed, options.concentration)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Trains a model a seed and scores all predictors on the same fresh sequences."""
  options, source = config.markov, make_source(config)
  sequences = sequences_of(source, options.length, options.test_sequences, TEST)
  trained = [fit(config, run, source, seed) for seed in seeds(config)]
  scores = {
    'true_chain': [renaming.informed(source, sequences).nats],
    'exact_bayes': [renaming.exact_bayes(source, sequences).nats],
    'counting_bigram': [renaming.counting_nats(sequences, options.alphabet, order=1)],
    'counting_unigram': [renaming.counting_nats(sequences, options.alphabet, order=0)],
    'lexinvariant': [
      models.scorer(one.model, options.alphabet)(one.variables, sequences) for one in trained
    ],
  }
  (true,), (bayes,) = scores['true_chain'], scores['exact_bayes']
  rows = []
  for predictor, nats in scores.items():
    rows += _rows(name(predictor=predictor), nats, true)
    if predictor == 'lexinvariant':
      for seed, one in zip(seeds(config), nats):
        row = name(predictor=predictor, seed=seed)
        rows += [*_rows(row, [one], true), leak(row, one, bayes)]
  for one, seed in zip(trained, seeds(config)):
    for line in one.history:
      if 'validation/regret_nats' in line:
        row, column = name(predictor='lexinvariant', seed=seed), f'regret_at_step_{line["step"]}'
        rows.append(Row('markov', row, column, line['validation/regret_nats'], unit='nats'))
  return rows


def bins(length: int) -> list[tuple[int, int]]:
  """Ranges of positions, each twice as long as the one before: 0–1, 1–2, 2–4, 4–8, …"""
  edges = [0, *(2**i for i in range(20) if 2**i < length), length]
  return list(zip(edges, edges[1:]))


def _rows(row: str, nats: list[np.ndarray], true: np.ndarray) -> list[Row]:
  """Regret, late perplexity and perplexity by position of predictions [N, T], one a model.

  The error is over models where there are several, else over sequences.
  """
  length, late = true.shape[1], true.shape[1] // 4

  def put(column, unit, value, by_sequence, note=''):
    values = [value(one) for one in nats]
    mean, sem = mean_and_sem(values if len(nats) > 1 else by_sequence(nats[0]))
    mean = mean if len(nats) > 1 else values[0]
    return Row('markov', row, column, float(mean), sem, unit=unit, note=note)

  regret = lambda one: (one - true).sum(axis=1)
  excess = lambda one: float(np.exp((one - true)[:, -late:].mean())) - 1
  rows = [
    put('regret_nats', 'nats', lambda one: regret(one).mean(), regret,
        f'total over {length} symbols, the first included; error over models or sequences'),
    put('late_perplexity', '', lambda one: np.exp(one[:, -late:].mean()),
        lambda one: np.exp(one[:, -late:].mean(axis=1)), f'the last {late} positions'),
    Row('markov', row, 'late_excess',
        *mean_and_sem([excess(one) for one in nats]), unit='fraction',
        note='late perplexity above the true chain on the same symbols; error over models'),
  ]  # fmt: skip
  for start, end in bins(length):
    value = np.exp(np.mean([one[:, start:end] for one in nats]))
    rows.append(Row('markov', row, f'perplexity_{start}_{end}', float(value)))
  return rows


def leak(row: str, nats: np.ndarray, bayes: np.ndarray) -> Row:
  """The lowest position bin against exact Bayes, in standard errors of their difference.

  No predictor that sees no names can beat it on average, so far below 0 means that names leak.
  """
  scores = []
  for start, end in bins(nats.shape[1]):
    difference = (nats - bayes)[:, start:end].mean(axis=1)
    sem = mean_and_sem(list(difference))[1]
    scores.append(difference.mean() / sem if sem else 0.0)
  note = 'below −4: the model sees names' if min(scores) < -4 else 'no leak: not below −4'
  return Row('markov', row, 'lowest_bin_z', float(min(scores)), unit='standard errors', note=note)


def seeds(config: ConfigDict) -> range:
  """Seeds of the models."""
  return range(config.seed, config.seed + config.markov.seeds)


def sequences_of(source: markov.MarkovSource, length: int, count: int, seed: int) -> np.ndarray:
  """Symbols [count, length] of independent documents."""
  documents = markov.MarkovDocuments(source, length, count, seed)
  tokenizer = Characters(source.alphabet)
  return np.stack([tokenizer.encode(documents[i]) for i in range(count)])


def fit(
  config: ConfigDict, run: runner.Run, source: markov.MarkovSource, seed: int
) -> models.Trained:
  """One model on sequences of its own; regret on validation sequences is followed."""
  options = config.markov
  held = sequences_of(source, options.length, 256, VALIDATION)
  true = renaming.informed(source, held).nats

  def regret(model):
    score = models.scorer(model, options.alphabet)
    return lambda variables: {'regret_nats': (score(variables, held) - true).sum(axis=1).mean()}

  return models.fit(
    config,
    run,
    options,
    f'markov/{name(seed=seed)}',
    'lexinvariant',
    options.alphabet,
    batches_of(config, source, seed),
    {'validation': regret},
    seed=seed,
  )


def batches_of(config: ConfigDict, source: markov.MarkovSource, seed: int) -> grain.IterDataset:
  """Fresh sequences for every step of one model."""
  options = config.markov
  count = options.steps * options.batch_size
  return pipeline.batches(
    markov.MarkovDocuments(source, options.length, count, TRAIN + seed),
    Characters(source.alphabet),
    batch_size=options.batch_size,
    length=options.length,
    seed=seed,
    pack=False,
    shuffle=False,  # the documents are independent draws
  )
