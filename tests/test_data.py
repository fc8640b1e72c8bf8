# SPDX-License-Identifier: Apache-2.0
"""Sources lose no byte and leak none between splits; batches lose no token and resume exactly."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st
from orbax.checkpoint import v1 as ocp

from lib import cache
from lib.data import files, pipeline, sources, stdlib_text
from lib.data.encoded import Encoded
from lib.errors import InputError
from lib.tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).parents[1]
CORPORA = ROOT.parent / 'shared/corpora'


class Bytes:
  """One token a byte."""

  vocab_size = 256

  def encode(self, data):
    return np.frombuffer(data, np.uint8).astype(np.int32)

  def byte_lengths(self, ids):
    return np.ones(len(ids), np.int32)

  cover = Tokenizer.cover


class Numbers(Bytes):
  """One token for two bytes, so that a test's tokens can all differ."""

  vocab_size = 2**16

  def encode(self, data):
    return np.frombuffer(data, np.uint16).astype(np.int32)

  def byte_lengths(self, ids):
    return np.full(len(ids), 2, np.int32)


class Windows(Bytes):
  """Three tokens for a window of four bytes, all of which its last token covers."""

  vocab_size = 3

  def encode(self, data):
    return np.tile(np.arange(3, dtype=np.int32), len(data) // 4)

  def byte_lengths(self, ids):
    return np.where(ids == 2, 4, 0)


def numbered(*lengths):
  """Documents of `lengths` tokens of Numbers; together they count 0, 1, 2, ..."""
  ends = np.cumsum(lengths)
  return [
    np.arange(e - n, e, dtype=np.uint16).tobytes() for n, e in zip(lengths, ends, strict=True)
  ]


NUMBERED = numbered(7, 1, 12, 5, 30, 2, 0, 9, 4, 3, 8, 16)  # 97 tokens in 12 documents


# The stdlib corpus.


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('data')


@pytest.fixture(scope='session')
def corpus():
  return list(stdlib_text.documents())


def test_two_processes_prepare_at_once_without_tensorflow(data_dir):
  code = (
    'import sys; from lib.data import sources\n'
    'print(sum(map(len, (sources.open_source("stdlib/prose", "train", sys.argv[1])[i]'
    ' for i in range(9)))), "tensorflow" in sys.modules)'
  )
  command = [sys.executable, '-c', code, str(data_dir)]
  pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
  processes = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(2)]
  outputs = [process.communicate(timeout=120) for process in processes]
  size = sum(len(sources.open_source('stdlib/prose', 'train', data_dir)[i]) for i in range(9))
  for process, (out, err) in zip(processes, outputs, strict=True):
    assert process.returncode == 0, err
    assert out == f'{size} False\n'  # nothing of TFDS's own talk, and no TensorFlow


def test_stdlib_splits_share_no_module_and_lose_no_document(corpus, data_dir):
  expected = {(d['kind'], d['name']): d['text'] for d in corpus}
  found, split_of = {}, {}
  for split in files.SPLITS:
    source = sources.open_source('stdlib', split, data_dir)
    for record in source._records:
      kind, name, text = (record[k].decode() for k in ('kind', 'name', 'text'))
      assert split_of.setdefault(name, split) == split
      assert (kind, name) not in found
      found[kind, name] = text
  assert found == expected
  assert len(set(found.values())) == len(found)
  sizes = [sum(s == split for s in split_of.values()) / len(split_of) for split in files.SPLITS]
  assert sizes == pytest.approx([0.8, 0.1, 0.1], abs=0.05)


def test_stdlib_prose_is_the_topics_and_docstrings(data_dir):
  prose = sources.open_source('stdlib/prose', 'test', data_dir)
  kinds = {prose._records[i]['kind'] for i in range(len(prose))}
  assert kinds == {b'topic', b'docstrings'}
  source = sources.open_source('stdlib', 'test', data_dir)
  both = [r for r in source._records if r['kind'] != b'source']
  assert sorted(b''.join(sources.take(prose))) == sorted(b''.join(r['text'] for r in both))


