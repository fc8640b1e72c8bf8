# SPDX-License-Identifier: Apache-2.0
"""Toward a Theory of Tokenization in LLMs: the recipe.

python -m experiments.markov --config=configs/markov.py:cpu --workdir=runs/markov
"""

from ml_collections import ConfigDict

from experiments import runner
from experiments.markov import dictionaries, plots, real_text, transformer
from lib.errors import InputError

CAPTIONS = {
  'ngram': 'Character models with m characters of context on order-k sources: ln 2 until m = k, '
  'the entropy rate from there.',
  'blocks': 'The toy tokenizer: the best unigram over blocks of r characters.',
  'token_ngram': 'Models over tokens, mean ± one standard error over seeds (each with its own '
  'dictionary and streams). `exact_unigram` is computed, not sampled.',
  'bound': 'LZW dictionaries against the main theorem (its constant recalled, not read). The loss '
  'of a dictionary is computed exactly; ± is one standard error over dictionaries.',
  'transformer': 'The same small transformer on characters and on BPE tokens, at equal characters '
  'of context and equal characters seen; loss on fresh documents, mean ± one standard error over '
  'seeds. Differences are paired by seed. '
  'The last token of a document may end past the context; its characters count.',
  'generalization': 'A dictionary that memorises its training text; BPE learned at p = q = '
  '`learned_at` and used on this source.',
  'real_text': 'Unigrams over tokens of real text, and m-grams over bytes (order 0 is the '
  'dictionary of 256). `bpe` is BPE within words (by SentencePiece), as `unigram` and `wordpiece` '
  'are. ± is one standard error over documents; differences are paired by document.',
}

SUMMARY = {
  'ngram': ('', ('nats_per_char', 'closed_form_nats_per_char')),
  'blocks': ('', ('nats_per_char', 'closed_form_nats_per_char')),
  'token_ngram': (
    '=bpe,encoder=merges|lzw,encoder=greedy|texts=',
    ('unigram_nats_per_char', 'exact_unigram_nats_per_char', 'bigram_nats_per_char',
     'entropy_rate_nats_per_char'),
  ),
  'bound': ('', ('lzw_nats_per_char', 'toy_nats_per_char', 'bound_nats_per_char', 'holds')),
  'transformer': (
    '',
    ('nats_per_char', 'entropy_rate_nats_per_char', 'steps_to_within_0.02', 'nats_per_char_at_200'),
  ),
  'generalization': ('', ('tokens', 'nats_per_char', 'exact_nats_per_char')),
  'real_text': (
    '', ('bits_per_byte', 'above_smaller_bits_per_byte', 'above_byte_bigram_bits_per_byte',
         'bytes_per_token'),
  ),
}  # fmt: skip


def check(config: ConfigDict) -> None:
  """Raises InputError for whatever in the config cannot be run, before anything is written."""
  if config.seed < 0 or not config.orders or not 1 <= min(config.orders) <= max(config.orders) < 64:
    raise InputError(
      f'seed must be 0 or more and orders between 1 and 63; got {config.seed}, {config.orders}.'
    )
  dictionaries.check(config)
  if 'transformer' in config.tables:
    transformer.check(config)
  if 'real_text' in config.tables:
    real_text.check(config)


RECIPE = runner.of_maps(
  name='markov',
  title='Toward a Theory of Tokenization in LLMs',
  tables={
    'ngram': dictionaries.ngram_table,
    'blocks': dictionaries.blocks_table,
    'token_ngram': dictionaries.token_ngram_table,
    'bound': dictionaries.bound_table,
    'transformer': transformer.table,
    'generalization': dictionaries.generalization_table,
    'real_text': real_text.table,
  },
  captions=CAPTIONS,
  summary=SUMMARY,
  check=check,
  plots=plots.draw,
  plans=transformer.plans,
  facts=lambda config: {'p': config.source.p, 'q': config.source.q, 'kind': config.source.kind},
  sources=lambda config: (config.data.source,) if 'real_text' in config.tables else (),
  large_steps=False,
)

if __name__ == '__main__':
  runner.main(RECIPE)
