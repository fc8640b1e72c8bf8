# SPDX-License-Identifier: Apache-2.0
"""Table markov: codecs driven by the true law of their text, where the entropy rate is known.

With the source itself as M1, equal-info windows are a dictionary of about equally likely texts, as
BPE and LZW learn one from a sample. An arithmetic coder without windows spends the source's
entropy. Both code over the source's own alphabet, and streams have no end mark. So the excess over
H∞ is the cost of windows alone. The cost of packaging (frequencies for all 256 bytes, an end mark,
whole bits) is in separate columns.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import fit
from experiments.recipe import Pictures, Run, Table, naming
from lib import stats
from lib.compression import known_law
from lib.evals import ngram
from lib.report import plots
from lib.report.plots import Picture
from lib.report.results import Row, Rows, select
from lib.tasks.markov import chains, dictionary_loss
from lib.threads import on_all_cores
from lib.tokenizers.base import Dictionary
from lib.tokenizers.bpe import train_bpe_unsplit
from lib.tokenizers.lzw import train_lzw

NOTES = {
  'above_entropy_rate': 'the loss less the entropy rate',
  'above_bpe': 'less BPE of as many ids, paired by seed',
  'above_ac': 'less one arithmetic stream over the same text, paired by seed',
  'impossible_symbols': 'the extra cost of frequencies for all 256 bytes',
  'end_mark': 'the extra cost of an end mark for each stream',
  'rounding': 'the part of the loss due to whole bits at the end of each stream',
}


def check(config: ConfigDict) -> None:
  """Raises InputError for invalid sources or windows."""
  for order in config.orders:
    with naming('orders'):
      _source(config, order)


def measure(config: ConfigDict, run: Run) -> Rows:
  """Every codec on every source."""
  rows, sizes = Rows('markov'), config.markov
  codes = {order: _codes(config, order) for order in config.orders}
  for order, found in codes.items():
    where, source = {'k': order, 'tokenizer': 'ac'}, _source(config, order)
    above = found['nats'] - source.entropy_rate
    rows.add_loss(where, '', stats.mean(found['nats']), 'no end mark, the alphabet of the source')
    rows.add_loss(where, 'above_entropy_rate', stats.mean(above), NOTES['above_entropy_rate'])
    rows.add_loss(where, 'entropy_rate', source.entropy_rate)
    for what in ('rounding', 'impossible_symbols', 'end_mark'):
      rows.add_loss(where, what, stats.mean(found[what]), NOTES[what])
  jobs = list(itertools.product(config.orders, sizes.bits))
  scored = on_all_cores('markov', lambda *job: _dictionaries(config, *job), jobs)
  notes = {
    'bpe': f'counted on {sizes.train_chars:,} characters, scored on {sizes.test_chars:,} others',
    'lzw': f'exact, for dictionaries learned from up to {sizes.dictionary_chars:,} characters',
    'numbered': 'exact',
  }
  for (order, bits), scores in zip(jobs, scored, strict=True):
    rate, in_bytes = _source(config, order).entropy_rate, scores.pop('in_bytes')[0]
    for kind, (nats, chars) in scores.items():
      where = {'k': order, 'tokenizer': kind, 'd': 1 << bits}
      columns = {'above_entropy_rate': nats - rate, 'above_ac': nats - codes[order]['nats']}
      if kind != 'bpe':
        columns['above_bpe'] = nats - scores['bpe'][0]
      if kind == 'numbered':
        columns['impossible_symbols'] = in_bytes - nats
      rows.add_loss(where, 'unigram', _mean(nats), notes[kind])
      for what, found in columns.items():
        rows.add_loss(where, what, _mean(found), NOTES[what])
      rows.add_loss(where, 'entropy_rate', rate)
      rows.add(where, 'chars_per_token', _mean(chars), 'chars/token')
  return rows


def _source(config: ConfigDict, order: int) -> chains.MarkovSource:
  return chains.make(order, config.seed, **config.source)


def _mean(found: Any) -> stats.Estimate:
  """Mean over seeds [S]; a single number is exact."""
  return stats.mean(found) if np.ndim(found) else stats.Estimate(float(found))


def _codes(config: ConfigDict, order: int) -> dict[str, np.ndarray]:
  """Quantity -> nats per character [S] of one arithmetic stream for each document."""
  source, sizes = _source(config, order), config.markov
  length = min(sizes.document_chars, sizes.test_chars)
  found = []
  for seed in fit.seeds(config, sizes):
    text = chains.sample_text(source, sizes.test_chars // length * length, seed, chains.TEST)
    symbols = np.frombuffer(text, np.uint8).astype(np.int64) - source.alphabet[0]
    found.append(known_law.code_lengths(source, symbols.reshape(-1, length)))
  return {what: np.array([one[what] for one in found]) for what in found[0]}


def _dictionaries(config: ConfigDict, order: int, bits: int) -> dict[str, Any]:
  """Dictionary of 2^bits ids -> nats per character and characters per token.

  [S] of BPE and LZW, and a number of windows over the alphabet of the source and over bytes.
  """
  source, sizes = _source(config, order), config.markov

  def learned(learn: Callable, seed: int) -> tuple[float, float]:
    text = lambda stream, chars: chains.sample_text(source, chars, seed, stream)
    documents = [text(chains.DICTIONARY, sizes.dictionary_chars)]
    tokenizer = learn(documents, 1 << bits, source.alphabet)
    if tokenizer.encoder == 'greedy':
      return exact(tokenizer)
    counted = tokenizer.encode(text(chains.TRAIN, sizes.train_chars))
    scored = tokenizer.encode(text(chains.TEST, sizes.test_chars))
    nats = ngram.NGram(counted, 0, tokenizer.vocab_size).nats(scored).sum()
    return nats / sizes.test_chars, sizes.test_chars / scored.size

  def exact(tokenizer: Dictionary) -> tuple[float, float]:
    found = dictionary_loss.exact_unigram(tokenizer, source)
    return found.nats_per_char, found.chars_per_token

  seeds = fit.seeds(config, sizes)
  return {
    'bpe': np.transpose([learned(train_bpe_unsplit, seed) for seed in seeds]),
    'lzw': np.transpose([learned(train_lzw, seed) for seed in seeds]),
    'numbered': exact(known_law.numbered(source, bits)),
    'in_bytes': exact(known_law.byte_windows(source, bits)),
  }


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Nats a character above the entropy rate, a panel for each order."""
  panels = []
  for order in config.orders:
    found = select(rows, 'markov', 'above_entropy_rate_nats_per_char', k=order)
    size = lambda row: f', d={row.where["d"]}' if 'd' in row.where else ''
    labels = [row.where['tokenizer'] + size(row) for row in found]
    named = dict(zip(labels, found, strict=True))
    title, x_label = f'Markov source of order {order}', 'nats per character above the entropy rate'
    panels.append(plots.ranked(title, x_label, named, {}, '{:.4f}'))
  caption = (
    'What each tokenizer loses over the entropy rate of a Markov source under a unigram over its '
    'tokens, and what an arithmetic coder loses. Bars: one standard error over seeds.'
  )
  return {'markov.png': Picture(caption, panels)}


TABLE = Table(
  'markov',
  measure,
  caption='Nats per character above the entropy rate H∞ of Markov sources: an arithmetic coder in '
  'one stream (`ac`), and unigrams over tokens. `ac` and the windows (`numbered`) know the law of '
  'the source and use its own alphabet; BPE and LZW are learned from a sample. LZW and windows are '
  'computed exactly. BPE is sampled, so that it includes what it costs to learn d counts from N '
  'tokens, up to d/2N nats a token. ± is one standard error over seeds (dictionaries and texts).',
  shown=(
    'above_entropy_rate_nats_per_char',
    'above_bpe_nats_per_char',
    'above_ac_nats_per_char',
    'impossible_symbols_nats_per_char',
    'end_mark_nats_per_char',
    'rounding_nats_per_char',
  ),
  check=check,
  pictures=pictures,
)
