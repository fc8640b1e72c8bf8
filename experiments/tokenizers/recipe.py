# SPDX-License-Identifier: Apache-2.0
"""Tokenizers side by side: the recipe and its tables."""

from experiments.recipe import Recipe
from experiments.tokenizers import compare, compression, lexicon, parity, quality

RECIPE = Recipe(
  'tokenizers',
  'Tokenizers side by side: which is better, and at what?',
  [
    compression.COMPRESSION,
    compression.TRANSITION,
    compare.TABLE,
    parity.TABLE,
    lexicon.TABLE,
    quality.TABLE,
  ],
  summary='Tokens that may cross spaces compress text more than any tokenizer within words can.',
  large_steps=False,
)
