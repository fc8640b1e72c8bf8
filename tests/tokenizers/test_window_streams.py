# SPDX-License-Identifier: Apache-2.0
"""Codecs that step M1: equal to tables and big integers, any bytes come back, drift is named."""

import dataclasses
import functools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import tokenizers
from lib.errors import InputError
from lib.tokenizers.coding import arithmetic, tabulate
from lib.tokenizers.coding.baselines import train_static_ac
from lib.tokenizers.coding.streams import SteppedAC
from lib.tokenizers.coding.window_streams import WINDOWS, SteppedEqualInfo
from lib.tokenizers.coding.windows import EqualInfo
from tests.helpers import byte_models, intervals

HELD_OUT = byte_models.held_out()[:4000]
DOCUMENTS = [HELD_OUT[:900], b'', HELD_OUT[900:901], bytes(range(256)), HELD_OUT[901:1500]]
MODELS = {
  'n-gram': byte_models.ngram,
  'uniform': byte_models.Uniform,
  'peaked': functools.partial(byte_models.Random, 0, 0.01),
}


def windows(bits, mode='exact', model='n-gram', streams=2, **options):
  stepper = byte_models.Stepping(MODELS[model](), streams)
  return SteppedEqualInfo(stepper, model, bits, mode, **options)


def ac(model='n-gram', streams=2, token_bits=8):
  return SteppedAC(byte_models.Stepping(MODELS[model](), streams), model, token_bits)


@pytest.mark.parametrize('token_bits', [8, 16])
@pytest.mark.parametrize('mode', ['greedy', 'exact'])
@pytest.mark.parametrize('model', MODELS)
def test_stepping_and_the_table_agree_token_for_token(model, mode, token_bits):
  table = EqualInfo(tabulate.tabulate(MODELS[model](), 16, mode), token_bits)
  codec = windows(16, mode, model, token_bits=token_bits)
  documents = DOCUMENTS if model == 'n-gram' else [text[:60] for text in DOCUMENTS]
  coded = codec.cover_batch(documents)
  for text, document in zip(documents, coded, strict=True):
    assert document.ids.tolist() == table.encode(text).tolist()
    assert document.byte_lengths.sum() == document.size == len(text)
    if mode == 'exact':
      assert document.byte_lengths.tolist() == table.byte_lengths(document.ids).tolist()
  # Decoders agree too, also where greedy's windows, or any tokens, mean another text.
  rows = [document.ids for document in coded]
  rows.append(np.random.default_rng(0).integers(0, codec.vocab_size, 60))
  for ids, (text, lengths) in zip(rows, codec.decode_all(rows), strict=True):
    assert text == table.decode(ids)
    assert lengths.tolist() == table.byte_lengths(ids).tolist()


def windows_by_trying(text, bits):
  """Greedy windows by big integers: (text, code) of each."""
  found, start, model = [], 0, byte_models.ngram()
  while start < len(text):
    rows, code = [], 0
    for stop in range(start + 1, len(text) + 1):
      context = text[max(stop - 1 - model.order, start) : stop - 1]
      rows.append(arithmetic.quantise(model.after(context)[None])[0])
      low, width, scale = intervals.rounded(rows, text[start:stop])
      unit = Fraction(1, 2 ** (32 + scale))
      v, n = intervals.shortest_enclosed(low * unit, (low + width) * unit)
      if n > bits:
        stop -= 1
        break
      code = v << (bits - n)
    found.append((text[start:stop], code))
    start = stop
  return found


