# SPDX-License-Identifier: Apache-2.0
"""Table markov: codecs driven by the true law of their text, where the entropy rate is known.

With the source itself as M1, equal-info windows are a dictionary of texts that are about equally
likely, as BPE and LZW learn one from a sample. An arithmetic coder without windows spends what the
source's entropy asks. Both code over the source's own alphabet, and streams have no end mark. What
is left above H∞ is what windows cost, not M1 and not the packaging. What packaging would add
(frequencies for all 256 bytes, an end mark, whole bits) has columns of its own.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.markov.streams import (
  DICTIONARY,
  LN2,
  TEST,
  TRAIN,
  draw,
  loss,
  make_source,
  on_all_cores,
)
from lib import stats
from lib.data import chain
from lib.data.markov import MarkovSource
from lib.errors import InputError
from lib.evals import ngram, parse
from lib.report.results import Row, name
from lib.tokenizers import Dictionary, train_bpe, train_lzw
from lib.tokenizers.coding import arithmetic
from lib.tokenizers.coding.model import Remembered
from lib.tokenizers.coding.tabulate import heaviest, tabulate

TABLE = 'markov'
CAPTION = (
  'Nats per character above the entropy rate H∞ of Markov sources: an arithmetic coder in one '
  'stream (`ac`), and unigrams over tokens. `ac` and the windows (`numbered`) know the law of the '
  'source and use its own alphabet; BPE and LZW are learned from a sample. LZW and windows are '
  'computed exactly. BPE is sampled, so that it includes what it costs to learn d counts from N '
  'tokens, up to d/2N nats a token. ± is one standard error over seeds (dictionaries and texts).'
)
SUMMARY = (
  '',
  ('above_entropy_rate_nats_per_char', 'above_bpe_nats_per_char', 'above_ac_nats_per_char',
   'impossible_symbols_nats_per_char', 'end_mark_nats_per_char', 'rounding_nats_per_char'),
)  # fmt: skip
LEARNED = {'bpe': train_bpe, 'lzw': train_lzw}
NOTES = {
  'above_entropy_rate': 'the loss less the entropy rate',
  'above_bpe': 'less BPE of as many ids, paired by seed',
  'above_ac': 'less one arithmetic stream over the same text, paired by seed',
  'impossible_symbols': 'what frequencies for all 256 bytes would add',
  'end_mark': 'what an end mark would add to each stream',
  'rounding': 'the part of the loss that whole bits at the end of each stream take',
}


def check(config: ConfigDict) -> None:
  """Raises InputError for sources or windows that cannot be."""
  for bits in config.markov.bits:
    if bits not in (12, 16):
      raise InputError(f'markov.bits {bits} is not one of 12, 16.')
  for order in config.orders:
    make_source(config, order)
  for field in ('seeds', 'train_chars', 'test_chars', 'dictionary_chars', 'document_chars'):
    if config.markov[field] < 1:
      raise InputError(f'markov.{field} must be 1 or more; got {config.markov[field]}.')


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Every codec on every source."""
  sizes, seeds = config.markov, range(config.seed, config.seed + config.markov.seeds)
  codes = {order: _codes(config, order, seeds) for order in config.orders}
  jobs = [(order, bits) for order in config.orders for bits in sizes.bits]
  work = lambda order, bits: _dictionaries(config, order, bits, seeds, codes[order]['nats'])
  rows = []
  for order, found in codes.items():
    rows += _code_rows(name(k=order, tokenizer='ac'), make_source(config, order), found)
  return rows + [row for found in on_all_cores(TABLE, work, jobs) for row in found]


