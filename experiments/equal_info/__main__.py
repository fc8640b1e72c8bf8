# SPDX-License-Identifier: Apache-2.0
"""Training LLMs over Neurally Compressed Text: the recipe.

python -m experiments.equal_info --config=configs/equal_info.py:cpu --workdir=runs/equal_info
"""

from collections.abc import Callable, Mapping, Sequence

from ml_collections import ConfigDict

from experiments import coders, runner
from experiments.equal_info import (
  decompress,
  m2,
  m2_plots,
  prompt,
  ratio,
  ratio_plots,
  reset,
  stability,
  uniformity,
  windows,
)
from lib.errors import InputError
from lib.report import plots
from lib.report.results import Row, mark_lossy

CAPTIONS = {
  'ratio': 'Bytes of held-out text per token, and bits per byte of the tokens at log2 of the '
  'vocabulary for each. Greedy windows are not lossless: several texts share a code, and '
  'windows_restored says how many windows come back. ± is one standard error over documents.',
  'reset': 'Greedy windows of 16 bits under an M1 that is reset at every window, at every other, '
  'or never. With fewer resets more bytes fit into a token, and single tokens are nearer to random '
  'bytes. ± is one standard error over documents.',
  'uniformity': 'KL divergence of strings of n bits of the token stream from uniform ones, in '
  'bits, counted at every bit (ngrams) or every n-th (tokens): by counts alone, with the '
  'correction of Miller and Madow, and above as many random bytes. ± is one standard error over '
  'documents (jackknife).',
  'stability': 'How many tokens of a text change when the word before it does (Levenshtein '
  'distance over pairs of words), and how many different stretches of text one token covers; '
  'attested.txt lists the texts of frequent tokens. ± is one standard error over texts, each of '
  'another document.',
  'm2': 'Language models over tokens, trained on equally many tokens (rows with budget=text: on '
  'equally many bytes) and scored on the same held-out text, in bits per byte. window_unigram is '
  'a unigram over whole windows, which reads nothing before a window: only a model below it has '
  'learned from context. Greedy windows are not lossless, so their bits are too few. ± is one '
  'standard error over seeds and documents; all rows rest on one M1. Differences are paired by '
  'seed and document. Their variance over seeds is pooled over the tokenizers that can be learned; '
  'AC, StaticAC and GZip, which hardly vary by seed, are compared by their own differences alone.',
  'windows': 'What M2 learns of equal-info windows of b bits, and which token of a window it '
  'learns first. gap is log2 V less the bits per token; the gain over a unigram of whole windows '
  'shows how much of it comes from context. ± is one standard error over seeds and documents.',
  'decompress': 'A decoder reads the tokens of a text and then writes its bytes: the share of '
  'bytes that it predicts, and that share above the same model without tokens (method=none), so '
  'guessing is taken out. M1 has no context at the beginning of an AC stream, so its first '
  'tokens are an equal-info window; the second half of a text shows what is read beyond them. '
  'Tokens of another text are a second control: they carry no information on the text. ± is one '
  'standard error over seeds and documents.',
}

SUMMARY = {
  'ratio': (
    '',
    (
      'bytes_per_token',
      'bits_per_byte',
      'documents_restored',
      'windows_restored',
      'excess',
      'holds',
    ),
  ),
  'reset': ('', ('bytes_per_token', 'excess_kl_bits')),
  'uniformity': ('kind=tokens,n=8$', ('kl_bits_corrected', 'kl_bits_random', 'excess_kl_bits')),
  'stability': ('', ('edit_distance', 'changed_share', 'repeated_share', 'texts_per_token')),
  'm2': (
    '',
    (
      'bits_per_byte',
      'unigram_bits_per_byte',
      'uniform_bits_per_byte',
      'bits_below_window_unigram',
      'windows_restored',
      'bytes_per_step',
      'mflops_per_byte',
      'nats_below_ln_v',
    ),
  ),
  'windows': (
    '',
    ('gap_bits_per_token', 'bits_below_window_unigram', 'learned_at_step', 'trivial_accuracy'),
  ),
  'decompress': (
    '',
    (
      'accuracy',
      'chance',
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
  coders.check_m1(config)
  for table in config.tables:
    MODULES[table].check(config)
  if config.prompt:
    prompt.check(config)


def draw(rows: Sequence[Row], config: ConfigDict, run: runner.Run) -> list[str]:
  """Writes the pictures of the tables that are there, and names them."""
  return plots.save(run.workdir, ratio_plots.draw(rows) | m2_plots.draw(rows))


def lossy(parts: Mapping[str, str]) -> bool:
  """Whether a row is about greedy windows, as all of the table reset are."""
  greedy = 'method' in parts and not coders.Method(parts['method'], None).lossless
  return greedy or parts.get('mode') == 'greedy' or 'reset' in parts


def marked(table: Callable) -> Callable:
  """The table with the mark of lossy tokenizers in its rows."""
  return lambda config, run: mark_lossy(table(config, run), lossy)


def plans(config: ConfigDict) -> dict[str, Callable[[], runner.Plan]]:
  """The models of all tables."""
  return m2.plans(config) | {
    'decompress': lambda: decompress.plan(config),
    'm1': lambda: coders.m1_plan(config),
  }


RECIPE = runner.of_maps(
  name='equal_info',
  title='Training LLMs over Neurally Compressed Text',
  tables={table: marked(module.table) for table, module in MODULES.items()},
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
