# SPDX-License-Identifier: Apache-2.0
"""lib.stats against SciPy, and its intervals against simulated truth."""

import numpy as np
import pytest
from scipy import stats as reference

from lib import stats
from lib.errors import InputError


def test_a_mean_and_its_p_value_are_those_of_scipys_t_test():
  values = np.random.default_rng(0).normal(0.3, 1, 12)
  found = stats.mean(values)
  assert found.value == pytest.approx(values.mean())
  assert found.sem == pytest.approx(reference.sem(values))
  assert found.p_value() == pytest.approx(reference.ttest_1samp(values, 0).pvalue)
  low, high = reference.t.interval(0.95, 11, values.mean(), reference.sem(values))
  assert found.half_width() == pytest.approx((high - low) / 2)


def test_two_arms_are_the_paired_t_test():
  rng = np.random.default_rng(1)
  seed_effect = rng.normal(0, 5, 6)
  one, other = (seed_effect + rng.normal(mean, 1, 6) for mean in (1, 0))
  found = stats.arms({'one': one, 'other': other}, 'other')['one']
  assert found.df == 5
  assert found.p_value() == pytest.approx(reference.ttest_rel(one, other).pvalue)


def test_pooled_arms_have_the_residual_variance_of_a_two_way_layout():
  rng = np.random.default_rng(2)
  values = rng.normal(0, 1, (4, 5)) + rng.normal(0, 3, 5)
  found = stats.arms({str(k): row for k, row in enumerate(values)}, '0')
  design = np.zeros((20, 8))  # arms, then seeds but the first
  for arm in range(4):
    for seed in range(5):
      design[arm * 5 + seed, arm] = 1
      if seed:
        design[arm * 5 + seed, 3 + seed] = 1
  _, rest, rank, _ = np.linalg.lstsq(design, values.ravel(), rcond=None)
  assert rank == 8
  assert found['1'].df == 12 == 20 - rank
  assert found['1'].sem == pytest.approx(np.sqrt(2 * rest[0] / 12 / 5))


def covered(draw, truth: float, times: int = 400) -> float:
  """The share of 95 % intervals that hold the truth."""
  found = [draw(np.random.default_rng(seed)) for seed in range(times)]
  return float(np.mean([abs(one.value - truth) <= one.half_width() for one in found]))


@pytest.mark.parametrize('count', [2, 4])
def test_intervals_between_arms_hold_the_truth_19_times_in_20(count):
  def draw(rng):
    values = rng.normal(0, 1, (count, 3)) + rng.normal(0, 4, 3)
    return stats.arms({str(k): row for k, row in enumerate(values)}, '0')['1']

  assert 0.92 <= covered(draw, 0) <= 0.98


def test_stretches_of_one_document_are_not_independent():
  def draw(rng, grouped):
    documents = rng.normal(2, 1, 40)
    nats = np.repeat(documents, 8) + rng.normal(0, 0.3, 320)
    groups = np.repeat(np.arange(40), 8) if grouped else None
    return stats.ratio(nats, np.ones(320), groups)

  assert 0.92 <= covered(lambda rng: draw(rng, True), 2) <= 0.98
  assert covered(lambda rng: draw(rng, False), 2) < 0.7


def test_a_ratio_of_sums_is_that_of_all_text_and_its_error_that_of_the_jackknife():
  rng = np.random.default_rng(3)
  size = rng.integers(50, 500, 60).astype(float)
  nats = size * rng.normal(1.5, 0.3, 60)
  found = stats.ratio(nats, size)
  left_out = (nats.sum() - nats) / (size.sum() - size)
  jackknife = np.sqrt(59 / 60 * ((left_out - left_out.mean()) ** 2).sum())
  assert found.value == pytest.approx(nats.sum() / size.sum())
  assert found.sem == pytest.approx(jackknife, rel=0.05)
  assert (found.n, found.over, found.df) == ('60', 'documents', 59)


def test_seeds_crossed_with_documents_count_both():
  def draw(rng):
    values = 1 + rng.normal(0, 0.5, (5, 1)) + rng.normal(0, 1, (1, 30))
    return stats.crossed(values + rng.normal(0, 0.2, (5, 30)))

  assert 0.92 <= covered(draw, 1) <= 0.985
  rng = np.random.default_rng(0)
  found = draw(rng)
  assert found.n == '5×30'
  assert 4 <= found.df <= 33


def test_one_seed_decides_nothing():
  one = stats.crossed(np.random.default_rng(0).normal(size=(1, 20)))
  assert one.sem is not None
  assert (one.df, one.p_value(), one.half_width()) == (None, None, None)
  assert stats.mean([3.0]).sem is None
  pair = stats.arms({'a': [1.0], 'b': [2.0]}, 'a')['b']
  assert (pair.value, pair.sem, pair.p_value()) == (1.0, None, None)


