# SPDX-License-Identifier: Apache-2.0
"""BPE: the fast trainer and encoder against the plain ones, and sequential BPE."""

import itertools
import json
import math
import pathlib
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.errors import InputError
from lib.tokenizers import pretokenizers
from lib.tokenizers.bpe import BPE, train_bpe, train_bpe_unsplit, train_sequential_bpe
from lib.tokenizers.wordpiece import byte_characters
from tests.helpers import byte_models
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
  bpe = train_bpe_unsplit([data], size, None if data else b'01', min_count)
  assert pairs(bpe.merges) == naive_bpe(data, size, bpe.alphabet, min_count)


def test_the_fast_trainer_agrees_on_a_longer_stream():
  data = markov(2000, 0.3, seed=1)
  bpe = train_bpe_unsplit([data], 80, None)
  assert pairs(bpe.merges) == naive_bpe(data, 80, b'01', 2)


def test_overlapping_occurrences_count_once():
  # '000' holds '00' once, '0000' twice; with min_count 2 only the second gives a merge.
  assert train_bpe_unsplit([b'000'], 10, None).vocab_size == 1
  assert train_bpe_unsplit([b'0000'], 10, None).pieces == [b'0', b'00']
  # '0001' x 2: '00' twice (not 4 times), '01' twice, '10' once; the tie goes to (0, 0), then
  # 00 0 1 00 0 1: (0, 1), (2, 0) and, once those are merged away, (2, 3) stand twice.
  assert train_bpe_unsplit([b'00010001'], 5, None).pieces == [b'0', b'1', b'00', b'01', b'0001']


def test_training_stops_at_the_size_or_below_the_count():
  data = markov(10_000, 0.2, seed=0)
  assert train_bpe_unsplit([data], 10, None).vocab_size == 10
  frequent = train_bpe_unsplit([data], 1000, None, min_count=100)
  counts = pair_counts(frequent.encode(data).tolist())
  assert frequent.vocab_size < 1000
  assert max(counts.values()) < 100


def test_an_alphabet_may_hold_more_than_the_text():
  bpe = train_bpe_unsplit([b'0101'], 300)
  assert bpe.vocab_size == 257  # 256 bytes and '01', which occurs twice
  assert bpe.decode(bpe.encode(b'\xff01')) == b'\xff01'
  assert train_bpe_unsplit([b''], 300, alphabet=b'01').vocab_size == 2


@settings(max_examples=300, deadline=None)
@given(texts(b'ab'), merge_lists(2))
def test_ordered_merges_equal_the_pass_rule_by_rule(data, merges):
  bpe = BPE(b'ab', merges)
  assert bpe.encode(data).tolist() == rule_by_rule(data, b'ab', merges)


@settings(max_examples=150, deadline=None)
@given(texts(b'ab', 150), merge_lists(2), st.booleans())
def test_long_pieces_are_merged_as_short_ones(data, merges, shared):
  bpe = BPE(b'ab', merges if not shared else [], shared=shared)
  for pair in merges if shared else []:  # there are fewer ids where a token is made twice
    rows = [*pairs(bpe.merges), tuple(i % bpe.vocab_size for i in pair)]
    bpe = BPE(b'ab', rows, shared=True)
  expected = lowest_rank_first(data, bpe)
  assert bpe.encode(data).tolist() == expected
  if bpe.shared:
    with pytest.raises(InputError, match='no two make the same token'):
      bpe.last_tokens(data)
  else:
    assert expected == rule_by_rule(data, b'ab', merges)
    firsts = [bpe.encode(data[: i + 1])[-1] for i in range(len(data))]
    assert bpe.last_tokens(data).tolist() == firsts


def lowest_rank_first(data, bpe):
  """One merge at a time: of the pairs that stand there the lowest, of these the leftmost."""
  ids, ranks = [bpe.alphabet.index(byte) for byte in data], {}
  for rank, pair in enumerate(pairs(bpe.merges)):
    ranks.setdefault(pair, rank)
  while True:
    found = [(ranks[pair], i) for i, pair in enumerate(itertools.pairwise(ids)) if pair in ranks]
    if not found:
      return ids
    rank, i = min(found)
    ids[i : i + 2] = [int(bpe.made[rank])]


def test_a_token_may_be_made_twice():
  # ab + c and a + bc make one token, as in files of other libraries; or two tokens of equal bytes.
  merges = [(0, 1), (1, 2), (3, 2), (0, 4)]
  shared, apart = BPE(b'abc', merges, shared=True), BPE(b'abc', merges)
  assert shared.pieces == [b'a', b'b', b'c', b'ab', b'bc', b'abc']
  assert (shared.vocab_size, apart.vocab_size) == (6, 7)
  assert BPE.from_state(shared.state()).fingerprint == shared.fingerprint != apart.fingerprint
  assert BPE(b'abc', merges[:3], shared=True).fingerprint == BPE(b'abc', merges[:3]).fingerprint
  assert shared.smaller(5).merges.tolist() == [[0, 1], [1, 2]]


