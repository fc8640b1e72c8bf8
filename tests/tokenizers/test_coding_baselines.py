# SPDX-License-Identifier: Apache-2.0
"""StaticAC and GZip: any bytes come back, bits are those of the frequencies, damage is named."""

import copy
import functools
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import tokenizers
from lib.errors import InputError
from lib.tokenizers.coding import arithmetic
from lib.tokenizers.coding.baselines import GZip, StaticAC, train_static_ac
from tests.helpers import byte_models


@functools.cache
def static_ac(token_bits=8):
  return train_static_ac([byte_models.sources()[:100_000]], 1 << token_bits)


def codecs():
  return {f'{name} {bits}': make(bits) for name, make in MAKERS.items() for bits in (8, 12, 16)}


LONG = {'one letter': b'a' * 5000, 'code': byte_models.held_out()[:3000]}
MAKERS = {'static_ac': static_ac, 'gzip': GZip}


def each_codec(test):
  return pytest.mark.parametrize('name', list(codecs()))(test)


@each_codec
@settings(max_examples=60, deadline=None)
@given(text=st.binary(max_size=300) | st.sampled_from([*LONG]).map(LONG.get))
def test_any_bytes_come_back(name, text):
  codec = codecs()[name]
  ids = codec.encode(text)
  lengths = codec.byte_lengths(ids)
  assert codec.lossless
  assert ids.dtype == lengths.dtype == np.int32
  assert ids.max() < codec.vocab_size
  assert codec.decode(ids) == text
  assert lengths.size == ids.size
  assert lengths.sum() == len(text)
  assert (lengths >= 0).all()


@each_codec
def test_streams_that_are_cut_short_or_continued_are_refused(name):
  codec = codecs()[name]
  ids = codec.encode(byte_models.held_out()[:400])
  for count in (1, len(ids) // 2, len(ids) - 2):
    with pytest.raises(InputError, match=f'{count} token ids are'):
      codec.decode(ids[:count])
  with pytest.raises(InputError, match='continue after the end'):
    codec.decode([*ids, 0, 0])
  for call in (codec.decode, codec.byte_lengths):
    assert len(call([])) == 0
    with pytest.raises(InputError, match=f'position 0 .* 0 to {codec.vocab_size - 1}'):
      call([codec.vocab_size])


def test_too_few_bits_for_a_first_byte_are_a_stream_cut_short():
  for one in range(256):
    with pytest.raises(InputError, match='1 token ids are cut short'):
      static_ac().decode([one])


@each_codec
def test_a_saved_codec_comes_back_the_same(name, tmp_path):
  codec, text = codecs()[name], byte_models.held_out()[:500]
  tokenizers.save(codec, tmp_path / 'codec')
  for twin in (tokenizers.load(tmp_path / 'codec'), copy.deepcopy(codec)):
    assert type(twin) is type(codec)
    assert twin.fingerprint == codec.fingerprint
    assert twin.encode(text).tolist() == codec.encode(text).tolist()


def test_static_ac_needs_the_bits_of_its_frequencies():
  text = byte_models.held_out()[:50_000]
  share = np.diff(static_ac().cumulative.astype(int)) / 2**arithmetic.PRECISION
  bits = -np.log2(share[np.frombuffer(text, np.uint8)])
  # The end has frequency 1: 14 bits. The code is at most two bits longer, then fills a byte.
  tokens = static_ac().encode(text)
  assert 0 <= 8 * len(tokens) - bits.sum() - 14 < 10
  # Frequencies are the counts, but for the ones that all 257 symbols get.
  counts = np.bincount(np.frombuffer(byte_models.sources()[:100_000], np.uint8), minlength=256)
  assert abs(share[32] - counts[32] / 100_000) < 257 / 2**14
  # A byte lies where its information ends: after a third of the bits, about a third of the bytes.
  covered, place = np.cumsum(static_ac().byte_lengths(tokens)), len(tokens) // 3
  told = bits[: covered[place]].sum()
  assert 0 <= 8 * (place + 1) - told < 8 + bits.max()


def test_gzip_is_zlib_as_it_stands():
  text = byte_models.held_out()[:5000]
  stream = zlib.compress(text)
  assert bytes(GZip().encode(text).tolist()) == stream
  words = GZip(16).encode(text)
  assert np.asarray(words, '>u2').tobytes()[: len(stream)] == stream
  # What half of the tokens cover is what zlib tells from half of the stream.
  half = len(stream) // 2
  told = len(zlib.decompressobj().decompress(stream[:half]))
  assert GZip().byte_lengths(list(stream))[:half].sum() == told > 0


def test_bad_frequencies_and_no_text_are_refused():
  with pytest.raises(InputError, match='must rise from 0 to 16384'):
    StaticAC(np.arange(258, dtype=np.uint16))
  with pytest.raises(InputError, match='no text to count'):
    train_static_ac([b''])
