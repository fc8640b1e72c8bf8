# SPDX-License-Identifier: Apache-2.0
"""Lexinvariant transformers on known Markov chains, each against the exact Bayes predictor."""

import functools
import math
from collections.abc import Mapping, Sequence

import grain
import numpy as np
from ml_collections import ConfigDict

from experiments import fit
from experiments.lexinvariant import decoders
from experiments.recipe import Pictures, Run, Table, TrainSpecs
from lib import stats
from lib.data import pipeline
from lib.errors import InputError
from lib.evals.sequences import token_nats
from lib.report import plots
from lib.report.plots import Picture
from lib.report.results import Row, Rows, series
from lib.tasks.markov import chains, renaming
from lib.tasks.markov.chains import MarkovDocuments, MarkovSource
from lib.tokenizers.characters import Characters

# Seeds of independent streams.
TRAIN, TEST, VALIDATION = 1 << 20, 2 << 20, 3 << 20
RELABEL, DRAWS = 1 << 16, 4  # seeds of rows, and samples of rows in the leak test


def check(config: ConfigDict) -> None:
  """Raises InputError for a model or chain that cannot be built."""
  if config.markov.alphabet > renaming.MAX_ALPHABET:
    raise InputError(
      f'markov.alphabet {config.markov.alphabet} is too large for exact Bayes, which enumerates '
      f'all renamings of at most {renaming.MAX_ALPHABET} symbols.'
    )
  make_source(config, config.seed)
  decoders.check(config.markov, 'markov', config.markov.alphabet)


def make_source(config: ConfigDict, seed: int) -> MarkovSource:
  """The chain of a seed, on which its model is trained; the exact predictor knows it."""
  options = config.markov
  chain = options.chain_seed + seed
  return chains.random_kernel(1, options.alphabet, chain, options.concentration)


def measure(config: ConfigDict, run: Run) -> Rows:
  """One chain and one model per seed; all predictors of a chain score the same fresh sequences.

  Chains are the independent units: an error over models of one chain would not generalise.
  """
  options, rows = config.markov, Rows('markov')
  found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}  # predictor -> its nats and the true
  for seed in fit.seeds(config, options):
    source = make_source(config, seed)
    sequences = MarkovDocuments(source, options.length, options.test_sequences, TEST).symbols()
    trained = train(config, run, source, seed)
    nats = {
      'true_chain': renaming.informed(source, sequences).nats,
      'exact_bayes': renaming.exact_bayes(source, sequences).nats,
      'counting_bigram': renaming.counting_nats(sequences, options.alphabet, order=1),
      'counting_unigram': renaming.counting_nats(sequences, options.alphabet, order=0),
      'lexinvariant': token_nats(trained.model, sequences, seed),
    }
    for predictor, values in nats.items():
      found.setdefault(predictor, []).append((values, nats['true_chain']))
      _add_chain(rows, {'predictor': predictor, 'seed': seed}, values, nats['true_chain'])
    where = {'predictor': 'lexinvariant', 'seed': seed}
    add_lowest_bin(rows, where, nats['lexinvariant'], nats['exact_bayes'])
    model = trained.model
    again = lambda ids, draw, model=model: token_nats(model, ids, RELABEL + draw)
    add_leak(rows, where, again, sequences, options.alphabet)
    for step, value in trained.curve('validation/regret_nats').items():
      rows.add(where, f'regret_at_step_{step}', value, 'nats')
  for predictor, pairs in found.items():
    _add_chains(rows, {'predictor': predictor}, pairs, options.alphabet)
  return rows


def bins(length: int) -> list[tuple[int, int]]:
  """Ranges of positions, each twice as long as the one before: 0–1, 1–2, 2–4, 4–8, …"""
  edges = [0, *(2**i for i in range(20) if 2**i < length), length]
  return list(zip(edges, edges[1:]))


def _add_chain(rows: Rows, where: Mapping, nats: np.ndarray, true: np.ndarray) -> None:
  """Regret and late perplexity [N, T] on one chain; errors are over its sequences."""
  length = true.shape[1]
  late = length // 4
  mean = lambda values: stats.mean(values, 'sequences')
  note = f'total over {length} symbols, the first included'
  rows.add(where, 'regret_nats', mean((nats - true).sum(axis=1)), 'nats', note)
  note = f'mean over sequences, the last {late} positions'
  rows.add(where, 'late_perplexity', mean(np.exp(nats[:, -late:].mean(axis=1))), note=note)


def _add_chains(
  rows: Rows, where: Mapping, pairs: Sequence[tuple[np.ndarray, np.ndarray]], alphabet: int
) -> None:
  """The same of several chains, a (nats, true nats) each; errors are over chains."""
  length = pairs[0][1].shape[1]
  late = length // 4
  mean = lambda values: stats.mean(values, 'chains')
  regrets = [(nats - true).sum(axis=1).mean() for nats, true in pairs]
  note = f'total over {length} symbols, the first included'
  rows.add(where, 'regret_nats', mean(regrets), 'nats', note)
  budgets = np.divide(regrets, renaming.log_permutations(alphabet))
  note = 'regret in units of log d!, the most that exact Bayes can lose'
  rows.add(where, 'regret_over_log_d_factorial', mean(budgets), 'ratio', note)
  perplexity = [np.exp(nats[:, -late:].mean()) for nats, _ in pairs]
  rows.add(where, 'late_perplexity', mean(perplexity), note=f'the last {late} positions')
  excess = [np.exp((nats - true)[:, -late:].mean()) - 1 for nats, true in pairs]
  note = 'late perplexity above the true chain’s on the same symbols'
  rows.add(where, 'late_excess', mean(excess), 'fraction', note)
  for start, end in bins(length):
    value = np.exp(np.mean([nats[:, start:end] for nats, _ in pairs]))
    rows.add(where, f'perplexity_{start}_{end}', value)


