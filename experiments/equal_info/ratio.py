# SPDX-License-Identifier: Apache-2.0
"""Table ratio: how far each tokenizer compresses held-out text, and whether it gives it back."""

import functools
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments import coders, runner
from experiments.equal_info import texts
from lib import stats
from lib.data.encoded import Encoded
from lib.errors import InputError
from lib.evals import coding
from lib.models import one_pass
from lib.report.results import Row, name
from lib.tokenizers.base import Tokenizer
from lib.tokenizers.coding import slices

TABLE = 'ratio'
# For one M1 more bytes fit into a token in this order (the paper's Tables 1 and 12).
ORDER = ('static_ac', 'greedy16', 'greedy24', 'greedy32', 'greedy64', 'greedy128', 'ac')
# How much longer than M1's own -log2 p AC may be. Frequencies of 14 bits give each of 257 symbols 1
# of 16,384 at least, so up to 0.023 bits per byte: 1.3 % at the 1.8 bits per byte of our M1. The
# mark of the end and rounding take 0.4 % of a document of 3,072 bytes.
CLOSE = 0.02
UNITS = 'documents'


def check(config: ConfigDict) -> None:
  """Raises InputError for unknown tokenizers or text that is not there."""
  options = config.ratio
  if options.examples < 2 or options.length < 16:
    raise InputError(
      'ratio.examples must be 2 or more and ratio.length 16 or more; got '
      f'{options.examples} and {options.length}.'
    )
  coders.widths(options.methods, options.token_bits)
  texts.held_out(config, options.examples, options.length)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Every tokenizer on the same held-out text, one excerpt of each document."""
  options = config.ratio
  documents = texts.held_out(config, options.examples, options.length).texts
  rows: list[Row] = []
  tokens: dict[coders.Method, np.ndarray] = {}
  for method, *others in coders.widths(options.methods, options.token_bits):
    tokenizer = coders.make(config, run, method)
    coded = coders.encode(run, tokenizer, documents)
    tokens[method] = coded.counts
    rows += _sizes(method, tokenizer.vocab_size, coded.counts, documents)
    rows += _restored(method, tokenizer, documents, coded)
    for other in others:
      assert method.token_bits
      assert other.token_bits
      sliced = functools.partial(slices.sliced, bits=method.token_bits, other=other.token_bits)
      tokens[other] = np.array([len(sliced(ids)) for ids, _ in coded])
      rows += _sizes(other, 1 << other.token_bits, tokens[other], documents)
  return rows + _ideal(config, run, documents, tokens) + _order(documents, tokens)


def _sizes(
  method: coders.Method, vocab_size: int, tokens: np.ndarray, documents: Sequence[bytes]
) -> list[Row]:
  """Bytes per token and bits per byte."""
  size = np.array([len(document) for document in documents])
  bits = stats.ratio(tokens * np.log2(vocab_size), size)
  note = f'{size.sum():,} bytes of {len(documents)} held-out documents; one M1'
  return [
    Row.of(
      TABLE,
      method.row,
      'bytes_per_token',
      stats.ratio(size, tokens),
      unit='bytes/token',
      note=note if method.lossless else note + '; not lossless',
    ),
    Row.of(TABLE, method.row, 'bits_per_byte', bits, unit='bits/byte'),
  ]


def _restored(
  method: coders.Method, tokenizer: Tokenizer, documents: Sequence[bytes], coded: Encoded
) -> list[Row]:
  """The share of documents that come back, and of windows where several texts have one code."""
  if tokenizer.lossless:
    found = coding.decode(tokenizer, [ids for ids, _ in coded])
    same = [a == b for (a, _), b in zip(found, documents, strict=True)]
    return [Row(TABLE, method.row, 'documents_restored', float(np.mean(same)), unit='share')]
  restored, windows = coding.windows_restored(tokenizer, documents, coded)
  note = 'not lossless: several texts have one code'
  put = functools.partial(Row.of, TABLE, method.row, unit='share', note=note)
  return [
    put('documents_restored', stats.share(restored == windows, UNITS)),
    put('windows_restored', stats.ratio(restored, windows)),
  ]


def _ideal(config, run, documents, tokens: Mapping[coders.Method, np.ndarray]) -> list[Row]:
  """M1's own code length of the documents, and what AC takes beyond it."""
  model = coders.m1(config, run)
  lengths = coding.code_lengths(one_pass.probabilities(model, documents), documents)
  size = np.array([len(document) for document in documents])
  row = name(method='m1')
  rows = [
    Row.of(
      TABLE,
      row,
      'bits_per_byte',
      stats.ratio(lengths.exact, size),
      unit='bits/byte',
      note='the ideal code length: -log2 of the probabilities of the bytes',
    ),
    Row.of(
      TABLE,
      row,
      'bytes_per_token',
      stats.ratio(8 * size, lengths.exact),
      unit='bytes/token',
      note='the most that tokens of 8 bits can hold',
    ),
    Row(TABLE, row, 'parameters', model.parameters, unit='parameters'),
  ]
  streams = [method for method in tokens if method.name == 'ac']
  if streams:
    method = streams[0]
    assert method.token_bits
    spent = tokens[method] * method.token_bits
    rows += _excess(lengths, spent)
  return rows


