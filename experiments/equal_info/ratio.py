# SPDX-License-Identifier: Apache-2.0
"""Table ratio: how far each tokenizer compresses held-out text, and whether it gives it back."""

from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.equal_info import codecs, m1, texts
from lib.data.encoded import Encoded
from lib.errors import InputError
from lib.evals import coding, ngram
from lib.report.results import Row, name
from lib.tokenizers.base import Tokenizer

TABLE = 'ratio'
# For one M1 more bytes fit into a token in this order (the paper's Table 1).
ORDER = ('static_ac', 'greedy16', 'greedy32', 'greedy64', 'greedy128', 'ac')
CLOSE = 5e-4  # how near AC must come to the ideal code length


def check(config: ConfigDict) -> None:
  """Raises InputError for unknown tokenizers or text that is not there."""
  options = config.ratio
  if options.examples < 2 or options.length < 16:
    raise InputError(
      'ratio.examples must be 2 or more and ratio.length 16 or more; got '
      f'{options.examples} and {options.length}.'
    )
  codecs.widths(options.methods, options.token_bits)
  texts.held_out(config, options.examples, options.length)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Every tokenizer on the same stretches of held-out text."""
  options = config.ratio
  documents = texts.held_out(config, options.examples, options.length)
  rows: list[Row] = []
  tokens: dict[str, np.ndarray] = {}
  for method, *others in codecs.widths(options.methods, options.token_bits):
    tokenizer = codecs.make(config, run, method)
    coded = codecs.tokens(run, tokenizer, documents)
    tokens[method.name] = count = coded.counts
    rows += _sizes(method.row, tokenizer.vocab_size, count, documents)
    rows += _restored(method.row, tokenizer, documents, coded)
    for other in others:
      count = np.array([len(codecs.sliced(ids, method, other)) for ids, _ in coded])
      rows += _sizes(other.row, other.vocab_size, count, documents)
  width = min(options.token_bits)
  return rows + _ideal(config, run, documents, tokens, width) + _order(documents, tokens)


def _sizes(row: str, vocab_size: int, tokens: np.ndarray, documents: Sequence[bytes]) -> list[Row]:
  """Bytes a token and bits a byte; errors are over documents."""
  size = np.array([len(document) for document in documents])
  ratio, sem = ngram.per_character(size, tokens, len(documents))
  bits, bits_sem = ngram.per_character(tokens * np.log2(vocab_size), size, len(documents))
  note = f'{size.sum():,} bytes of {len(documents)} held-out documents'
  return [
    Row(TABLE, row, 'bytes_per_token', ratio, sem, unit='bytes/token', note=note),
    Row(TABLE, row, 'bits_per_byte', bits, bits_sem, unit='bits/byte'),
  ]


def _restored(
  row: str, tokenizer: Tokenizer, documents: Sequence[bytes], coded: Encoded
) -> list[Row]:
  """The share of documents that come back, and of windows where they are not all sure to."""
  found = codecs.decode(tokenizer, [ids for ids, _ in coded])
  same = [a == b for (a, _), b in zip(found, documents)]
  note = '' if tokenizer.lossless else 'not lossless: several texts have one code'
  rows = [Row(TABLE, row, 'documents_restored', float(np.mean(same)), note=note)]
  if not tokenizer.lossless:
    windows = []
    for document, (text, lengths), (_, meant) in zip(documents, found, coded):
      pairs = zip(_windows(document, meant), _windows(text, lengths), strict=True)
      windows += [a == b for a, b in pairs]
    share, error = float(np.mean(windows)), float(np.std(windows) / len(windows) ** 0.5)
    rows.append(Row(TABLE, row, 'windows_restored', share, error))
  return rows


def _windows(text: bytes, lengths: np.ndarray) -> list[bytes]:
  """The texts of the windows of a document from the bytes that each token covers."""
  ends = np.cumsum(lengths[lengths > 0]).tolist()
  return [text[a:b] for a, b in zip([0, *ends], ends)]


def _ideal(config, run, documents, tokens: Mapping[str, np.ndarray], width: int) -> list[Row]:
  """M1's own code length of the documents, and AC's beside it."""
  stepper = m1.stepper(config, run)
  exact, coded = coding.ideal_bits(stepper, documents)
  size = np.array([len(document) for document in documents])
  row = name(method='m1')
  bits, sem = ngram.per_character(exact, size, len(documents))
  put = lambda column, value, error=None, unit='', note='', row=row: Row(
    TABLE, row, column, value, error, unit=unit, note=note
  )
  rows = [
    put('bits_per_byte', bits, sem, 'bits/byte', 'the ideal code length, -log2 of probabilities'),
    put(
      'bytes_per_token', 8 / bits, None, 'bytes/token', 'the most that tokens of 8 bits can hold'
    ),
    put('parameters', stepper.model.parameters, unit='parameters'),
  ]
  if 'ac' in tokens:
    excess = tokens['ac'].sum() * width / coded.sum() - 1
    note = f'AC against {coded.sum():,.1f} bits, ideal with the same 14-bit frequencies'
    check = name(check='ac_is_ideal')
    rows += [
      put('excess', excess, note=note, row=check),
      put('holds', float(excess <= CLOSE), row=check, note=f'at most {CLOSE:.2%} longer'),
      put('cost_of_14_bits', coded.sum() / exact.sum() - 1, row=check),
    ]
  return rows


def _order(documents: Sequence[bytes], tokens: Mapping[str, np.ndarray]) -> list[Row]:
  """Whether the methods stand in the paper's order, in all and document by document."""
  there = [method for method in ORDER if method in tokens]
  counts = np.array([tokens[method] for method in there])
  falls = np.diff(counts, axis=0) < 0
  row, note = name(check='order'), ' < '.join(there)
  return [
    Row(TABLE, row, 'holds', float((np.diff(counts.sum(axis=1)) < 0).all()), note=note),
    Row(TABLE, row, 'documents_in_order', float(falls.all(axis=0).mean()), note=note),
  ]
