# SPDX-License-Identifier: Apache-2.0
"""Table budget: learned rows over a few tokenizers at many times the FLOPs of the grid.

At the grid's budget a model over BPE starts below the final loss of one over bytes, so the order of
tokenizers reflects unigrams more than models.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from experiments import equal_flops, tokenizer_names
from experiments.equal_flops import BITS, GAIN
from experiments.matrix import cells
from experiments.matrix.reading import Corpus
from experiments.recipe import Pictures, Run, Table, text_of
from lib import stats
from lib.report import plots
from lib.report.plots import Picture
from lib.report.results import Row, Rows, select
from lib.tokenizers import Tokenizer

BYTES = 'bytes'


def check(config: ConfigDict) -> None:
  """Raises InputError for an invalid table."""
  cells.check(config, options_of(config), 'budget')


def options_of(config: ConfigDict) -> ConfigDict:
  """The section grid with this table's changes."""
  changed = config.budget.to_dict()
  changed['teraflops'] = config.grid.teraflops * changed.pop('times')
  return ConfigDict(config.grid.to_dict() | changed)


def measure(config: ConfigDict, run: Run) -> Rows:
  """Trains and scores all models, and compares them with those over bytes."""
  options, bits = options_of(config), {}
  made: dict[str, Tokenizer] = {}
  rows = cells.rows_of('budget', made)
  for tokenizer, label in tokenizer_names.labels(options.tokenizers).items():
    corpus, where = Corpus(config, run, tokenizer, label, options), {'tokenizer': label}
    made[label] = corpus.tokenizer
    if not rows:
      equal_flops.add_law(rows, corpus)
    scores = cells.measure(config, run, corpus, rows, where, 'learned', chosen={})
    assert scores is not None, 'any tokenizer has learned rows'
    bits[label] = scores.bits
    corpus.add_costs(rows, where)
    rows.add(where, 'times', config.budget.times, '× the FLOPs of the grid')
  if BYTES in bits:
    for label, gap in stats.arms(bits, BYTES, 'seeds×documents').items():
      column, note = 'above_bytes_bits_per_byte', 'less bytes, paired'
      rows.add({'tokenizer': label}, column, gap, 'bits/byte', note)
  return rows


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Bits per byte of the unigram and of the models, with errors."""
  labels = {
    'unigram_bits_per_byte': 'unigram over its tokens',
    BITS: 'model, trained rows',
  }
  groups = [row.where['tokenizer'] for row in select(rows, 'budget', 'times')]
  found = {
    label: [select(rows, 'budget', column, tokenizer=one)[0] for one in groups]
    for column, label in labels.items()
  }
  title = f'At {config.budget.times:g} times the FLOPs of the grid'
  caption = (
    'A model with trained rows, and a unigram over the same tokens. Bars: one standard error over '
    'seeds and documents.'
  )
  panel = plots.row_bars(title, 'bits per byte', groups, found, {})
  return {'budget.png': Picture(caption, [panel])}


TABLE = Table(
  'budget',
  measure,
  caption='Learned rows at `times` the FLOPs of the grid, each at its own learning rate. ± is '
  'one standard error over seeds × documents; differences from bytes are paired by seed and '
  'document.' + cells.ABOUT_NAMES,
  shown=(
    BITS,
    'unigram_bits_per_byte',
    GAIN,
    'above_bytes_bits_per_byte',
    'regret_bits_per_byte',
    'law_bits_per_byte',
    'learning_rate',
    'teraflops_off',
    'steps',
    'times',
  ),
  check=check,
  train_specs=cells.train_specs,
  pictures=pictures,
  sources=text_of,
)
