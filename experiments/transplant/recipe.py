# SPDX-License-Identifier: Apache-2.0
"""New tokenizer, same model: the recipe and its tables."""

from experiments.recipe import Recipe
from experiments.transplant import languages, noise_anchor, replacement

RECIPE = Recipe(
  'transplant',
  'New Tokenizer, Same Model: WECHSEL, CW2V, TokenAdapt, OMP and their rivals',
  [replacement.TABLE, noise_anchor.TABLE, languages.TABLE],
  summary='A trained model gets another tokenizer: embeddings of new tokens are computed from the '
  'old embeddings.',
)
