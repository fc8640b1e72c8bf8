# SPDX-License-Identifier: Apache-2.0
"""Table stability: how many tokens of a text change with the word before it, and what they mean."""

import collections
import itertools
import re
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments import coders, runner
from experiments.equal_info import texts
from lib import stats
from lib.errors import InputError
from lib.evals import coding
from lib.report.results import Row

TABLE = 'stability'
ORDER = ('sentencepiece', 'greedy', 'ac')  # kinds, few changes to many, in the paper's figure 8
UNITS = 'documents'
WORDS = 3000  # most frequent words of which prefixes are drawn
SHOWN = 40  # tokens in the file of attested texts


def check(config: ConfigDict) -> None:
  """Raises InputError for unknown tokenizers or text that is not there."""
  options = config.stability
  coders.widths(options.methods, (options.token_bits,))
  for field in ('prefixes', 'texts', 'examples'):
    if options[field] < 2:
      raise InputError(f'stability.{field} must be 2 or more; got {options[field]}.')
  texts.held_out(config, options.texts, options.text_length)
  texts.held_out(config, options.examples, options.length)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Edit distances of texts after many words (figure 8), and attested texts (table 8)."""
  options = config.stability
  rows, shown = [], []
  changed: dict[str, tuple[str, np.ndarray]] = {}
  documents = texts.held_out(config, options.examples, options.length).texts
  for [method] in coders.widths(options.methods, (options.token_bits,)):
    tokenizer = coders.make(config, run, method)
    distances, sizes = _prefixes(tokenizer, config, run)
    changed[method.name] = method.row, distances / sizes
    rows += _changes(method, distances, sizes, options)
    meanings = _attested(tokenizer, documents, run)
    rows += _meanings(method.row, meanings)
    shown += [method.row, *_lines(meanings), '']
  run.keep('attested.txt', '\n'.join(shown))
  there = [method for kind in ORDER for method in changed if coders.parse(method)[0] == kind]
  for before, after in itertools.pairwise(there):
    row, shares = changed[after]
    more = stats.mean(shares - changed[before][1], UNITS)
    note = 'paired by text'
    rows.append(Row.of(TABLE, row, f'changed_share_above_{before}', more, unit='share', note=note))
  return rows


def _words(config: ConfigDict, count: int) -> list[bytes]:
  """Words drawn from the most frequent of the train split."""
  found = re.findall(rb'[A-Za-z]{3,}', b'\n'.join(coders.train_documents(config)))
  frequent = [word for word, _ in collections.Counter(found).most_common(WORDS)]
  chosen = np.random.default_rng(config.seed).permutation(len(frequent))[:count]
  return [frequent[i] for i in chosen]


def _prefixes(tokenizer, config: ConfigDict, run: runner.Run) -> tuple[np.ndarray, np.ndarray]:
  """Mean Levenshtein distance over all pairs of words before each text, and its mean tokens [N]."""
  options = config.stability
  words = _words(config, options.prefixes)
  excerpts = texts.held_out(config, options.texts, options.text_length)
  documents = [word + b' ' + text for text in excerpts.texts for word in words]
  ids = [ids for ids, _ in coders.encode(run, tokenizer, documents)]
  distances, sizes = [], []
  for begin in range(0, len(ids), len(words)):
    of_text = ids[begin : begin + len(words)]
    pairs = itertools.combinations(of_text, 2)
    distances.append(np.mean([coding.edit_distance(a, b) for a, b in pairs]))
    sizes.append(np.mean([x.size for x in of_text]))
  return np.array(distances), np.array(sizes)


def _changes(
  method: coders.Method, distances: np.ndarray, sizes: np.ndarray, options: ConfigDict
) -> list[Row]:
  note = (
    f'{options.prefixes} words before each of {len(sizes)} held-out texts of '
    f'{options.text_length} bytes, all pairs of words'
  )
  put = lambda column, values, **rest: Row.of(
    TABLE, method.row, column, stats.mean(values, UNITS), **rest
  )
  return [
    put(
      'edit_distance',
      distances,
      unit='tokens',
      note=note if method.lossless else note + '; not lossless',
    ),
    put('tokens', sizes, unit='tokens'),
    put('changed_share', distances / sizes, unit='share'),
  ]


def _attested(
  tokenizer, documents: Sequence[bytes], run: runner.Run
) -> dict[int, collections.Counter]:
  """Which bytes each token that occurs covers, and how often."""
  found: dict[int, collections.Counter] = collections.defaultdict(collections.Counter)
  for document, (ids, lengths) in zip(documents, coders.encode(run, tokenizer, documents)):
    ends = np.cumsum(lengths).tolist()
    for token, begin, end in zip(ids.tolist(), [0, *ends], ends):
      found[token][document[begin:end]] += 1
  return found


def _meanings(row: str, meanings: dict[int, collections.Counter]) -> list[Row]:
  repeated = [len(texts) for texts in meanings.values() if texts.total() > 1]
  note = 'different stretches that a token covers, of those tokens that occur more than once'
  several = stats.mean(repeated, 'tokens').value if repeated else None
  return [
    Row(TABLE, row, 'attested_tokens', len(meanings), unit='tokens'),
    Row(TABLE, row, 'repeated_share', len(repeated) / len(meanings), unit='share'),
    Row(TABLE, row, 'texts_per_token', several, unit='texts', note=note),
  ]


def _lines(meanings: dict[int, collections.Counter]) -> list[str]:
  """The tokens that occur most, each with its texts."""
  often = sorted(meanings.items(), key=lambda item: (-item[1].total(), item[0]))[:SHOWN]
  return [
    f'{token:6d}  ' + '  '.join(f'{text!r} x{n}' for text, n in texts.most_common(5))
    for token, texts in often
  ]
