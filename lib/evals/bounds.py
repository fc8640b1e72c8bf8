# SPDX-License-Identifier: Apache-2.0
"""The paper's bound on good dictionaries, in nats per character (arXiv 2404.08335)."""

import math

from lib.errors import InputError


def dictionary_bound(entropy_rate: float, delta: float, size: int) -> float:
  """H / (1-eps), eps = ln(1/delta) / (0.99 ln d): nats per character that some d-token unigram has.

  Recalled from the main theorem of arXiv 2404.08335, where every transition probability is at
  least delta; check it against the paper before quoting. Infinite where eps >= 1. It says nothing
  (see `vacuous`) until d is large: at delta = .2 and H = .5004 only d >= 346 brings it below ln 2.
  """
  if size < 2 or not 0 < delta < 1:
    raise InputError(
      f'The bound needs a dictionary of at least 2 tokens and delta in (0, 1); got {size}, {delta}.'
    )
  epsilon = math.log(1 / delta) / (0.99 * math.log(size))
  return entropy_rate / (1 - epsilon) if epsilon < 1 else math.inf


def vacuous(bound: float, unigram: float) -> bool:
  """Whether a bound admits losses that a unigram over characters already has."""
  return bound >= unigram
