# SPDX-License-Identifier: Apache-2.0
"""One attack: a tokenizer and samples of the categories in, the shares of its training text out."""

import dataclasses

import numpy as np
from scipy.stats import t as student

from lib.data import categories
from lib.data.categories import Categories, take
from lib.evals.mixture import Attack
from lib.stats import LEVEL
from lib.tokenizers import bpe_replay
from lib.tokenizers.merge_lists import MergeList

EXACT = 1e-5  # errors of a share below it are not told apart


class Samples:
  """The first merges of a tokenizer replayed on samples of n categories."""

  def __init__(self, merges: MergeList, samples: Categories, most: int):
    self._sizes = [sum(map(len, documents)) for documents in samples.values()]
    pieces = [merges.pieces(documents) for documents in samples.values()]
    self._replay = bpe_replay.replay(pieces, merges.merges[:most], merges.lengths, merges.overlap)
    self._allowed = merges.could_join(self._replay.pairs)

  def solve(self, merges: int) -> tuple[np.ndarray, float, Attack]:
    """By the first merges: shares of bytes [n], the objective, and the program for more."""
    attack = Attack(self._replay, merges, self._allowed)
    best = attack.solve()
    return attack.byte_shares(best.shares, self._sizes), best.objective, attack

  def shares(self, merges: int) -> np.ndarray:
    """Shares of the bytes [n] by the first merges."""
    return self.solve(merges)[0]


@dataclasses.dataclass(frozen=True)
class Imitation:
  """Attacks on T tokenizers like the one that is attacked, whose shares are known.

  Attributes:
    errors: float64 [T, n], shares that an attack found less the true ones.
    objectives: float64 [T], what the best mixture left unexplained.
    objective: the same of the tokenizer that is attacked, by the same samples.
  """

  errors: np.ndarray
  objectives: np.ndarray
  objective: float

  def ranges(self, shares: np.ndarray) -> np.ndarray:
    """Where the true shares lie with LEVEL confidence, [n, 2], for shares found [n]."""
    root = np.sqrt(np.mean(self.errors**2, axis=0))
    reach = student.ppf((1 + LEVEL) / 2, len(self.errors)) * root
    return np.clip(np.stack([shares - reach, shares + reach], axis=1), 0, 1)

  @property
  def p_value(self) -> float:
    """Of the objective, if the training text was a mixture of these categories."""
    return (1 + np.sum(self.objectives >= self.objective)) / (1 + len(self.objectives))


def imitate(
  merges: MergeList,
  samples: Categories,
  count: int,
  trials: int,
  train_bytes: int,
  rng: np.random.Generator,
) -> Imitation:
  """Attacks tokenizers that are trained on the mixture found, with half of the samples.

  Their training text is drawn, with replacement, from the other half. So it holds the chance that
  is in a sample and in a training text. Both are smaller here than the real ones: errors and
  objectives are rather too large.

  Args:
    merges: of the tokenizer that is attacked.
    samples: of the categories.
    count: how many merges are used.
    trials: how many tokenizers are trained.
    train_bytes: of their training text, at most.
    rng: of the draws.
  """
  units = {name: categories.units(documents) for name, documents in samples.items()}
  half, rest = ({name: one[part::2] for name, one in units.items()} for part in (0, 1))
  shares, objective, _ = Samples(merges, half, count).solve(count)
  errors, objectives = [], []
  for _ in range(trials):
    drawn = {
      name: [one[i] for i in rng.integers(0, len(one), len(one))] for name, one in rest.items()
    }
    parts, truth = mixed(drawn, shares, train_bytes)
    learned = merges.learned([text for part in parts.values() for text in part], count)
    found, left, _ = Samples(learned, half, count).solve(count)
    errors.append(found - truth)
    objectives.append(left)
  return Imitation(np.array(errors), np.array(objectives), objective)


def tokens_per_byte(merges: MergeList, samples: Categories, most: int) -> np.ndarray:
  """Tokens a byte [n] of each category's sample under the first merges: the simple baseline."""
  pieces = [merges.pieces(documents) for documents in samples.values()]
  one = bpe_replay.replay(pieces, merges.merges[:most], merges.lengths, merges.overlap)
  return one.tokens[-1] / [sum(map(len, documents)) for documents in samples.values()]


def log_mse(shares: np.ndarray, truth: np.ndarray) -> float:
  """log10 of the mean squared error of shares [n]; errors below `EXACT` count as that."""
  return float(np.log10(max(np.mean((shares - truth) ** 2), EXACT**2)))


def regressed(features: np.ndarray, truths: np.ndarray, mine: np.ndarray) -> np.ndarray:
  """Shares [n] by a linear regression on the logarithm of tokens a byte, clipped to sum to 1.

  Args:
    features: tokens a byte [K, n] of each category under K tokenizers.
    truths: the shares [K, n] of their training texts.
    mine: tokens a byte [n] under the tokenizer whose shares are sought.
  """
  x, centre = np.log(features), np.log(features).mean(axis=0)
  slopes = np.linalg.lstsq(x - centre, truths - truths.mean(axis=0), rcond=None)[0]
  guess = np.clip(truths.mean(axis=0) + (np.log(mine) - centre) @ slopes, 1e-6, None)
  return guess / guess.sum()


def mixed(
  parts: Categories, shares: np.ndarray, size: int
) -> tuple[dict[str, list[bytes]], np.ndarray]:
  """Training text of up to `size` bytes in which categories have `shares` [n] of the bytes.

  It is smaller where a category has too little text. Returns what is taken, and its exact shares.
  """
  there = np.array([sum(map(len, documents)) for documents in parts.values()])
  size = min(size, int(np.min(there / np.maximum(shares, 1e-9))))
  taken = {
    name: take(documents, int(share * size))
    for (name, documents), share in zip(parts.items(), shares, strict=True)
  }
  sizes = np.array([sum(map(len, one)) for one in taken.values()], float)
  return taken, sizes / sizes.sum()
