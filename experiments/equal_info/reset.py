# SPDX-License-Identifier: Apache-2.0
"""Table reset: windows of 16 bits whose M1 is reset at every window, every other, or never."""

import itertools

import numpy as np
from ml_collections import ConfigDict

from experiments import coders, runner
from experiments.equal_info import texts, uniformity
from lib import stats
from lib.errors import InputError
from lib.evals import coding
from lib.models import byte_coders
from lib.report.results import Row, name
from lib.tokenizers.coding.window_streams import SteppedEqualInfo

TABLE = 'reset'
RESETS = {'every_window': 1, 'every_other': 2, 'never': 0}
BITS = 16
WIDTHS = (8, 16)  # bits of a token
UNITS = 'documents'


def check(config: ConfigDict) -> None:
  """Raises InputError for text that is not there."""
  options = config.reset
  if options.examples < 2 or options.length < 16:
    raise InputError(
      'reset.examples must be 2 or more and reset.length 16 or more; got '
      f'{options.examples} and {options.length}.'
    )
  texts.held_out(config, options.examples, options.length)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Bytes per token, and how far single tokens are from uniform, by how often M1 is reset."""
  found = texts.held_out(config, config.reset.examples, config.reset.length)
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
    counts[label] = coding.string_counts(uniformity.by_document(coded, found.documents), 8, False)
  rows = [row for label in RESETS for row in _rows(label, ratios[label], counts[label])]
  for before, label in itertools.pairwise(RESETS):
    more = stats.mean(ratios[label] - ratios[before], UNITS)
    nearer = uniformity.difference(counts[before], counts[label])
    rows += [
      _row(label, f'bytes_per_token_above_{before}', more.times(BITS / 8), 'bytes/token', 'paired'),
      _row(label, f'excess_kl_bits_below_{before}', nearer, 'bits', 'paired', width=8),
    ]
  return rows


def _rows(label: str, ratios: np.ndarray, counts: np.ndarray) -> list[Row]:
  """The values of one way of resetting M1; each document has one excerpt."""
  size = stats.mean(ratios, UNITS)
  note = f'windows of {BITS} bits, greedy, not lossless; one excerpt of each held-out document'
  divergence = stats.mean(coding.divergence_by_stream(counts), UNITS)
  excess = 'KL divergence of single tokens from uniform, the bias of counting taken out'
  return [
    *(
      _row(label, 'bytes_per_token', size.times(width / 8), 'bytes/token', note, width)
      for width in WIDTHS
    ),
    _row(label, 'excess_kl_bits', divergence, 'bits', excess, width=8),
  ]


def _row(
  label: str, column: str, found: stats.Estimate, unit: str, note: str, width: int = BITS
) -> Row:
  row = name(reset=label, v=1 << width)
  return Row.of(TABLE, row, column, found, unit=unit, note=note)
