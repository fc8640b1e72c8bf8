# SPDX-License-Identifier: Apache-2.0
"""Containers restore every text, and are refused if they differ in any bit."""

import functools
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.errors import InputError
from lib.tokenizers import container
from lib.tokenizers.bpe import train_bpe_unsplit
from lib.tokenizers.coding.baselines import GZip, train_static_ac
from lib.tokenizers.coding.streams import SteppedAC
from lib.tokenizers.coding.tabulate import tabulate
from lib.tokenizers.coding.window_streams import SteppedEqualInfo
from lib.tokenizers.coding.windows import EqualInfo
from lib.tokenizers.unicode import Unicode
from tests.helpers import byte_models

BYTES = bytes(range(256))


@functools.cache
def make(name):
  """One tokenizer a way of being written: widths of 1 to 17 bits, and M1 step by step."""
  if name == 'static_ac':
    return train_static_ac([byte_models.sources()[:50_000]])
  if name == 'gzip':
    return GZip(16)
  if name == 'bpe':
    return train_bpe_unsplit([byte_models.sources()[:20_000]], 700)
  if name == 'unicode':
    return Unicode(['the', 'th'], vocab_size=0x20000)
  if name in ('exact', 'greedy'):
    return EqualInfo(tabulate(byte_models.ngram(), 12, name), token_bits=12)
  stepper = byte_models.Stepping(byte_models.ngram(), streams=3)
  if name == 'stepped_ac':
    return SteppedAC(stepper, 'ngram')
  return SteppedEqualInfo(stepper, 'ngram', bits=24)


NAMES = ('static_ac', 'gzip', 'bpe', 'unicode', 'exact', 'stepped_ac', 'stepped_windows')


