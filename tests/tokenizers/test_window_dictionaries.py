# SPDX-License-Identifier: Apache-2.0
"""Dictionaries chosen by M1: the most probable by enumeration, lossless, better than windows."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.tokenizers.base import Dictionary
from lib.tokenizers.coding import arithmetic, tabulate, window_dictionaries
from lib.tokenizers.coding.windows import EqualInfo
from tests.helpers import byte_models

BITS = 12
BYTES = [bytes([byte]) for byte in range(256)]


@functools.cache
def pieces(name):
  model, text = byte_models.ngram(), byte_models.sources()[:100_000]
  if name == 'top':
    return window_dictionaries.top(model, BITS)
  if name == 'parsed':
    return window_dictionaries.parsed(model, text, BITS)
  pool, _ = window_dictionaries.likely(model, 4 << BITS)
  return window_dictionaries.pruned(pool, text, BITS, name)


NAMES = ('top', 'parsed', 'greedy', 'minimal')  # the last two: pruned by that encoder


def codecs():
  made = {f'{name} {encoder}': Dictionary(pieces(name), encoder)
          for name in NAMES for encoder in ('greedy', 'minimal')}  # fmt: skip
  for name in ('top', 'parsed'):
    for token_bits in (8, 12):
      made[f'{name} table {token_bits}'] = EqualInfo(
        tabulate.number(pieces(name), BITS), token_bits
      )
  return made


def test_the_most_probable_texts_are_those_of_an_exhaustive_search():
  model = byte_models.Random(3, 0.05)
  texts, scores = window_dictionaries.likely(model, 400)
  assert sorted(texts[:256]) == BYTES
  # All texts of up to three bytes that are as probable as the last; none longer can be missed,
  # for their beginnings would be among those of three.
  bar = scores[256:].min() - 1e-9
  level, found = [(b'', 0.0)], {}
  for _ in range(3):
    following = []
    for text, score in level:
      prefix = np.frombuffer(text or b'\0', np.uint8)[None]
      row = arithmetic.quantise(model(prefix, np.array([len(text)])))[0].astype(int)
      for symbol, share in enumerate(np.diff(row) / 2**arithmetic.PRECISION):
        if score + np.log2(share) >= bar or not text:
          following.append((text + bytes([symbol]), score + np.log2(share)))
    found.update(following)
    level = following
  longer = sorted((score for text, score in found.items() if len(text) > 1), reverse=True)
  assert len(set(texts)) == 400
  assert np.allclose(scores, [found[text] for text in texts])
  assert np.allclose(scores[256:], longer[:144])  # of equals at the end any may be taken


@pytest.mark.parametrize('name', NAMES)
def test_all_bytes_are_there_and_the_size_is_that_asked_for(name):
  found = pieces(name)
  assert len(set(found)) == len(found) == 2**BITS
  assert set(BYTES) <= set(found)
  if name in ('top', 'parsed'):
    assert {piece[:-1] for piece in found} <= {b'', *found}


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=80) | st.integers(0, 10**5).map(lambda i: byte_models.sources()[i:][:80]))
def test_any_bytes_come_back(text):
  for codec in codecs().values():
    ids = codec.encode(text)
    assert codec.lossless
    assert codec.decode(ids) == text
    assert codec.byte_lengths(ids).sum() == len(text)


def test_the_table_and_the_dictionary_cut_alike():
  text = byte_models.held_out()[:5000]
  for name in ('top', 'parsed'):
    plain, table = codecs()[f'{name} greedy'], codecs()[f'{name} table 12']
    lengths = plain.byte_lengths(plain.encode(text)).tolist()
    assert table.byte_lengths(table.encode(text)).tolist() == lengths


def test_dictionaries_of_equal_size_beat_windows_in_order():
  text = byte_models.held_out()[:40_000]
  made = codecs()
  count = {name: len(codec.encode(text)) for name, codec in made.items()}
  windows = EqualInfo(tabulate.tabulate(byte_models.ngram(), BITS, 'numbered'), 12)
  assert count['parsed greedy'] < count['top greedy'] < len(windows.encode(text))
  assert count['minimal minimal'] < count['top minimal'] <= count['top greedy']
  for name in NAMES:
    assert count[f'{name} minimal'] <= count[f'{name} greedy']


def test_pruning_drops_what_is_not_used():
  # Pieces beyond the bytes are used: abcd 9 times, each double 3 times, the others never; of those
  # the last goes. Had it stayed and abcd gone, abc would be used.
  doubles = [bytes([i, i]) for i in range(253)]
  pool = [*BYTES, *doubles, b'ab', b'abcd', b'bc', b'abc']
  text = b''.join(double + b'\xff' for double in doubles) * 3 + b'abcd' * 9
  assert window_dictionaries.pruned(pool, text, 9) == pool[:-1]
  # Five too many of 256: first two unused ones go, then the other three.
  assert (
    window_dictionaries.pruned([*BYTES, b'ab', b'cd', b'x1', b'x2', b'x3'], b'abcd', 8) == BYTES
  )
