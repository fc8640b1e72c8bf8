# SPDX-License-Identifier: Apache-2.0
"""The corpus runner as a Beam pipeline leaves what processes leave (`make beam`)."""

import hashlib

import pytest

pytest.importorskip('apache_beam', reason='Apache Beam is in a separate environment: make beam')

from apache_beam.testing import test_pipeline, util

from experiments.tools import corpus, corpus_beam
from lib import tokenizers
from lib.data import corpora, sources
from lib.tokenizers.coding.baselines import train_static_ac
from tests.helpers import byte_models


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """The folder that a process leaves and that a pipeline leaves, which found a shard done."""
  folder = tmp_path_factory.mktemp('corpus')
  (folder / 'text').write_bytes(byte_models.sources() * 3)
  tokenizers.save(train_static_ac([byte_models.sources()]), folder / 'codec')
  for name in ('process', 'pipeline'):
    job = corpus.begin(
      str(folder / 'text'), 'train', str(folder / 'codec'), str(folder / name), 4, None
    )
    if name == 'process':
      corpus.run(job, workers=1)
    else:
      corpora.write_shard(job.folder, job.plan, 2, *job.open())
      before = (folder / name / job.plan.shard_name(2)).stat().st_mtime_ns
      corpus_beam.run(job)
      assert (folder / name / job.plan.shard_name(2)).stat().st_mtime_ns == before
    corpora.finish(folder / name)
  return folder / 'process', folder / 'pipeline', job


def contents(folder):
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


def test_the_pipeline_leaves_the_same_bytes_as_a_process(folders):
  process, pipeline, _ = folders
  assert contents(pipeline) == contents(process)


def test_what_it_leaves_is_the_source(folders):
  _, pipeline, job = folders
  source, tokenizer = job.open()
  found = corpora.Corpus(pipeline, 'train', tokenizer)
  assert [tokenizer.decode(found[i][0]) for i in range(len(found))] == [
    source[i] for i in range(len(source))
  ]


def test_the_counts_are_those_of_the_shards(folders):
  _, pipeline, job = folders
  counts = [corpora.finished(pipeline, job.plan, shard) for shard in range(4)]
  assert sum(shard.documents for shard in counts) == len(job.open()[0])
  with test_pipeline.TestPipeline() as root:
    util.assert_that(corpus_beam.pipeline(root, job), util.equal_to(counts))


def test_splits_are_those_of_sources(folders):
  _, _, job = folders
  assert len(sources.open_source(job.plan.source, 'train')) == job.plan.documents
