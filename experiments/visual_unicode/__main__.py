# SPDX-License-Identifier: Apache-2.0
"""Frozen visual Unicode embeddings: the recipe.

python -m experiments.visual_unicode --config=configs/visual_unicode.py:cpu --workdir=runs/visual
"""

import functools
from collections.abc import Callable

from ml_collections import ConfigDict

from experiments import runner
from experiments.visual_unicode import (
  coverage,
  growth,
  homoglyphs,
  loss,
  models,
  neighbours,
  plots,
  reasoning,
  text,
  unseen_script,
)
from lib.errors import InputError
from lib.report.results import Row, mark_lossy, name

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


OVER_TOKENIZER = ('loss', 'homoglyphs', 'neighbours', 'growth')  # tables over that of the config


def marked(table: Callable) -> Callable:
  """The table with the mark of a lossy tokenizer in its rows, if the config's is one."""

  def measure(config: ConfigDict, run: runner.Run) -> list[Row]:
    lossy = not text.open_text(config).tokenizer.lossless
    return mark_lossy(table(config, run), lambda parts: lossy)

  return measure


def check(config: ConfigDict) -> None:
  """Raises InputError for whatever in the config cannot be run, before anything is written."""
  if config.seed < 0:
    raise InputError(f'seed must be 0 or more; got {config.seed}.')
  for table in config.tables:
    MODULES[table].check(config)


def plans(config: ConfigDict) -> dict[str, Callable[[], runner.Plan]]:
  """The models of text and of facts, trained rows first, over as many tokens as the config allows.

  Stages of `growth` hold less than its monolithic model; the vocabulary of `unseen_script` is known
  only with the font.
  """
  sizes = {
    'loss': config.tokenizer.vocab_size,
    'reasoning': config.reasoning.vocab_size,
    'growth': config.tokenizer.vocab_size,
  }
  return {
    f'{table}/{name(arm=arm)}': functools.partial(models.plan, config, config[table], arm, size)
    for table, size in sizes.items()
    for arm in sorted(config[table].arms, key=lambda arm: models.ARMS[arm].frozen)
  }


RECIPE = runner.of_maps(
  name='visual_unicode',
  title='Emergent Semantics Beyond Token Embeddings: frozen visual Unicode',
  tables={
    table: marked(module.table) if table in OVER_TOKENIZER else module.table
    for table, module in MODULES.items()
  },
  captions={table: module.CAPTION for table, module in MODULES.items()},
  summary={table: module.SUMMARY for table, module in MODULES.items()},
  check=check,
  plots=plots.draw,
  plans=plans,
  facts=lambda config: {'scale': config.scale},
)

if __name__ == '__main__':
  runner.main(RECIPE)
