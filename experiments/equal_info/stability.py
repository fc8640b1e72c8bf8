# SPDX-License-Identifier: Apache-2.0
"""Table stability: what of a text's tokens another word before it changes, and what tokens mean."""

import collections
import itertools
import re

import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.equal_info import codecs, texts
from lib.errors import InputError
from lib.evals import coding
from lib.report.results import Row, mean_and_sem

TABLE = 'stability'
WORDS = 3000  # most frequent words of which prefixes are drawn
SHOWN = 40  # tokens in the file of attested texts


def check(config: ConfigDict) -> None:
  """Raises InputError for unknown tokenizers or text that is not there."""
  options = config.stability
  codecs.widths(options.methods, (options.token_bits,))
  for field in ('prefixes', 'texts', 'examples'):
    if options[field] < 2:
      raise InputError(f'stability.{field} must be 2 or more; got {options[field]}.')
  texts.held_out(config, options.texts, options.text_length)
  texts.held_out(config, options.examples, options.length)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Edit distances of one text after many words (figure 8), and attested texts (table 8)."""
  options = config.stability
  rows, shown = [], []
  for [method] in codecs.widths(options.methods, (options.token_bits,)):
    tokenizer = codecs.make(config, run, method)
    rows += _prefixes(method.row, tokenizer, config, run)
    documents = texts.held_out(config, options.examples, options.length)
    meanings = _attested(tokenizer, documents, run)
    rows += _meanings(method.row, meanings)
    shown += [method.row, *_lines(meanings), '']
  run.keep('attested.txt', '\n'.join(shown))
  return rows


def _words(config: ConfigDict, count: int) -> list[bytes]:
  """Words drawn from the most frequent of the train split."""
  found = re.findall(rb'[A-Za-z]{3,}', b'\n'.join(texts.train(config)))
  frequent = [word for word, _ in collections.Counter(found).most_common(WORDS)]
  chosen = np.random.default_rng(config.seed).permutation(len(frequent))[:count]
  return [frequent[i] for i in chosen]


def _prefixes(row: str, tokenizer, config: ConfigDict, run: runner.Run) -> list[Row]:
  """Levenshtein distance over all pairs of words before one text; errors are over texts."""
  options = config.stability
  words = _words(config, options.prefixes)
  distances, sizes = [], []
  stretches = texts.held_out(config, options.texts, options.text_length)
  documents = [word + b' ' + text for text in stretches for word in words]
  ids = [ids for ids, _ in codecs.tokens(run, tokenizer, documents)]
  for begin in range(0, len(ids), len(words)):
    pairs = itertools.combinations(ids[begin : begin + len(words)], 2)
    distances.append(float(np.mean([coding.edit_distance(a, b) for a, b in pairs])))
    sizes.append(float(np.mean([x.size for x in ids[begin : begin + len(words)]])))
  share, sem = mean_and_sem([d / n for d, n in zip(distances, sizes)])
  note = (
    f'{len(words)} words before each of {len(stretches)} held-out texts of {options.text_length} '
    'bytes, all pairs of words'
  )
  return [
    Row(TABLE, row, 'edit_distance', *mean_and_sem(distances), unit='tokens', note=note),
    Row(TABLE, row, 'tokens', *mean_and_sem(sizes), unit='tokens'),
    Row(TABLE, row, 'changed_share', share, sem),
  ]


def _attested(tokenizer, documents: list[bytes], run: runner.Run) -> dict[int, collections.Counter]:
  """Which bytes each token that occurs covers, and how often."""
  found: dict[int, collections.Counter] = collections.defaultdict(collections.Counter)
  for document, (ids, lengths) in zip(documents, codecs.tokens(run, tokenizer, documents)):
    ends = np.cumsum(lengths).tolist()
    for token, begin, end in zip(ids.tolist(), [0, *ends], ends):
      found[token][document[begin:end]] += 1
  return found


def _meanings(row: str, meanings: dict[int, collections.Counter]) -> list[Row]:
  repeated = [texts for texts in meanings.values() if texts.total() > 1]
  share = len(repeated) / len(meanings)
  several = [len(texts) for texts in repeated]
  count, sem = mean_and_sem(several) if several else (None, None)
  note = 'different stretches that a token covers, of those tokens that occur more than once'
  return [
    Row(TABLE, row, 'attested_tokens', len(meanings), unit='tokens'),
    Row(TABLE, row, 'repeated_share', share, (share * (1 - share) / len(meanings)) ** 0.5),
    Row(TABLE, row, 'texts_per_token', count, sem, unit='texts', note=note),
  ]


def _lines(meanings: dict[int, collections.Counter]) -> list[str]:
  """The tokens that occur most, each with its texts."""
  often = sorted(meanings.items(), key=lambda item: (-item[1].total(), item[0]))[:SHOWN]
  return [
    f'{token:6d}  ' + '  '.join(f'{text!r} x{n}' for text, n in texts.most_common(5))
    for token, texts in often
  ]
