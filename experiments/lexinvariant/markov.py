# SPDX-License-Identifier: Apache-2.0
"""Lexinvariant transformers on known Markov chains, each against the exact Bayes predictor."""

from collections.abc import Sequence

import grain
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.lexinvariant import models
from lib import stats
from lib.data import markov, pipeline
from lib.errors import InputError
from lib.evals import renaming
from lib.report.results import Row, name
from lib.tokenizers import Characters

# Seeds of streams that never share text.
TRAIN, TEST, VALIDATION = 1 << 20, 2 << 20, 3 << 20
RELABEL, DRAWS = 1 << 16, 4  # seeds of rows, and how often the leak test draws them


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
  make_source(config, config.seed)
  models.check(config.markov, 'markov', config.markov.alphabet)


def make_source(config: ConfigDict, seed: int) -> markov.MarkovSource:
  """The chain of a seed, which its model and the exact predictor both know."""
  options = config.markov
  return markov.random_kernel(
    1, options.alphabet, options.chain_seed + seed, options.concentration
  )  # fmt: skip


PREDICTORS = ('true_chain', 'exact_bayes', 'counting_bigram', 'counting_unigram', 'lexinvariant')


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """A chain and a model a seed; all predictors of a chain score the same fresh sequences.

  Chains are the independent units: an error over models of one chain would say nothing of others.
  """
  rows, found = [], []
  for seed in seeds(config):
    options, source = config.markov, make_source(config, seed)
    sequences = sequences_of(source, options.length, options.test_sequences, TEST)
    trained = fit(config, run, source, seed)
    score = models.scorer(trained.model, options.alphabet, seed)
    nats = {
      'true_chain': renaming.informed(source, sequences).nats,
      'exact_bayes': renaming.exact_bayes(source, sequences).nats,
      'counting_bigram': renaming.counting_nats(sequences, options.alphabet, order=1),
      'counting_unigram': renaming.counting_nats(sequences, options.alphabet, order=0),
      'lexinvariant': score(trained.variables, sequences),
    }
    found.append(nats)
    for predictor, one in nats.items():
      rows += _of_chain(name(predictor=predictor, seed=seed), one, nats['true_chain'])
    row = name(predictor='lexinvariant', seed=seed)
    rows.append(lowest_bin(row, nats['lexinvariant'], nats['exact_bayes']))
    again = lambda ids, draw, trained=trained: models.scorer(
      trained.model, options.alphabet, RELABEL + draw
    )(trained.variables, ids)
    rows += leak(row, again, sequences, options.alphabet)
    rows += [
      Row('markov', row, f'regret_at_step_{line["step"]}', line[key], unit='nats')
      for line in trained.history
      if (key := 'validation/regret_nats') in line
    ]
  budget = renaming.log_permutations(config.markov.alphabet)
  for predictor in PREDICTORS:
    pairs = [(nats[predictor], nats['true_chain']) for nats in found]
    rows += _over_chains(name(predictor=predictor), pairs, budget)
  return rows


def bins(length: int) -> list[tuple[int, int]]:
  """Ranges of positions, each twice as long as the one before: 0–1, 1–2, 2–4, 4–8, …"""
  edges = [0, *(2**i for i in range(20) if 2**i < length), length]
  return list(zip(edges, edges[1:]))


def _regret(nats: np.ndarray, true: np.ndarray) -> np.ndarray:
  return (nats - true).sum(axis=1)


def _of_chain(row: str, nats: np.ndarray, true: np.ndarray) -> list[Row]:
  """Regret and late perplexity [N, T] on one chain; errors are over its sequences."""
  late = true.shape[1] // 4
  by_sequence = np.exp(nats[:, -late:].mean(axis=1))
  return [
    Row.of('markov', row, 'regret_nats', stats.mean(_regret(nats, true), 'sequences'),
           unit='nats', note=f'total over {true.shape[1]} symbols, the first included'),
    Row.of('markov', row, 'late_perplexity', stats.mean(by_sequence, 'sequences'),
           note=f'mean over sequences, the last {late} positions'),
  ]  # fmt: skip


def _over_chains(
  row: str, pairs: Sequence[tuple[np.ndarray, np.ndarray]], budget: float
) -> list[Row]:
  """The same of several chains, a (nats, true nats) each; errors are over chains."""
  length = pairs[0][1].shape[1]
  late = length // 4
  regrets = [_regret(*pair).mean() for pair in pairs]
  perplexity = [np.exp(nats[:, -late:].mean()) for nats, _ in pairs]
  excess = [np.exp((nats - true)[:, -late:].mean()) - 1 for nats, true in pairs]
  put = lambda column, values, unit, note='': Row.of(
    'markov', row, column, stats.mean(values, 'chains'), unit=unit, note=note
  )
  rows = [
    put('regret_nats', regrets, 'nats', f'total over {length} symbols, the first included'),
    put('regret_over_log_d_factorial', np.divide(regrets, budget), 'ratio',
        'regret in units of log d!, the most that exact Bayes can lose'),
    put('late_perplexity', perplexity, '', f'the last {late} positions'),
    put('late_excess', excess, 'fraction',
        'late perplexity above the true chain’s on the same symbols'),
  ]  # fmt: skip
  for start, end in bins(length):
    value = np.exp(np.mean([nats[:, start:end] for nats, _ in pairs]))
    rows.append(Row('markov', row, f'perplexity_{start}_{end}', float(value)))
  return rows


def leak(
  row: str, score: renaming.Score, sequences: np.ndarray, alphabet: int, draws: int = DRAWS
) -> list[Row]:
  """How much a model gains from its training labels: nats under permuted labels less under those.

  The chain always bears the labels 0…d−1 in training. A model that sees them does better there,
  however far it is from exact Bayes; one that does not has the same nats under any.
  """
  gain = renaming.label_leak(score, sequences, alphabet, draws)
  note = f'permuted labels less fixed ones, {draws} times each; paired over sequences'
  put = lambda column, part: Row.of(
    'markov', row, column, stats.mean(part.sum(axis=1), 'sequences'), unit='nats', note=note
  )
  parts = {f'_{start}_{end}': gain[:, start:end] for start, end in bins(gain.shape[1])}
  return [put(f'label_leak_nats{where}', part) for where, part in {'': gain, **parts}.items()]


def lowest_bin(row: str, nats: np.ndarray, bayes: np.ndarray) -> Row:
  """The lowest position bin against exact Bayes, in standard errors of their difference.

  No predictor that sees no names can beat it on average, so far below 0 means a fault. A model that
  is worse than exact Bayes may see names unnoticed here: see `leak`.
  """
  scores = []
  for start, end in bins(nats.shape[1]):
    found = stats.mean((nats - bayes)[:, start:end].mean(axis=1), 'sequences')
    scores.append(found.value / found.sem if found.sem else 0.0)
  note = 'below −4: better than any predictor without names can be'
  return Row('markov', row, 'lowest_bin_z', float(min(scores)), unit='standard errors', note=note)


def seeds(config: ConfigDict) -> range:
  """Seeds of the chains and of their models."""
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
