# SPDX-License-Identifier: Apache-2.0
"""Table uniformity: how far the bits of tokens are from random ones (figures 11, 16 and 17)."""

import functools
import itertools

import numpy as np
from ml_collections import ConfigDict

from experiments import coders, runner
from experiments.equal_info import texts
from lib import stats
from lib.data.encoded import Encoded
from lib.errors import InputError
from lib.evals import coding
from lib.report.results import Row, name

TABLE = 'uniformity'
# From far to near in the paper's figures, all under one M1 but for GZip.
ORDER = ('gzip', 'greedy16', 'greedy24', 'greedy32', 'greedy64', 'greedy128', 'ac')
KINDS = {'ngrams': True, 'tokens': False}  # whether strings of bits overlap
UNITS = 'documents'


def check(config: ConfigDict) -> None:
  """Raises InputError for unknown tokenizers or strings of bits that cannot be counted."""
  options = config.uniformity
  coders.widths(options.methods, (8,))
  for bits in options.bits:
    if bits not in (1, 2, 4, 8, 16):
      raise InputError(f'uniformity.bits {bits} is not one of 1, 2, 4, 8, 16.')
  for field in ('draws', 'most'):
    if options[field] < 2:
      raise InputError(f'uniformity.{field} must be 2 or more; got {options[field]}.')
  if texts.stretches(config, 'test', options.length, 2 * options.length, 1).distinct < 2:
    raise InputError(
      f'uniformity wants 2 or more documents of {options.length} bytes in '
      f'{config.data.source} (test): make uniformity.length smaller.'
    )


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Every tokenizer on the same held-out text, compared with as many random bytes."""
  options = config.uniformity
  found = texts.stretches(config, 'test', options.length, options.bytes, options.most)
  streams = {
    method.name: by_document(
      coders.encode(run, coders.make(config, run, method), found.texts, known=True),
      found.documents,
    )
    for [method] in coders.widths(options.methods, (8,))
  }
  rows: list[Row] = []
  for kind, overlapping in KINDS.items():
    for bits in options.bits:
      counts = {
        method: coding.string_counts(parts, bits, overlapping) for method, parts in streams.items()
      }
      there = {  # fewer strings than kinds of them say nothing
        method: one for method, one in counts.items() if one.sum() >= 1 << bits
      }
      for method, one in there.items():
        sizes = [part.size for part in streams[method]]
        random = coding.random_divergence(sizes, bits, overlapping, config.seed, options.draws)
        rows += _rows(name(method=method, kind=kind, n=bits), one, random, sum(sizes))
      rows += _order(there, kind, bits)
  return rows


def by_document(coded: Encoded, documents: np.ndarray) -> list[np.ndarray]:
  """The token bytes of each document's excerpts end to end, uint8 [bytes] each."""
  found: dict[int, list[np.ndarray]] = {}
  for document, (ids, _) in zip(documents.tolist(), coded, strict=True):
    found.setdefault(document, []).append(ids.astype(np.uint8))
  return [np.concatenate(parts) for parts in found.values()]


def _rows(row: str, counts: np.ndarray, random: np.ndarray, size: int) -> list[Row]:
  """KL divergence by counts alone, corrected, of random bytes, and above these."""
  total = counts.sum(axis=0)
  put = functools.partial(Row.of, TABLE, row, unit='bits')
  spread = float(random.std(ddof=1))
  note = (
    f'{8 * size:,} bits of tokens; as many random bits have a standard deviation of {spread:.2g}'
  )
  alone, corrected = (float(coding.divergence(total, one)) for one in (False, True))
  return [
    Row(TABLE, row, 'kl_bits', alone, unit='bits', note=note),
    Row(TABLE, row, 'kl_bits_corrected', corrected, unit='bits'),
    put('kl_bits_random', stats.mean(random, 'draws'), note='corrected; 0 but for chance'),
    put(
      'excess_kl_bits',
      stats.mean(coding.divergence_by_stream(counts), UNITS),
      note='the bias of counting taken out (jackknife), so 0 for random bytes',
    ),
  ]


def _order(counts: dict[str, np.ndarray], kind: str, bits: int) -> list[Row]:
  """How much further from random each method is than the next in the paper's order."""
  there = [method for method in ORDER if method in counts]
  return [
    Row.of(
      TABLE,
      name(method=method, kind=kind, n=bits),
      f'excess_kl_bits_above_{after}',
      difference(counts[method], counts[after]),
      unit='bits',
      note='paired by document',
    )
    for method, after in itertools.pairwise(there)
  ]


def difference(one: np.ndarray, other: np.ndarray) -> stats.Estimate:
  """Divergence of `one` less that of `other`, counts [D, V] of the same documents."""
  found = coding.divergence_by_stream(one) - coding.divergence_by_stream(other)
  return stats.mean(found, UNITS)
