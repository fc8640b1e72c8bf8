# SPDX-License-Identifier: Apache-2.0
"""Exact byte-level probabilities of token models: the recipe and its tables."""

from experiments.byte_exact import bias, cut, ensemble, fim
from experiments.recipe import Recipe

RECIPE = Recipe(
  'byte_exact',
  'Exact Byte-Level Probabilities from Tokenized Language Models',
  [bias.TABLE, cut.TABLE, fim.TABLE, ensemble.TABLE, ensemble.COST],
  summary='A token model gives exact probabilities of the next byte after any prompt, without the '
  'bias of prompts that end inside a token.',
  large_steps=False,
)