def _excess(lengths: coding.CodeLengths, spent: np.ndarray) -> list[Row]:
  """AC's bits beyond -log2 p of M1, as a share of these, and its three parts, which add up."""
  put = functools.partial(Row.of, TABLE, name(check='ac_is_ideal'), unit='share')
  over = stats.ratio(spent - lengths.exact, lengths.exact)
  notes = {
    'frequencies': '14-bit frequencies, each at least 1 of 16,384',
    'end_mark': 'the mark that ends a stream, of 14 bits',
    'rounding': 'whole bits and whole tokens',
  }
  note = f'AC takes {spent.sum():,} bits and -log2 p of M1 is {lengths.exact.sum():,.1f}'
  bar = f'at most {CLOSE:.0%} longer than -log2 p of M1; 257 of 16,384 are reserved'
  return [
    put('excess', over, note=note),
    Row(TABLE, name(check='ac_is_ideal'), 'holds', float(over.value <= CLOSE), note=bar),
    *(
      put(f'excess_of_{part}', stats.ratio(bits, lengths.exact), note=notes[part])
      for part, bits in lengths.excess(spent).items()
    ),
  ]


def _order(documents: Sequence[bytes], tokens: Mapping[coders.Method, np.ndarray]) -> list[Row]:
  """How many more bytes per token each method has than the one before it in the paper's order.

  Numbered windows, which are lossless, are compared with delayed and greedy ones of their width.
  They hold the texts of the greedy ones, so those two are compared exactly, on these documents.
  """
  size = np.array([len(document) for document in documents])
  rows = []
  for width in sorted({method.token_bits for method in tokens if method.token_bits}):
    of = {method.name: one for method, one in tokens.items() if method.token_bits == width}
    there = [method for method in ORDER if method in of]
    pairs = [*itertools.pairwise(there)]
    for method in of:
      kind, bits = coders.parse(method)
      if kind == 'numbered':
        pairs += [(other, method) for other in (f'delay{bits}', f'greedy{bits}') if other in of]
    for before, after in pairs:
      one, other = (stats.contributions(size, of[method]) for method in (after, before))
      found = stats.mean(one - other, UNITS)
      row, column = coders.Method(after, width).row, f'bytes_per_token_above_{before}'
      note = 'paired by document'
      if (coders.parse(before)[0], coders.parse(after)[0]) == ('greedy', 'numbered'):
        found, note = stats.Estimate(found.value), 'exact: the same documents in both'
      rows.append(Row.of(TABLE, row, column, found, unit='bytes/token', note=note))
  return rows