def test_values_without_spread_cannot_be_tested():
  same = stats.mean([0.0, 0.0, 0.0])
  assert same.p_value() is None
  assert same.p_equivalent(0.1) is None
  third = 1 / 3
  for values in (
    [0.5] * 3,
    [third, third + 1e-16, third],
    [1e-17, -1e-17, 3e-17],
    [1e9, 1e9 + 1e-7],
  ):
    found = stats.mean(values)
    assert found.no_spread
    assert found.p_value() is found.p_value(0.5) is None
    assert found.p_equivalent(1.0) is found.p_equivalent(0.1, 0.5) is None
  for values in ([0.5, 0.5, 0.5 + 1e-6], [1e-9, -1e-9, 0.0]):
    assert not stats.mean(values).no_spread
    assert stats.mean(values).p_value(0.3) < 1e-6


def test_equivalence_is_shown_exactly_where_the_interval_lies_inside_the_margins():
  rng = np.random.default_rng(5)
  for _ in range(50):
    found = stats.mean(rng.normal(0.02, 0.05, 4))
    inside = abs(found.value) + found.half_width() <= 0.1
    assert (found.p_equivalent(0.1) <= 0.05) == inside
  with pytest.raises(InputError, match='positive'):
    found.p_equivalent(0)


def test_a_difference_as_large_as_the_margin_is_rarely_called_equivalent():
  draws = np.random.default_rng(0).normal(0.05, 0.02, size=(1000, 5))
  errors = np.mean([stats.mean(one).p_equivalent(0.05) <= 0.05 for one in draws])
  assert errors < 0.05
  equal = np.mean([stats.mean(one - 0.05).p_equivalent(0.05) <= 0.05 for one in draws])
  assert equal > 0.8


def test_the_difference_of_independent_estimates_is_welchs_test():
  rng = np.random.default_rng(6)
  one, other = rng.normal(0, 1, 8), rng.normal(0, 3, 15)
  found = stats.difference(stats.mean(one), stats.mean(other))
  welch = reference.ttest_ind(one, other, equal_var=False)
  assert found.p_value() == pytest.approx(welch.pvalue)
  assert found.df == pytest.approx(welch.df)


def test_holm_by_hand_and_its_error_rate():
  assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
  rng = np.random.default_rng(7)
  wrong = [min(stats.holm(rng.uniform(size=10).tolist())) <= 0.05 for _ in range(2000)]
  assert 0.035 <= np.mean(wrong) <= 0.065


def test_a_share_always_has_an_error():
  for hits in (0, 50):
    found = stats.share(np.arange(50) < hits)
    assert found.value == hits / 50
    assert found.sem > 0


def test_a_ratio_without_text_is_refused():
  with pytest.raises(InputError, match='positive denominator'):
    stats.ratio([1.0], [0.0])


def test_shares_have_an_error_even_where_every_answer_is_wrong():
  nothing = stats.shares(np.zeros((3, 200)))
  assert nothing.value == 0
  assert nothing.sem == pytest.approx(stats.share(np.zeros(200)).sem)
  assert (nothing.n, nothing.df) == ('3×200', pytest.approx(199, rel=0.1))
  assert stats.shares(np.zeros(200)).df is None  # one seed
  rng = np.random.default_rng(4)
  found, sems = [], []
  for _ in range(400):
    of_seeds = rng.normal(0.5, 0.1, (3, 1))
    one = stats.shares(rng.random((3, 100)) < of_seeds)
    found.append(one.value)
    sems.append(one.sem)
  assert np.mean(np.square(sems)) > np.var(found)  # on the safe side


def test_the_jackknife_of_a_mean_is_crossed_and_of_ratios_covers_the_truth():
  rng = np.random.default_rng(5)
  above, below = rng.normal(3, 1, (3, 40)), np.ones((3, 40))
  mean = stats.jackknife(lambda total: total[0] / total[1], np.stack([above, below], -1))
  crossed = stats.crossed(above)
  assert mean.value == pytest.approx(crossed.value)
  assert mean.sem == pytest.approx(crossed.sem)
  assert mean.df == pytest.approx(crossed.df)
  assert mean.n == '3×40'
  shrinks = lambda total: (total[0] / total[2]) / (total[1] / total[2])
  inside = 0
  for _ in range(300):
    seeds, documents = rng.normal(0, 0.05, (3, 1, 3)), rng.normal(0, 0.3, (1, 40, 3))
    sums = np.array([4.0, 2.0, 1.0]) + seeds + documents + rng.normal(0, 0.1, (3, 40, 3))
    one = stats.jackknife(shrinks, sums)
    inside += abs(one.value - 2) < one.half_width()
  assert inside > 0.93 * 300  # 95 % intervals, on the safe side
  assert stats.jackknife(shrinks, sums[:1]).df is None
