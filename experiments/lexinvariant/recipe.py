# SPDX-License-Identifier: Apache-2.0
"""Lexinvariant Language Models: the recipe and its tables."""

from experiments.lexinvariant import (
  cipher,
  context,
  cost,
  draws,
  in_context,
  markov,
  prompt,
  regularizer,
  theory,
)
from experiments.recipe import Recipe

MODULES = (theory, markov, context, cipher, in_context, regularizer, draws, cost)
RECIPE = Recipe(
  'lexinvariant',
  'Lexinvariant Language Models',
  [module.TABLE for module in MODULES],
  summary='A language model needs no fixed token embeddings: from context it infers which symbol '
  'is which.',
  answer=prompt.answer,
  check_prompt=prompt.check,
  largest='context',
)
