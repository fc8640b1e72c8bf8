# SPDX-License-Identifier: Apache-2.0
"""The paper's theorem on chains small enough for the exact posterior over all renamings."""

from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict
from scipy.special import rel_entr

from experiments.recipe import Pictures, Run, Table
from lib import stats
from lib.errors import InputError
from lib.progress import Bar
from lib.report import plots
from lib.report.plots import Picture
from lib.report.results import Row, Rows, series
from lib.tasks.markov import renaming
from lib.tasks.markov.chains import MarkovDocuments, MarkovSource, random_kernel

LENGTHS = (16, 64, 256, 1024)
EPSILON, DELTA = 0.2, 0.1  # accuracies of the bounds


def check(config: ConfigDict) -> None:
  """Raises InputError for alphabets that cannot be enumerated and sizes that are too small."""
  options = config.theory
  if options.length < LENGTHS[1]:
    raise InputError(
      f'theory.length must be {LENGTHS[1]} or more, for a slope; got {options.length}.'
    )
  if max(options.alphabets) > renaming.MAX_ALPHABET:
    raise InputError(
      f'theory.alphabets must be at most {renaming.MAX_ALPHABET} symbols, whose renamings '
      f'are all enumerated; got {tuple(options.alphabets)}.'
    )
  _chain(config, min(options.alphabets), config.seed)


def measure(config: ConfigDict, run: Run) -> Rows:
  """Regret and distance of the exact predictor, by alphabet."""
  del run
  rows = Rows('theory')
  for size in Bar(config.theory.alphabets, desc='alphabets'):
    _add(rows, config, size)
  return rows


def _chain(config: ConfigDict, size: int, seed: int) -> MarkovSource:
  return random_kernel(1, size, seed, config.theory.concentration)


def _add(rows: Rows, config: ConfigDict, size: int) -> None:
  """All of one alphabet: means over chains, each the mean over its sequences."""
  options, where = config.theory, {'d': size}
  totals, divergences, distances, highest = [], [], [], -np.inf
  for seed in range(config.seed, config.seed + options.chains):
    source = _chain(config, size, seed)
    sequences = MarkovDocuments(source, options.length, options.sequences, seed).symbols()
    bayes = renaming.exact_bayes(source, sequences)
    true = renaming.informed(source, sequences)
    regret = np.cumsum(bayes.nats - true.nats, axis=1)
    highest = max(highest, regret.max())
    totals.append(regret[:, -1].mean())
    divergences.append(rel_entr(true.laws, bayes.laws).sum(axis=(1, 2)).mean())
    distances.append(np.abs(true.laws - bayes.laws).sum(axis=-1).mean(axis=0))
  mean = lambda values: stats.mean(values, 'chains')
  over = f'{options.chains} chains of {options.sequences} sequences, T = {options.length}'
  rows.add(where, 'total_log_regret_nats', mean(totals), 'nats', over)
  rows.add(where, 'log_d_factorial_nats', renaming.log_permutations(size), 'nats')
  note = 'of any prefix: never above log d!'
  rows.add(where, 'max_prefix_regret_nats', highest, 'nats', note)
  note = 'sum of KL(p ‖ p′) along the sequences: at most log d! in expectation'
  rows.add(where, 'total_divergence_nats', mean(divergences), 'nats', note)
  lengths = [length for length in LENGTHS if length <= options.length]
  averages = [[distance[:length].mean() for distance in distances] for length in lengths]
  for length, average in zip(lengths, averages):
    rows.add(where, f'average_l1_at_{length}', mean(average), 'L1')
    rows.add(where, f'bound_l1_at_{length}', renaming.regret_bound_l1(size, length), 'L1')
    rows.add(where, f'paper_rate_l1_at_{length}', renaming.paper_rate_l1(size, length), 'L1')
  slopes = [np.polyfit(np.log(lengths), np.log(column), 1)[0] for column in zip(*averages)]
  note = (
    'of log average L1 against log T: about −1 once π is known (finite total), against −½ of the '
    'bound and −¼ of the paper'
  )
  rows.add(where, 'slope', mean(slopes), note=note)
  tokens = renaming.expected_sample_size(size, EPSILON)
  note = f'for average L1 ≤ {EPSILON}, by √(2 log d!/T)'
  rows.add(where, 'required_tokens', tokens, 'tokens', note)
  tokens = renaming.likely_sample_size(size, EPSILON, DELTA)
  note = f'for the same with probability 1 − {DELTA}'
  rows.add(where, 'likely_required_tokens', tokens, 'tokens', note)
  tokens = renaming.paper_sample_size(size, EPSILON, DELTA)
  note = f'by the paper’s proof, δ = {DELTA}'
  rows.add(where, 'paper_required_tokens', tokens, 'tokens', note)


CURVES = {
  'measured, exact Bayes': r'average_l1_at_(\d+)',
  '√(2 log d!/T)': r'bound_l1_at_(\d+)',
  'paper’s rate (d/T)^¼': r'paper_rate_l1_at_(\d+)',
}


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Average distance against length, under both bounds, for the smallest and largest alphabet."""
  panels = []
  for size in sorted({min(config.theory.alphabets), max(config.theory.alphabets)}):
    found = {label: series(rows, 'theory', form, {'d': size}) for label, form in CURVES.items()}
    title, x_label = f'Alphabet of d = {size} symbols', 'symbols read, T'
    axes = {'log_x': True, 'log_y': True}
    panels.append(plots.row_curves(title, x_label, 'average L1 distance', found, **axes))
  caption = (
    'Distance of the best predictor without names, p′, from the true law p after T symbols, '
    'under two upper bounds; both axes are logarithmic. Bars: one standard error over chains.'
  )
  return {'theory.png': Picture(caption, panels)}


TABLE = Table(
  'theory',
  measure,
  'The ideal lexinvariant predictor p′ (exact Bayes over all d! renamings) of random chains. Its '
  'regret is at most log d! at every prefix, which follows from p′(x) ≥ p(x)/d! and is not printed '
  'in the paper. So its average distance is at most √(2 log d!/T).',
  (
    'total_log_regret_nats',
    'log_d_factorial_nats',
    'average_l1_at_256',
    'bound_l1_at_256',
    'slope',
  ),
  check=check,
  pictures=pictures,
)
