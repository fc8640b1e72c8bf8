# SPDX-License-Identifier: Apache-2.0
"""Whole sequences of one length, scored and continued by a model that may draw random rows.

Each sequence has rows of its own, drawn by its place in its batch. `TrainedModel.id_loss` draws by
the place among all sequences, so that its rows are others.

Legend: B batch, N sequences, T length, V vocabulary.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np

from lib.data import pipeline
from lib.evals.in_context import Logits
from lib.language_model import TrainedModel
from lib.models.decoder import LanguageModel


def token_nats(model: TrainedModel, ids: np.ndarray, seed: int = 0) -> np.ndarray:
  """Nats [N, T] of whole documents, ids [N, T]; `seed` is of the draws of rows."""
  # 128 sequences a call, or fewer where the rows of each fill 2^28 numbers together.
  rows = model.module.embedding.vocab_size * model.module.decoder.dim
  size = min(128, max(1, 2**28 // rows), len(ids))
  parts = [ids[start : start + size] for start in range(0, len(ids), size)]
  keys = jax.random.split(jax.random.key(seed), len(parts))
  found = []
  for part, key in zip(parts, keys):
    full = np.resize(part, (size, ids.shape[1]))  # one shape, compiled once
    nats = _compiled(model.module)(model.variables, pipeline.whole(full, model.bos), key)
    found.append(np.asarray(nats)[: len(part)])
  return np.concatenate(found)


def reader(model: TrainedModel, seed: int = 0) -> Logits:
  """batch -> logits [B, T, V] under rows of each place in the batch, the same in every call."""
  logits, key = _compiled(model.module), jax.random.key(seed)
  return lambda batch: logits(model.variables, dict(batch), key, method='logits')


@functools.cache
def _compiled(module: LanguageModel) -> Callable:
  """`module.apply`, traced and compiled once for all equal modules."""
  return jax.jit(module.apply, static_argnames='method')
