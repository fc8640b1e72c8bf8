# SPDX-License-Identifier: Apache-2.0
"""Frozen visual Unicode embeddings: the recipe.

python -m experiments.visual_unicode --config=configs/visual_unicode.py:cpu --workdir=runs/visual
"""

from experiments import recipe, runner
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
RECIPE = recipe.Recipe(
  'visual_unicode',
  'Emergent Semantics Beyond Token Embeddings: frozen visual Unicode',
  [module.TABLE for module in TABLES],
  summary='A decoder trains as well over frozen pictures of characters as over trained input rows.',
)

if __name__ == '__main__':
  runner.main(RECIPE)
