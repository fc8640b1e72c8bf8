# SPDX-License-Identifier: Apache-2.0
"""Perplexity against position on text: trained rows and fresh random ones (Figures 3 and 7)."""

from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.lexinvariant import models, text
from experiments.lexinvariant.markov import bins
from lib import stats
from lib.evals import renaming
from lib.report.results import Row, name

COUNTING = ('counting_unigram', 'counting_bigram')  # in context, by their order


def check(config: ConfigDict) -> None:
  """Raises InputError for text or models that cannot be had."""
  text.check(config)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Trains a pair of models a corpus, vocabulary and seed; all score the same test text."""
  rows = [
    models.rate_row('context', name(embedding=kind), config.text, text.chosen(config, run, kind))
    for kind in models.EMBEDDINGS
  ]
  for corpus in text.corpora(config):
    held = text.held_out(corpus, 'test', config.text.length, config.text.test_sequences)
    scores: dict[str, np.ndarray] = {}
    for kind in models.EMBEDDINGS:
      found = []
      for seed in text.seeds(config):
        trained = text.fit(config, run, corpus, kind, seed)
        score = models.scorer(trained.model, corpus.vocab_size, seed)
        found.append(score(trained.variables, held.ids))
        rows += _curve(corpus, kind, seed, trained.history)
      scores[name(embedding=kind)] = np.stack(found)
    if corpus.alphabet:
      for order, predictor in enumerate(COUNTING):
        counted = renaming.counting_nats(held.ids, corpus.vocab_size, order)
        scores[name(predictor=predictor)] = counted[None]
    if (exact := text.law_nats(corpus, held)) is not None:
      scores[name(predictor='law')] = exact[None]
    rows += of_scores(config, corpus, scores, held.documents)
  return rows


def of_scores(
  config: ConfigDict, corpus: text.Corpus, scores: dict[str, np.ndarray], documents: np.ndarray
) -> list[Row]:
  """All rows of a corpus.

  Args:
    config: of the recipe.
    corpus: whose test text was scored.
    scores: row -> nats [S, N, T] of S models, or of one predictor that is not trained.
    documents: [N] of each sequence.
  """
  rows = []
  for row, nats in scores.items():
    rows += _by_position(f'{corpus.row},{row}', config, nats, documents)
  learned, random = (scores[name(embedding=kind)] for kind in models.EMBEDDINGS)
  note = text.epochs_note(config, corpus.source, corpus.vocabulary)
  rows += _gap(corpus.row, config, learned, random, documents, note)
  for predictor in COUNTING:
    if (counted := scores.get(name(predictor=predictor))) is not None:
      several = np.repeat(counted, len(learned), axis=0)
      rows += _gap(f'{corpus.row},{name(predictor=predictor)}', config, learned, several, documents)
      rows += _below(f'{corpus.row},embedding=lexinvariant', predictor, config, several - random,
                     documents)  # fmt: skip
  regret = (random - learned).sum(axis=-1)
  rows += [
    Row.of('context', corpus.row, f'regret_nats_over_{config.text.length}',
           _mean(regret, documents), unit='nats',
           note='total of nats above learned rows; an ideal predictor needs at most log V!'),
    Row('context', corpus.row, 'log_v_factorial_nats',
        renaming.log_permutations(corpus.vocab_size), unit='nats'),
  ]  # fmt: skip
  if (law := scores.get('predictor=law')) is not None:
    rows += [
      Row.of('context', f'{corpus.row},{name(embedding=kind)}', 'regret_nats',
             _mean((nats - law).sum(axis=-1), documents), unit='nats',
             note=f'total over {config.text.length} symbols above the exact law of the text')
      for kind, nats in zip(models.EMBEDDINGS, (learned, random))
    ]  # fmt: skip
  return rows


def starts(length: int, window: int) -> list[int]:
  """First symbols of the windows, counted from 1: the paper's, and the last that fits."""
  last = length - window + 1
  return [start for start in (1, 25, 50, *range(100, length, 100)) if start < last] + [last]


def _windows(nats: np.ndarray, length: int, window: int) -> dict[int, np.ndarray]:
  """Perplexity [S, N] of each window of nats [S, N, T], by its first symbol."""
  return {
    start: np.exp(nats[..., start - 1 : start - 1 + window].mean(axis=-1))
    for start in starts(length, window)
  }


