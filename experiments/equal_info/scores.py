# SPDX-License-Identifier: Apache-2.0
"""What a model scores on examples of tokens, summed by document."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

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
    documents: int64 [N], the document that each example is cut from.
  """

  nats: np.ndarray
  bytes: np.ndarray
  real: np.ndarray
  targets: np.ndarray
  documents: np.ndarray

  def windows(self, size: int) -> np.ndarray:
    """The targets as windows of `size` tokens, int64 [W, size]; -1 where there is no token."""
    columns = -self.targets.shape[1] % size
    ids = np.where(self.real, self.targets, -1).astype(np.int64)
    return np.pad(ids, ((0, 0), (0, columns)), constant_values=-1).reshape(-1, size)

  def of_windows(self, nats: np.ndarray) -> np.ndarray:
    """Values [W, size] of `windows` in the places of the tokens, [N, T]."""
    return nats.reshape(len(self.targets), -1)[:, : self.targets.shape[1]]


def scorer(
  model: LanguageModel,
) -> Callable[[Variables, Iterator[Batch], np.ndarray], Scores]:
  """(variables, batches, documents [N]) -> the scores of the N rows that hold a token."""
  apply = jax.jit(model.apply)
  key = jax.random.key(0)

  def score(variables: Variables, batches: Iterator[Batch], documents: np.ndarray) -> Scores:
    parts = [[], [], [], []]  # type: ignore[var-annotated]
    for batch in batches:
      some = batch['segments'][:, 0] > 0
      real = batch['segments'][some] > 0
      nats = np.asarray(apply(variables, batch, key), np.float64)[some]
      found = (np.where(real, nats, 0), batch['bytes'][some], real, batch['targets'][some])
      for part, values in zip(parts, found, strict=True):
        part.append(values)
    nats, covered, real, targets = map(np.concatenate, parts)
    return Scores(nats, covered, real, targets, documents)

  return score


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


def per_token(seeds: Sequence[Scores], where: np.ndarray | slice = slice(None)) -> Estimate:
  """Nats per token, of the tokens at the places `where` of each example."""
  nats, real = [s.nats[:, where] for s in seeds], [s.real[:, where] for s in seeds]
  return stats.crossed(contributions(seeds, nats, real))


def places(count: int, window: int, position: int) -> np.ndarray:
  """Which of `count` tokens are number `position` (from 0) of their window, bool [count]."""
  return np.arange(count) % window == position
