# SPDX-License-Identifier: Apache-2.0
"""Training LLMs over Neurally Compressed Text: the recipe and its tables."""

from experiments.equal_info import (
  decompress,
  m2,
  prompt,
  ratio,
  reset,
  stability,
  uniformity,
  windows,
)
from experiments.recipe import Recipe

RECIPE = Recipe(
  'equal_info',
  'Training LLMs over Neurally Compressed Text',
  [table.TABLE for table in (ratio, m2, windows, reset, decompress, uniformity, stability)],
  summary='A language model can learn from arithmetic-coded text only if the coder and its byte '
  'model are reset after windows of equal information.',
  answer=prompt.answer,
  check_prompt=prompt.check,
  largest='m2',
)