def _mean(values: np.ndarray, documents: np.ndarray) -> stats.Estimate:
  """Mean of values [S, N] of S models over the same N sequences, with its error over documents.

  For several models the error is over seeds too; one model's leaves that unknown.
  """
  of_documents = stats.by_group(values, documents)
  sizes = stats.by_group(np.ones(len(documents)), documents)
  return stats.crossed(stats.contributions(of_documents, sizes))


def _untrained(values: np.ndarray, documents: np.ndarray) -> stats.Estimate:
  """Mean of values [1, N] of a predictor that no seed changes, with its error over documents."""
  return stats.ratio(values[0], np.ones(len(documents)), documents)


def _by_position(
  row: str, config: ConfigDict, nats: np.ndarray, documents: np.ndarray
) -> list[Row]:
  """Perplexities of models from nats [S, N, T]."""
  options = config.text
  estimate = _untrained if 'predictor=' in row else _mean
  note = f'mean over sequences of windows of {options.window} symbols'
  rows = []
  windows = _windows(nats, options.length, options.window)
  for start, values in windows.items():
    found = estimate(values, documents)
    rows.append(Row.of('context', row, f'perplexity_at_{start}', found, note=note))
  for start, end in bins(options.length):
    rows.append(
      Row('context', row, f'perplexity_{start}_{end}', float(np.exp(nats[..., start:end].mean())))
    )
  # Perplexities of single symbols are not averaged: a few surprises would be all of the mean.
  found = estimate(nats[..., -1], documents)
  value = float(np.exp(found.value))
  found = found._replace(value=value, sem=None if found.sem is None else value * found.sem)
  column = f'perplexity_at_context_{options.length - 1}'
  return [*rows, Row.of('context', row, column, found, note='of the last symbol alone')]


def _gap(
  row: str,
  config: ConfigDict,
  learned: np.ndarray,
  other: np.ndarray,
  documents: np.ndarray,
  aside: str = '',
) -> list[Row]:
  """How far a predictor is behind learned rows, by window; scores are nats [S, N, T]."""
  options = config.text
  places = starts(options.length, options.window)
  windows = [
    values
    for nats in (learned, other)
    for values in _windows(nats, options.length, options.window).values()
  ]
  sums = np.stack([stats.by_group(values, documents) for values in windows], axis=-1)

  def gap(at: int):
    return lambda total: total[len(places) + at] / total[at] - 1

  last = len(places) - 1
  shrinks = lambda total: gap(0)(total) / gap(last)(total)
  note = 'mean perplexity above that of learned rows, relative'
  rows = [
    Row.of('context', row, f'relative_gap_at_{start}', stats.jackknife(gap(at), sums),
           unit='ratio', note='; '.join(filter(None, (note, aside))))
    for at, start in enumerate(places)
  ]  # fmt: skip
  return [
    *rows,
    Row.of('context', row, 'relative_gap_at_last_window', stats.jackknife(gap(last), sums),
           unit='ratio', note=f'the window at {places[-1]}'),
    Row.of('context', row, 'gap_shrinks_by', stats.jackknife(shrinks, sums), unit='ratio',
           note=f'relative gap at {places[0]} over that at {places[-1]}'),
  ]  # fmt: skip


def _below(
  row: str, predictor: str, config: ConfigDict, saved: np.ndarray, documents: np.ndarray
) -> list[Row]:
  """Nats a symbol that a model saves on a predictor, from differences [S, N, T]."""
  window = config.text.window
  return [
    Row.of('context', row, f'nats_below_{predictor}_{where}', _mean(part.mean(-1), documents),
           unit='nats', note=f'per symbol, in the {where} window of {window}')
    for where, part in (('first', saved[..., :window]), ('last', saved[..., -window:]))
  ]  # fmt: skip


def _curve(corpus: text.Corpus, kind: str, seed: int, history: Sequence[dict]) -> list[Row]:
  """Validation perplexity late in the context, by training step."""
  row = f'{corpus.row},{name(embedding=kind, seed=seed)}'
  return [
    Row('context', row, f'late_perplexity_at_step_{line["step"]}', line[key])
    for line in history
    if (key := 'validation/late_perplexity') in line
  ]
