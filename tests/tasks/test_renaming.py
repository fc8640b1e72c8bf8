# SPDX-License-Identifier: Apache-2.0
"""The exact lexinvariant predictor: brute force, invariance, its bounds, and counting beside it."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from lib import stats
from lib.errors import InputError
from lib.tasks.markov import chains, renaming

some_chain = st.builds(
  chains.random_kernel, st.just(1), st.integers(2, 4), st.integers(0, 99), st.floats(0.3, 3)
)


def sample(source, count, length, seed=0):
  documents = chains.MarkovDocuments(source, length, count, seed)
  return np.stack([np.frombuffer(documents[i], np.uint8) - 48 for i in range(count)])


def log_likelihoods(source, sequence):
  """[d!, T] log p of every prefix under every renaming."""
  found = []
  for names in itertools.permutations(range(source.alphabet_size)):
    roles = np.array(names)[sequence]
    steps = source.kernel[roles[:-1], roles[1:]]
    found.append(np.cumsum(np.log(np.append(source.stationary[roles[0]], steps))))
  return np.array(found)


@settings(max_examples=30, deadline=None)
@given(some_chain, st.data())
def test_every_prefix_has_its_mean_likelihood_over_all_renamings(source, data):
  # Any sequence of the alphabet, likely or not.
  symbols = st.lists(st.integers(0, source.alphabet_size - 1), min_size=1, max_size=12)
  sequence = np.array(data.draw(symbols))
  nats = renaming.exact_bayes(source, sequence[None]).nats[0]
  each = log_likelihoods(source, sequence)
  expected = math.log(len(each)) - logsumexp(each, axis=0)
  np.testing.assert_allclose(np.cumsum(nats), expected, rtol=1e-10)


def test_a_renaming_as_unlikely_as_e_to_the_minus_1000_comes_back():
  # 3,000 zeros leave the other renaming e^-1067 (0 as a float); the ones that follow restore it.
  source = chains.MarkovSource(np.array([[0.999, 0.001], [0.3, 0.7]]))
  sequence = np.repeat([0, 1, 0], [3000, 4000, 100])
  nats = renaming.exact_bayes(source, sequence[None]).nats[0]
  each = log_likelihoods(source, sequence)
  assert np.ptp(each[:, 2999]) > 1000
  assert each[1, -1] > each[0, -1]
  np.testing.assert_allclose(np.cumsum(nats), math.log(2) - logsumexp(each, axis=0), rtol=1e-10)


@pytest.mark.parametrize('predictor', [renaming.exact_bayes, renaming.informed])
def test_laws_sum_to_one_and_give_the_nats(predictor):
  source = chains.random_kernel(1, 5, seed=3)
  sequences = sample(source, 6, 40)
  laws, nats = predictor(source, sequences)
  np.testing.assert_allclose(laws.sum(-1), 1, rtol=1e-12)
  for n, t in itertools.product(range(6), range(40)):
    assert nats[n, t] == pytest.approx(-math.log(laws[n, t, sequences[n, t]]), abs=1e-12)


def test_informed_is_the_law_of_the_source():
  source = chains.random_kernel(1, 3, seed=5)
  sequences = sample(source, 4, 20)
  identity = [log_likelihoods(source, sequence)[0] for sequence in sequences]
  nats = renaming.informed(source, sequences).nats
  np.testing.assert_allclose(np.cumsum(nats, axis=1), -np.array(identity), rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(5)), st.integers(0, 99))
def test_names_do_not_matter(names, seed):
  source = chains.random_kernel(1, 5, seed, concentration=0.5)
  sequences, names = sample(source, 3, 60, seed), np.array(names)
  plain = renaming.exact_bayes(source, sequences)
  renamed = renaming.exact_bayes(source, names[sequences])
  np.testing.assert_allclose(renamed.nats, plain.nats, rtol=0, atol=1e-9)
  np.testing.assert_allclose(renamed.laws[..., names], plain.laws, rtol=0, atol=1e-9)
  for order in (0, 1):
    counted = [renaming.counting_nats(text, 5, order) for text in (sequences, names[sequences])]
    np.testing.assert_array_equal(*counted)


@pytest.mark.parametrize(('size', 'concentration'), [(4, 0.3), (5, 1.0), (6, 1.0), (6, 20.0)])
def test_regret_is_at_most_log_d_factorial_at_every_prefix(size, concentration):
  source = chains.random_kernel(1, size, seed=1, concentration=concentration)
  likely = sample(source, 24, 256)
  uniform = np.random.default_rng(0).integers(size, size=likely.shape)  # sure means any sequence
  sequences = np.concatenate([likely, uniform])
  bayes, true = renaming.exact_bayes(source, sequences), renaming.informed(source, sequences)
  regret = np.cumsum(bayes.nats - true.nats, axis=1)
  assert regret.max() <= renaming.log_permutations(size) + 1e-9


@pytest.mark.parametrize('size', [4, 6])
def test_a_telling_chain_pays_the_whole_budget_and_then_nothing(size):
  # With rows this distinct π is known after 256 symbols: regret log d!, and total L1 finite.
  source = chains.random_kernel(1, size, seed=1)
  sequences = sample(source, 24, 512)
  bayes, true = renaming.exact_bayes(source, sequences), renaming.informed(source, sequences)
  regret = np.cumsum(bayes.nats - true.nats, axis=1)
  np.testing.assert_allclose(regret[:, -1], renaming.log_permutations(size), atol=0.01)
  distance = np.abs(bayes.laws - true.laws).sum(-1)
  for length in (16, 64, 256, 512):
    assert distance[:, :length].mean() < renaming.regret_bound_l1(size, length)
  assert distance[:, 256:].sum(1).mean() < 0.01 * distance[:, :256].sum(1).mean()


def test_distance_stays_below_the_likely_bound():
  # √((4 log d! + 8 log(1/δ))/T), which fails for a fraction δ of sequences at most.
  source, size, length, delta = chains.random_kernel(1, 5, seed=2, concentration=3), 5, 128, 0.1
  sequences = sample(source, 200, length)
  bayes, true = renaming.exact_bayes(source, sequences), renaming.informed(source, sequences)
  overlap = np.log(np.sqrt(bayes.laws * true.laws).sum(-1)).sum(1)
  budget = 0.5 * renaming.log_permutations(size) + math.log(1 / delta)
  assert np.mean(-overlap > budget) <= delta
  squares = (np.abs(bayes.laws - true.laws).sum(-1) ** 2).sum(1)
  assert np.all(squares <= -8 * overlap + 1e-9)
  for epsilon in (0.1, 0.4):
    needed = renaming.likely_sample_size(size, epsilon, delta)
    assert 8 * budget / needed <= epsilon**2 < 8 * budget / (needed - 1)


def test_nothing_is_lost_where_names_mean_nothing():
  # Rows that any renaming maps on each other: P(x|x) = .4, all other symbols alike.
  for kernel in (np.full((4, 4), 0.25), np.full((4, 4), 0.2) + 0.2 * np.eye(4)):
    source = chains.MarkovSource(kernel)
    sequences = sample(source, 3, 30)
    bayes, true = renaming.exact_bayes(source, sequences), renaming.informed(source, sequences)
    np.testing.assert_allclose(bayes.laws, true.laws, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 1), st.floats(0.05, 2))
def test_counting_equals_a_plain_count(sequence, order, smoothing):
  nats = renaming.counting_nats(np.array([sequence, sequence]), 4, order, smoothing)
  for t, symbol in enumerate(sequence):
    past = sequence[:t]
    expected = (past.count(symbol) + smoothing) / (t + 4 * smoothing)
    if order and past:
      followers = [after for before, after in itertools.pairwise(past) if before == past[-1]]
      expected = (followers.count(symbol) + 4 * smoothing * expected) / (
        len(followers) + 4 * smoothing
      )
    np.testing.assert_allclose(np.exp(-nats[:, t]), expected)


def test_exact_bayes_beats_counting_which_knows_no_chain():
  source = chains.random_kernel(1, 6, seed=0, concentration=0.3)
  sequences = sample(source, 50, 200)
  bayes = renaming.exact_bayes(source, sequences).nats.mean()
  unigram, bigram = (renaming.counting_nats(sequences, 6, order).mean() for order in (0, 1))
  assert bayes < bigram < unigram


@pytest.mark.parametrize(
  ('d', 'expected'),
  [(6, 6.579), (8, 10.605), (27, 64.558), (28, 67.890), (64, 205.168), (128, 496.405)],
)
def test_log_permutations(d, expected):
  assert renaming.log_permutations(d) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
  ('length', 'bound', 'rate'),
  [(16, 0.9069, 0.7825), (64, 0.4534, 0.5533), (256, 0.2267, 0.3913), (1024, 0.1134, 0.2767)],
)
def test_bounds_on_l1_of_six_symbols(length, bound, rate):
  assert renaming.regret_bound_l1(6, length) == pytest.approx(bound, abs=6e-5)
  assert renaming.paper_rate_l1(6, length) == pytest.approx(rate, abs=6e-5)


def test_lengths_that_the_bounds_ask_for():
  paper = renaming.paper_sample_size(27, 0.2, 0.1)
  assert paper == pytest.approx(7e10, rel=0.01)
  # The condition holds there and not one symbol earlier.
  part = 0.2 / (2 * 2**0.5 * (2 * math.log(20)) ** 0.25)
  scale = 512 * math.log(20) * math.log(math.factorial(27)) / 0.2**4
  needed = lambda T: scale * math.log(27 * T / (0.1 * part)) ** 2
  assert needed(paper) <= paper
  assert needed(paper - 1) > paper - 1
  expected = renaming.expected_sample_size(27, 0.2)
  assert expected == pytest.approx(3230, abs=5)
  assert renaming.regret_bound_l1(27, expected) <= 0.2 < renaming.regret_bound_l1(27, expected - 1)


def mixture(source, weight):
  """A score of in-context counting with a part of the true chain, whose labels it knows.

  The first symbol is left to chance: there exact Bayes, 1/d, would be beaten, and seen to be.
  """

  def score(ids, draw):
    del draw
    counted = np.exp(-renaming.counting_nats(ids, source.alphabet_size, 1))
    true = np.exp(-renaming.informed(source, ids).nats)
    parts = np.where(np.arange(ids.shape[1]) > 0, weight, 0.0)
    return -np.log((1 - parts) * counted + parts * true)

  return score


def test_a_leak_is_seen_in_a_model_that_is_far_from_exact_bayes():
  source = chains.random_kernel(1, 6, seed=3, concentration=0.3)
  sequences = sample(source, 300, 64)
  bayes, true = (of(source, sequences).nats for of in (renaming.exact_bayes, renaming.informed))
  ideal = (bayes - true).sum(axis=1).mean()
  for weight, leaks in ((0.0, False), (0.02, True)):
    score = mixture(source, weight)
    nats = score(sequences, 0)
    assert (nats - true).sum(axis=1).mean() > 1.9 * ideal
    # No position is better than exact Bayes allows: that test alone sees no leak.
    difference = nats - bayes
    z = difference.mean(axis=0) / (difference.std(axis=0) / len(sequences) ** 0.5 + 1e-12)
    assert z.min() > -4
    gain = stats.mean(renaming.label_leak(score, sequences, 6, 2).sum(axis=1), 'sequences')
    assert gain.value > 0.3 if leaks else gain.value == pytest.approx(0, abs=1e-9)
    if leaks:
      assert gain.p_value() < 1e-6


SMALL = chains.random_kernel(1, 3, seed=0)
TEXT = np.array([[0, 1, 2]])


@pytest.mark.parametrize(
  ('call', 'words'),
  [
    (lambda: renaming.exact_bayes(chains.random_kernel(1, 9, seed=0), TEXT), '9! = 3.63e'),
    (lambda: renaming.exact_bayes(chains.switching(0.8, 0.8, 2), TEXT % 2), 'order 1'),
    (lambda: renaming.informed(chains.switching(0.8, 0.8, 2), TEXT % 2), 'order 1'),
    (lambda: renaming.exact_bayes(SMALL, TEXT + 1), 'from 1 to 3'),
    (lambda: renaming.exact_bayes(SMALL, TEXT[0]), r'\[N, T\]'),
    (lambda: renaming.exact_bayes(SMALL, TEXT / 2), 'float64'),
    (lambda: renaming.counting_nats(TEXT[:, :0], 3, 0), r'\[1, 0\]'),
    (lambda: renaming.counting_nats(TEXT, 3, 2), 'order 2'),
    (lambda: renaming.counting_nats(TEXT, 3, 1, 0.0), 'smoothing 0'),
    (lambda: renaming.paper_sample_size(27, 0.6, 0.1), 'inside'),
    (lambda: renaming.likely_sample_size(27, 0.2, 0.0), 'inside'),
    (lambda: renaming.expected_sample_size(27, 0.0), 'inside'),
  ],
)
def test_bad_input_is_named(call, words):
  with pytest.raises(InputError, match=words):
    call()
