# SPDX-License-Identifier: Apache-2.0
"""Data Mixture Inference: the recipe.

python -m experiments.mixture --config=configs/mixture.py:cpu --workdir=runs/mixture
"""

from experiments import runner
from experiments.mixture import controlled, exact, off_the_shelf
from experiments.recipe import Recipe

RECIPE = Recipe(
  'mixture',
  'Data Mixture Inference: What do BPE Tokenizers Reveal about their Training Data?',
  [exact.TABLE, controlled.DOMAINS, controlled.LANGUAGES, off_the_shelf.TABLE],
  large_steps=False,
)

if __name__ == '__main__':
  runner.main(RECIPE)
