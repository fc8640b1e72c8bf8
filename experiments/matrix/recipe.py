# SPDX-License-Identifier: Apache-2.0
"""Every tokenizer under every embedding: the recipe and its tables."""

from experiments.matrix import budget, grid, markov
from experiments.recipe import Recipe

TABLES = [grid.TABLE, budget.TABLE, markov.TABLE]
RECIPE = Recipe(
  'matrix',
  'Every tokenizer under every embedding',
  TABLES,
  summary='Any tokenizer runs under any embedding, compared at equal bytes of context and equal '
  'training FLOPs.',
)
