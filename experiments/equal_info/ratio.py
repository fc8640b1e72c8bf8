# SPDX-License-Identifier: Apache-2.0
"""Table ratio: the compression ratio of each tokenizer on held-out text, and whether text is
restored.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments import coders
from experiments.coders import Method
from experiments.equal_info import pictures
from experiments.recipe import Run, Table, naming, text_of
from lib import stats
from lib.compression import coded_text, teacher_forced
from lib.compression.byte_model import ByteModel
from lib.data import excerpts
from lib.data.encoded import Encoded
from lib.data.excerpts import Excerpts
from lib.progress import Bar
from lib.report.results import Rows
from lib.tokenizers.base import Tokenizer
from lib.tokenizers.coding import slices

# For one M1 more bytes fit into a token in this order (the paper's Tables 1 and 12).
ORDER = ('static_ac', 'greedy16', 'greedy24', 'greedy32', 'greedy64', 'greedy128', 'ac')
# How much longer than -log2 p of M1 AC may be. Frequencies of 14 bits give each of 257 symbols 1
# of 16,384 at least, so up to 0.023 bits per byte: 1.3 % at the 1.8 bits per byte of our M1. The
# mark of the end and rounding take 0.4 % of a document of 3,072 bytes.
CLOSE = 0.02
UNITS = 'documents'


def check(config: ConfigDict) -> None:
  """Raises InputError for unknown tokenizers or missing text."""
  with naming('ratio.methods'):
    coders.widths(config.ratio.methods, config.ratio.token_bits)
  check_text(config, 'ratio')


def check_text(config: ConfigDict, table: str) -> None:
  """Raises InputError if M1 cannot be built, or the excerpts of a table are missing."""
  options = config[table]
  coders.check_m1(config)
  with naming(f'{table}.length'):
    held_out(config, options.examples, options.length)


def held_out(config: ConfigDict, examples: int, length: int) -> Excerpts:
  """The first `length` bytes of `examples` test documents, or of all that are long enough."""
  source, total = config.data.source, examples * length
  return excerpts.of_split(source, 'test', length=length, total=total, most=1)


def measure(config: ConfigDict, run: Run) -> Rows:
  """Every tokenizer on the same held-out text, one excerpt of each document."""
  options, rows = config.ratio, Rows('ratio', coders.lossy)
  documents = held_out(config, options.examples, options.length).texts
  size = np.array([len(document) for document in documents])
  tokens: dict[Method, np.ndarray] = {}
  for method, *others in Bar(coders.widths(options.methods, options.token_bits), desc='tokenizers'):
    tokenizer = coders.make(config, run, method)
    coded = coders.encode(run, tokenizer, documents)
    tokens[method] = coded.counts
    _add_sizes(rows, method, tokenizer.vocab_size, coded.counts, size)
    _add_restored(rows, method, tokenizer, documents, coded)
    for other in others:
      assert method.token_bits
      assert other.token_bits
      sliced = [slices.sliced(ids, method.token_bits, other.token_bits) for ids, _ in coded]
      tokens[other] = np.array([len(ids) for ids in sliced])
      _add_sizes(rows, other, 1 << other.token_bits, tokens[other], size)
  _add_ideal(rows, coders.m1(config, run), documents, tokens)
  _add_order(rows, size, tokens)
  return rows


def _add_sizes(
  rows: Rows, method: Method, vocab_size: int, tokens: np.ndarray, size: np.ndarray
) -> None:
  """Bytes per token and bits per byte of documents of `size` bytes [N]."""
  note = f'{size.sum():,} bytes of {size.size} held-out documents; one M1'
  note += '' if method.lossless else '; not lossless'
  bits = stats.ratio(tokens * np.log2(vocab_size), size)
  rows.add(method.where, 'bytes_per_token', stats.ratio(size, tokens), 'bytes/token', note)
  rows.add(method.where, 'bits_per_byte', bits, 'bits/byte')


def _add_restored(
  rows: Rows, method: Method, tokenizer: Tokenizer, documents: Sequence[bytes], coded: Encoded
) -> None:
  """The share of restored documents, and of restored windows if several texts can have one code."""
  if tokenizer.lossless:
    found = coded_text.decode(tokenizer, [ids for ids, _ in coded])
    same = [a == b for (a, _), b in zip(found, documents, strict=True)]
    rows.add(method.where, 'documents_restored', float(np.mean(same)), 'share')
    return
  restored, windows = coded_text.windows_restored(tokenizer, documents, coded)
  note = 'not lossless: several texts have one code'
  whole = stats.share(restored == windows, UNITS)
  rows.add(method.where, 'documents_restored', whole, 'share', note)
  rows.add(method.where, 'windows_restored', stats.ratio(restored, windows), 'share', note)


def _add_ideal(
  rows: Rows, model: ByteModel, documents: Sequence[bytes], tokens: Mapping[Method, np.ndarray]
) -> None:
  """The ideal code length of the documents under M1, and AC's excess over it."""
  lengths = coded_text.code_lengths(teacher_forced.probabilities(model, documents), documents)
  size = np.array([len(document) for document in documents])
  where = {'method': 'm1'}
  note = 'the ideal code length: -log2 of the probabilities of the bytes'
  rows.add(where, 'bits_per_byte', stats.ratio(lengths.exact, size), 'bits/byte', note)
  note = 'the bound for tokens of 8 bits'
  rows.add(where, 'bytes_per_token', stats.ratio(8 * size, lengths.exact), 'bytes/token', note)
  rows.add(where, 'parameters', model.parameters, 'parameters')
  for method in [method for method in tokens if method.name == 'ac'][:1]:
    assert method.token_bits
    _add_excess(rows, lengths, tokens[method] * method.token_bits)