def add_leak(
  rows: Rows, where: Mapping, score: renaming.Score, sequences: np.ndarray, alphabet: int
) -> None:
  """How much a model gains from its training labels: nats under permuted labels less under those.

  In training the chain always has the labels 0…d−1. A model that sees labels does better on these,
  even if it is far from exact Bayes; a model that does not has the same nats under any labels.
  """
  gain = renaming.label_leak(score, sequences, alphabet, DRAWS)
  note = f'permuted labels less fixed ones, {DRAWS} times each; paired over sequences'
  parts = {f'_{start}_{end}': gain[:, start:end] for start, end in bins(gain.shape[1])}
  for part, values in {'': gain, **parts}.items():
    found = stats.mean(values.sum(axis=1), 'sequences')
    rows.add(where, f'label_leak_nats{part}', found, 'nats', note)


def add_lowest_bin(rows: Rows, where: Mapping, nats: np.ndarray, bayes: np.ndarray) -> None:
  """The lowest position bin against exact Bayes, in standard errors of their difference.

  No predictor without names can beat it on average, so a value far below 0 is a fault. A model that
  is
  worse than exact Bayes could see names unnoticed here: see `add_leak`.
  """
  scores = []
  for start, end in bins(nats.shape[1]):
    found = stats.mean((nats - bayes)[:, start:end].mean(axis=1), 'sequences')
    scores.append(found.value / found.sem if found.sem else 0.0)
  note = 'below −4: better than any predictor without names can be'
  rows.add(where, 'lowest_bin_z', min(scores), 'standard errors', note)


def train(config: ConfigDict, run: Run, source: MarkovSource, seed: int) -> fit.Fitted:
  """The model of one chain; regret on validation sequences of the chain is followed."""
  alone = config.copy_and_resolve_references()
  alone.seed, alone.markov.seeds = seed, 1
  options = alone.markov
  held = MarkovDocuments(source, options.length, 256, VALIDATION).symbols()
  true = renaming.informed(source, held).nats
  regret = lambda model: {'regret_nats': (token_nats(model, held) - true).sum(axis=1).mean()}
  of_seed = lambda seed: batches_of(alone, source, seed)
  tokenizer, kind = Characters(source.alphabet), 'lexinvariant'
  [found] = decoders.train(
    alone, run, options, f'markov/{kind}', kind, tokenizer, of_seed, regret, 'regret_nats'
  )
  return found


def batches_of(config: ConfigDict, source: MarkovSource, seed: int) -> grain.IterDataset:
  """Fresh sequences for every step of one model."""
  options = config.markov
  count = options.steps * options.batch_size
  return pipeline.batches(
    MarkovDocuments(source, options.length, count, TRAIN + seed),
    Characters(source.alphabet),
    batch_size=options.batch_size,
    length=options.length,
    seed=seed,
    lanes=options.lanes,
    pack=False,
    shuffle=False,  # the documents are independent draws
  )


def train_specs(config: ConfigDict) -> TrainSpecs:
  """The model of a chain."""
  options = config.markov
  make = functools.partial(decoders.train_spec, config, options, 'lexinvariant', options.alphabet)
  return {'markov': make}


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Perplexity by position for each predictor, and regret against training step."""
  column = r'perplexity_\d+_(\d+)'
  by_position = {
    predictor.replace('_', ' '): series(rows, 'markov', column, {'predictor': predictor})
    for predictor in dict.fromkeys(row.where['predictor'] for row in rows if row.table == 'markov')
  }
  where = {'predictor': 'lexinvariant'}
  regret = {
    f'seed {seed}': series(rows, 'markov', r'regret_at_step_(\d+)', where | {'seed': seed})
    for seed in fit.seeds(config, config.markov)
  }
  budget = math.lgamma(config.markov.alphabet + 1)
  levels = {'log d!': budget, '2 log d!': 2 * budget}
  title = f'Perplexity by position, chains of {config.markov.alphabet} symbols'
  x_label, y_label = 'up to position', 'nats of regret per sequence'
  panels = [
    plots.row_curves(title, x_label, 'perplexity', by_position, log_x=True),
    plots.row_curves('Regret while training', 'training step', y_label, regret, levels=levels),
  ]
  caption = (
    'A transformer under fresh random rows for each sequence, next to predictors that count in '
    'context and to exact Bayes, which knows everything except the names; and its regret against '
    'log d!, the most that an ideal predictor loses.'
  )
  return {'markov.png': Picture(caption, panels)}


TABLE = Table(
  'markov',
  measure,
  'Lexinvariant transformers, each trained on one known Markov chain and tested on fresh sequences '
  'of it. No predictor without names can beat exact Bayes, whose regret is at most log d!. '
  'Errors are over chains; label_leak_nats tests whether a model sees names.',
  ('regret_nats', 'regret_over_log_d_factorial', 'late_excess', 'label_leak_nats'),
  check=check,
  pictures=pictures,
  train_specs=train_specs,
)
