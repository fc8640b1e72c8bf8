# SPDX-License-Identifier: Apache-2.0
"""Data mixture inference: exact laws of the linear program, on small random text."""

import numpy as np
import pytest

from experiments.mixture import attack, exact
from lib.errors import InputError
from lib.evals.mixture import Attack
from lib.tokenizers import merge_lists, registry

RNG = np.random.default_rng(0)
LAWS = RNG.dirichlet(np.full(8, 0.4), 3)  # of the letters of three categories


def text(law, size):
  return bytes(RNG.choice(list(b'abcdefgh'), size, p=law).tolist())


TRAINING = {f'law {i}': [text(law, 1500) for _ in range(i + 1)] for i, law in enumerate(LAWS)}
SAMPLES = {f'law {i}': [text(law, 4000)] for i, law in enumerate(LAWS)}


@pytest.fixture(scope='module')
def merges():
  documents = [one for part in TRAINING.values() for one in part]
  return merge_lists.of(registry.train('bpe_unsplit', documents, 256 + 40), lines=False)


def attacked(merges, samples, most=10):
  replayed = exact.replayed(merges, samples)
  return Attack(replayed, most=most), replayed


def test_the_true_shares_explain_every_merge_of_the_training_text(merges):
  one, replayed = attacked(merges, TRAINING)
  first = slice(replayed.offsets[1])
  pairs = np.bincount(replayed.sample[first], replayed.change[first])
  assert one.solve(pairs / pairs.sum()).objective == 0
  assert one.solve().objective == 0
  assert one.solve(np.array([1.0, 0.0, 0.0])).objective > 0.01
  assert attacked(merges, SAMPLES)[0].solve().objective > 0


def test_rows_made_when_violated_give_the_objective_of_all_rows(merges):
  for most in (1, 10):
    one, replayed = attacked(merges, SAMPLES, most)
    assert one.solve().objective == pytest.approx(exact.full(replayed, 3, 40), abs=1e-9)


def test_shares_are_near_the_truth_and_do_not_depend_on_order_or_copies(merges):
  found = attacked(merges, SAMPLES)[0].solve().shares
  np.testing.assert_allclose(found, [1 / 6, 2 / 6, 3 / 6], atol=0.12)
  turned = attacked(merges, dict(reversed(SAMPLES.items())))[0].solve().shares
  np.testing.assert_allclose(turned[::-1], found, atol=1e-7)
  copied = SAMPLES | {'law 1': SAMPLES['law 1'] * 3}
  np.testing.assert_allclose(attacked(merges, copied)[0].solve().shares, found, atol=1e-7)


def test_of_two_equal_categories_only_the_sum_is_known(merges):
  alone = attacked(merges, SAMPLES)[0].solve().shares
  one = attacked(merges, SAMPLES | {'again': SAMPLES['law 2']})[0]
  found = one.solve().shares
  assert found[2] + found[3] == pytest.approx(alone[2], abs=1e-7)
  low, high = one.ranges(slack=0.0)[3]
  assert low == pytest.approx(0, abs=1e-6)
  assert high == pytest.approx(alone[2], abs=1e-6)


def test_ranges_of_imitated_attacks_hold_the_truth(merges):
  samples = {
    name: [one[i : i + 200] for i in range(0, 4000, 200)] for name, (one,) in SAMPLES.items()
  }
  tried = attack.imitate(merges, samples, 40, 10, 9000, np.random.default_rng(0))
  low, high = tried.ranges(attack.Samples(merges, samples, 40).shares(40)).T
  truth = np.array([1, 2, 3]) / 6
  assert np.all((low <= truth) & (truth <= high))
  assert np.all(high - low < 0.7)
  assert tried.p_value > 0.05
  fewer = {name: samples[name] for name in ('law 0', 'law 1')}  # without half of the text
  found = attack.imitate(merges, fewer, 40, 19, 9000, np.random.default_rng(0))
  assert found.p_value == 0.05


def test_errors_of_guesses_are_those_of_the_closed_forms():
  n, rng = 5, np.random.default_rng(0)
  truths, guesses = rng.dirichlet(np.ones(n), (2, 20_000))
  uniform = np.mean((truths - 1 / n) ** 2)
  assert uniform == pytest.approx((n - 1) / (n**2 * (n + 1)), rel=0.03)
  assert np.mean((truths - guesses) ** 2) == pytest.approx(2 * uniform, rel=0.03)


def test_a_regression_on_tokens_a_byte_finds_a_law_that_there_is():
  truths = np.random.default_rng(0).dirichlet(np.ones(4), 12)
  features = np.exp(-0.5 * truths + np.array([0.1, 0.2, 0.3, 0.4]))
  guess = attack.regressed(features[1:], truths[1:], features[0])
  np.testing.assert_allclose(guess, truths[0], atol=1e-6)


def test_tokenizers_that_cannot_be_attacked_are_refused(merges):
  with pytest.raises(InputError, match='two categories or more; got one'):
    attacked(merges, {'law 0': SAMPLES['law 0']})
  with pytest.raises(InputError, match='none of the pairs'):
    attacked(merges, {'one': [b'xyz'], 'other': [b'zyx']})