def test_stdlib_leaves_tests_and_the_topics_own_source_out(corpus):
  names = {document['name'] for document in corpus}
  assert {'json', 'json.decoder', 'ast'} <= names
  parts = {part for name in names for part in name.split('.')}
  assert not parts & {'test', 'tests', 'idle_test', 'pydoc_data', '_bundled'}


def test_splits_depend_on_the_name_alone():
  # sha256 of the name, as an integer, modulo 10: json 6, string 8, random 9.
  found = [stdlib_text.split_of(name) for name in ('json', 'string', 'random')]
  assert found == ['train', 'validation', 'test']


def test_docstrings_are_cut_out_of_the_source():
  source = '''# é stays
"""Module."""
import os


class A:
  """Says é.

  More.
  """  # kept

  def f(self): "short"; return 1

  def g(self):
    r"""raw"""
    return \'\'\'not a docstring\'\'\'
'''
  docstrings, rest = stdlib_text.separate(source)
  assert docstrings == 'Module.\n\nSays é.\n\nMore.\n\nshort\n\nraw\n'
  assert (
    rest
    == """# é stays
import os


class A:
    # kept

  def f(self): ; return 1

  def g(self):
    return \'\'\'not a docstring\'\'\'
"""
  )


# Own files.


def splits(pattern):
  """Chunks of the three splits; [] where a split is empty."""
  found = {}
  for split in files.SPLITS:
    try:
      source = files.open_files(str(pattern), split)
      found[split] = [source[i] for i in range(len(source))]
    except InputError:
      found[split] = []
  return found


def test_one_file_is_cut_at_line_ends_in_order(tmp_path):
  lines = b''.join(b'%06d words of a line\n' % i for i in range(50_000))  # 1.35 MB
  (tmp_path / 'a.txt').write_bytes(lines)
  found = splits(tmp_path / 'a.txt')
  assert b''.join(b''.join(found[split]) for split in files.SPLITS) == lines
  assert all(c.endswith(b'\n') and len(c) <= 65536 for chunks in found.values() for c in chunks)
  sizes = [sum(map(len, found[split])) / len(lines) for split in files.SPLITS]
  assert sizes == pytest.approx([0.8, 0.1, 0.1], abs=0.001)


text = st.text(st.sampled_from('ab\né字🙂'), max_size=120)


@settings(max_examples=60, deadline=None)
@given(st.lists(text, min_size=1, max_size=4))
def test_few_files_lose_no_byte_and_break_no_character(tmp_path_factory, texts):
  folder = tmp_path_factory.mktemp('few')
  for i, content in enumerate(texts):
    (folder / f'{i}.txt').write_bytes(content.encode())
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(files, 'CHUNK', 16)
    found = splits(folder)
  chunks = [chunk.decode() for split in files.SPLITS for chunk in found[split]]
  assert ''.join(chunks) == ''.join(texts)
  assert all(0 < len(chunk.encode()) <= 16 for chunk in chunks)
  # Where a chunk ends inside a line, the line is longer than a chunk.
  place, joined = 0, ''.join(texts).encode()
  file_ends = np.cumsum([len(content.encode()) for content in texts])
  for chunk in chunks:
    place += len(chunk.encode())
    if place not in file_ends and joined[place - 1 : place] != b'\n':
      first = max(joined.rfind(b'\n', 0, place) + 1, *(e for e in (0, 0, *file_ends) if e <= place))
      last = min(e for e in (joined.find(b'\n', place) + 1 or len(joined), *file_ends) if e > place)
      assert last - first > 16


def test_arbitrary_bytes_are_kept(tmp_path):
  data = bytes(range(128, 192)) * 4000  # only continuation bytes, no line end
  (tmp_path / 'x.bin').write_bytes(data)
  found = splits(tmp_path / 'x.bin')
  assert b''.join(b''.join(found[split]) for split in files.SPLITS) == data
  assert all(found.values())


