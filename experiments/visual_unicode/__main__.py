# SPDX-License-Identifier: Apache-2.0
"""Frozen visual Unicode embeddings: the recipe.

python -m experiments.visual_unicode --config=configs/visual_unicode.py:cpu --workdir=runs/visual
"""

from ml_collections import ConfigDict

from experiments import runner
from experiments.visual_unicode import (
  coverage,
  growth,
  homoglyphs,
  loss,
  neighbours,
  plots,
  reasoning,
  unseen_script,
)
from lib.errors import InputError

# One line a table: its module has `table`, `check`, CAPTION and SUMMARY.
MODULES = {
  'coverage': coverage,
  'loss': loss,
  'reasoning': reasoning,
  'homoglyphs': homoglyphs,
  'unseen_script': unseen_script,
  'neighbours': neighbours,
  'growth': growth,
}


def check(config: ConfigDict) -> None:
  """Raises InputError for whatever in the config cannot be run, before anything is written."""
  if config.seed < 0:
    raise InputError(f'seed must be 0 or more; got {config.seed}.')
  for table in config.tables:
    MODULES[table].check(config)


RECIPE = runner.Recipe(
  name='visual_unicode',
  title='Emergent Semantics Beyond Token Embeddings: frozen visual Unicode',
  tables={table: module.table for table, module in MODULES.items()},
  captions={table: module.CAPTION for table, module in MODULES.items()},
  summary={table: module.SUMMARY for table, module in MODULES.items()},
  check=check,
  plots=plots.draw,
  facts=lambda config: {'scale': config.scale},
)

if __name__ == '__main__':
  runner.main(RECIPE)
