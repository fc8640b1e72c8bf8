# SPDX-License-Identifier: Apache-2.0
"""Bits per byte of a model on held-out batches, for the history of its training."""

import functools
from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np

from lib.errors import InputError
from lib.train.experiment import SUMS, Batch, Variables


def held_out(
  loss_fn: Callable, batches: Iterable[Batch], seed: int = 0
) -> Callable[[Variables], Mapping[str, np.ndarray]]:
  """An evaluation: nats per byte, bits per byte and bytes per token over all of `batches`.

  Works on replicas too: sums with a leading axis give an array for each quantity. The batches are
  not independent, so there is no standard error here: score documents one by one for that.

  Raises:
    InputError: when it is called, if there are no batches.
  """
  key = jax.random.key(seed)
  fixed = functools.cache(lambda: [jax.device_put(dict(batch)) for batch in batches])

  @jax.jit
  def sums(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
    found = loss_fn(variables, batch, key)[1]
    return {name: found[name] for name in SUMS}

  def evaluate(variables: Variables) -> dict[str, np.ndarray]:
    parts = jax.device_get([sums(variables, batch) for batch in fixed()])
    if not parts:
      raise InputError('there is nothing to evaluate on: ask for one held-out batch or more.')
    nats, size, tokens = (
      np.stack([np.asarray(part[name], np.float64) for part in parts]) for name in SUMS
    )
    rate = nats.sum(0) / size.sum(0)
    return {
      'nats_per_byte': rate,
      'bits_per_byte': rate / np.log(2),
      'bytes_per_token': size.sum(0) / tokens.sum(0),
    }

  return evaluate
