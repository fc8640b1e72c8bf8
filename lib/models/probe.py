# SPDX-License-Identifier: Apache-2.0
"""Probes that read the symbols behind random rows from hidden vectors, also as a training aid.

Legend: B batch, T length, V vocabulary, D model width, L layers.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lib.models.decoder import LanguageModel, make_norm
from lib.parameters import declare_flops


class Probe(nn.Module):
  """Predicts the symbol from a hidden vector: a norm and a trained matrix.

  Attributes:
    vocab_size: V.
    mlp_dim: inner width of a two-layer MLP before the matrix, the probe of arXiv 2305.16349
      (section 3.3); 0 for none.
  """

  vocab_size: int
  mlp_dim: int = 0

  @nn.compact
  def __call__(self, hidden: jax.Array) -> jax.Array:
    """Logits [..., V] (float32) of hidden vectors [..., D]."""
    dim = hidden.shape[-1]
    declare_flops(self, 2 * dim * (2 * self.mlp_dim + self.vocab_size))
    x_nd = make_norm('rms', False, jnp.float32, 'norm')(hidden.reshape(-1, dim))
    if self.mlp_dim:
      x_nd = nn.Dense(dim, name='down')(nn.relu(nn.Dense(self.mlp_dim, name='up')(x_nd)))
    logits = nn.Dense(self.vocab_size, use_bias=False, name='symbols')(x_nd)
    return logits.reshape(*hidden.shape[:-1], self.vocab_size)


class Deciphering(nn.Module):
  """A language model with an auxiliary loss: a probe predicts the current symbol from each layer.

  The probes have a vocabulary axis and are used in training alone; `params['model']` is the model.

  Attributes:
    model: over random rows.
    layers: L of its decoder.
  """

  model: LanguageModel
  layers: int

  @nn.compact
  def __call__(self, batch: Mapping[str, jax.Array], key: jax.Array) -> jax.Array:
    """Nats [B, T] of the targets. The probes' mean nats of the inputs are the loss 'decipher'."""
    rows = self.model.embedding.sample_rows(key, batch)
    hidden, streams = self.model.hidden(batch, rows)
    axes: dict[Any, Any] = {'params': 0, 'flops': 0}
    probes = nn.vmap(Probe, variable_axes=axes, split_rngs={'params': True})
    logits = probes(self.model.embedding.vocab_size, name='probes')(streams)
    known = batch['inputs'] < logits.shape[-1]
    inputs = jnp.minimum(batch['inputs'], logits.shape[-1] - 1)
    picked = jnp.take_along_axis(logits, inputs[None, ..., None], axis=-1)[..., 0]
    told = (jax.nn.logsumexp(logits, axis=-1) - picked).mean(axis=0)
    read = (batch['segments'] > 0) & known
    self.sow('losses', 'decipher', jnp.where(read, told, 0.0).sum() / read.sum())
    return self.model.embedding.token_loss(hidden, batch['targets'], rows)
