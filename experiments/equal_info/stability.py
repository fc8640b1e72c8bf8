# SPDX-License-Identifier: Apache-2.0
"""Table stability: how many tokens of a text change with the word before it, and the texts of a
token.
"""

import collections
import itertools
import re

import numpy as np
from ml_collections import ConfigDict

from experiments import coders
from experiments.equal_info.ratio import held_out
from experiments.recipe import Run, Table, naming, text_of
from lib import stats
from lib.compression import coded_text
from lib.report.results import Rows, name

ORDER = (
  'sentencepiece',
  'greedy',
  'ac',
)  # kinds, by rising number of changes in the paper's figure 8
UNITS = 'documents'
WORDS = 3000  # most frequent words, from which prefixes are sampled
SHOWN = 40  # tokens in the file of attested texts


def check(config: ConfigDict) -> None:
  """Raises InputError for unknown tokenizers or missing text."""
  options = config.stability
  coders.check_m1(config)
  with naming('stability.methods'):
    coders.widths(options.methods, (options.token_bits,))
  with naming('stability.text_length'):
    held_out(config, options.texts, options.text_length)
  with naming('stability.length'):
    held_out(config, options.examples, options.length)


def measure(config: ConfigDict, run: Run) -> Rows:
  """Edit distances of texts after many words (figure 8), and attested texts (table 8)."""
  options, rows = config.stability, Rows('stability', coders.lossy)
  words = _words(config, options.prefixes)
  excerpts = held_out(config, options.texts, options.text_length).texts
  prefixed = [word + b' ' + text for text in excerpts for word in words]
  documents = held_out(config, options.examples, options.length).texts
  note = (
    f'{options.prefixes} words before each of {len(excerpts)} held-out texts of '
    f'{options.text_length} bytes, all pairs of words'
  )
  shown: list[str] = []
  changed: dict[coders.Method, np.ndarray] = {}
  for [method] in coders.widths(options.methods, (options.token_bits,)):
    tokenizer, where = coders.make(config, run, method), method.where
    ids = [ids for ids, _ in coders.encode(run, tokenizer, prefixed)]
    of_texts = [ids[begin : begin + len(words)] for begin in range(0, len(ids), len(words))]
    distances = np.array([coded_text.mean_distance(of_text) for of_text in of_texts])
    sizes = np.array([np.mean([one.size for one in of_text]) for of_text in of_texts])
    changed[method] = distances / sizes
    about = note if method.lossless else note + '; not lossless'
    rows.add(where, 'edit_distance', stats.mean(distances, UNITS), 'tokens', about)
    rows.add(where, 'tokens', stats.mean(sizes, UNITS), 'tokens')
    rows.add(where, 'changed_share', stats.mean(changed[method], UNITS), 'share')
    meanings = coded_text.attested(documents, coders.encode(run, tokenizer, documents))
    _add_meanings(rows, where, meanings)
    shown += [name(**where), *_lines(meanings), '']
  run.keep('attested.txt', '\n'.join(shown))
  there = [method for kind in ORDER for method in changed if method.kind == kind]
  for before, after in itertools.pairwise(there):
    more = stats.mean(changed[after] - changed[before], UNITS)
    column = f'changed_share_above_{before.name}'
    rows.add(after.where, column, more, 'share', 'paired by text')
  return rows


def _words(config: ConfigDict, count: int) -> list[bytes]:
  """Random words among the most frequent of the train split."""
  found = re.findall(rb'[A-Za-z]{3,}', b'\n'.join(coders.train_documents(config)))
  frequent = [word for word, _ in collections.Counter(found).most_common(WORDS)]
  chosen = np.random.default_rng(config.seed).permutation(len(frequent))[:count]
  return [frequent[i] for i in chosen]


def _add_meanings(rows: Rows, where: dict, meanings: dict[int, collections.Counter]) -> None:
  repeated = [len(texts) for texts in meanings.values() if texts.total() > 1]
  note = 'different stretches that a token covers, of those tokens that occur more than once'
  several = stats.mean(repeated, 'tokens').value if repeated else None
  rows.add(where, 'attested_tokens', len(meanings), 'tokens')
  rows.add(where, 'repeated_share', len(repeated) / len(meanings), 'share')
  rows.add(where, 'texts_per_token', several, 'texts', note)


def _lines(meanings: dict[int, collections.Counter]) -> list[str]:
  """The tokens that occur most, each with its texts."""
  often = sorted(meanings.items(), key=lambda item: (-item[1].total(), item[0]))[:SHOWN]
  return [
    f'{token:6d}  ' + '  '.join(f'{text!r} x{n}' for text, n in texts.most_common(5))
    for token, texts in often
  ]


TABLE = Table(
  'stability',
  measure,
  'How many tokens of a text change when the word before it does (Levenshtein distance over pairs '
  'of words), and how many different stretches of text one token covers; attested.txt lists the '
  'texts of frequent tokens. ± is one standard error over texts, each of another document.',
  ('edit_distance', 'changed_share', 'repeated_share', 'texts_per_token'),
  check=check,
  train_specs=coders.m1_specs,
  sources=text_of,
)
