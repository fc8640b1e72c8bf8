# SPDX-License-Identifier: Apache-2.0
"""Models over different tokenizers as one law of bytes: sums by hand, and what is refused."""

import itertools

import numpy as np
import pytest

from lib.decoding import byte_ensemble
from lib.decoding.byte_view import ByteTexts
from lib.errors import InputError
from lib.tokenizers.characters import Characters
from tests.decoding.test_byte_view import bpe, by_hand, random_law, vocabulary

LENGTH = 5
TEXTS = [bytes(text) for text in itertools.product(b'01', repeat=LENGTH)]


def readers(*tokenizers):
  laws = [random_law(one.vocab_size)[1] for one in tokenizers]
  return [
    ByteTexts(vocabulary(one), law, len(TEXTS)) for one, law in zip(tokenizers, laws, strict=True)
  ]


def test_each_way_to_join_models_is_a_law_of_texts_and_is_as_by_hand():
  tokenizers = [bpe(6), Characters(b'01'), bpe(16)]
  found = byte_ensemble.scores(readers(*tokenizers), TEXTS)
  for name, nats in found.items():
    assert np.exp(-nats).sum() == pytest.approx(1, abs=1e-12), name
  laws = np.zeros((3, len(TEXTS), LENGTH))  # P(byte | bytes before), scaled to a sum of 1
  for row, one in zip(laws, tokenizers, strict=True):
    law = random_law(one.vocab_size)[0]
    known = {text[:n]: by_hand(one, law, text[:n]) for text in TEXTS for n in range(LENGTH + 1)}
    for conditional, text in zip(row, TEXTS, strict=True):
      for n in range(LENGTH):
        both = [known[text[:n] + bytes([byte])] for byte in b'01']
        conditional[n] = both[text[n] - 48] / sum(both)
  product = np.prod(laws, axis=0) ** (1 / 3)
  product /= product + np.prod(1 - laws, axis=0) ** (1 / 3)
  for name, expected in (
    ('mixture', laws.prod(axis=-1).mean(axis=0)),
    ('average', laws.mean(axis=0).prod(axis=-1)),
    ('product', product.prod(axis=-1)),
  ):
    np.testing.assert_allclose(np.exp(-found[name]), expected, rtol=1e-10, err_msg=name)


@pytest.mark.parametrize(
  ('tokenizers', 'texts', 'message'),
  [
    ([], TEXTS, 'an ensemble needs at least one model'),
    ([Characters(b'01'), Characters(b'0a')], TEXTS, 'must have the same alphabet'),
    ([Characters(b'01')], [b'01', b'0'], 'must have one length'),
  ],
)
def test_models_that_cannot_be_joined_are_refused(tokenizers, texts, message):
  with pytest.raises(InputError, match=message):
    byte_ensemble.scores(readers(*tokenizers), texts)
