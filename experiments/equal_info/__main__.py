# SPDX-License-Identifier: Apache-2.0
"""Training LLMs over Neurally Compressed Text: the recipe.

python -m experiments.equal_info --config=configs/equal_info.py:cpu --workdir=runs/equal_info
"""

from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from experiments import runner
from experiments.equal_info import (
  decompress,
  m1,
  m2,
  m2_plots,
  models,
  prompt,
  ratio,
  ratio_plots,
  reset,
  stability,
  uniformity,
  windows,
)
from lib.data import pipeline
from lib.errors import InputError
from lib.report import plots
from lib.report.results import Row

CAPTIONS = {
  'ratio': 'Bytes of held-out text a token, and bits a byte of the tokens as they stand (log2 of '
  'the vocabulary for each). Errors are over documents.',
  'reset': 'Greedy windows of 16 bits where M1 forgets at every window, at every other, or never: '
  'the less it forgets, the more bytes fit in, and the less single tokens tell.',
  'uniformity': 'Bits by which strings of n bits of the token stream are from uniform (KL '
  'divergence), counted at every bit (ngrams) or every n-th (tokens), by counts alone and with '
  'the correction of Miller and Madow, beside as many random bytes.',
  'stability': 'How many tokens of a text another word before it changes (Levenshtein distance '
  'over pairs of words), and how many different stretches of text one token covers; the texts '
  'of frequent tokens lie in attested.txt.',
  'm2': 'Language models over tokens, at equal tokens a step, scored on the same held-out text: '
  'bits a byte, of the bytes that the scored tokens cover, against FLOPs a byte and bytes a step. '
  'A mode that is not lossless (greedy) understates its bits: texts that share a window are not '
  'told apart.',
  'windows': 'What M2 learns of equal-info windows by their width, and which token of a window it '
  'learns first. The wider a window, the more of it depends on what M2 cannot follow.',
  'decompress': 'A decoder reads the tokens of a text, then writes its bytes: the share of bytes '
  'that it tells right, beside the same model without tokens. The first tokens of an AC stream '
  'are an equal-info window by themselves, for M1 has no context there either; the second half of '
  'a text is beyond them. Tokens of another text are a second control: they burden a model as '
  'much and tell it nothing.',
}

SUMMARY = {
  'ratio': ('', ('bytes_per_token', 'bits_per_byte', 'documents_restored', 'holds')),
  'reset': ('', ('bytes_per_token', 'excess_kl_bits')),
  'uniformity': (
    'n=8$|check',
    ('kl_bits_corrected', 'kl_bits_random', 'excess_kl_bits', 'holds'),
  ),
  'stability': ('', ('edit_distance', 'changed_share', 'repeated_share', 'texts_per_token')),
  'm2': (
    '',
    (
      'bits_per_byte',
      'unigram_bits_per_byte',
      'uniform_bits_per_byte',
      'bytes_per_step',
      'mflops_per_byte',
      'nats_below_ln_v',
    ),
  ),
  'windows': ('', ('gap_bits_per_token', 'learned_at_step', 'trivial_accuracy')),
  'decompress': (
    '',
    (
      'accuracy',
      'nats_per_byte',
      'accuracy_above_control',
      'accuracy_above_control_second_half',
      'accuracy_above_another_text_second_half',
    ),
  ),
}

# The tables in the order of the report; names are those of TABLES in configs/equal_info.py.
MODULES = {
  'ratio': ratio,
  'm2': m2,
  'windows': windows,
  'reset': reset,
  'decompress': decompress,
  'uniformity': uniformity,
  'stability': stability,
}


def check(config: ConfigDict) -> None:
  """Raises InputError for whatever in the config cannot be run, before anything is written."""
  if config.seed < 0:
    raise InputError(f'seed must be 0 or more; got {config.seed}.')
  m1.check(config)
  for table in config.tables:
    MODULES[table].check(config)
  if config.prompt:
    prompt.check(config)


def draw(rows: Sequence[Row], config: ConfigDict, run: runner.Run) -> list[str]:
  """Writes the pictures of the tables that are there, and names them."""
  return plots.save(run.workdir, ratio_plots.draw(rows) | m2_plots.draw(rows))


def plans(config: ConfigDict) -> dict[str, Callable[[], runner.Plan]]:
  """The models of all tables."""
  bytes_read = pipeline.shapes(config.m1.batch_size, config.m1.context)
  return m2.plans(config) | {
    'decompress': lambda: decompress.plan(config),
    'm1': lambda: models.plan(config.m1, m1.make_model(config), bytes_read),
  }


RECIPE = runner.Recipe(
  name='equal_info',
  title='Training LLMs over Neurally Compressed Text',
  tables={table: module.table for table, module in MODULES.items()},
  captions=CAPTIONS,
  summary=SUMMARY,
  check=check,
  plots=draw,
  facts=lambda config: {'scale': config.scale},
  plans=plans,
  answer=prompt.answer,
)

if __name__ == '__main__':
  runner.main(RECIPE)
