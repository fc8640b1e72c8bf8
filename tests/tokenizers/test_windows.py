# SPDX-License-Identifier: Apache-2.0
"""Equal-info windows: what fits by fractions, no two texts with one code, any bytes come back."""

import copy
import functools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import tokenizers
from lib.errors import InputError
from lib.tokenizers.coding import arithmetic, slices, tabulate, walk
from lib.tokenizers.coding.windows import EqualInfo
from tests.helpers import byte_models, intervals

LOSSLESS = ('delay', 'exact', 'numbered')
SHAPES = [(16, 16), (16, 8), (12, 12), (12, 8)]
MODELS = {
  'n-gram': byte_models.ngram,
  'uniform': byte_models.Uniform,
  'peaked': functools.partial(byte_models.Random, 0, 0.01),
  'flat': functools.partial(byte_models.Random, 1, 10.0),
}


@functools.cache
def table(name, bits, mode):
  return tabulate.tabulate(MODELS[name](), bits, mode)


def pieces_with_codes(name, bits, mode):
  found = table(name, bits, mode)
  return dict(zip(found.pieces, found.code.tolist(), strict=True))


def interval(model, text, bits):
  """The text's interval as fractions, without rounding."""
  precision = min(arithmetic.PRECISION, bits)
  low, width = Fraction(0), Fraction(1)
  for i, symbol in enumerate(text):
    prefix = np.frombuffer(text[:i] or b'\0', np.uint8)[None]
    row = arithmetic.quantise(model(prefix, np.array([i])), precision)[0].tolist()
    low += width * Fraction(row[symbol], 2**precision)
    width *= Fraction(row[symbol + 1] - row[symbol], 2**precision)
  return low, low + width


def code_by_trying(low, high, bits):
  """The shortest code of [low, high) with zeros after it to `bits`; None = it does not fit."""
  v, n = intervals.shortest_enclosed(low, high)
  return v << (bits - n) if n <= bits else None


@pytest.mark.parametrize(('name', 'bits'), [('n-gram', 16), ('n-gram', 12), ('peaked', 12)])
def test_what_fits_and_its_code_are_those_of_fractions(name, bits):
  # Exact shares and shares rounded to 2^-32 of the interval agree but for a hair's breadth.
  model, codes = MODELS[name](), pieces_with_codes(name, bits, 'greedy')
  rng = np.random.default_rng(0)
  sample = [*codes][:20] + [list(codes)[i] for i in rng.integers(0, len(codes), 60)]
  for text in sample:
    low, high = interval(model, text, bits)
    assert code_by_trying(low, high, bits) == codes[text]
    for follower in (0, 32, 101, 255):
      longer = text + bytes([follower])
      assert (code_by_trying(*interval(model, longer, bits), bits) is not None) == (longer in codes)


@pytest.mark.parametrize('mode', tabulate.MODES)
@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('bits', [12, 16])
def test_tables_hold_all_bytes_and_the_beginnings_of_each_text(name, bits, mode):
  found = table(name, bits, mode)
  pieces = found.pieces
  assert pieces[:256] == [bytes([byte]) for byte in range(256)]
  assert pieces == sorted(set(pieces), key=lambda piece: (len(piece), piece))
  assert {piece[:-1] for piece in pieces[256:]} <= set(pieces)
  emitted = {(pieces[i], int(code)) for i, code in zip(found.cut, found.code, strict=True)}
  codes = {code for _, code in emitted}
  assert all(longer.startswith(pieces[i]) for longer, i in zip(pieces, found.cut, strict=True))
  if mode != 'greedy':  # one text a code, one code a text
    assert len(codes) == len({text for text, _ in emitted}) == len(emitted)
    assert all(pieces[found.text[code]] == text for text, code in emitted)
  if mode == 'exact':  # every code means some text, and only what it means has it
    assert {pieces[i] for i in found.text} == {text for text, _ in emitted}


def test_greedy_gives_two_texts_one_code():
  codec = EqualInfo(table('n-gram', 16, 'greedy'))
  assert not codec.lossless
  texts = {}
  for text, code in pieces_with_codes('n-gram', 16, 'greedy').items():
    texts.setdefault(code, []).append(text)
  short, long = next(texts[code] for code in sorted(texts) if len(texts[code]) == 2)
  assert long.startswith(short)
  assert short != long
  assert codec.encode(short).tolist() == codec.encode(long).tolist()
  assert codec.decode(codec.encode(short)) == long
  # So of a held-out text some windows come back wrong; not so with the other modes' codes.
  text = byte_models.held_out()[:5000]
  assert codec.decode(codec.encode(text)) != text
  for mode in LOSSLESS:
    twin = EqualInfo(table('n-gram', 16, mode))
    assert twin.lossless
    assert twin.encode(short).tolist() != twin.encode(long).tolist()


