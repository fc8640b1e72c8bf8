# SPDX-License-Identifier: Apache-2.0
"""The cost of random rows: training steps of one shape, with trained or with sampled rows."""

import numpy as np
from ml_collections import ConfigDict

from experiments.lexinvariant import decoders
from experiments.recipe import Run, Table
from experiments.tools import steps
from experiments.tools.timing import in_turns
from lib.progress import Bar
from lib.report.results import Rows

DRAWN = ('shared', 'per_sequence', 'seeded')  # ways of sampling rows


def check(config: ConfigDict) -> None:
  """Raises InputError for a model that cannot be built."""
  decoders.check(config.cost, 'cost', max(config.cost.vocab_sizes))


def measure(config: ConfigDict, run: Run) -> Rows:
  """Time and memory of a step, and both as ratios to the learned embedding's.

  The arms take turns, so that other load on the machine affects all of them equally.
  """
  rows, options = Rows('cost'), config.cost
  shape = f'{options.batch_size} × {options.length} tokens, width {options.dim}'
  for vocab_size in Bar(options.vocab_sizes, desc='vocabularies'):
    prepared = {arm: _prepare(config, run, vocab_size, arm) for arm in ('learned', *DRAWN)}
    seconds = in_turns({arm: step.run for arm, step in prepared.items()}, options.repeats)
    accounts = {arm: step.account for arm, step in prepared.items()}
    held = {arm: one.arguments + one.temporaries for arm, one in accounts.items()}
    for arm in prepared:
      where = {'embedding': arm, 'vocab_size': vocab_size}
      ratios = np.divide(seconds[arm], seconds['learned'])
      rows.add(where, 'step_seconds', np.median(seconds[arm]), 's', f'median; {shape}')
      note = f'to learned, median of {len(ratios)} turns'
      rows.add(where, 'time_ratio', np.median(ratios), 'ratio', note)
      note = 'state, batch and temporaries, as compiled'
      rows.add(where, 'step_bytes', held[arm], 'bytes', note)
      rows.add(where, 'memory_ratio', held[arm] / held['learned'], 'ratio')
  return rows


def _prepare(config: ConfigDict, run: Run, vocab_size: int, arm: str) -> steps.Ready:
  options, kind = config.cost.copy_and_resolve_references(), 'learned'
  if arm in DRAWN:
    options.row_sampling, kind = arm, 'lexinvariant'
  step = steps.Ready(decoders.train_spec(config, options, kind, vocab_size), run.mesh)
  step.run()  # warms up
  return step


TABLE = Table(
  'cost',
  measure,
  'Training steps of the same decoder, by the kind of rows.',
  ('step_seconds', 'time_ratio', 'memory_ratio'),
  check=check,
)
