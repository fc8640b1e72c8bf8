# SPDX-License-Identifier: Apache-2.0
"""Corpora as shards: what TFDS reads is the source, and a kill changes no byte of it."""

import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from absl import flags

from experiments.tools import compress, corpus
from lib import tokenizers
from lib.data import corpora, pipeline, sources
from lib.errors import InputError
from lib.tokenizers.coding.baselines import GZip, train_static_ac
from lib.tokenizers.coding.window_streams import SteppedEqualInfo
from tests.helpers import byte_models

ROOT = pathlib.Path(__file__).parents[2]
SHARDS = 40


@pytest.fixture(scope='module')
def text(tmp_path_factory):
  """A source of one file, with bytes that are no UTF-8: some 60 documents of 64 KiB."""
  path = tmp_path_factory.mktemp('text') / 'text'
  rng, parts = np.random.default_rng(0), []
  lines = byte_models.sources().splitlines(keepends=True)
  for _ in range(22):  # in ever another order: text that repeats itself would be cut out of test
    words = b''.join(lines[i] for i in rng.permutation(len(lines))).split(b' ')
    parts += [b' '.join(words[i] for i in rng.permutation(len(words))), rng.bytes(500)]
  path.write_bytes(b''.join(parts))
  return str(path)


@pytest.fixture(scope='module')
def codec(tmp_path_factory):
  path = tmp_path_factory.mktemp('codec') / 'codec'
  tokenizers.save(train_static_ac([byte_models.sources()]), path)
  return str(path)


@pytest.fixture(scope='module')
def whole(text, codec, tmp_path_factory):
  """The folder that one process leaves."""
  folder = tmp_path_factory.mktemp('corpus') / 'folder'
  job = corpus.begin(text, 'train', codec, str(folder), SHARDS, None)
  corpus.run(job, workers=1)
  corpora.finish(folder)
  return folder


def contents(folder):
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


