# SPDX-License-Identifier: Apache-2.0
"""What a font draws of Unicode, which tokens it draws alike, and what fewer components keep."""

import unicodedata

import numpy as np
from fontTools.unicodedata import Blocks
from ml_collections import ConfigDict

from experiments import runner
from experiments.visual_unicode import models, text
from lib.data import fonts
from lib.data.glyphs import GlyphTable
from lib.embeddings import glyph_rows
from lib.report.results import Row, name

CAPTION = (
  'Pictures of tokens. `covered_share` is of the assigned characters of the Basic Multilingual '
  'Plane; blocks of which a font has nothing are left out. Faithful rows are the paper’s: tokens '
  'drawn alike share one row; `deduped` adds a random direction to each shared row.'
)
SUMMARY = (
  '^font=[^,]*$|rows=|dim=(16|64|256)$',
  ('covered_share', 'covered_tokens', 'distinct_rows', 'tokens_sharing_a_row', 'newline_is_space',
   'cyrillic_a_is_latin_a', 'variance_kept'),
)  # fmt: skip
BMP = 0x10000
FORMS = ('faithful', 'deduped')  # of the rows
PAIRS = {
  'newline_is_space': '\n ',
  'nbsp_is_space': '\xa0 ',
  'cyrillic_a_is_latin_a': 'АA',
}


def check(config: ConfigDict) -> None:
  """Raises InputError for text or a font that cannot be had."""
  text.check(config)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Measures every font that there is: DejaVu, GNU Unifont, and the config's."""
  found = {text.find_font(font).name: font for font in ('dejavu', 'auto', config.glyphs.font)}
  rows = []
  for title, font in found.items():
    rows += _blocks(title, text.find_font(font))
    for kind in dict.fromkeys(('unicode', config.tokenizer.kind)):
      rows += _vocabulary(config, title, font, kind)
  if not any('unifont' in title.lower() for title in found):
    note = 'not measured: GNU Unifont is not on this system (Debian: apt-get install unifont)'
    missing = [(name(font='unifont.hex'), 'covered_share')] + [
      (name(font='unifont.hex', vocabulary='unicode', rows=form), column)
      for form in FORMS
      for column in ('tokens', 'distinct_rows', *PAIRS)
    ]
    rows += [Row('coverage', row, column, None, note=note) for row, column in missing]
  return rows


def _blocks(title: str, font: fonts.Font) -> list[Row]:
  """Coverage in all and by block."""
  points = np.arange(BMP)
  categories = np.array([unicodedata.category(chr(point)) for point in points])
  assigned = ~np.isin(categories, ('Cn', 'Cs', 'Co'))
  known = font.draw(points, fonts.CELLS[0])[1] & assigned
  put = lambda row, column, value, unit='', note='': Row(
    'coverage', row, column, float(value), unit=unit, note=note
  )
  rows, missing = [], 0
  for first, last, block in zip(Blocks.RANGES, Blocks.RANGES[1:], Blocks.VALUES):
    here = slice(first, min(last, BMP))
    if first >= BMP or not assigned[here].any():
      continue
    if not known[here].any():
      missing += 1
      continue
    row, size = name(font=title, block=block), assigned[here].sum()
    rows += [
      put(row, 'assigned_characters', size),
      put(row, 'covered_share', known[here].sum() / size, 'ratio'),
    ]
  row, note = name(font=title), f'it has no character of {missing} more blocks'
  total = [
    put(row, 'assigned_characters', assigned.sum()),
    put(row, 'covered_share', known.sum() / assigned.sum(), 'ratio', note),
  ]
  return total + rows


def _vocabulary(config: ConfigDict, title: str, font: str, kind: str) -> list[Row]:
  """Tokens that share a row, and the variance that fewer components keep."""
  tokenizer = text.open_text(config, kind).tokenizer
  glyphs = text.draw(config, tokenizer, font)
  row, rows = name(font=title, vocabulary=kind), []
  put = lambda part, column, value, unit='', note='': rows.append(
    Row('coverage', f'{row},{part}', column, float(value), unit=unit, note=note)
  )
  dim = min(64, glyphs.cell**2)
  pairs = {
    column: [int(tokenizer.encode(one.encode())[-1]) for one in pair]
    for column, pair in PAIRS.items()
  }
  deduped = glyph_rows.glyph_rows(glyphs, dim, identity=models.IDENTITY)
  for form, vectors in zip(FORMS, (glyphs.bits, deduped)):
    part = name(rows=form)
    distinct, sharing = shared(vectors)
    put(part, 'tokens', len(vectors))
    put(part, 'covered_tokens', glyphs.covered.sum(), note='all of whose characters the font has')
    put(part, 'distinct_rows', distinct)
    put(part, 'distinct_rows_of_covered', shared(vectors[glyphs.covered])[0])
    put(part, 'tokens_sharing_a_row', sharing)
    for column, (one, other) in pairs.items():
      put(part, column, one != other and np.array_equal(vectors[one], vectors[other]))
  return rows + _variance(row, glyphs)


def _variance(row: str, glyphs: GlyphTable) -> list[Row]:
  kept = glyph_rows.variance_kept(glyphs)
  return [
    Row('coverage', f'{row},dim={dim}', 'variance_kept', float(kept[dim - 1]), unit='ratio')
    for dim in (2**power for power in range(3, 13))
    if dim <= kept.size
  ]


def shared(vectors: np.ndarray) -> tuple[int, int]:
  """How many of the rows [V, D] are distinct, and how many are equal to another."""
  whole = np.ascontiguousarray(vectors).view(f'V{vectors.shape[1] * vectors.itemsize}')[:, 0]
  _, counts = np.unique(whole, return_counts=True)
  return counts.size, int(counts[counts > 1].sum())
