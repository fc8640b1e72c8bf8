# SPDX-License-Identifier: Apache-2.0
"""Toward a Theory of Tokenization in LLMs: the recipe and its tables."""

from experiments.markov import dictionaries, real_text, transformer
from experiments.recipe import Recipe

RECIPE = Recipe(
  'markov',
  'Toward a Theory of Tokenization in LLMs',
  [
    dictionaries.NGRAM,
    dictionaries.BLOCKS,
    dictionaries.TOKEN_NGRAM,
    dictionaries.BOUND,
    transformer.TABLE,
    dictionaries.GENERALIZATION,
    real_text.TABLE,
  ],
  summary='On text from a Markov chain, a unigram model over characters misses the entropy rate; '
  'over the tokens of a good dictionary it comes close.',
  facts=lambda config: {'p': config.source.p, 'q': config.source.q, 'kind': config.source.kind},
  large_steps=False,
)
