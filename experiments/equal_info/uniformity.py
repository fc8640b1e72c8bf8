# SPDX-License-Identifier: Apache-2.0
"""Table uniformity: how far the bits of tokens are from random ones (figures 11, 16 and 17)."""

import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.equal_info import codecs, texts
from lib.errors import InputError
from lib.evals import coding
from lib.report.results import Row, name

TABLE = 'uniformity'
ORDER = ('greedy16', 'greedy32', 'greedy64', 'greedy128', 'ac')  # from far to near
KINDS = {'ngrams': True, 'tokens': False}  # whether strings of bits overlap


def check(config: ConfigDict) -> None:
  """Raises InputError for unknown tokenizers or strings of bits that cannot be counted."""
  options = config.uniformity
  codecs.widths(options.methods, (8,))
  for bits in options.bits:
    if bits not in (1, 2, 4, 8, 16):
      raise InputError(f'uniformity.bits {bits} is not one of 1, 2, 4, 8, 16.')
  texts.held_out(config, config.ratio.examples, config.ratio.length)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Every tokenizer on the text of table ratio, beside as many random bytes."""
  options = config.uniformity
  documents = texts.held_out(config, config.ratio.examples, config.ratio.length)
  rows = []
  for [method] in codecs.widths(options.methods, (8,)):
    coded = codecs.tokens(run, codecs.make(config, run, method), documents)
    stream = coded.tokens[0].astype(np.uint8)
    for kind, overlapping in KINDS.items():
      for bits in options.bits:
        row = name(method=method.name, kind=kind, n=bits)
        rows += _rows(row, stream, bits, overlapping, options.draws, config.seed)
  return rows + _order(rows)


def _order(rows: list[Row]) -> list[Row]:
  """Whether tokens of 8 bits come nearer to random ones in the paper's order."""
  cells = {row.row: row.measured for row in rows if row.column == 'excess_kl_bits'}
  names = {method: name(method=method, kind='tokens', n=8) for method in ORDER}
  there = [method for method in ORDER if cells.get(names[method]) is not None]
  if len(there) < 2:
    return []
  values = np.array([cells[names[method]] for method in there])
  note = 'excess_kl_bits of tokens of 8 bits: ' + ' > '.join(there)
  return [Row(TABLE, name(check='order'), 'holds', float((np.diff(values) < 0).all()), note=note)]


def _rows(
  row: str, stream: np.ndarray, bits: int, overlapping: bool, draws: int, seed: int
) -> list[Row]:
  """KL divergence by counts alone, corrected, and that of random bytes with its spread."""
  if stream.size * 8 // (1 if overlapping else bits) < 1 << bits:
    return []  # fewer strings than kinds of them: nothing can be told
  random, spread = coding.random_divergence(stream.size, bits, overlapping, seed, draws)
  counted, corrected = (
    coding.divergence(stream, bits, overlapping, corrected) for corrected in (False, True)
  )
  note = f'{stream.size:,} bytes of tokens'
  excess = 'over random bytes, whose standard deviation is the error'
  return [
    Row(TABLE, row, 'kl_bits', counted, unit='bits', note=note),
    Row(TABLE, row, 'kl_bits_corrected', corrected, unit='bits'),
    Row(TABLE, row, 'kl_bits_random', random, spread, unit='bits'),
    Row(TABLE, row, 'excess_kl_bits', corrected - random, spread, unit='bits', note=excess),
  ]
