# SPDX-License-Identifier: Apache-2.0
"""The table on real text: unigrams over the tokens of BPE, Unigram and WordPiece."""

import itertools

from ml_collections import ConfigDict

from experiments import runner
from experiments.markov.streams import LN2, on_all_cores
from lib.data import sources
from lib.errors import InputError
from lib.evals import ngram
from lib.report.results import Row, name
from lib.tokenizers import Characters, train_sentencepiece, train_wordpiece

SMALLEST = 512  # single bytes of WordPiece; below that a dictionary is the bytes themselves


def check(config: ConfigDict) -> None:
  """Raises InputError for a corpus that is not there, or dictionaries that hold no single byte."""
  smallest = min(config.real_text.sizes, default=0)
  if smallest < SMALLEST:
    raise InputError(
      f'a dictionary of {smallest} tokens (real_text.sizes) is too small: it takes {SMALLEST} to '
      'hold each byte as the start and as the continuation of a word.'
    )
  for split in ('train', 'test'):
    sources.open_source(config.data.source, split)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Unigrams over the tokens of real text against dictionary size, and character m-grams."""
  sizes = config.real_text
  source = config.data.source
  train = sources.sample(sources.open_source(source, 'train'), sizes.train_bytes)
  test = sources.sample(sources.open_source(source, 'test'), sizes.test_bytes)
  corpus = f'{source}: {sum(map(len, train)):,} bytes to learn and count on, ' + (
    f'{sum(map(len, test)):,} of other documents to score'
  )
  rows = []
  values = ngram.token_loss(Characters(), train, test, sizes.orders)
  for order, (mean, sem) in zip(sizes.orders, values):
    rows += _text_rows(name(tokenizer='bytes', order=order), mean, sem, 1.0, corpus)
  families = {
    'bpe': lambda size: train_sentencepiece(train, size, 'bpe'),
    'unigram': lambda size: train_sentencepiece(train, size, 'unigram'),
    'wordpiece': lambda size: train_wordpiece(train, size),
  }

  def measure(size: int, family: str) -> list[Row]:
    row = name(tokenizer=family, d=size)
    try:
      tokenizer = families[family](size)
    except InputError as error:
      return [Row('real_text', row, 'nats_per_byte', None, note=f'not learned: {error}')]
    [(mean, sem)] = ngram.token_loss(tokenizer, train, test, [0])
    tokens = sum(len(tokenizer.encode(document)) for document in test)
    return _text_rows(row, mean, sem, sum(map(len, test)) / tokens, corpus)

  jobs = [(size, family) for family in families for size in sizes.sizes]
  return rows + list(itertools.chain.from_iterable(on_all_cores('real_text', measure, jobs)))


def _text_rows(row: str, mean: float, sem: float, bytes_per_token: float, note: str) -> list[Row]:
  table = 'real_text'
  return [
    Row(table, row, 'nats_per_byte', mean, sem, unit='nats/byte', note=note),
    Row(table, row, 'bits_per_byte', mean / LN2, sem / LN2, unit='bits/byte'),
    Row(table, row, 'bytes_per_token', bytes_per_token, unit='bytes/token'),
  ]
