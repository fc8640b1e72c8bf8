# SPDX-License-Identifier: Apache-2.0
"""One attack: a tokenizer and samples of the categories in, the shares of its training text out."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from lib.data.categories import Categories, blocks, take
from lib.evals.mixture import Attack
from lib.stats import LEVEL
from lib.tokenizers import bpe_replay
from lib.tokenizers.merge_lists import MergeList


@dataclasses.dataclass(frozen=True)
class Found:
  """The mixture of a tokenizer's training text, as its merges tell.

  Attributes:
    shares: float64 [n], of the bytes.
    objective: what the best mixture leaves unexplained, as a share of all pairs.
    ranges: float64 [n, 2], where the shares lie with LEVEL confidence over resampled documents.
    widths: float64 [n], how far a share of pairs can move while the objective grows by 1 %.
  """

  shares: np.ndarray
  objective: float
  ranges: np.ndarray
  widths: np.ndarray


class Samples:
  """The merges of a tokenizer replayed on samples of n categories, each dealt to some folds."""

  def __init__(self, merges: MergeList, samples: Categories, folds: int, most: int):
    self.names, self._folds = list(samples), folds
    self._sizes = [sum(map(len, documents)) for documents in samples.values()]
    self._category = np.repeat(np.arange(len(samples)), folds).tolist()
    pieces = []
    for i, documents in enumerate(samples.values()):
      if len(documents) < 2 * folds:
        documents = [block for document in documents for block in blocks(document)]
      for fold in range(folds):
        pieces += merges.pieces(i * folds + fold, documents[fold::folds])
    self._there = np.bincount([one.sample for one in pieces], minlength=len(samples) * folds) > 0
    self._replay = bpe_replay.replay(
      pieces, len(samples) * folds, merges.merges[:most], merges.lengths, merges.overlap
    )
    self._allowed = merges.could_join(self._replay.pairs)

  def _attack(self, merges: int) -> Attack:
    return Attack(self._replay, self._category, merges, self._allowed)

  def shares(self, merges: int) -> np.ndarray:
    """Shares of the bytes [n] by the first merges."""
    attack = self._attack(merges)
    return attack.byte_shares(attack.solve().shares, self._sizes)

  def objective(self, merges: int) -> float:
    """What the best mixture leaves unexplained of the first merges, as a share of all pairs."""
    return self._attack(merges).solve().objective

  def found(self, merges: int, resamples: int, rng: np.random.Generator) -> Found:
    """Shares with their intervals, by the first merges."""
    attack = self._attack(merges)
    best = attack.solve()
    shares = attack.byte_shares(best.shares, self._sizes)
    drawn = [
      attack.byte_shares(attack.resampled(self._weights(rng)), self._sizes)
      for _ in range(resamples)
    ]
    ranges = np.stack([shares, shares], axis=1)
    if drawn:
      # The basic bootstrap: the error of an estimate is as that of a resample about the estimate.
      low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
      ranges = np.clip(np.stack([2 * shares - high, 2 * shares - low], axis=1), 0, 1)
    moved = attack.ranges()
    return Found(shares, best.objective, ranges, moved[:, 1] - moved[:, 0])

  def _weights(self, rng: np.random.Generator) -> np.ndarray:
    """How often each fold counts when those with text of each category are drawn again."""
    there = self._there.reshape(len(self.names), self._folds)
    drawn = [rng.multinomial(row.sum(), row / row.sum()) for row in there]
    return np.concatenate(drawn).astype(float)


def tokens_per_byte(merges: MergeList, samples: Categories, most: int) -> np.ndarray:
  """Tokens a byte [n] of each category's sample under the first merges: the simple baseline."""
  found = []
  for documents in samples.values():
    one = bpe_replay.replay(
      merges.pieces(0, documents), 1, merges.merges[:most], merges.lengths, merges.overlap
    )
    found.append(one.tokens[-1, 0] / sum(map(len, documents)))
  return np.array(found)


def log_mse(shares: np.ndarray, truth: np.ndarray) -> float:
  """log10 of the mean squared error of shares [n]."""
  return float(np.log10(max(np.mean((shares - truth) ** 2), 1e-18)))


def regressed(features: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> Iterable[np.ndarray]:
  """The shares of each mixture [n] by a regression on all others: of its tokens a byte [n].

  A line with one slope, and a level for each category, of the shares against the logarithm of the
  tokens a byte; clipped, and scaled to sum to 1.
  """
  x, y = np.log(np.array(features)), np.array(truths)
  for left_out in range(len(x)):
    known = np.arange(len(x)) != left_out
    centre, level = x[known].mean(axis=0), y[known].mean(axis=0)
    dx, dy = x[known] - centre, y[known] - level
    slope = (dx * dy).sum() / max((dx**2).sum(), 1e-12)
    guess = np.clip(level + slope * (x[left_out] - centre), 1e-6, None)
    yield guess / guess.sum()


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
