# SPDX-License-Identifier: Apache-2.0
"""Two decoders compared with the same in PyTorch, eager and compiled, in turns on the same
cores.
"""

import importlib.util
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs import lexinvariant
from experiments.lexinvariant import decoders, text_models
from experiments.recipe import TrainSpec
from experiments.tools import steps
from experiments.tools.timing import in_turns
from lib import stats
from lib.data import pipeline
from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.models.decoder import Decoder, LanguageModel
from lib.objectives.next_token import next_token
from lib.parallel import sharding
from lib.report import results
from lib.report.results import Row
from lib.train import optimizer
from lib.train.experiment import Experiment

CAPTIONS = {
  'peer': 'Training steps with AdamW from equal weights on equal batches, in turns of one step '
  'each; medians. times_eager: against PyTorch eager in the same dtype, the median over turns; '
  'below 1, PyTorch is faster. Several processes measure, and ± is one standard error over them. '
  'loss_1, loss_2: of the first two steps, by which it is the same decoder and the same update.'
}
RATIO = 'times_eager'
RATE, DECAY = 1e-3, 0.1
TOLERANCE = {'float32': 1e-4, 'bfloat16': 2e-2}  # relative, of the losses of two steps
NO_COMPILER = 'torch.compile needs a C++ compiler, and there is no g++ here'
Way = Callable[[], float]  # runs a step to its end and returns its loss


class Case(NamedTuple):
  """A model to be trained in both.

  Attributes:
    model: by its dtype.
    rows: of a batch.
    length: tokens of a row.
    ways: of PyTorch, 'eager' and perhaps 'compiled'.
  """

  model: Callable[[Any], LanguageModel]
  rows: int
  length: int
  ways: tuple[str, ...]


def cases() -> dict[str, Case]:
  """A decoder of GPT-2's form, and the model of text of lexinvariant with trained rows at `cpu`.

  The latter is not compiled: `torch.compile` takes minutes for the gradient of its T5 biases.
  """
  options = lexinvariant.get_config('cpu').text
  letters = text_models.vocab_sizes()['letters']
  gpt2 = lambda dtype: LanguageModel(
    Learned(256, 256, dtype=dtype), Decoder(4, 256, 4, 1024, max_length=256, dtype=dtype)
  )
  trained = lambda dtype: decoders.make_model(options, 'learned', letters, dtype)
  return {
    'gpt2': Case(gpt2, 32, 256, ('eager', 'compiled')),
    'lexinvariant': Case(trained, options.batch_size, options.length, ('eager',)),
  }


def over_processes(command: Sequence[str], runs: int) -> list[Row]:
  """The rows of `table`, measured by several processes, with their mean and its error.

  Args:
    command: arguments of Python by which a process measures, but for its --out.
    runs: processes, one after the other.

  Raises:
    RuntimeError: a process failed.
  """
  measured: dict[tuple[str, str], list[Row]] = {}
  for run in range(runs):
    with tempfile.TemporaryDirectory() as folder:
      print(f'process {run + 1} of {runs}', flush=True)
      ended = subprocess.run(
        [sys.executable, *command, f'--out={folder}'], stdout=subprocess.DEVNULL, check=False
      )
      if ended.returncode:
        raise RuntimeError(f'python {" ".join(command)} ended with {ended.returncode}')
      [found] = json.loads((pathlib.Path(folder) / 'throughput.json').read_text()).values()
    for row in results.from_json(found['rows']):
      measured.setdefault((row.row, row.column), []).append(row)
  return [row for rows in measured.values() for row in over_runs(rows)]


def over_runs(rows: Sequence[Row]) -> list[Row]:
  """The mean of a row over processes; for ratios also the lowest and the highest."""
  first = rows[0]
  values = [row.measured for row in rows if row.measured is not None]
  if not values:
    return [first]
  mean = stats.mean(values, 'processes')
  found = [Row.of(first.table, first.where, first.column, mean, unit=first.unit, note=first.note)]
  if first.column == RATIO and first.where['way'] != 'eager':
    for what, value in (('lowest', min(values)), ('highest', max(values))):
      found.append(Row(first.table, first.where, f'{RATIO}_{what}', value, unit=first.unit))
  return found


def table(found: Mapping[str, Case], repeats: int) -> list[Row]:
  """Rows of each case in each dtype, over a number of turns.

  Raises:
    InputError: there is no PyTorch, or this is no CPU.
    RuntimeError: PyTorch's losses are others than ours.
  """
  if jax.default_backend() != 'cpu':
    raise InputError('--peer times both on a CPU: set JAX_PLATFORMS=cpu.')
  if importlib.util.find_spec('torch') is None:
    raise InputError('--peer needs PyTorch: `make throughput` puts it into .cache/torch.')
  import torch

  torch.set_num_threads(len(os.sched_getaffinity(0)))
  rows = []
  for title, case in found.items():
    about = f'torch {torch.__version__}; {title}: {case.rows} × {case.length} tokens'
    made = {
      (dtype, way): step
      for dtype in TOLERANCE
      for way, step in prepared(case, dtype).items()
    }  # fmt: skip
    losses = {key: (step(), step()) for key, step in made.items()}  # compiles
    check(losses)
    seconds = in_turns(made, repeats)
    for (dtype, way), took in seconds.items():
      row = dict(model=title, dtype=dtype, way=way)
      over = np.array(seconds[dtype, 'eager']) / np.array(took)
      rate = case.rows * case.length / statistics.median(took)
      rows += [
        Row('peer', row, 'tokens_per_s', rate, unit='tokens/s', note=about),
        Row('peer', row, RATIO, float(np.median(over)), unit='ratio'),
        *(
          Row('peer', row, f'loss_{i}', loss, unit='nats')
          for i, loss in enumerate(losses[dtype, way], start=1)
        ),
      ]
    if 'compiled' in case.ways and not shutil.which('g++'):
      row = dict(model=title, way='compiled')
      rows.append(Row('peer', row, 'tokens_per_s', None, note=NO_COMPILER))
  return rows


def prepared(case: Case, dtype: str) -> dict[str, Way]:
  """A function that runs a step, for each way available here, all from equal weights."""
  from experiments.tools.throughput import torch_decoder

  model = case.model(jnp.dtype(dtype))
  experiment = Experiment(*next_token(model), ())
  chain = optimizer.make_optimizer('adamw', lambda _: RATE, weight_decay=DECAY)
  shapes = pipeline.shapes(case.rows, case.length)
  one = TrainSpec(experiment, chain, shapes, model.embedding.vocab_size)
  ours = steps.Ready(one, sharding.make_mesh({}, jax.devices()[:1]))
  params = jax.device_get(ours.state['variables']['params'])
  theirs = {
    way: torch_decoder.step(
      model,
      params,
      one.random_batch(),
      rate=RATE,
      decay=DECAY,
      dtype=dtype,
      compiled=way == 'compiled',
    )
    for way in case.ways
    if way == 'eager' or (way == 'compiled' and shutil.which('g++'))
  }
  return {'ours': lambda: float(ours.run()[1]['loss'])} | theirs


def check(losses: Mapping[tuple[str, str], tuple[float, ...]]) -> None:
  """Raises RuntimeError if a way's losses are not ours in the same dtype."""
  for (dtype, way), values in losses.items():
    expected = losses[dtype, 'ours']
    if not np.allclose(values, expected, rtol=TOLERANCE[dtype], atol=0):
      raise RuntimeError(f'losses of {way} in {dtype} are {values}, not {expected} as ours')
