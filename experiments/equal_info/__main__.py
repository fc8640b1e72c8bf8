# SPDX-License-Identifier: Apache-2.0
"""Training LLMs over Neurally Compressed Text: the recipe.

python -m experiments.equal_info --config=configs/equal_info.py:cpu --workdir=runs/equal_info
"""

from experiments import runner
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
  summary='Arithmetic-coded text can be learned from only if the coder and its byte model are '
  'reset at windows of equal information.',
  answer=prompt.answer,
  check_prompt=prompt.check,
)

if __name__ == '__main__':
  runner.main(RECIPE)
