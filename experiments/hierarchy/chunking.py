# SPDX-License-Identifier: Apache-2.0
"""Table `chunking`: hierarchies and their rivals at equal FLOPs and equal bytes of context."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import decoders, fit
from experiments.hierarchy import arms
from experiments.hierarchy.arms import Arm, Trained
from experiments.hierarchy.cuts import Cuts
from experiments.recipe import Pictures, Run, Table, text_of
from lib import stats
from lib.evals.ngram import NGram
from lib.models.hierarchy import Hierarchy
from lib.report import plots
from lib.report.plots import Picture
from lib.report.results import Row, Rows, select

REFERENCES = ('byte_transformer', 'byte_recurrent', 'spaces', 'bpe_ends', 'bpe', 'two_stages')
BITS, DIFFERENCE = 'bits_per_byte', 'difference_bits_per_byte'
ORDERS = (0, 1, 2, 3, 4)  # bytes of context of counting models


def measure(config: ConfigDict, run: Run) -> Rows:
  """The models of all arms: their bits, chunks, costs and cuts."""
  rows = Rows('chunking')
  bits: dict[Arm, np.ndarray] = {}
  chosen = arms.Chosen()
  for arm in arms.every(config, config.chunking.arms):
    trained = arms.train(config, run, arm, chosen)
    bits[arm] = add_arm(config, rows, trained)
  add_differences(rows, bits, REFERENCES)
  add_counting(config, run, rows)
  return rows


def add_counting(config: ConfigDict, run: Run, rows: Rows) -> None:
  """Adds m-gram models of bytes, counted on as much text as the arm that reads most."""
  corpus = arms.examples(config, run, arms.tokenizer_of(config, run, Arm('byte_recurrent')))
  read = [row.measured for row in select(rows, 'chunking', 'training_bytes')]
  most = int(min(corpus.train_bytes, max(one for one in read if one is not None)))
  ids = [ids for ids, _ in corpus.test]
  for order in ORDERS:
    counts = NGram(corpus.train.tokens[0][:most], order, corpus.tokenizer.vocab_size)
    nats = corpus.by_document(counts.by_document(ids))
    found = stats.ratio(nats, corpus.test_bytes).times(1 / np.log(2))
    where = {'arm': 'counting', 'order': order}
    rows.add(where, BITS, found, 'bits/byte', f'counted on {most:,} bytes')


def scores(trained: Trained) -> np.ndarray:
  """Contributions [S, D] of seeds and documents to the bits per byte of an arm."""
  corpus = trained.corpus
  ids = [ids for ids, _ in corpus.test]
  of = lambda one: corpus.by_document([nats.sum() for nats in one.model.id_loss(ids)])
  nats = np.stack([of(one) for one in trained.fitted])
  return stats.contributions(nats / np.log(2), corpus.test_bytes)


def add_arm(config: ConfigDict, rows: Rows, trained: Trained) -> np.ndarray:
  """Adds the rows of an arm; its contributions [S, D] to bits per byte."""
  corpus, where = trained.corpus, trained.arm.where
  bits = scores(trained)
  about = (
    f'{int(corpus.test_bytes.sum()):,} bytes of {corpus.test_bytes.size} held-out documents, in '
    f'examples of {config.training.example_bytes}'
  )
  rows.add(where, BITS, stats.crossed(bits), 'bits/byte', about)
  for seed, one in enumerate(bits, start=config.seed):
    rows.add({**where, 'seed': seed}, BITS, stats.mean(one, over='documents'), 'bits/byte')
  fit.add_rate(rows, where, config.training, trained.fitted[0].rate)
  tokens = corpus.test.counts.sum() / corpus.test_bytes.sum()
  module = trained.fitted[0].model.module
  length = float(corpus.test.counts.mean())
  if isinstance(module.decoder, Hierarchy):
    cuts = trained.cuts()
    add_cuts(rows, where, corpus.text['test'].texts, cuts)
    cost = (
      decoders.flops(module, length, np.mean([one.kept for one in cuts], axis=0).tolist()) / 1e6
    )
    note = 'to read a byte, forward; by the chunks that there are, on average over seeds'
    rows.add(where, 'mflop_per_byte', cost, 'MFLOP/byte', note)
    note = 'with all the room for chunks, used or not'
    rows.add(
      where, 'padded_mflop_per_byte', decoders.flops(module, length) / 1e6, 'MFLOP/byte', note
    )
  else:
    cost = decoders.flops(module, length) * tokens / 1e6
    rows.add(where, 'chunks_per_byte', float(tokens), 'chunks/byte', 'tokens')
    rows.add(where, 'mflop_per_byte', cost, 'MFLOP/byte', 'to read a byte, forward')
  rows.add(where, 'parameters', float(trained.fitted[0].model.parameters), 'numbers')
  steps = trained.fitted[0].history[-1]['step']
  read = steps * corpus.step_bytes
  note = f'{read / corpus.train_bytes:.2g} times {corpus.train_bytes:,} bytes of text'
  rows.add(where, 'training_bytes', read, 'bytes', note)
  note = 'of one seed; of those that chunks needed' + ', and of the router' * (
    trained.arm.name == 'entropy'
  )
  rows.add(where, 'training_teraflops', trained.teraflops, 'TFLOP', note)
  off = trained.teraflops / config.training.teraflops - 1
  rows.add(where, 'teraflops_off', off, 'share', 'of training.teraflops')
  return bits


def add_cuts(
  rows: Rows, where: Mapping[str, Any], texts: Sequence[bytes], cuts: Sequence[Cuts]
) -> None:
  """Adds how often texts are cut, and whether at words."""
  per_seed = lambda of: stats.mean([of(one) for one in cuts])
  rows.add(where, 'chunks_per_byte', per_seed(lambda one: one.shares[0]), 'chunks/byte')
  if len(cuts[0].shares) > 1:
    inner = per_seed(lambda one: one.shares[0] * one.shares[1])
    rows.add(where, 'inner_chunks_per_byte', inner, 'chunks/byte', 'of the second stage')
  rows.add(where, 'overflow_share', per_seed(lambda one: one.overflow), 'share of chunks')
  f1, chance = np.array([one.against_words(texts) for one in cuts]).T
  rows.add(where, 'boundary_f1', stats.mean(f1), note='against the beginnings of words')
  rows.add(where, 'boundary_f1_chance', stats.mean(chance), note='of as many cuts at random')
  rows.add(where, 'boundary_f1_above_chance', stats.mean(f1 - chance))


def add_differences(
  rows: Rows,
  bits: Mapping[Arm, np.ndarray],
  references: Sequence[str],
  column: str = DIFFERENCE,
  **more: str,
) -> None:
  """Adds the differences of bits from those of reference arms, paired by seed and document.

  Args:
    rows: of a table.
    bits: contributions [S, D] of each arm.
    references: names of arms, which are subtracted.
    column: of the differences.
    more: further coordinates of the rows.
  """
  for reference in (arm for arm in bits if arm.name in references and not arm.without):
    for arm, gap in stats.arms(bits, reference, 'seeds×documents').items():
      where = {**arm.where, **more, 'less': reference.name}
      rows.add(where, column, gap, 'bits/byte', 'paired by seed and document')


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """The arms ranked by bits per byte, and bits against the cost of a byte."""
  found = [row for row in select(rows, 'chunking', BITS) if 'seed' not in row.where]
  points: dict[str, dict[str, tuple[float, Row]]] = {}
  for row in found:
    cost = next(iter(select(rows, 'chunking', 'mflop_per_byte', **row.where)), None)
    if cost is not None and cost.measured is not None and row.measured is not None:
      label = row.where['arm'] + (f' {row.where["target"]}' if 'target' in row.where else '')
      points.setdefault(row.where['arm'].replace('_', ' '), {})[label.replace('_', ' ')] = (
        cost.measured,
        row,
      )
  title = 'Bits and cost of a byte, at equal FLOPs of training'
  trade = plots.trade(title, 'MFLOP to read a byte', 'bits per byte', points, [])
  caption = 'Models of bytes, of chunks of bytes and of BPE tokens, at equal FLOPs of training.'
  return {'chunking.png': Picture(caption, [trade] if points else [])}


def train_specs(config: ConfigDict):
  """The models of bytes."""
  return arms.train_specs(config, arms.every(config, config.chunking.arms))


TABLE = Table(
  'chunking',
  measure,
  caption='Models of the same bytes at equal FLOPs of training and equal bytes of context. `hnet` '
  'learns where its chunks begin, `target` bytes long on average if it could; `two_stages` chunks '
  'its chunks again; `spaces` cuts at spaces and punctuation, `stride` after a number of bytes, '
  '`entropy` where a small model is uncertain, which is trained before, with a share of the FLOPs; '
  '`bpe_ends` cuts where BPE tokens end: the ends are marks of its bytes, and its bits are those '
  'of bytes and marks; '
  '`byte_recurrent` has the layers of the outer networks alone. FLOPs are those of matrix '
  'products that chunks need; a row with `less` is the arm less another; '
  '`teraflops_off` is by how much training missed the common number. Hierarchies have the learning '
  'rate that is best for `hnet`, other arms their own. '
  '`counting` is an m-gram model of bytes: how much context a model uses shows in which `order` it '
  'is below. `boundary_f1` holds cuts against the beginnings of words; a cut at the byte before a '
  'word counts as well. ± is one standard error over seeds × documents, or over seeds.',
  shown=(
    BITS,
    DIFFERENCE,
    'chunks_per_byte',
    'inner_chunks_per_byte',
    'overflow_share',
    'mflop_per_byte',
    'boundary_f1',
    'boundary_f1_chance',
    'boundary_f1_above_chance',
    'learning_rate',
    'teraflops_off',
  ),
  check=arms.check,
  pictures=pictures,
  train_specs=train_specs,
  sources=text_of,
)
