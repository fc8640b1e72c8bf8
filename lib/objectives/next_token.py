# SPDX-License-Identifier: Apache-2.0
"""The cross-entropy of the next token, with all that a model adds to it by name.

A module adds a loss, or reports a metric, where it computes it:

  self.sow('losses', 'z_loss', penalties)
  self.sow('metrics', 'compression_ratio', ratio)

A value is a scalar, or an array [B, T] that is averaged over the scored tokens. Of one name in
several layers or modules, losses are summed and metrics averaged. Both are logged by their names.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lib.errors import InputError
from lib.parameters import initial_variables
from lib.train.experiment import SUMS, Batch, Key, Variables

LOGGED = ('loss', 'gradient_norm', 'bits_per_byte', 'tokens_per_second', 'seconds', 'steps')


def next_token(
  model: Any, weights: Mapping[str, float] | None = None
) -> tuple[Callable[[Key, Batch], Variables], Callable]:
  """(init_fn, loss_fn) of a module whose call gives nats [B, T] of a batch.

  The loss is the mean over the scored tokens plus the named losses times their weights. Padding
  (segment 0) is not scored, nor, where a batch has the field `scored`, are tokens for which that is
  0. Named losses are no part of `nats`, from which bits per byte are computed.

  Args:
    model: the module.
    weights: name -> weight of a named loss; 1 where it is not given. A schedule of that name
      (`Experiment.schedules`) multiplies it.

  Raises:
    InputError: when the loss is traced, if the module does not sow a loss in `weights`, or sows
      under a name that the training loop uses itself.
  """
  weights = weights or {}

  def init_fn(key: Key, batch: Batch) -> Variables:
    return initial_variables(model, key, batch)

  def loss_fn(variables: Variables, batch: Batch, key: Key):
    scored = (batch['segments'] > 0) & (batch.get('scored', 1) > 0)
    # Masked targets are set to −1, so the rest have equal weight and the loss takes its fast path.
    batch = {**batch, 'targets': jnp.where(scored, batch['targets'], -1)}
    values, sown = model.apply(variables, batch, key, mutable=('losses', 'metrics'))
    nats, tokens = jnp.where(scored, values, 0.0).sum(), scored.sum()
    losses = _named(sown.get('losses', {}), scored, jnp.sum)
    metrics = _named(sown.get('metrics', {}), scored, jnp.mean)
    _check(losses, metrics, weights)
    loss = nats / tokens
    for name, value in losses.items():
      loss += weights.get(name, 1.0) * batch.get(name, 1.0) * value
    covered = (batch['bytes'] * batch.get('scored', 1)).sum()
    named = {name: value * tokens for name, value in (losses | metrics).items()}
    return loss, {'nats': nats, 'bytes': covered, 'tokens': tokens} | named

  return init_fn, loss_fn


def _named(sown: Any, scored: jax.Array, join: Callable) -> dict[str, jax.Array]:
  """The mean over tokens of each value that was sown, those of one name joined."""
  found: dict[str, list[jax.Array]] = {}
  for path, value in jax.tree_util.tree_leaves_with_path(sown):
    value = jnp.asarray(value, jnp.float32)
    if value.shape[-2:] == scored.shape:
      real = jnp.broadcast_to(scored, value.shape)
      value = jnp.where(real, value, 0.0).sum((-2, -1)) / scored.sum()
    name = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)][-1]
    found.setdefault(name, []).append(value.ravel())
  return {name: join(jnp.concatenate(values)) for name, values in found.items()}


def _check(losses: Mapping, metrics: Mapping, weights: Mapping) -> None:
  for name in weights:
    if name not in losses:
      raise InputError(
        f'the weight of {name!r} applies to no loss: the model sows {", ".join(losses) or "none"}.'
      )
  for name in (*losses, *metrics):
    if name in (*LOGGED, *SUMS) or (name in losses and name in metrics):
      raise InputError(f'a loss or metric of the model cannot be called {name!r}: it is taken.')
