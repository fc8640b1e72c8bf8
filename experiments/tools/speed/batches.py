# SPDX-License-Identifier: Apache-2.0
"""Speed of making batches on one core, compared with the tokens that the `paper` models consume."""

import importlib
import itertools
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.recipe import TrainSpec
from experiments.tools import steps
from lib.data import pipeline
from lib.data.encoded import Encoded
from lib.data.token_cache import TokenCache
from lib.parameters import describe
from lib.report.results import Row
from lib.tokenizers.base import Tokenizer
from pallas_kernels.chips import CHIPS

SHAPE = (256, 512)  # rows and tokens of a batch of equal_info, paper, m2
DOCUMENT = 4096  # bytes
RECIPES = ('markov', 'lexinvariant', 'equal_info', 'visual_unicode')
SHARE = 0.5  # of its peak rate, at which a chip is taken to train
# Chips and virtual cores of a host: Google's ct5p-hightpu-4t and a3-ultragpu-8g.
HOSTS = {'v5p': (4, 208), 'h200': (8, 224)}


def table(
  plain: dict[str, Tokenizer],
  text: bytes,
  repeats: int,
  shape: tuple[int, int] = SHAPE,
  models: Mapping[str, float] | None = None,
) -> Iterator[list[Row]]:
  """Tokens per second of one core with each tokenizer, then the share of hosts that models need.

  Args:
    plain: tokenizers by name.
    text: of the batches.
    repeats: batches that are timed.
    shape: rows and tokens of a batch.
    models: name -> training FLOPs for each token; by default those of the `paper` configs.
  """
  documents = [text[start : start + DOCUMENT] for start in range(0, len(text), DOCUMENT)]
  slowest: dict[str, float] = {}
  with tempfile.TemporaryDirectory() as folder:
    for method, codec in plain.items():
      cache = TokenCache(pathlib.Path(folder) / method, documents, codec)
      for index in range(len(cache)):
        cache[index]
      for source, data in (
        ('text', documents),
        ('tokens on disk', cache),
        ('tokens in memory', _encoded(codec, documents)),
      ):
        rate = _rate(data, codec, repeats, shape)
        slowest[source] = min(rate, slowest.get(source, rate))
        where = dict(method=method, source=source)
        yield [Row('input', where, 'tokens_per_core_s', rate, unit='tokens/s')]
  for model, flops in (paper_models() if models is None else models).items():
    for chip, (chips, cores) in HOSTS.items():
      taken = chips * SHARE * CHIPS[chip].flops / flops
      where = dict(model=model.replace(',', ';').replace('=', ' '), host=f'{chips} {chip}')
      yield [
        Row('input', where, 'tokens_per_s', taken, unit='tokens/s', note='that the host must feed'),
        *(
          Row('input', where, f'times_{source.replace(" ", "_")}', rate * cores / taken,
              note=f'that {cores} such cores make, with the slowest tokenizer')
          for source, rate in slowest.items()
        ),
      ]  # fmt: skip


def paper_models() -> dict[str, float]:
  """The fastest and the largest model of each recipe at `paper` -> FLOPs for each token."""
  found = {}
  for name in RECIPES:
    config = importlib.import_module(f'configs.{name}').get_config('paper')
    specs = steps.load(f'configs/{name}.py').train_specs(config)
    costs = {f'{name} {model}': _token_flops(build()) for model, build in specs.items()}
    for chosen in (min(costs, key=costs.__getitem__), max(costs, key=costs.__getitem__)):
      found[chosen] = costs[chosen]
  return found


def _token_flops(one: TrainSpec) -> float:
  """Of a training step, for each token; replicas count as one model."""
  replicas = one.batch['targets'].shape[0] if one.experiment.batch_axis else 1
  return 3 * describe(one.experiment.init_fn, one.batch).flops / replicas


def _encoded(codec: Tokenizer, documents: Sequence[bytes]) -> Encoded:
  """The source of a run whose corpus was encoded in advance."""
  ids = [codec.encode(document) for document in documents]
  lengths = [codec.byte_lengths(row) for row in ids]
  counts = np.array([row.size for row in ids])
  return Encoded(np.concatenate(ids), np.concatenate(lengths), counts)


def _rate(source: Any, codec: Tokenizer, repeats: int, shape: tuple[int, int]) -> float:
  """Tokens per second of processor time, including threads that read ahead.

  Counted from the second batch on, since the first one fills the shuffling window.
  """
  batch_size, length = shape
  batches = iter(pipeline.batches(source, codec, batch_size=batch_size, length=length, seed=0))
  next(batches)
  begin = time.process_time()
  for _ in itertools.islice(batches, repeats):
    pass
  return repeats * batch_size * length / (time.process_time() - begin)
