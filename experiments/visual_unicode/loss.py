# SPDX-License-Identifier: Apache-2.0
"""Bits per byte of frozen and trained rows: same decoder, tokens, steps and seeds."""

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.visual_unicode import models, text
from experiments.visual_unicode.models import Trained
from lib.evals import equivalence
from lib.report.results import Row, mean_and_sem, name
from lib.train import language_model

CAPTION = (
  'Bits per byte of held-out text after training, mean ± standard error over seeds. Arms differ in '
  'their input rows alone; seeds are paired (same decoder, readout and batches). `equivalent` is 1 '
  'where two one-sided t-tests (TOST) at 5 % put the mean paired difference within the margin.'
)
SUMMARY = (
  '',
  ('bits_per_byte', 'difference_bits_per_byte', 'difference_low', 'difference_high',
   'p_equivalent', 'equivalent'),
)  # fmt: skip


def check(config: ConfigDict) -> None:
  """Raises InputError for text or models that cannot be had."""
  text.check(config)
  models.check(config.loss, 'loss')


def fit(config: ConfigDict, run: runner.Run, arm: str, kind: str | None = None) -> list[Trained]:
  """The models of an arm, trained now or by another table of this run, on tokens of a kind."""
  opened = text.open_text(config, kind)
  return models.fit(
    config,
    run,
    config.loss,
    f'loss/{kind}' if kind else 'loss',
    arm,
    opened.glyphs,
    lambda seed: text.batches(opened, config.loss, seed),
    {'validation': text.held_out(opened, config.loss, 'validation', config.loss.validation)},
  )


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Trains every arm and sets each beside the trained tables."""
  options = config.loss
  opened = text.open_text(config)
  test = text.held_out(opened, options, 'test', options.test)
  rows, scores = [], {}
  for arm in options.arms:
    trained = fit(config, run, arm)
    score = language_model.held_out(language_model.loss_and_init(trained[0].model)[1], test)
    found = [score(one.variables) for one in trained]
    scores[arm] = [float(values['bits_per_byte']) for values in found]
    rows += _arm(config, arm, trained, scores[arm], float(found[0]['bytes_per_token']))
  for reference in options.references:
    for arm in options.arms:
      if arm != reference and reference in scores:
        rows += _difference(options, arm, reference, scores)
  return rows


def _arm(
  config: ConfigDict, arm: str, trained: list[Trained], scores: list[float], per_token: float
) -> list[Row]:
  """What an arm reached, and its way there."""
  row, rows = name(arm=arm), []
  put = lambda column, value, error=None, unit='', note='': rows.append(
    Row('loss', row, column, value, error, unit=unit, note=note)
  )
  note = f'test text, mean over {len(scores)} seeds after {config.loss.steps} steps'
  put('bits_per_byte', *mean_and_sem(scores), 'bits/byte', note)
  put('bytes_per_token', per_token, unit='bytes/token')
  put('trained_parameters', _size(trained[0].variables['params']))
  put('frozen_parameters', _size(trained[0].variables.get('frozen', {})))
  for step, values in curve(trained).items():
    column = f'validation_bits_per_byte_at_{step}'
    put(column, *mean_and_sem(values), 'bits/byte')
  for seed, value in enumerate(scores, start=config.seed):
    rows.append(Row('loss', name(arm=arm, seed=seed), 'bits_per_byte', value, unit='bits/byte'))
  return rows


def curve(trained: list[Trained]) -> dict[int, list[float]]:
  """Validation bits per byte of all seeds by training step."""
  key = 'validation/bits_per_byte'
  found: dict[int, list[float]] = {}
  for one in trained:
    for line in one.history:
      if key in line:
        found.setdefault(line['step'], []).append(line[key][one.index])
  return found


def _size(tree) -> int:
  return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(tree))


def _difference(
  options: ConfigDict, arm: str, reference: str, scores: dict[str, list[float]]
) -> list[Row]:
  """An arm less the reference, seed by seed."""
  differences = np.subtract(scores[arm], scores[reference]).tolist()
  row = name(arm=arm, against=reference)
  put = lambda column, value, error=None, unit='bits/byte', note='': Row(
    'loss', row, column, value, error, unit=unit, note=note
  )
  if len(differences) < 2:
    note = 'one seed: no interval and no test'
    return [put('difference_bits_per_byte', differences[0], note=note)]
  found = equivalence.paired(differences, options.margin)
  return [
    put('difference_bits_per_byte', found.mean, found.sem,
        note='above 0: worse than the reference; paired by seed'),
    put('difference_low', found.low, note='95 % interval of the mean difference (t)'),
    put('difference_high', found.high),
    put('p_different', found.p_different, unit=''),
    put('p_equivalent', found.p_equivalent, unit='',
        note=f'TOST with a margin of {options.margin:g} bits per byte'),
    put('equivalent', float(found.p_equivalent < 0.05), unit=''),
  ]  # fmt: skip
