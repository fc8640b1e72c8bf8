# SPDX-License-Identifier: Apache-2.0
"""Tokenizers under study: BPE, LZW, blocks, dictionaries, and the files that keep them."""

import copy
import functools
import itertools
import math
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import tokenizers
from lib.errors import InputError
from lib.tokenizers import BPE, LZW, Blocks, Characters, Dictionary

ROOT = os.path.dirname(os.path.dirname(__file__))


def texts(alphabet: bytes, max_runs: int = 30):
  """Strings made of runs: long runs are where pairs overlap."""
  run = st.tuples(st.sampled_from(alphabet), st.sampled_from([1, 1, 1, 2, 3, 4, 9]))
  runs = st.lists(run, max_size=max_runs)
  return runs.map(lambda runs: b''.join(bytes([byte]) * count for byte, count in runs))


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


def markov(size, stay, seed):
  flips = np.random.default_rng(seed).random(size) >= stay
  return (48 + np.cumsum(flips) % 2).astype(np.uint8).tobytes()


# BPE


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([b'0', b'01', b'abc']).flatmap(texts), st.integers(3, 25), st.integers(1, 3))
def test_the_fast_trainer_learns_the_merges_of_the_plain_one(data, size, min_count):
  size = max(size, len(set(data)))
  bpe = tokenizers.train_bpe(data, size, None if data else b'01', min_count)
  assert pairs(bpe.merges) == naive_bpe(data, size, bpe.alphabet, min_count)


def test_the_fast_trainer_agrees_on_a_longer_stream():
  data = markov(2000, 0.3, seed=1)
  bpe = tokenizers.train_bpe(data, 80)
  assert pairs(bpe.merges) == naive_bpe(data, 80, b'01', 2)


def test_overlapping_occurrences_count_once():
  # '000' holds '00' once, '0000' twice; with min_count 2 only the second gives a merge.
  assert tokenizers.train_bpe(b'000', 10).vocab_size == 1
  assert tokenizers.train_bpe(b'0000', 10).pieces == [b'0', b'00']
  # '0001' x 2: '00' twice (not 4 times), '01' twice, '10' once; the tie goes to (0, 0), then
  # 00 0 1 00 0 1: (0, 1), (2, 0) and, once those are merged away, (2, 3) stand twice.
  assert tokenizers.train_bpe(b'00010001', 5).pieces == [b'0', b'1', b'00', b'01', b'0001']


def test_training_stops_at_the_size_or_below_the_count():
  data = markov(10_000, 0.2, seed=0)
  assert tokenizers.train_bpe(data, 10).vocab_size == 10
  frequent = tokenizers.train_bpe(data, 1000, min_count=100)
  counts = pair_counts(frequent.encode(data).tolist())
  assert frequent.vocab_size < 1000
  assert max(counts.values()) < 100


def test_an_alphabet_may_hold_more_than_the_text():
  bpe = tokenizers.train_bpe(b'0101', 300, alphabet=bytes(range(256)))
  assert bpe.vocab_size == 257  # 256 bytes and '01', which occurs twice
  assert bpe.decode(bpe.encode(b'\xff01')) == b'\xff01'
  assert tokenizers.train_bpe(b'', 300, alphabet=b'01').vocab_size == 2


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
  bpe = tokenizers.train_bpe(markov(2000, stay, seed), size, b'01')
  holds = bpe.boundaries()
  ids = bpe.encode(data)
  assert holds[ids[:-1], ids[1:]].all()
  # A walk ends early at a token that merges with whatever follows.
  walk, rng = [seed % bpe.vocab_size], random.Random(seed)
  while len(walk) < 30 and holds[walk[-1]].any():
    walk.append(rng.choice(np.flatnonzero(holds[walk[-1]]).tolist()))
  assert bpe.encode(bpe.decode(walk)).tolist() == walk


def test_every_trained_token_can_be_emitted():
  bpe = tokenizers.train_bpe(markov(100_000, 0.2, seed=2), 1000)
  assert [bpe.encode(piece).tolist() for piece in bpe.pieces] == [[i] for i in range(1000)]


@pytest.mark.parametrize('train', [tokenizers.train_bpe, tokenizers.train_lzw])
def test_one_training_serves_smaller_dictionaries(train):
  data = markov(20_000, 0.2, seed=3)
  large = train(data, 100)
  for size in (2, 10, 99, 100):
    assert large.smaller(size).fingerprint == train(data, size).fingerprint
  assert large.smaller(100).fingerprint == large.fingerprint
  for size in (1, 101):
    with pytest.raises(InputError, match='2 to 100'):
      large.smaller(size)


