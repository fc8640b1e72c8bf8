# SPDX-License-Identifier: Apache-2.0
"""Table `bias`: the law of the next byte after any prefix of a Markov source, by closed form."""

from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments.recipe import Pictures, Run, Table
from lib.decoding.byte_view import ByteTexts, Node, OfIds, Vocabulary
from lib.report import plots
from lib.report.plots import Picture
from lib.report.results import Row, Rows, select
from lib.tasks.markov import chains
from lib.tasks.markov.enumerated import Enumerated
from lib.tokenizers import covers
from lib.tokenizers.base import Tokenizer
from lib.tokenizers.bpe import train_bpe_unsplit

# How a prompt that ends anywhere is read: its last tokens that are taken back; None for all.
METHODS: Mapping[str, int | None] = {'naive': 0, 'heal1': 1, 'heal2': 2, 'exact': None}


def kept(vocabulary: Vocabulary, ids: Sequence[int], back: int | None) -> Node:
  """The tokens of a prompt that stay when the last `back` are taken back, or all of them."""
  return vocabulary.nodes(ids[: 0 if back is None else max(len(ids) - back, 0)])


def begin(texts: ByteTexts, nodes: Sequence[Node], prompts: Sequence[bytes]) -> None:
  """Starts texts with the tokens of nodes, and reads the rest of each prompt byte by byte."""
  texts.begin(range(len(prompts)), nodes)
  texts.nats([text[node.place :] for text, node in zip(prompts, nodes, strict=True)])


def errors(known: Enumerated, tokenizer: Tokenizer, back: int | None) -> tuple[float, float, float]:
  """Total variation over prefixes, the largest error of a byte, and that of the sum of all."""
  pieces = [tokenizer.token_bytes(i) or b'' for i in range(tokenizer.vocab_size)] + [b'']
  vocabulary = Vocabulary(pieces, covers.follow(tokenizer), [known.end])
  prefixes, weights = zip(*known.prefixes(), strict=True)
  nodes = [kept(vocabulary, tokenizer.encode(text).tolist(), back) for text in prefixes]
  texts = ByteTexts(vocabulary, OfIds(known.next_token), len(prefixes), strict=False)
  begin(texts, nodes, prefixes)
  found, true = texts.next_bytes(), np.stack([known.next_byte(text) for text in prefixes])
  apart = np.abs(found - true)
  # Where no text has the tokens of a prefix, they tell nothing: the variation is 1.
  known_sum = found.sum(axis=1)
  variation = np.where(known_sum > 0, apart.sum(axis=1) / 2, 1.0)
  total = np.abs(known_sum - 1).max()
  return float(np.average(variation, weights=weights)), float(apart.max()), float(total)


def measure(config: ConfigDict, run: Run) -> Rows:
  """Errors of every method, for sources and sizes of vocabularies."""
  options, rows = config.bias, Rows('bias')
  for stay in options.stay:
    source = chains.switching(1 - stay, 1 - stay, 1)
    text = chains.sample_text(source, options.chars, config.seed, chains.DICTIONARY)
    whole = train_bpe_unsplit([text], max(options.vocab), source.alphabet)
    for size in options.vocab:
      known = Enumerated(source, options.letters, tokenizer := whole.smaller(size))
      for method, back in METHODS.items():
        where = {'stay': stay, 'vocab': size, 'method': method}
        variation, largest, total = errors(known, tokenizer, back)
        note = f'mean over all prefixes of {options.letters} letters by their probability'
        rows.add(where, 'total_variation', variation, 'of 1', note)
        rows.add(where, 'max_abs_error', largest, 'probability', 'over prefixes and bytes')
        rows.add(where, 'sum_error', total, 'probability', 'of all bytes and the end, at most')
  return rows


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Total variation against the size of the vocabulary."""
  panels = []
  for stay in config.bias.stay:
    lines = {
      method: [
        (int(row.where['vocab']), row)
        for row in select(rows, 'bias', 'total_variation', stay=stay, method=method)
      ]
      for method in METHODS
    }
    title = f'a letter is the one before with probability {stay:g}'
    panels.append(plots.row_curves(title, 'tokens', 'total variation', lines, log_x=True))
  caption = 'How far the law of the next byte is from the true one, over all prefixes of all texts.'
  return {'bias.png': Picture(caption, panels)}


TABLE = Table(
  'bias',
  measure,
  'A binary Markov source cut at N letters, all of whose texts are enumerated, so that the law of '
  'tokens is exact; `stay` is the probability that a letter is the one before. `naive` conditions '
  'on the tokens of the prefix; `heal1` and `heal2` take back the last one or two and read their '
  'bytes again; `exact` sums over all covers. The law of the next byte is compared with that of '
  'the source, after every prefix.',
  ('total_variation', 'max_abs_error', 'sum_error'),
  pictures=pictures,
)
