# SPDX-License-Identifier: Apache-2.0
"""Table uniformity: divergence of the bits of tokens from random bits (figures 11, 16 and 17)."""

import itertools

import numpy as np
from ml_collections import ConfigDict

from experiments import coders
from experiments.equal_info import pictures
from experiments.equal_info.ratio import held_out
from experiments.recipe import Run, Table, naming, text_of
from lib import stats
from lib.compression import coded_text
from lib.data import excerpts
from lib.errors import InputError
from lib.report.results import Rows

# From far to near in the paper's figures; all but GZip under one M1.
ORDER = ('gzip', 'greedy16', 'greedy24', 'greedy32', 'greedy64', 'greedy128', 'ac')
KINDS = {'ngrams': True, 'tokens': False}  # whether strings of bits overlap
UNITS = 'documents'


def check(config: ConfigDict) -> None:
  """Raises InputError for unknown tokenizers or strings of bits that cannot be counted."""
  options = config.uniformity
  coders.check_m1(config)
  with naming('uniformity.methods'):
    coders.widths(options.methods, (8,))
  with naming('uniformity.length'):
    distinct = held_out(config, 2, options.length).distinct
  if distinct < 2:
    raise InputError(
      f'uniformity needs 2 or more documents of {options.length} bytes in '
      f'{config.data.source} (test): make uniformity.length smaller.'
    )


def measure(config: ConfigDict, run: Run) -> Rows:
  """Every tokenizer on the same held-out text, compared with an equal number of random bytes."""
  options, rows = config.uniformity, Rows('uniformity', coders.lossy)
  found = excerpts.of_split(
    config.data.source, 'test', length=options.length, total=options.bytes, most=options.most
  )
  streams = {}
  for [one] in coders.widths(options.methods, (8,)):
    coded = coders.encode(run, coders.make(config, run, one), found.texts, known=True)
    streams[one.name] = coded_text.by_document(coded, found.documents)
  for (kind, overlapping), bits in itertools.product(KINDS.items(), options.bits):
    counts = {
      method: coded_text.string_counts(parts, bits, overlapping)
      for method, parts in streams.items()
    }
    there = {  # with fewer strings than distinct ones the estimate is meaningless
      method: one for method, one in counts.items() if one.sum() >= 1 << bits
    }
    where = {method: {'method': method, 'kind': kind, 'n': bits} for method in there}
    for method in there:
      sizes = [part.size for part in streams[method]]
      random = coded_text.random_divergence(sizes, bits, overlapping, config.seed, options.draws)
      _add(rows, where[method], there[method], random, sum(sizes))
    for method, after in itertools.pairwise(method for method in ORDER if method in there):
      more = difference(there[method], there[after])
      rows.add(where[method], f'excess_kl_bits_above_{after}', more, 'bits', 'paired by document')
  return rows


def _add(rows: Rows, where: dict, counts: np.ndarray, random: np.ndarray, size: int) -> None:
  """KL divergence: uncorrected, corrected, of random bytes, and the difference from random
  bytes.
  """
  total = counts.sum(axis=0)
  spread = float(random.std(ddof=1))
  note = (
    f'{8 * size:,} bits of tokens; as many random bits have a standard deviation of {spread:.2g}'
  )
  alone, corrected = (float(coded_text.divergence(total, one)) for one in (False, True))
  rows.add(where, 'kl_bits', alone, 'bits', note)
  rows.add(where, 'kl_bits_corrected', corrected, 'bits')
  note = 'corrected; 0 up to chance'
  rows.add(where, 'kl_bits_random', stats.mean(random, 'draws'), 'bits', note)
  excess = stats.mean(coded_text.divergence_by_stream(counts), UNITS)
  note = 'the bias of counting taken out (jackknife), so 0 for random bytes'
  rows.add(where, 'excess_kl_bits', excess, 'bits', note)


def difference(one: np.ndarray, other: np.ndarray) -> stats.Estimate:
  """Divergence of `one` less that of `other`, counts [D, V] of the same documents."""
  found = coded_text.divergence_by_stream(one) - coded_text.divergence_by_stream(other)
  return stats.mean(found, UNITS)


TABLE = Table(
  'uniformity',
  measure,
  'KL divergence of strings of n bits of the token stream from uniform ones, in bits, counted at '
  'every bit (ngrams) or every n-th (tokens): uncorrected, with the correction of Miller and '
  'Madow, and minus that of an equal number of random bytes. ± is one standard error over '
  'documents (jackknife).',
  ('kl_bits_corrected', 'kl_bits_random', 'excess_kl_bits'),
  rows=lambda where: (where['kind'], where['n']) == ('tokens', '8'),
  check=check,
  pictures=lambda rows, config, run: {'uniformity.png': pictures.uniformity(rows)},
  train_specs=coders.m1_specs,
  sources=text_of,
)