def hugging_face(documents, size, rule):
  """The library's trainer on the same pieces."""
  from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

  tokenizer = Tokenizer(models.BPE())
  splits = [pre_tokenizers.Split(Regex(p), 'isolated') for p in pretokenizers.patterns(rule)]
  written = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, written])
  trainer = trainers.BpeTrainer(
    vocab_size=size, min_frequency=2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )  # fmt: skip
  tokenizer.train_from_iterator([document.decode() for document in documents], trainer)
  return tokenizer


def check_as_hugging_face(documents, size, rule):
  ours, theirs = train_bpe(documents, size, rule), hugging_face(documents, size, rule)
  names = byte_characters()
  written = [''.join(names[byte] for byte in piece) for piece in ours.pieces]
  model = json.loads(theirs.to_str())['model']
  assert model['vocab'] == {name: i for i, name in enumerate(written)}
  assert [list(merge) for merge in model['merges']] == [
    [written[left], written[right]] for left, right in pairs(ours.merges)
  ]
  text = documents[-1][:20_000].decode(errors='ignore')
  assert ours.encode(text.encode()).tolist() == theirs.encode(text).ids


LANGUAGES = pathlib.Path(__file__).parents[3] / 'shared' / 'corpora' / 'manpages'


@pytest.mark.skipif(not LANGUAGES.is_dir(), reason='the corpora are not there')
def test_merges_are_those_of_hugging_face_in_twenty_languages():
  folders = sorted(LANGUAGES.iterdir())
  assert len(folders) == 20
  for folder in folders:
    files = sorted(path for path in folder.rglob('*') if path.is_file())
    whole = [path.read_bytes() for path in files[:60]]
    text = b''.join(whole).decode(errors='ignore').encode()[:150_000].decode(errors='ignore')
    check_as_hugging_face([text[:70_000].encode(), text[70_000:].encode()], 2000, 'words')


@pytest.mark.parametrize('rule', ['words', 'gpt2', 'o200k', 'digits_punct', 'digit3_r2l+words'])
def test_merges_are_those_of_hugging_face(rule):
  text = byte_models.sources()[:60_000] + 'é 中文字 ½ аби\n\n\n        x = 12345\n'.encode() * 40
  check_as_hugging_face([text[:40_000], text[40_000:]], 700, rule)


def test_the_rule_is_part_of_a_tokenizer():
  bpe = train_bpe([b'to be or not to be'] * 4, 270)
  assert bpe.rule == 'words'
  assert all(b' ' not in piece[1:] for piece in bpe.pieces)
  again = BPE.from_state(bpe.state())
  assert (again.rule, again.fingerprint) == ('words', bpe.fingerprint)
  unsplit = BPE(bpe.alphabet, bpe.merges)
  broken = train_bpe_unsplit([b'\xff a\xff a\xff a'], 300)  # bytes that are no UTF-8 are joined too
  assert broken.encode(b'\xff a').size == 1
  assert 'rule' not in unsplit.state()
  assert unsplit.fingerprint != bpe.fingerprint
  with pytest.raises(InputError, match='is not a pretokenizer: use none, words'):
    train_bpe([b'a'], 300, rule='word')
  with pytest.raises(InputError, match='255 tokens cannot hold the bytes: ask for 256'):
    train_bpe([b'a'], 255)


@pytest.mark.parametrize('rule', ['none', 'words', 'gpt2'])
def test_encoding_is_linear_on_runs(rule):
  bpe = train_bpe([b'a' * 4000, b' ' * 4000, byte_models.sources()[:30_000]], 600, rule)
  noise = np.random.default_rng(0).bytes(1 << 16)
  for data in (b'a' * (1 << 20), b' ' * (1 << 20), noise):  # quadratic, this would take hours
    assert bpe.decode(bpe.encode(data)) == data
  assert bpe.apply(noise, cache=False).tolist() == bpe.apply(noise).tolist()


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
  bpe = train_bpe_unsplit([markov(2000, stay, seed)], size, b'01')
  holds = bpe.boundaries()
  ids = bpe.encode(data)
  assert holds[ids[:-1], ids[1:]].all()
  # A walk ends early at a token that merges with whatever follows.
  walk, rng = [seed % bpe.vocab_size], random.Random(seed)
  while len(walk) < 30 and holds[walk[-1]].any():
    walk.append(rng.choice(np.flatnonzero(holds[walk[-1]]).tolist()))
  assert bpe.encode(bpe.decode(walk)).tolist() == walk


def test_every_trained_token_can_be_emitted():
  bpe = train_bpe_unsplit([markov(100_000, 0.2, seed=2)], 1000, None)
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
