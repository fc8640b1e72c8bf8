# SPDX-License-Identifier: Apache-2.0
"""LiB by its laws: round trips, the better of two paths, memory and forgetting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import tokenizers
from lib.errors import InputError
from lib.tokenizers.less_is_better import LiB, train_lib
from tests.helpers import byte_models

DOCUMENTS = [byte_models.sources()[i : i + 6000] for i in range(0, 60_000, 6000)]
SINGLE = [bytes([byte]) for byte in range(256)]


@pytest.fixture(scope='module')
def learned():
  return train_lib(DOCUMENTS, 4000, passes=6, sentences=100)


def matches(pieces, text, start):
  """The ids of the longest and the second longest piece, by looking at all."""
  found = [i for i, piece in enumerate(pieces) if text.startswith(piece, start)]
  return sorted(found, key=lambda i: -len(pieces[i]))[:2]


def by_definition(pieces, text):
  ids, i = [], 0
  while i < len(text):
    paths = [[first] for first in matches(pieces, text, i)]
    ends = [i + len(pieces[path[0]]) for path in paths]
    while len(set(ends)) > 1:
      behind = ends.index(min(ends))
      paths[behind].append(matches(pieces, text, ends[behind])[0])
      ends[behind] += len(pieces[paths[behind][-1]])
    ids += min(paths, key=lambda path: (len(path), sum(path)))
    i = ends[0]
  return ids


@settings(max_examples=60, deadline=None)
@given(
  st.lists(st.text('ab', min_size=2, max_size=5), max_size=8, unique=True),
  st.text('abc', max_size=30),
)
def test_ids_are_those_of_the_better_path(units, text):
  pieces = [*(unit.encode() for unit in units), *SINGLE]
  assert LiB(pieces).encode(text.encode()).tolist() == by_definition(pieces, text.encode())


def test_every_text_comes_back_and_is_shorter(learned):
  for text in (DOCUMENTS[0], byte_models.sources()[60_000:66_000], bytes(range(256)) * 2, b''):
    assert learned.decode(learned.encode(text)) == text
  text = byte_models.sources()[60_000:70_000]
  assert learned.encode(text).size < 0.6 * len(text)
  assert set(SINGLE) <= set(learned.pieces)
  assert len(set(learned.pieces)) == learned.vocab_size


def test_units_are_of_the_text_come_twice_and_end_with_a_line(learned):
  units = [piece for piece in learned.pieces if len(piece) > 1]
  assert len(units) > 500
  whole = b'\0'.join(DOCUMENTS)
  assert all(whole.count(unit) > 1 for unit in units)
  assert all(b'\n' not in unit[:-1] for unit in units)
  assert any(b' ' in unit.strip() for unit in units)


def test_without_memory_there_are_characters_alone_and_a_seed_decides():
  text = ['naïve café — naïve\n'.encode() * 20]
  none = train_lib(text, 400, memorize=0.0)
  assert {piece for piece in none.pieces if len(piece) > 1} == {*map(str.encode, 'ïé—')}
  same = [train_lib(DOCUMENTS[:2], 4000, passes=2, seed=seed).fingerprint for seed in (1, 1, 2)]
  assert same[0] == same[1] != same[2]


def test_what_never_comes_again_is_forgotten():
  rng = np.random.default_rng(0)
  noise = b''.join(bytes(rng.integers(97, 123, 12).tolist()) + b'\n' for _ in range(600))
  steady = b'the same line\n' * 600
  count = lambda text: sum(
    len(piece) > 3 for piece in train_lib([text], 9000, passes=1, sentences=50, life=2).pieces
  )
  assert count(noise) < 20
  units = train_lib([steady + noise], 9000, passes=3, sentences=50).pieces
  assert any(len(unit) > 3 and unit in steady for unit in units)


def test_it_is_a_family_and_names_what_it_refuses(learned, tmp_path):
  made = tokenizers.train('lib', DOCUMENTS, 4000, passes=6, sentences=100)
  assert made.fingerprint == learned.fingerprint
  tokenizers.save(made, tmp_path / 'file')
  assert tokenizers.load(tmp_path / 'file').fingerprint == made.fingerprint
  few = train_lib(DOCUMENTS, 300, passes=6, sentences=100)
  assert few.vocab_size <= 300
  with pytest.raises(InputError, match='ask for 256 or more'):
    train_lib(DOCUMENTS, 200)
  with pytest.raises(InputError, match='must be 1 or more'):
    train_lib(DOCUMENTS, 300, passes=0)
