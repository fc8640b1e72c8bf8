# SPDX-License-Identifier: Apache-2.0
"""Tables `domains` and `languages`: tokenizers whose training text has known shares."""

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.mixture import attack
from experiments.recipe import Pictures, Run, Table, naming
from lib import stats
from lib.data import categories
from lib.data.categories import Categories
from lib.errors import InputError
from lib.report import plots
from lib.report.results import Row, Rows, select
from lib.threads import on_all_cores
from lib.tokenizers import merge_lists, pretokenizers, registry
from lib.tokenizers.base import Tokenizer

GUESSES = 1000  # random guesses at a mixture, over which the error of one is averaged
SIGNIFICANT = 0.05


def train(config: ConfigDict, documents: Sequence[bytes], merges: int) -> Tokenizer:
  """The tokenizer that is attacked."""
  options = config.tokenizer.to_dict()
  return registry.train(options.pop('family'), documents, 256 + merges, **options)


def domains(config: ConfigDict, run: Run) -> Rows:
  """The categories of `data.source`."""
  return _measure(config, 'domains', categories.open_categories(config.data.source))


def languages(config: ConfigDict, run: Run) -> Rows:
  """The languages of a folder, if one is given."""
  if not config.languages.texts:
    return Rows('languages')
  return _measure(config, 'languages', categories.open_categories(config.languages.texts))


def _measure(config: ConfigDict, table: str, known: Categories) -> Rows:
  options, rows = config[table], Rows(table)
  seeds = range(config.seed, config.seed + options.mixtures)
  jobs = [(config, options, known, seed) for seed in seeds]
  every = on_all_cores(table, _one_mixture, jobs)
  errors: dict[tuple, list[float]] = defaultdict(list)  # coordinates -> log10 MSE of each mixture
  others: dict[str, list[float]] = defaultdict(list)
  for seed, (truth, found, by_regression, quantities) in zip(seeds, every, strict=True):
    for (sample, merges), shares in found.items():
      errors['attack', sample, merges].append(attack.log_mse(shares, truth))
    uniform = np.full(len(truth), 1 / len(truth))
    guesses = np.random.default_rng(seed).dirichlet(np.ones(len(truth)), GUESSES)
    errors['random',].append(float(np.mean([attack.log_mse(one, truth) for one in guesses])))
    errors['uniform',].append(attack.log_mse(uniform, truth))
    errors['tokens_per_byte',].append(attack.log_mse(by_regression, truth))
    for name, value in quantities.items():
      others[name].append(value)
    if 'rejected_without_largest' in quantities:
      more = quantities['rejected_without_largest'] - quantities['rejected']
      others['rejected_more_without_largest'].append(more)
  baselines = np.array([errors[name,] for name in ('random', 'uniform', 'tokens_per_byte')])
  best = baselines[np.argmin(baselines.mean(axis=1))]
  most = {'sample': max(options.sample_bytes), 'merges': options.interval_merges}
  against = {
    'random': errors['random',],
    'best_baseline': best,
    'main_row': errors['attack', most['sample'], most['merges']],
  }
  of = lambda values: stats.mean(values, over='mixtures')
  for key, values in errors.items():
    where = dict(zip(('method', 'sample', 'merges'), key, strict=False))
    rows.add(where, 'log10_mse', of(values), 'log10 of the mean squared error of shares')
    if key[0] == 'attack':
      note = f'the main row has a sample of {most["sample"]:,} bytes and {most["merges"]:,} merges'
      for name, other in against.items():
        less = np.array(values) - other
        if less.any():
          rows.add(where, f'log10_mse_less_{name}', of(less), 'difference by mixture', note)
  where = {'method': 'attack', **most}
  for name, values in others.items():
    rows.add(where, name, of(values), *UNITS[name])
  return rows


UNITS = {  # column -> unit, note
  'coverage': (
    'share of ranges', 'that hold the true share; they come from attacks on tokenizers trained on '
    'the mixture found',
  ),
  'range': ('share of the bytes', 'from end to end of a range'),
  'width': ('share', 'by which a share of pairs can move while the objective grows by 1 %'),
  'objective': ('share of pairs', 'that the best mixture leaves unexplained'),
  'rejected': ('share of mixtures', f'that "none of these" is found in at p ≤ {SIGNIFICANT}'),
  'rejected_without_largest': (
    'share of mixtures', 'the same without a sample of the largest category: the larger, the '
    'better is its absence seen',
  ),
  'rejected_more_without_largest': ('share of mixtures', 'paired by mixture'),
}  # fmt: skip


