# SPDX-License-Identifier: Apache-2.0
"""Table `exact`: what must hold of the linear program, whatever the text."""

import numpy as np
from ml_collections import ConfigDict
from scipy import optimize, sparse

from experiments.mixture import attack, controlled
from experiments.recipe import Run, Table
from lib.data import categories
from lib.data.categories import Categories
from lib.evals.mixture import Attack
from lib.report.results import Rows
from lib.tokenizers import bpe_replay, merge_lists
from lib.tokenizers.bpe_replay import Replay
from lib.tokenizers.merge_lists import MergeList


def measure(config: ConfigDict, run: Run) -> Rows:
  """Objectives and differences of one tokenizer and one set of samples."""
  options, rows = config.exact, Rows('exact')
  known = categories.open_categories(config.data.source)
  training, held = categories.halves(known, config.seed, options.train_bytes, options.train_bytes)
  samples = dict(held)
  shares = np.random.default_rng(config.seed).dirichlet(np.ones(len(known)))
  parts, _ = attack.mixed(training, shares, options.train_bytes)
  documents = [text for part in parts.values() for text in part]
  merges = merge_lists.of(controlled.train(config, documents, options.merges))

  own = replayed(merges, parts)
  truth = own.change[: own.offsets[1]], own.sample[: own.offsets[1]]
  pairs = np.bincount(truth[1], truth[0], minlength=len(parts))
  attacked = Attack(own)
  where = {'sample': 'training'}
  note = 'the training text itself is the sample'
  rows.add(where, 'objective_at_truth', attacked.solve(pairs / pairs.sum()).objective, '', note)
  rows.add(where, 'objective_found', attacked.solve().objective, '', note)
  rows.add(where, 'conservation_error', _conservation(own), 'tokens')

  where = {'sample': 'disjoint'}
  other = replayed(merges, samples)
  found = Attack(other).solve()
  rows.add(where, 'objective_found', found.objective, '', 'text that the tokenizer has not seen')
  lazy = Attack(other, options.full_merges).solve().objective
  whole = full(other, len(samples), options.full_merges)
  rows.add(
    where, 'lazy_minus_full', lazy - whole, 'share of pairs', f'{options.full_merges} merges'
  )
  turned = dict(reversed(samples.items()))
  again = Attack(replayed(merges, turned)).solve().shares[::-1]
  rows.add(where, 'permutation_difference', float(np.abs(found.shares - again).max()), 'share')
  first, *rest = samples
  doubled = {first: [*samples[first], *samples[first]]} | {one: samples[one] for one in rest}
  again = Attack(replayed(merges, doubled)).solve().shares
  rows.add(where, 'duplication_difference', float(np.abs(found.shares - again).max()), 'share')

  name = max(samples, key=lambda one: found.shares[list(samples).index(one)])
  twice = samples | {f'{name} again': samples[name]}
  attacked = Attack(replayed(merges, twice))
  shares = attacked.solve().shares
  index = list(twice).index(name)
  low, high = attacked.ranges(slack=0.0)[index]
  where = {'sample': 'a category twice'}
  total = shares[index] + shares[-1]
  before = found.shares[list(samples).index(name)]
  rows.add(where, 'sum_difference', abs(total - before), 'share', f'of {name}, once and twice')
  rows.add(
    where, 'undetermined', (high - low) / total, 'share of the sum', 'that one of the two can have'
  )
  return rows


def replayed(merges: MergeList, samples: Categories) -> Replay:
  """The merges replayed on one sample for each category."""
  pieces = [merges.pieces(one) for one in samples.values()]
  return bpe_replay.replay(pieces, merges.merges, merges.lengths, merges.overlap)


def _conservation(one: Replay) -> int:
  """Largest |pairs + pieces − tokens| over merges and samples; 0 where 'aaa' has two pairs."""
  steps = np.repeat(np.arange(len(one.offsets) - 1), np.diff(one.offsets))
  changes = np.zeros(one.tokens.shape, np.int64)
  np.add.at(changes, (steps, one.sample), one.change)
  left = one.tokens - np.cumsum(changes, axis=0)  # pieces: the same at every step
  return int(np.abs(left - left[0]).max())


def full(one: Replay, count: int, merges: int) -> float:
  """The objective of the program with all its rows, by another solver; sample i is category i."""
  counts = np.zeros((len(one.pairs), count))
  pairs = np.zeros(count)
  blocks, slack_merge, slack_pair = [], [], []
  for merge in range(merges):
    span = slice(one.offsets[merge], one.offsets[merge + 1])
    np.add.at(counts, (one.pair[span], one.sample[span]), one.change[span])
    pairs = counts.sum(axis=0) if merge == 0 else pairs
    own = one.merged[merge]
    if own < 0:
      continue
    other = np.flatnonzero((np.arange(len(counts)) != own) & counts.any(axis=1))
    blocks.append((counts[own] - counts[other]) / pairs * pairs.sum())
    slack_merge.append(np.full(len(other), merge))
    slack_pair.append(other)
  coefficients, rows = np.concatenate(blocks), sum(map(len, blocks))
  of = lambda columns, width: sparse.csr_array(
    (np.ones(rows), (np.arange(rows), np.concatenate(columns))), shape=(rows, width)
  )
  slack = of(slack_merge, merges), of(slack_pair, len(counts))
  matrix = -sparse.hstack([sparse.csr_array(coefficients), *slack])
  cost = np.concatenate([np.zeros(count), np.ones(merges + len(counts))])
  simplex = sparse.csr_array(np.concatenate([np.ones(count), np.zeros(len(cost) - count)])[None])
  found = optimize.linprog(cost, matrix, np.zeros(rows), simplex, [1.0], method='highs')
  return float(found.fun / pairs.sum())


TABLE = Table(
  'exact',
  measure,
  'Exact properties of the linear program. Where the sample is the training text, the true shares '
  'explain every merge: the objective is 0. Elsewhere it is not. Making rows only when they are '
  'violated, the order of the categories and a sample given twice change nothing. Of two equal '
  'categories only the sum is determined.',
  ('objective_at_truth', 'objective_found', 'lazy_minus_full', 'undetermined'),
  check=lambda config: controlled.check(config, 'domains'),
)