@pytest.mark.parametrize('name', NAMES)
@settings(max_examples=15, deadline=None)
@given(data=st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
def test_any_bytes_come_back(name, data):
  content = container.to_bytes(make(name), data)
  assert container.from_bytes(make(name), content) == data


@pytest.mark.parametrize('name', NAMES)
def test_awkward_files_come_back(name):
  awkward = [b'', b'\0', b'\xff\xfe\xc3(', '\ud7ff\ue000\U0001f600'.encode(), BYTES * 3]
  for data in [*awkward, byte_models.held_out()[:5000]]:
    assert container.from_bytes(make(name), container.to_bytes(make(name), data)) == data


@settings(max_examples=100, deadline=None)
@given(data=st.data(), width=st.integers(1, 31))
def test_ids_are_packed_bit_by_bit(data, width):
  ids = data.draw(st.lists(st.integers(0, 2**width - 1), max_size=40))
  packed = container.pack(np.array(ids, np.int32), width)
  bits = ''.join(f'{i:0{width}b}' for i in ids)
  assert ''.join(f'{byte:08b}' for byte in packed) == bits + '0' * (-len(bits) % 8)
  assert container.unpack(packed, len(ids), width).tolist() == ids


def test_an_id_takes_no_more_bits_than_the_largest():
  assert [container.id_bits(v) for v in (1, 2, 3, 256, 257, 65_536, 65_537)] == [
    1, 1, 2, 8, 9, 16, 17,
  ]  # fmt: skip
  data = byte_models.held_out()[:4000]
  ids = make('bpe').encode(data)
  header = 72
  assert len(container.to_bytes(make('bpe'), data)) == header + 16 + -(-len(ids) * 10 // 8)


def refusal(tokenizer, content):
  with pytest.raises(InputError) as caught:
    container.from_bytes(tokenizer, content)
  assert '\n' not in str(caught.value)
  return str(caught.value)


@pytest.mark.parametrize('name', ['static_ac', 'exact', 'stepped_windows'])
def test_every_truncation_and_every_addition_is_refused(name):
  content = container.to_bytes(make(name), b'some text, a few tokens')
  for size in range(len(content)):
    words = refusal(make(name), content[:size])
    assert 'cut short' in words if size else 'not a container' in words
  assert 'after its end' in refusal(make(name), content + b'\0')


@pytest.mark.parametrize('name', ['static_ac', 'exact', 'stepped_windows'])
def test_every_flipped_bit_is_refused(name):
  content = bytearray(container.to_bytes(make(name), b'some text, a few tokens'))
  for place in range(8 * len(content)):
    content[place >> 3] ^= 1 << (place & 7)
    refusal(make(name), bytes(content))
    content[place >> 3] ^= 1 << (place & 7)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_damage_is_refused(data):
  tokenizer = make('static_ac')
  content = container.to_bytes(tokenizer, b'some text ' * 5)
  first = data.draw(st.integers(0, len(content) - 1))
  last = data.draw(st.integers(first, len(content)))
  changed = content[:first] + data.draw(st.binary(max_size=30)) + content[last:]
  if changed != content:
    refusal(tokenizer, changed)


def test_documents_in_another_order_or_twice_are_refused():
  tokenizer = make('stepped_windows')
  text = byte_models.held_out()[:3000]  # three documents of 1,024 bytes and less
  content = container.to_bytes(tokenizer, text)
  header = container.read_header(io.BytesIO(content), 'it')
  assert header.documents == 3
  start, rest = content[:72], content[72:]
  sizes = []
  while sum(sizes) < len(rest):
    count = struct.unpack('>III', rest[sum(sizes) : sum(sizes) + 12])[2]
    sizes.append(16 + 2 * count)
  parts = [rest[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(3)]
  assert 'not those of its header' in refusal(
    tokenizer, start + parts[1] + parts[0] + parts[2]
  )  # of equal length: only the whole text's checksum tells


def sealed(fields):
  content = container.HEADER.pack(container.MAGIC, *fields)
  return content + struct.pack('>I', zlib.crc32(content))


def test_foreign_files_are_named():
  tokenizer = make('static_ac')
  assert 'not a container' in refusal(tokenizer, b'')
  assert 'not a container' in refusal(tokenizer, b'%PDF-1.7 and so on' * 10)
  assert 'another tokenizer' in refusal(tokenizer, container.to_bytes(make('exact'), b'text'))
  own = bytes.fromhex(tokenizer.fingerprint)
  assert 'format version 2' in refusal(tokenizer, sealed((2, 8, 0, own, 0, 0, 0)))
  assert '9 bits' in refusal(tokenizer, sealed((1, 9, 0, own, 0, 0, 0)))


@pytest.mark.parametrize('entry', [(2**32 - 1, 0, 1), (1, 0, 2**32 - 1), (1, 0, 5)])
def test_impossible_sizes_are_refused_before_memory_is_taken(entry):
  tokenizer = make('static_ac')
  document = struct.pack('>III', *entry)
  document += struct.pack('>I', zlib.crc32(document)) + b'\0'
  own = bytes.fromhex(tokenizer.fingerprint)
  content = sealed((1, 8, 1, own, 1, len(document), 0)) + document
  assert 'no such sizes' in refusal(tokenizer, content)


def test_a_sound_container_of_wrong_tokens_is_refused():
  # As a model whose probabilities have drifted would read it.
  tokenizer = make('exact')
  data = b'some text'
  right = tokenizer.encode(data)
  wrong = np.concatenate([right[:-1], [(right[-1] + 1) % 4096]])
  packed = container.pack(wrong.astype(np.int32), 12).tobytes()
  document = struct.pack('>III', len(data), zlib.crc32(data), wrong.size)
  document += struct.pack('>I', zlib.crc32(document + packed)) + packed
  own = bytes.fromhex(tokenizer.fingerprint)
  header = sealed((1, 12, 1, own, len(data), len(document), zlib.crc32(data)))
  assert 'comes back as' in refusal(tokenizer, header + document)


def test_what_is_not_lossless_is_tried_first():
  greedy = make('greedy')
  texts = [byte_models.held_out()[i : i + 500] for i in range(0, 5000, 500)]
  back = [greedy.decode(greedy.encode(text)) == text for text in texts]
  assert not all(back)
  for text, comes_back in zip([b'', *texts], [True, *back]):
    if comes_back:
      assert container.from_bytes(greedy, container.to_bytes(greedy, text)) == text
    else:
      with pytest.raises(InputError, match='use a lossless one'):
        container.to_bytes(greedy, text)
