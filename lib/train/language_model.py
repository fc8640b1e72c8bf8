# SPDX-License-Identifier: Apache-2.0
"""A Flax language model as the pair of functions that the loop trains, and its held-out score."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lib.errors import InputError
from lib.train.experiment import Batch, Key, Variables


def loss_and_init(model: Any, penalised: bool = False) -> tuple[Callable, Callable]:
  """(init_fn, loss_fn) of a module whose call gives nats [B, T] of a batch.

  The loss is the mean over tokens; padding (segment 0) does not count, nor, where a batch has the
  field `scored`, do tokens for which that is 0, and the bytes that they cover.

  Args:
    model: the module.
    penalised: the module sows what else a token adds to the loss, [B, T], as embeddings with a
      z-loss do (`lib.embeddings.readout`). It is part of the loss alone, not of `nats`.
  """

  def init_fn(key: Key, batch: Batch) -> Variables:
    return model.init(key, batch, key)

  def loss_fn(variables: Variables, batch: Batch, key: Key):
    real = (batch['segments'] > 0) & (batch.get('scored', 1) > 0)
    total = lambda values: jnp.where(real, values, 0.0).sum()
    # A target that does not count is none: then all others weigh the same, which is quicker.
    batch = {**batch, 'targets': jnp.where(real, batch['targets'], -1)}
    penalty: jax.Array | float = 0.0
    if penalised:
      values, sown = model.apply(variables, batch, key, mutable='intermediates')
      (penalties,) = jax.tree.leaves(sown)
      penalty = total(penalties)
    else:
      values = model.apply(variables, batch, key)
    nats, tokens = total(values), real.sum()
    covered = (batch['bytes'] * batch.get('scored', 1)).sum()
    sums = {'nats': nats, 'bytes': covered, 'tokens': tokens}
    return (nats + penalty) / tokens, sums

  return init_fn, loss_fn


def held_out(
  loss_fn: Callable, batches: Iterable[Batch], seed: int = 0
) -> Callable[[Variables], Mapping[str, np.ndarray]]:
  """An evaluation: nats per byte, bits per byte and bytes per token over all of `batches`.

  Works on replicas too: sums with a leading axis give an array for each quantity. A batch is no
  independent unit, so there is no error here: score documents one by one for that.

  Raises:
    InputError: when it is called, if there are no batches.
  """
  key = jax.random.key(seed)
  fixed = functools.cache(lambda: [jax.device_put(dict(batch)) for batch in batches])
  sums = jax.jit(lambda variables, batch: loss_fn(variables, batch, key)[1])

  def evaluate(variables: Variables) -> dict[str, np.ndarray]:
    parts = jax.device_get([sums(variables, batch) for batch in fixed()])
    if not parts:
      raise InputError('there is nothing to evaluate on: ask for one held-out batch or more.')
    nats, size, tokens = (
      np.stack([np.asarray(part[name], np.float64) for part in parts])
      for name in ('nats', 'bytes', 'tokens')
    )
    rate = nats.sum(0) / size.sum(0)
    return {
      'nats_per_byte': rate,
      'bits_per_byte': rate / np.log(2),
      'bytes_per_token': size.sum(0) / tokens.sum(0),
    }

  return evaluate
