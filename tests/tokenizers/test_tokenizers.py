# SPDX-License-Identifier: Apache-2.0
"""What holds for every tokenizer under study, and for the files that keep them."""

import copy
import functools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import tokenizers
from lib.errors import InputError
from lib.tokenizers.base import Dictionary
from lib.tokenizers.blocks import Blocks
from lib.tokenizers.bpe import BPE, train_bpe_unsplit, train_sequential_bpe
from lib.tokenizers.characters import Characters
from lib.tokenizers.lzw import LZW, train_lzw
from tests.helpers.strings import markov, texts

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


@functools.cache
def examples():
  bpe = train_bpe_unsplit([markov(3000, 0.2, seed=6)], 20, None)
  lzw = train_lzw([markov(3000, 0.2, seed=6)], 20, None)
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
    'byte bpe': train_bpe_unsplit([b'to be or not to be'], 270),
    'sequential bpe': train_sequential_bpe(markov(3000, 0.2, seed=6), 20),
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
  program = 'from lib.tokenizers.blocks import Blocks; print(Blocks(b"10", 3).fingerprint)'
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
  with pytest.raises(InputError, match='known are ac, blocks, boundless, bpe, byte_level'):
    tokenizers.load(path)
  tokenizers.files.write(path, 'blocks', state)
  with pytest.raises(InputError, match='are not a valid blocks tokenizer'):
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
    (lambda: train_bpe_unsplit([b''], 10, None), 'no text'),
    (lambda: train_bpe_unsplit([b'abc'], 2, None), 'ask for 3 or more'),
    (lambda: train_lzw([b'abc'], 9, b'ab'), '0x63 at position 2'),
    (lambda: train_sequential_bpe(b'0101', 0), '0 texts'),
  ],
)
def test_bad_input_is_named(make, message):
  with pytest.raises(InputError, match=message):
    make()


def test_a_tokenizer_that_could_not_be_loaded_is_not_saved(tmp_path):
  class Backwards(Dictionary):
    def encode(self, data):
      return super().encode(data)[::-1]

  with pytest.raises(InputError, match='Backwards cannot be saved: give it its own family'):
    tokenizers.save(Backwards([b'a', b'b']), tmp_path / 'file')
  assert not list(tmp_path.iterdir())