def _dictionaries(
  config: ConfigDict, order: int, bits: int, seeds: Sequence[int], code: np.ndarray
) -> list[Row]:
  """Unigrams over the tokens of BPE, LZW and windows of 2^bits ids, and the code's nats [S]."""
  source, sizes = make_source(config, order), config.markov
  losses: dict[str, Any] = {}  # kind -> [S], or a single number where nothing is drawn
  chars: dict[str, Any] = {}
  for kind, train in LEARNED.items():
    found = [_learned(train, config, source, bits, seed) for seed in seeds]
    losses[kind], chars[kind] = map(np.array, zip(*found))
  windows = parse.exact_unigram(numbered(source, bits), source)
  losses['numbered'], chars['numbered'] = windows.nats_per_char, windows.chars_per_token
  in_bytes = parse.exact_unigram(byte_windows(source, bits), source).nats_per_char
  notes = {
    'bpe': f'counted on {sizes.train_chars:,} characters, scored on {sizes.test_chars:,} others',
    'lzw': f'exact, for dictionaries learned from up to {sizes.dictionary_chars:,} characters',
    'numbered': 'exact',
  }
  rows = []
  for kind, nats in losses.items():
    row = name(k=order, tokenizer=kind, d=1 << bits)
    columns = {'above_entropy_rate': nats - source.entropy_rate, 'above_ac': nats - code}
    if kind != 'bpe':
      columns['above_bpe'] = nats - losses['bpe']
    if kind == 'numbered':
      columns['impossible_symbols'] = in_bytes - nats
    rows += loss(TABLE, row, 'unigram', _estimate(nats), notes[kind])
    for what, found in columns.items():
      rows += loss(TABLE, row, what, _estimate(found), NOTES[what])
    rows += loss(TABLE, row, 'entropy_rate', source.entropy_rate)
    rows.append(Row.of(TABLE, row, 'chars_per_token', _estimate(chars[kind]), unit='chars/token'))
  return rows


def _estimate(found: Any) -> stats.Estimate:
  """Mean over seeds [S]; a single number is exact."""
  return stats.mean(found) if np.ndim(found) else stats.Estimate(float(found))


def _learned(
  train: Any, config: ConfigDict, source: MarkovSource, bits: int, seed: int
) -> tuple[float, float]:
  """Nats per character and characters per token of a learned dictionary of one seed."""
  sizes = config.markov
  text = draw(source, sizes.dictionary_chars, seed, DICTIONARY)
  tokenizer = train(text, 1 << bits, source.alphabet)
  if tokenizer.encoder == 'greedy':
    exact = parse.exact_unigram(tokenizer, source)
    return exact.nats_per_char, exact.chars_per_token
  counted, scored = (
    tokenizer.encode(draw(source, chars, seed, stream))
    for chars, stream in ((sizes.train_chars, TRAIN), (sizes.test_chars, TEST))
  )
  nats = ngram.NGram(counted, 0, tokenizer.vocab_size).nats(scored)
  return float(nats.sum() / sizes.test_chars), sizes.test_chars / scored.size


