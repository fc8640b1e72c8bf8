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
from lib.data.description import Description
from lib.errors import InputError

CAPTIONS = {
  'theory': 'The ideal lexinvariant predictor p′ (exact Bayes over all d! renamings) of random '
  'chains. Its regret is at most log d! at every prefix, which follows from p′(x) ≥ p(x)/d! and is '
  'not printed in the paper. So its average distance is at most √(2 log d!/T).',
  'markov': 'Lexinvariant transformers, each trained on one known Markov chain and tested on fresh '
  'sequences of it. No predictor that sees no names can beat exact Bayes, whose regret is at most '
  'log d!. Errors are over chains; label_leak_nats tests whether a model sees names.',
  'context': 'Perplexity against position on held-out text: the same decoder with trained rows and '
  'with fresh random ones for each sequence, next to counting within the sequence. Renaming costs '
  'an ideal predictor at most log V! nats in all. Training and test rows have one length. The BOS '
  'token is read and never predicted; its vector is trained. On endless text regret_nats is the '
  'loss above the exact law of the text.',
  'cipher': 'Substitution ciphers of held-out text, read by a probe of the frozen lexinvariant '
  'model, next to solvers without a model. Texts, keys and readings are in ciphers.txt.',
  'in_context': 'Answers generated in two tasks of symbol pushing, by models of text that never '
  'met them, and (trained=tasks, not in the paper) by models that did. predictor= rows guess.',
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
      'learning_rate',
      'perplexity_at_1',
      'perplexity_at_157',
      'relative_gap_at_1',
      'relative_gap_at_last_window',
      'gap_shrinks_by',
      'nats_below_counting_bigram_last',
      'regret_nats_over_256',
      'regret_nats',
      'log_v_factorial_nats',
    ),
  ),
  'cipher': (
    '',
    (
      'precision_at_0',
      'precision_at_last_window',
      'precision_gain',
      'precision_above_2x_untrained_majority',
      'precision_above_frequency_matching',
      'precision_above_1.5x_majority',
      'accuracy',
    ),
  ),
  'in_context': ('', ('accuracy', 'accuracy_above_chance', 'accuracy_above_learned')),
  in_context.AUDIT: ('', ('mean_ratio', 'geometric_mean_ratio', 'ratio_of_means')),
  'regularizer': (
    '',
    (
      'text_nats_per_symbol',
      'learning_rate',
      'lookup_accuracy_above_chance_known',
      'lookup_accuracy_above_chance_held_out',
      'permutation_accuracy_above_chance_known',
      'permutation_accuracy_above_chance_held_out',
      'permutation_accuracy_above_chance_concealed',
      'lookup_accuracy_above_permuted_held_out',
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
  'markov': (
    '',
    ('regret_nats', 'regret_over_log_d_factorial', 'late_excess', 'label_leak_nats'),
  ),
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

OF_TEXT = {'context', 'cipher', 'in_context', 'draws'}  # tables that read text.corpora


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


def sources(config: ConfigDict) -> list[str]:
  """The sources of text of the chosen tables."""
  found = [source for _, source in config.text.corpora] if OF_TEXT & set(config.tables) else []
  return found + [config.regularizer.source] * ('regularizer' in config.tables)


def descriptions(config: ConfigDict) -> list[Description]:
  """The folded text of the chosen tables."""
  read = {(source, regularizer.TEXT) for source in (config.regularizer.source,)
          if 'regularizer' in config.tables}  # fmt: skip
  if OF_TEXT & set(config.tables):
    read |= {(source, key) for _, source in config.text.corpora for key in config.text.vocabularies}
  return [one for source, key in sorted(read) for one in text.describe(source, key)]


RECIPE = runner.of_maps(
  name='lexinvariant',
  title='Lexinvariant Language Models',
  tables={table: module.table for table, module in MODULES.items()},
  captions=CAPTIONS,
  summary=SUMMARY,
  check=check,
  plots=plots.draw,
  facts=lambda config: {'scale': config.scale},
  plans=plans,
  sources=sources,
  descriptions=descriptions,
  answer=prompt.answer,
)

if __name__ == '__main__':
  runner.main(RECIPE)