def _one_mixture(config: ConfigDict, options: ConfigDict, known: Categories, seed: int) -> tuple:
  """The true shares, those found by (sample, merges), by regression, and further quantities."""
  rng = np.random.default_rng(seed)
  largest, most, count = max(options.sample_bytes), max(options.merges), options.interval_merges
  training, samples = categories.halves(known, seed, options.train_bytes, largest)
  wanted = rng.dirichlet(np.ones(len(known)))
  parts, truth = attack.mixed(training, wanted, options.train_bytes)
  merges = merge_lists.of(train(config, [text for part in parts.values() for text in part], most))
  found: dict[tuple[Any, int], np.ndarray] = {}
  for size in options.sample_bytes:
    smaller = {name: categories.take(texts, size) for name, texts in samples.items()}
    replayed = attack.Samples(merges, smaller, most)
    for merge_count in options.merges if size == largest else (count,):
      found[size, merge_count] = replayed.shares(merge_count)
  for merge_count in options.merges:
    found['training', merge_count] = attack.Samples(merges, parts, most).shares(merge_count)
  shares, objective, program = replayed.solve(count)
  low, high = program.ranges().T
  quantities = {'width': float(np.mean(high - low)), 'objective': objective}
  for name, left_out in (('rejected', None), ('rejected_without_largest', int(truth.argmax()))):
    there = {one: texts for i, (one, texts) in enumerate(samples.items()) if i != left_out}
    if len(there) < 2:
      continue
    tried = attack.imitate(merges, there, count, options.trials, options.train_bytes, rng)
    quantities[name] = float(tried.p_value <= SIGNIFICANT)
    if left_out is None:
      low, high = tried.ranges(shares).T
      quantities['coverage'] = float(np.mean((low <= truth) & (truth <= high)))
      quantities['range'] = float(np.mean(high - low))
  return truth, found, _by_regression(config, options, merges, samples, rng), quantities


def _by_regression(
  config: ConfigDict,
  options: ConfigDict,
  merges: merge_lists.MergeList,
  samples: Categories,
  rng: np.random.Generator,
) -> np.ndarray:
  """The shares [n] by tokens a byte of half of each sample.

  The baseline is fitted to tokenizers trained on mixtures of the other halves.
  """
  most = options.interval_merges
  half = {name: texts[::2] for name, texts in samples.items()}
  rest = {name: texts[1::2] for name, texts in samples.items()}
  features, truths = [], []
  for wanted in rng.dirichlet(np.ones(len(samples)), options.own_tokenizers):
    parts, truth = attack.mixed(rest, wanted, options.train_bytes)
    own = train(config, [text for part in parts.values() for text in part], most)
    features.append(attack.tokens_per_byte(merge_lists.of(own), half, most))
    truths.append(truth)
  mine = attack.tokens_per_byte(merges, half, most)
  return attack.regressed(np.array(features), np.array(truths), mine)


def check(config: ConfigDict, table: str) -> None:
  """Raises InputError for texts that are no categories, or a rule that does not exist."""
  pretokenizers.patterns(config.tokenizer.rule)
  if spec := config.data.source if table == 'domains' else config.languages.texts:
    with naming('data.source' if table == 'domains' else 'languages.texts'):
      categories.check(spec)
  options = config[table]
  if options.interval_merges > max(options.merges):
    raise InputError(
      f'{table}.interval_merges must be at most the largest of {table}.merges, '
      f'{max(options.merges)}; got {options.interval_merges}.'
    )


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run, table: str) -> Pictures:
  """The error against the merges, and against the bytes of a sample, over those of guesses."""
  of = lambda **where: select(rows, table, 'log10_mse', **where)
  levels = {
    label: row.measured
    for label, method in (
      ('a random guess', 'random'),
      ('equal shares', 'uniform'),
      ('tokens a byte, by regression', 'tokens_per_byte'),
    )
    for row in of(method=method)
    if row.measured is not None
  }
  options = config[table]
  largest, count = max(options.sample_bytes), options.interval_merges
  points = lambda name, rows: [(int(row.where[name]), row) for row in rows]
  by_merges = {
    'bpe, a sample of other text': points('merges', of(sample=largest)),
    'training text as sample': points('merges', of(sample='training')),
  }
  sizes = [row for row in of(merges=count) if row.where['sample'] != 'training']
  by_size = {'bpe, a sample of other text': points('sample', sizes)}
  y_label = 'log10 of the mean squared error'
  panels = [
    plots.row_curves('More merges', 'merges', y_label, by_merges, levels=levels, log_x=True),
    plots.row_curves(
      f'A larger sample, {count} merges', 'bytes of each category', y_label, by_size,
      levels=levels, log_x=True,
    ),
  ]  # fmt: skip
  caption = 'Errors of the shares inferred from merges, and of baselines without merges.'
  return {f'{table}.png': plots.Picture(caption, panels if sizes else [])}


def _table(name: str, measure: Callable[[ConfigDict, Run], Rows], what: str) -> Table:
  return Table(
    name,
    measure,
    f'Shares of {what} in the training text of tokenizers, inferred from their merges: log10 of '
    'the mean squared error over the categories, the mean over tokenizers with known shares. '
    f'Errors of a share below {attack.EXACT:g} count as that. `sample` is the amount of text of '
    'each category that the attacker has, none of it in the training text; `training` means that '
    'text itself. Baselines without merges are a random and an equal mixture, and a regression on '
    'tokens per byte of each category, fitted to tokenizers that the attacker trains on samples. '
    '`coverage` is the share of the ranges of shares that hold the true one; `rejected` that of '
    'mixtures of which the test says that a category is missing, where none is.',
    (
      'log10_mse',
      'log10_mse_less_best_baseline',
      'coverage',
      'rejected',
      'rejected_without_largest',
      'rejected_more_without_largest',
    ),
    check=functools.partial(check, table=name),
    pictures=functools.partial(pictures, table=name),
  )


DOMAINS = _table('domains', domains, 'the categories of `data.source`')
LANGUAGES = _table('languages', languages, 'languages')
