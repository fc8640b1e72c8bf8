# SPDX-License-Identifier: Apache-2.0
"""The grid: one small model for each tokenizer, embedding and seed, at equal FLOPs of training.

Embeddings over one tokenizer are compared in pairs, by seed and document. Tokenizers are ranked by
the gain of learned rows over their own unigram (`cells`).
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.matrix import cells, models, tokens
from experiments.matrix.cells import BITS, GAIN, Scores, row_of
from experiments.matrix.corpus import Corpus
from lib import stats
from lib.errors import InputError
from lib.report.results import Row, name
from lib.tokenizers import documents

GRID, TOKENIZERS, UNTRIED = 'grid', 'tokenizers', 'untried'
CAPTIONS = {
  GRID: 'Bits per byte of held-out text, and the gain over a unigram over the same tokens. '
  'Tokenizers meet the same examples of equally many bytes, each scored to its last byte, and all '
  'cells have equal FLOPs of training by formula. ± is one standard error over seeds × documents. '
  '`spread` is the standard deviation of gains between tokenizers, or between embeddings that are '
  'trained or frozen. A cell that cannot be says why.' + cells.ABOUT_NAMES,
  TOKENIZERS: 'What each tokenizer makes of the text, what a byte costs to read, M1 included, the '
  'steps that equal FLOPs leave it, and its rank by the gain of learned rows over its own unigram.'
  + cells.ABOUT_NAMES,
  UNTRIED: 'Cells that no paper known to us measured: random rows or glyphs for windows of '
  'compressed text, glyphs for subwords; less learned rows over the same tokens, and less the same '
  'embedding over the tokens that its paper used, paired by seed and document. Taken from the '
  'models of the grid.' + cells.ABOUT_NAMES,
}
SUMMARY = {
  GRID: ('', (GAIN, BITS, 'above_learned_bits_per_byte', 'gain_spread_bits_per_byte')),
  TOKENIZERS: (
    '',
    ('vocab_size', 'bytes_per_token', 'mflops_per_byte', 'steps', 'unigram_bits_per_byte',
     'rank_by_gain', 'share_restored', 'share_unknown'),
  ),
  UNTRIED: ('', (BITS, 'above_learned_bits_per_byte', 'above_usual_bits_per_byte')),
}  # fmt: skip
USUAL = {'lexinvariant': 'characters', 'glyph': 'unicode'}  # the tokens of an embedding's paper
LEARNED = 'learned'
SPREAD = ('learned', 'glyph', 'random', 'code')  # lexinvariant rows hardly train at this budget
PAIRED = 'seeds×documents'

Cells = Mapping[tuple[str, str], Scores]  # (label of the tokenizer, embedding)


def check(config: ConfigDict) -> None:
  """Raises InputError for cells that are none, and sizes that cannot be."""
  if not config.grid.embeddings:
    raise InputError('grid.embeddings must name at least one.')
  cells.check(config, config.grid, GRID)
  models.check(config)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Trains all cells, tokenizer by tokenizer; rows of the tables grid, tokenizers and untried."""
  rows: list[Row] = []
  found: dict[tuple[str, str], Scores] = {}
  made = {}
  names = tokens.labels(config.grid.tokenizers)
  for tokenizer, label in names.items():
    corpus = Corpus(config, run, tokenizer, label, config.grid)
    made[label] = corpus.tokenizer
    rows += _tokenizer(config, corpus)
    for embedding in config.grid.embeddings:
      row = row_of(label, embedding)
      more, scores = cells.measure(config, run, corpus, GRID, row, embedding)
      rows += more
      if scores:
        found[label, embedding] = scores
  apart = above_learned(found)
  rows += [*apart, *spread(found), *ranks(found), *untried(found, rows + apart, names)]
  return cells.marked(rows, made)


def _tokenizer(config: ConfigDict, corpus: Corpus) -> list[Row]:
  """What a tokenizer is and costs, whatever the embedding."""
  tokenizer, row = corpus.tokenizer, name(tokenizer=corpus.label)
  size = cells.parameters(models.make(config, tokenizer, 'random'), corpus)
  put = lambda column, value, unit='', note='': Row(
    TOKENIZERS, row, column, value, unit=unit, note=note
  )
  lossy = '' if tokenizer.lossless else (
    'not lossless: texts that share tokens are not told apart, and bits understate'
  )  # fmt: skip
  m1 = f'; {corpus.m1_flops / 1e6:.3f} of M1' if corpus.m1_flops else ''
  back = documents.restored(tokenizer, corpus.test_examples)
  return [
    put('vocab_size', tokenizer.vocab_size, 'ids', lossy),
    put('bytes_per_token', corpus.bytes_per_token, 'bytes/token'),
    put('share_restored', back.share_bytes, note='of the bytes of the held-out examples'),
    put('share_unknown', back.share_unknown),
    put('share_fallback', back.share_fallback),
    put('mflops_per_byte', corpus.mflops(size), 'MFLOP/byte', 'to read a byte, forward' + m1),
    put('row_tokens', corpus.length, 'tokens'),
    *corpus.costs(TOKENIZERS, row, size),
    put('uniform_bits_per_byte', np.log2(tokenizer.vocab_size) / corpus.bytes_per_token,
        'bits/byte'),
  ]  # fmt: skip