def test_many_files_are_dealt_whole_by_their_relative_path(tmp_path):
  def write(folder):
    for i in range(40):
      path = folder / f'{i % 3}' / f'{i}.txt'
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(b'file %d\n' % i)

  for folder in (tmp_path / 'here', tmp_path / 'there'):
    write(folder)
  found = splits(tmp_path / 'here' / '**' / '*.txt')
  assert [len(found[split]) for split in files.SPLITS] == [32, 4, 4]
  dealt = [chunk for chunks in found.values() for chunk in chunks]
  assert sorted(dealt) == sorted(b'file %d\n' % i for i in range(40))
  assert splits(tmp_path / 'there') == found  # the same files elsewhere, named as a folder


def test_read_joins_documents_up_to_a_limit():
  documents = [b'abc', b'de', b'f']
  assert sources.take(documents) == documents
  assert [b''.join(sources.take(documents, n)) for n in (0, 4, 9)] == [b'', b'abcd', b'abcdef']


def one_sentence(error):
  message = str(error.value)
  assert message.endswith('.')
  assert '\n' not in message
  return message


@pytest.mark.parametrize(
  ('spec', 'split', 'part'),
  [
    ('missing/*.txt', 'train', 'no file matches'),
    ('tfsd:c4', 'train', 'tfds:NAME'),
    ('stdlib/prosa', 'train', 'stdlib/prose'),
    ('stdlib', 'dev', 'test, train, validation'),
    ('some.txt', 'dev', 'train, validation or test'),
    ('some.txt', 'train', 'the train split'),
    ('empty.txt', 'train', 'no bytes'),
    ('tfds:wiki40b/en', 'train', 'docs/data.md'),
    ('tfds:toy_lines', 'dev', 'it has test, train'),
    ('tfds:toy_labels', 'train', "no field 'text'"),
    ('tfds:toy_records', 'train', 'array_record'),
  ],
)
def test_bad_specs_get_one_sentence(spec, split, part, toys, data_dir, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'some.txt').write_bytes(b'one line makes one split\n')
  (tmp_path / 'empty.txt').write_bytes(b'')
  with pytest.raises(InputError) as error:
    sources.open_source(spec, split, toys if spec.startswith('tfds:') else data_dir)
  assert part in one_sentence(error)


def test_a_vanished_or_shortened_file_is_named(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_bytes(b'line\n' * 100)
  source = files.open_files(str(path), 'train')
  path.write_bytes(b'line\n')
  with pytest.raises(InputError, match=r'a.txt became shorter'):
    source[0]
  path.unlink()
  with pytest.raises(InputError, match=r'cannot read .*a.txt \(No such file or directory\)'):
    source[0]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / 'file').write_bytes(b'')
  with pytest.raises(InputError) as error:
    sources.open_source('stdlib', 'train', tmp_path / 'file')
  assert 'data_dir' in one_sentence(error)


# TFDS sets.


class ToyLines(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.0.0')
  FIELD = 'text'

  def _info(self):
    fields = tfds.features.FeaturesDict({self.FIELD: tfds.features.Text()})
    return tfds.core.DatasetInfo(builder=self, features=fields)

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples(9), 'test': self._generate_examples(3)}

  def _generate_examples(self, count):
    for i in range(count):
      yield i, {self.FIELD: f'line {i} é'}


class ToyLabels(ToyLines):
  VERSION = tfds.core.Version('1.0.0')
  FIELD = 'label'


class ToyRecords(ToyLines):
  VERSION = tfds.core.Version('1.0.0')


@pytest.fixture(scope='session')
def toys(tmp_path_factory):
  folder = tmp_path_factory.mktemp('toys')
  for toy in (ToyLines, ToyLabels, ToyRecords):
    toy(data_dir=folder, file_format='array_record').download_and_prepare()
  # What a set prepared by TensorFlow says of itself.
  info = folder / 'toy_records/1.0.0/dataset_info.json'
  info.write_text(info.read_text().replace('array_record', 'tfrecord'))
  return folder


def test_tfds_text_comes_as_bytes(toys):
  source = sources.open_source('tfds:toy_lines', 'train', toys)
  assert sorted(source[i] for i in range(len(source))) == [f'line {i} é'.encode() for i in range(9)]
  assert len(sources.open_source('tfds:toy_lines:1.0.0', 'test', toys)) == 3
  assert sources.Records([{'text': 'é'}])[0] == 'é'.encode()  # mocked sets give str