@settings(max_examples=100, deadline=None)
@given(texts(b'01', 80), st.integers(1, 12))
def test_sequential_bpe_is_algorithm_1(data, count):
  size = len(data) // count
  if size < 2:
    with pytest.raises(InputError, match='do not make'):
      tokenizers.train_sequential_bpe(data, count)
    return
  alphabet, merges = bytes(sorted(set(data))), []
  for i in range(count):
    ids = rule_by_rule(data[i * size : (i + 1) * size], alphabet, merges)
    if len(ids) > 1 and best_pair(ids)[1] > math.log(count):
      merges.append(best_pair(ids)[0])
  assert pairs(tokenizers.train_sequential_bpe(data, count).merges) == merges


def test_sequential_bpe_adds_nothing_for_a_text_without_a_frequent_pair():
  # d = 8 texts, log 8 = 2.08: a pair must occur 3 times. '010101' holds '01' 3 times. Encoded with
  # that merge, text 2 is one run of 3 tokens, so one pair without overlap: nothing. Text 3 holds
  # '00' 3 times. In the others no pair is left 3 times.
  data = b'010101' + b'010101' + b'000000' + b'011011' * 5
  assert tokenizers.train_sequential_bpe(data, 8).pieces == [b'0', b'1', b'01', b'00']


# LZW


def naive_phrases(data, size, alphabet):
  """LZ78 phrases beyond single characters: the shortest prefix that was no phrase before."""
  phrases, start = [], 0
  for stop in range(1, len(data) + 1):
    long = [phrase for phrase in phrases if len(phrase) > 1]
    if len(alphabet) + len(long) == size:
      break
    if data[start:stop] not in phrases:
      phrases.append(data[start:stop])
      start = stop
  return [phrase for phrase in phrases if len(phrase) > 1]


def test_lzw_on_the_example_of_the_paper():
  # 0|1|00|11|1: each phrase is the shortest prefix not yet there; the last '1' is no new phrase.
  lzw = tokenizers.train_lzw(b'0100111', 10)
  assert lzw.pieces == [b'0', b'1', b'00', b'11']
  # Greedy on the same text: 0|1|00|11|1.
  assert lzw.encode(b'0100111').tolist() == [0, 1, 2, 3, 1]
  assert tokenizers.train_lzw(b'0100111', 3).pieces == [b'0', b'1', b'00']


@settings(max_examples=200, deadline=None)
@given(texts(b'abc'), st.integers(3, 20))
def test_lzw_learns_the_phrases_of_the_plain_parser(data, size):
  lzw = tokenizers.train_lzw(data, size, b'abc')
  assert lzw.pieces == [b'a', b'b', b'c', *naive_phrases(data, size, b'abc')]
  assert {piece[:-1] for piece in lzw.pieces[3:]} <= set(lzw.pieces)


# Dictionaries, characters, blocks


def covers(pieces, data):
  """All ways to spell `data`, as id lists."""
  if not data:
    return [[]]
  starts = [(i, piece) for i, piece in enumerate(pieces) if data.startswith(piece)]
  return [[i, *rest] for i, piece in starts for rest in covers(pieces, data[len(piece) :])]


@settings(max_examples=200, deadline=None)
@given(
  st.lists(texts(b'01', 3).filter(bool), min_size=1, max_size=6, unique=True),
  st.text('01', max_size=9).map(str.encode),
)
def test_minimal_takes_the_fewest_tokens_and_greedy_the_longest(pieces, data):
  ways = covers(pieces, data)
  lengths = [len(piece) for piece in pieces]
  if ways:
    fewest = min(ways, key=lambda ids: (len(ids), [-lengths[i] for i in ids]))
    assert Dictionary(pieces, 'minimal', b'01').encode(data).tolist() == fewest
  else:
    with pytest.raises(InputError, match='minimal encoder finds no piece'):
      Dictionary(pieces, 'minimal', b'01').encode(data)
  ids, start = [], 0
  while here := [i for i, piece in enumerate(pieces) if data.startswith(piece, start)]:
    ids.append(max(here, key=lengths.__getitem__))
    start += lengths[ids[-1]]
  if start == len(data):
    assert Dictionary(pieces, 'greedy', b'01').encode(data).tolist() == ids
  else:
    with pytest.raises(InputError, match=f'greedy encoder .* byte {start} '):
      Dictionary(pieces, 'greedy', b'01').encode(data)


def test_greedy_may_be_stuck_where_minimal_is_not():
  # 'abc' is a|bc; greedy takes ab and finds nothing for c at byte 2.
  pieces = [b'a', b'ab', b'bc']
  assert Dictionary(pieces, 'minimal').encode(b'abc').tolist() == [0, 2]
  with pytest.raises(InputError, match='byte 2 '):
    Dictionary(pieces, 'greedy').encode(b'abc')
  # Of the ways to spell 0000 in two tokens, the one with the longest first piece.
  zeros = Dictionary([b'0', b'00', b'000'], 'minimal')
  assert zeros.encode(b'0000').tolist() == [2, 0]
  with pytest.raises(InputError, match='byte 3 '):  # ab|c is where 'abcc' can get to at most
    Dictionary([b'ab', b'c', b'abca'], 'minimal').encode(b'abcb')