def test_a_code_can_come_back_after_another_so_delay_takes_the_shortest_of_all():
  # \1 has about [.30, .98), \1\1 [.36, .61) and \1\1\1 [.494, .542). The shortest intervals inside
  # are [.5, .75), [.375, .5) and [.5, .53125).
  class Returning:
    def __call__(self, prefixes, lengths):
      shares = {0: (0.3, 0.7), 1: (0.1, 0.371), 2: (0.53, 0.1923)}
      rows = np.zeros((len(lengths), 256), np.float32)
      for row, n in zip(rows, lengths, strict=True):
        below, here = shares.get(int(n), (0.5, 0.5))
        row[:3] = below, here, 1 - below - here
      return rows

  found = tabulate.tabulate(Returning(), 16, 'greedy')
  codes = dict(zip(found.pieces, found.code.tolist(), strict=True))
  assert codes[b'\1'] == codes[b'\1\1\1'] == 0x8000
  assert codes[b'\1\1'] == 0x6000
  codec = EqualInfo(tabulate.tabulate(Returning(), 16, 'delay'))
  for text in (b'\1', b'\1\1', b'\1\1\1', b'\1\1\1\1\1\2\0\1'):
    assert codec.decode(codec.encode(text)) == text


texts = st.binary(max_size=60) | st.integers(0, 10**5).map(
  lambda i: byte_models.sources()[i : i + 80]
)


@pytest.mark.parametrize(('bits', 'token_bits'), SHAPES)
@pytest.mark.parametrize('mode', tabulate.MODES)
@pytest.mark.parametrize('name', MODELS)
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_any_bytes_come_back(name, mode, bits, token_bits, data):
  text = data.draw(texts)
  codec = EqualInfo(table(name, bits, mode), token_bits)
  ids = codec.encode(text)
  assert ids.dtype == np.int32
  assert ids.min(initial=0) >= 0
  assert ids.max(initial=0) < codec.vocab_size == 2**token_bits
  lengths = codec.byte_lengths(ids)
  decoded = codec.decode(ids)
  assert lengths.sum() == len(decoded)
  if mode == 'greedy':
    assert codec.decode(codec.encode(text[:1]))[:1] == text[:1]
  else:
    assert decoded == text


def test_windows_are_the_longest_texts_that_fit():
  found, text = table('n-gram', 16, 'numbered'), byte_models.held_out()[:3000]
  codec, pieces, start = EqualInfo(found), set(found.pieces), 0
  for length in codec.byte_lengths(codec.encode(text)):
    fitting = [
      n for n in range(1, min(30, len(text) - start) + 1) if text[start : start + n] in pieces
    ]
    assert length == max(fitting)
    start += length
  greedy = EqualInfo(table('n-gram', 16, 'greedy'))
  assert len(greedy.encode(text)) == len(codec.encode(text))


def test_windows_cost_what_the_modes_cost():
  text = byte_models.held_out()[:40_000]
  count = {mode: len(EqualInfo(table('n-gram', 16, mode)).encode(text)) for mode in tabulate.MODES}
  assert count['greedy'] == count['numbered'] <= count['exact'] < count['delay']
  narrow = EqualInfo(table('n-gram', 12, 'numbered'), 12)
  assert len(narrow.encode(text)) * 12 > count['numbered'] * 16


def test_of_too_many_texts_the_heaviest_stay():
  pieces = [bytes([byte]) for byte in range(256)]
  pieces += [b'a' + piece for piece in pieces]
  weights = np.concatenate([np.full(256, 2.0), np.arange(256) % 7])
  kept = [pieces[i] for i in tabulate.heaviest(pieces, weights, 300)]
  assert sorted(kept[:256]) == pieces[:256]
  assert kept[256:292] == [b'a' + bytes([i]) for i in range(6, 256, 7)]
  assert kept[292:] == [b'a' + bytes([i]) for i in range(5, 61, 7)]


def test_numbers_go_in_lexicographic_order():
  found = tabulate.number([*(bytes([i]) for i in range(256)), b'ab', b'abc', b'aa', b'zz'], 12)
  order = [found.pieces[i] for i in found.text if i >= 0]
  assert order == sorted(found.pieces)
  assert EqualInfo(found, 8).decode(EqualInfo(found, 8).encode(b'abcabaazzz')) == b'abcabaazzz'
  unused = EqualInfo(found, 12)
  assert unused.decode([259, 260]) == unused.decode([259])  # a code of no text stands for nothing
  assert unused.byte_lengths([259, 260]).tolist() == [1, 0]
  with pytest.raises(InputError, match="without b'ab'"):
    tabulate.number([*found.pieces[:256], b'abc'], 12)
  with pytest.raises(InputError, match='260 texts for 8 bits'):
    tabulate.number(found.pieces, 8)


