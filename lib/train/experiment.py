# SPDX-License-Identifier: Apache-2.0
"""The interface of recipes and the training loop."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

Batch = Mapping[str, Any]  # numpy or jax arrays whose leading axis is the batch
Variables = Mapping[str, Any]  # Flax collections; only 'params' is trained
Key = jax.Array
SUMS = ('nats', 'bytes', 'tokens')  # over the tokens of a batch, which every loss reports


@dataclasses.dataclass(frozen=True)
class Experiment:
  """One model to train: pytrees and functions of them, independent of a module system.

  Attributes:
    init_fn: (key, batch) -> variables.
    loss_fn: (variables, batch, key) -> (loss, aux). `loss` is the scalar to minimise; `aux` has
      sums over the tokens of the batch by name: at least `nats`, `bytes` and `tokens`, from which
      the loop reports bits per byte and tokens per second. It logs the others as means per token.
    batches: an iterable whose iterator yields batches for this process and can save and set its
      position (grain).
    evaluations: name -> (variables -> {quantity: value}), run on held-out data.
    schedules: name -> (step -> coefficient). In training every batch carries the values of its step
      under these names, as scalars; evaluations see none.
    batch_axis: the axis of every leaf of a batch that is split over processes and devices.
    initial: variables that training starts from instead of those of `init_fn`, such as another
      model's: numpy or jax arrays. They must have the names and shapes that `init_fn` gives, which
      is then only traced, and are cast to its dtypes. A run that resumes starts from its own
      checkpoint.
  """

  init_fn: Callable[[Key, Batch], Variables]
  loss_fn: Callable[[Variables, Batch, Key], tuple[jax.Array, Mapping[str, jax.Array]]]
  batches: Iterable[Batch]
  evaluations: Mapping[str, Callable[[Variables], Mapping[str, Any]]] = dataclasses.field(
    default_factory=dict
  )
  schedules: Mapping[str, Callable[[jax.Array], Any]] = dataclasses.field(default_factory=dict)
  batch_axis: int = 0
  initial: Variables | None = None
