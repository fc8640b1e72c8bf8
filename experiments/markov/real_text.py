# SPDX-License-Identifier: Apache-2.0
"""The table on real text: unigrams over the tokens of BPE, Unigram and WordPiece.

All three learn within words: `bpe` is SentencePiece's, whose pieces do not cross spaces. Models are
counts, which read their text once at every scale, so no number of epochs applies.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments.markov.markov_source import over_sizes
from experiments.recipe import Pictures, Run, Table, text_of
from lib import stats
from lib.data import sources
from lib.errors import InputError
from lib.evals import ngram
from lib.report.plots import Picture
from lib.report.results import Row, Rows, select
from lib.threads import on_all_cores
from lib.tokenizers.characters import Characters
from lib.tokenizers.sentencepiece import train_sentencepiece
from lib.tokenizers.wordpiece import train_wordpiece

SMALLEST = 512  # single bytes of WordPiece; below that a dictionary is the bytes themselves


def check(config: ConfigDict) -> None:
  """Raises InputError for a missing corpus, or dictionaries too small for all bytes."""
  smallest = min(config.real_text.sizes, default=0)
  if smallest < SMALLEST:
    raise InputError(
      f'a dictionary of {smallest} tokens (real_text.sizes) is too small: it takes {SMALLEST} to '
      'have each byte as the start and as the continuation of a word.'
    )
  for split in ('train', 'test'):
    sources.open_source(config.data.source, split)


def measure(config: ConfigDict, run: Run) -> Rows:
  """Unigrams over the tokens of real text against dictionary size, and character m-grams."""
  sizes, source = config.real_text, config.data.source
  train, test = (
    sources.sample(sources.open_source(source, split), limit)
    for split, limit in (('train', sizes.train_bytes), ('test', sizes.test_bytes))
  )
  families = {
    'bpe': lambda size: train_sentencepiece(train, size, 'bpe'),
    'unigram': lambda size: train_sentencepiece(train, size, 'unigram'),
    'wordpiece': lambda size: train_wordpiece(train, size),
  }

  def score(family: str, size: int) -> tuple[np.ndarray, int] | str:
    """Nats [D] of the test documents and their tokens, or why there is no such dictionary."""
    try:
      tokenizer = families[family](size)
    except InputError as error:
      return str(error)
    [nats] = ngram.token_nats(tokenizer, train, test, [0])
    return nats, sum(len(tokenizer.encode(document)) for document in test)

  jobs = list(itertools.product(families, sizes.sizes))
  measured = dict(zip(jobs, on_all_cores('real_text', score, jobs), strict=True))
  by_order = dict(zip(sizes.orders, ngram.token_nats(Characters(), train, test, sizes.orders)))
  lengths = [*map(len, test)]
  note = (
    f'{source}: {sum(map(len, train)):,} bytes to learn and count on, {sum(lengths):,} of '
    f'{len(test)} other documents to score'
  )
  rows = Rows('real_text')

  def add(where: dict, nats: np.ndarray, tokens: int) -> None:
    rows.add_loss(where, '', stats.ratio(nats, lengths), note, per='byte')
    rows.add(where, 'bytes_per_token', sum(lengths) / tokens, 'bytes/token')

  for order, nats in by_order.items():
    add({'tokenizer': 'bytes', 'order': order}, nats, sum(lengths))
  for family in families:
    smaller = None
    for size in sorted(sizes.sizes):
      where, found = {'tokenizer': family, 'd': size}, measured[family, size]
      if isinstance(found, str):
        rows.add(where, 'nats_per_byte', None, note=f'not learned: {found}')
        continue
      nats, tokens = found
      add(where, nats, tokens)
      for what, (other, of) in {
        'smaller': (smaller, 'the next smaller dictionary of the same family'),
        'byte_unigram': (by_order.get(0), 'a unigram over bytes'),
        'byte_bigram': (by_order.get(1), 'a byte model with one byte of context'),
      }.items():
        if other is not None:
          gap = stats.ratio(nats - other, lengths).times(1 / np.log(2))
          about = f'less {of}, paired by document'
          rows.add(where, f'above_{what}_bits_per_byte', gap, 'bits/byte', about)
      smaller = nats
  return rows


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Unigram loss against dictionary size, with character m-grams as levels."""
  of = lambda tokenizer: select(rows, 'real_text', 'bits_per_byte', tokenizer=tokenizer)
  found = {
    'BPE (within words)': of('bpe'),
    'Unigram': of('unigram'),
    'WordPiece': of('wordpiece'),
  }
  levels = {f'bytes, {row.where["order"]}-byte context': row.measured or 0.0 for row in of('bytes')}
  title = f'Unigrams over tokens of {config.data.source}'
  caption = (
    'Loss of unigrams over the tokens of three kinds of dictionaries on held-out text, against '
    'their size, between models of bytes. Bars: one standard error over documents.'
  )
  return {'real_text.png': Picture(caption, over_sizes(title, 'bits per byte', found, levels))}


TABLE = Table(
  'real_text',
  measure,
  caption='Unigrams over tokens of real text, and m-grams over bytes (order 0 is the '
  'dictionary of 256). `bpe` is BPE within words (by SentencePiece), as `unigram` and `wordpiece` '
  'are. ± is one standard error over documents; differences are paired by document.',
  shown=(
    'bits_per_byte',
    'above_smaller_bits_per_byte',
    'above_byte_bigram_bits_per_byte',
    'bytes_per_token',
  ),
  check=check,
  pictures=pictures,
  sources=text_of,
)
