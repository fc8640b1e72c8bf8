# SPDX-License-Identifier: Apache-2.0
"""The learning rate of an arm is the best of a few by validation text, and a safe one."""

import math

import pytest

from experiments import rates
from lib.errors import InputError
from lib.train.loop import Diverged


def test_the_rate_of_the_lowest_loss_is_chosen_and_ties_go_to_the_lower():
  assert rates.choose((0.1, 0.01, 0.001), lambda rate: (math.log10(rate) + 2) ** 2) == 0.01
  assert rates.choose((0.1, 0.01), lambda rate: 1.0) == 0.01


@pytest.mark.parametrize(
  ('best', 'chosen', 'tried'),
  [
    (0.3, 0.27, [0.01, 0.03, 0.09, 0.27, 0.81]),
    (0.004, 0.00333, [0.01, 0.03, 0.09, 0.00333, 0.00111]),
    (0.03, 0.03, [0.01, 0.03, 0.09]),
    (100.0, 2.43, [0.01, 0.03, 0.09, 0.27, 0.81, 2.43]),  # at most three further ones
  ],
)
def test_a_best_rate_at_an_end_is_held_against_rates_beyond_it(best, chosen, tried):
  seen = []

  def loss(rate):
    seen.append(rate)
    return abs(math.log(rate / best))

  assert rates.choose((0.09, 0.01, 0.03), loss) == chosen
  assert seen == tried


def test_rates_that_diverge_are_never_chosen():
  def loss(rate):
    if rate > 0.5:
      raise Diverged('loss is nan')
    return math.nan if rate > 0.05 else 7.0

  assert rates.choose((1.0, 0.1, 0.01), loss) == 0.01
  with pytest.raises(InputError, match='diverged at each of the rates'):
    rates.choose((1.0, 0.1), loss)


def test_one_rate_costs_nothing():
  def loss(rate):
    raise AssertionError('no training is due')

  assert rates.choose((0.02,), loss) == 0.02
  with pytest.raises(InputError, match='must be positive'):
    rates.choose((), loss)
