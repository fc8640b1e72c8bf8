# SPDX-License-Identifier: Apache-2.0
"""Table reset: windows of 16 bits whose M1 is reset at every window, every other, or never."""

import functools
import itertools

import numpy as np
from ml_collections import ConfigDict

from experiments import coders
from experiments.equal_info import uniformity
from experiments.equal_info.ratio import check_text, held_out
from experiments.recipe import Run, Table, text_of
from lib import stats
from lib.compression import byte_coders, coded_text
from lib.report.results import Rows
from lib.tokenizers.coding.window_streams import SteppedEqualInfo

RESETS = {'every_window': 1, 'every_other': 2, 'never': 0}
BITS = 16
UNITS = 'documents'


def measure(config: ConfigDict, run: Run) -> Rows:
  """Bytes per token, and divergence of single tokens from uniform, by the reset interval of M1."""
  found = held_out(config, config.reset.examples, config.reset.length)
  size = np.full(len(found), config.reset.length)
  stepper = byte_coders.stepper(coders.m1(config, run))
  ratios: dict[str, np.ndarray] = {}  # reset -> contributions of documents to bytes per 8 bits
  counts: dict[str, np.ndarray] = {}
  for label, every in RESETS.items():
    codec = SteppedEqualInfo(
      stepper, stepper.model.fingerprint, BITS, 'greedy', token_bits=8, reset=every
    )
    coded = coders.encode(run, codec, found.texts)
    ratios[label] = stats.contributions(size, coded.counts)
    counts[label] = coded_text.string_counts(
      coded_text.by_document(coded, found.documents), 8, False
    )
  rows = Rows('reset', lambda where: True)
  where = lambda label, width: {'reset': label, 'v': 1 << width}
  note = f'windows of {BITS} bits, greedy, not lossless; one excerpt of each held-out document'
  for label in RESETS:
    ratio = stats.mean(ratios[label], UNITS)
    for width in (8, 16):
      here = where(label, width)
      rows.add(here, 'bytes_per_token', ratio.times(width / 8), 'bytes/token', note)
    excess = stats.mean(coded_text.divergence_by_stream(counts[label]), UNITS)
    about = 'KL divergence of single tokens from uniform, the bias of counting taken out'
    rows.add(where(label, 8), 'excess_kl_bits', excess, 'bits', about)
  for before, label in itertools.pairwise(RESETS):
    more = stats.mean(ratios[label] - ratios[before], UNITS).times(BITS / 8)
    column = f'bytes_per_token_above_{before}'
    rows.add(where(label, BITS), column, more, 'bytes/token', 'paired')
    nearer = uniformity.difference(counts[before], counts[label])
    rows.add(where(label, 8), f'excess_kl_bits_below_{before}', nearer, 'bits', 'paired')
  return rows


TABLE = Table(
  'reset',
  measure,
  'Greedy windows of 16 bits under an M1 that is reset at every window, at every other, or never. '
  'With fewer resets more bytes fit into a token, and single tokens are nearer to random bytes. ± '
  'is one standard error over documents.',
  ('bytes_per_token', 'excess_kl_bits'),
  check=functools.partial(check_text, table='reset'),
  train_specs=coders.m1_specs,
  sources=text_of,
)
