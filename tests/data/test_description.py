# SPDX-License-Identifier: Apache-2.0
"""What is said of a source is what it holds, and is not measured twice."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from experiments import runner
from experiments.recipe import Table, text_of
from lib.data import description, sources
from lib.errors import InputError
from lib.tokenizers import utf8


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """20 files in two scripts, a copy, an empty file, one in Latin-1, and lines of all lengths."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  found = tmp_path / 'text, mine'
  found.mkdir()
  rng = np.random.default_rng(0)
  for i in range(20):
    letters = 'абвгд' if i < 5 else 'abcde'
    words = [''.join(rng.choice(list(letters), 9)) for _ in range(200)]
    (found / f'{i:02}.txt').write_text('\n'.join(words))
  (found / 'copy.txt').write_bytes((found / '07.txt').read_bytes())
  (found / 'empty.txt').write_bytes(b'')
  (found / 'latin1.txt').write_bytes('été\n'.encode('latin-1') + b'a' * 3000)
  return found


def test_own_files_are_described(folder):
  found = sources.describe(str(folder))
  assert (found.files, found.copies_dropped) == (21, 1)
  assert (found.not_utf8_files, found.not_utf8_bytes, found.longest_line) == (1, 2, 3000)
  assert sum(found.documents.values()) == 21
  for split, documents in found.documents.items():
    source = sources.open_source(str(folder), split)
    assert documents == len(source)
    assert found.bytes[split] == sum(len(source[i]) for i in range(len(source)))
  train = sources.sample(sources.open_source(str(folder), 'train'))
  letters = [
    letter for text in train for letter in text.decode(errors='ignore') if letter.isalpha()
  ]
  cyrillic = np.mean([letter >= 'а' for letter in letters])
  assert found.scripts == pytest.approx({'Latin': 1 - cyrillic, 'Cyrillic': cyrillic})
  assert list(found.scripts) == ['Latin', 'Cyrillic']
  line = str(found)
  assert '\n' not in line
  for part in ('21 files, 1 equal copies left out', '2 bytes in 1 files are not UTF-8',
               f'Latin {1 - cyrillic:.1%}', 'longest line 3,000 bytes', '100.0% kept'):  # fmt: skip
    assert part in line


def test_a_description_is_kept_by_content(folder, monkeypatch):
  first = sources.describe(str(folder))
  monkeypatch.setattr(description, 'measure', None)
  assert sources.describe(str(folder)) == first
  (folder / '00.txt').rename(folder / 'other.txt')
  (folder / '01.txt').write_text('changed')
  with pytest.raises(TypeError):  # measured again
    sources.describe(str(folder))


def test_the_digest_is_of_the_documents(folder):
  first = sources.describe(str(folder)).digest
  assert sources.describe(str(folder / '*.txt')).digest == first
  (folder / '01.txt').write_text('changed')
  assert sources.describe(str(folder)).digest != first
  texts = {'train': [b'ab', b'c'], 'test': [b'd']}
  others = [
    {'train': [b'a', b'bc'], 'test': [b'd']},
    {'train': [b'ab', b'c', b'd'], 'test': []},
    {'train': [b'ab', b'c'], 'validation': [b'd']},
  ]
  assert len({description.digest(one) for one in (texts, *others)}) == 4
  assert description.digest(texts) == description.digest(dict(texts))


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_a_text_is_measured_in_any_blocks(data, cuts):
  ends = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
  blocks = [data[start:stop] for start, stop in zip(ends, ends[1:], strict=False)]
  found = description.measure(blocks)
  assert found.longest_line == max(map(len, data.split(b'\n')))
  assert found.not_utf8 == sum(len(part) for part in utf8.cut(data) if isinstance(part, bytes))


class Stream(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    fields = tfds.features.FeaturesDict({'text': tfds.features.Text()})
    return tfds.core.DatasetInfo(builder=self, features=fields)

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples(0), 'validation': self._generate_examples(1)}

  def _generate_examples(self, split):
    for i in range(40):
      text = ''.join(map(str, np.random.default_rng([split, i]).integers(10, size=200)))
      yield i, {'text': '=' * 150 if i < 10 else text}


def test_a_stream_is_described_by_a_sample_and_not_cut(tmp_path, monkeypatch):
  Stream(data_dir=tmp_path, file_format='array_record').download_and_prepare()
  found = sources.describe('tfds:stream', tmp_path)
  held = 'validation', 'test'  # halves of its validation, as there is no test split
  assert set(found.overlaps) == set(held)
  for overlap in found.overlaps.values():
    assert (overlap.after, overlap.kept) == (overlap.before, 1.0)
  assert sum(found.overlaps[one].before * found.bytes[one] for one in held) == pytest.approx(1500)
  assert not found.sampled
  assert found.documents == {'train': 40, 'validation': 20, 'test': 20}
  assert found.bytes['train'] == sum(found.bytes[one] for one in held) == 7500
  monkeypatch.setattr(sources, 'TRAIN_SAMPLE', 4000)
  monkeypatch.setattr(sources, 'HELD_SAMPLE', 4000)
  part = sources.describe('tfds:stream', tmp_path)
  assert part.sampled
  assert part.documents == found.documents
  assert part.bytes['train'] == pytest.approx(7500, rel=0.2)
  assert part.overlaps['validation'].after == pytest.approx(0.2, abs=0.15)
  assert 'of a sample; not cut' in str(part)
  with pytest.raises(InputError, match='no prepared TFDS set'):
    sources.describe('tfds:other', tmp_path)


def test_rows_of_a_run_hold_both_figures(folder):
  table = Table('a', lambda config, run: [], '', (), sources=text_of)
  config = ConfigDict({'data': {'source': str(folder)}, 'tables': ('a',)})
  described = runner._describe([table], config)
  rows = {(row.row, row.column): row.measured for row in runner._data_rows(described)}
  name = str(folder).replace(',', ';')
  for split in ('validation', 'test'):
    row = f'source={name},split={split}'
    assert rows[row, 'documents'] == described[0].documents[split]
    assert rows[row, 'bytes'] == described[0].bytes[split]
    assert rows[row, 'overlap'] == 0
    assert rows[row, 'share_kept'] == 1
  assert len(rows) == 8
