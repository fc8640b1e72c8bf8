# SPDX-License-Identifier: Apache-2.0
"""The models of the recipe: one decoder and one trained LM head over different input rows.

The arms differ in their rows alone: seeds of equal number have the same decoder, the same LM head
and the same batches in every arm, so that their losses are compared in pairs.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments import fit
from experiments.fit import Batches, Fitted
from experiments.recipe import Run, TrainSpec, TrainSpecs
from experiments.visual_unicode.text import Text
from lib import stats
from lib.embeddings.fixed import FixedRows
from lib.errors import InputError
from lib.glyphs import row_kinds
from lib.glyphs.rendering import GlyphTable
from lib.models.decoder import LanguageModel
from lib.report.results import name
from lib.stats import Estimate
from lib.train.experiment import Batch


class Arm(NamedTuple):
  """The input rows of a model.

  Attributes:
    label: in plots.
    rows: of `lib.glyphs.row_kinds`.
    frozen: whether they stay as they are.
  """

  label: str
  rows: str
  frozen: bool = True


ARMS = {
  'glyph': Arm('glyphs, frozen', 'glyph'),
  'glyph_deduped': Arm('glyphs made distinct, frozen', 'glyph_deduped'),
  'glyph_rms_0.02': Arm('glyphs of rms 0.02, frozen', 'glyph_rms_0.02'),
  'glyph_rms_1': Arm('glyphs of rms 1, frozen', 'glyph_rms_1'),
  'shuffled': Arm('shuffled glyphs, frozen', 'shuffled'),
  'random': Arm('random, frozen', 'random'),
  'code_16': Arm('id in 16 bits, frozen', 'code_16'),
  'code_64': Arm('random code of 64 bits, frozen', 'code_64'),
  'code_256': Arm('random code of 256 bits, frozen', 'code_256'),
  'code_1024': Arm('random code of 1,024 bits, frozen', 'code_1024'),
  'equal': Arm('all rows equal, frozen', 'equal'),
  'trainable_0.02': Arm('trained from rms 0.02', 'normal_0.02', frozen=False),
  'trainable_1': Arm('trained from rms 1', 'normal_1', frozen=False),
  # Three starts of one root mean square, that of the glyph rows: which of them are their forms?
  'trainable_glyph': Arm('trained from glyphs', 'glyph', frozen=False),
  'trainable_shuffled': Arm('trained from shuffled glyphs', 'shuffled', frozen=False),
  'trainable_random': Arm('trained from random rows of norm 1', 'random', frozen=False),
}


def check_arms(arms: Iterable[str], where: str) -> None:
  """Raises InputError for an unknown arm in the config's field `where`."""
  for arm in arms:
    if arm not in ARMS:
      raise InputError(f'{where}: {arm!r} is not one of {", ".join(ARMS)}.')


def check(options: ConfigDict, where: str) -> None:
  """Raises InputError for a section, called `where`, whose arms cannot be trained."""
  fit.check(options, where)
  check_arms(options.arms, f'{where}.arms')
  check_arms(options.get('references', ()), f'{where}.references')
  for arm in options.arms:
    width = arm.removeprefix('code_')
    if width.isdigit() and options.dim % int(width):
      raise InputError(f'{where}.arms: {arm} needs a dim that {width} divides; got {options.dim}.')


def make_model(
  config: ConfigDict, options: ConfigDict, arm: str, glyphs: GlyphTable
) -> LanguageModel:
  """The decoder of the section over the rows of an arm, for the tokens of a glyph table."""
  rows = lambda seed: row_kinds.KINDS[ARMS[arm].rows](glyphs, options.dim, seed)
  return _over(config, options, arm, len(glyphs.bits), rows)


def _over(
  config: ConfigDict, options: ConfigDict, arm: str, vocab_size: int, rows: Callable
) -> LanguageModel:
  dtype = fit.dtype(config)
  embedding = FixedRows(vocab_size, options.dim, rows, frozen=ARMS[arm].frozen, dtype=dtype)
  return LanguageModel(embedding, fit.make_decoder(options, dtype))


def train_specs(config: ConfigDict, table: str, vocab_size: int) -> TrainSpecs:
  """What `train` would train for each arm of a table, trained rows first, since they need more
  memory.
  """
  options = config[table]
  zeros = lambda seed: np.broadcast_to(np.float32(0), (vocab_size, options.dim))

  def train_spec(arm: str) -> TrainSpec:
    return fit.train_spec(options, _over(config, options, arm, vocab_size, zeros))

  arms = sorted(options.arms, key=lambda arm: ARMS[arm].frozen)
  return {f'{table}/{name(arm=arm)}': functools.partial(train_spec, arm) for arm in arms}


def differences(
  values: Mapping[str, np.ndarray], references: Sequence[str], over: str = 'seeds'
) -> Iterator[tuple[dict[str, str], Estimate]]:
  """(coordinates, difference) of each arm from each reference that is there (`lib.stats.arms`)."""
  for reference in references:
    if reference in values:
      for arm, found in stats.arms(values, reference, over).items():
        yield {'arm': arm, 'against': reference}, found


def train(
  config: ConfigDict,
  run: Run,
  options: ConfigDict,
  table: str,
  arm: str,
  opened: Text,
  batches: Batches,
  validation: Sequence[Batch],
  text: str | None = None,
) -> list[Fitted]:
  """The seeds of an arm over the tokens of a text; their rate is the best on `validation`.

  `text` is '' where the batches are generated.
  """
  model, label = make_model(config, options, arm, opened.glyphs), f'{table}/{name(arm=arm)}'
  held_out = {'validation': lambda seed: validation}
  return fit.fit(
    config,
    run,
    options,
    label,
    model,
    batches,
    evaluations=held_out,
    tokenizer=opened.tokenizer,
    text=text,
  )
