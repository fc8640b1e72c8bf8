# SPDX-License-Identifier: Apache-2.0
"""The corpus runner as an Apache Beam pipeline (extra `beam`): one shard an element.

Every worker must reach the source and the folder under the same names, such as a mounted bucket.
"""

from collections.abc import Iterator, Sequence

from experiments.tools.corpus import Job
from lib.data import corpora
from lib.errors import InputError

try:
  import apache_beam as beam
  from apache_beam.options.pipeline_options import PipelineOptions
except ImportError as error:
  raise InputError(
    'Apache Beam is not installed: install the extra `beam` in a separate environment '
    '(docs/compress.md)'
  ) from error


class EncodeShard(beam.DoFn):
  """Maps the number of a shard to its counts, by `corpora.write_shard`."""

  def __init__(self, job: Job):
    self.job = job

  def setup(self) -> None:
    """Opens the source and the tokenizer, once per worker."""
    self.source, self.tokenizer = self.job.open()

  def process(self, shard: int) -> Iterator[corpora.Shard]:
    """Writes one shard, unless it exists."""
    documents = beam.metrics.Metrics.counter('corpus', 'documents')
    yield corpora.write_shard(
      self.job.folder, self.job.plan, shard, self.source, self.tokenizer, documents.inc
    )


def pipeline(root: beam.Pipeline, job: Job) -> beam.PCollection:
  """Adds the work to a pipeline: the counts of all shards."""
  return (
    root
    | 'shards' >> beam.Create(range(job.plan.shards))
    | 'spread' >> beam.Reshuffle()
    | 'encode' >> beam.ParDo(EncodeShard(job))
  )


def run(job: Job, options: Sequence[str] = ()) -> None:
  """Runs the pipeline with Beam's own options, by default on this machine, to its end."""
  with beam.Pipeline(options=PipelineOptions(list(options))) as root:
    pipeline(root, job)
