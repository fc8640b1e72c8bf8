# SPDX-License-Identifier: Apache-2.0
"""Held-out excerpts are stretches of their documents, and say which."""

import numpy as np
import pytest

from lib.data import excerpts
from lib.errors import InputError

DOCUMENTS = [bytes([65 + k]) * size for k, size in enumerate((10, 100, 35, 7, 64))]


def test_each_excerpt_is_a_stretch_of_the_document_it_names():
  found = excerpts.take(DOCUMENTS, length=10, count=100)
  assert len(found) == 1 + 10 + 3 + 6
  assert found.distinct == 4  # one document is too short
  for text, document in zip(found.texts, found.documents):
    assert text == DOCUMENTS[document][:10]


def test_no_document_gives_more_than_asked():
  found = excerpts.take(DOCUMENTS, length=10, count=100, most=2)
  assert np.bincount(found.documents, minlength=5).tolist() == [1, 2, 2, 0, 2]


def test_stretches_of_a_long_document_lie_evenly_in_it():
  document = np.arange(100)
  found = excerpts.take([document], length=5, count=100, most=4)
  assert [text[0] for text in found.texts] == [0, 25, 50, 75]


def test_the_count_is_kept_and_the_order_is_that_of_the_seed():
  one, again, other = (excerpts.take(DOCUMENTS, length=5, count=6, seed=s) for s in (1, 1, 2))
  assert len(one) == 6
  assert one.texts == again.texts
  assert one.texts != other.texts


def test_documents_are_prepared_before_they_are_cut():
  found = excerpts.take(DOCUMENTS, length=4, count=3, prepare=lambda text: text.lower()[:4])
  assert all(text.islower() for text in found.texts)


def test_a_source_of_short_documents_is_refused_in_a_sentence():
  with pytest.raises(InputError, match=r'no document of mine \(test\) is 200 long'):
    excerpts.take(DOCUMENTS, length=200, count=1, name='mine (test)')


def test_chosen_excerpts_keep_their_documents():
  found = excerpts.take(DOCUMENTS, length=10, count=100)
  kept = found.where(found.documents == 2)
  assert len(kept) == 3
  assert kept.distinct == 1
