# SPDX-License-Identifier: Apache-2.0
"""Table windows: what M2 learns of windows of b bits, and where in a window it learns first."""

import functools
import itertools

import numpy as np
from ml_collections import ConfigDict

from experiments import coders, runner
from experiments.equal_info import m2
from experiments.equal_info import scores as scoring
from experiments.equal_info.corpus import Corpus
from experiments.equal_info.scores import Scores
from lib import stats
from lib.errors import InputError
from lib.models import byte_coders
from lib.report.results import Row, name
from lib.stats import Estimate

TABLE = 'windows'
CLEAR = 4  # standard errors above the trivial accuracy that count as learned


def check(config: ConfigDict) -> None:
  """Raises InputError for tokenizers that are no equal-info windows, or models as in m2."""
  m2.check(config)
  for method in m2.chosen(config.windows.methods, 'windows'):
    if coders.parse(method.name)[0] not in byte_coders.WINDOWS:
      raise InputError(f'windows.methods {method.name!r} has no windows: use one such as greedy16.')


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """The gap to uniform by window, and accuracy by position and step."""
  rows: list[Row] = []
  gaps: dict[tuple[str, int | None], dict[int, tuple[str, np.ndarray]]] = {}
  for method in m2.chosen(config.windows.methods, 'windows'):
    corpus = Corpus(config, run, method)
    trained, scores = m2.fit_all(config, run, config.m2.models[0], corpus)
    rows += _gap(corpus, scores) + m2.window_levels(TABLE, row_of(corpus), corpus, scores)
    if corpus.window > 1:
      rows += _positions(corpus, [one.history for one in trained], scores)
    kind, bits = coders.parse(method.name)
    gap = row_of(corpus), _below_uniform(corpus, scores)
    gaps.setdefault((kind, method.token_bits), {})[bits] = gap
  for by_bits in gaps.values():
    for (_, (row, one)), (wider, (_, other)) in itertools.pairwise(sorted(by_bits.items())):
      rows.append(_above(row, f'b{wider}', one - other))
  return rows


def _above(row: str, other: str, differences: np.ndarray) -> Row:
  """How much more of a token is learned than elsewhere, from differences [S, D]."""
  return Row.of(
    TABLE, row, f'gap_bits_per_token_above_{other}', stats.crossed(differences),
    unit='bits/token', note='paired by seed and document',
  )  # fmt: skip


def row_of(corpus: Corpus) -> str:
  """The row of a window."""
  kind, bits = coders.parse(corpus.method.name)
  return name(b=bits, mode=kind, v=corpus.vocab_size)


def _below_uniform(
  corpus: Corpus, scores: list[Scores], where: np.ndarray | slice = slice(None)
) -> np.ndarray:
  """log2 V less M2's bits per token, of the tokens at the places `where` of each example.

  Contributions [S, D] of documents.
  """
  gaps = [(np.log2(corpus.vocab_size) * s.real - s.nats / m2.LN2)[:, where] for s in scores]
  return scoring.contributions(scores, gaps, [s.real[:, where] for s in scores])


def _gap(corpus: Corpus, scores: list[Scores]) -> list[Row]:
  """Bits per token below uniform: the paper's order of windows, which their ratios hide."""
  note = 'log2 V less the bits per token on held-out text'
  lossy = '' if corpus.method.lossless else '; not lossless'
  per_byte = stats.crossed(scoring.per_byte(scores)).times(1 / m2.LN2)
  put = functools.partial(Row.of, TABLE, row_of(corpus))
  return [
    put('gap_bits_per_token', stats.crossed(_below_uniform(corpus, scores)), unit='bits/token',
        note=note + lossy),
    put('bits_per_byte', per_byte, unit='bits/byte'),
  ]  # fmt: skip


def trivial(corpus: Corpus) -> np.ndarray:
  """Accuracy [window] on validation text of always guessing each position's most frequent token."""
  trained, held_out = corpus.windows(corpus.train), corpus.windows(corpus.validation)
  found = []
  for known, tokens in zip(trained.T, held_out.T, strict=True):
    guess = np.bincount(known[known >= 0], minlength=corpus.vocab_size).argmax()
    found.append(float((tokens[tokens >= 0] == guess).mean()))
  return np.array(found)


def _positions(corpus: Corpus, histories: list[list[dict]], scores: list[Scores]) -> list[Row]:
  """Accuracy by position in the window and step, and when each position is first learned."""
  lines = [
    [line for line in history if 'validation/accuracy_by_position' in line] for history in histories
  ]
  floor, rows = trivial(corpus), []
  tokens = scores[0].nats.shape[1]
  gaps = [
    _below_uniform(corpus, scores, scoring.places(tokens, corpus.window, k))
    for k in range(corpus.window)
  ]
  for k in range(corpus.window):
    put = functools.partial(Row.of, TABLE, f'{row_of(corpus)},{name(position=k + 1)}')
    rows.append(
      put(
        'trivial_accuracy',
        Estimate(floor[k]),
        unit='share',
        note='chance: always the most frequent token of the position',
      )
    )
    learned = None
    for at in zip(*lines):
      step = at[0]['step']
      found = stats.mean([line['validation/accuracy_by_position'][k] for line in at])
      rows.append(put(f'accuracy_at_step_{step}', found, unit='share'))
      sem = np.mean([line['validation/sem_by_position'][k] for line in at])
      if learned is None and found.value > floor[k] + CLEAR * sem:
        learned = step
    note = (
      f'first evaluation with an accuracy {CLEAR} standard errors (over documents) above the '
      'trivial one'
    )
    rows.append(
      Row(
        TABLE,
        f'{row_of(corpus)},{name(position=k + 1)}',
        'learned_at_step',
        learned,
        unit='steps',
        note=note if learned else f'none: no {note}',
      )
    )
    gap = stats.crossed(gaps[k])
    rows.append(put('gap_bits_per_token', gap, unit='bits/token', note='on test text'))
    row = f'{row_of(corpus)},{name(position=k + 1)}'
    if k + 1 < corpus.window:
      rows.append(_above(row, 'the_next', gaps[k] - gaps[k + 1]))
      rows.append(_above(row, 'the_last', gaps[k] - gaps[-1]))
  return rows
