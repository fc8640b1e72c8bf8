# SPDX-License-Identifier: Apache-2.0
"""The learning rate of an arm: the best of a few, by validation text, and not at their end."""

import math
from collections.abc import Callable, Sequence

from lib.errors import InputError
from lib.train.loop import Diverged

FURTHER = 3  # most rates that are tried beyond those that are given


def choose(rates: Sequence[float], validation_loss: Callable[[float], float]) -> float:
  """The rate of the lowest validation loss; of equal ones the lowest rate.

  While the best rate is the lowest or the highest, one beyond it is tried as well, at the distance
  of the last two, at most `FURTHER` times. A rate at which training diverges, or whose loss is not
  a number, counts as infinitely bad. A single rate is returned without training.

  Args:
    rates: candidates, such as three that are a factor of three apart.
    validation_loss: rate -> loss on validation text after (a part of) the training.

  Raises:
    InputError: no rate, or training diverges at all of them.
  """
  if not rates or min(rates) <= 0:
    raise InputError(f'learning rates to choose from must be positive; got {tuple(rates)}.')
  if len(rates) == 1:
    return float(rates[0])
  losses = {rate: _loss(validation_loss, rate) for rate in sorted(rates)}
  best = min(losses, key=lambda rate: losses[rate])
  if math.isinf(losses[best]):
    raise InputError(f'training diverged at each of the rates {tuple(rates)}: give lower ones.')
  for _ in range(FURTHER):
    low, *_, high = tried = sorted(losses)
    if best not in (low, high):
      break
    beyond = low * low / tried[1] if best == low else high * high / tried[-2]
    beyond = float(f'{beyond:.3g}')
    losses[beyond] = _loss(validation_loss, beyond)
    if losses[beyond] >= losses[best]:
      break
    best = beyond
  return float(best)


def _loss(validation_loss: Callable[[float], float], rate: float) -> float:
  try:
    found = float(validation_loss(rate))
  except Diverged:
    return math.inf
  return found if math.isfinite(found) else math.inf
