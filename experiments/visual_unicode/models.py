# SPDX-License-Identifier: Apache-2.0
"""The models of the recipe: one decoder and one trained LM head over input rows that are given.

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
from experiments.recipe import Plan, Plans, Run
from experiments.visual_unicode.old import Trained, fit_model, make_decoder  # noqa: F401
from experiments.visual_unicode.text import Text
from lib import stats
from lib.data.glyphs import GlyphTable
from lib.embeddings import glyph_rows
from lib.embeddings.glyph import Given
from lib.errors import InputError
from lib.models.decoder import LanguageModel
from lib.report.results import name
from lib.stats import Estimate
from lib.train.experiment import Batch

IDENTITY = 0.5  # of the glyph's norm: a random direction for each token of 'glyph_deduped'


class Arm(NamedTuple):
  """The input rows of a model.

  Attributes:
    label: in plots.
    rows: (glyphs of V tokens, D, seed) -> rows [V, D].
    frozen: whether they stay as they are.
  """

  label: str
  rows: Callable[[GlyphTable, int, int], np.ndarray]
  frozen: bool = True


@functools.cache
def glyph(glyphs: GlyphTable, dim: int) -> np.ndarray:
  """The paper's rows [V, D]: centred pixels, rotated, of norm 1; look-alikes share one."""
  return glyph_rows.glyph_rows(glyphs, dim)


@functools.lru_cache(maxsize=2)
def _deduped(glyphs: GlyphTable, dim: int, seed: int) -> np.ndarray:
  """The paper's rows; each row that tokens share gets a random direction for each of them."""
  return glyph_rows.glyph_rows(glyphs, dim, identity=IDENTITY, seed=seed)


def _faithful(glyphs: GlyphTable, dim: int, seed: int) -> np.ndarray:
  return glyph(glyphs, dim)


def _shuffled(glyphs: GlyphTable, dim: int, seed: int) -> np.ndarray:
  return glyph_rows.shuffled(glyph(glyphs, dim), seed)


def _random(glyphs: GlyphTable, dim: int, seed: int) -> np.ndarray:
  return glyph_rows.gaussian_rows(len(glyphs.bits), dim, seed)


def _of_rms(rms: float) -> Callable[[GlyphTable, int, int], np.ndarray]:
  return lambda glyphs, dim, seed: glyph_rows.with_rms(glyph(glyphs, dim), rms)


def _normal(std: float) -> Callable[[GlyphTable, int, int], np.ndarray]:
  """Rows as tables that are trained begin."""
  return lambda glyphs, dim, seed: np.random.default_rng(seed).normal(
    scale=std, size=(len(glyphs.bits), dim)
  )


def _code(width: int) -> Callable[[GlyphTable, int, int], np.ndarray]:
  """Random binary codes, no two alike."""
  return lambda glyphs, dim, seed: glyph_rows.random_code_rows(len(glyphs.bits), dim, width, seed)


ARMS = {
  'glyph': Arm('glyphs, frozen', _faithful),
  'glyph_deduped': Arm('glyphs made distinct, frozen', _deduped),
  # A trained table's first rows have this root mean square: the frozen table at its scale.
  'glyph_rms_0.02': Arm('glyphs of rms 0.02, frozen', _of_rms(0.02)),
  'glyph_rms_1': Arm('glyphs of rms 1, frozen', _of_rms(1.0)),
  'shuffled': Arm('shuffled glyphs, frozen', _shuffled),
  'random': Arm('random, frozen', _random),
  # 16 bits are the token's id in binary, as in the paper; wider codes are random.
  'code_16': Arm(
    'id in 16 bits, frozen',
    lambda glyphs, dim, seed: glyph_rows.id_code_rows(len(glyphs.bits), dim, 16),
  ),
  'code_64': Arm('random code of 64 bits, frozen', _code(64)),
  'code_256': Arm('random code of 256 bits, frozen', _code(256)),
  'code_1024': Arm('random code of 1,024 bits, frozen', _code(1024)),
  # Nothing of the input is read, whatever the decoder does.
  'equal': Arm(
    'all rows equal, frozen',
    lambda glyphs, dim, seed: np.full((len(glyphs.bits), dim), dim**-0.5),
  ),
  'trainable_0.02': Arm('trained from rms 0.02', _normal(0.02), frozen=False),
  'trainable_1': Arm('trained from rms 1', _normal(1.0), frozen=False),
  # Three starts of one root mean square, that of the glyph rows: which of them are their forms?
  'trainable_glyph': Arm('trained from glyphs', _faithful, frozen=False),
  'trainable_shuffled': Arm('trained from shuffled glyphs', _shuffled, frozen=False),
  'trainable_random': Arm('trained from random rows of norm 1', _random, frozen=False),
}


def check_arms(arms: Iterable[str], where: str) -> None:
  """Raises InputError for an arm in the config's field `where` that there is not."""
  for arm in arms:
    if arm not in ARMS:
      raise InputError(f'{where}: {arm!r} is not one of {", ".join(ARMS)}.')


def check(options: ConfigDict, where: str) -> None:
  """Raises InputError for a section, called `where`, whose arms cannot be trained."""
  fit.check(options, where)
  check_arms(options.arms, f'{where}.arms')
  if not options.arms:
    raise InputError(f'{where}.arms is empty: choose among {", ".join(ARMS)}.')
  for arm in options.arms:
    width = arm.removeprefix('code_')
    if width.isdigit() and options.dim % int(width):
      raise InputError(f'{where}.arms: {arm} needs a dim that {width} divides; got {options.dim}.')


def make_model(
  config: ConfigDict, options: ConfigDict, arm: str, glyphs: GlyphTable
) -> LanguageModel:
  """The decoder of the section over an arm's rows for the tokens of a glyph table."""
  rows = lambda seed: ARMS[arm].rows(glyphs, options.dim, seed)
  return _over(config, options, arm, len(glyphs.bits), rows)


def _over(
  config: ConfigDict, options: ConfigDict, arm: str, vocab_size: int, rows: Callable
) -> LanguageModel:
  dtype = fit.dtype(config)
  embedding = Given(vocab_size, options.dim, rows, frozen=ARMS[arm].frozen, dtype=dtype)
  return LanguageModel(embedding, fit.make_decoder(options, dtype))


def plans(config: ConfigDict, table: str, vocab_size: int) -> Plans:
  """What `train` would train for each arm of a table, trained rows first: they hold more."""
  options = config[table]
  zeros = lambda seed: np.broadcast_to(np.float32(0), (vocab_size, options.dim))

  def plan(arm: str) -> Plan:
    return fit.plan(options, _over(config, options, arm, vocab_size, zeros))

  arms = sorted(options.arms, key=lambda arm: ARMS[arm].frozen)
  return {f'{table}/{name(arm=arm)}': functools.partial(plan, arm) for arm in arms}


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
) -> list[Fitted]:
  """The seeds of an arm over the tokens of a text; their rate is the best on `validation`."""
  model, label = make_model(config, options, arm, opened.glyphs), f'{table}/{name(arm=arm)}'
  held_out = {'validation': lambda seed: validation}
  return fit.fit(
    config, run, options, label, model, batches, evaluations=held_out, tokenizer=opened.tokenizer
  )