def test_tiny_shakespeare_is_prepared_without_tensorflow_or_network(tmp_path):
  corpus = CORPORA / 'tinyshakespeare'
  if not corpus.is_dir():
    pytest.skip(f'{corpus} is not there')
  code = TINY_SHAKESPEARE + 'import sys; print("tensorflow" in sys.modules)'
  command = [sys.executable, '-c', code, str(tmp_path), str(corpus)]
  done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
  assert done.stdout.endswith('False\n')
  found = [
    b''.join(sources.take(sources.open_source('tfds:tiny_shakespeare', split, tmp_path)))
    for split in files.SPLITS
  ]
  assert [len(part) for part in found] == [1_003_854, 55_770, 55_770]
  assert b''.join(found) == (corpus / 'input.txt').read_bytes()


# As in docs/data.md.
TINY_SHAKESPEARE = """
import importlib, os, sys, types
import tensorflow_datasets as tfds

data_dir, manual_dir = sys.argv[1:]
module = 'tensorflow_datasets.datasets.tiny_shakespeare.tiny_shakespeare_dataset_builder'
gfile = types.SimpleNamespace(isdir=os.path.isdir, GFile=open)
importlib.import_module(module).tf = types.SimpleNamespace(io=types.SimpleNamespace(gfile=gfile))
builder = tfds.builder('tiny_shakespeare', data_dir=data_dir, file_format='array_record')
builder.download_and_prepare(
  download_config=tfds.download.DownloadConfig(manual_dir=manual_dir))
"""


# Batches.


def rows(dataset, count=None):
  """The first `count` rows, or all, of a data set of batches."""
  found = []
  for batch in dataset:
    found += [
      {field: values[i] for field, values in batch.items()} for i in range(len(batch['targets']))
    ]
    if count is not None and len(found) >= count:
      return found[:count]
  return found


def pieces(row):
  """Targets and inputs of each segment of a row."""
  last = row['segments'].max()
  return [
    (row['targets'][row['segments'] == s], row['inputs'][row['segments'] == s])
    for s in range(1, last + 1)
  ]


def options(**changes):
  return {'batch_size': 4, 'length': 8, 'seed': 0, **changes}


def test_a_packed_row_by_hand():
  # Documents 'abc' and 'defgh' in rows of 4: abc|d and efgh; 256 begins a document.
  first, second = rows(
    pipeline.batches(
      [b'abc', b'defgh'],
      Bytes(),
      **options(batch_size=2, length=4, shuffle=False, repeat=False),
    )
  )
  a, b, c, d, e, f, g, h = b'abcdefgh'
  assert {k: v.tolist() for k, v in first.items()} == {
    'targets': [a, b, c, d],
    'inputs': [256, a, b, 256],
    'bytes': [1, 1, 1, 1],
    'segments': [1, 1, 1, 2],
    'positions': [0, 1, 2, 0],
  }
  assert second['targets'].tolist() == [e, f, g, h]
  assert second['inputs'].tolist() == [d, e, f, g]  # the document goes on
  assert second['segments'].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize('shuffle', [False, True])
def test_packing_keeps_every_token_once(shuffle):
  dataset = pipeline.batches(
    NUMBERED, Numbers(), **options(shuffle=shuffle, repeat=False, batch_size=5)
  )
  found = rows(dataset)
  real = [piece for row in found for piece in pieces(row)]
  targets = np.concatenate([t for t, _ in real])
  if not shuffle:
    assert targets.tolist() == list(range(97))
  assert sorted(targets.tolist()) == list(range(97))
  starts = {0, 7, 8, 20, 25, 55, 57, 66, 70, 73, 81}  # of the documents that are not empty
  for t, i in real:
    # Within a segment the tokens follow each other in one document, and each input is the token
    # before, or the mark of a document's beginning.
    assert (np.diff(t) == 1).all()
    assert not starts & set(t[1:].tolist())
    assert i.tolist() == [2**16 if x in starts else x - 1 for x in t.tolist()]
  assert sum(row['bytes'].sum() for row in found) == sum(map(len, NUMBERED))
  full = [row for row in found if row['segments'].all()]
  assert len(full) == 97 // 8  # only the last row of the pass is not full
  for row in found:
    segments = row['segments']
    assert set(np.unique(segments)) - {0} == set(range(1, segments.max() + 1))
    padding = segments == 0
    assert all((row[field][padding] == 0).all() for field in pipeline.FIELDS)
    assert (row['positions'] <= np.arange(8)).all()
  assert all(row[field].dtype == np.int32 for row in found for field in pipeline.FIELDS)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=8), st.integers(1, 9))
