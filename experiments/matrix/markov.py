# SPDX-License-Identifier: Apache-2.0
"""Table markov: codecs driven by the true law of their text, where the entropy rate is known.

With the source itself as M1, equal-info windows are a dictionary of texts that are about equally
likely, as BPE and LZW learn one from a sample; an arithmetic coder without windows spends what the
source's entropy asks. What is left above H∞ is what the windows cost, not M1.
"""

import math

import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.markov.streams import (
  DICTIONARY,
  TEST,
  TRAIN,
  draw,
  loss,
  make_source,
  on_all_cores,
)
from lib.data.chain import Chain
from lib.data.markov import MarkovSource
from lib.errors import InputError
from lib.evals import ngram, parse
from lib.report.results import Row, name
from lib.tokenizers import Dictionary, EqualInfo, Tokenizer, documents, train_bpe, train_lzw
from lib.tokenizers.coding.model import Remembered
from lib.tokenizers.coding.streams import SteppedAC
from lib.tokenizers.coding.tabulate import tabulate

TABLE = 'markov'
CAPTION = (
  'Unigram models over the tokens of Markov sources, beside the entropy rate. `ac` and the '
  'windows (`exact`, `numbered`) are coded under the true law of the source, BPE and LZW learned '
  'from a sample. `exact_unigram` is computed; the sampled `unigram` is above it, since d '
  'counts learned from N tokens cost up to d/2N nats a token. `uniform` is what tokens as equally '
  'likely ids cost. Codecs keep room for all 256 bytes, of which the source writes few: with 12 '
  'bits a sixteenth of all codes.'
)
SUMMARY = (
  '',
  ('unigram_nats_per_char', 'exact_unigram_nats_per_char', 'above_entropy_rate_nats_per_char',
   'entropy_rate_nats_per_char', 'chars_per_token'),
)  # fmt: skip
WINDOWS = ('numbered', 'exact')
AC_BITS = 8  # of the slices of its stream: their width changes nothing that it spends


def check(config: ConfigDict) -> None:
  """Raises InputError for sources or windows that cannot be."""
  for bits in config.markov.bits:
    if bits not in (12, 16):
      raise InputError(f'markov.bits {bits} is not one of 12, 16.')
  for order in config.orders:
    make_source(config, order)
  for field in ('train_chars', 'test_chars', 'dictionary_chars', 'ac_chars', 'document_chars'):
    if config.markov[field] < 1:
      raise InputError(f'markov.{field} must be 1 or more; got {config.markov[field]}.')


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Every codec on every source."""
  sizes = config.markov

  def measure(order: int, bits: int, kind: str) -> list[Row]:
    source = make_source(config, order)
    tokenizer = make_tokenizer(config, source, kind, bits)
    train, test = (
      draw(source, chars, config.seed, stream)
      for chars, stream in ((sizes.train_chars, TRAIN), (sizes.test_chars, TEST))
    )
    row = name(k=order, tokenizer=kind, d=1 << bits)
    return _rows(row, source, tokenizer, [train], [test])

  jobs = [
    (order, bits, kind)
    for order in config.orders
    for bits in sizes.bits
    for kind in ('bpe', 'lzw', *WINDOWS)
  ]
  rows = [row for found in on_all_cores(TABLE, measure, jobs) for row in found]
  for order in config.orders:
    rows += _ac(config, order)
  return rows


def make_tokenizer(config: ConfigDict, source: MarkovSource, kind: str, bits: int) -> Tokenizer:
  """A codec or a learned dictionary of 2^bits ids."""
  if kind in WINDOWS:
    return EqualInfo(tabulate(Remembered(Chain(source)), bits, kind), bits)
  text = draw(source, config.markov.dictionary_chars, config.seed, DICTIONARY)
  learn = train_bpe if kind == 'bpe' else train_lzw
  return learn(text, 1 << bits, source.alphabet)


def written(tokenizer: EqualInfo, source: MarkovSource) -> Dictionary:
  """Numbered windows, less those that the source never writes, as the greedy dictionary they are.

  The texts are closed under beginnings, so that the longest one that fits is the longest match.
  """
  pieces = [piece for piece in tokenizer.table.pieces if set(piece) <= set(source.alphabet)]
  return Dictionary(pieces, 'greedy', source.alphabet)


def _rows(
  row: str, source: MarkovSource, tokenizer: Tokenizer, train: list[bytes], test: list[bytes]
) -> list[Row]:
  """Losses of the documents `test` under a unigram counted on `train`, beside H∞."""
  counted = np.concatenate([coded.ids for coded in documents.encode(tokenizer, train)])
  coded = documents.encode(tokenizer, test)
  scored, lengths = (
    np.concatenate([getattr(one, field) for one in coded]) for field in ('ids', 'byte_lengths')
  )
  nats = ngram.NGram(counted, 0, tokenizer.vocab_size).nats(scored)
  mean, sem = ngram.per_character(nats, lengths)
  chars = lengths.sum() / scored.size
  note = f'counted on {sum(map(len, train)):,} characters, scored on {sum(map(len, test)):,} others'
  rows = [
    *loss(TABLE, row, 'unigram', mean, sem, note),
    *loss(TABLE, row, 'uniform', math.log(tokenizer.vocab_size) / chars),
  ]
  best, how = mean, 'of the sampled unigram'
  dictionary = tokenizer
  if isinstance(tokenizer, EqualInfo) and tokenizer.table.mode == 'numbered':
    dictionary = written(tokenizer, source)
    note = 'texts of the dictionary that the source writes'
    rows.append(Row(TABLE, row, 'texts', dictionary.vocab_size, unit='texts', note=note))
  if isinstance(dictionary, Dictionary) and dictionary.encoder == 'greedy':
    best, how = parse.exact_unigram(dictionary, source).nats_per_char, 'of the exact unigram'
    rows += loss(TABLE, row, 'exact_unigram', best)
  return [
    *rows,
    *loss(TABLE, row, 'entropy_rate', source.entropy_rate),
    *loss(TABLE, row, 'above_entropy_rate', best - source.entropy_rate, note=how),
    Row(TABLE, row, 'chars_per_token', chars, unit='chars/token'),
  ]


def _ac(config: ConfigDict, order: int) -> list[Row]:
  """An arithmetic coder without windows, a stream for each document."""
  source, sizes = make_source(config, order), config.markov
  length = sizes.document_chars
  count = max(2, sizes.ac_chars // length)
  train, test = (
    [text[i * length : (i + 1) * length] for i in range(count)]
    for text in (draw(source, count * length, config.seed, stream) for stream in (TRAIN, TEST))
  )
  codec = SteppedAC(Chain(source), f'chain of order {order}', AC_BITS)
  return _rows(name(k=order, tokenizer='ac', d=1 << AC_BITS), source, codec, train, test)
