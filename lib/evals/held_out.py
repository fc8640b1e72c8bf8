# SPDX-License-Identifier: Apache-2.0
"""Bits per byte of a model on held-out batches, for the history of its training."""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np

from lib.errors import InputError
from lib.parallel import processes
from lib.train.experiment import SUMS, Batch, Variables


def held_out(
  loss_fn: Callable, batches: Iterable[Batch], seed: int = 0
) -> Callable[[Variables], Mapping[str, np.ndarray]]:
  """An evaluation: nats per byte, bits per byte and bytes per token over all of `batches`.

  Works on replicas too: sums with a leading axis give an array for each quantity. The batches are
  not independent, so there is no standard error here; for one, score documents separately. Each of
  several processes scores its share of the batches; all have the same result.

  Raises:
    InputError: when it is called, if there are no batches.
  """
  key = jax.random.key(seed)

  @functools.cache
  def own() -> list[Batch]:
    share = itertools.islice(batches, jax.process_index(), None, jax.process_count())
    return [jax.device_put(dict(batch)) for batch in share]

  @jax.jit
  def sums(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
    found = loss_fn(variables, batch, key)[1]
    return {name: found[name] for name in SUMS}

  def evaluate(variables: Variables) -> dict[str, np.ndarray]:
    scored = jax.device_get([sums(variables, batch) for batch in own()])
    shares = processes.gathered([[part[name].tolist() for name in SUMS] for part in scored])
    # Batch i was scored by process i mod their number: back into one order, for equal sums.
    parts = [part for turn in itertools.zip_longest(*shares) for part in turn if part is not None]
    if not parts:
      raise InputError('there is no held-out batch to evaluate on: ask for 1 or more.')
    nats, size, tokens = (np.array(values, np.float64) for values in zip(*parts, strict=True))
    rate = nats.sum(0) / size.sum(0)
    return {
      'nats_per_byte': rate,
      'bits_per_byte': rate / np.log(2),
      'bytes_per_token': size.sum(0) / tokens.sum(0),
    }

  return evaluate
