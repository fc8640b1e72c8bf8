# SPDX-License-Identifier: Apache-2.0
"""Bits per byte of frozen and trained rows: same decoder, tokens, steps and seeds."""

import functools
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import fit, recipe
from experiments.fit import Fitted
from experiments.recipe import Pictures, Run
from experiments.visual_unicode import models, text
from lib import stats
from lib.data import sources
from lib.data.ngram_text import NgramText
from lib.data.token_excerpts import HeldOut
from lib.evals.ngram import NGram
from lib.report import plots
from lib.report.plots import Picture
from lib.report.results import Row, Rows, select

UNIGRAM_BYTES = 2**26  # of training text that the unigram is counted on, at most
BLIND = 'equal'  # the arm whose rows are all equal
DIFFERENCE = 'above 0: worse than the reference; paired by seed and document'


def check(config: ConfigDict) -> None:
  """Raises InputError for missing text, or models that cannot be built."""
  text.check(config)
  models.check(config.loss, 'loss')
  text.check_sizes(config, config.loss)


def train(config: ConfigDict, run: Run, arm: str, kind: str = '') -> list[Fitted]:
  """The models of an arm, trained now or by another table of this run, on tokens of a kind."""
  opened, options = text.open_text(config, kind), config.loss
  batches = functools.partial(opened.batches, options)
  validation = opened.held_out(options, 'validation').batches
  table = f'loss/{kind}' if kind else 'loss'
  return models.train(config, run, options, table, arm, opened, batches, validation)


def measure(config: ConfigDict, run: Run) -> list[Row]:
  """Trains every arm, and compares each with the reference arms and with the unigram."""
  options, opened = config.loss, text.open_text(config)
  test = opened.held_out(options, 'test')
  rows, bits = text.rows(config, 'loss'), {}
  for arm in options.arms:
    trained = train(config, run, arm)
    bits[arm] = test.bits([test.sums(one.model.row_loss) for one in trained])
    _add_arm(rows, config, arm, trained, bits[arm])
  tokens = sum(int((batch['segments'] > 0).sum()) for batch in test.batches)
  about = f'{len(test.units)} excerpts of test text'
  of_text = {'text': 'test'}
  rows.add(of_text, 'bytes_per_token', test.bytes.sum() / tokens, 'bytes/token', about)
  [unigram] = test.bits([_unigram_nats(config, opened, test)])
  about = 'the same tokens by their frequencies in training text'
  found = stats.mean(unigram, 'documents')
  rows.add(of_text, 'unigram_bits_per_byte', found, 'bits/byte', about)
  source = sources.open_source(opened.source, 'test')
  if isinstance(source, NgramText):
    _add_regrets(rows, bits, test.bits([test.law_nats(source)])[0])
  for arm in options.arms:
    difference = stats.crossed(bits[arm] - unigram)
    where = {'arm': arm, 'against': 'unigram'}
    rows.add(where, 'difference_bits_per_byte', difference, 'bits/byte', DIFFERENCE)
  for where, difference in models.differences(bits, options.references, 'seeds×documents'):
    rows.add(where, 'difference_bits_per_byte', difference, 'bits/byte', DIFFERENCE)
    if (p := difference.p_equivalent(options.margin)) is not None:
      note = f'TOST with a margin of {options.margin:g} bits per byte'
      rows.add(where, 'p_equivalent', p, note=note)
  return rows


def _unigram_nats(config: ConfigDict, opened: text.Text, test: HeldOut) -> np.ndarray:
  """Nats [N] of excerpts by the token unigram of the training text: no input is read."""
  limit = min(config.tokenizer.train_bytes or UNIGRAM_BYTES, UNIGRAM_BYTES)
  documents = sources.sample(sources.open_source(opened.source, 'train'), limit)
  counted = np.concatenate([opened.tokenizer.encode(document) for document in documents])
  return unigram_nats(counted, opened.tokenizer.vocab_size, test)


def unigram_nats(counted: np.ndarray, vocab_size: int, test: HeldOut) -> np.ndarray:
  """Nats [N] of excerpts by the unigram of the ids `counted`."""
  of_id = NGram(counted, 0, vocab_size).nats(np.arange(vocab_size))
  return test.sums(lambda batch: of_id[batch['targets']])


