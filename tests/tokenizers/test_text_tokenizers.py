# SPDX-License-Identifier: Apache-2.0
"""SentencePiece and WordPiece over bytes: exact, without unknowns, of the size asked for."""

import copy
import functools
import io
import json
import pathlib
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import tokenizers
from lib.errors import InputError
from lib.tokenizers import utf8, wordpiece
from lib.tokenizers.sentencepiece import SentencePiece, train_sentencepiece
from lib.tokenizers.wordpiece import WordPiece, train_wordpiece

ROOT = pathlib.Path(__file__).parents[2]
CORPORA = ROOT.parent / 'shared/corpora'
FAMILIES = ('bpe', 'unigram', 'wordpiece')
SIZE = 800
TEXTS = [path.read_bytes() for path in sorted(pathlib.Path(json.__file__).parent.glob('*.py'))]
AWKWARD = [
  b'',
  b' ',
  b'\n\n  \r\n\t \0',
  b' two  spaces before, and three behind   ',
  'U+2581 ▁▁ a▁b, U+2585 ▅, U+FFFD �, →a ##a'.encode(),
  b'<unk> <s> </s> <pad> <0x41> [UNK] \xe2\x81\x87',
  'ﬁ Å ﷺ é e\u0301 \u00a0\u200b\ufeff 漢字 \U0001f600 \U0010ffff'.encode(),
  b'\xff\xfe \xe2\x96 cut \xed\xa0\x80 surrogate \xc0\x80 overlong \xf4\x90\x80\x80',
  bytes(range(256)) * 2,
  b'a' * 5000,
  b'unseparated' * 500,
]


def train(name: str, documents, size: int):
  if name == 'wordpiece':
    return train_wordpiece(documents, size)
  return train_sentencepiece(documents, size, name)


@functools.cache
def trained(name: str):
  return train(name, TEXTS, SIZE)


def each_family(test):
  return pytest.mark.parametrize('name', FAMILIES)(test)


def check_exact(tokenizer, data):
  ids = tokenizer.encode(data)
  lengths = tokenizer.byte_lengths(ids)
  assert ids.dtype == lengths.dtype == np.int32
  assert tokenizer.decode(ids) == data
  assert lengths.sum() == len(data)
  assert (lengths > 0).all()  # <unk>, which no byte stands behind, is never emitted
  return ids


pieces = st.one_of(
  st.binary(max_size=8),
  st.text(max_size=8).map(str.encode),
  st.sampled_from(AWKWARD[:-3]),
  st.sampled_from(re.findall(rb'\s*\S+\s', TEXTS[0])),
)


@each_family
@settings(max_examples=200, deadline=None)
@given(st.lists(pieces, max_size=12).map(b''.join))
def test_any_bytes_come_back(name, data):
  check_exact(trained(name), data)


@each_family
def test_awkward_bytes_come_back(name):
  for data in AWKWARD:
    check_exact(trained(name), data)


@each_family
def test_every_character_comes_back(name):
  # All of the first 65,536 code points and every 17th of the rest, alone between spaces.
  points = [*range(0xD800), *range(0xE000, 0x10000), *range(0x10000, 0x110000, 17)]
  check_exact(trained(name), ' '.join(map(chr, points)).encode())


@each_family
def test_ids_stand_for_fixed_bytes(name):
  tokenizer, text = trained(name), TEXTS[0]
  assert tokenizer.vocab_size == len(tokenizer.pieces) == SIZE
  ids = check_exact(tokenizer, text)
  assert len(text) / len(ids) > 2  # it has learnt something
  assert [tokenizer.decode([i]) for i in ids] == [tokenizer.pieces[i] for i in ids]
  for wrong in (-1, SIZE):
    for call in (tokenizer.decode, tokenizer.byte_lengths):
      with pytest.raises(InputError, match=f'id {wrong} at position 0'):
        call([wrong])


@each_family
def test_raw_bytes_take_one_token_each(name):
  tokenizer = trained(name)
  plain = tokenizer.encode(b'def ').tolist()
  raw = tokenizer.encode(b'\xff\x80').tolist()
  assert len(raw) == 2
  assert tokenizer.encode(b'def \xff\x80def ').tolist() == [*plain, *raw, *plain]