def above_learned(found: Cells) -> list[Row]:
  """How far each embedding is above learned rows over the same tokens."""
  rows = []
  for label in dict.fromkeys(label for label, _ in found):
    bits = {kind: scores.bits for (other, kind), scores in found.items() if other == label}
    if LEARNED in bits:
      for kind, gap in stats.arms(bits, LEARNED, PAIRED).items():
        rows.append(Row.of(GRID, row_of(label, kind), 'above_learned_bits_per_byte', gap,
                           unit='bits/byte', note=f'less {row_of(label, LEARNED)}'))  # fmt: skip
  return rows


def spread(found: Cells) -> list[Row]:
  """How much gains differ between tokenizers, and between embeddings, and the difference of both.

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
    return []
  gains = np.array([[found[label, kind].gain for kind in kinds] for label in labels])
  parts = {
    'tokenizers': deviation(gains.mean(axis=1)),
    'embeddings': deviation(gains.mean(axis=0)),
  }
  parts['tokenizers_less_embeddings'] = parts['tokenizers'] - parts['embeddings']
  note = f'standard deviation; {len(labels)} tokenizers under {", ".join(kinds)}'
  return [
    Row.of(GRID, name(spread=what), 'gain_spread_bits_per_byte', stats.crossed(values),
           unit='bits/byte', note=note)
    for what, values in parts.items()
  ]  # fmt: skip


def deviation(arms: np.ndarray) -> np.ndarray:
  """Contributions [S, D] to the standard deviation between the means of arms [A, S, D].

  The standard deviation is Σ wᵢ mᵢ with wᵢ = (mᵢ − m) / √((A − 1) Σ (mⱼ − m)²), and to first order
  that is how it changes with the means. So its contributions are those of this sum.
  """
  means = arms.mean(axis=(1, 2))
  off = means - means.mean()
  return np.tensordot(off / np.sqrt((len(off) - 1) * (off**2).sum()), arms, 1)


def ranks(found: Cells) -> list[Row]:
  """The place of each tokenizer by the gain of learned rows; what is not lossless has none."""
  gains = {label: scores.gain for (label, kind), scores in found.items() if kind == LEARNED}
  lossless = [label for label in gains if found[label, LEARNED].lossless]
  order = sorted(lossless, key=lambda label: -gains[label].mean())
  note = 'by the gain of learned rows over its own unigram; 1 is the largest'
  return [
    Row(TOKENIZERS, name(tokenizer=label), 'rank_by_gain', order.index(label) + 1.0, note=note)
    if label in order
    else Row(TOKENIZERS, name(tokenizer=label), 'rank_by_gain', None, note='not lossless')
    for label in gains
  ]


def untried(found: Cells, rows: list[Row], labels: Mapping[str, str]) -> list[Row]:
  """The rows of cells that no paper measured, from the models of the grid.

  Args:
    found: the scores of all cells.
    rows: of the grid.
    labels: name of each tokenizer in the config -> its label.
  """
  there = {(row.row, row.column): row for row in rows if row.table == GRID}
  new_rows = []
  for embedding, usual in USUAL.items():
    for tokenizer, label in labels.items():
      new = tokens.by_windows(tokenizer) or (embedding == 'glyph' and tokenizer == 'bpe')
      if not new or (label, embedding) not in found:
        continue
      row, own = row_of(label, embedding), found[label, embedding]
      for column in (BITS, 'above_learned_bits_per_byte'):
        if same := there.get((row, column)):
          new_rows.append(dataclasses.replace(same, table=UNTRIED))
      column, other = 'above_usual_bits_per_byte', row_of(usual, embedding)
      if (usual, embedding) not in found:
        new_rows.append(Row(UNTRIED, row, column, None, unit='bits/byte',
                            note=f'{other} was not measured'))  # fmt: skip
        continue
      pair = {'own': own.bits, 'usual': found[usual, embedding].bits}
      gap = stats.arms(pair, 'usual', PAIRED)['own']
      new_rows.append(Row.of(UNTRIED, row, column, gap, unit='bits/byte', note=f'less {other}'))
  return new_rows