def test_packing_any_lengths(lengths, length):
  dataset = pipeline.batches(
    numbered(*lengths), Numbers(), **options(length=length, batch_size=1, repeat=False)
  )
  targets = [x for row in rows(dataset) for t, _ in pieces(row) for x in t.tolist()]
  assert sorted(targets) == list(range(sum(lengths)))


def test_one_document_a_row_is_cropped_and_padded():
  found = rows(
    pipeline.batches(NUMBERED, Numbers(), **options(pack=False, shuffle=False, repeat=False))
  )
  assert len(found) == 12
  for row, document in zip(found, NUMBERED, strict=True):
    ids = Numbers().encode(document)[:8].tolist()
    assert row['targets'].tolist() == ids + [0] * (8 - len(ids))
    assert row['inputs'].tolist() == ([2**16, *ids[:-1]] if ids else []) + [0] * (8 - len(ids))
    assert row['segments'].tolist() == [1] * len(ids) + [0] * (8 - len(ids))


def test_whole_documents_fill_rows_in_their_order():
  ids = [np.arange(n) for n in (2, 3, 0, 2, 4)]
  documents = Encoded(
    np.concatenate(ids), np.ones(11, int), np.array([len(one) for one in ids])
  )  # fmt: skip
  rows = pipeline.fitted(documents, 9, 5)
  assert rows['targets'].tolist() == [[0, 1, 0, 1, 2], [0, 1, 0, 0, 0], [0, 1, 2, 3, 0]]
  assert rows['inputs'].tolist() == [[9, 0, 9, 0, 1], [9, 0, 0, 0, 0], [9, 0, 1, 2, 0]]
  assert rows['segments'].tolist() == [[1, 1, 2, 2, 2], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]
  assert rows['positions'].tolist() == [[0, 1, 0, 1, 2], [0, 1, 0, 0, 0], [0, 1, 2, 3, 0]]
  assert rows['bytes'].sum() == 11
  with pytest.raises(InputError, match='a document of 4 tokens does not fit a row of 3'):
    pipeline.fitted(documents, 9, 3)
  with pytest.raises(InputError, match='4 rows of 0 tokens are no batch'):
    pipeline.batches(documents, Bytes(), **options(batch_size=4, length=0))
  empty_first = Encoded(np.arange(2), np.ones(2, int), np.array([0, 2]))
  assert pipeline.fitted(empty_first, 9, 3)['targets'].tolist() == [[0, 1, 0]]


def test_context_bytes_keeps_the_tokens_that_begin_within():
  def covered(tokenizer, document, context):
    one = dict(batch_size=1, length=64, pack=False, shuffle=False, repeat=False)
    [row] = rows(pipeline.batches([document], tokenizer, **options(context_bytes=context, **one)))
    return row['bytes'].sum(), row['segments'].sum()

  document = b'x' * 20
  # The fourth token of 2 bytes begins at byte 6 of 7 and reaches byte 8. A window of 4 bytes stays
  # whole with all its 3 tokens, of which only the last covers bytes.
  assert covered(Bytes(), document, 7) == (7, 7)
  assert covered(Numbers(), document, 7) == (8, 4)
  assert covered(Windows(), document, 7) == (8, 6)
  assert covered(Windows(), document, 3) == (4, 3)
  assert covered(Windows(), document, 20) == (20, 15)
  assert covered(Bytes(), document, 30) == (20, 20)