def numbered(source: MarkovSource, bits: int) -> Dictionary:
  """Equal-info windows over the source's own alphabet, as the greedy dictionary that they are.

  A text fits a window if its interval under the law of the source encloses a cell of 2^-bits.
  Intervals are exact, from frequencies of 14 bits. Of more than 2^bits texts the most probable are
  kept. The texts are closed under beginnings, so that the longest one that fits is the longest
  match.
  """
  one, known = arithmetic.PRECISION, source.order
  laws = [arithmetic.quantise(law).tolist() for law in chain.laws(source)]
  pieces, weights = [], []
  pending = [(b'', 0, 0, 1)]  # text, its context, its interval in units of 2^-(14 × length)
  while pending:
    text, context, low, width = pending.pop()
    length = len(text)
    frequencies = laws[min(length, known)][context]
    unit = 1 << one * (length + 1)
    for symbol in range(source.alphabet_size):
      start, stop = frequencies[symbol], frequencies[symbol + 1]
      below, wide = (low << one) + width * start, width * (stop - start)
      first = -(-(below << bits) // unit)  # the first cell that begins in the interval
      if (first + 1) * unit > (below + wide) << bits:
        continue
      longer = text + source.alphabet[symbol : symbol + 1]
      pieces.append(longer)
      weights.append(wide / unit)
      after = (
        int(source.next_contexts[context, symbol])
        if length >= known
        else context + symbol * source.alphabet_size**length
      )
      pending.append((longer, after, below, wide))
  kept = heaviest(pieces, np.array(weights), 1 << bits)
  return Dictionary([pieces[i] for i in kept], 'greedy', source.alphabet)


def byte_windows(source: MarkovSource, bits: int) -> Dictionary:
  """The same with frequencies for all 256 bytes, less the texts that the source never writes."""
  table = tabulate(Remembered(chain.Chain(source)), bits, 'numbered')
  pieces = [piece for piece in table.pieces if set(piece) <= set(source.alphabet)]
  return Dictionary(pieces, 'greedy', source.alphabet)


def _codes(config: ConfigDict, order: int, seeds: Sequence[int]) -> dict[str, np.ndarray]:
  """Quantity -> nats per character [S] of one arithmetic stream for each document."""
  source, sizes = make_source(config, order), config.markov
  length = min(sizes.document_chars, sizes.test_chars)
  found = []
  for seed in seeds:
    text = draw(source, sizes.test_chars // length * length, seed, TEST)
    symbols = np.frombuffer(text, np.uint8).astype(np.int64) - source.alphabet[0]
    found.append(code_lengths(source, symbols.reshape(-1, length)))
  return {what: np.array([one[what] for one in found]) for what in found[0]}


def code_lengths(source: MarkovSource, documents: np.ndarray) -> dict[str, float]:
  """Nats per character that arithmetic coding under the source's law spends on documents [D, L].

  Returns:
    `nats` over the source's own alphabet, without an end mark; `rounding` is the part of it that
    the whole bits at the end of each stream take. What else would be added by frequencies for
    all 256 bytes (`impossible_symbols`), and by an end mark on top of those (`end_mark`).
  """
  laws, order, size = chain.laws(source), source.order, source.alphabet_size
  places = np.minimum(np.arange(documents.shape[1]), order)
  rows = np.cumsum([0, *map(len, laws)])[places] + np.zeros_like(documents)
  for back in range(1, order + 1):  # the symbol `back` places before, where it is known
    weight = size ** (places[back:] - back)
    rows[:, back:] += documents[:, :-back] * weight
  stacked = np.concatenate(laws)
  in_bytes = np.pad(stacked, ((0, 0), (0, 256 - size)))
  spent = {}
  tables = {
    'own': arithmetic.quantise(stacked),
    'bytes': arithmetic.quantise(in_bytes),
    'marked': arithmetic.quantise(in_bytes, marks=1),
  }
  for what, cumulative in tables.items():
    costs = arithmetic.PRECISION - np.log2(np.diff(cumulative.astype(np.int64)))
    spent[what] = costs[rows, documents].sum()
  spent['marked'] += arithmetic.PRECISION * len(documents)
  whole = sum(
    arithmetic.encode(document, tables['own'][row])[1] for document, row in zip(documents, rows)
  )
  per_character = lambda bits: float(bits * LN2 / documents.size)
  return {
    'nats': per_character(whole),
    'rounding': per_character(whole - spent['own']),
    'impossible_symbols': per_character(spent['bytes'] - spent['own']),
    'end_mark': per_character(spent['marked'] - spent['bytes']),
  }


def _code_rows(row: str, source: MarkovSource, found: dict[str, np.ndarray]) -> list[Row]:
  """Rows of one arithmetic stream a document."""
  above = stats.mean(found['nats'] - source.entropy_rate)
  rows = [
    *loss(TABLE, row, '', stats.mean(found['nats']), 'no end mark, the alphabet of the source'),
    *loss(TABLE, row, 'above_entropy_rate', above, NOTES['above_entropy_rate']),
    *loss(TABLE, row, 'entropy_rate', source.entropy_rate),
  ]
  for what in ('rounding', 'impossible_symbols', 'end_mark'):
    rows += loss(TABLE, row, what, stats.mean(found[what]), NOTES[what])
  return rows
