# SPDX-License-Identifier: Apache-2.0
"""Held-out excerpts are stretches of their documents, and say which."""

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
  places = set()
  for seed in range(60):
    found = excerpts.take([np.arange(100)], length=5, count=100, most=4, seed=seed)
    first = found.texts[0][0]
    assert [text[0] for text in found.texts] == [first, first + 25, first + 50, first + 75]
    places.add(int(first))
  assert places == {0, 5, 10, 15, 20}
  found = excerpts.take([np.arange(100)] * 9, length=5, count=9, most=1)
  assert [text[0] for text in found.texts] == [0] * 9  # beginnings


@given(st.lists(st.integers(0, 9), min_size=1), st.integers(1, 60), st.integers(1, 9))
def test_documents_give_as_equally_as_they_can(rooms, count, most):
  hypothesis.assume(any(rooms))
  found = excerpts.take([b'x' * room for room in rooms], length=1, count=count, most=most)
  rooms = np.minimum(rooms, most)
  assert len(found) == min(count, rooms.sum())
  given = np.bincount(found.documents, minlength=len(rooms))
  assert (given <= rooms).all()
  if more := given[given < rooms].tolist():  # those that could give one more give no fewer
    assert given.max() <= min(more) + 1


@pytest.mark.parametrize('count', [300, 20_000])
def test_folders_of_three_languages_give_equal_shares(count):
  # Few long documents gave all excerpts: 15, 50 and 35 % of 8 documents.
  documents = [letter * 64_000 for letter in (b'a', b'e', b'r') for _ in range(40)]
  found = excerpts.take(documents, length=100, count=count)
  assert len(found) == count
  letters = np.unique([text[:1] for text in found.texts], return_counts=True)[1]
  assert letters / count == pytest.approx(np.full(3, 1 / 3), abs=0.01)
  assert found.distinct == len(documents)


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


class Endless:
  """2**40 documents of one length."""

  length = 100

  def __init__(self):
    self.read = 0

  def __len__(self):
    return 2**40

  def __getitem__(self, index):
    self.read += 1
    return b'%0100d' % index


def test_a_source_that_never_ends_is_not_walked_to_its_end():
  source = Endless()
  assert len(excerpts.take(source, length=30, count=50)) == 50
  assert source.read == 100  # looked at, then cut
  with pytest.raises(InputError, match='no document of endless is 101 long'):
    excerpts.take(source, length=101, count=1, name='endless')
  assert source.read == 100  # its length is known
  with pytest.raises(InputError, match='no document of endless is 30 long'):
    excerpts.take(source, length=30, count=1, prepare=lambda text: text[:20], name='endless')
  assert source.read == 100 + excerpts.LOOK


def test_chosen_excerpts_keep_their_documents():
  found = excerpts.take(DOCUMENTS, length=10, count=100)
  kept = found.where(found.documents == 2)
  assert len(kept) == 3
  assert kept.distinct == 1
