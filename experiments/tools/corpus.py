# SPDX-License-Identifier: Apache-2.0
"""Encodes a whole source shard by shard, on several processes or as an Apache Beam pipeline.

Both call `corpora.write_shard` for each shard, so they write the same bytes, and each can resume
the other's work.
"""

import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import queue
import signal
import threading
from typing import Any

import tqdm

from lib import tokenizers
from lib.data import corpora, sources
from lib.errors import InputError
from lib.tokenizers.base import Tokenizer

TOKENIZER = 'tokenizer'  # the copy of its file in the folder


@dataclasses.dataclass(frozen=True)
class Job:
  """The job of a worker, which opens the source and the tokenizer itself.

  Attributes:
    folder: of the corpus, with a copy of the tokenizer's file.
    plan: of the split.
    data_dir: of `sources.open_source`.
  """

  folder: str
  plan: corpora.ShardPlan
  data_dir: str | None = None

  def open(self) -> tuple[sources.Source, Tokenizer]:
    """The source and the tokenizer; raises InputError if they differ from the plan."""
    source = sources.open_source(self.plan.source, self.plan.split, self.data_dir)
    tokenizer = tokenizers.load(pathlib.Path(self.folder) / TOKENIZER)
    if (len(source), tokenizer.fingerprint) != (self.plan.documents, self.plan.fingerprint):
      raise InputError(
        f'{self.plan.source} or the tokenizer of {self.folder} changed since it was begun: '
        'choose a new folder'
      )
    return source, tokenizer


def begin(
  spec: str, split: str, tokenizer: str, folder: str, shards: int | None, data_dir: str | None
) -> Job:
  """Makes a folder, or continues an existing one; see `corpora.begin`."""
  source, codec = sources.open_source(spec, split, data_dir), tokenizers.load(tokenizer)
  plan = corpora.make_plan(spec, split, source, codec, shards)
  corpora.begin(folder, plan)
  copy = pathlib.Path(folder) / TOKENIZER
  if not copy.exists():
    tokenizers.save(codec, copy)
  return Job(folder, plan, data_dir)


def run(job: Job, workers: int | None = None) -> None:
  """Writes all missing shards, by `workers` processes.

  By default one a core, but a single one for a tokenizer that steps M1, which uses all of them.
  """
  if workers is not None and workers < 1:
    raise InputError(f'{workers} workers asked for: use 1 or more')
  source, tokenizer = job.open()
  if workers is None:
    workers = (os.cpu_count() or 1) if tokenizer.preferred_batch == 1 else 1
  workers = min(workers, job.plan.shards)
  with tqdm.tqdm(total=job.plan.documents, unit=' documents', disable=None) as bar:
    if workers == 1:
      for shard in range(job.plan.shards):
        corpora.write_shard(job.folder, job.plan, shard, source, tokenizer, bar.update)
    else:
      _run_processes(job, workers, bar)


def _run_processes(job: Job, workers: int, bar: tqdm.tqdm) -> None:
  context = multiprocessing.get_context('spawn')  # a fork would copy threads' locks
  following, notes = context.Value('i', 0), context.Queue()
  processes = [
    context.Process(target=_work, args=(job, following, notes), daemon=True) for _ in range(workers)
  ]
  for process in processes:
    process.start()
  done = 0
  while done < job.plan.documents:
    try:
      note = notes.get(timeout=1)
    except queue.Empty:
      failed = [process.exitcode for process in processes if process.exitcode]
      if failed or not any(process.is_alive() for process in processes):
        raise RuntimeError(
          f'workers ended with exit codes {failed}; the same command resumes after the last shard'
        ) from None
      continue
    if isinstance(note, InputError):
      raise note
    done += note
    bar.update(note)
  for process in processes:
    process.join()


def _work(job: Job, following: Any, notes: Any) -> None:
  """A worker: writes shards until none is left, and ends if its parent ends."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its workers
  threading.Thread(target=_end_with_parent, daemon=True).start()
  try:
    source, tokenizer = job.open()
    while True:
      with following.get_lock():
        shard = following.value
        following.value += 1
      if shard >= job.plan.shards:
        return
      corpora.write_shard(job.folder, job.plan, shard, source, tokenizer, notes.put)
  except InputError as error:
    notes.put(error)


def _end_with_parent() -> None:
  parent = multiprocessing.parent_process()
  assert parent is not None
  multiprocessing.connection.wait([parent.sentinel])
  os._exit(1)
