# SPDX-License-Identifier: Apache-2.0
"""The Unicode tokenizer: its layout, its merges against Hugging Face's, and exactness."""

import collections
import copy
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import tokenizers
from lib.errors import InputError
from lib.tokenizers import files
from lib.tokenizers.characters import Characters
from lib.tokenizers.strings import token_strings
from lib.tokenizers.unicode import Unicode, ngram_ids, train_unicode

ROOT = pathlib.Path(__file__).parents[2]
SOURCES = [path.read_bytes() for path in sorted((ROOT / 'lib/tokenizers').glob('*.py'))]
RUSSIAN = 'все люди рождаются свободными и равными в своём достоинстве и правах 漢字漢字 ' * 3
TRAINED = train_unicode([*SOURCES, RUSSIAN.encode()])
WIDE = train_unicode(SOURCES, 0x20000, 5)
AWKWARD = [
  b'',
  b'\xff\xfe \xe2\x96 cut \xed\xa0\x80 surrogate \xc0\x80 \xe0\x80\x80 overlong \xf4\x90\x80\x80',
  '\ue000\ue080\uf8ff private, \ufffe\uffff last \U0001f600\U0010ffff astral'.encode(),
  bytes(range(256)) * 2,
  'the\U0001f600the'.encode() * 100,
  b'ttthhhee' * 1000,
]


def exact(tokenizer, data):
  ids = tokenizer.encode(data)
  lengths = tokenizer.byte_lengths(ids)
  assert ids.dtype == lengths.dtype == np.int32
  assert tokenizer.decode(ids) == data
  assert lengths.sum() == len(data)
  assert (lengths > 0).all()
  return ids.tolist()


texts = st.text(
  st.characters(exclude_categories=['Cs']) | st.sampled_from('thesfinr漢字все \U0001f600')
)


@settings(max_examples=300, deadline=None)
@given(
  st.binary()
  | texts.map(str.encode)
  | st.lists(st.binary(max_size=4) | texts.map(str.encode)).map(b''.join)
)
def test_any_bytes_come_back(data):
  exact(TRAINED, data)
  exact(WIDE, data)


def test_awkward_bytes_and_every_character_come_back():
  points = [*range(0xD800), *range(0xE000, 0x10000), *range(0x10000, 0x110000, 17)]
  for data in (*AWKWARD, ''.join(map(chr, points)).encode(), *SOURCES):
    exact(TRAINED, data)
    exact(WIDE, data)


def test_a_character_is_one_id_exactly_where_it_has_one():
  plain = Unicode()
  for point in (*range(0, 0xD800, 97), 0xD7FF, 0xF900, 0xFFFE):
    assert plain.encode(chr(point).encode()).tolist() == [point]
  for point in (0xE000, 0xE080, 0xF8FF, 0xFFFF, 0x10000, 0x1F600, 0x10FFFF):
    data = chr(point).encode()
    assert plain.encode(data).tolist() == [0xE000 + byte for byte in data]