def test_a_windows_last_token_covers_its_bytes():
  found = table('n-gram', 16, 'numbered')
  text = byte_models.held_out()[:200]
  whole, halves = EqualInfo(found), EqualInfo(found, 8)
  ids, lengths = whole.encode(text), whole.byte_lengths(whole.encode(text))
  assert halves.encode(text).tolist() == np.stack([ids >> 8, ids & 255], 1).reshape(-1).tolist()
  assert halves.byte_lengths(halves.encode(text))[1::2].tolist() == lengths.tolist()
  assert not halves.byte_lengths(halves.encode(text))[::2].any()
  assert halves.byte_lengths(halves.encode(text)[:-1]).sum() == lengths[:-1].sum()
  with pytest.raises(InputError, match='tokens of 8 bits are cut short'):
    halves.decode(halves.encode(text)[:-1])


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(slices.WIDTHS), st.sampled_from(slices.WIDTHS), st.data())
def test_slices_are_the_bits_in_order(width, other, data):
  values = data.draw(st.lists(st.integers(0, 2**width - 1), max_size=9))
  bits = ''.join(f'{value:0{width}b}' for value in values)
  stream = slices.pack(np.array(values, np.int32), width)
  assert ''.join(f'{byte:08b}' for byte in stream).ljust(len(bits), '0').startswith(bits)
  assert len(stream) == -(-len(bits) // 8)
  sliced = slices.unpack(stream, other)
  assert ''.join(f'{value:0{other}b}' for value in sliced).rstrip('0') == bits.rstrip('0')
  assert len(sliced) == -(-8 * len(stream) // other)


@pytest.mark.parametrize(('bits', 'token_bits'), SHAPES)
@pytest.mark.parametrize('mode', tabulate.MODES)
def test_a_saved_codec_comes_back_the_same(mode, bits, token_bits, tmp_path):
  codec = EqualInfo(table('n-gram', bits, mode), token_bits)
  tokenizers.save(codec, tmp_path / 'codec')
  text = byte_models.held_out()[:500]
  for twin in (tokenizers.load(tmp_path / 'codec'), copy.deepcopy(codec)):
    assert twin.fingerprint == codec.fingerprint
    assert twin.lossless == codec.lossless
    assert twin.encode(text).tolist() == codec.encode(text).tolist()
  other = EqualInfo(table('n-gram', bits, 'exact' if mode != 'exact' else 'delay'), token_bits)
  assert other.fingerprint != codec.fingerprint


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: tabulate.tabulate(byte_models.Uniform(), 16, 'lossy'), 'use one of greedy, delay'),
    (lambda: tabulate.tabulate(byte_models.Uniform(), 24, 'exact'), '9 to 16 bits'),
    (lambda: tabulate.tabulate(byte_models.Uniform(), 8, 'exact'), '9 to 16 bits'),
    (lambda: EqualInfo(table('uniform', 12, 'exact'), 16), 'do not fit into windows of 12'),
    (lambda: EqualInfo(table('uniform', 12, 'exact'), 9), r'use one of \(8, 12, 16\)'),
    (lambda: EqualInfo(table('uniform', 12, 'exact'), 8).decode([256]), '0 to 255'),
  ],
)
def test_bad_input_is_named(make, message):
  with pytest.raises(InputError, match=message):
    make()


# Long texts, which are walked in several places at once


def one_walk(codec, text):
  """Codes of a text, one window after the other."""
  codes, start = [], 0
  while start < len(text):
    node, stop = text[start], start + 1
    while stop < len(text) and (after := int(codec._following[node, text[stop]])) >= 256:
      node, stop = after, stop + 1
    codes.append(int(codec.table.code[node]))
    start += int(codec._emitted[node])
  return codes


@pytest.mark.parametrize('mode', ['greedy', 'delay', 'exact', 'numbered'])
def test_long_texts_are_those_of_a_single_walk(mode):
  codec = EqualInfo(table('n-gram', 12, mode), 12)
  rng = np.random.default_rng(0)
  period = b'the same words, again and again; '  # windows need not agree where stretches meet
  texts = [
    byte_models.held_out()[:20_011],
    rng.bytes(9000),
    rng.integers(97, 100, 5003).astype(np.uint8).tobytes(),
    period * 300,
    b' ' * 10_000,
    *(byte_models.held_out()[: walk.SHORT + extra] for extra in (-1, 0, 1, 2, 9)),
  ]
  for text in texts:
    assert codec.encode(text).tolist() == one_walk(codec, text)


def test_texts_longer_than_words_are_copied_whole():
  codec = EqualInfo(table('n-gram', 16, 'numbered'), 16)
  spaces = b' ' * 1000
  ids = codec.encode(spaces + b'x' + spaces)
  assert codec.byte_lengths(ids).max() > walk.SPARE
  assert codec.decode(ids) == spaces + b'x' + spaces
  for i in range(0, 65_536, 251):
    piece = codec.decode([i])
    assert codec.decode([i, i]) == piece * 2


@pytest.mark.parametrize(('bits', 'token_bits'), [(16, 8), (12, 12)])
def test_ids_cover_the_bytes_they_were_made_of_whatever_they_decode_to(bits, token_bits):
  text = byte_models.held_out()[:3000]
  greedy, numbered = (
    EqualInfo(table('n-gram', bits, mode), token_bits) for mode in ('greedy', 'numbered')
  )
  _, covered = greedy.cover(text)
  assert covered.sum() == len(text) != greedy.byte_lengths(greedy.encode(text)).sum()
  # Greedy's texts numbered are cut at the same places.
  ids, lengths = numbered.cover(text)
  assert covered.tolist() == lengths.tolist()
  assert lengths.tolist() == numbered.byte_lengths(ids).tolist()
  assert greedy.cover(b'')[1].size == 0
