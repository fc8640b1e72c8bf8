# SPDX-License-Identifier: Apache-2.0
"""Pretokenizers: the machine of each rule against its regular expression in two other libraries."""

import itertools
import unicodedata

import numpy as np
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lib.errors import InputError
from lib.tokenizers import pretokenizers, unicode_classes, utf8

tokenizers = pytest.importorskip('tokenizers')

# Of each class some characters, with those that a rule names and Unicode spaces and cases.
CHARACTERS = (
  "aAzsSdDtTmMlLvVeErR019 \t\n\r'.,!/-é\u00c9\u017f\u01c5\u02b0中\u0301\u0940²Ⅷ٣\u00a0\u3000\u2028"
  '\x85\x1c\U0001f600\u200d\U00010400\U00010428'
)
TEXTS = st.one_of(
  st.text(CHARACTERS, max_size=14),
  st.text("aA'sSlL \u017fé\u0301中1", max_size=14),
  st.text('  \n\r\ta.', max_size=14),
  st.text('1234567890a ,', max_size=14),
  st.text(max_size=14),
)
NAMES = [*pretokenizers.RULES, 'digit3_r2l+words', 'digit1+o200k']


def pieces(data, rule):
  stops = pretokenizers.cut(data, rule).tolist()
  return [data[start:stop] for start, stop in itertools.pairwise([0, *stops])]


def by_hugging_face(text, rule):
  found = [text] if text else []
  for pattern in pretokenizers.patterns(rule):
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), 'isolated')
    found = [piece for part in found for piece, _ in split.pre_tokenize_str(part)]
  return [piece.encode() for piece in found]


def by_regex(text, pattern):
  found, start = [], 0
  for match in regex.finditer(pattern.replace(r'\z', r'\Z'), text):
    found += [text[start : match.start()], match.group()]
    start = match.end()
  return [piece.encode() for piece in (*found, text[start:]) if piece]


@pytest.mark.parametrize('rule', NAMES)
@settings(max_examples=150, deadline=None)
@given(TEXTS)
@example('中AB AB中AB Ab\u0301A')
@example("a  \n\n  b'LL \n ")
@example('x !!/\n// 1234567 "a"')
def test_a_machine_cuts_as_its_regular_expression(rule, text):
  found = pieces(text.encode(), rule)
  assert found == by_hugging_face(text, rule)
  if len(patterns := pretokenizers.patterns(rule)) == 1 and text.isascii():
    assert found == by_regex(text, patterns[0])  # its Unicode is another


def test_classes_are_those_of_unicode():
  table = unicode_classes.table()
  kinds = dict(Lu=1, Lt=1, Ll=2, Lm=3, Lo=3, Mn=4, Mc=4, Me=4, Nd=5, Nl=5, No=5)
  special = {10: 7, 13: 7, 32: 8, 39: 9, 47: 10}
  spaces = {ord(c) for c in map(chr, range(0x3001)) if regex.fullmatch(r'\s', c)}
  for point in range(0x110000):
    category = unicodedata.category(chr(point))
    expected = special.get(point, 6 if point in spaces else kinds.get(category, 0))
    if category != 'Cn':  # not assigned in this Python's Unicode, which is older
      assert table[point] == expected, hex(point)


@pytest.mark.parametrize('block', [0x0, 0x1000, 0xA000, 0x10000, 0x1E000])
def test_every_character_of_a_block_is_cut_as_hugging_face_cuts_it(block):
  characters = [chr(p) for p in range(block, block + 0x600)]
  text = ''.join(f'a{c}b {c} {c}{c}A{c}' for c in characters)
  for rule in ('gpt2', 'cl100k', 'o200k', 'words', 'digits_punct'):
    assert pieces(text.encode(), rule) == by_hugging_face(text, rule)


@pytest.mark.parametrize('rule', [*NAMES, r'regex:\w+|\W'])
@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(max_size=20), TEXTS.map(str.encode)))
def test_pieces_join_to_any_bytes_and_broken_utf8_stands_alone(rule, data):
  found = pieces(data, rule)
  assert b''.join(found) == data
  assert all(found)
  expected = [data] if rule == 'none' and data else []
  for part in utf8.cut(data) if rule != 'none' else ():
    expected += pieces(part.encode(), rule) if isinstance(part, str) else [part]
  assert found == expected


def test_named_cuts():
  assert pieces(b"It's 12345 (ok)!!\n\n  x", 'words') == [
    b'It', b"'s", b' ', b'123', b'45', b' (', b'ok', b')!!\n\n', b' ', b' x',
  ]  # fmt: skip
  assert pieces('नमस्ते दुनिया'.encode(), 'words') == ['नमस्ते'.encode(), ' दुनिया'.encode()]
  assert pieces(b'a 1234567', 'digit3_r2l') == [b'a ', b'1', b'234', b'567']
  assert pieces(b'of the 12 (a): so', 'digits_punct') == [b'of the ', b'12', b' (a', b'):', b' so']
  assert pieces(b'a1 b', r'regex:\d') == [b'a', b'1', b' b']


@pytest.mark.parametrize('rule', pretokenizers.RULES)
def test_cutting_is_linear_on_runs(rule):
  for run in (b'a', b'7', b' ', b'\n', b'!', b"'", b'A', '中A'.encode(), b'\n ', b' !'):
    data = run * (200_000 // len(run))  # quadratic, this would take minutes
    stops = pretokenizers.cut(data, rule)
    assert stops[-1] == len(data)
    assert np.all(np.diff(stops, prepend=0) > 0)


@pytest.mark.parametrize(
  ('rule', 'message'),
  [
    ('word', "rule 'word' is not a pretokenizer: use none, words, .*, or regex:PATTERN"),
    ('words+', "rule '' is not a pretokenizer"),
    ('regex:(', 'is not a regular expression for pretokens'),
  ],
)
def test_bad_rules(rule, message):
  with pytest.raises(InputError, match=message):
    pretokenizers.cut(b'a', rule)
  with pytest.raises(InputError, match=message):
    pretokenizers.patterns(rule)
