# SPDX-License-Identifier: Apache-2.0
"""Whatever is read as data is refused in a sentence or harmless; `make fuzz` tries far more."""

import gzip
import hashlib
import io
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import tokenizers
from lib.errors import InputError
from lib.glyphs import fonts, rendering
from lib.tokenizers import container, files
from lib.tokenizers.base import Dictionary
from lib.tokenizers.bpe import BPE
from lib.tokenizers.coding import slices
from lib.tokenizers.coding.baselines import GZip, StaticAC
from lib.tokenizers.coding.windows import EqualInfo
from tests import fuzz
from tests.helpers import hostile


@pytest.mark.parametrize('target', fuzz.QUICK, ids=lambda target: target.__name__)
@settings(max_examples=8, deadline=None)
@given(data=st.binary(max_size=40))
def test_only_a_sentence_comes_out(target, data):
  fuzz.read(target, data)


def test_every_family_is_tried():
  assert {hostile.family(name).family for name in hostile.FAMILIES} == set(hostile.FAMILIES)


def signed(path, family, payload):
  line = f'{files.MAGIC} {files.VERSION} {family} {len(payload)}'
  digest = hashlib.sha256(f'{line}\n'.encode() + payload).hexdigest()
  path.write_bytes(f'{line} {digest}\n'.encode() + payload)
  return path


def archive(name, content, compression=zipfile.ZIP_STORED):
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', compression) as out:
    out.writestr(name, content)
  return buffer.getvalue()


def header(shape, descr="'|u1'"):
  buffer = io.BytesIO()
  fields = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
  text = fields.encode().ljust(117) + b'\n'
  buffer.write(b'\x93NUMPY\x01\x00' + len(text).to_bytes(2, 'little') + text)
  return buffer.getvalue()


@pytest.mark.parametrize(
  'payload',
  [
    archive('alphabet.npy', header('(9999999,)') + bytes(9_999_999), zipfile.ZIP_DEFLATED),
    archive('alphabet.npy', header('(1000000000000,)') + b'ab'),
    archive('alphabet.npy', header('(2,)', "'|O'") + b'ab'),
    archive('alphabet.npy', b"cos\nsystem\n(S'false'\ntR."),
    b'',
  ],
  ids=['unpacks to much', 'says to be large', 'objects', 'pickle', 'empty'],
)
def test_an_archive_that_would_fill_memory_or_run_is_refused(tmp_path, payload):
  path = signed(tmp_path / 'file', 'characters', payload)
  with pytest.raises(InputError, match='contains no arrays'):
    tokenizers.load(path)


def test_the_size_is_checked_before_the_file_is_read(tmp_path):
  path = tmp_path / 'large'
  with path.open('wb') as file:
    file.write(f'{files.MAGIC} 1 bpe 12 {"0" * 64}\n'.encode())
    file.truncate(1 << 40)  # a hole: no machine could read it
  with pytest.raises(InputError, match='where 12 should be'):
    tokenizers.load(path)


def test_merges_that_double_without_end_are_refused():
  rows = np.array([(0, 0), *((i, i) for i in range(1, 60))], np.int32)
  with pytest.raises(InputError, match='longer than'):
    BPE.from_state({
      'alphabet': np.frombuffer(b'a', np.uint8), 'merges': rows,
      'encoder': np.frombuffer(b'greedy', np.uint8),
    })  # fmt: skip


@pytest.mark.parametrize(('field', 'place', 'value'), [
  ('parent', 300, 300), ('parent', 256, 9999), ('cut', 0, 300), ('text', 5, 70_000), ('cut', 3, -1),
])  # fmt: skip
def test_windows_that_lead_out_of_their_table_are_refused(field, place, value):
  state = hostile.family('equal_info').state()
  state[field] = state[field].copy()
  state[field][place] = value
  with pytest.raises(InputError, match='no table of windows'):
    EqualInfo.from_state(state)


def test_a_stream_that_unpacks_without_end_is_refused(monkeypatch):
  from lib.tokenizers.coding import baselines

  monkeypatch.setattr(baselines, 'LONGEST', 1 << 12)
  bomb = zlib.compress(bytes(1 << 20))
  ids = slices.unpack(np.frombuffer(bomb, np.uint8), 16)
  with pytest.raises(InputError, match='unpack to 4,096 bytes or more'):
    GZip(16).decode(ids)
  steps = np.append(np.arange(257), 1 << 14).astype(np.uint16)
  steps[-2] = (1 << 14) - 1  # byte 255 costs next to nothing
  with pytest.raises(InputError, match='unpack to 4,096 bytes or more'):
    StaticAC(steps).decode([200] * 2000)


def test_a_container_whose_ids_unpack_to_more_is_refused_before_they_do(monkeypatch):
  pieces = [b'a' * 1000, b'b']
  chosen = Dictionary(pieces)
  content = bytearray(container.to_bytes(chosen, b'b' * 8))
  content[-1] = 0  # all eight ids are the long piece now
  start = bytes(content[72:84])
  content[84:88] = zlib.crc32(content[-1:], zlib.crc32(start)).to_bytes(4, 'big')
  monkeypatch.setattr(chosen, 'decode', None)  # not even begun
  with pytest.raises(InputError, match='comes back as 8000 bytes where 8 should be'):
    container.from_bytes(chosen, bytes(content))


def test_a_font_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(fonts, 'LIMIT', 1 << 16)
  path = tmp_path / 'font.hex.gz'
  path.write_bytes(gzip.compress(bytes(1 << 17)))
  with pytest.raises(InputError, match='unpacks to more than'):
    fonts.HexFont(path)


@pytest.mark.parametrize('fields', ['0 16', '99999999999 16', '4 0', 'x 16', '4 1000000'])
def test_a_glyph_table_of_impossible_sizes_is_refused(tmp_path, fields):
  line, payload = f'{rendering.MAGIC} {rendering.VERSION} {fields} abc', bytes(132)
  digest = hashlib.sha256(f'{line}\n'.encode() + payload).hexdigest()
  path = tmp_path / 'table'
  path.write_bytes(f'{line} {digest}\n'.encode() + payload)
  with pytest.raises(InputError, match='is damaged'):
    rendering.load(path)
