# SPDX-License-Identifier: Apache-2.0
"""Frozen visual Unicode embeddings: the recipe and its tables."""

from experiments.recipe import Recipe
from experiments.visual_unicode import (
  coverage,
  growth,
  homoglyphs,
  loss,
  neighbours,
  reasoning,
  unseen_script,
)

TABLES = (coverage, loss, reasoning, homoglyphs, unseen_script, neighbours, growth)
RECIPE = Recipe(
  'visual_unicode',
  'Emergent Semantics Beyond Token Embeddings: frozen visual Unicode',
  [module.TABLE for module in TABLES],
  summary='A decoder trains as well over frozen pictures of characters as over trained input '
  'embeddings.',
)
