# SPDX-License-Identifier: Apache-2.0
"""Bits per byte of frozen and trained rows: same decoder, tokens, steps and seeds."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.visual_unicode import models, scores, text
from experiments.visual_unicode.models import Trained
from lib import stats
from lib.data import sources
from lib.data.ngram_text import NgramText
from lib.models.decoder import LanguageModel
from lib.report.results import Row, name
from lib.train.experiment import Batch, Variables

CAPTION = (
  'Bits per byte of held-out text after training. Arms differ in their input rows alone; seeds are '
  'paired (same decoder, LM head and batches). Each arm has the learning rate of `learning_rate`, '
  'chosen by validation text with one seed and a share of the steps. Differences: residual '
  'variance over seeds pooled over all arms of the table, and the variance over documents. '
  '`unigram` counts tokens and reads no input; neither does the arm `equal`. `regret` is the '
  'excess over the exact law of the text, where it has one (`ngram:` sources). `p_equivalent` is '
  'of two one-sided t-tests (TOST) that the difference is within the margin; below 0.05 it is.'
)
SUMMARY = (
  '',
  ('bits_per_byte', 'unigram_bits_per_byte', 'law_bits_per_byte', 'regret_bits_per_byte',
   'learning_rate', 'difference_bits_per_byte', 'p_equivalent'),
)  # fmt: skip
UNIGRAM_BYTES = 2**26  # of training text that the unigram is counted on, at most


def check(config: ConfigDict) -> None:
  """Raises InputError for text or models that cannot be had."""
  options = config.loss
  text.check(config)
  models.check(options, 'loss')
  text.check_sizes(config, options)


def fit(config: ConfigDict, run: runner.Run, arm: str, kind: str | None = None) -> list[Trained]:
  """The models of an arm, trained now or by another table of this run, on tokens of a kind."""
  opened, options = text.open_text(config, kind), config.loss
  validation = text.held_out(opened, options, 'validation', options.validation).batches
  return models.fit(
    config,
    run,
    options,
    f'loss/{kind}' if kind else 'loss',
    arm,
    opened.glyphs,
    lambda seed: text.batches(opened, options, seed),
    validation,
    {'validation': validation},
  )


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Trains every arm, and compares each with the reference arms and with the unigram."""
  options = config.loss
  opened = text.open_text(config)
  test = text.held_out(opened, options, 'test', options.test)
  rows, bits = [], {}
  for arm in options.arms:
    trained = fit(config, run, arm)
    score = scores.row_nats(functools.partial(token_nats, trained[0].model))
    nats = [score(one.variables, test) for one in trained]
    bits[arm] = scores.bits_by_document(nats, test)
    rows += _arm(config, arm, trained, bits[arm])
  tokens = sum(int((batch['segments'] > 0).sum()) for batch in test.batches)
  about = f'{len(test.documents)} excerpts of test text'
  rows.append(
    Row('loss', 'text=test', 'bytes_per_token', test.bytes.sum() / tokens,
        unit='bytes/token', note=about)
  )  # fmt: skip
  unigram = scores.bits_by_document([_unigram(config, opened, test)], test)
  rows.append(
    Row.of('loss', 'text=test', 'unigram_bits_per_byte', stats.mean(unigram[0], 'documents'),
           unit='bits/byte', note='the same tokens by their frequencies in training text')
  )  # fmt: skip
  source = sources.open_source(opened.source, 'test')
  if isinstance(source, NgramText):
    [law] = scores.bits_by_document([scores.law_nats(source, test)], test)
    rows += _regrets(bits, law)
  rows += [_against(arm, 'unigram', stats.crossed(bits[arm] - unigram)) for arm in options.arms]
  for reference in options.references:
    if reference in bits:
      found = stats.arms(bits, reference, 'seeds×documents')
      for arm, difference in found.items():
        rows += _difference(options, arm, reference, difference)
  return rows


def token_nats(model: LanguageModel, variables: Variables, batch: Batch) -> jax.Array:
  """Nats [B, T] of the targets; these models draw nothing, so they need no key."""
  nats: Any = model.apply(variables, batch, None)
  return nats


def _unigram(config: ConfigDict, opened: text.Text, test: text.HeldOut) -> np.ndarray:
  limit = min(config.tokenizer.train_bytes or UNIGRAM_BYTES, UNIGRAM_BYTES)
  documents = sources.sample(sources.open_source(opened.source, 'train'), limit)
  counted = np.concatenate([opened.tokenizer.encode(document) for document in documents])
  return scores.unigram_nats(counted, opened.tokenizer.vocab_size, test)


def _arm(config: ConfigDict, arm: str, trained: list[Trained], bits: np.ndarray) -> list[Row]:
  """What an arm reached, and its way there."""
  row, rows = name(arm=arm), []
  found = stats.crossed(bits)
  note = f'test text after {config.loss.steps} steps'
  if read := text.epochs_read(config, config.loss):
    note += f'; {read}'
  rows.append(Row.of('loss', row, 'bits_per_byte', found, unit='bits/byte', note=note))
  rows.append(Row('loss', row, 'learning_rate', trained[0].rate, note='at its peak'))
  for kind, collection in (('trained', 'params'), ('frozen', 'frozen')):
    size = _size(trained[0].variables.get(collection, {}))
    rows.append(Row('loss', row, f'{kind}_parameters', size))
  for step, values in models.curve(trained).items():
    column = f'validation_bits_per_byte_at_{step}'
    rows.append(Row.of('loss', row, column, stats.mean(values, 'seeds'), unit='bits/byte'))
  return rows + [
    Row.of('loss', name(arm=arm, seed=seed), 'bits_per_byte', stats.mean(one, 'documents'),
           unit='bits/byte')
    for seed, one in enumerate(bits, start=config.seed)
  ]  # fmt: skip


def _size(tree) -> int:
  return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(tree))


def _regrets(bits: Mapping[str, np.ndarray], law: np.ndarray) -> list[Row]:
  """Bits per byte [D] of the exact law of the text, and the excess [S, D] of each arm over it."""
  note = 'the law has read each document from its beginning'
  put = functools.partial(Row.of, 'loss', unit='bits/byte', note=note)
  return [put('text=test', 'law_bits_per_byte', stats.mean(law, 'documents'))] + [
    put(name(arm=arm), 'regret_bits_per_byte', stats.crossed(found - law))
    for arm, found in bits.items()
  ]


def _against(arm: str, reference: str, difference: stats.Estimate) -> Row:
  note = 'above 0: worse than the reference; paired by seed and document'
  return Row.of('loss', name(arm=arm, against=reference), 'difference_bits_per_byte', difference,
                unit='bits/byte', note=note)  # fmt: skip


def _difference(
  options: ConfigDict, arm: str, reference: str, difference: stats.Estimate
) -> list[Row]:
  """An arm less the reference, and whether they are equivalent."""
  rows = [_against(arm, reference, difference)]
  if (p := difference.p_equivalent(options.margin)) is not None:
    note = f'TOST with a margin of {options.margin:g} bits per byte'
    rows.append(Row('loss', rows[0].row, 'p_equivalent', p, note=note))
  return rows
