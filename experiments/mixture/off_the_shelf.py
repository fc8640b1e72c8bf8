# SPDX-License-Identifier: Apache-2.0
"""Table `off_the_shelf`: what a tokenizer of one's own was trained on, by one's own categories."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.mixture import attack, controlled
from experiments.recipe import Pictures, Run, Table, naming
from lib.data import categories
from lib.errors import InputError
from lib.report import plots
from lib.report.results import Row, Rows, select
from lib.tokenizers import merge_lists, registry

RANGE = (
  'end of the range that holds the share with 95 % confidence, by attacks on tokenizers trained on '
  'the mixture found'
)
NONE = (
  'p-value of the objective if the training text is a mixture of these categories; where it is '
  'small, the training text has another category too'
)
LINES = {'auto': None, 'yes': True, 'no': False}


def measure(config: ConfigDict, run: Run) -> Rows:
  """A row for each category; none without a tokenizer."""
  options, rows = config.off_the_shelf, Rows('off_the_shelf')
  if not options.tokenizer:
    return rows
  merges = merge_lists.of(registry.load(options.tokenizer), LINES[options.lines])
  known = categories.open_categories(options.texts)
  samples = {name: categories.take(texts, options.sample_bytes) for name, texts in known.items()}
  shares, objective, program = attack.Samples(merges, samples, options.merges).solve(options.merges)
  widths = np.diff(program.ranges())[:, 0]
  rng = np.random.default_rng(config.seed)
  all_there_is = sum(len(text) for texts in samples.values() for text in texts)
  tried = attack.imitate(merges, samples, options.merges, options.trials, all_there_is, rng)
  ranges = tried.ranges(shares)
  for i, (name, texts) in enumerate(samples.items()):
    where, note = {'category': name}, f'a sample of {sum(map(len, texts)):,} bytes'
    rows.add(where, 'share', shares[i], 'of the bytes', note)
    rows.add(where, 'share_low', ranges[i, 0], 'of the bytes', RANGE)
    rows.add(where, 'share_high', ranges[i, 1], 'of the bytes', RANGE)
    rows.add(where, 'width', widths[i], 'share of pairs', controlled.UNITS['width'][1])
  rows.add({}, 'objective', objective, *controlled.UNITS['objective'])
  rows.add({}, 'p_none_of_these', tried.p_value, 'probability', NONE)
  return rows


def check(config: ConfigDict) -> None:
  """Raises InputError for a tokenizer without merges, or without texts."""
  options = config.off_the_shelf
  if bool(options.tokenizer) != bool(options.texts):
    raise InputError('give both off_the_shelf.tokenizer=FILE and off_the_shelf.texts=DIR, or none.')
  if options.tokenizer:
    merge_lists.of(registry.load(options.tokenizer), LINES[options.lines])
    with naming('off_the_shelf.texts'):
      categories.check(options.texts)


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """The shares with their ranges."""
  of = lambda column: [row.measured or 0.0 for row in select(rows, 'off_the_shelf', column)]
  names = [row.where['category'] for row in select(rows, 'off_the_shelf', 'share')]
  if not names:
    return {}
  shares, low, high = (np.array(of(one)) for one in ('share', 'share_low', 'share_high'))

  def draw(axis: Any) -> None:
    across = [
      [max(s - a, 0) for s, a in zip(shares, low)],
      [max(b - s, 0) for s, b in zip(shares, high)],
    ]
    axis.barh(names, shares, xerr=across, capsize=3, color=plots.COLORS[0])
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel('share of the bytes of the training text, with its range')
    axis.set_title('What the tokenizer was trained on')

  caption = 'The shares of the training text, each with its range over samples drawn again.'
  panel = plots.Panel(draw, 1.2 + 0.35 * len(names))
  return {'off_the_shelf.png': plots.Picture(caption, [panel])}


TABLE = Table(
  'off_the_shelf',
  measure,
  'The share of each category in the training text of a tokenizer, inferred from its merges. '
  'Training text outside of these categories is attributed to the most similar categories.',
  ('share', 'share_low', 'share_high', 'width', 'p_none_of_these'),
  check=check,
  pictures=pictures,
)