def test_the_layout_of_65536_ids_is_the_papers():
  full = [chr(0x4E00 + i) + chr(0x4E00 + i // 7) for i in range(8177)]
  tokenizer = Unicode(full)
  counts = collections.Counter()
  for i, piece in enumerate(tokenizer.pieces):
    text = piece.decode('utf-8', 'replace')
    kind = ('nothing', 'point', 'ngram')[min(len(text), 2)]
    kind = 'byte' if text == '\ufffd' and len(piece) == 1 else kind
    counts[kind, (i >= 0xD800) + (i >= 0xE000) + (i >= 0xE100) + (i >= 0xF900)] += 1
    assert kind != 'point' or piece == chr(i).encode()
    assert kind != 'byte' or piece == bytes([i & 0xFF])
  assert counts == {
    ('point', 0): 55296,
    ('ngram', 1): 2048,
    ('nothing', 2): 128,  # with the bytes, the paper's 256 special tokens
    ('byte', 2): 128,
    ('ngram', 3): 6129,
    ('nothing', 3): 15,
    ('point', 4): 1791,
    ('nothing', 4): 1,
  }
  placed = [tokenizer.pieces[i].decode() for i in ngram_ids(0x10000) if tokenizer.pieces[i]]
  assert placed == sorted(full)


def test_131072_ids_hold_more_ngrams_above():
  places = ngram_ids(0x20000).tolist()
  assert len(places) == len(set(places)) == 2048 + 6144 + 65535
  assert places[:8192] == ngram_ids(0x10000).tolist()
  assert places[8192:] == [*range(0x10000, 0x1FFFF)]
  grams = [chr(0x3400 + i % 20000) + chr(0x4E00 + i // 20000) for i in range(73727)]
  tokenizer = Unicode(grams, 0x20000)
  assert tokenizer.vocab_size == 0x20000
  assert tokenizer.pieces[0x1FFFE].decode() == sorted(grams)[-1]
  assert exact(tokenizer, sorted(grams)[-1].encode()) == [0x1FFFE]
  assert tokenizer.pieces[0x1FFFF] == b''


def test_longer_ngrams_come_first_then_code_points():
  tokenizer = Unicode(['th', 'he', 'the', 'at', 'tha', 'that'])
  assert tokenizer.ngrams == ['that', 'tha', 'the', 'at', 'he', 'th']
  parts = [(tokenizer.pieces[a] + b'|' + tokenizer.pieces[b]).decode() for a, b in tokenizer.merges]
  expected = ['th|at', 'tha|t', 't|ha', 'th|a', 't|he', 'th|e', 'a|t', 'h|e', 't|h']
  assert parts == [part for part in expected if part != 't|ha']  # 'ha' is no token
  # 'at' before 'th', then 'th|at'; 'he' before 'th', then 't|he'.
  cut = lambda text: [tokenizer.pieces[i].decode() for i in exact(tokenizer, text.encode())]
  assert cut('that') == ['that']
  assert cut('the thath') == ['the', ' ', 'that', 'h']
  assert cut('hat') == ['h', 'at']
  assert Unicode(tokenizer.ngrams[::-1]).fingerprint == tokenizer.fingerprint


def library(ngrams):
  from tokenizers import Tokenizer, models

  vocab = {character: i for i, character in enumerate('abc ')}
  ngrams = sorted(ngrams, key=lambda gram: (-len(gram), gram))
  vocab |= {gram: i for i, gram in enumerate(ngrams, start=len(vocab))}
  splits = [(gram[:i], gram[i:]) for gram in ngrams for i in range(1, len(gram))]
  merges = [pair for pair in splits if set(pair) <= vocab.keys()]
  return Tokenizer(models.BPE(vocab, merges))


@settings(max_examples=150, deadline=None)
@given(
  st.sets(st.text('abc', min_size=2, max_size=5), max_size=12),
  st.lists(st.text('abc ', max_size=60), max_size=5),
)
def test_merges_are_those_of_the_library(ngrams, examples):
  tokenizer, reference = Unicode(sorted(ngrams)), library(ngrams)
  for text in (*examples, 'a' * 50, 'ab' * 30, 'abc' * 20):
    ids = exact(tokenizer, text.encode())
    assert [tokenizer.pieces[i].decode() for i in ids] == reference.encode(text).tokens


def test_training_takes_the_most_frequent_of_each_length_in_turn():
  text = b'abcd abcd abc ab9ab xyx xyx \xff\xfe zz'
  tokenizer = train_unicode([text, b'zz', b'z'], longest=3)
  # Digits, spaces and the ends of documents are in no n-gram; ties go by code points.
  assert sorted(tokenizer.ngrams) == ['ab', 'abc', 'bc', 'bcd', 'cd', 'xy', 'xyx', 'yx', 'zz']
  threes = {gram for gram in TRAINED.ngrams if len(gram) == 3}
  words = [word for source in SOURCES for word in source.decode().split() if word.isalpha()]
  counts = collections.Counter(word[i : i + 3] for word in words for i in range(len(word) - 2))
  assert threes >= {gram for gram, count in counts.items() if count >= 2}
  assert "n't" in train_unicode([b"don't won't"]).ngrams


def test_full_tables_alternate_between_lengths(monkeypatch):
  monkeypatch.setattr('lib.tokenizers.unicode.ngram_ids', lambda size: np.arange(0xD800, 0xD803))
  text = b'abc ' * 9 + b'xy ' * 8 + b'bc ' * 5
  assert train_unicode([text], longest=3).ngrams == ['abc', 'ab', 'bc']  # bc 14, abc 9, ab 9


def test_bad_choices_are_named():
  for call, message in (
    (lambda: Unicode([], 1000), '1000 ids asked for: .* 65536 or 131072'),
    (lambda: Unicode(['a' * 2] * 8193), '8193 n-grams do not fit 65536 ids: give 8192 or fewer'),
    (lambda: Unicode(['ab', 'ab']), 'given twice'),
    (lambda: Unicode(['a']), "'a' is not an n-gram"),
    (lambda: Unicode(['a\ue000']), 'is not an n-gram: .* outside its private range'),
    (lambda: Unicode(['\U0001f600a']), 'is not an n-gram'),
    (lambda: Unicode(['a' * 17]), 'should have 2 to 16 characters'),
    (lambda: train_unicode([b'1 2 3']), 'no two letters occur 2 times'),
    (lambda: train_unicode([]), 'no two letters occur 2 times'),
    (lambda: train_unicode(SOURCES, longest=1), 'choose 2 to 16'),
    (lambda: TRAINED.decode([65536]), 'id 65536 at position 0 is out of range'),
    (lambda: token_strings(TRAINED, 'greek'), "'greek' is not one of text, byte_level"),
  ):
    with pytest.raises(InputError, match=message):
      call()


def test_a_saved_tokenizer_comes_back_the_same(tmp_path):
  tokenizers.save(TRAINED, tmp_path / 'tokenizer')
  for twin in (tokenizers.load(tmp_path / 'tokenizer'), copy.deepcopy(TRAINED)):
    assert type(twin) is Unicode
    assert twin.fingerprint == TRAINED.fingerprint != WIDE.fingerprint
    assert all((twin.encode(data) == TRAINED.encode(data)).all() for data in AWKWARD)
  state = TRAINED.state() | {
    'ngrams': np.frombuffer(b'\xff' * 20, np.uint8),
    'lengths': np.array([20]),
  }
  files.write(tmp_path / 'other', 'unicode', state)
  with pytest.raises(InputError, match='arrays that are not a valid unicode tokenizer'):
    tokenizers.load(tmp_path / 'other')


def test_every_id_has_a_string_to_draw():
  strings = token_strings(TRAINED)
  assert len(strings) == 65536
  assert strings[0x4E00] == '一'
  assert strings[0xD800] == TRAINED.ngrams[0]
  assert strings[0xE000] == '<special_57344>'
  assert strings[0xE0FF] == '\\xff'
  characters = Characters()
  assert token_strings(characters, 'byte_level')[ord(' ')] == 'Ġ'
  assert token_strings(characters)[ord(' ')] == ' '
  assert len(set(token_strings(characters, 'byte_level'))) == 256
