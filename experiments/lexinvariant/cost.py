# SPDX-License-Identifier: Apache-2.0
"""What random rows cost: training steps of one shape side by side, rows trained or drawn."""

import time

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from experiments import runner
from experiments.lexinvariant import models
from lib.data import pipeline
from lib.errors import InputError
from lib.report.results import Row, name
from lib.train import optimizer, sharding
from lib.train.state import make_step, state_shapes

ARMS = {'learned': ('learned', ''), 'shared': ('lexinvariant', 'shared'),
        'per_sequence': ('lexinvariant', 'per_sequence'),
        'seeded': ('lexinvariant', 'seeded')}  # fmt: skip


def check(config: ConfigDict) -> None:
  """Raises InputError for a model that cannot be built."""
  if config.cost.repeats < 1 or not config.cost.vocab_sizes:
    raise InputError('cost.repeats must be 1 or more, and cost.vocab_sizes not empty.')
  models.check(config.cost, 'cost', max(config.cost.vocab_sizes))


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Time and memory of a step, and both as ratios to the learned embedding's.

  The arms take turns, so that whatever else the machine does meets all of them.
  """
  rows = []
  for vocab_size in tqdm(config.cost.vocab_sizes, desc='vocabularies', leave=False):
    with jax.set_mesh(run.mesh):
      steps = {arm: _prepare(config, run, vocab_size, *how) for arm, how in ARMS.items()}
      seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
      for _ in range(config.cost.repeats):
        for arm, step in steps.items():
          seconds[arm].append(step.time())
    median = {arm: float(np.median(times)) for arm, times in seconds.items()}
    for arm, step in steps.items():
      row = name(embedding=arm, vocab_size=vocab_size)
      ratios = np.array(seconds[arm]) / np.array(seconds['learned'])
      shape = f'{config.cost.batch_size} × {config.cost.length} tokens, width {config.cost.dim}'
      rows += [
        Row('cost', row, 'step_seconds', median[arm], unit='s', note=f'median; {shape}'),
        Row('cost', row, 'time_ratio', float(np.median(ratios)), unit='ratio',
            note=f'to learned, median of {len(ratios)} turns'),
        Row('cost', row, 'step_bytes', step.bytes, unit='bytes',
            note='state, batch and temporaries, as compiled'),
        Row('cost', row, 'memory_ratio', step.bytes / steps['learned'].bytes, unit='ratio'),
      ]  # fmt: skip
  return rows


class _Step:
  """A compiled training step with its state."""

  def __init__(self, compiled, state, batch):
    self._compiled, self._state, self._batch = compiled, state, batch
    used = compiled.memory_analysis()
    self.bytes = used.argument_size_in_bytes + used.temp_size_in_bytes
    self.time()  # the first call warms up

  def time(self) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    self._state, values = self._compiled(self._state, self._batch)
    jax.block_until_ready((self._state, values))
    return time.perf_counter() - start


def _prepare(config, run, vocab_size, kind, draw_kind) -> _Step:
  options = config.cost.copy_and_resolve_references()
  options.draw_kind = draw_kind or options.draw_kind
  targets = np.random.default_rng(0).integers(0, vocab_size, (options.batch_size, options.length))
  batch = pipeline.whole(targets, vocab_size)
  example = sharding.global_batch(batch, run.mesh)
  experiment = models.make_experiment(options, kind, vocab_size, jax.numpy.dtype(config.dtype), [])
  chain = optimizer.make_optimizer('adamw', optimizer.make_schedule('constant', 1e-3, 1, 0, 1.0))
  make, shapes = state_shapes(experiment, chain, example, 0, config.rules, run.mesh)
  state = make()
  return _Step(
    make_step(experiment, chain, 0, shapes).lower(state, example).compile(), state, example
  )
