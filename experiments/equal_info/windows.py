# SPDX-License-Identifier: Apache-2.0
"""Table windows: how much M2 learns from windows of b bits, and which token of a window it learns
first.
"""

import itertools

import numpy as np
from ml_collections import ConfigDict

from experiments import coders
from experiments.equal_info import m2, pictures
from experiments.equal_info.m2_text import Corpus
from experiments.fit import Fitted
from experiments.recipe import Run, Table, text_of
from lib import stats
from lib.compression import byte_coders
from lib.errors import InputError
from lib.evals import ngram, token_scores
from lib.evals.token_scores import Scores
from lib.report.results import Rows

CLEAR = 4  # standard errors above the trivial accuracy that count as learned


def check(config: ConfigDict) -> None:
  """Raises InputError for tokenizers without equal-info windows, or models as in m2."""
  m2.check(config)
  for method in m2.chosen(config.windows.methods, 'windows'):
    if method.kind not in byte_coders.WINDOWS:
      raise InputError(f'windows.methods {method.name!r} has no windows: use one such as greedy16.')


def measure(config: ConfigDict, run: Run) -> Rows:
  """The gap to uniform by window, and accuracy by position and step."""
  rows = Rows('windows', coders.lossy)
  gaps: dict[tuple[str, int | None], dict[int, tuple[dict, np.ndarray]]] = {}
  for method in m2.chosen(config.windows.methods, 'windows'):
    corpus = Corpus(config, run, method)
    trained, scores = m2.fit_all(config, run, config.m2.models[0], corpus)
    kind, bits = coders.parse(method.name)
    where = {'b': bits, 'mode': kind, 'v': corpus.vocab_size}
    gap = _below_uniform(corpus, scores)
    note = 'log2 V less the bits per token on held-out text'
    note += '' if method.lossless else '; not lossless'
    rows.add(where, 'gap_bits_per_token', stats.crossed(gap), 'bits/token', note)
    per_byte = stats.crossed(token_scores.per_byte(scores)).times(1 / m2.LN2)
    rows.add(where, 'bits_per_byte', per_byte, 'bits/byte')
    m2.add_window_levels(rows, where, corpus, scores)
    if corpus.window > 1:
      _add_positions(rows, where, corpus, trained, scores)
    gaps.setdefault((kind, method.token_bits), {})[bits] = where, gap
  for by_bits in gaps.values():
    for (_, (where, one)), (wider, (_, other)) in itertools.pairwise(sorted(by_bits.items())):
      _add_above(rows, where, f'b{wider}', one - other)
  return rows


def _add_above(rows: Rows, where: dict, other: str, differences: np.ndarray) -> None:
  """The difference in what is learned of a token between two widths, from differences [S, D]."""
  column, note = f'gap_bits_per_token_above_{other}', 'paired by seed and document'
  rows.add(where, column, stats.crossed(differences), 'bits/token', note)


def _below_uniform(
  corpus: Corpus, scores: list[Scores], where: np.ndarray | slice = slice(None)
) -> np.ndarray:
  """log2 V less M2's bits per token, of the tokens at the places `where` of each example.

  Contributions [S, D] of documents.
  """
  gaps = [(np.log2(corpus.vocab_size) * s.real - s.nats / m2.LN2)[:, where] for s in scores]
  return token_scores.contributions(scores, gaps, [s.real[:, where] for s in scores])


def _add_positions(
  rows: Rows, where: dict, corpus: Corpus, trained: list[Fitted], scores: list[Scores]
) -> None:
  """Accuracy by position in the window and step, and when each position is first learned."""
  accuracies, errors = (
    [one.curve(f'validation/{metric}_by_position') for one in trained]
    for metric in ('accuracy', 'sem')
  )
  known, held_out = corpus.windows(corpus.train), corpus.windows(corpus.validation)
  floor, tokens = ngram.guessed(known, held_out), scores[0].nats.shape[1]
  gaps = [
    _below_uniform(corpus, scores, token_scores.places(tokens, corpus.window, k))
    for k in range(corpus.window)
  ]
  for k in range(corpus.window):
    here = where | {'position': k + 1}
    note = 'chance: always the most frequent token of the position'
    rows.add(here, 'trivial_accuracy', float(floor[k]), 'share', note)
    learned = None
    for step in accuracies[0]:
      found = stats.mean([one[step][k] for one in accuracies])
      rows.add(here, f'accuracy_at_step_{step}', found, 'share')
      sem = np.mean([one[step][k] for one in errors])
      if learned is None and found.value > floor[k] + CLEAR * sem:
        learned = step
    note = (
      f'first evaluation with an accuracy {CLEAR} standard errors (over documents) above the '
      'trivial one'
    )
    rows.add(here, 'learned_at_step', learned, 'steps', note if learned else f'none: no {note}')
    gap = stats.crossed(gaps[k])
    rows.add(here, 'gap_bits_per_token', gap, 'bits/token', 'on test text')
    if k + 1 < corpus.window:
      _add_above(rows, here, 'the_next', gaps[k] - gaps[k + 1])
      _add_above(rows, here, 'the_last', gaps[k] - gaps[-1])


TABLE = Table(
  'windows',
  measure,
  'What M2 learns of equal-info windows of b bits, and which token of a window it learns first. '
  'gap is log2 V less the bits per token; the gain over a unigram of whole windows shows how much '
  'of it comes from context. ± is one standard error over seeds and documents.',
  ('gap_bits_per_token', 'bits_below_window_unigram', 'learned_at_step', 'trivial_accuracy'),
  check=check,
  train_specs=m2.train_specs,
  pictures=lambda rows, config, run: {'windows.png': pictures.windows(rows)},
  sources=text_of,
)
