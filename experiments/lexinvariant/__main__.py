# SPDX-License-Identifier: Apache-2.0
"""Lexinvariant Language Models: the recipe.

python -m experiments.lexinvariant --config=configs/lexinvariant.py:cpu --workdir=runs/lex
"""

import functools
from collections.abc import Callable

from ml_collections import ConfigDict

from experiments import runner
from experiments.lexinvariant import (
  cipher,
  context,
  cost,
  draws,
  in_context,
  markov,
  models,
  plots,
  prompt,
  regularizer,
  text,
  theory,
)
from lib.errors import InputError

CAPTIONS = {
  'theory': 'The ideal lexinvariant predictor p′ (exact Bayes over all d! renamings) of random '
  'chains: its regret is at most log d! at every prefix, so that its average distance falls as '
  '√(2 log d!/T) at least, and as 1/T in truth.',
  'markov': 'A lexinvariant transformer trained on one known Markov chain, on fresh sequences. No '
  'predictor that sees no names can beat exact Bayes, whose regret is at most log d!.',
  'context': 'Perplexity against position on held-out text: the same decoder with trained rows and '
  'with fresh random ones. What renaming costs is bounded by log V! nats in all, so the gap must '
  'close as the context tells which symbol is which. The begin of a document, the one special, is '
  'read and never predicted; its vector is trained.',
  'cipher': 'Substitution ciphers of held-out text, read by a probe of the frozen lexinvariant '
  'model, beside solvers without a model. Texts, keys and readings lie in ciphers.txt.',
  'in_context': 'Answers generated in two tasks of symbol pushing, by models of text that never '
  'met them, and (trained=tasks, not in the paper) by models that did.',
  in_context.AUDIT: 'What "on average 4 times better" comes to, by five statistics of the pairs.',
  'regularizer': 'Names hidden in part while a model learns text and tasks: what it costs on text, '
  'what it gives where names say nothing.',
  'draws': 'Predictions averaged over K draws of the random rows: what one draw loses.',
  'cost': 'Training steps of the same decoder side by side, by how the rows come about.',
}

SUMMARY = {
  'context': (
    '',
    (
      'perplexity_at_1',
      'perplexity_at_157',
      'relative_gap_at_1',
      'relative_gap_at_157',
      'gap_shrinks_by',
      'regret_nats_over_256',
      'log_v_factorial_nats',
    ),
  ),
  'cipher': ('', ('precision_at_0', 'precision_at_100', 'precision_at_last_window', 'accuracy')),
  'in_context': ('', ('accuracy',)),
  in_context.AUDIT: ('', ('mean_ratio', 'geometric_mean_ratio', 'ratio_of_means')),
  'regularizer': (
    '',
    (
      'text_nats_per_symbol',
      'lookup_accuracy_known',
      'lookup_accuracy_held_out',
      'permutation_accuracy_known',
      'permutation_accuracy_held_out',
      'permutation_accuracy_concealed',
    ),
  ),
  'draws': ('', ('nats_per_symbol', 'gain_nats_per_symbol', 'spread_nats')),
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


MODULES = {
  'theory': theory,
  'markov': markov,
  'context': context,
  'cipher': cipher,
  'in_context': in_context,
  'regularizer': regularizer,
  'draws': draws,
  'cost': cost,
}


def check(config: ConfigDict) -> None:
  """Raises InputError for whatever in the config cannot be run, before anything is written."""
  if config.seed < 0:
    raise InputError(f'seed must be 0 or more; got {config.seed}.')
  for table in config.tables:
    MODULES[table].check(config)
  if config.prompt:
    prompt.check(config)


def plans(config: ConfigDict) -> dict[str, Callable[[], runner.Plan]]:
  """The models; a probe (`cipher`) holds less than the model that it reads."""
  chain = functools.partial(
    models.plan, config, config.markov, 'lexinvariant', config.markov.alphabet
  )
  return text.plans(config) | regularizer.plans(config) | {'markov': chain}


RECIPE = runner.Recipe(
  name='lexinvariant',
  title='Lexinvariant Language Models',
  tables={table: module.table for table, module in MODULES.items()},
  captions=CAPTIONS,
  summary=SUMMARY,
  check=check,
  plots=plots.draw,
  facts=lambda config: {'scale': config.scale},
  plans=plans,
  answer=prompt.answer,
)

if __name__ == '__main__':
  runner.main(RECIPE)