@pytest.mark.parametrize('encoder', ['greedy', 'minimal'])
def test_a_memorised_text_is_one_token_and_helps_nowhere_else(encoder):
  text, fresh = markov(100_000, 0.2, seed=4), markov(100_000, 0.2, seed=5)
  memory = Dictionary([b'0', b'1', text], encoder)
  assert memory.encode(text).tolist() == [2]
  assert memory.encode(fresh).tolist() == [byte - 48 for byte in fresh]
  assert memory.trie.children.shape == (100_002, 2)  # the text's nodes, the root and one character


def test_the_trie_spells_the_pieces():
  pieces = [b'a', b'', b'ab', b'c', b'ab']
  trie = Dictionary(pieces).trie
  spelled, stack = {}, [(0, b'')]
  for node, prefix in iter(lambda: stack.pop() if stack else None, None):
    if trie.token[node] >= 0:
      spelled[prefix] = int(trie.token[node])
    for symbol, child in enumerate(trie.children[node].tolist()):
      if child >= 0:
        stack.append((child, prefix + b'abc'[symbol : symbol + 1]))
  assert spelled == {b'a': 0, b'ab': 2, b'c': 3}  # empty pieces have no place, equal ones one
  assert trie.children.dtype == trie.token.dtype == np.int32
  assert len(trie.token) == len(trie.children) == 4


def test_blocks_are_numbers_in_base_a():
  blocks = Blocks(b'01', 3)
  # 8 blocks; 101 is 5, 001 is 1, and the tail 1, 0 are the extra ids 8 + 1 and 8 + 0.
  assert blocks.vocab_size == 10
  assert blocks.encode(b'10100110').tolist() == [5, 1, 9, 8]
  assert blocks.decode([5, 1, 9, 8]) == b'10100110'
  assert Blocks(b'01', 1).vocab_size == 2


@settings(max_examples=50, deadline=None)
@given(texts(b'abc'), st.integers(1, 4))
def test_blocks_are_their_dictionary_cut_greedily_or_minimally(data, r):
  blocks = Blocks(b'abc', r)
  ids = blocks.encode(data).tolist()
  assert len(ids) == len(data) // r + len(data) % r
  for encoder in ('greedy', 'minimal'):
    assert Dictionary(blocks.pieces, encoder, b'abc').encode(data).tolist() == ids


# Every family


@functools.cache
def examples():
  bpe = tokenizers.train_bpe(markov(3000, 0.2, seed=6), 20)
  lzw = tokenizers.train_lzw(markov(3000, 0.2, seed=6), 20)
  return {
    'characters': Characters(),
    'two characters': Characters(b'10'),
    'blocks': Blocks(b'10', 3),
    'dictionary': Dictionary([b'1', b'010', b'0', b'11']),
    'minimal dictionary': Dictionary([b'1', b'010', b'0', b'11'], 'minimal'),
    'memory': Dictionary([b'0', b'1', markov(1000, 0.5, seed=7)]),
    'bpe': bpe,
    'greedy bpe': BPE(bpe.alphabet, bpe.merges, 'greedy'),
    'minimal bpe': BPE(bpe.alphabet, bpe.merges, 'minimal'),
    'byte bpe': tokenizers.train_bpe(b'to be or not to be', 270, bytes(range(256))),
    'sequential bpe': tokenizers.train_sequential_bpe(markov(3000, 0.2, seed=6), 20),
    'lzw': lzw,
    'minimal lzw': LZW(lzw.alphabet, lzw.merges, 'minimal'),
  }


def each_example(test):
  return pytest.mark.parametrize('name', list(examples()))(test)


def inputs(tokenizer):
  return texts(b'01', 60) if tokenizer.alphabet != bytes(range(256)) else st.binary()


@each_example
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_decoding_undoes_encoding(name, data):
  tokenizer = examples()[name]
  text = data.draw(inputs(tokenizer))
  ids = tokenizer.encode(text)
  lengths = tokenizer.byte_lengths(ids)
  assert tokenizer.lossless
  assert ids.dtype == lengths.dtype == np.int32
  assert tokenizer.decode(ids) == text
  assert lengths.sum() == len(text)
  assert lengths.tolist() == [len(tokenizer.pieces[i]) for i in ids]


@each_example
def test_a_saved_tokenizer_comes_back_the_same(name, tmp_path):
  tokenizer, text = examples()[name], markov(500, 0.2, seed=8)
  tokenizers.save(tokenizer, tmp_path / 'new folder' / 'tokenizer')
  loaded = tokenizers.load(tmp_path / 'new folder' / 'tokenizer')
  for twin in (loaded, copy.deepcopy(tokenizer)):
    assert type(twin) is type(tokenizer)
    assert twin.fingerprint == tokenizer.fingerprint
    assert twin.encode(text).tolist() == tokenizer.encode(text).tolist()


