# SPDX-License-Identifier: Apache-2.0
"""Sequences of one length, scored and continued by a model that may sample random rows.

Each sequence has its own rows, sampled by its place in its batch. `TrainedModel.id_loss` samples by
the place among all sequences, so its rows differ.

Legend: B batch, N sequences, T length, V vocabulary.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from lib.data import pipeline
from lib.decoding import sampling
from lib.errors import InputError
from lib.language_model import TrainedModel
from lib.models.decoder import LanguageModel
from lib.tasks.look_up import Generate


def token_nats(model: TrainedModel, ids: np.ndarray, seed: int = 0) -> np.ndarray:
  """Nats [N, T] of whole documents, ids [N, T]; `seed` is of the sampled rows."""
  # 128 sequences per call, or fewer if their rows would exceed 2^28 numbers.
  rows = model.module.embedding.vocab_size * model.module.decoder.dim
  size = min(128, max(1, 2**28 // rows), len(ids))
  parts = [ids[start : start + size] for start in range(0, len(ids), size)]
  keys = jax.random.split(jax.random.key(seed), len(parts))
  found = []
  for part, key in zip(parts, keys):
    full = np.resize(part, (size, ids.shape[1]))  # one shape, compiled once
    nats = _compiled(model.module)(
      model.variables, pipeline.batch_from_ids(full, model.first_id), key
    )
    found.append(np.asarray(nats)[: len(part)])
  return np.concatenate(found)


def generator(
  model: TrainedModel,
  seed: int = 0,
  length: int | None = None,
  batch_size: int | None = None,
  **fields: ArrayLike,
) -> Generate:
  """(prompts, count) -> the likeliest ids after each, under rows of each place in a batch.

  Args:
    model: the model.
    seed: of the rows.
    length: places of a text, for prompt and answer; by default the number needed.
    batch_size: prompts in a batch; all prompts by default.
    fields: further fields of the batch for the embedding.
  """
  module, variables, key = model.module, model.variables, jax.random.key(seed)

  def generate(prompts: Sequence[np.ndarray], count: int) -> np.ndarray:
    texts = [[model.first_id, *prompt.tolist()] for prompt in prompts]
    size, needed = batch_size or len(texts), max(map(len, texts)) - 1 + count
    slots = length or needed
    if slots < needed:
      raise InputError(f'Prompt and answer take up to {needed} tokens; got places for {slots}.')
    texts += [texts[0][:1]] * (-len(texts) % size)  # so that all batches have one shape
    batch = {'inputs': np.zeros((size, slots), np.int32), **fields}
    rows = _compiled(module)(variables, key, batch, method=_sample_rows)
    found: list[np.ndarray] = []
    for start in range(0, len(texts), size):
      found += sampling.sample(
        module, variables, texts[start : start + size], limit=count, slots=slots,
        keys=jax.random.split(key, size), how=sampling.GREEDY, rows=rows,
      )  # fmt: skip
    return np.stack(found[: len(prompts)])

  return generate


def _sample_rows(module: LanguageModel, key: jax.Array, batch: Mapping[str, jax.Array]) -> Any:
  return module.embedding.sample_rows(key, batch)


@functools.cache
def _compiled(module: LanguageModel) -> Callable:
  """`module.apply`, traced and compiled once for all equal modules."""
  return jax.jit(module.apply, static_argnames='method')