def _add_excess(rows: Rows, lengths: coded_text.CodeLengths, spent: np.ndarray) -> None:
  """AC's excess over -log2 p of M1, relative to it, and the three parts of the excess."""
  where = {'check': 'ac_is_ideal'}
  over = stats.ratio(spent - lengths.exact, lengths.exact)
  note = f'AC takes {spent.sum():,} bits and -log2 p of M1 is {lengths.exact.sum():,.1f}'
  rows.add(where, 'excess', over, 'share', note)
  bar = f'at most {CLOSE:.0%} longer than -log2 p of M1; 257 of 16,384 are reserved'
  rows.add(where, 'holds', float(over.value <= CLOSE), 'yes/no', bar)
  notes = {
    'frequencies': '14-bit frequencies, each at least 1 of 16,384',
    'end_mark': 'the mark that ends a stream, of 14 bits',
    'rounding': 'whole bits and whole tokens',
  }
  for part, bits in lengths.excess(spent).items():
    share = stats.ratio(bits, lengths.exact)
    rows.add(where, f'excess_of_{part}', share, 'share', notes[part])


def _add_order(rows: Rows, size: np.ndarray, tokens: Mapping[Method, np.ndarray]) -> None:
  """The difference in bytes per token between neighbours in the paper's order.

  Numbered windows, which are lossless, are compared with delayed and greedy ones of their width.
  They have the texts of the greedy ones, so those two are compared exactly, on these documents.
  """
  for width in sorted({method.token_bits for method in tokens if method.token_bits}):
    of = {method.name: one for method, one in tokens.items() if method.token_bits == width}
    pairs = [*itertools.pairwise(method for method in ORDER if method in of)]
    for method in of:
      kind, bits = coders.parse(method)
      if kind == 'numbered':
        pairs += [(other, method) for other in (f'delay{bits}', f'greedy{bits}') if other in of]
    for before, after in pairs:
      one, other = (stats.contributions(size, of[method]) for method in (after, before))
      found, note = stats.mean(one - other, UNITS), 'paired by document'
      if before.startswith('greedy') and after.startswith('numbered'):
        found, note = stats.Estimate(found.value), 'exact: the same documents in both'
      column = f'bytes_per_token_above_{before}'
      rows.add(Method(after, width).where, column, found, 'bytes/token', note)


TABLE = Table(
  'ratio',
  measure,
  'Bytes of held-out text per token, and bits per byte of the tokens at log2 of the vocabulary for '
  'each. Greedy windows are not lossless: several texts share a code, and windows_restored says '
  'how many windows come back. ± is one standard error over documents.',
  ('bytes_per_token', 'bits_per_byte', 'documents_restored', 'windows_restored', 'excess', 'holds'),
  check=check,
  train_specs=coders.m1_specs,
  pictures=lambda rows, config, run: {'ratio.png': pictures.ratio(rows)},
  sources=text_of,
)
