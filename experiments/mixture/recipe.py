# SPDX-License-Identifier: Apache-2.0
"""Data Mixture Inference: the recipe and its tables."""

from experiments.mixture import controlled, exact, off_the_shelf
from experiments.recipe import Recipe

RECIPE = Recipe(
  'mixture',
  'Data Mixture Inference: What do BPE Tokenizers Reveal about their Training Data?',
  [exact.TABLE, controlled.DOMAINS, controlled.LANGUAGES, off_the_shelf.TABLE],
  summary='The ordered merges of a BPE tokenizer reveal the shares of languages and domains in its '
  'training text.',
  large_steps=False,
)
