# SPDX-License-Identifier: Apache-2.0
"""A cell of the grid: models of several seeds for a tokenizer and an embedding."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from experiments import coders, decoders, equal_flops, fit
from experiments.equal_flops import BITS, Chosen, Scores
from experiments.matrix import embeddings, tokens
from experiments.matrix.reading import Corpus
from experiments.recipe import Run, TrainSpecs
from lib.errors import InputError
from lib.report.results import LOSSY, Rows
from lib.tokenizers.base import Tokenizer

ABOUT_NAMES = (
  ' `bpe` (rule `words`), `sentencepiece` and `wordpiece` stay within words; `lzw` does not. '
  f'Tokenizers that are not lossless ({LOSSY}) are not ranked.'
)


def check(config: ConfigDict, options: ConfigDict, where: str) -> None:
  """Raises InputError for a section of the config, called `where`, that cannot be run."""
  tokens.check(config, f'{where}.tokenizers', options.tokenizers)
  if options.decoder == 'hierarchy':
    decoders.check_room('hierarchy', config.hierarchy.room, config.hierarchy.chunk)
  decoder = decoders.make(config, options)
  equal_flops.check(config, options, where, config.tokenizers.vocab_size, decoder=decoder)


def train_specs(config: ConfigDict) -> TrainSpecs:
  """The largest model, with learned rows, as known before any text is encoded."""
  options = config.grid
  length = max(8, options.example_bytes // equal_flops.BYTES_A_TOKEN)
  sizes = {'length': length, 'steps': 1, 'evaluate_every': 1}
  section = ConfigDict(
    options.to_dict() | sizes | {'batch_size': equal_flops.rows(options, options.example_bytes)}
  )
  vocab_size = config.tokenizers.vocab_size
  make = lambda: fit.train_spec(section, embeddings.learned(config, vocab_size))
  return {'grid': make} | coders.m1_specs(config)


def rows_of(table: str, made: Mapping[str, Tokenizer]) -> Rows:
  """Rows that are marked as lossy if the tokenizer of their label, found in `made`, is lossy."""
  lossless = lambda label: label not in made or made[label].lossless
  return Rows(table, lambda where: not lossless(where.get('tokenizer', '')))


def measure(
  config: ConfigDict,
  run: Run,
  corpus: Corpus,
  rows: Rows,
  where: Mapping[str, Any],
  embedding: str,
  chosen: Chosen,
) -> Scores | None:
  """As `equal_flops.measure`, or a row with the reason why a cell is impossible."""
  try:
    model = embeddings.make(config, corpus.tokenizer, embedding)
  except InputError as error:
    rows.add(where, BITS, None, 'bits/byte', f'impossible: {error}')
    return None
  return equal_flops.measure(config, run, corpus, rows, where, model, embedding, chosen)