@pytest.mark.parametrize('bits', [24, 64, 128])
def test_wide_windows_are_those_of_big_integers(bits):
  text = HELD_OUT[:250]
  coded = windows(bits, 'greedy', token_bits=8).cover_batch([text])[0]
  expected = windows_by_trying(text, bits)
  stream = bytes(coded.ids.tolist())
  assert stream == b''.join(code.to_bytes(bits // 8, 'big') for _, code in expected)
  ends = coded.byte_lengths[bits // 8 - 1 :: bits // 8]
  assert ends.tolist() == [len(piece) for piece, _ in expected]


def codecs(model):
  made = [windows(bits, model=model, token_bits=8) for bits in WINDOWS]
  made += [windows(24, model=model, token_bits=16), windows(64, model=model, token_bits=12)]
  return [*made, ac(model), ac(model, token_bits=16), ac(model, token_bits=12)]


@pytest.mark.parametrize('model', MODELS)
@settings(max_examples=8, deadline=None)
@given(st.lists(st.binary(max_size=25), max_size=4))
def test_any_bytes_come_back(model, documents):
  for codec in codecs(model):
    coded = codec.cover_batch(documents)
    assert codec.lossless
    assert codec.restore(coded) == documents
    decoded = codec.decode_all([document.ids for document in coded])
    for document, (text, lengths) in zip(coded, decoded, strict=True):
      assert document.ids.dtype == lengths.dtype == np.int32
      assert document.ids.max(initial=0) < codec.vocab_size
      assert lengths.tolist() == document.byte_lengths.tolist()
      assert lengths.sum() == len(text)


@pytest.mark.parametrize('make', [ac, functools.partial(windows, 32)])
def test_the_number_of_streams_changes_nothing(make):
  expected = [document.ids.tolist() for document in make(streams=1).cover_batch(DOCUMENTS)]
  for streams in (2, 7):
    coded = make(streams=streams).cover_batch(DOCUMENTS)
    assert [document.ids.tolist() for document in coded] == expected
    assert make(streams=8 - streams).restore(coded) == DOCUMENTS
  codec = make(streams=3)
  assert codec.encode(DOCUMENTS[0]).tolist() == expected[0]
  assert codec.decode(expected[0]) == DOCUMENTS[0]
  assert codec.byte_lengths(expected[0]).sum() == len(DOCUMENTS[0])


def test_the_wider_the_window_the_fewer_bits_and_a_stream_needs_fewest():
  text = HELD_OUT
  static = train_static_ac([byte_models.sources()[:100_000]])
  bits = [8 * len(static.encode(text))]
  bits += [8 * len(windows(b, 'greedy', token_bits=8).encode(text)) for b in WINDOWS]
  bits.append(8 * len(ac().encode(text)))
  assert bits == sorted(bits, reverse=True)
  assert len(set(bits)) == len(bits)
  for b, greedy in zip(WINDOWS, bits[1:-1], strict=True):
    exact = 8 * len(windows(b, token_bits=8).encode(text))
    assert greedy <= exact <= 1.05 * greedy
  # A stream is as long as M1's frequencies say, and the end's 14 bits.
  model, share = byte_models.ngram(), 0.0
  for i in range(len(text)):
    row = arithmetic.quantise(model.after(text[max(i - 3, 0) : i])[None], marks=1)[0].astype(int)
    share -= np.log2((row[text[i] + 1] - row[text[i]]) / row[-1])
  assert 0 <= bits[-1] - share - 14 < 10


def test_the_more_rarely_m1_forgets_the_fewer_windows():
  text = HELD_OUT
  counts = [len(windows(16, 'greedy', reset=reset).encode(text)) for reset in (1, 2, 0)]
  assert counts == sorted(counts, reverse=True)
  assert len(set(counts)) == 3
  with pytest.raises(InputError, match='decoded only where M1 is reset at each'):
    windows(16, 'greedy', reset=0).decode([1])


class Drifting(byte_models.Stepping):
  """Its probabilities change a little once `drift` is set, as on another machine."""

  drift = 0.0

  def step(self, symbols):
    rows = super().step(symbols)
    return rows * (1 + self.drift * np.linspace(-1, 1, 256, dtype=np.float32))


def drifting(make):
  codec = make()
  codec.stepper = Drifting(byte_models.ngram(), 2)
  return codec


@pytest.mark.parametrize('make', [ac, functools.partial(windows, 64)])
def test_a_model_that_drifts_and_damage_are_named(make):
  codec = drifting(make)
  coded = codec.cover_batch([b'', HELD_OUT[:600]])
  codec.stepper.drift = 1e-9  # moves no integer
  assert codec.restore(coded)[1] == HELD_OUT[:600]
  codec.stepper.drift = 0.1
  with pytest.raises(
    InputError, match=r'document 1 decodes to .* CRC32|are cut short|continue after'
  ):
    codec.restore(coded)
  codec.stepper.drift = 0.0
  for wrong in (
    dataclasses.replace(coded[1], crc=coded[1].crc ^ 1),
    dataclasses.replace(coded[1], size=599),
  ):
    with pytest.raises(InputError, match='document 0 decodes to 600 bytes with CRC32'):
      codec.restore([wrong])
  flipped = coded[1].ids.copy()
  flipped[0] ^= codec.vocab_size >> 1  # the highest bit; the last ones of a window may be free
  with pytest.raises(
    InputError, match=r'document 0 decodes to .* CRC32|are cut short|continue after'
  ):
    codec.restore([dataclasses.replace(coded[1], ids=flipped)])


def test_greedy_windows_do_not_all_come_back():
  codec = windows(32, 'greedy')
  assert not codec.lossless
  with pytest.raises(InputError, match='document 0 decodes to'):
    codec.restore(codec.cover_batch([HELD_OUT[:1500]]))


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: windows(40), r'use one of \(16, 24, 32, 64, 128\)'),
    (lambda: windows(32, 'delay'), "'delay': use .* greedy or exact"),
    (lambda: windows(32, reset=2), 'number 2: use 1'),
    (lambda: windows(32, token_bits=9), r'use one of \(8, 12, 16\)'),
    (lambda: windows(32, 'greedy', reset=2).decode([0, 0]), 'decoded only where M1 is reset'),
    (lambda: windows(32).decode([1]), 'cut short'),
    (lambda: windows(32).decode([65536, 0]), '0 to 65535'),
    (lambda: ac().decode(ac().encode(HELD_OUT[:300])[:-2]), 'cut short'),
    (lambda: ac().decode([*ac().encode(HELD_OUT[:300]), 0]), 'continue after the end'),
    (lambda: tokenizers.save(ac(), 'nowhere'), 'cannot be saved'),
    (lambda: SteppedAC.from_state(ac().state()), 'without its M1'),
  ],
)
def test_bad_input_is_named(make, message):
  with pytest.raises(InputError, match=message):
    make()


def test_fingerprints_tell_codecs_apart():
  made = [ac(), ac('uniform'), ac(token_bits=16), *(windows(bits) for bits in WINDOWS)]
  made += [windows(32, 'greedy'), windows(32, 'greedy', reset=2), windows(32, token_bits=8)]
  assert len({codec.fingerprint for codec in made}) == len(made)
