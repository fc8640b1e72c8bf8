# SPDX-License-Identifier: Apache-2.0
"""Table windows: what M2 learns of windows of b bits, and where in a window it learns first."""

import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.equal_info import codecs, m2
from experiments.equal_info.corpus import Corpus
from experiments.equal_info.scores import Scores, over_seeds
from lib.errors import InputError
from lib.report.results import Row, mean_and_sem, name

TABLE = 'windows'
LN2 = m2.LN2
CLEAR = 4  # standard errors above the trivial accuracy that count as learned


def check(config: ConfigDict) -> None:
  """Raises InputError for tokenizers that are no equal-info windows, or models as in m2."""
  m2.check(config)
  for method in m2.chosen(config.windows.methods, 'windows'):
    if codecs.parse(method.name)[0] not in codecs.WINDOWS:
      raise InputError(f'windows.methods {method.name!r} has no windows: use one such as greedy16.')


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """The gap to uniform by window, and accuracy by position and step."""
  rows: list[Row] = []
  for method in m2.chosen(config.windows.methods, 'windows'):
    corpus = Corpus(config, run, method)
    trained, scores = m2.fit_all(config, run, config.m2.models[0], corpus)
    rows += _gap(corpus, scores)
    if corpus.window > 1:
      rows += _positions(corpus, [one.history for one in trained])
  return rows


def row_of(corpus: Corpus) -> str:
  """The row of a window."""
  kind, bits = codecs.parse(corpus.method.name)
  return name(b=bits, mode=kind, v=corpus.vocab_size)


def _gap(corpus: Corpus, scores: list[Scores]) -> list[Row]:
  """Bits a token below uniform: the paper's order of windows, which their ratios hide."""
  row, top = row_of(corpus), np.log2(corpus.vocab_size)
  bits, sem = over_seeds([(n / LN2, e / LN2) for n, e in (s.per_token() for s in scores)])
  per_byte = over_seeds([(n / LN2, e / LN2) for n, e in (s.per_byte() for s in scores)])
  note = 'log2 V less the bits a token on held-out text'
  return [
    Row(TABLE, row, 'gap_bits_per_token', top - bits, sem, unit='bits/token', note=note),
    Row(TABLE, row, 'bits_per_byte', *per_byte, unit='bits/byte'),
  ]


def trivial(corpus: Corpus) -> np.ndarray:
  """Accuracy [window] on validation text of always guessing each position's most frequent token."""
  window, found = corpus.window, []
  for k in range(window):
    tokens = [
      np.concatenate([examples[i][0][k::window] for i in range(len(examples))])
      for examples in (corpus.train, corpus.validation)
    ]
    guess = np.bincount(tokens[0], minlength=corpus.vocab_size).argmax()
    found.append(float((tokens[1] == guess).mean()))
  return np.array(found)


def _positions(corpus: Corpus, histories: list[list[dict]]) -> list[Row]:
  """Accuracy by position in the window and step, and when each position is first learned."""
  lines = [
    [line for line in history if 'validation/accuracy_by_position' in line] for history in histories
  ]
  floor, rows = trivial(corpus), []
  count = corpus.validation.tokens.shape[1] / corpus.window
  for k in range(corpus.window):
    row = f'{row_of(corpus)},{name(position=k + 1)}'
    put = lambda column, value, sem=None, unit='share', note='', row=row: rows.append(
      Row(TABLE, row, column, value, sem, unit=unit, note=note)
    )
    put('trivial_accuracy', floor[k], note='always the most frequent token of the position')
    bar = floor[k] + CLEAR * np.sqrt(floor[k] * (1 - floor[k]) / count)
    learned = None
    for at in zip(*lines):
      step = at[0]['step']
      value, sem = mean_and_sem([line['validation/accuracy_by_position'][k] for line in at])
      put(f'accuracy_at_step_{step}', value, sem)
      if learned is None and value > bar:
        learned = step
    note = f'first evaluation with an accuracy {CLEAR} standard errors above the trivial one'
    put('learned_at_step', learned, unit='steps', note=note if learned else f'none: no {note}')
    nats = [line[-1]['validation/nats_by_position'][k] for line in lines]
    value, sem = mean_and_sem([np.log2(corpus.vocab_size) - n / LN2 for n in nats])
    put('gap_bits_per_token', value, sem, 'bits/token', 'on validation text, after training')
  return rows
