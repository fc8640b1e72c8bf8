# SPDX-License-Identifier: Apache-2.0
"""A probe that reads the current symbol from the hidden vectors of a frozen language model.

Legend: B batch, N sequences, T length, V vocabulary.
"""

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from lib.data import pipeline
from lib.language_model import TrainedModel
from lib.models.decoder import LanguageModel
from lib.models.probe import Probe
from lib.train.experiment import Batch, Experiment, Variables

BATCH_SEQUENCES = 128


class Probing:
  """The training of a probe and what it reads; the model is a collection without gradients.

  Args:
    model: whose final hidden vectors are read.
    probe: vectors to logits of the symbols.
  """

  def __init__(self, model: TrainedModel, probe: Probe):
    self.frozen = jax.device_get(
      model.variables['params']
    )  # a state that can be sharded on any mesh
    self._size = size = model.module.embedding.vocab_size

    @jax.jit
    def read(variables: Variables, batch: Batch, key: jax.Array) -> jax.Array:
      frozen = {'params': variables['frozen']}
      hidden = model.module.apply(frozen, batch, key, method=_final_hidden)
      return cast(jax.Array, probe.apply({'params': variables['params']}, hidden))

    def init_fn(key: jax.Array, batch: Batch) -> Variables:
      params = probe.init(key, jnp.zeros((1, 1, model.module.decoder.dim)))['params']
      return {'params': params, 'frozen': self.frozen}

    def loss_fn(variables: Variables, batch: Batch, key: jax.Array):
      known = (batch['segments'] > 0) & (batch['inputs'] < size)
      symbols = jnp.minimum(batch['inputs'], size - 1)
      log_p = jax.nn.log_softmax(read(variables, batch, key))
      nats = -jnp.take_along_axis(log_p, symbols[..., None], axis=-1)[..., 0]
      total = jnp.where(known, nats, 0.0).sum()
      sums = {'nats': total, 'bytes': batch['bytes'].sum(), 'tokens': known.sum()}
      return total / known.sum(), sums

    self.read: Callable[[Variables, Batch, jax.Array], jax.Array] = read
    self.experiment = Experiment(init_fn, loss_fn, batches=())

  def logits(self, variables: Variables, ids: np.ndarray) -> np.ndarray:
    """Logits [N, T - 1, V] of all symbols of ids [N, T] but the last, which is no input."""
    parts = np.array_split(ids, -(-len(ids) // BATCH_SEQUENCES))
    keys = jax.random.split(jax.random.key(0), len(parts))
    batches = [pipeline.batch_from_ids(part, self._size) for part in parts]
    found = [self.read(variables, batch, key) for batch, key in zip(batches, keys)]
    return np.concatenate([np.asarray(one)[:, 1:] for one in found])


def _final_hidden(model: LanguageModel, batch: Batch, key: jax.Array) -> jax.Array:
  return model.hidden(batch, model.embedding.sample_rows(key, batch))[0]