@each_family
def test_a_saved_tokenizer_comes_back_the_same(name, tmp_path):
  tokenizer = trained(name)
  tokenizers.save(tokenizer, tmp_path / 'tokenizer')
  for twin in (tokenizers.load(tmp_path / 'tokenizer'), copy.deepcopy(tokenizer)):
    assert type(twin) is type(tokenizer)
    assert twin.fingerprint == tokenizer.fingerprint
    assert all((twin.encode(data) == tokenizer.encode(data)).all() for data in AWKWARD)


@each_family
def test_a_damaged_file_is_refused(name, tmp_path):
  path = tmp_path / 'tokenizer'
  tokenizers.save(trained(name), path)
  content = path.read_bytes()
  for place in range(0, len(content), len(content) // 50):
    flipped = bytearray(content)
    flipped[place] ^= 1
    for wrong in (bytes(flipped), content[:place]):
      path.write_bytes(wrong)
      with pytest.raises(InputError, match=r'damaged|cut short|not a tokenizer file'):
        tokenizers.load(path)


@each_family
def test_training_is_quiet_and_repeats_itself(name, capfd):
  first = train(name, TEXTS, SIZE)
  assert capfd.readouterr() == ('', '')
  program = (
    'from tests.tokenizers import test_text_tokenizers as test\n'
    f'print(test.train({name!r}, test.TEXTS, test.SIZE).fingerprint)'
  )
  path = {'PYTHONPATH': str(ROOT), 'PYTHONHASHSEED': '1'}
  out = subprocess.run(
    [sys.executable, '-c', program], env=path, capture_output=True, text=True, check=True
  )
  assert out.stdout.strip() == first.fingerprint
  assert out.stderr == ''


@each_family
def test_sizes_out_of_reach_are_named_with_the_limit(name):
  for size, pattern in (
    (100, r'too small.* (\d+)( or more|$)'),
    (10**5, r'too large.* (\d+) or less'),
  ):
    with pytest.raises(InputError, match=pattern) as refusal:
      train(name, TEXTS[:1], size)
    limit = int(re.search(pattern, str(refusal.value))[1])
    assert train(name, TEXTS[:1], limit).vocab_size == limit


@each_family
def test_no_text_and_unknown_kinds_are_named(name):
  for nothing in ([], [b''], [b'\xff\xfe']):
    with pytest.raises(InputError, match=r'no text|too large .* 512 or less'):
      train(name, nothing, SIZE)
  with pytest.raises(InputError, match='bpe or unigram'):
    train_sentencepiece(TEXTS, SIZE, 'word')


def test_a_sentencepiece_model_that_changes_text_is_refused():
  import sentencepiece

  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(TEXTS[0].decode().splitlines()),
    model_writer=model,
    vocab_size=400,
    byte_fallback=True,
    minloglevel=2,
  )
  with pytest.raises(InputError, match='changes text'):
    SentencePiece(model.getvalue())
  with pytest.raises(InputError, match='7 bytes are no SentencePiece model'):
    SentencePiece(b'nothing')


def test_reserved_text_takes_no_line_from_training():
  # The trainer skips sentences with NUL or U+2585, so they are cut there.
  lines = ['zyx wvu\0 zyx wvu ▅ zyx wvu'.encode()] * 20
  model = train_sentencepiece([*TEXTS, *lines], SIZE, 'bpe')
  assert len(model.encode(b'zyx')) < 3


def test_wordpiece_needs_every_byte_twice_and_no_piece_twice():
  single = [bytes([byte]) for byte in range(256)]
  continues = [False] * 256 + [True] * 256
  plain = WordPiece([*single, *single], continues)
  # 'ab c' is the word ab, then the word ' c': a starts, b continues; ' ' starts, c continues.
  assert plain.encode(b'ab c').tolist() == [97, 256 + 98, 32, 256 + 99]
  for wrong in ([*single, *single[1:], b'\1'], [*single, *single[1:], b'ab']):
    with pytest.raises(InputError, match='every byte'):
      WordPiece(wrong, continues)


