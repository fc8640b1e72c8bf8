# SPDX-License-Identifier: Apache-2.0
"""Unicode coverage of a font, tokens with equal pictures, and variance in fewer components."""

from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments import recipe
from experiments.recipe import Pictures, Run
from experiments.visual_unicode import text
from lib.glyphs import fonts, pixel_rows, rendering, row_kinds
from lib.report.plots import Picture
from lib.report.results import Row, Rows

FORMS = ('faithful', 'deduped')  # of the rows
PAIRS = {
  'newline_is_space': '\n ',
  'nbsp_is_space': '\xa0 ',
  'cyrillic_a_is_latin_a': 'АA',
}


def measure(config: ConfigDict, run: Run) -> list[Row]:
  """Measures every available font: DejaVu, GNU Unifont, and the config's."""
  found = {text.find_font(font).name: font for font in ('dejavu', 'auto', config.glyphs.font)}
  rows = Rows('coverage')
  for title, font in found.items():
    _add_blocks(rows, title, text.find_font(font))
    for kind in dict.fromkeys(('unicode', config.tokenizer.kind)):
      _add_vocabulary(rows, config, title, font, kind)
  if not any('unifont' in title.lower() for title in found):
    note = 'not measured: GNU Unifont is not on this system (Debian: apt-get install unifont)'
    rows.add({'font': 'unifont.hex'}, 'covered_share', None, note=note)
    for form in FORMS:
      where = {'font': 'unifont.hex', 'vocabulary': 'unicode', 'rows': form}
      for column in ('tokens', 'distinct_rows', *PAIRS):
        rows.add(where, column, None, note=note)
  return rows


def _add_blocks(rows: Rows, title: str, font: fonts.Font) -> None:
  """Coverage in all and by block."""
  blocks = fonts.blocks(font)
  there = {block: counts for block, counts in blocks.items() if counts[1]}
  assigned, known = (sum(part) for part in zip(*blocks.values()))
  note = f'it has no character of {len(blocks) - len(there)} more blocks'
  rows.add({'font': title}, 'assigned_characters', assigned, 'characters')
  rows.add({'font': title}, 'covered_share', known / assigned, 'ratio', note)
  for block, (assigned, known) in there.items():
    where = {'font': title, 'block': block}
    rows.add(where, 'assigned_characters', assigned, 'characters')
    rows.add(where, 'covered_share', known / assigned, 'ratio')


def _add_vocabulary(rows: Rows, config: ConfigDict, title: str, font: str, kind: str) -> None:
  """Tokens that share a row, and the variance that fewer components keep."""
  tokenizer = text.open_text(config, kind).tokenizer
  table = text.render_tokens(config, tokenizer, font)
  of_font = {'font': title, 'vocabulary': kind}
  pairs = {
    column: [int(tokenizer.encode(one.encode())[-1]) for one in pair]
    for column, pair in PAIRS.items()
  }
  deduped = pixel_rows.glyph_rows(table, min(64, table.cell**2), identity=row_kinds.IDENTITY)
  for form, vectors in zip(FORMS, (table.bits, deduped)):
    where = of_font | {'rows': form}
    distinct, sharing = shared(vectors)
    covered, note = table.covered.sum(), 'all of whose characters the font has'
    rows.add(where, 'tokens', len(vectors), 'tokens')
    rows.add(where, 'covered_tokens', covered, 'tokens', note)
    rows.add(where, 'distinct_rows', distinct, 'rows')
    rows.add(where, 'distinct_rows_of_covered', shared(vectors[table.covered])[0], 'rows')
    rows.add(where, 'tokens_sharing_a_row', sharing, 'tokens')
    for column, (one, other) in pairs.items():
      same = one != other and np.array_equal(vectors[one], vectors[other])
      rows.add(where, column, same, 'yes/no')
  kept = pixel_rows.variance_kept(table)
  for dim in (2**power for power in range(3, 13)):
    if dim <= kept.size:
      rows.add(of_font | {'dim': dim}, 'variance_kept', kept[dim - 1], 'ratio')


def shared(vectors: np.ndarray) -> tuple[int, int]:
  """How many of the rows [V, D] are distinct, and how many are equal to another."""
  whole = np.ascontiguousarray(vectors).view(f'V{vectors.shape[1] * vectors.itemsize}')[:, 0]
  _, counts = np.unique(whole, return_counts=True)
  return counts.size, int(counts[counts > 1].sum())


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Some tokens as the models see them."""
  opened = text.open_text(config)
  tokens = text.strings_of(opened.tokenizer, config.glyphs.alphabet)
  caption = 'Some tokens as the models see them.'
  return {'glyphs.png': Picture(caption, rendering.contact_sheet(opened.glyphs, tokens))}


TABLE = recipe.Table(
  'coverage',
  measure,
  caption='Pictures of tokens. `covered_share` is of the assigned characters of the Basic '
  'Multilingual Plane; blocks without characters in the font are left out. Faithful rows are the '
  'paper’s: tokens drawn alike share one row; `deduped` adds a random direction to each shared '
  'row.',
  shown=(
    'covered_share',
    'covered_tokens',
    'distinct_rows',
    'tokens_sharing_a_row',
    'newline_is_space',
    'cyrillic_a_is_latin_a',
    'variance_kept',
  ),
  rows=lambda where: (
    set(where) == {'font'} or 'rows' in where or where.get('dim') in ('16', '64', '256')
  ),
  check=text.check,
  pictures=pictures,
  sources=recipe.text_of,
)
