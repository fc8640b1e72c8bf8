# SPDX-License-Identifier: Apache-2.0
"""Several trained models that predict by the mean of their logits."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lib.language_model.trained_model import TrainedModel
from lib.models.decoder import LanguageModel

Batch = Mapping[str, Any]


def row_loss(models: Sequence[TrainedModel], batch: Batch) -> np.ndarray:
  """As `TrainedModel.row_loss`, nats [B, T]; all models have one module, without random rows."""
  if len(models) == 1:
    return models[0].row_loss(batch)
  return np.asarray(_loss(models[0].module)([one.variables for one in models], batch))


@functools.cache
def _loss(module: LanguageModel) -> jax.stages.Wrapped:
  """(variables of several models, batch) -> nats [B, T]."""

  @jax.jit
  def of_batch(several: Sequence[Mapping], batch: Batch) -> jax.Array:
    def of_row(example: Batch) -> jax.Array:
      alone = jax.tree.map(lambda leaf: leaf[None], example)
      logits: list[Any] = [module.apply(one, alone, None, method='logits') for one in several]
      log_probs = jax.nn.log_softmax(jnp.stack(logits).mean(axis=0))
      return -jnp.take_along_axis(log_probs, alone['targets'][..., None], axis=-1)[0, :, 0]

    return jax.lax.map(of_row, dict(batch))  # row by row, since logits are stored

  return of_batch
