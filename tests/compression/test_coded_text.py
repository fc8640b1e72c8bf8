# SPDX-License-Identifier: Apache-2.0
"""Statistics of coded text: code lengths, distance to random bits, edit distance."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.compression import coded_text
from lib.errors import InputError
from lib.tokenizers.coding import arithmetic
from lib.tokenizers.coding.streams import SteppedAC
from tests.helpers import byte_models


def after_each_byte(model, document):
  """Next-byte probabilities after 0, 1, … all bytes, float32 [n + 1, 256]."""
  return np.stack([model.after(document[max(i - model.order, 0) : i])
                   for i in range(len(document) + 1)])  # fmt: skip


def test_code_lengths_are_those_of_the_probabilities_and_of_the_frequencies():
  model, text = byte_models.ngram(), byte_models.held_out()
  documents = [text[:200], b'', text[200:230], text[300:301]]
  rows = [after_each_byte(model, document) for document in documents]
  found = coded_text.code_lengths(rows, documents)
  assert (found.end == 14).all()  # the mark of the end has 1 of 2^14
  for i, (document, after) in enumerate(zip(documents, rows)):
    exact = sum(-math.log2(row[byte]) for row, byte in zip(after, document))
    assert found.exact[i] == pytest.approx(exact)
    total = 0.0
    for row, byte in zip(after, document):
      cumulative = arithmetic.quantise(row[None], marks=1)[0].tolist()
      total += math.log2(2**14 / (cumulative[byte + 1] - cumulative[byte]))
    assert found.integer[i] == pytest.approx(total)
    assert found.exact[i] <= found.integer[i] + 0.1
    # A byte gives at most 257 of 16,384 of its share to the floor, and a rounding to the nearest.
    assert found.integer[i] < found.exact[i] + 0.05 * len(document) + 1e-9


def test_the_excess_of_ac_over_m1_adds_up_and_rounding_is_below_a_token_and_two_bits():
  model, text = byte_models.ngram(), byte_models.held_out()
  documents = [text[:700], text[700:720], b'']
  found = coded_text.code_lengths([after_each_byte(model, one) for one in documents], documents)
  codec = SteppedAC(byte_models.Stepping(model, 3), 'n-gram', 8)
  spent = np.array([8 * len(coded.ids) for coded in codec.cover_batch(documents)])
  parts = found.excess(spent)
  np.testing.assert_allclose(sum(parts.values()), spent - found.exact)
  assert set(parts) == {'frequencies', 'end_mark', 'rounding'}
  assert (parts['rounding'] >= 0).all()
  assert (parts['rounding'] < 8 + 2).all()


def divergence(stream, bits, overlapping, corrected=True):
  return coded_text.divergence(coded_text.string_counts([stream], bits, overlapping)[0], corrected)


def test_uniform_and_constant_streams_lie_at_the_ends():
  every = np.arange(1 << 16).astype('>u2').view(np.uint8)
  for bits in (1, 2, 4, 8, 16):
    assert divergence(every, bits, False, corrected=False) == pytest.approx(0, abs=1e-12)
    assert divergence(np.zeros(64, np.uint8), bits, True, corrected=False) == bits


def test_strings_are_read_from_every_bit_highest_first():
  stream = np.array([0b10110000, 0b11111111, 0b00000001], np.uint8)
  text = ''.join(f'{byte:08b}' for byte in stream)
  for bits in range(1, 17):
    expected = [int(text[i : i + bits], 2) for i in range(24 - bits + 1)]
    assert coded_text.strings(stream, bits).tolist() == expected


@pytest.mark.parametrize('overlapping', [True, False])
def test_the_correction_takes_the_bias_of_counting(overlapping):
  random = coded_text.random_divergence([1500, 500], 8, overlapping, seed=1, draws=40)
  mean, spread = random.mean(), random.std(ddof=1)
  assert abs(mean) < 4 * spread / 40**0.5
  stream = np.random.default_rng(2).integers(0, 256, 2000, np.uint8)
  assert divergence(stream, 8, overlapping, corrected=False) > 5 * spread
  # Bits that are 1 in three of four cases are told from random ones.
  biased = np.packbits(np.random.default_rng(3).random(16_000) < 0.75)
  entropy = -0.75 * math.log2(0.75) - 0.25 * math.log2(0.25)
  assert divergence(biased, 1, overlapping) == pytest.approx(1 - entropy, abs=0.02)


def test_the_error_over_documents_is_the_spread_of_repeated_samples():
  # Each document has a share of ones of its own: tokens of one document are not independent.
  rng = np.random.default_rng(4)

  def sample():
    shares = rng.beta(6, 3, 40)
    streams = [np.packbits(rng.random(800) < share) for share in shares]
    return coded_text.divergence_by_stream(coded_text.string_counts(streams, 1, False))

  found = np.stack([sample() for _ in range(150)])
  claimed = found.std(axis=1, ddof=1) / 40**0.5
  assert np.sqrt((claimed**2).mean()) == pytest.approx(found.mean(axis=1).std(), rel=0.2)
  # Tokens taken as independent would claim an error several times smaller.
  p = 2 / 3
  naive = abs(math.log2(p / (1 - p))) * math.sqrt(p * (1 - p) / (40 * 800))
  assert naive < 0.3 * np.sqrt((claimed**2).mean())
  truth = 1 + p * math.log2(p) + (1 - p) * math.log2(1 - p)
  assert found.mean() == pytest.approx(truth, abs=0.003)  # nor is it biased


def test_counts_of_streams_are_of_strings_within_them():
  streams = [np.array([0b10110000], np.uint8), np.array([0b00000001, 0xFF], np.uint8)]
  counts = coded_text.string_counts(streams, 8, False)
  assert counts.sum(axis=1).tolist() == [1, 2]
  assert counts[0, 0b10110000] == counts[1, 1] == counts[1, 255] == 1
  assert coded_text.string_counts(streams, 8, True).sum(axis=1).tolist() == [1, 9]


def test_strings_that_cannot_be_counted_are_named():
  with pytest.raises(InputError, match='strings of 3 bits'):
    coded_text.string_counts([np.zeros(9, np.uint8)], 3, False)
  with pytest.raises(InputError, match='strings of 17 bits'):
    coded_text.string_counts([np.zeros(9, np.uint8)], 17, True)
  with pytest.raises(InputError, match='1 bytes contain no string of 16 bits'):
    coded_text.string_counts([np.zeros(1, np.uint8)], 16, True)


def by_definition(a, b):
  @functools.cache
  def distance(i, j):
    if not i or not j:
      return i + j
    change = distance(i - 1, j - 1) + (a[i - 1] != b[j - 1])
    return min(change, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

  return distance(len(a), len(b))


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), max_size=9), st.lists(st.integers(0, 3), max_size=9))
def test_edit_distance_is_levenshteins(a, b):
  found = coded_text.edit_distance(np.array(a, np.int32), np.array(b, np.int32))
  assert found == by_definition(a, b)
