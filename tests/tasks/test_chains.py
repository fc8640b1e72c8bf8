# SPDX-License-Identifier: Apache-2.0
"""Markov sources: closed forms against the exact machinery, and samples against both."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.errors import InputError
from lib.report import published
from lib.tasks.markov import chains, dictionary_loss
from tests.helpers import closed_forms

sources = st.builds(
  lambda shape, seed: chains.random_kernel(*shape, seed),
  st.sampled_from([(1, 2), (2, 2), (3, 2), (5, 2), (1, 3), (2, 4), (1, 10)]),
  st.integers(0, 10**6),
)


def brute_force_entropy(source: chains.MarkovSource, length: int) -> float:
  """Entropy of `length` characters by running the law of (context, text) forward."""
  law = source.stationary[None]  # [texts, contexts]
  for _ in range(length):
    texts = []
    for symbol in range(source.alphabet_size):
      grown = np.zeros_like(law)
      for context in range(source.contexts):
        after = source.next_contexts[context, symbol]
        grown[:, after] += law[:, context] * source.kernel[context, symbol]
      texts.append(grown)
    law = np.concatenate(texts)
  chance = law.sum(1)
  return float(-(chance * np.log(chance)).sum())


@settings(max_examples=25, deadline=None)
@given(sources)
def test_stationary_law_is_kept_by_a_step(source):
  after = np.zeros(source.contexts)
  np.add.at(after, source.next_contexts, source.stationary[:, None] * source.kernel)
  np.testing.assert_allclose(after, source.stationary, atol=1e-14)
  assert source.stationary.min() > 0


@settings(max_examples=20, deadline=None)
@given(sources, st.integers(0, 5))
def test_block_entropy_equals_enumeration(source, length):
  assert source.block_entropy(length) == pytest.approx(
    brute_force_entropy(source, length), abs=1e-11
  )


@settings(max_examples=25, deadline=None)
@given(sources)
def test_more_context_never_hurts_and_order_k_suffices(source):
  losses = [source.ngram_loss(m) for m in range(source.order + 3)]
  assert all(a >= b - 1e-12 for a, b in zip(losses, losses[1:], strict=False))
  np.testing.assert_allclose(losses[source.order :], source.entropy_rate, atol=1e-12)


@pytest.mark.parametrize('order', [1, 2, 3, 4, 6])
@pytest.mark.parametrize(('p', 'q'), [(0.8, 0.8), (0.2, 0.3), (0.5, 0.8), (0.95, 0.99)])
def test_closed_forms_equal_the_general_machinery(p, q, order):
  source = chains.switching(p, q, order)
  assert source.entropy_rate == pytest.approx(closed_forms.switching_entropy_rate(p, q), abs=1e-13)
  for context in range(order + 2):
    expected = closed_forms.switching_ngram(p, q, order, context)
    assert source.ngram_loss(context) == pytest.approx(expected, abs=1e-12)
  for length in (1, 2, 5, 8, 16):
    expected = closed_forms.switching_block(p, q, order, length)
    assert source.block_entropy(length) / length == pytest.approx(expected, abs=1e-12)
    assert source.window_floor(length) == pytest.approx(expected, abs=1e-12)
  assert source.min_probability == pytest.approx(min(p, q, 1 - p, 1 - q))


def test_values_derived_by_hand():
  # h(.8) = .8 ln(1/.8) + .2 ln(1/.2) = .8 * .2231436 + .2 * 1.6094379 = .1785148 + .3218876.
  assert closed_forms.binary_entropy(0.8) == pytest.approx(0.5004024, abs=1e-7)
  # p=.5, q=.8: pi(1) = .5/1.3, H = (.8 ln 2 + .5 h(.8)) / 1.3 = (.5545177 + .2502012) / 1.3.
  assert closed_forms.switching_entropy_rate(0.5, 0.8) == pytest.approx(0.6190146, abs=1e-6)
  # k=2, r=3: two characters at ln 2 and one at h(.8): (1.3862944 + .5004024) / 3.
  assert closed_forms.switching_block(0.8, 0.8, 2, 3) == pytest.approx(0.6288989, abs=1e-7)
  # An unbiased coin pays ln 2 whatever it sees; a die of three equal faces ln 3.
  assert chains.switching(0.5, 0.5, 3).entropy_rate == pytest.approx(math.log(2))
  assert chains.MarkovSource(np.full((3, 3), 1 / 3)).entropy_rate == pytest.approx(math.log(3))


def test_oldest_symbol_is_least_significant():
  source = chains.switching(0.9, 0.6, 3)
  for context in range(8):
    assert source.kernel[context, 1] == pytest.approx(0.9 if context % 2 == 0 else 0.4)
  # Context 0b011 (newest 0, then 1, oldest 1) reads 1: the oldest leaves, 1 becomes the newest.
  assert source.next_contexts[0b011, 1] == 0b101


def test_dictionary_bound():
  h, ln2 = closed_forms.binary_entropy(0.8), math.log(2)
  # d = 10: eps = ln 5 / (.99 ln 10) = 1.609438 / 2.279559 = .706030, H / .293970 = 1.7022.
  assert dictionary_loss.dictionary_bound(h, 0.2, 10) == pytest.approx(1.7022, abs=1e-4)
  for size, expected in ((256, 0.708), (1024, 0.654), (4096, 0.622), (65536, 0.586)):
    assert dictionary_loss.dictionary_bound(h, 0.2, size) == pytest.approx(expected, abs=6e-4)
  # eps = 1 - H / ln 2 = .278072 needs ln d = 1.609438 / (.99 * .278072), d = 345.98.
  assert dictionary_loss.vacuous(dictionary_loss.dictionary_bound(h, 0.2, 345), ln2)
  assert not dictionary_loss.vacuous(dictionary_loss.dictionary_bound(h, 0.2, 346), ln2)
  assert dictionary_loss.dictionary_bound(h, 0.2, 5) == math.inf  # ln 5 / (.99 ln 5) > 1


def test_published_closed_forms_are_those_of_the_theory():
  entries = [
    entry for entry in published.load('markov')['entries'] if entry['column'] == 'nats_per_char'
  ]
  assert len(entries) == 68
  for entry in entries:
    p, q = entry['where']['p'], entry['where']['q']
    value = {key: int(text) for key, text in re.findall(r'(\w)=(\d+)', entry['row'])}
    if entry['table'] == 'ngram':
      found = closed_forms.switching_ngram(p, q, value['k'], value['m'])
    elif entry['table'] == 'blocks':
      found = closed_forms.switching_block(p, q, value['k'], value['r'])
    else:  # a memorised dictionary is one of characters on any other text
      found = closed_forms.switching_unigram(p, q)
    assert found == pytest.approx(entry['value'], abs=6e-7), entry


@pytest.mark.parametrize('shape', [(1, 2), (3, 2), (2, 3)])
def test_sample_follows_the_kernel(shape):
  source, length = chains.random_kernel(*shape, seed=4), 1_000_000
  symbols = source.sample(length, seed=1).astype(np.int64)
  k, a = shape
  context = sum(a**j * symbols[j : length - k + j] for j in range(k))
  counts = np.bincount(context * a + symbols[k:], minlength=a ** (k + 1)).reshape(-1, a)
  visits = counts.sum(1, keepdims=True)
  # Given its visits, a context's counts are binomial: five standard errors cover all cells.
  error = np.sqrt(source.kernel * (1 - source.kernel) / visits)
  assert np.all(np.abs(counts / visits - source.kernel) < 5 * error)


def test_sample_starts_from_the_stationary_law():
  # p=.9, q=.1: pi(1) = .9, whereas an even start would give .5 and the official code's slip .1.
  documents = chains.MarkovDocuments(chains.switching(0.9, 0.1, 4), 4, 4000, seed=2)
  ones = np.mean([np.frombuffer(document, np.uint8) - 48 for document in documents], axis=0)
  # Standard error sqrt(.9 * .1 / 4000) = .0047 at each of the four positions.
  np.testing.assert_allclose(ones, 0.9, atol=0.024)


def test_sample_is_a_function_of_its_seed():
  source = chains.switching(0.8, 0.8, 3)
  assert source.text(5000, 7) == source.text(5000, 7)
  assert source.text(5000, 7) != source.text(5000, 8)
  assert source.text(100, 7) == source.text(5000, 7)[:100]
  assert len(source.text(2, 0)) == 2  # shorter than the order
  assert set(source.text(5000, 7)) == set(source.alphabet) == set(b'01')
  assert chains.as_text(source.sample(9, 7).astype(np.int64)) == source.text(9, 7)


def test_documents_are_random_access_and_independent():
  source = chains.switching(0.8, 0.8, 2)
  documents = chains.MarkovDocuments(source, 64, 1000, seed=0)
  other = chains.MarkovDocuments(source, 64, 1000, seed=1)
  assert len(documents) == 1000
  assert documents[999] == documents[999]
  assert len({*documents, *other, source.text(64, 0), source.text(64, 1)}) == 2002
  with pytest.raises(IndexError):
    documents[1000]
  with pytest.raises(IndexError):
    documents[-1]


def test_interpolation_runs_between_its_ends():
  ends = [chains.interpolated(0.8, 0.7, 2, delta, seed=3).kernel for delta in (0, 1)]
  np.testing.assert_array_equal(ends[0], chains.switching(0.8, 0.7, 2).kernel)
  np.testing.assert_array_equal(ends[1], chains.random_kernel(2, 2, seed=3).kernel)
  middle = chains.interpolated(0.8, 0.7, 2, 0.25, seed=3).kernel
  np.testing.assert_allclose(middle, 0.75 * ends[0] + 0.25 * ends[1])


@pytest.mark.parametrize(
  'build',
  [
    lambda: chains.switching(0.0, 0.5, 1),
    lambda: chains.switching(0.5, 1.0, 1),
    lambda: chains.switching(0.5, 0.5, 0),
    lambda: chains.switching(0.5, 0.5, 13),
    lambda: chains.random_kernel(1, 1, 0),
    lambda: chains.random_kernel(1, 2, 0, concentration=0),
    lambda: chains.interpolated(0.5, 0.5, 1, 1.5, 0),
    lambda: chains.MarkovSource(np.full((3, 2), 0.5)),  # 3 is no power of 2
    lambda: chains.MarkovSource(np.full((2, 2), 0.4)),  # rows sum to .8
    lambda: chains.MarkovSource(np.eye(2)),  # zeros
    lambda: chains.MarkovSource(np.full(4, 0.5)),
    lambda: chains.MarkovDocuments(chains.switching(0.5, 0.5, 1), 0, 1, 0),
    lambda: dictionary_loss.dictionary_bound(0.5, 0.2, 1),
  ],
)
def test_bad_input_is_named(build):
  with pytest.raises(InputError):
    build()
