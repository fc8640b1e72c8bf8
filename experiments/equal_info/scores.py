# SPDX-License-Identifier: Apache-2.0
"""What a model scores on examples of tokens, by token, byte and place in the window."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from lib.evals import ngram
from lib.models.decoder import LanguageModel
from lib.report.results import mean_and_sem
from lib.train.experiment import Batch, Variables


@dataclasses.dataclass(frozen=True)
class Scores:
  """A model's score of N examples of up to T tokens; all 0 where there is no token.

  Attributes:
    nats: float64 [N, T].
    bytes: int64 [N, T], what each token covers.
    real: bool [N, T].
    targets: int32 [N, T].
  """

  nats: np.ndarray
  bytes: np.ndarray
  real: np.ndarray
  targets: np.ndarray

  def per_byte(self) -> tuple[float, float]:
    """Nats a byte and the standard error over examples."""
    return ratio(self.nats, self.bytes)

  def per_token(self, first: int = 0) -> tuple[float, float]:
    """Nats a token and the standard error over examples, from token `first` of each on."""
    return ratio(self.nats[:, first:], self.real[:, first:])


def ratio(above: np.ndarray, below: np.ndarray) -> tuple[float, float]:
  """Σ above / Σ below, and the error over rows [N, …]."""
  return ngram.per_character(above.sum(axis=1), below.sum(axis=1), len(above))


def scorer(model: LanguageModel) -> Callable[[Variables, Iterator[Batch]], Scores]:
  """(variables, batches) -> the scores of all rows that hold a token."""
  apply = jax.jit(model.apply)
  key = jax.random.key(0)

  def score(variables: Variables, batches: Iterator[Batch]) -> Scores:
    parts = [[], [], [], []]  # type: ignore[var-annotated]
    for batch in batches:
      some = batch['segments'][:, 0] > 0
      real = batch['segments'][some] > 0
      nats = np.asarray(apply(variables, batch, key), np.float64)[some]
      found = (np.where(real, nats, 0), batch['bytes'][some], real, batch['targets'][some])
      for part, values in zip(parts, found, strict=True):
        part.append(values)
    return Scores(*map(np.concatenate, parts))

  return score


def by_position(values: np.ndarray, real: np.ndarray, window: int) -> np.ndarray:
  """Means [window] of values [N, T] by their position in the window."""
  place = np.arange(values.shape[1]) % window
  return np.array(
    [values[:, place == k][real[:, place == k]].mean() for k in range(window)]
  )  # fmt: skip


def over_seeds(values: Sequence[tuple[float, float]]) -> tuple[float, float | None]:
  """Mean and error of (value, error over text) of each seed: over seeds if there are several."""
  if len(values) == 1:
    return values[0]
  return mean_and_sem([value for value, _ in values])
