# SPDX-License-Identifier: Apache-2.0
"""Paired comparison of two methods over seeds: an interval, and a test that they are equal.

A difference that is not significant is no evidence of equality. Two one-sided t-tests (TOST;
Schuirmann 1987) ask the right question: is the mean difference surely within a margin that was
stated beforehand?
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from lib.errors import InputError


class Paired(NamedTuple):
  """What n ≥ 2 paired differences say, taken as normal.

  Attributes:
    mean: of the differences.
    sem: standard error of the mean.
    low: lower end of the two-sided interval of the mean.
    high: its upper end.
    p_equivalent: p-value of TOST: small if the mean surely lies within ± margin.
    p_different: p-value of the two-sided t-test against 0.
  """

  mean: float
  sem: float
  low: float
  high: float
  p_equivalent: float
  p_different: float


def paired(differences: Sequence[float], margin: float, level: float = 0.95) -> Paired:
  """Interval and tests of the mean of paired differences.

  Args:
    differences: one for each pair, at least two.
    margin: the largest difference that is of no consequence, in their unit, above 0.
    level: of the interval.

  Raises:
    InputError: fewer than two differences, or a margin or a level that is none.
  """
  values = np.asarray(differences, np.float64)
  if values.size < 2 or margin <= 0 or not 0 < level < 1:
    raise InputError(
      f'{values.size} differences, margin {margin}, level {level}: an equivalence test needs two '
      'differences or more, a margin above 0 and a level between 0 and 1.'
    )
  mean, freedom = float(values.mean()), values.size - 1
  sem = float(values.std(ddof=1) / math.sqrt(values.size))
  half = sem * stats.t.ppf(0.5 + level / 2, freedom)
  # With a spread of 0 the quotients are infinite, or 0/0 at the edge itself: then undecided.
  quotient = lambda x: x / sem if sem else math.copysign(math.inf, x) if x else 0.0
  above = stats.t.sf(quotient(mean + margin), freedom)  # H0: mean ≤ −margin
  below = stats.t.cdf(quotient(mean - margin), freedom)  # H0: mean ≥ margin
  different = 2 * stats.t.sf(abs(quotient(mean)), freedom)
  return Paired(mean, sem, mean - half, mean + half, float(max(above, below)), float(different))
