# SPDX-License-Identifier: Apache-2.0
"""The table on real text: unigrams over the tokens of BPE, Unigram and WordPiece.

All three learn within words: `bpe` is SentencePiece's, whose pieces do not cross spaces. Models are
counts, which read their text once at every scale, so no number of epochs applies.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.markov.streams import LN2, on_all_cores
from lib import stats
from lib.data import sources
from lib.errors import InputError
from lib.evals import ngram
from lib.report.results import Row, name
from lib.tokenizers import Characters, train_sentencepiece, train_wordpiece

TABLE = 'real_text'
OTHERS = {  # what a dictionary is compared with
  'smaller': 'less the next smaller dictionary of the same family',
  'byte_unigram': 'less a unigram over bytes',
  'byte_bigram': 'less a byte model with one byte of context',
}
SMALLEST = 512  # single bytes of WordPiece; below that a dictionary is the bytes themselves


def check(config: ConfigDict) -> None:
  """Raises InputError for a corpus that is not there, or dictionaries too small for all bytes."""
  smallest = min(config.real_text.sizes, default=0)
  if smallest < SMALLEST:
    raise InputError(
      f'a dictionary of {smallest} tokens (real_text.sizes) is too small: it takes {SMALLEST} to '
      'have each byte as the start and as the continuation of a word.'
    )
  for split in ('train', 'test'):
    sources.open_source(config.data.source, split)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
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

  def measure(family: str, size: int) -> Scores | str:
    """The scores of a dictionary, or why there is none."""
    try:
      tokenizer = families[family](size)
    except InputError as error:
      return str(error)
    [nats] = ngram.token_nats(tokenizer, train, test, [0])
    return Scores(nats, sum(len(tokenizer.encode(document)) for document in test))

  jobs = [(family, size) for family in families for size in sizes.sizes]
  measured = dict(zip(jobs, on_all_cores('real_text', measure, jobs), strict=True))
  bytes_scored = [*map(len, test)]
  note = (
    f'{source}: {sum(map(len, train)):,} bytes to learn and count on, {sum(bytes_scored):,} of '
    f'{len(test)} other documents to score'
  )
  by_order = dict(zip(sizes.orders, ngram.token_nats(Characters(), train, test, sizes.orders)))
  rows = []
  for order, nats in by_order.items():
    row = name(tokenizer='bytes', order=order)
    rows += _rows(row, Scores(nats, sum(bytes_scored)), bytes_scored, note)
  for (family, size), found in measured.items():
    row = name(tokenizer=family, d=size)
    if isinstance(found, str):
      rows.append(Row(TABLE, row, 'nats_per_byte', None, note=f'not learned: {found}'))
      continue
    rows += _rows(row, found, bytes_scored, note)
    smaller = [measured[family, other] for other in sizes.sizes if other < size]
    others = {
      'smaller': next((one.nats for one in smaller[::-1] if isinstance(one, Scores)), None),
      'byte_unigram': by_order.get(0),
      'byte_bigram': by_order.get(1),
    }
    for what, nats in others.items():
      if nats is not None:
        gap = stats.ratio(found.nats - nats, bytes_scored).times(1 / LN2)
        rows.append(Row.of(TABLE, row, f'above_{what}_bits_per_byte', gap, unit='bits/byte',
                           note=f'{OTHERS[what]}, paired by document'))  # fmt: skip
  return rows


class Scores(NamedTuple):
  """A model's score of the test documents.

  Attributes:
    nats: float64 [D], of each document.
    tokens: in all of them.
  """

  nats: np.ndarray
  tokens: int


def _rows(row: str, scores: Scores, bytes_scored: Sequence[int], note: str) -> list[Row]:
  loss = stats.ratio(scores.nats, bytes_scored)
  return [
    Row.of(TABLE, row, 'nats_per_byte', loss, unit='nats/byte', note=note),
    Row.of(TABLE, row, 'bits_per_byte', loss.times(1 / LN2), unit='bits/byte'),
    Row(TABLE, row, 'bytes_per_token', sum(bytes_scored) / scores.tokens, unit='bytes/token'),
  ]
