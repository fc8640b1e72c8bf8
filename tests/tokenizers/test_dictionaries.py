# SPDX-License-Identifier: Apache-2.0
"""LZW, dictionaries and blocks: what they learn, and how they cut a text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.errors import InputError
from lib.tokenizers.base import Dictionary
from lib.tokenizers.blocks import Blocks
from lib.tokenizers.bpe import train_bpe_unsplit
from lib.tokenizers.lzw import train_lzw
from tests.helpers.strings import markov, texts

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
  lzw = train_lzw([b'0100111'], 10, None)
  assert lzw.pieces == [b'0', b'1', b'00', b'11']
  # Greedy on the same text: 0|1|00|11|1.
  assert lzw.encode(b'0100111').tolist() == [0, 1, 2, 3, 1]
  assert train_lzw([b'0100111'], 3, None).pieces == [b'0', b'1', b'00']


@settings(max_examples=200, deadline=None)
@given(texts(b'abc'), st.integers(3, 20))
def test_lzw_learns_the_phrases_of_the_plain_parser(data, size):
  lzw = train_lzw([data], size, b'abc')
  assert lzw.pieces == [b'a', b'b', b'c', *naive_phrases(data, size, b'abc')]
  assert {piece[:-1] for piece in lzw.pieces[3:]} <= set(lzw.pieces)


@pytest.mark.parametrize('train', [train_bpe_unsplit, train_lzw])
def test_one_training_serves_smaller_dictionaries(train):
  data = markov(20_000, 0.2, seed=3)
  large = train([data], 100, None)
  for size in (2, 10, 99, 100):
    assert large.smaller(size).fingerprint == train([data], size, None).fingerprint
  assert large.smaller(100).fingerprint == large.fingerprint
  for size in (1, 101):
    with pytest.raises(InputError, match='2 to 100'):
      large.smaller(size)


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
