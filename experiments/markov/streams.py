# SPDX-License-Identifier: Apache-2.0
"""What the tables share: the source of a config, seeds that keep streams apart, rows of a loss."""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ml_collections import ConfigDict
from tqdm import tqdm

from lib.data import markov
from lib.errors import InputError
from lib.report.results import Row
from lib.stats import Estimate

LN2 = math.log(2)
# Streams that never share text: learning dictionaries, counting or training, scoring, validation.
DICTIONARY, TRAIN, TEST, VALIDATION = range(4)
PARTS = 20  # independent texts that are scored where an error is over texts, not over seeds


def stream_seed(seed: int, stream: int, order: int) -> int:
  """The seed of one stream of one source: another for every (seed, stream, order), order < 64."""
  return (seed * 64 + order) * 4 + stream


def make_source(config: ConfigDict, order: int, p: float | None = None) -> markov.MarkovSource:
  """The source of a config at one order; `p` overrides both switching probabilities."""
  kind, seed = config.source.kind, config.seed
  if kind == 'switching':
    p, q = (p, p) if p else (config.source.p, config.source.q)
    return markov.switching(p, q, order)
  if kind == 'random':
    return markov.random_kernel(order, config.source.alphabet_size, seed)
  if kind == 'interpolated':
    mixture = (config.source.p, config.source.q, order, config.source.delta, seed)
    return markov.interpolated(*mixture)
  raise InputError(f'source.kind {kind!r} is not one of switching, random, interpolated.')


def draw(source: markov.MarkovSource, chars: int, seed: int, stream: int) -> bytes:
  """A text of the source, from the named stream of a seed."""
  return source.text(chars, stream_seed(seed, stream, source.order))


def draw_parts(
  source: markov.MarkovSource, chars: int, seed: int, stream: int, multiple: int = 1
) -> list[bytes]:
  """A text of about `chars` characters as PARTS independent texts, the units of its error.

  Their length is a multiple of `multiple`.
  """
  length = max(1, chars // PARTS // multiple) * multiple
  parts = markov.MarkovDocuments(source, length, PARTS, stream_seed(seed, stream, source.order))
  return [parts[index] for index in range(PARTS)]


def loss(table: str, row: str, what: str, found: Estimate | float, note: str = '') -> list[Row]:
  """The rows of one loss, in nats and in bits per character; `what` names it ('' = the loss).

  A number instead of an estimate is exact: a closed form, or computed without a sample.
  """
  prefix = f'{what}_' if what else ''
  nats = found if isinstance(found, Estimate) else Estimate(found)
  return [
    Row.of(table, row, f'{prefix}nats_per_char', nats, unit='nats/char', note=note),
    Row.of(table, row, f'{prefix}bits_per_char', nats.times(1 / LN2), unit='bits/char'),
  ]


def on_all_cores(label: str, work: Callable, jobs: Sequence[tuple]) -> list[Any]:
  """`work(*job)` for every job, in order, on threads (compiled loops release the lock)."""
  pool = ThreadPoolExecutor(os.cpu_count())
  try:
    futures = [pool.submit(work, *job) for job in jobs]
    return [future.result() for future in tqdm(futures, desc=label, unit='job', smoothing=0)]
  finally:
    pool.shutdown(wait=False, cancel_futures=True)  # an error or a signal does not wait
