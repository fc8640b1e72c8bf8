# SPDX-License-Identifier: Apache-2.0
"""What random rows cost: training steps of one shape side by side, rows trained or drawn."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from experiments import runner, steps
from experiments.lexinvariant import models
from experiments.timing import in_turns
from lib.errors import InputError
from lib.report.results import Row, name
from lib.train import optimizer

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
    prepared = {arm: _prepare(config, run, vocab_size, *how) for arm, how in ARMS.items()}
    seconds = in_turns({arm: step.run for arm, step in prepared.items()}, config.cost.repeats)
    accounts = {arm: step.account for arm, step in prepared.items()}
    held = {arm: one.arguments + one.temporaries for arm, one in accounts.items()}
    median = {arm: float(np.median(times)) for arm, times in seconds.items()}
    for arm in ARMS:
      row = name(embedding=arm, vocab_size=vocab_size)
      ratios = np.array(seconds[arm]) / np.array(seconds['learned'])
      shape = f'{config.cost.batch_size} × {config.cost.length} tokens, width {config.cost.dim}'
      rows += [
        Row('cost', row, 'step_seconds', median[arm], unit='s', note=f'median; {shape}'),
        Row('cost', row, 'time_ratio', float(np.median(ratios)), unit='ratio',
            note=f'to learned, median of {len(ratios)} turns'),
        Row('cost', row, 'step_bytes', held[arm], unit='bytes',
            note='state, batch and temporaries, as compiled'),
        Row('cost', row, 'memory_ratio', held[arm] / held['learned'], unit='ratio'),
      ]  # fmt: skip
  return rows


def _prepare(config, run, vocab_size, kind, draw_kind) -> steps.Ready:
  options = config.cost.copy_and_resolve_references()
  options.draw_kind = draw_kind or options.draw_kind
  chain = optimizer.make_optimizer('adamw', optimizer.make_schedule('constant', 1e-3, 1, 0, 1.0))
  one = dataclasses.replace(models.plan(config, options, kind, vocab_size), optimizer=chain)
  step = steps.Ready(one, run.mesh)
  step.run()  # warms up
  return step
