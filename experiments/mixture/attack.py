# SPDX-License-Identifier: Apache-2.0
"""One attack: a tokenizer and samples of the categories in, the shares of its training text out."""

import dataclasses

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
    ranges: float64 [n, 2], where the shares lie with LEVEL confidence over documents drawn again.
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
    for documents in samples.values():
      if len(documents) < 2 * folds:
        documents = [block for document in documents for block in blocks(document)]
      pieces += [merges.pieces(documents[fold::folds]) for fold in range(folds)]
    self._there = np.array([np.any(one.cells >= 0) for one in pieces])
    self._replay = bpe_replay.replay(pieces, merges.merges[:most], merges.lengths, merges.overlap)
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

  def found(
    self, merges: int, resamples: int, rng: np.random.Generator, train_bytes: int | None = None
  ) -> Found:
    """Shares with their intervals, by the first merges.

    Args:
      merges: how many count.
      resamples: draws from which an interval is made.
      rng: of the draws.
      train_bytes: of the training text; None is so many that chance plays no part in it.
    """
    attack = self._attack(merges)
    best = attack.solve()
    shares = attack.byte_shares(best.shares, self._sizes)
    part = np.inf if train_bytes is None else np.maximum(shares * train_bytes, 1.0)
    worth = self._sizes / np.broadcast_to(part, shares.shape)
    drawn = [
      attack.byte_shares(attack.resampled(self._weights(worth, rng)), self._sizes)
      for _ in range(resamples)
    ]
    ranges = np.stack([shares, shares], axis=1)
    if drawn:
      # The basic bootstrap: the error of an estimate is as that of a resample about the estimate.
      low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
      ranges = np.clip(np.stack([2 * shares - high, 2 * shares - low], axis=1), 0, 1)
    moved = attack.ranges()
    return Found(shares, best.objective, ranges, moved[:, 1] - moved[:, 0])

  def _weights(self, worth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How often each fold counts when those with text of each category are drawn again.

    A sample and the training text's part of its category differ by the chance of both. With a
    sample `worth` [n] times as large as that part, this is the chance of a sample 1 + `worth` times
    smaller: so many fewer folds are drawn.
    """
    there = self._there.reshape(len(self.names), self._folds)
    drawn = [
      rng.multinomial(max(1, round(row.sum() / (1 + times))), row / row.sum())
      for row, times in zip(there, worth, strict=True)
    ]
    return np.concatenate(drawn).astype(float)


def tokens_per_byte(merges: MergeList, samples: Categories, most: int) -> np.ndarray:
  """Tokens a byte [n] of each category's sample under the first merges: the simple baseline."""
  pieces = [merges.pieces(documents) for documents in samples.values()]
  one = bpe_replay.replay(pieces, merges.merges[:most], merges.lengths, merges.overlap)
  return one.tokens[-1] / [sum(map(len, documents)) for documents in samples.values()]


def log_mse(shares: np.ndarray, truth: np.ndarray) -> float:
  """log10 of the mean squared error of shares [n]."""
  return float(np.log10(max(np.mean((shares - truth) ** 2), 1e-18)))


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
