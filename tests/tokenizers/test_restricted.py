# SPDX-License-Identifier: Apache-2.0
"""A Unicode tokenizer with fewer ids: exact on every byte string, its cuts those of the whole."""

import copy
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import tokenizers
from lib.errors import InputError
from lib.tokenizers.restricted import Restricted, train_restricted
from lib.tokenizers.unicode import Unicode, train_unicode

ROOT = pathlib.Path(__file__).parents[2]
SOURCES = [path.read_bytes() for path in sorted((ROOT / 'lib/tokenizers').glob('*.py'))]
TRAINED = train_restricted(SOURCES, 400, always='жы')


@settings(max_examples=200, deadline=None)
@given(st.binary() | st.text(st.sampled_from('thesinéжы漢\U0001f600 ')).map(str.encode))
def test_any_bytes_come_back(data):
  ids = TRAINED.encode(data)
  assert TRAINED.decode(ids) == data
  lengths = TRAINED.byte_lengths(ids)
  assert lengths.sum() == len(data)
  assert (lengths > 0).all()


def test_kept_tokens_are_cut_as_by_the_whole():
  whole = train_unicode(SOURCES)
  data = SOURCES[0]
  pieces = [whole.pieces[i] for i in whole.encode(data)]
  expected = []
  for piece in pieces:  # ASCII alone: what is not kept is written as characters
    expected += [piece] if piece in TRAINED.pieces else [bytes([byte]) for byte in piece]
  assert [TRAINED.pieces[i] for i in TRAINED.encode(data)] == expected
  assert len(TRAINED.encode(data)) < 0.8 * len(data)


def test_the_most_frequent_ids_and_those_asked_for_are_kept():
  assert TRAINED.vocab_size == 400
  assert {'ж'.encode(), 'ы'.encode(), b'the', b'\x00', b'\xff'} <= set(TRAINED.pieces)
  assert len(TRAINED.encode('жы'.encode())) == 2
  assert len(TRAINED.encode('é'.encode())) == 2  # its bytes


def test_characters_alone_are_kept_without_n_grams():
  alone = train_restricted(['to the → the'.encode()], 300, longest=1)
  assert max(len(piece.decode('utf-8', 'replace')) for piece in alone.pieces) == 1
  assert [alone.pieces[i] for i in alone.encode('the →'.encode())] == [
    b't', b'h', b'e', b' ', '→'.encode()
  ]  # fmt: skip
  assert alone.vocab_size == 257  # the arrow and all bytes


def test_save_and_load_and_copies(tmp_path):
  tokenizers.save(TRAINED, tmp_path / 'small.tok')
  for same in (tokenizers.load(tmp_path / 'small.tok'), copy.deepcopy(TRAINED)):
    assert same.fingerprint == TRAINED.fingerprint
    assert same.encode(SOURCES[1]).tolist() == TRAINED.encode(SOURCES[1]).tolist()


def test_what_cannot_be_kept_is_named():
  with pytest.raises(InputError, match='200 ids do not hold the 257 of bytes'):
    train_restricted(SOURCES, 200, always='ж')
  with pytest.raises(InputError, match='id 57344 has no text'):
    Restricted(Unicode(), [0xE000])
  with pytest.raises(InputError, match='id 65536 at position 0 is out of range'):
    Restricted(Unicode(), np.array([65536]))