def test_fingerprints_tell_tokenizers_apart_and_agree_over_processes():
  prints = {name: tokenizer.fingerprint for name, tokenizer in examples().items()}
  assert len(set(prints.values())) == len(prints)
  program = 'from lib.tokenizers import *; print(Blocks(b"10", 3).fingerprint)'
  out = subprocess.run(
    [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=True
  )
  assert out.stdout.strip() == prints['blocks']


@each_example
def test_ids_out_of_range_are_refused(name):
  tokenizer = examples()[name]
  size = tokenizer.vocab_size
  for call in (tokenizer.decode, tokenizer.byte_lengths):
    for wrong in (-1, size, 2**40):
      with pytest.raises(InputError, match=rf'id {wrong} at position 1 .* 0 to {size - 1}'):
        call([0, wrong])
    for wrong in ([0.5], [[0]], 0, [True]):
      with pytest.raises(InputError, match='one row of integers'):
        call(wrong)
    assert len(call([])) == 0
    assert len(call(np.array([0], np.uint8))) > 0


@pytest.mark.parametrize('name', ['blocks', 'dictionary', 'bpe', 'lzw'])
def test_a_byte_outside_the_alphabet_is_named(name):
  with pytest.raises(InputError, match='byte 0x32 at position 2'):
    examples()[name].encode(b'0123')


def test_a_damaged_file_is_refused(tmp_path):
  path = tmp_path / 'tokenizer'
  tokenizers.save(examples()['two characters'], path)
  content = path.read_bytes()
  damaged = [content[:size] for size in range(len(content))] + [content + b'\0']
  for place in range(len(content)):
    flipped = bytearray(content)
    flipped[place] ^= 1 << place % 8
    damaged.append(bytes(flipped))
  for wrong in damaged:
    path.write_bytes(wrong)
    with pytest.raises(InputError, match=r'damaged|cut short|not a tokenizer file'):
      tokenizers.load(path)


def test_a_foreign_file_is_refused(tmp_path):
  path = tmp_path / 'tokenizer'
  with pytest.raises(InputError, match='No such file'):
    tokenizers.load(path)
  path.write_bytes(b'# a text\n')
  with pytest.raises(InputError, match='not a tokenizer file'):
    tokenizers.load(path)
  state = examples()['bpe'].state()
  tokenizers.files.write(path, 'unheard-of', state)
  with pytest.raises(InputError, match='known are bpe'):
    tokenizers.load(path)
  tokenizers.files.write(path, 'blocks', state)
  with pytest.raises(InputError, match='make no blocks tokenizer'):
    tokenizers.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'tokenizer'
  tokenizers.save(examples()['bpe'], path)

  def fail(*_):
    raise OSError('disk gone')

  monkeypatch.setattr(os, 'replace', fail)
  with pytest.raises(OSError, match='disk gone'):
    tokenizers.save(examples()['lzw'], path)
  assert tokenizers.load(path).fingerprint == examples()['bpe'].fingerprint
  assert [file.name for file in tmp_path.iterdir()] == ['tokenizer']


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: Dictionary([]), 'at least one piece'),
    (lambda: Dictionary([b'a'], 'merges'), 'greedy, minimal'),
    (lambda: Dictionary([b'a'], alphabet=b'aa'), 'repeats'),
    (lambda: Dictionary([b'ab'], alphabet=b'a'), '0x62 occurs in a piece'),
    (lambda: BPE(b'01', [(0, 2)]), 'lower than the id 2'),
    (lambda: BPE(b'01', [(0, -1)]), 'lower than the id 2'),
    (lambda: Blocks(b'01', 0), 'blocks of 0'),
    (lambda: Blocks(b'01', 10**9), 'must be 1 to 1048576'),
    (lambda: tokenizers.train_bpe(b'', 10), 'no text'),
    (lambda: tokenizers.train_bpe(b'abc', 2), 'ask for 3 or more'),
    (lambda: tokenizers.train_lzw(b'abc', 9, b'ab'), '0x63 at position 2'),
    (lambda: tokenizers.train_sequential_bpe(b'0101', 0), '0 texts'),
  ],
)
def test_bad_input_is_named(make, message):
  with pytest.raises(InputError, match=message):
    make()


def test_a_tokenizer_that_could_not_be_loaded_is_not_saved(tmp_path):
  class Backwards(Dictionary):
    def encode(self, data):
      return super().encode(data)[::-1]

  with pytest.raises(InputError, match='Backwards cannot be saved: give it a family of its own'):
    tokenizers.save(Backwards([b'a', b'b']), tmp_path / 'file')
  assert not list(tmp_path.iterdir())
