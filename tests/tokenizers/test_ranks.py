# SPDX-License-Identifier: Apache-2.0
"""Ranks of tiktoken, tekken.json, tokenizer.json: the ids of the libraries that they belong to."""

import base64
import itertools
import json

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lib import tokenizers
from lib.errors import InputError
from lib.tokenizers import pretokenizers, ranks
from lib.tokenizers.bpe import BPE, train_bpe
from lib.tokenizers.ranks import Ranks
from tests.helpers import byte_models

TEXT = byte_models.sources()[:40_000]
PATTERN = r'[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+'
SINGLES = [bytes([byte]) for byte in range(256)]


def written(folder, pieces):
  path = folder / 'a.tiktoken'
  lines = [b'%s %d\n' % (base64.b64encode(piece), i) for i, piece in enumerate(pieces) if piece]
  path.write_bytes(b''.join(lines))
  return path


@pytest.mark.parametrize('rule', ['gpt2', 'cl100k', 'o200k'])
def test_a_rank_file_gives_the_ids_of_tiktoken(tmp_path, rule):
  pieces = train_bpe([TEXT], 900, rule).pieces
  pieces[300] = b''  # a rank may be missing, as in p50k
  ours = tokenizers.load(f'{written(tmp_path, pieces)}:{rule}')
  [pattern] = pretokenizers.patterns(rule)
  mergeable = {piece: i for i, piece in enumerate(pieces) if piece}
  theirs = tiktoken.Encoding('a', pat_str=pattern, mergeable_ranks=mergeable, special_tokens={})
  text = byte_models.sources()[40_000:80_000].decode() + "\u4e2d\u6587 It'S 12345\n\n  " + 'a' * 500
  assert ours.encode(text.encode()).tolist() == theirs.encode_ordinary(text)
  tokenizers.save(ours, tmp_path / 'saved')
  again = tokenizers.load(tmp_path / 'saved')
  assert (again.fingerprint, again.rule) == (ours.fingerprint, rule)
  assert again.decode(again.encode(b'\xff\x00 a')) == b'\xff\x00 a'


def tekken(pieces, **changes):
  """The content of a tekken.json with ten special tokens, and ranks that its size leaves out."""
  config = {'pattern': PATTERN, 'default_vocab_size': 510, 'default_num_special_tokens': 10}
  return json.dumps({
    'config': config | changes,
    'vocab': [
      {'rank': i, 'token_bytes': base64.b64encode(piece).decode(), 'token_str': None}
      for i, piece in enumerate(pieces)
    ],
    'special_tokens': [{'rank': 1, 'token_str': '<s>', 'is_control': True}],
  })  # fmt: skip


def test_a_tekken_file_gives_the_ids_of_its_first_ranks_after_the_special_tokens(tmp_path):
  pieces = train_bpe([TEXT], 600, 'cl100k').pieces
  (tmp_path / 'tekken.json').write_text(tekken(pieces))
  ours = tokenizers.load(tmp_path / 'tekken.json')
  mergeable = {piece: i for i, piece in enumerate(pieces[:500])}
  theirs = tiktoken.Encoding('a', pat_str=PATTERN, mergeable_ranks=mergeable, special_tokens={})
  text = byte_models.sources()[40_000:60_000].decode() + "\u4e2d\u6587 It'S 12345\n\n  "
  assert ours.encode(text.encode()).tolist() == [10 + i for i in theirs.encode_ordinary(text)]
  assert (ours.vocab_size, ours.special_tokens, ours.token_bytes(1)) == (510, {1: '<s>'}, b'')
  assert ours.decode(ours.encode(b'\xff\x00 a')) == b'\xff\x00 a'
  tokenizers.save(ours, tmp_path / 'saved')
  again = tokenizers.load(tmp_path / 'saved')
  assert (again.fingerprint, again.special_tokens) == (ours.fingerprint, {1: '<s>'})
  for changes, message in (
    ({'default_vocab_size': 700}, 'its ranks are not as many'),
    ({'default_num_special_tokens': 1, 'default_vocab_size': 501}, 'a special token is not one'),
    ({'pattern': '('}, 'is not a regular expression'),
    ({'pattern': None}, 'is not a complete tekken.json'),
  ):
    (tmp_path / 'tekken.json').write_text(tekken(pieces, **changes))
    with pytest.raises(InputError, match=message):
      tokenizers.load(tmp_path / 'tekken.json')


@settings(max_examples=100, deadline=None)
@given(
  st.lists(st.text('ab', min_size=2, max_size=6), max_size=9, unique=True),
  st.text('ab', max_size=120),
)
def test_any_ranks_are_joined_lowest_first(tokens, text):
  ours = Ranks([*SINGLES, *map(str.encode, tokens)], 'none')
  parts, token_of = list(text), {token: i for i, token in enumerate(tokens)}
  if text in token_of:
    parts = [text]
  while found := [
    (token_of[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in token_of
  ]:
    i = min(found)[1]
    parts[i : i + 2] = [parts[i] + parts[i + 1]]
  assert [ours.token_bytes(i).decode() for i in ours.encode(text.encode()).tolist()] == parts


@pytest.mark.parametrize('rule', ['words', 'cl100k', 'digit3_r2l+words', 'none', r'regex:\w+|\W'])
def test_a_tokenizer_json_gives_the_same_ids(rule):
  ours = train_bpe([TEXT], 700, rule)
  theirs = Tokenizer.from_str(ours.to_json())
  text = byte_models.sources()[40_000:60_000].decode() + "\u4e2d\u6587 It's 1234567\n\n  "
  ids = ours.encode(text.encode()).tolist()
  assert theirs.encode(text).ids == ids
  assert theirs.decode(ids) == text
  assert theirs.get_vocab_size() == ours.vocab_size


def test_what_cannot_be_read_or_written(tmp_path):
  with pytest.raises(InputError, match='byte 0x01 has no rank'):
    Ranks([b'\x00'], 'none')
  with pytest.raises(InputError, match='two ranks have the same bytes'):
    Ranks([*SINGLES, b'ab', b'ab'], 'none')
  with pytest.raises(InputError, match='is not a pretokenizer: use none'):
    Ranks(SINGLES, 'no such')
  path = written(tmp_path, SINGLES)
  with pytest.raises(
    InputError, match='without the rule that splits text: add it, as in FILE:cl100k'
  ):
    tokenizers.load(path)
  path.write_bytes(path.read_bytes() * 2)
  with pytest.raises(InputError, match='is damaged: ranks repeat'):
    ranks.read(path, 'gpt2')
  (tmp_path / 'text').write_text('no ranks\n')
  with pytest.raises(InputError, match='has no ranks of tiktoken'):
    ranks.read(tmp_path / 'text', 'gpt2')
  for tokenizer in (
    BPE(b'ab', [(0, 1)]),
    BPE(bytes(range(256)), [], 'greedy'),
    BPE(bytes(range(256)), [(0, 1), (0, 1)]),
  ):
    with pytest.raises(InputError, match=r'a tokenizer\.json can express a BPE with all bytes'):
      tokenizer.to_json()