def test_wordpiece_takes_the_longest_piece_of_the_word():
  single = [bytes([byte]) for byte in range(256)]
  pieces = [*single, *single, b'ab', b'b##', b'##b', b' a']
  model = WordPiece(pieces, [False] * 256 + [True] * 256 + [False, True, False, False])
  # The word abc: 'ab' starts, 'c' continues; the words '##' and 'b' are no '##b'.
  assert [model.pieces[i] for i in model.encode(b'abc ab ##b')] == [
    b'ab', b'c', b' a', b'b', b' ', b'#', b'#', b'b'
  ]  # fmt: skip


def test_wordpiece_cuts_long_texts_where_no_word_changes(monkeypatch):
  model, text = trained('wordpiece'), b''.join(TEXTS) + "\n\n  it's  a\u00a0b ".encode() * 50
  whole = model.encode(text)
  assert len(list(wordpiece._chunks(text.decode()))) > 1
  for chunk in (1, 17, 10**9):
    monkeypatch.setattr(wordpiece, 'CHUNK', chunk)
    assert model.encode(text).tolist() == whole.tolist()


@settings(deadline=None)
@given(st.lists(pieces, max_size=12).map(b''.join), st.sampled_from(['', '▁', '▁\0']))
def test_cutting_keeps_all_bytes_and_only_well_formed_text(data, refused):
  parts = list(utf8.cut(data, refused))
  assert b''.join(part.encode() if isinstance(part, str) else part for part in parts) == data
  assert not any(char in part for part in parts if isinstance(part, str) for char in refused)
  try:
    text = data.decode()
    well_formed = not any(char in text for char in refused)
  except UnicodeDecodeError:
    well_formed = False
  assert well_formed == all(isinstance(part, str) for part in parts)


def test_importing_the_room_imports_no_tokenizer_library():
  program = (
    'import sys, lib.tokenizers\n'
    'print({"sentencepiece", "tokenizers", "tensorflow", "jax"} & set(sys.modules))'
  )
  out = subprocess.run(
    [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=True
  )
  assert out.stdout.strip() == 'set()'


@each_family
def test_a_real_corpus(name):
  path = CORPORA / 'tinyshakespeare/input.txt'
  if not path.exists():
    pytest.skip(f'{path} is not here')
  text = path.read_bytes()
  tokenizer = train(name, [text], 4000)
  ids = check_exact(tokenizer, text)
  assert 2.9 < len(text) / len(ids) < 3.5


@given(st.text('aé字🙂\n ', max_size=40), st.integers(4, 9))
def test_pieces_join_to_the_text_and_cut_no_character(text, size):
  found = list(utf8.pieces(text, size))
  assert ''.join(found) == text
  assert all(0 < len(piece.encode()) <= size for piece in found)
  assert all(len(a.encode()) > size - 4 for a in found[:-1])  # no shorter than need be


def test_sentences_to_train_on_are_short():
  # Unigram training on one line of 200 kB took 100 times as long as on its lines.
  from lib.tokenizers import sentencepiece

  line = ('wörter ' * 3000).encode()
  found = list(sentencepiece._sentences([line, b'short\n', b'\n'.join(TEXTS[:2])]))
  assert max(len(sentence.encode()) for sentence in found) <= 4096
  assert ''.join(found).encode() == line + b'short\n' + b'\n'.join(TEXTS[:2])
  text = b' '.join(b''.join(TEXTS).split())[:40_000]
  seconds = []
  for documents in ([text], [text.replace(b'. ', b'\n')]):
    begin = time.process_time()
    train_sentencepiece(documents, SIZE, 'unigram')
    seconds.append(time.process_time() - begin)
  assert seconds[0] < 10 * seconds[1]


@pytest.mark.parametrize('kind', ['bpe', 'unigram'])
def test_sentencepiece_learns_from_text_without_a_space(kind):
  parts = np.random.default_rng(0).choice(['ab', 'cd', 'ef', '\n'], 1000)
  words = [''.join(parts).encode()]
  model = train_sentencepiece(words, 280, kind)
  for text in (words[0], b' a word  and more ', 'кот ▁ы '.encode()):
    assert model.decode(model.encode(text)) == text
  assert b' ' in model.pieces
