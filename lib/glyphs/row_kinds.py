# SPDX-License-Identifier: Apache-2.0
"""Given rows by name, each a function (pictures of V tokens, D, seed) -> rows [V, D].

Rows of one seed are equal for equal pictures; only some kinds look at the pictures.
"""

import functools
from collections.abc import Callable

import numpy as np

from lib.glyphs import pixel_rows
from lib.glyphs.rendering import GlyphTable

Kind = Callable[[GlyphTable, int, int], np.ndarray]
IDENTITY = 0.5  # of the glyph's norm: a random direction for each token of 'glyph_deduped'


@functools.cache
def glyph(table: GlyphTable, dim: int) -> np.ndarray:
  """The paper's rows [V, D]: centred pixels, rotated, of norm 1; look-alikes share one."""
  return pixel_rows.glyph_rows(table, dim)


@functools.lru_cache(maxsize=2)
def deduped(table: GlyphTable, dim: int, seed: int) -> np.ndarray:
  """The paper's rows; each row that tokens share gets a random direction for each of them."""
  return pixel_rows.glyph_rows(table, dim, identity=IDENTITY, seed=seed)


def of_rms(rms: float) -> Kind:
  """The paper's rows at the scale of a trained table."""
  return lambda table, dim, seed: pixel_rows.with_rms(glyph(table, dim), rms)


def normal(std: float) -> Kind:
  """Rows as tables that are trained begin."""
  return lambda table, dim, seed: np.random.default_rng(seed).normal(
    scale=std, size=(len(table.bits), dim)
  )


def code(width: int) -> Kind:
  """Random binary codes, no two alike."""
  return lambda table, dim, seed: pixel_rows.random_code_rows(len(table.bits), dim, width, seed)


KINDS: dict[str, Kind] = {
  'glyph': lambda table, dim, seed: glyph(table, dim),
  'glyph_deduped': deduped,
  # A trained table's first rows have this root mean square: the frozen table at its scale.
  'glyph_rms_0.02': of_rms(0.02),
  'glyph_rms_1': of_rms(1.0),
  'shuffled': lambda table, dim, seed: pixel_rows.shuffled(glyph(table, dim), seed),
  'random': lambda table, dim, seed: pixel_rows.gaussian_rows(len(table.bits), dim, seed),
  # 16 bits are the token's id in binary, as in the paper; wider codes are random.
  'code_16': lambda table, dim, seed: pixel_rows.id_code_rows(len(table.bits), dim, 16),
  'code_64': code(64),
  'code_256': code(256),
  'code_1024': code(1024),
  # The input carries no information, for any decoder.
  'equal': lambda table, dim, seed: np.full((len(table.bits), dim), dim**-0.5),
  'normal_0.02': normal(0.02),
  'normal_1': normal(1.0),
}
