# SPDX-License-Identifier: Apache-2.0
"""Models of bytes that find their own tokens: the recipe and its tables."""

from experiments.hierarchy import ablation, causality, chunking, curve, noise
from experiments.recipe import Recipe

RECIPE = Recipe(
  'hierarchy',
  'Dynamic Chunking for End-to-End Hierarchical Sequence Modeling',
  [causality.TABLE, chunking.TABLE, ablation.TABLE, curve.TABLE, noise.TABLE],
  summary='A byte model that learns to cut text into chunks, and models the chunks, is better than '
  'other byte models and than token models at equal FLOPs.',
)
