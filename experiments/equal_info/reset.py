# SPDX-License-Identifier: Apache-2.0
"""Table reset: windows of 16 bits whose M1 forgets at every window, every other, or never."""

import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.equal_info import codecs, m1, texts
from lib.errors import InputError
from lib.evals import coding, ngram
from lib.report.results import Row, name
from lib.tokenizers.coding.window_streams import SteppedEqualInfo

TABLE = 'reset'
RESETS = {'every_window': 1, 'every_other': 2, 'never': 0}
BITS = 16


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
  """Bytes a token, and what single tokens still tell, by how often M1 forgets."""
  options = config.reset
  documents = texts.held_out(config, options.examples, options.length)
  stepper = m1.stepper(config, run)
  rows = []
  for label, every in RESETS.items():
    codec = SteppedEqualInfo(
      stepper, stepper.model.fingerprint, BITS, 'greedy', token_bits=8, reset=every
    )
    method = codecs.Method(f'greedy{BITS}', 8)
    coded = codecs.tokens(run, codec, documents)
    for wider in (8, 16):
      sliced = [codecs.sliced(ids, method, method._replace(token_bits=wider)) for ids, _ in coded]
      rows += _sizes(name(reset=label, v=1 << wider), sliced, documents)
    stream = coded.tokens[0].astype(np.uint8)
    rows.append(_divergence(name(reset=label, v=256), stream, config.seed))
  return rows


def _sizes(row: str, ids: list[np.ndarray], documents: list[bytes]) -> list[Row]:
  size, tokens = (np.array([len(x) for x in values]) for values in (documents, ids))
  ratio, sem = ngram.per_character(size, tokens, len(documents))
  note = f'windows of {BITS} bits, greedy; {size.sum():,} bytes of {len(size)} held-out documents'
  return [Row(TABLE, row, 'bytes_per_token', ratio, sem, unit='bytes/token', note=note)]


def _divergence(row: str, stream: np.ndarray, seed: int) -> Row:
  found = coding.divergence(stream, 8, overlapping=False)
  random, spread = coding.random_divergence(stream.size, 8, overlapping=False, seed=seed)
  note = 'KL of single tokens to uniform, less that of random bytes, whose deviation is the error'
  return Row(TABLE, row, 'excess_kl_bits', found - random, spread, unit='bits', note=note)
