# SPDX-License-Identifier: Apache-2.0
"""BPE: the fast trainer and encoder against the plain ones, and sequential BPE."""

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.errors import InputError
from lib.tokenizers.bpe import BPE, train_bpe, train_sequential_bpe
from tests.helpers.strings import markov, texts


@st.composite
def merge_lists(draw, letters, max_size=10):
  """Any well-formed merges, also such as no training gives."""
  size = draw(st.integers(0, max_size))
  ids = [st.integers(0, letters + i - 1) for i in range(size)]
  return [(draw(i), draw(i)) for i in ids]


def pair_counts(ids):
  """Occurrences of each pair without overlap, by one pass from the left for each pair."""
  counts = {}
  for pair in set(itertools.pairwise(ids)):
    place = counts[pair] = 0
    while place + 1 < len(ids):
      hit = (ids[place], ids[place + 1]) == pair
      counts[pair] += hit
      place += 1 + hit
  return counts


def best_pair(ids):
  counts = pair_counts(ids)
  return min(counts, key=lambda pair: (-counts[pair], pair)), max(counts.values())


def merged(ids, pair, new):
  out, place = [], 0
  while place < len(ids):
    hit = tuple(ids[place : place + 2]) == tuple(pair)
    out.append(new if hit else ids[place])
    place += 1 + hit
  return out


def rule_by_rule(data, alphabet, merges):
  ids = [alphabet.index(byte) for byte in data]
  for i, pair in enumerate(merges):
    ids = merged(ids, pair, len(alphabet) + i)
  return ids


def naive_bpe(data, size, alphabet, min_count):
  ids, merges = [alphabet.index(byte) for byte in data], []
  while len(alphabet) + len(merges) < size and len(ids) > 1:
    pair, count = best_pair(ids)
    if count < min_count:
      break
    ids = merged(ids, pair, len(alphabet) + len(merges))
    merges.append(pair)
  return merges


def pairs(array):
  return [tuple(row) for row in array.tolist()]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([b'0', b'01', b'abc']).flatmap(texts), st.integers(3, 25), st.integers(1, 3))
def test_the_fast_trainer_learns_the_merges_of_the_plain_one(data, size, min_count):
  size = max(size, len(set(data)))
  bpe = train_bpe([data], size, None if data else b'01', min_count)
  assert pairs(bpe.merges) == naive_bpe(data, size, bpe.alphabet, min_count)


def test_the_fast_trainer_agrees_on_a_longer_stream():
  data = markov(2000, 0.3, seed=1)
  bpe = train_bpe([data], 80, None)
  assert pairs(bpe.merges) == naive_bpe(data, 80, b'01', 2)


def test_overlapping_occurrences_count_once():
  # '000' holds '00' once, '0000' twice; with min_count 2 only the second gives a merge.
  assert train_bpe([b'000'], 10, None).vocab_size == 1
  assert train_bpe([b'0000'], 10, None).pieces == [b'0', b'00']
  # '0001' x 2: '00' twice (not 4 times), '01' twice, '10' once; the tie goes to (0, 0), then
  # 00 0 1 00 0 1: (0, 1), (2, 0) and, once those are merged away, (2, 3) stand twice.
  assert train_bpe([b'00010001'], 5, None).pieces == [b'0', b'1', b'00', b'01', b'0001']


def test_training_stops_at_the_size_or_below_the_count():
  data = markov(10_000, 0.2, seed=0)
  assert train_bpe([data], 10, None).vocab_size == 10
  frequent = train_bpe([data], 1000, None, min_count=100)
  counts = pair_counts(frequent.encode(data).tolist())
  assert frequent.vocab_size < 1000
  assert max(counts.values()) < 100


def test_an_alphabet_may_hold_more_than_the_text():
  bpe = train_bpe([b'0101'], 300)
  assert bpe.vocab_size == 257  # 256 bytes and '01', which occurs twice
  assert bpe.decode(bpe.encode(b'\xff01')) == b'\xff01'
  assert train_bpe([b''], 300, alphabet=b'01').vocab_size == 2


@settings(max_examples=300, deadline=None)
@given(texts(b'ab'), merge_lists(2))
def test_ordered_merges_equal_the_pass_rule_by_rule(data, merges):
  bpe = BPE(b'ab', merges)
  assert bpe.encode(data).tolist() == rule_by_rule(data, b'ab', merges)


@settings(max_examples=150, deadline=None)
@given(merge_lists(2, 8))
def test_boundaries_hold_where_the_encoder_leaves_them(merges):
  bpe = BPE(b'ab', merges)
  expected = [
    [bpe.encode(a + b).tolist() == [i, j] for j, b in enumerate(bpe.pieces)]
    for i, a in enumerate(bpe.pieces)
  ]
  assert bpe.boundaries().tolist() == expected


@settings(max_examples=100, deadline=None)
@given(texts(b'01', 60), st.sampled_from([0.2, 0.5, 0.8]), st.integers(3, 60), st.integers(0, 9))
def test_encodings_are_the_walks_through_boundaries_that_hold(data, stay, size, seed):
  bpe = train_bpe([markov(2000, stay, seed)], size, b'01')
  holds = bpe.boundaries()
  ids = bpe.encode(data)
  assert holds[ids[:-1], ids[1:]].all()
  # A walk ends early at a token that merges with whatever follows.
  walk, rng = [seed % bpe.vocab_size], random.Random(seed)
  while len(walk) < 30 and holds[walk[-1]].any():
    walk.append(rng.choice(np.flatnonzero(holds[walk[-1]]).tolist()))
  assert bpe.encode(bpe.decode(walk)).tolist() == walk


def test_every_trained_token_can_be_emitted():
  bpe = train_bpe([markov(100_000, 0.2, seed=2)], 1000, None)
  assert [bpe.encode(piece).tolist() for piece in bpe.pieces] == [[i] for i in range(1000)]


@settings(max_examples=100, deadline=None)
@given(texts(b'01', 80), st.integers(1, 12))
def test_sequential_bpe_is_algorithm_1(data, count):
  size = len(data) // count
  if size < 2:
    with pytest.raises(InputError, match='do not make'):
      train_sequential_bpe(data, count)
    return
  alphabet, merges = bytes(sorted(set(data))), []
  for i in range(count):
    ids = rule_by_rule(data[i * size : (i + 1) * size], alphabet, merges)
    if len(ids) > 1 and best_pair(ids)[1] > math.log(count):
      merges.append(best_pair(ids)[0])
  assert pairs(train_sequential_bpe(data, count).merges) == merges


def test_sequential_bpe_adds_nothing_for_a_text_without_a_frequent_pair():
  # d = 8 texts, log 8 = 2.08: a pair must occur 3 times. '010101' holds '01' 3 times. Encoded with
  # that merge, text 2 is one run of 3 tokens, so one pair without overlap: nothing. Text 3 holds
  # '00' 3 times. In the others no pair is left 3 times.
  data = b'010101' + b'010101' + b'000000' + b'011011' * 5
  assert train_sequential_bpe(data, 8).pieces == [b'0', b'1', b'01', b'00']
