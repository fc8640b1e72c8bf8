# SPDX-License-Identifier: Apache-2.0
"""Table `bias`: distributions of the next byte, compared with those of a Markov source."""

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

# How many of the last tokens of a prompt each method takes back; None: all of them.
METHODS: Mapping[str, int | None] = {'naive': 0, 'heal1': 1, 'heal2': 2, 'exact': None}


def kept(vocabulary: Vocabulary, ids: Sequence[int], back: int | None) -> Node:
  """The node of a prompt's tokens without the last `back` of them; the root for None."""
  return vocabulary.nodes(ids[: 0 if back is None else max(len(ids) - back, 0)])


def begin(texts: ByteTexts, nodes: Sequence[Node], prompts: Sequence[bytes]) -> None:
  """Starts each text after the tokens of its node, and reads the rest of its prompt by bytes."""
  texts.begin(range(len(prompts)), nodes)
  texts.nats([text[node.place :] for text, node in zip(prompts, nodes, strict=True)])


def errors(known: Enumerated, tokenizer: Tokenizer, back: int | None) -> tuple[float, float, float]:
  """Mean total variation over prefixes; the largest error of a probability, and of their sum."""
  pieces = [tokenizer.token_bytes(i) or b'' for i in range(tokenizer.vocab_size)] + [b'']
  vocabulary = Vocabulary(pieces, covers.follow(tokenizer), [known.end])
  prefixes, weights = zip(*known.prefixes(), strict=True)
  nodes = [kept(vocabulary, tokenizer.encode(text).tolist(), back) for text in prefixes]
  texts = ByteTexts(vocabulary, OfIds(known.next_token), len(prefixes), strict=False)
  begin(texts, nodes, prefixes)
  found, true = texts.next_bytes(), np.stack([known.next_byte(text) for text in prefixes])
  apart = np.abs(found - true)
  # If no text begins with the tokens of a prefix, there is no distribution: the variation is 1.
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
        note = f'mean over prefixes of texts of {options.letters} letters, by probability'
        rows.add(where, 'total_variation', variation, 'of 1', note)
        rows.add(where, 'max_abs_error', largest, 'probability', 'largest over prefixes and bytes')
        rows.add(where, 'sum_error', total, 'probability', 'largest |bytes + end − 1|')
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
  caption = 'Total variation between each distribution of the next byte and that of the source.'
  return {'bias.png': Picture(caption, panels)}


TABLE = Table(
  'bias',
  measure,
  'Texts are N letters of a binary Markov source. All of them are enumerated, so the distribution '
  'of tokens is exact. `stay` is the probability that a letter repeats the letter before it. '
  '`naive` conditions on the tokens of the prefix; `heal1` and `heal2` take back the last one or '
  'two tokens and read their bytes again; `exact` sums over all covers of the prefix. After every '
  'prefix, the distribution of the next byte is compared with that of the source.',
  ('total_variation', 'max_abs_error', 'sum_error'),
  pictures=pictures,
)
