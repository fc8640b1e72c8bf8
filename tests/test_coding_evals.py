# SPDX-License-Identifier: Apache-2.0
"""Statistics of coded text: code lengths, distance to random bits, edit distance."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.errors import InputError
from lib.evals import coding
from lib.tokenizers.coding.streams import SteppedAC
from tests import byte_models


def test_ideal_bits_are_those_of_the_probabilities():
  model, text = byte_models.ngram(), byte_models.held_out()
  documents = [text[:200], b'', text[200:230], text[300:301]]
  exact, coded = coding.ideal_bits(byte_models.Stepping(model, 2), documents)
  for document, bits, integer in zip(documents, exact, coded):
    each = [
      -math.log2(model.after(document[max(i - model.order, 0) : i])[document[i]])
      for i in range(len(document))
    ]
    assert bits == pytest.approx(sum(each))
    # A frequency of 1 costs 14 bits: that is the end, and at most what rounding adds to a byte.
    assert bits + 13.9 < integer < bits + 14.1 + 0.03 * len(document)


def test_ac_is_within_two_bits_of_its_ideal():
  text = byte_models.held_out()
  documents = [text[:700], text[700:720], b'']
  stepper = byte_models.Stepping(byte_models.ngram(), 3)
  _, ideal = coding.ideal_bits(stepper, documents)
  for coded, bits in zip(SteppedAC(stepper, 'n-gram', 8).encode_all(documents), ideal):
    assert bits <= len(coded.ids) * 8 < bits + 2 + 8


def test_uniform_and_constant_streams_lie_at_the_ends():
  every = np.arange(1 << 16).astype('>u2').view(np.uint8)
  for bits in (1, 2, 4, 8, 16):
    assert coding.divergence(every, bits, False, corrected=False) == pytest.approx(0, abs=1e-12)
    assert coding.divergence(np.zeros(64, np.uint8), bits, True, corrected=False) == bits


def test_strings_are_read_from_every_bit_highest_first():
  stream = np.array([0b10110000, 0b11111111, 0b00000001], np.uint8)
  text = ''.join(f'{byte:08b}' for byte in stream)
  for bits in range(1, 17):
    expected = [int(text[i : i + bits], 2) for i in range(24 - bits + 1)]
    assert coding.strings(stream, bits).tolist() == expected


@pytest.mark.parametrize('overlapping', [True, False])
def test_the_correction_takes_the_bias_of_counting(overlapping):
  mean, spread = coding.random_divergence(2000, 8, overlapping, seed=1, draws=40)
  assert abs(mean) < 4 * spread / 40**0.5
  stream = np.random.default_rng(2).integers(0, 256, 2000, np.uint8)
  counted = coding.divergence(stream, 8, overlapping, corrected=False)
  assert counted > 5 * spread
  # Bits that are 1 in three of four cases are told from random ones.
  biased = np.packbits(np.random.default_rng(3).random(16_000) < 0.75)
  entropy = -0.75 * math.log2(0.75) - 0.25 * math.log2(0.25)
  assert coding.divergence(biased, 1, overlapping) == pytest.approx(1 - entropy, abs=0.02)


def test_strings_that_cannot_be_counted_are_named():
  with pytest.raises(InputError, match='strings of 3 bits'):
    coding.divergence(np.zeros(9, np.uint8), 3, False)
  with pytest.raises(InputError, match='strings of 17 bits'):
    coding.divergence(np.zeros(9, np.uint8), 17, True)
  with pytest.raises(InputError, match='1 bytes hold no string of 16 bits'):
    coding.divergence(np.zeros(1, np.uint8), 16, True)


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
  found = coding.edit_distance(np.array(a, np.int32), np.array(b, np.int32))
  assert found == by_definition(a, b)
