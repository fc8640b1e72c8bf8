# SPDX-License-Identifier: Apache-2.0
"""The grid: one small model for each tokenizer, embedding and seed, at equal FLOPs of training.

Embeddings over one tokenizer are compared in pairs, by seed and document. Tokenizers are ranked by
the gain of learned rows over their own unigram (`cells`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments import equal_flops, tokenizer_names
from experiments.equal_flops import BITS, GAIN, Scores
from experiments.matrix import cells, embeddings, tokens
from experiments.matrix.reading import Corpus
from experiments.recipe import Pictures, Run, Table, text_of
from lib import stats
from lib.report import plots
from lib.report.plots import EMBEDDINGS, Picture
from lib.report.results import LOSSY, Row, Rows, name, select
from lib.tokenizers import Tokenizer, documents

USUAL = {'lexinvariant': 'characters', 'glyph': 'unicode'}  # the tokens of an embedding's paper
LEARNED = 'learned'
SPREAD = ('learned', 'glyph', 'random', 'code')  # lexinvariant rows hardly train at this budget
PAIRED = 'seeds×documents'
UNRANKED = f'{LOSSY} not lossless, not ranked'

Cells = Mapping[tuple[str, str], Scores]  # (label of the tokenizer, embedding)


def check(config: ConfigDict) -> None:
  """Raises InputError for unknown cells and invalid sizes."""
  cells.check(config, config.grid, 'grid')
  embeddings.check(config)


def where_of(tokenizer: str, embedding: str) -> dict[str, str]:
  """The coordinates of a cell; `tokenizer` is a label."""
  return {'tokenizer': tokenizer, 'embedding': embedding}


def measure(config: ConfigDict, run: Run) -> list[Row]:
  """Trains all cells, tokenizer by tokenizer; rows of the tables grid, tokenizers and untried."""
  found: dict[tuple[str, str], Scores] = {}
  made: dict[str, Tokenizer] = {}
  chosen: equal_flops.Chosen = {}
  rows, costs, untried = (cells.rows_of(of, made) for of in ('grid', 'tokenizers', 'untried'))
  names = tokenizer_names.labels(config.grid.tokenizers)
  for tokenizer, label in names.items():
    corpus = Corpus(config, run, tokenizer, label, config.grid)
    made[label] = corpus.tokenizer
    add_tokenizer(costs, corpus)
    if not rows:
      equal_flops.add_law(rows, corpus)
    for embedding in config.grid.embeddings:
      where = where_of(label, embedding)
      if scores := cells.measure(config, run, corpus, rows, where, embedding, chosen):
        found[label, embedding] = scores
  add_above_learned(rows, found)
  add_spread(rows, found)
  add_ranks(costs, found)
  add_untried(untried, rows, found, names)
  return [*rows, *costs, *untried]


def add_tokenizer(rows: Rows, corpus: Corpus) -> None:
  """Adds the properties and cost of a tokenizer, which do not depend on the embedding."""
  tokenizer, where = corpus.tokenizer, {'tokenizer': corpus.label}
  lossy = 'not lossless: different texts share tokens, so the bits are too few'
  rows.add(where, 'vocab_size', tokenizer.vocab_size, 'ids', '' if tokenizer.lossless else lossy)
  rows.add(where, 'bytes_per_token', corpus.bytes_per_token, 'bytes/token')
  back = documents.restored(tokenizer, corpus.text['test'].texts)
  note = 'of the bytes of the held-out examples'
  rows.add(where, 'share_restored', back.share_bytes, note=note)
  rows.add(where, 'share_unknown', back.share_unknown)
  rows.add(where, 'share_fallback', back.share_fallback)
  m1 = f'; {corpus.m1_flops / 1e6:.3f} of M1' if corpus.m1_flops else ''
  chunks = '; by a guess of the chunks' * bool(corpus.shares)
  note = f'to read a byte, forward{m1}{chunks}'
  rows.add(where, 'mflops_per_byte', corpus.mflops(corpus.shares), 'MFLOP/byte', note)
  rows.add(where, 'row_tokens', corpus.length, 'tokens')
  corpus.add_costs(rows, where)
  uniform = np.log2(tokenizer.vocab_size) / corpus.bytes_per_token
  rows.add(where, 'uniform_bits_per_byte', uniform, 'bits/byte')


def add_above_learned(rows: Rows, found: Cells) -> None:
  """Adds the difference of each embedding from learned rows over the same tokens."""
  for label in dict.fromkeys(label for label, _ in found):
    bits = {kind: scores.bits for (other, kind), scores in found.items() if other == label}
    if LEARNED in bits:
      note = f'less {name(**where_of(label, LEARNED))}'
      for kind, gap in stats.arms(bits, LEARNED, PAIRED).items():
        rows.add(where_of(label, kind), 'above_learned_bits_per_byte', gap, 'bits/byte', note)


def add_spread(rows: Rows, found: Cells) -> None:
  """Adds the spread of gains between tokenizers and between embeddings, and their difference.

  A tokenizer's gain is the mean over embeddings, an embedding's the mean over tokenizers. Only
  lossless tokenizers with all embeddings of SPREAD count.
  """
  kinds = [kind for kind in SPREAD if any(kind == other for _, other in found)]
  labels = [
    label
    for label in dict.fromkeys(label for label, _ in found)
    if all((label, kind) in found and found[label, kind].lossless for kind in kinds)
  ]
  if min(len(labels), len(kinds)) < 2:
    return
  gains = np.array([[found[label, kind].gain for kind in kinds] for label in labels])
  tokenizers, embeddings = (stats.deviation(gains.mean(axis=axis)) for axis in (1, 0))
  note = f'standard deviation; {len(labels)} tokenizers under {", ".join(kinds)}'
  for what, values in {
    'tokenizers': tokenizers,
    'embeddings': embeddings,
    'tokenizers_less_embeddings': tokenizers - embeddings,
  }.items():
    spread = stats.crossed(values)
    rows.add({'spread': what}, 'gain_spread_bits_per_byte', spread, 'bits/byte', note)


def add_ranks(rows: Rows, found: Cells) -> None:
  """Adds the place of each tokenizer by the gain of learned rows; a tokenizer that is not lossless
  has none.
  """
  gains = {label: scores.gain for (label, kind), scores in found.items() if kind == LEARNED}
  lossless = [label for label in gains if found[label, LEARNED].lossless]
  order = sorted(lossless, key=lambda label: -gains[label].mean())
  for label in gains:
    rank, note = None, 'not lossless'
    if label in order:
      rank = order.index(label) + 1.0
      note = 'by the gain of learned rows over its own unigram; 1 is the largest'
    rows.add({'tokenizer': label}, 'rank_by_gain', rank, 'rank', note)


def add_untried(rows: Rows, grid: Rows, found: Cells, labels: Mapping[str, str]) -> None:
  """Adds the rows of cells that no paper measured, from the models of the grid.

  Args:
    rows: of the table.
    grid: the rows of the grid.
    found: the scores of all cells.
    labels: name of each tokenizer in the config -> its label.
  """
  for embedding, usual in USUAL.items():
    for tokenizer, label in labels.items():
      new = tokens.by_windows(tokenizer) or (embedding == 'glyph' and tokenizer == 'bpe')
      if not new or (label, embedding) not in found:
        continue
      where = where_of(label, embedding)
      for column in (BITS, 'above_learned_bits_per_byte', 'learning_rate'):
        for same in grid:
          if (same.where, same.column) == (where, column):
            rows.add(where, column, same.estimate, same.unit, same.note)
      other, column = name(**where_of(usual, embedding)), 'above_usual_bits_per_byte'
      if (usual, embedding) in found:
        pair = {'own': found[label, embedding].bits, 'usual': found[usual, embedding].bits}
        gap = stats.arms(pair, 'usual', PAIRED)['own']
        rows.add(where, column, gap, 'bits/byte', f'less {other}')
      else:
        rows.add(where, column, None, 'bits/byte', f'{other} was not measured')


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """The grid as heat maps of gains and bits, and its bits against FLOPs a byte."""
  lossy = {row.where['tokenizer'] for row in rows if row.table == 'tokenizers' and row.lossy}
  labels = tokenizer_names.labels(config.grid.tokenizers).values()
  shown = {label: label + LOSSY * (label in lossy) for label in labels}
  embeddings = config.grid.embeddings

  def cell(column: str, label: str, kind: str) -> Row | None:
    found = select(rows, 'grid', column, **where_of(label, kind))
    return next((row for row in found if 'seed' not in row.where), None)

  def value(column: str, label: str, kind: str) -> float | None:
    found = cell(column, label, kind)
    return found.measured if found else None

  heat = []
  for column, title, unit in (
    (GAIN, 'What a model gains over a unigram', 'bits below the unigram'),
    (BITS, 'Every tokenizer under every embedding', 'bits per byte'),
  ):
    values = [[value(column, label, kind) for kind in embeddings] for label in labels]
    names, legend = [EMBEDDINGS[kind] for kind in embeddings], UNRANKED if lossy else ''
    heat.append(plots.heat_map(title, values, [*shown.values()], names, unit, legend))
  points: dict[str, dict[str, tuple[float, Row]]] = {}
  for kind in embeddings:
    for label in labels:
      cost, bits = value('mflops_per_byte', label, kind), cell(BITS, label, kind)
      if cost is not None and bits is not None:
        points.setdefault(EMBEDDINGS[kind], {})[shown[label]] = (cost, bits)
  title = 'Bits and cost of a byte, at equal FLOPs of training'
  x_label = 'MFLOP to read a byte' + f' ({UNRANKED})' * bool(lossy)
  unranked = [shown[label] for label in labels if label in lossy]
  trade = [plots.trade(title, x_label, 'bits per byte', points, unranked)] if points else []
  seen = 'Every tokenizer (lines) under every embedding (columns), at equal FLOPs of training.'
  by_cost = 'Bits per byte against the cost of reading a byte; the dashed line joins the best.'
  return {'matrix.png': Picture(seen, heat), 'pareto.png': Picture(by_cost, trade)}


TABLE = Table(
  'grid',
  measure,
  caption='Bits per byte of held-out text, and the gain over a unigram over the same tokens. '
  'Tokenizers see the same examples of equal bytes, each scored to its last byte, and all '
  'cells have equal FLOPs of training by formula. ± is one standard error over seeds × documents. '
  'Learning rates are chosen by validation text for each embedding over short, long and window '
  'tokens; FLOPs of the choice do not count. '
  'With a hierarchy as decoder, FLOPs are equal by a guess of its chunks; `teraflops_off` is by '
  'how much training missed the budget. '
  'Where the law of the text is known, `law` has its bits and a cell its regret. '
  '`spread` is the standard deviation of gains between tokenizers, or between embeddings that are '
  'trained or frozen. An impossible cell gives the reason.' + cells.ABOUT_NAMES,
  shown=(
    GAIN,
    BITS,
    'regret_bits_per_byte',
    'above_learned_bits_per_byte',
    'learning_rate',
    'teraflops_off',
    'gain_spread_bits_per_byte',
    'law_bits_per_byte',
  ),
  check=check,
  train_specs=cells.train_specs,
  pictures=pictures,
  sources=text_of,
  also={
    'tokenizers': (
      'Properties of the text under each tokenizer, the cost of reading a byte (M1 included), the '
      'training steps at equal FLOPs, and the rank by the gain of learned rows over the unigram of '
      'the same tokens.' + cells.ABOUT_NAMES,
      (
        'vocab_size',
        'bytes_per_token',
        'mflops_per_byte',
        'steps',
        'unigram_bits_per_byte',
        'rank_by_gain',
        'share_restored',
        'share_unknown',
      ),
    ),
    'untried': (
      'Cells that no paper known to us measured: random rows or glyphs for windows of '
      'compressed text, glyphs for subwords; less learned rows over the same tokens, and less the '
      'same embedding over the tokens that its paper used, paired by seed and document. Taken from '
      'the models of the grid.' + cells.ABOUT_NAMES,
      (BITS, 'above_learned_bits_per_byte', 'above_usual_bits_per_byte', 'learning_rate'),
    ),
  },
)
