# SPDX-License-Identifier: Apache-2.0
"""Paired differences: intervals that cover, and an equivalence test that seldom errs."""

import numpy as np
import pytest
from scipy import stats

from lib.errors import InputError
from lib.evals.equivalence import paired


def test_interval_and_difference_are_those_of_a_paired_t_test():
  rng = np.random.default_rng(0)
  one, other = rng.normal(size=(2, 7))
  found = paired(one - other, 0.5, level=0.9)
  known = stats.ttest_rel(one, other)
  assert found.mean == pytest.approx((one - other).mean())
  assert found.p_different == pytest.approx(known.pvalue)
  low, high = known.confidence_interval(0.9)
  assert (found.low, found.high) == pytest.approx((low, high))


def test_equivalence_is_two_one_sided_tests():
  differences = np.random.default_rng(1).normal(0.1, 0.3, size=6)
  above = stats.ttest_1samp(differences, -0.4, alternative='greater').pvalue
  below = stats.ttest_1samp(differences, 0.4, alternative='less').pvalue
  assert paired(differences, 0.4).p_equivalent == pytest.approx(max(above, below))


def test_significance_agrees_with_the_interval_of_twice_the_level():
  # TOST at 5 % says "equivalent" exactly where the 90 % interval lies within the margin.
  for seed in range(200):
    differences = np.random.default_rng(seed).normal(0.05, 0.1, size=5)
    found = paired(differences, 0.12, level=0.9)
    inside = found.low > -0.12 and found.high < 0.12
    assert inside == (found.p_equivalent < 0.05)


def test_a_difference_as_large_as_the_margin_is_rarely_called_equivalent():
  draws = np.random.default_rng(0).normal(0.05, 0.02, size=(2000, 5))
  errors = np.mean([paired(one, 0.05).p_equivalent < 0.05 for one in draws])
  assert errors < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 2000)
  equal = np.mean([paired(one - 0.05, 0.05).p_equivalent < 0.05 for one in draws])
  assert equal > 0.9


def test_without_spread_the_margin_decides():
  assert paired([0.01, 0.01, 0.01], 0.05).p_equivalent == 0
  assert paired([0.06, 0.06], 0.05).p_equivalent == 1
  assert paired([0.0, 0.0], 0.05).p_different == 1


@pytest.mark.parametrize('arguments', [([0.1], 0.1), ([0.1, 0.2], 0.0), ([0.1, 0.2], 0.1, 1.0)])
def test_too_little_is_named(arguments):
  with pytest.raises(InputError, match='needs two differences or more'):
    paired(*arguments)
