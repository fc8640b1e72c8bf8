# SPDX-License-Identifier: Apache-2.0
"""The paper's theorem on chains small enough for the exact posterior over all renamings."""

import numpy as np
from ml_collections import ConfigDict
from scipy.special import rel_entr
from tqdm import tqdm

from experiments import runner
from experiments.lexinvariant.markov import sequences_of
from lib import stats
from lib.data import markov
from lib.errors import InputError
from lib.evals import renaming
from lib.report.results import Row, name

LENGTHS = (16, 64, 256, 1024)
EPSILON, DELTA = 0.2, 0.1  # for the lengths that the bounds ask for


def check(config: ConfigDict) -> None:
  """Raises InputError for alphabets that cannot be enumerated and sizes that are too small."""
  options = config.theory
  for field in ('chains', 'sequences'):
    if options[field] < 1:
      raise InputError(f'theory.{field} must be 1 or more; got {options[field]}.')
  if options.length < LENGTHS[1]:
    raise InputError(
      f'theory.length must be {LENGTHS[1]} or more, for a slope; got {options.length}.'
    )
  if not 2 <= min(options.alphabets) <= max(options.alphabets) <= renaming.MAX_ALPHABET:
    raise InputError(
      f'theory.alphabets must lie between 2 and {renaming.MAX_ALPHABET} symbols, whose renamings '
      f'are all enumerated; got {tuple(options.alphabets)}.'
    )
  _chain(config, min(options.alphabets), config.seed)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Regret and distance of the exact predictor, by alphabet."""
  del run
  rows = []
  for size in tqdm(config.theory.alphabets, desc='alphabets', leave=False):
    rows += _rows(config, size)
  return rows


def _chain(config: ConfigDict, size: int, seed: int) -> markov.MarkovSource:
  return markov.random_kernel(1, size, seed, config.theory.concentration)


def _rows(config: ConfigDict, size: int) -> list[Row]:
  """All of one alphabet: means over chains, each the mean over its sequences."""
  options, row = config.theory, name(d=size)
  totals, divergences, distances, highest = [], [], [], -np.inf
  for seed in range(config.seed, config.seed + options.chains):
    source = _chain(config, size, seed)
    sequences = sequences_of(source, options.length, options.sequences, seed)
    bayes = renaming.exact_bayes(source, sequences)
    true = renaming.informed(source, sequences)
    regret = np.cumsum(bayes.nats - true.nats, axis=1)
    highest = max(highest, regret.max())
    totals.append(regret[:, -1].mean())
    divergences.append(rel_entr(true.laws, bayes.laws).sum(axis=(1, 2)).mean())
    distances.append(np.abs(true.laws - bayes.laws).sum(axis=-1).mean(axis=0))
  put = lambda column, value, unit='nats', note='': Row(
    'theory', row, column, float(value), unit=unit, note=note
  )
  over_chains = lambda column, values, unit='nats', note='': Row.of(
    'theory', row, column, stats.mean(values, 'chains'), unit=unit, note=note
  )
  over = f'{options.chains} chains of {options.sequences} sequences, T = {options.length}'
  rows = [
    over_chains('total_log_regret_nats', totals, note=over),
    put('log_d_factorial_nats', renaming.log_permutations(size)),
    put('max_prefix_regret_nats', highest, note='of any prefix: never above log d!'),
    over_chains('total_divergence_nats', divergences,
        note='sum of KL(p ‖ p′) along the sequences: at most log d! in expectation'),
  ]  # fmt: skip
  lengths = [length for length in LENGTHS if length <= options.length]
  averages = [[distance[:length].mean() for distance in distances] for length in lengths]
  for length, average in zip(lengths, averages):
    rows += [
      over_chains(f'average_l1_at_{length}', average, unit='L1'),
      put(f'bound_l1_at_{length}', renaming.regret_bound_l1(size, length), unit='L1'),
      put(f'paper_rate_l1_at_{length}', renaming.paper_rate_l1(size, length), unit='L1'),
    ]
  slopes = [np.polyfit(np.log(lengths), np.log(column), 1)[0] for column in zip(*averages)]
  rows += [
    over_chains('slope', slopes, unit='', note='of log average L1 against log T: about −1 '
        'once π is known (finite total), against −½ of the bound and −¼ of the paper'),
    put('required_tokens', renaming.expected_sample_size(size, EPSILON), unit='tokens',
        note=f'for average L1 ≤ {EPSILON}, by √(2 log d!/T)'),
    put('likely_required_tokens', renaming.likely_sample_size(size, EPSILON, DELTA),
        unit='tokens', note=f'for the same with probability 1 − {DELTA}'),
    put('paper_required_tokens', renaming.paper_sample_size(size, EPSILON, DELTA), unit='tokens',
        note=f'by the paper’s proof, δ = {DELTA}'),
  ]  # fmt: skip
  return rows
