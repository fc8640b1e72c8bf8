# SPDX-License-Identifier: Apache-2.0
"""Table budget: learned rows over a few tokenizers at many times the FLOPs of the grid.

At the grid's budget a model over BPE begins below where one over bytes ends, so that the order of
tokenizers says more about unigrams than about models.
"""

from ml_collections import ConfigDict

from experiments import runner
from experiments.matrix import cells, models, tokens
from experiments.matrix.corpus import Corpus
from lib import stats
from lib.errors import InputError
from lib.report.results import Row, name

TABLE = 'budget'
CAPTION = (
  'Learned rows at `times` the FLOPs of the grid. ± is one standard error over seeds × documents; '
  'differences from bytes are paired by seed and document.' + cells.ABOUT_NAMES
)
SUMMARY = (
  '',
  (cells.BITS, 'unigram_bits_per_byte', cells.GAIN, 'above_bytes_bits_per_byte', 'steps', 'times'),
)
EMBEDDING, BYTES = 'learned', 'bytes'


def check(config: ConfigDict) -> None:
  """Raises InputError for a table that cannot be."""
  if not config.budget.times > 0:
    raise InputError(f'budget.times must be above 0; got {config.budget.times}.')
  cells.check(config, options_of(config), TABLE)


def options_of(config: ConfigDict) -> ConfigDict:
  """The section grid with what this table changes."""
  changed = config.budget.to_dict()
  changed['teraflops'] = config.grid.teraflops * changed.pop('times')
  return ConfigDict(config.grid.to_dict() | changed)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Trains and scores all models, and compares them with those over bytes."""
  options = options_of(config)
  rows: list[Row] = []
  bits, made = {}, {}
  for tokenizer, label in tokens.labels(options.tokenizers).items():
    corpus = Corpus(config, run, tokenizer, label, options)
    made[label], row = corpus.tokenizer, name(tokenizer=label)
    found, scores = cells.measure(config, run, corpus, TABLE, row, EMBEDDING)
    assert scores is not None, 'any tokenizer has learned rows'
    bits[label] = scores.bits
    size = cells.parameters(models.make(config, corpus.tokenizer, EMBEDDING), corpus)
    rows += found + corpus.costs(TABLE, row, size)
    rows.append(Row(TABLE, row, 'times', config.budget.times, unit='× the FLOPs of the grid'))
  if BYTES in bits:
    for label, gap in stats.arms(bits, BYTES, 'seeds×documents').items():
      rows.append(Row.of(TABLE, name(tokenizer=label), 'above_bytes_bits_per_byte', gap,
                         unit='bits/byte', note='less bytes, paired'))  # fmt: skip
  return cells.marked(rows, made)
