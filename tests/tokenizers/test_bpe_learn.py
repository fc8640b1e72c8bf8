# SPDX-License-Identifier: Apache-2.0
"""The learner of merges: weights, inherited merges and vetoes, by their laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.tokenizers import bpe_learn
from lib.tokenizers.bpe import BPE

LETTERS = b'ab :'
TOKENS = [bytes([byte]) for byte in LETTERS]
PIECES = st.lists(st.text('ab :', min_size=1, max_size=12).map(str.encode), min_size=1, max_size=8)


def cells_of(rows):
  """Rows of ids, -1 between them."""
  return np.array([i for row in rows for i in [*row, -1]][:-1], np.int32)


def symbols(piece):
  return [LETTERS.index(byte) for byte in piece]


def pieces_of(merges):
  return BPE(LETTERS, merges).pieces


@settings(max_examples=100, deadline=None)
@given(PIECES, st.data(), st.booleans())
def test_a_weight_is_a_repetition(pieces, data, overlap):
  counts = [data.draw(st.integers(1, 4)) for _ in pieces]
  weights = [count for piece, count in zip(pieces, counts) for _ in range(len(piece) + 1)][:-1]
  weighed = bpe_learn.learn(
    cells_of(map(symbols, pieces)), 20, TOKENS, np.array(weights), min_count=2, overlap=overlap
  )
  repeated = [piece for piece, count in zip(pieces, counts) for _ in range(count)]
  expected = bpe_learn.learn(
    cells_of(map(symbols, repeated)), 20, TOKENS, min_count=2, overlap=overlap
  )
  assert weighed.tolist() == expected.tolist()


@settings(max_examples=100, deadline=None)
@given(PIECES, st.integers(0, 8))
def test_merges_that_are_inherited_go_on_as_one_run(pieces, done):
  whole = bpe_learn.learn(cells_of(map(symbols, pieces)), 20, TOKENS, overlap=True)
  first = BPE(LETTERS, whole[:done])
  rest = bpe_learn.learn(
    cells_of(first.encode(piece).tolist() for piece in pieces), 20, first.pieces, overlap=True
  )
  assert np.vstack([whole[:done], rest]).tolist() == whole.tolist()


@settings(max_examples=150, deadline=None)
@given(PIECES, st.integers(0, 3), st.integers(0, 6), st.booleans())
def test_no_token_breaks_a_veto(pieces, most_words, most_bytes, colon_space):
  limits = dict(most_words=most_words, most_bytes=most_bytes, colon_space=colon_space)
  cells = cells_of(map(symbols, pieces))
  for token in pieces_of(bpe_learn.learn(cells, 30, TOKENS, **limits)):
    assert not most_words or len(list(filter(None, token.split(b' ')))) <= most_words
    assert not most_bytes or len(token) <= max(most_bytes, 1)
    assert colon_space or b': ' not in token
  if all(allowed(token, **limits) for token in pieces_of(bpe_learn.learn(cells, 30, TOKENS))):
    assert bpe_learn.learn(cells, 30, TOKENS, **limits).tolist() == (
      bpe_learn.learn(cells, 30, TOKENS).tolist()
    )


def allowed(token, most_words, most_bytes, colon_space):
  words = len(list(filter(None, token.split(b' '))))
  return (
    (not most_words or words <= most_words)
    and (not most_bytes or len(token) <= most_bytes)
    and (colon_space or b': ' not in token)
  )


def test_a_vetoed_pair_leaves_the_others_their_order():
  # 'a ' is the most frequent pair; with one word at most 'a b' is never made.
  cells = cells_of([symbols(b'a b a b a b'), symbols(b'ab ab')])
  free = pieces_of(bpe_learn.learn(cells, 12, TOKENS))
  kept = pieces_of(bpe_learn.learn(cells, 12, TOKENS, most_words=1))
  assert any(len(token.split()) > 1 for token in free)
  assert all(len(token.split()) <= 1 for token in kept)
  assert kept[4] == free[4]


@pytest.mark.parametrize('shared', [False, True])
def test_pairs_of_equal_bytes_make_one_token_where_they_are_shared(shared):
  # Tokens 3 'bb', 4 'abb' and 5 'ab' are inherited; 'a' + 'bb' then makes 'abb' again.
  tokens = [b'a', b'b', b' ', b'bb', b'abb', b'ab']
  merges = bpe_learn.learn(cells_of([[0, 3]] * 3), 9, tokens, shared=shared)
  assert merges.tolist() == ([] if shared else [[0, 3]])  # of other cells, so left alone
  joined = bpe_learn.learn(cells_of([[0, 1, 2], [0, 1]] * 3), 9, tokens[:3], shared=shared)
  assert joined.tolist() == [[0, 1], [3, 2]]