def _add_arm(
  rows: Rows, config: ConfigDict, arm: str, trained: Sequence[Fitted], bits: np.ndarray
) -> None:
  """The final loss of an arm, and its learning curve."""
  where, options = {'arm': arm}, config.loss
  read = text.epochs_read(config, options)
  note = f'test text after {options.steps} steps' + (f'; {read}' if read else '')
  rows.add(where, 'bits_per_byte', stats.crossed(bits), 'bits/byte', note)
  fit.add_rate(rows, where, options, trained[0].rate)
  for kind, collection in (('trained', 'params'), ('frozen', 'frozen')):
    leaves = jax.tree.leaves(trained[0].variables.get(collection, {}))
    rows.add(where, f'{kind}_parameters', sum(leaf.size for leaf in leaves), 'parameters')
  curves = [one.curve('validation/bits_per_byte') for one in trained]
  for step in curves[0]:
    values = stats.mean([curve[step] for curve in curves], 'seeds')
    rows.add(where, f'validation_bits_per_byte_at_{step}', values, 'bits/byte')
  for seed, one in zip(fit.seeds(config, options), bits):
    rows.add(where | {'seed': seed}, 'bits_per_byte', stats.mean(one, 'documents'), 'bits/byte')


def _add_regrets(rows: Rows, bits: Mapping[str, np.ndarray], law: np.ndarray) -> None:
  """Bits per byte [D] of the exact law of the text, and the excess [S, D] of each arm over it."""
  note = 'the law has read each document from its beginning'
  found = stats.mean(law, 'documents')
  rows.add({'text': 'test'}, 'law_bits_per_byte', found, 'bits/byte', note)
  for arm, of_arm in bits.items():
    regret = stats.crossed(of_arm - law)
    rows.add({'arm': arm}, 'regret_bits_per_byte', regret, 'bits/byte', note)


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Validation loss by step, and paired differences from the first reference with their intervals.

  The arm that reads nothing is far from all others, and is left to the table.
  """
  way: dict[str, list[tuple[float, Row]]] = {}
  for row in rows:
    step = row.column.removeprefix('validation_bits_per_byte_at_')
    if row.table == 'loss' and step.isdigit() and int(step) and row.where['arm'] != BLIND:
      way.setdefault(models.ARMS[row.where['arm']].label, []).append((int(step), row))
  if not way:
    return {}
  # The LM head's first steps are alike and steep: from half-way on differences can be seen.
  last = max(step for points in way.values() for step, _ in points)
  late = {arm: [one for one in points if one[0] >= last / 2] for arm, points in way.items()}
  title = 'Validation loss in the second half of training'
  panels = [plots.row_curves(title, 'training step', 'bits per byte', late)]
  reference, found = config.loss.references[0], {}
  for row in select(rows, 'loss', 'difference_bits_per_byte', against=reference):
    assert row.estimate is not None
    value, half = row.estimate.value, row.estimate.half_width()
    if half is not None and row.where['arm'] != BLIND:
      found[models.ARMS[row.where['arm']].label] = (value, value - half, value + half)
  if found:
    title = f'Test loss less that of “{models.ARMS[reference].label}”'
    label = 'difference in bits per byte, 95 % interval'
    panels.append(plots.intervals(title, label, found, config.loss.margin))
  caption = (
    'The same decoder over several kinds of input rows: loss on validation text (bars: one '
    'standard error), and differences on test text with their 95 % intervals; the grey band is '
    'what counts as equal.'
  )
  return {'loss.png': Picture(caption, panels)}


TABLE = recipe.Table(
  'loss',
  measure,
  caption='Bits per byte of held-out text after training. Arms differ in their input rows alone; '
  'seeds are paired (same decoder, LM head and batches). Each arm has the learning rate of '
  '`learning_rate`, chosen by validation text with one seed and a share of the steps. '
  'Differences: residual variance over seeds pooled over all arms of the table, and the variance '
  'over documents. `unigram` counts tokens and reads no input; neither does the arm `equal`. '
  '`regret` is the excess over the exact law of the text, where it has one (`ngram:` sources). '
  '`p_equivalent` is of two one-sided t-tests (TOST) that the difference is within the margin; '
  'below 0.05 it is.',
  shown=(
    'bits_per_byte',
    'unigram_bits_per_byte',
    'law_bits_per_byte',
    'regret_bits_per_byte',
    'learning_rate',
    'difference_bits_per_byte',
    'p_equivalent',
  ),
  check=check,
  pictures=pictures,
  train_specs=lambda config: models.train_specs(config, 'loss', config.tokenizer.vocab_size),
  sources=recipe.text_of,
)
