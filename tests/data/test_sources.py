# SPDX-License-Identifier: Apache-2.0
"""Sources: the stdlib corpus and TFDS sets, whole and apart; what is not there is named."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st

from lib import cache
from lib.data import overlap, own_files, sources, stdlib_text
from lib.errors import InputError
from lib.tokenizers.bpe import train_bpe_unsplit
from tests.helpers.slow_overlap import share

ROOT = pathlib.Path(__file__).parents[2]
CORPORA = ROOT.parent / 'shared/corpora'


# The stdlib corpus.


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('data')


@pytest.fixture(scope='session')
def corpus():
  """All documents by split: (as they are, without what other splits share)."""
  return stdlib_text._cleaned()


def test_two_processes_prepare_at_once_without_tensorflow(data_dir):
  code = (
    'import sys; from lib.data import sources\n'
    'print(sum(map(len, (sources.open_source("stdlib/prose", "train", sys.argv[1])[i]'
    ' for i in range(9)))), "tensorflow" in sys.modules)'
  )
  command = [sys.executable, '-c', code, str(data_dir)]
  pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
  processes = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(2)]
  outputs = [process.communicate(timeout=300) for process in processes]
  size = sum(len(sources.open_source('stdlib/prose', 'train', data_dir)[i]) for i in range(9))
  for process, (out, err) in zip(processes, outputs, strict=True):
    assert process.returncode == 0, err
    assert out == f'{size} False\n'  # nothing of TFDS's own talk, and no TensorFlow


def test_stdlib_splits_share_no_module_and_lose_nothing_but_shared_text(corpus, data_dir):
  whole, cleaned = corpus
  texts = [document['text'] for split in own_files.SPLITS for document in whole[split]]
  assert len(set(texts)) == len(texts)
  split_of = {}
  for split in own_files.SPLITS:
    expected = whole['train'] if split == 'train' else [d for d in cleaned[split] if d['text']]
    source = sources.open_source('stdlib', split, data_dir)
    found = [
      {field: value.decode() for field, value in record.items()} for record in source._records
    ]
    by_name = lambda document: (document['kind'], document['name'])
    assert sorted(found, key=by_name) == sorted(expected, key=by_name)
    for document in found:
      assert split_of.setdefault(document['name'], split) == split
  sizes = [sum(s == split for s in split_of.values()) / len(split_of) for split in own_files.SPLITS]
  assert sizes == pytest.approx([0.8, 0.1, 0.1], abs=0.05)


def test_splits_of_the_embedded_corpus_hardly_overlap(corpus):
  # 10.2 % and 4.7 % of the test text stood in train before it was cut.
  whole, cleaned = corpus
  for config, kinds in stdlib_text.KINDS.items():
    texts = lambda documents, kinds=kinds: [
      d['text'].encode() for d in documents if d['kind'] in kinds
    ]
    found, figures = stdlib_text.splits(kinds)
    assert found['train'] == [d for d in whole['train'] if d['kind'] in kinds]
    for split in ('validation', 'test'):
      before, after = figures[split].before, figures[split].after
      assert before > 0.04 > overlap.LIMIT >= after
      assert after == overlap.share(texts(found[split]), texts(found['train']))
      kept = sum(map(len, texts(found[split]))) / sum(map(len, texts(whole[split])))
      assert figures[split].kept == pytest.approx(kept)
      assert kept > (0.85 if split == 'test' else 0.8), config
  # The slow reference on a part of it.
  test, train = ([d['text'].encode() for d in one] for one in (cleaned['test'], whole['train']))
  assert share(test[:12], train[:80]) <= overlap.LIMIT


def test_a_corpus_prepared_under_older_rules_is_not_read(data_dir):
  # Before its name had a version, the corpus lay in stdlib_text/CONFIG/PYTHON.
  assert not (data_dir / 'stdlib_text').exists()
  [folder] = data_dir.glob('stdlib_text*')
  assert folder.name == f'stdlib_text_splits{overlap.VERSION}'
  assert overlap.VERSION > 1


def test_stdlib_prose_is_the_topics_and_docstrings(data_dir):
  prose = sources.open_source('stdlib/prose', 'test', data_dir)
  kinds = {prose._records[i]['kind'] for i in range(len(prose))}
  assert kinds == {b'topic', b'docstrings'}
  source = sources.open_source('stdlib', 'test', data_dir)
  both = [r for r in source._records if r['kind'] != b'source']
  assert sorted(b''.join(sources.sample(prose))) == sorted(b''.join(r['text'] for r in both))


def test_stdlib_leaves_tests_and_the_topics_own_source_out(corpus):
  names = {document['name'] for documents in corpus[0].values() for document in documents}
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


# TFDS sets.


class ToyLines(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.0.0')
  FIELD = 'text'
  SIZES = (('train', 9), ('test', 3))

  def _info(self):
    fields = tfds.features.FeaturesDict({self.FIELD: tfds.features.Text()})
    return tfds.core.DatasetInfo(builder=self, features=fields)

  def _split_generators(self, dl_manager):
    return {split: self._generate_examples(size) for split, size in self.SIZES}

  def _generate_examples(self, count):
    for i in range(count):
      yield i, {self.FIELD: f'line {i} é'}


class ToyLabels(ToyLines):
  VERSION = tfds.core.Version('1.0.0')
  FIELD = 'label'


class ToyHeld(ToyLines):
  VERSION = tfds.core.Version('1.0.0')
  SIZES = (('train', 4), ('validation', 5))


class ToyRecords(ToyLines):
  VERSION = tfds.core.Version('1.0.0')


@pytest.fixture(scope='session')
def toys(tmp_path_factory):
  folder = tmp_path_factory.mktemp('toys')
  for toy in (ToyLines, ToyLabels, ToyHeld, ToyRecords):
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


def test_validation_of_a_set_without_test_is_halved(toys):
  of = lambda split: sources.sample(sources.open_source('tfds:toy_held', split, toys))
  assert [len(of(split)) for split in own_files.SPLITS] == [4, 3, 2]
  assert sorted(of('validation') + of('test')) == [f'line {i} é'.encode() for i in range(5)]
  found = sources.describe('tfds:toy_held', toys).documents
  assert found == {'train': 4, 'validation': 3, 'test': 2}
  with pytest.raises(InputError, match='it has train, validation'):
    sources.open_source('tfds:toy_held', 'dev', toys)


def test_tiny_shakespeare_is_prepared_without_tensorflow_or_network(tmp_path):
  corpus = CORPORA / 'tinyshakespeare'
  if not corpus.is_dir():
    pytest.skip(f'{corpus} is not there')
  code = TINY_SHAKESPEARE + 'import sys; print("tensorflow" in sys.modules)'
  command = [sys.executable, '-c', code, str(tmp_path), str(corpus)]
  done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
  assert done.stdout.endswith('False\n')
  found = [
    b''.join(sources.sample(sources.open_source('tfds:tiny_shakespeare', split, tmp_path)))
    for split in own_files.SPLITS
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


# What is asked for.


def one_sentence(error):
  message = str(error.value)
  assert message.endswith('.')
  assert '\n' not in message
  return message


@given(st.lists(st.text('aé字🙂', max_size=9), max_size=20), st.integers(0, 200), st.integers(0, 9))
def test_a_sample_is_of_documents_in_their_order(texts, limit, seed):
  numbered = [f'{i}:{text}' for i, text in enumerate(texts)]
  documents = [text.encode() for text in numbered]
  assert sources.sample(documents) == documents
  found = [document.decode() for document in sources.sample(documents, limit, seed)]
  size = sum(len(text.encode()) for text in found)
  if limit >= sum(map(len, documents)):
    assert found == numbered
  else:  # only the last one drawn is cut, and no character is
    assert limit - 4 < size <= limit
    whole = [text for text in found if text in numbered]
    assert len(found) - len(whole) <= 1
    assert [numbered.index(text) for text in whole] == sorted(map(numbered.index, whole))


def test_a_sample_is_random_and_spread_evenly_over_the_split():
  documents = [b'%06d' % i for i in range(3000)]
  first, again, other = (sources.sample(documents, 6 * 96, seed) for seed in (0, 0, 1))
  assert first == again != other
  thirds = [np.bincount([int(document) // 1000 for document in one]) for one in (first, other)]
  assert np.all(np.abs(np.array(thirds) - 32) <= 3)  # independent draws: ± 4.6
  drawn = [int(d) for seed in range(50) for d in sources.sample(documents, 6 * 96, seed)]
  assert np.bincount(np.array(drawn) % 2) / len(drawn) == pytest.approx([0.5, 0.5], abs=0.03)
  assert len(set(drawn)) > 2000  # of 3000, each drawn with probability 1 - (1 - 96/3000)**50 = 0.8


def test_folders_of_three_languages_give_a_bpe_equal_shares(tmp_path):
  letters = {
    'ar': 'ابتثجحخدذرزسشصضطظعغف',
    'en': 'abcdefghijklmnoprstu',
    'ru': 'абвгдежзиклмнопрстуф',
  }
  rng = np.random.default_rng(0)
  for language, alphabet in letters.items():
    (tmp_path / language).mkdir()
    width = len(alphabet.encode()) // 20
    for file in range(20):
      words = [''.join(rng.choice(list(alphabet), 5)) for _ in range(4000 // width)]
      (tmp_path / language / f'{file}.txt').write_text('\n'.join(words))
  documents = sources.sample(sources.open_source(str(tmp_path), 'train'), 200_000)
  text = b''.join(documents).decode()
  sizes = {
    language: sum(len(character.encode()) for character in text if character in alphabet)
    for language, alphabet in letters.items()
  }
  shares = np.array(list(sizes.values())) / sum(sizes.values())
  assert shares == pytest.approx(np.full(3, 1 / 3), abs=0.05)
  bpe = train_bpe_unsplit([b''.join(documents)], 600)
  written = [set(piece.decode('utf-8', 'ignore')) for piece in bpe.pieces[256:]]
  learned = {
    language: sum(bool(one & set(of)) for one in written) for language, of in letters.items()
  }
  assert min(learned.values()) > 50  # beginnings of the split hold Arabic and English alone


@pytest.mark.parametrize(
  ('spec', 'split', 'part'),
  [
    ('missing/*.txt', 'train', 'no file matches'),
    ('tfsd:c4', 'train', 'tfds:NAME'),
    ('stdlib/prosa', 'train', 'stdlib/prose'),
    ('stdlib', 'dev', 'test, train, validation'),
    ('some.txt', 'dev', 'train, validation or test'),
    ('some.txt', 'validation', 'the validation split'),
    ('empty.txt', 'train', 'no bytes'),
    ('tfds:wiki40b/en', 'train', 'docs/data.md'),
    ('tfds:toy_lines', 'dev', 'it has test, train'),
    ('tfds:toy_labels', 'train', "no field 'text'"),
    ('tfds:toy_records', 'train', 'array_record'),
  ],
)
def test_bad_specs_get_one_sentence(spec, split, part, toys, data_dir, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'some.txt').write_bytes(b'abc')
  (tmp_path / 'empty.txt').write_bytes(b'')
  with pytest.raises(InputError) as error:
    sources.open_source(spec, split, toys if spec.startswith('tfds:') else data_dir)
  assert part in one_sentence(error)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / 'file').write_bytes(b'')
  with pytest.raises(InputError) as error:
    sources.open_source('stdlib', 'train', tmp_path / 'file')
  assert 'data_dir' in one_sentence(error)


def test_the_cache_folder_honours_xdg(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  assert cache.folder('data') == tmp_path / 'anytoken/data'
  monkeypatch.delenv('XDG_CACHE_HOME')
  monkeypatch.setenv('HOME', os.fspath(tmp_path))
  assert cache.folder('data') == tmp_path / '.cache/anytoken/data'
