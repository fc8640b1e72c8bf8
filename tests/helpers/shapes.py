# SPDX-License-Identifier: Apache-2.0
"""A training step by shapes alone."""

import jax

from lib.parallel import sharding
from lib.train import optimizer
from lib.train.state import prepare


def check(experiment, mesh, batch=None):
  """Traces one step on a batch of the experiment; returns the abstract state."""
  batch = dict(next(iter(experiment.batches))) if batch is None else batch
  batch = sharding.global_batch(batch, mesh, experiment.batch_axis)
  chain = optimizer.make_optimizer('adamw', lambda _: 1e-3)
  training = prepare(experiment, chain, batch, 0, mesh)
  after, metrics = jax.eval_shape(training.step, training.shapes, batch)
  of = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
  assert of(after) == of(training.shapes)
  assert {'loss', 'nats', 'bytes', 'tokens', 'gradient_norm'} <= set(metrics)
  return training.shapes