def test_every_epoch_has_an_order_of_its_own_set_by_the_seed():
  def order(seed):
    dataset = pipeline.batches(
      [b'%c' % i for i in range(20)], Bytes(), **options(pack=False, length=1, seed=seed)
    )
    return [int(row['targets'][0]) for row in rows(dataset, 40)]

  once = order(0)
  assert sorted(once[:20]) == sorted(once[20:]) == list(range(20))
  assert once[:20] != once[20:]
  assert order(0) == once
  assert order(1)[:20] not in (once[:20], once[20:])


@pytest.mark.parametrize('pack', [False, True])
def test_the_last_batch_of_a_pass_is_filled_up(pack):
  few = options(pack=pack, shuffle=False, repeat=False, batch_size=10)
  first, last = pipeline.batches(NUMBERED, Numbers(), **few)  # 13 packed rows, 12 documents
  for field in pipeline.FIELDS:
    assert first[field].shape == last[field].shape == (10, 8)
  rows_left = 3 if pack else 2
  assert last['segments'].any(axis=1).tolist() == [True] * rows_left + [False] * (10 - rows_left)


def same(batch, other):
  return all(np.array_equal(batch[field], other[field]) for field in pipeline.FIELDS)


RESUMED = {
  'packed': {},
  'packed in order': {'shuffle': False},
  'one document a row': {'pack': False},
  'one pass': {'repeat': False, 'batch_size': 2},
}


@pytest.mark.parametrize('changes', RESUMED.values(), ids=RESUMED)
def test_an_iterator_resumes_exactly_anywhere(changes, monkeypatch):
  monkeypatch.setattr(pipeline, 'SHUFFLE_TOKENS', 48)  # several windows in an epoch

  def fresh():
    return iter(pipeline.batches(NUMBERED, Numbers(), **options(**changes)))

  iterator, expected, states = fresh(), [], []
  for _ in range(12):  # a pass is 13 rows: more than three epochs
    states.append(json.dumps(iterator.get_state()))
    batch = next(iterator, None)
    if batch is None:
      break
    expected.append(batch)
  for k, state in enumerate(states):
    resumed = fresh()
    next(resumed)
    resumed.set_state(json.loads(state))
    for batch in expected[k:]:
      assert json.dumps(resumed.get_state()) == states[k]
      assert same(next(resumed), batch)
      k += 1
    if 'repeat' in changes:
      assert next(resumed, None) is None


def test_replicas_are_stacked_and_resume_from_an_orbax_checkpoint(tmp_path):
  def datasets():
    return [pipeline.batches(NUMBERED, Numbers(), **options(seed=seed)) for seed in range(3)]

  iterator = iter(pipeline.stack(datasets()))
  singles = [iter(dataset) for dataset in datasets()]
  for _ in range(4):
    batch = next(iterator)
    for replica, single in enumerate(singles):
      assert same({field: batch[field][replica] for field in batch}, next(single))
  assert batch['targets'].shape == (3, 4, 8)
  with ocp.training.Checkpointer(tmp_path / 'checkpoints') as checkpoints:
    checkpoints.save_checkpointables(4, {'data': iterator})
    expected = [next(iterator) for _ in range(5)]
    resumed = iter(pipeline.stack(datasets()))
    checkpoints.load_checkpointables(4, {'data': resumed})
  assert all(same(next(resumed), batch) for batch in expected)


@pytest.mark.parametrize(
  ('changes', 'part'),
  [
    ({'source': ()}, 'no document'),
    ({'context_bytes': 10}, 'pack=False'),
  ],
)
def test_bad_batches_get_one_sentence(changes, part):
  with pytest.raises(InputError) as error:
    pipeline.batches(**{'source': NUMBERED, 'tokenizer': Numbers()} | options(**changes))
  assert part in one_sentence(error)


def test_the_cache_folder_honours_xdg(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  assert cache.folder('data') == tmp_path / 'anytoken/data'
  monkeypatch.delenv('XDG_CACHE_HOME')
  monkeypatch.setenv('HOME', os.fspath(tmp_path))
  assert cache.folder('data') == tmp_path / '.cache/anytoken/data'
