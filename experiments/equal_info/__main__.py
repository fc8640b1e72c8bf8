# SPDX-License-Identifier: Apache-2.0
"""Training LLMs over Neurally Compressed Text: the recipe.

python -m experiments.equal_info --config=configs/equal_info.py:cpu --workdir=runs/equal_info
"""

from ml_collections import ConfigDict

from experiments import runner
from experiments.equal_info import m1, ratio
from lib.errors import InputError

CAPTIONS = {
  'ratio': 'Bytes of held-out text a token, and bits a byte of the tokens as they stand (log2 of '
  'the vocabulary for each). Errors are over documents.',
}

SUMMARY = {
  'ratio': ('', ('bytes_per_token', 'bits_per_byte', 'documents_restored', 'holds')),
}

# The tables in the order of the report; names are those of TABLES in configs/equal_info.py.
MODULES = {
  'ratio': ratio,
}


def check(config: ConfigDict) -> None:
  """Raises InputError for whatever in the config cannot be run, before anything is written."""
  if config.seed < 0:
    raise InputError(f'seed must be 0 or more; got {config.seed}.')
  m1.check(config)
  for table in config.tables:
    MODULES[table].check(config)


RECIPE = runner.Recipe(
  name='equal_info',
  title='Training LLMs over Neurally Compressed Text',
  tables={table: module.table for table, module in MODULES.items()},
  captions=CAPTIONS,
  summary=SUMMARY,
  check=check,
  plots=lambda rows, config, run: [],
  facts=lambda config: {'scale': config.scale},
)

if __name__ == '__main__':
  runner.main(RECIPE)