def test_a_damaged_shard_is_said_in_a_sentence(whole, codec, tmp_path):
  folder = shutil.copytree(whole, tmp_path / 'folder')
  shard = min(folder.glob('*.array_record-00003-*'))
  content = bytearray(shard.read_bytes())
  content[len(content) // 2] ^= 1  # within the records: the last 64 KiB are an index
  shard.write_bytes(content)
  tokenizer = tokenizers.load(codec)
  source = corpora.Corpus(folder, 'train', tokenizer)
  batches = pipeline.batches(source, tokenizer, batch_size=8, length=2**14, seed=0, repeat=False)
  with pytest.raises(InputError, match=rf'record \d+ of {shard} cannot be read'):
    list(batches)


def command(text, codec, folder, *more):
  return [
    sys.executable, '-m', 'experiments.tools.compress', 'corpus', text, f'--tokenizer={codec}',
    f'--out={folder}', f'--shards={SHARDS}', '--workers=2', *more,
  ]  # fmt: skip


def test_tfds_reads_the_source_in_order(whole, text, codec):
  source, tokenizer = sources.open_source(text, 'train'), tokenizers.load(codec)
  builder = tfds.builder_from_directory(whole)
  assert builder.info.splits['train'].num_examples == len(source)
  assert builder.info.splits['train'].num_shards == SHARDS
  records = builder.as_data_source('train')
  for i, record in enumerate(records):
    data = source[i]
    assert tokenizer.decode(record['ids']) == data
    assert np.array_equal(record['byte_lengths'], tokenizer.byte_lengths(record['ids']))
    assert (record['size'], record['crc']) == (len(data), zlib.crc32(data))


def test_batches_of_an_encoded_corpus_are_those_of_the_source(whole, text, codec):
  tokenizer = tokenizers.load(codec)
  options = dict(batch_size=4, length=64, seed=1)
  ours = pipeline.batches(corpora.Corpus(whole, 'train', tokenizer), tokenizer, **options)
  plain = pipeline.batches(sources.open_source(text, 'train'), tokenizer, **options)
  for _, mine, theirs in zip(range(3), ours, plain, strict=False):
    assert all(np.array_equal(mine[field], theirs[field]) for field in pipeline.FIELDS)


def test_killed_and_rerun_it_skips_what_is_done_and_leaves_the_same_bytes(
  whole, text, codec, tmp_path
):
  folder = tmp_path / 'folder'
  done = folder / 'done'
  process = subprocess.Popen(
    command(text, codec, folder), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
  )
  while process.poll() is None and not (done.exists() and len(list(done.glob('*.json'))) >= 3):
    time.sleep(0.002)
  os.kill(process.pid, signal.SIGKILL)
  assert process.wait() == -signal.SIGKILL
  assert not process.stdout.read()  # ends with the last worker: each notices that it is alone
  finished = {path.stem[-5:]: path.stat().st_mtime_ns for path in done.glob('*.json')}
  assert 3 <= len(finished) < SHARDS
  assert not (folder / 'dataset_info.json').exists()
  times = {path.name: path.stat().st_mtime_ns for path in folder.glob('tokens-*')}
  assert len(list(done.glob('*.json'))) == len(finished)
  again = subprocess.run(
    command(text, codec, folder), cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert again.returncode == 0, again.stderr
  assert contents(folder) == contents(whole)
  for shard in finished:
    (path,) = folder.glob(f'tokens-*-{shard}-of-*')
    assert path.stat().st_mtime_ns == times[path.name]


def test_a_finished_corpus_is_left_alone_and_takes_further_splits(whole, text, codec, tmp_path):
  before = contents(whole)
  call(text, codec, whole, shards=SHARDS)
  assert contents(whole) == before
  folder = tmp_path / 'folder'
  for split in ('validation', 'test'):
    call(text, codec, folder, split=split, workers=1)
  splits = tfds.builder_from_directory(folder).info.splits
  assert {name: split.num_examples for name, split in splits.items()} == {
    name: len(sources.open_source(text, name)) for name in ('validation', 'test')
  }


def call(text, codec, folder, **options):
  compress.flags.FLAGS.unparse_flags()
  for name in ('tokenizer', 'out', 'split', 'shards', 'workers'):
    compress.flags.FLAGS[name].unparse()
  given = [f'--{name}={value}' for name, value in options.items()]
  flags = [f'--tokenizer={codec}', f'--out={folder}', *given]
  compress.execute(compress._parse_flags(['compress', 'corpus', text, *flags]))


def test_stepped_codecs_fill_their_streams(text, tmp_path):
  stepper = byte_models.Stepping(byte_models.ngram(), streams=3)
  tokenizer = SteppedEqualInfo(stepper, 'ngram', bits=24)
  documents = [byte_models.held_out()[i * 50 :][: i * 20] for i in range(8)]
  plan = corpora.make_plan('documents', 'train', documents, tokenizer, 2)
  corpora.begin(tmp_path, plan)
  for shard in range(2):
    corpora.write_shard(tmp_path, plan, shard, documents, tokenizer)
  corpora.finish(tmp_path)
  found = corpora.Corpus(tmp_path, 'train', tokenizer)
  assert tokenizer.restore([found.coded(i) for i in range(len(found))]) == documents


def test_shards_hold_consecutive_documents_and_as_many_as_others():
  for documents, count in [(7, 3), (64, 40), (5, 5), (9, 1)]:
    plan = corpora.ShardPlan('', 'train', documents, count, '', 1, '')
    spans = [plan.span(shard) for shard in range(count)]
    assert [i for span in spans for i in span] == list(range(documents))
    assert len({len(span) for span in spans}) <= 2


def test_other_plans_and_bad_requests_are_named(whole, text, codec, tmp_path):
  other = tmp_path / 'other'
  tokenizers.save(GZip(), other)
  for options, words in [
    (dict(shards=3), f'{SHARDS} shards'),
    (dict(codec=other, shards=SHARDS), 'under the static_ac tokenizer'),
    (dict(codec=other, split='test'), 'under the static_ac tokenizer'),
    (dict(shards=500, folder=tmp_path / 'new'), '500 shards for'),
    (dict(split='all', shards=SHARDS), "split 'all'"),
    (dict(folder=text, shards=SHARDS), 'cannot write'),
  ]:
    before = contents(whole)
    options = {'codec': codec, 'folder': whole, **options}
    with pytest.raises(InputError, match=words) as caught:
      call(text, options.pop('codec'), options.pop('folder'), **options)
    assert '\n' not in str(caught.value)
    assert contents(whole) == before
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('name', ['shards', 'workers'])
def test_counts_below_one_are_refused_by_their_flags(name):
  with pytest.raises(flags.IllegalFlagValueError, match=f'{name}=0'):
    flags.FLAGS[name].parse('0')


def test_reading_with_another_tokenizer_or_another_split_is_named(whole):
  with pytest.raises(InputError, match='was made by the tokenizer'):
    corpora.Corpus(whole, 'train', GZip())
  with pytest.raises(InputError, match="no complete encoded split 'test'"):
    corpora.Corpus(whole, 'test', GZip())


def test_a_split_that_was_begun_and_not_finished_is_named(whole, text, codec, tmp_path):
  folder = shutil.copytree(whole, tmp_path / 'folder')
  corpus.begin(text, 'validation', codec, str(folder), None, None)
  with pytest.raises(InputError, match="no complete encoded split 'validation'"):
    corpora.Corpus(folder, 'validation', tokenizers.load(codec))


def test_a_source_that_grew_is_named(codec, tmp_path):
  path = tmp_path / 'text'
  text = byte_models.sources()
  path.write_bytes(text)
  corpus.begin(str(path), 'train', codec, str(tmp_path / 'folder'), 2, None)
  path.write_bytes(text + text[::-1])
  with pytest.raises(InputError, match='documents where it had'):
    corpus.begin(str(path), 'train', codec, str(tmp_path / 'folder'), 2, None)
