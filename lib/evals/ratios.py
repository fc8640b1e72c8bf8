# SPDX-License-Identifier: Apache-2.0
"""Scores as ratios of sums over items, with intervals over items or over groups of them."""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Ratio = tuple[np.ndarray, np.ndarray]  # [N] and [N]: the value is the quotient of their sums
Z = 1.959964  # of a 95 % interval
DRAWS = 1000  # bootstrap samples
CHUNK = 4 * 2**20  # entries of the bootstrap's weights held at once


class Estimate(NamedTuple):
  """A value with its standard error (None for one item) and 95 % interval, over items."""

  value: float
  sem: float | None
  low: float
  high: float


def mean_over(several: Sequence[Mapping[str, Ratio]]) -> dict[str, Ratio]:
  """The same items scored for several models: each item's mean over them."""
  mean = lambda name, part: np.mean([one[name][part] for one in several], axis=0)
  return {name: (mean(name, 0), mean(name, 1)) for name in several[0]}


def pooled(several: Sequence[Mapping[str, Ratio]]) -> dict[str, Ratio]:
  """Other items for each model: all of them together."""
  joined = lambda name, part: np.concatenate([one[name][part] for one in several])
  return {name: (joined(name, 0), joined(name, 1)) for name in several[0]}


def grouped(ratio: Ratio, groups: Sequence[Hashable]) -> Ratio:
  """Sums over the items of each group, such as questions of one fact, which are not independent."""
  number = {group: index for index, group in enumerate(dict.fromkeys(groups))}
  which = [number[group] for group in groups]
  return np.bincount(which, ratio[0]), np.bincount(which, ratio[1])


def macro(ratio: Ratio, groups: Sequence[Hashable]) -> float:
  """The mean over groups, such as the subjects of MMLU, of the value in each."""
  above, below = grouped(ratio, groups)
  return float(np.mean(above / below))


def value(ratio: Ratio) -> float:
  """The quotient of the sums; NaN where nothing is to be divided by."""
  above, below = ratio[0].sum(), ratio[1].sum()
  return float(above / below) if below > 0 else np.nan


def estimate(ratio: Ratio, seed: int = 0) -> Estimate:
  """A ratio of sums with its interval: Wilson's for hits and misses, else bootstrap percentiles.

  Where nothing is to be divided by, as where no letter is ever read, all is NaN.
  """
  above, below = ratio
  quotient, count, sem = value(ratio), len(above), None
  if np.isnan(quotient):
    return Estimate(quotient, None, np.nan, np.nan)
  if count > 1:
    spread = ((above - quotient * below) ** 2).sum()
    sem = float(np.sqrt(spread * count / (count - 1)) / below.sum())
  if np.all(below == 1) and np.all((above == 0) | (above == 1)):
    return Estimate(quotient, sem, *wilson(float(above.sum()), count))
  rng, quotients = np.random.default_rng(seed), []
  step = max(1, CHUNK // count)
  for start in range(0, DRAWS, step):
    size = min(step, DRAWS - start)
    weights = rng.multinomial(count, np.full(count, 1 / count), size)
    quotients.append((weights @ above) / np.maximum(weights @ below, np.finfo(float).tiny))
  low, high = np.percentile(np.concatenate(quotients), [2.5, 97.5])
  return Estimate(quotient, sem, float(low), float(high))


def wilson(hits: float, count: int) -> tuple[float, float]:
  """Wilson's 95 % score interval of a share: never empty, even for 0 or `count` hits."""
  share, extra = hits / count, Z**2 / count
  middle = (share + extra / 2) / (1 + extra)
  half = Z / (1 + extra) * np.sqrt(share * (1 - share) / count + extra / (4 * count))
  return float(max(0.0, middle - half)), float(min(1.0, middle + half))
