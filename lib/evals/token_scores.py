# SPDX-License-Identifier: Apache-2.0
"""Scores of a model on examples of tokens, and their sums by document."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from lib import stats
from lib.models.decoder import LanguageModel
from lib.stats import Estimate
from lib.train.experiment import Batch, Variables


@dataclasses.dataclass(frozen=True)
class Scores:
  """A model's scores of N examples of up to T tokens; all are 0 where there is no token.

  Attributes:
    nats: float64 [N, T].
    bytes: int64 [N, T], the bytes that each token covers.
    real: bool [N, T].
    targets: int32 [N, T].
    documents: int64 [N], the document of each example.
    right: bool [N, T], whether the likeliest token is the target, if requested.
  """

  nats: np.ndarray
  bytes: np.ndarray
  real: np.ndarray
  targets: np.ndarray
  documents: np.ndarray
  right: np.ndarray | None = None

  def windows(self, size: int) -> np.ndarray:
    """The targets as windows of `size` tokens, int64 [W, size]; -1 where there is no token."""
    columns = -self.targets.shape[1] % size
    ids = np.where(self.real, self.targets, -1).astype(np.int64)
    return np.pad(ids, ((0, 0), (0, columns)), constant_values=-1).reshape(-1, size)

  def of_windows(self, nats: np.ndarray) -> np.ndarray:
    """Values [W, size] of `windows` in the places of the tokens, [N, T]."""
    return nats.reshape(len(self.targets), -1)[:, : self.targets.shape[1]]


def score(
  model: LanguageModel,
  variables: Variables,
  batches: Iterable[Batch],
  documents: np.ndarray,
  guess: bool = False,
) -> Scores:
  """The scores of the N rows with tokens of all batches, of documents [N]."""
  parts = []
  for batch in batches:
    some = batch['segments'][:, 0] > 0
    real, targets = batch['segments'][some] > 0, batch['targets'][some]
    nats = np.asarray(_nats(model)(variables, batch, jax.random.key(0)), np.float64)[some]
    right = np.asarray(_guess(model)(variables, batch))[some] == targets if guess else real
    parts.append((np.where(real, nats, 0), batch['bytes'][some], real, targets, right & real))
  nats, covered, real, targets, right = map(np.concatenate, zip(*parts))
  return Scores(nats, covered, real, targets, documents, right if guess else None)


@functools.cache
def _nats(model: LanguageModel) -> Callable:
  return jax.jit(model.apply)


@functools.cache
def _guess(model: LanguageModel) -> Callable:
  key = jax.random.key(0)
  logits: Callable[..., Any] = functools.partial(model.apply, method='logits')
  return jax.jit(lambda variables, batch: logits(variables, batch, key).argmax(axis=-1))


def contributions(
  seeds: Sequence[Scores], above: Sequence[np.ndarray], below: Sequence[np.ndarray]
) -> np.ndarray:
  """Contributions [S, D] of D documents to Σ above / Σ below, each [N, T] for each of S seeds."""
  by_document = lambda values: np.stack(
    [stats.by_group(one.sum(axis=1), s.documents) for one, s in zip(values, seeds, strict=True)]
  )
  return stats.contributions(by_document(above), by_document(below))


def per_byte(seeds: Sequence[Scores]) -> np.ndarray:
  """Contributions [S, D] to nats per byte."""
  return contributions(seeds, [s.nats for s in seeds], [s.bytes for s in seeds])


def places(count: int, window: int, position: int) -> np.ndarray:
  """Which of `count` tokens are number `position` (from 0) of their window, bool [count]."""
  return np.arange(count) % window == position


def by_position(values: np.ndarray, scores: Scores, window: int) -> list[Estimate]:
  """Means over tokens of values [N, T], 0 where there is no token, by position in the window."""
  where = [places(values.shape[1], window, k) for k in range(window)]
  sums = lambda part, w: part[:, w].sum(axis=1)
  return [stats.ratio(sums(values, w), sums(scores.real, w), scores.documents) for w in where]
