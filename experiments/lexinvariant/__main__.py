# SPDX-License-Identifier: Apache-2.0
"""Lexinvariant Language Models: the recipe.

python -m experiments.lexinvariant --config=configs/lexinvariant.py:cpu --workdir=runs/lex
"""

from ml_collections import ConfigDict

from experiments import runner
from experiments.lexinvariant import cost, markov, plots, theory
from lib.errors import InputError

CAPTIONS = {
  'theory': 'The ideal lexinvariant predictor p′ (exact Bayes over all d! renamings) of random '
  'chains: its regret is at most log d! at every prefix, so that its average distance falls as '
  '√(2 log d!/T) at least, and as 1/T in truth.',
  'markov': 'A lexinvariant transformer trained on one known Markov chain, on fresh sequences. No '
  'predictor that sees no names can beat exact Bayes, whose regret is at most log d!.',
  'cost': 'Training steps of the same decoder side by side, by how the rows come about.',
}

SUMMARY = {
  'cost': ('', ('step_seconds', 'time_ratio', 'memory_ratio')),
  'theory': (
    '',
    (
      'total_log_regret_nats',
      'log_d_factorial_nats',
      'average_l1_at_256',
      'bound_l1_at_256',
      'slope',
    ),
  ),
  'markov': ('', ('regret_nats', 'late_perplexity', 'late_excess')),
}


MODULES = {'theory': theory, 'markov': markov, 'cost': cost}


def check(config: ConfigDict) -> None:
  """Raises InputError for whatever in the config cannot be run, before anything is written."""
  if config.seed < 0:
    raise InputError(f'seed must be 0 or more; got {config.seed}.')
  for table in config.tables:
    MODULES[table].check(config)


RECIPE = runner.Recipe(
  name='lexinvariant',
  title='Lexinvariant Language Models',
  tables={table: module.table for table, module in MODULES.items()},
  captions=CAPTIONS,
  summary=SUMMARY,
  check=check,
  plots=plots.draw,
  facts=lambda config: {'scale': config.scale},
)

if __name__ == '__main__':
  runner.main(RECIPE)
