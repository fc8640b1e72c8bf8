# SPDX-License-Identifier: Apache-2.0
"""Several seeds of an experiment trained at once, as one experiment with a replica axis."""

import dataclasses
from collections.abc import Iterable

import jax
import jax.numpy as jnp

from lib.train.experiment import Batch, Experiment


def replicate(experiment: Experiment, count: int, batches: Iterable[Batch]) -> Experiment:
  """`count` independent models under `vmap`.

  The total loss is the sum over replicas, so each replica's gradient is its own and an
  elementwise optimiser (AdamW without clipping) trains each replica independently.

  Args:
    experiment: one replica; its evaluations and `initial` must already have the replica axis.
    count: R, replicas.
    batches: batches whose leaves have a leading axis R.
  """

  def init_fn(key, batch):
    return jax.vmap(experiment.init_fn)(jax.random.split(key, count), batch)

  def loss_fn(variables, batch, key):
    axes = {name: 0 if jnp.ndim(values) else None for name, values in batch.items()}
    keys = jax.random.split(key, count)
    losses, aux = jax.vmap(experiment.loss_fn, in_axes=(0, axes, 0))(variables, batch, keys)
    return losses.sum(), aux

  return dataclasses.replace(
    experiment, init_fn=init_fn, loss_fn=loss_fn, batches=batches, batch_axis=1
  )
