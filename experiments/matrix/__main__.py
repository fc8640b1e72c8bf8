# SPDX-License-Identifier: Apache-2.0
"""Every tokenizer under every embedding: the recipe.

python -m experiments.matrix --config=configs/matrix.py:cpu --workdir=runs/matrix
"""

from ml_collections import ConfigDict

from experiments import runner
from experiments.matrix import budget, grid, markov, plots
from lib.errors import InputError

MODULES = {'grid': grid, 'budget': budget, 'markov': markov}


def check(config: ConfigDict) -> None:
  """Raises InputError for whatever in the config cannot be run, before anything is written."""
  if config.seed < 0:
    raise InputError(f'seed must be 0 or more; got {config.seed}.')
  for table in config.tables:
    MODULES[table].check(config)


RECIPE = runner.of_maps(
  name='matrix',
  title='Every tokenizer under every embedding',
  tables={table: module.table for table, module in MODULES.items()},
  captions=grid.CAPTIONS | {budget.TABLE: budget.CAPTION, markov.TABLE: markov.CAPTION},
  summary=grid.SUMMARY | {budget.TABLE: budget.SUMMARY, markov.TABLE: markov.SUMMARY},
  check=check,
  plots=plots.draw,
  facts=lambda config: {'scale': config.scale},
  sources=lambda config: () if config.tables == (markov.TABLE,) else (config.data.source,),
)

if __name__ == '__main__':
  runner.main(RECIPE)
