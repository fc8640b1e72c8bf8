# SPDX-License-Identifier: Apache-2.0
"""The ideal lexinvariant predictor: against brute force, against its bounds, and its invariance."""

import itertools

import numpy as np
import pytest

from lib.data import markov
from lib.errors import InputError
from lib.evals import renaming


def sample(source, count, length, seed=0):
  documents = markov.MarkovDocuments(source, length, count, seed)
  return np.stack([np.frombuffer(documents[i], np.uint8) - 48 for i in range(count)])


def likelihood(source, sequence):
  value = source.stationary[sequence[0]]
  for before, after in itertools.pairwise(sequence):
    value *= source.kernel[before, after]
  return value


@pytest.mark.parametrize('size', [2, 3, 4])
def test_is_the_mean_likelihood_over_all_renamings(size):
  source = markov.random_kernel(1, size, seed=size)
  for sequence in sample(source, 5, 7):
    mean = np.mean([
      likelihood(source, np.array(names)[sequence])
      for names in itertools.permutations(range(size))
    ])  # fmt: skip
    nats = renaming.exact_bayes(source, sequence[None]).nats
    np.testing.assert_allclose(nats.sum(), -np.log(mean), rtol=1e-10)


def test_laws_are_laws_and_renaming_changes_nothing():
  source = markov.random_kernel(1, 5, seed=3)
  sequences = sample(source, 6, 40)
  prediction = renaming.exact_bayes(source, sequences)
  np.testing.assert_allclose(prediction.laws.sum(-1), 1, rtol=1e-9)
  names = np.array([3, 0, 4, 1, 2])
  renamed = renaming.exact_bayes(source, names[sequences])
  np.testing.assert_allclose(renamed.nats, prediction.nats, rtol=1e-8)
  np.testing.assert_allclose(renamed.laws[..., names], prediction.laws, atol=1e-9)


def test_regret_never_exceeds_log_d_factorial_and_l1_stays_below_the_bound():
  source = markov.random_kernel(1, 5, seed=1, concentration=0.5)
  sequences = sample(source, 40, 128)
  prediction = renaming.exact_bayes(source, sequences)
  regret = np.cumsum(prediction.nats - renaming.chain_nats(source, sequences), axis=1)
  assert regret.max() <= renaming.log_renamings(5) + 1e-9
  assert regret[:, -1].mean() > 0.8 * renaming.log_renamings(5)  # π is all but known by then
  distance = np.abs(prediction.laws - renaming.chain_laws(source, sequences)).sum(-1)
  for length in (16, 128):
    assert distance[:, :length].mean() < renaming.l1_bound(5, length)


def test_nothing_is_lost_where_names_mean_nothing():
  source = markov.MarkovSource(np.full((4, 4), 0.25))
  sequences = sample(source, 3, 20)
  np.testing.assert_allclose(renaming.exact_bayes(source, sequences).laws, 0.25)


@pytest.mark.parametrize('order', [0, 1])
def test_counting_equals_a_plain_count(order):
  sequence = np.array([0, 1, 0, 2, 0, 1])
  nats = renaming.counting_nats(sequence[None], 3, order)[0]
  for t in range(len(sequence)):
    past = sequence[:t]
    law = (np.bincount(past, minlength=3) + 1) / (t + 3)
    if order and t:
      followers = [after for before, after in itertools.pairwise(past) if before == past[-1]]
      law = (np.bincount(followers, minlength=3) + law) / (len(followers) + 1)
    np.testing.assert_allclose(nats[t], -np.log(law[sequence[t]]))


def test_the_bounds_have_the_derived_values():
  assert renaming.log_renamings(27) == pytest.approx(64.558, abs=1e-3)
  assert renaming.l1_bound(6, 256) == pytest.approx(0.2267, abs=1e-4)
  assert renaming.paper_l1_rate(6, 1024) == pytest.approx(0.2767, abs=1e-4)
  assert renaming.paper_sample_size(27, 0.2, 0.1) == pytest.approx(7e10, rel=0.1)
  # The sharper bound reaches ε = .2 at T = 2 log d! / ε².
  assert renaming.l1_bound(27, 3228) == pytest.approx(0.2, abs=1e-4)


def test_says_what_it_cannot_enumerate():
  with pytest.raises(InputError, match='at most 8 symbols; this one has order 1 and 9 symbols'):
    renaming.check(markov.random_kernel(1, 9, seed=0))
  with pytest.raises(InputError, match='order 2'):
    renaming.check(markov.switching(0.8, 0.8, 2))
  with pytest.raises(InputError, match='inside'):
    renaming.paper_sample_size(27, 0.6, 0.1)
