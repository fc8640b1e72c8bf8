# SPDX-License-Identifier: Apache-2.0
"""A cell of the grid: models of several seeds for a tokenizer and an embedding, and their scores.

All cells score the same held-out documents. After little training a model is close to a unigram
over its tokens, and unigrams of different tokenizers differ. So a cell has its bits and its gain:
the bits that its models save over a unigram over the same tokens.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments import fit
from experiments.matrix import embeddings, reading, tokens
from experiments.matrix.reading import Corpus
from experiments.recipe import Run
from lib import stats
from lib.errors import InputError
from lib.report.results import LOSSY, Rows, name
from lib.tokenizers.base import Tokenizer

BITS, GAIN = 'bits_per_byte', 'gain_over_unigram_bits_per_byte'
ABOUT_NAMES = (
  ' `bpe` (rule `words`), `sentencepiece` and `wordpiece` stay within words; `lzw` does not. '
  f'Tokenizers that are not lossless ({LOSSY}) are not ranked.'
)


class Scores(NamedTuple):
  """Scores of S models of a cell on the same D held-out documents (`lib.stats.contributions`).

  Attributes:
    bits: float64 [S, D], contributions to bits per byte.
    gain: float64 [S, D], to the bits per byte below a unigram over the same tokens.
    lossless: whether the tokenizer is lossless.
  """

  bits: np.ndarray
  gain: np.ndarray
  lossless: bool = True


Chosen = dict[tuple[str, str], tuple[float, str]]  # (family, embedding) -> rate, and where chosen


def check(config: ConfigDict, options: ConfigDict, where: str) -> None:
  """Raises InputError for a section of the config, called `where`, that cannot be run."""
  fit.check(ConfigDict(options.to_dict() | {'steps': 1}), where)
  tokens.check(config, f'{where}.tokenizers', options.tokenizers)
  reading.check(config, options)


def rows_of(table: str, made: Mapping[str, Tokenizer]) -> Rows:
  """Rows that are lossy where the tokenizer of their label is, which `made` comes to have."""
  lossless = lambda label: label not in made or made[label].lossless
  return Rows(table, lambda where: not lossless(where.get('tokenizer', '')))


def run_name(table: str, corpus: Corpus, embedding: str) -> str:
  """The name of a cell's checkpoints and metrics in the workdir.

  It includes the tokenizer's fingerprint, so another tokenizer never resumes its checkpoints.
  """
  cell = name(tokenizer=corpus.label, embedding=embedding)
  return f'{table}/{cell},tokens={corpus.tokenizer.fingerprint[:12]}'


def measure(
  config: ConfigDict,
  run: Run,
  corpus: Corpus,
  rows: Rows,
  where: Mapping[str, Any],
  embedding: str,
  chosen: Chosen,
) -> Scores | None:
  """Trains and scores the models of a cell, or adds a row with the reason why that is impossible.

  Args:
    config: of the recipe.
    run: its workdir has the checkpoints.
    corpus: the text in the tokens of the cell.
    rows: of a table, to which those of the cell are added.
    where: their coordinates.
    embedding: of the cell.
    chosen: learning rates of the cells so far, chosen by validation text, FLOPs of which do not
      count; that of a new kind of cell is added.
  """
  try:
    model = embeddings.make(config, corpus.tokenizer, embedding)
  except InputError as error:
    rows.add(where, BITS, None, 'bits/byte', f'impossible: {error}')
    return None
  kind = corpus.family, embedding
  by_tokens = {'length': corpus.length, 'batch_size': corpus.batch_size}
  options = ConfigDict(
    corpus.options.to_dict() | by_tokens | {'steps': corpus.steps, 'evaluate_every': corpus.steps}
  )
  if kind in chosen:
    options.rates = (chosen[kind][0],)
  fitted = fit.fit(
    config,
    run,
    options,
    run_name(rows.table, corpus, embedding),
    model,
    corpus.batches,
    evaluations={'validation': corpus.validated},
    tokenizer=corpus.tokenizer,
  )
  rate, over = chosen.setdefault(kind, (fitted[0].rate, corpus.label))
  ids = [ids for ids, _ in corpus.test]
  score = lambda one: [nats.sum() for nats in one.model.id_loss(ids)]
  nats = np.stack([corpus.by_document(score(one)) for one in fitted])
  bits_of = lambda nats: stats.contributions(nats / np.log(2), corpus.test_bytes)
  scores = Scores(bits_of(nats), bits_of(corpus.unigram - nats), corpus.tokenizer.lossless)
  about = (
    f'{int(corpus.test_bytes.sum()):,} bytes of {corpus.test_bytes.size} held-out documents, in '
    f'examples of {options.example_bytes}'
  )
  rows.add(where, BITS, stats.crossed(scores.bits), 'bits/byte', about)
  about = 'the unigram less the model, over the same tokens'
  rows.add(where, GAIN, stats.crossed(scores.gain), 'bits/byte', about)
  fit.add_rate(rows, where, corpus.options, rate, over)
  rows.add(where, 'bytes_per_token', corpus.bytes_per_token, 'bytes/token')
  rows.add(where, 'mflops_per_byte', corpus.mflops, 'MFLOP/byte')
  speed = float(np.median([*fitted[0].curve('tokens_per_second').values()]))
  about = f'in training, {min(options.side_by_side, options.seeds)} seeds together'
  rows.add(where, 'tokens_per_second', speed, 'tokens/s', about)
  if corpus.law is not None:
    regret = stats.crossed(bits_of(nats - corpus.law))
    about = 'less the law of the text, paired'
    rows.add(where, 'regret_bits_per_byte', regret, 'bits/byte', about)
  for seed, bits in enumerate(scores.bits, start=config.seed):
    one = stats.mean(bits, over='documents')
    rows.add({**where, 'seed': seed}, BITS, one, 'bits/byte')
  return scores


def add_law(rows: Rows, corpus: Corpus) -> None:
  """Adds the bits of the law that wrote the text, below which no model comes on average."""
  if corpus.law is not None:
    found = stats.ratio(corpus.law, corpus.test_bytes).times(1 / np.log(2))
    about = 'the n-gram law that wrote the text: the floor of all cells'
    rows.add({'model': 'law'}, 'law_bits_per_byte', found, 'bits/byte', about)
