# SPDX-License-Identifier: Apache-2.0
"""Data Mixture Inference: the recipe and its tables."""

from experiments.mixture import controlled, exact, off_the_shelf
from experiments.recipe import Recipe

RECIPE = Recipe(
  'mixture',
  'Data Mixture Inference: What do BPE Tokenizers Reveal about their Training Data?',
  [exact.TABLE, controlled.DOMAINS, controlled.LANGUAGES, off_the_shelf.TABLE],
  summary='The ordered merges of a BPE tokenizer tell how much of each category of text it was '
  'trained on.',
  large_steps=False,
)
