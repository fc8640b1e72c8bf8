# SPDX-License-Identifier: Apache-2.0
"""m-gram models: hand-computed smoothing, normalisation, the ladder on Markov text, and errors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import stats
from lib.errors import InputError
from lib.evals import ngram
from lib.tasks.markov import chains
from lib.tokenizers.blocks import Blocks
from lib.tokenizers.characters import Characters

sequences = st.lists(st.integers(0, 3), min_size=1, max_size=40).map(np.array)


def test_unigram_adds_a_half():
  # Counts 3, 1, 0 of three symbols: (3.5, 1.5, .5) / (4 + 1.5).
  nats = ngram.NGram(np.array([0, 0, 1, 0]), 0, 3).nats(np.array([0, 1, 2]))
  np.testing.assert_allclose(np.exp(-nats), np.array([3.5, 1.5, 0.5]) / 5.5)


def test_bigram_interpolates_by_witten_and_bell():
  # Train 0 0 1 0 0: after 0 come {0: 2, 1: 1}, after 1 comes {0: 1}. The unigram is (4.5, 1.5) / 6.
  model = ngram.NGram(np.array([0, 0, 1, 0, 0]), 1, 2)
  # Test 1 1 0 1: P(1) = .25; P(1|1) = (0 + 1 * .25) / 2; P(0|1) = (1 + .75) / 2;
  # P(1|0) = (1 + 2 * .25) / (3 + 2).
  expected = [0.25, 0.125, 0.875, 0.3]
  np.testing.assert_allclose(np.exp(-model.nats(np.array([1, 1, 0, 1]))), expected)


def test_unseen_context_falls_back():
  # Symbol 2 never occurs in training, so what follows it pays its unigram: (2.5, 2.5, .5) / 5.5.
  nats = ngram.NGram(np.array([0, 1, 0, 1]), 1, 3).nats(np.array([2, 0]))
  np.testing.assert_allclose(np.exp(-nats), [0.5 / 5.5, 2.5 / 5.5])


@settings(max_examples=60, deadline=None)
@given(sequences, sequences, st.integers(0, 4))
def test_probabilities_of_the_next_symbol_sum_to_one(train, context, order):
  model = ngram.NGram(train, order, 4)
  last = [model.nats(np.append(context, symbol))[-1] for symbol in range(4)]
  assert np.exp(-np.array(last)).sum() == pytest.approx(1, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(sequences, sequences, st.integers(1, 4))
def test_first_symbols_are_scored_by_lower_orders(train, test, order):
  model = ngram.NGram(train, order, 4).nats(test)
  for position in range(min(order, test.size)):
    lower = ngram.NGram(train, position, 4).nats(test)
    assert model[position] == pytest.approx(lower[position], abs=1e-12)


@pytest.mark.parametrize('k', [1, 2, 3, 4])
def test_ladder_on_a_switching_source(k):
  # With 1M characters each side the test's own standard error is .0005; the 2^m contexts that are
  # learnt cost under 2^5 / 2M = 2e-5 more.
  source = chains.switching(0.8, 0.8, k)
  train, test = source.sample(1_000_000, 0), source.sample(1_000_000, 1)
  for order in range(k + 2):
    nats = ngram.NGram(train, order, 2).nats(test)
    blocks = np.arange(nats.size) * 50 // nats.size  # far longer than the chain's memory
    found = stats.ratio(nats, np.ones(nats.size), blocks, over='blocks')
    assert found.value == pytest.approx(source.ngram_loss(order), abs=0.003)
    assert abs(found.value - source.ngram_loss(order)) < 5 * found.sem + 1e-5


@pytest.mark.parametrize(('k', 'r'), [(1, 4), (2, 3), (3, 8), (4, 6)])
def test_blocks_meet_the_closed_form_to_three_digits(k, r):
  # 8M characters: 0.555 / √8M = .0002 a character; learning 2^r counts costs under 2e-5.
  source, tokenizer = chains.switching(0.8, 0.8, k), Blocks(b'01', r)
  train, test = ([*chains.MarkovDocuments(source, 400_000 // r * r, 20, seed)] for seed in (0, 1))
  [found] = ngram.token_loss(tokenizer, train, test, [0], over='texts')
  closed = (min(r, k) * math.log(2) + max(r - k, 0) * source.entropy_rate) / r
  assert found.value == pytest.approx(closed, abs=0.0008)
  assert found.sem < 0.0004
  assert (found.n, found.over, found.df) == ('20', 'texts', 19)


def test_sparse_symbols_of_a_large_vocabulary():
  # The four symbols 0, a, 2a, 3a tell the same story as 0..3, but for the unigram's unseen mass.
  source = chains.random_kernel(2, 4, seed=1)
  train, test = source.sample(300_000, 0), source.sample(100_000, 1)
  spread = 2**19 - 7
  dense = ngram.NGram(train, 2, 4).nats(test).mean()
  sparse = ngram.NGram(train.astype(int) * spread, 2, 4 * spread).nats(test.astype(int) * spread)
  assert sparse[2:].mean() == pytest.approx(dense, abs=1e-3)


def test_errors_are_over_documents():
  # Each document has a bias of its own, so that its characters are no independent units: an error
  # over characters would be 5 times too small.
  rng = np.random.default_rng(0)
  shares = rng.beta(2, 2, (200, 20))  # of the symbol 1
  texts = [[(rng.random(500) < p).astype(np.uint8) + 48 for p in run] for run in shares]
  counted = [b'01' * 5000]  # P(0) = P(1): no text costs other than ln 2 under this
  skewed = [b'0111' * 5000]
  losses = []
  for run in texts:
    documents = [text.tobytes() for text in run]
    [even] = ngram.token_loss(Characters(b'01'), counted, documents, [0])
    assert even.value == pytest.approx(math.log(2), abs=1e-3)
    losses += ngram.token_loss(Characters(b'01'), skewed, documents, [0])
  expected = np.mean([-math.log(1 / 4), -math.log(3 / 4)])  # as many 0 as 1, on average
  z = [(found.value - expected) / found.sem for found in losses]
  # Student's t with 19 degrees of freedom has deviation 1.06; over 200 runs it is known to 5 %.
  assert 0.85 < np.std(z) < 1.3


def test_bytes_without_a_token_count():
  class Words(Characters):
    def encode(self, data):
      return super().encode(data.replace(b' ', b''))

  [found] = ngram.token_loss(Words(), [b'ab'], [b'ab', b'  ', b''], [0])
  [alone] = ngram.token_loss(Words(), [b'ab'], [b'ab'], [0])
  assert found.value == pytest.approx(alone.value / 2)
  assert found.n == '3'


def test_documents_are_scored_alone():
  # The first symbol of a document has no context, whatever the document before it ends with.
  together = ngram.token_nats(Characters(b'01'), [b'0101'], [b'01', b'10'], [1])
  alone = [ngram.token_nats(Characters(b'01'), [b'0101'], [text], [1]) for text in (b'01', b'10')]
  np.testing.assert_allclose(together, np.concatenate(alone, axis=1))


@pytest.mark.parametrize(
  'build',
  [
    lambda: ngram.NGram(np.zeros(4, int), 4, 65536),  # 2^80 grams
    lambda: ngram.NGram(np.zeros(4, int), -1, 2),
    lambda: ngram.NGram(np.array([0, 2]), 0, 2),
    lambda: ngram.NGram(np.array([0, -1]), 0, 2),
    lambda: ngram.NGram(np.zeros(0, int), 0, 2),
    lambda: ngram.NGram(np.zeros(4, int), 1, 2).nats(np.array([2])),
    lambda: ngram.token_loss(Characters(b'01'), [b'01'], [b''], [0]),
  ],
)
def test_bad_input_is_named(build):
  with pytest.raises(InputError):
    build()


def test_largest_vocabulary_of_a_bigram_fits():
  # 65,536^4 = 2^64 keys, the last of which must not wrap.
  text = np.array([65535, 65535, 65535, 65535, 65535])
  assert ngram.NGram(text, 3, 65536).nats(text)[-1] < math.log(2)


def test_a_unigram_over_windows_knows_the_window_alone_and_interpolates_within_it():
  # Windows 01 01 00 12 and one cut short, 1: first tokens {0: 3, 1: 2}, second {1: 2, 0: 1, 2: 1}.
  windows = np.array([[0, 1], [0, 1], [0, 0], [1, 2], [1, -1]])
  model = ngram.WindowUnigram(windows, 3)
  first = np.array([3.5, 2.5, 0.5]) / 6.5
  second = np.array([1.5, 2.5, 1.5]) / 5.5
  after_0 = (np.array([1, 2, 0]) + 2 * second) / 5
  after_1 = (np.array([0, 0, 1]) + 1 * second) / 2
  test = np.array([[0, 1], [1, 0], [2, 2], [0, -1]])
  expected = [[first[0], after_0[1]], [first[1], after_1[0]], [first[2], second[2]], [first[0], 1]]
  np.testing.assert_allclose(np.exp(-model.nats(test)), expected)


def test_a_unigram_over_windows_of_one_token_is_a_unigram_and_over_wide_ones_sums_to_one():
  rng = np.random.default_rng(0)
  ids = rng.integers(0, 5, 60)
  bag = ngram.WindowUnigram(ids[:, None], 7).nats(np.arange(7)[:, None])[:, 0]
  np.testing.assert_allclose(bag, ngram.NGram(ids, 0, 7).nats(np.arange(7)))
  windows = rng.integers(0, 3, (40, 3))
  every = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing='ij'), -1).reshape(-1, 3)
  nats = ngram.WindowUnigram(windows, 3).nats(every)
  assert np.exp(-nats.sum(axis=1)).sum() == pytest.approx(1)


def test_wide_windows_of_large_vocabularies_keep_the_context_that_fits_64_bits():
  windows = np.tile(np.arange(8) * 1000, (3, 1))
  nats = ngram.WindowUnigram(windows, 1 << 16).nats(windows)
  assert nats.shape == windows.shape
  assert (nats[:, 1:] < nats[:, :1]).all()  # what follows is known, the first token is not


def test_invalid_windows_are_refused():
  for windows in (np.zeros(3, int), np.zeros((0, 2), int), np.array([[4]])):
    with pytest.raises(InputError, match='a unigram over windows of 4 ids'):
      ngram.WindowUnigram(windows, 4)
