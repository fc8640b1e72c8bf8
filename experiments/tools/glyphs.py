# SPDX-License-Identifier: Apache-2.0
"""Draws a glyph table once: `python -m experiments.tools.glyphs --out=DIR`.

Writes DIR/glyphs.table (for `lib.glyphs.rendering.load`) and DIR/glyphs.png, a contact sheet of
some pictures, and prints the share of the vocabulary that the font covers and the number of tokens
that share a picture. 65,536 tokens take seconds. GNU Unifont (Debian: `unifont`) covers the Basic
Multilingual Plane; the embedded DejaVu Sans covers about a tenth of it.
"""

import pathlib
import time

import numpy as np
from absl import flags

from experiments.tools import command
from lib import atomic, tokenizers
from lib.errors import InputError
from lib.glyphs import fonts, rendering
from lib.tokenizers.strings import ALPHABETS, token_strings
from lib.tokenizers.unicode import Unicode

FONT = flags.DEFINE_string(
  'font', 'auto', 'auto (GNU Unifont if installed), dejavu, or a .hex, .hex.gz, .ttf or .otf file.'
)
TOKENIZER = flags.DEFINE_string(
  'tokenizer', 'unicode', 'A tokenizer file, or unicode: code points without n-grams.'
)
ALPHABET = flags.DEFINE_enum('alphabet', 'text', ALPHABETS, 'How bytes are drawn.')
CELL = flags.DEFINE_integer(
  'cell', 32, f'Pixels along an edge: {", ".join(map(str, fonts.CELLS))}.'
)
COMPOSITION = flags.DEFINE_enum(
  'composition', 'squeeze', rendering.COMPOSITIONS, 'How several characters become one picture.'
)
OUT = flags.DEFINE_string('out', 'runs/glyphs', 'Folder for the table and the contact sheet.')


def execute() -> None:
  """Renders the tokens, prints the coverage, and writes both files."""
  font = fonts.find_font(FONT.value)
  chosen = TOKENIZER.value
  tokenizer = Unicode() if chosen == 'unicode' else tokenizers.load(chosen)
  start = time.perf_counter()
  tokens = token_strings(tokenizer, ALPHABET.value)
  table = rendering.render(tokens, font, CELL.value, COMPOSITION.value)
  seconds = time.perf_counter() - start
  folder = pathlib.Path(OUT.value)
  path = folder / 'glyphs.table'
  try:
    folder.mkdir(parents=True, exist_ok=True)
    rendering.save(table, path)
    atomic.write(folder / 'glyphs.png', rendering.contact_sheet(table, tokens))
  except OSError as error:
    raise InputError(f'cannot write to {folder}: {error.strerror}') from error
  # Ids without text are rendered too, but do not count for the font's coverage.
  real = tokenizer.byte_lengths(np.arange(len(tokens))) > 0
  print(
    f'{font.name} covers {table.covered[real].sum():,} of {real.sum():,} tokens that stand for '
    f'text ({table.covered[real].mean():.2%})\n'
    f'{table.shared[real].sum():,} of them share their picture with another token, as do '
    f'{table.shared[~real].sum():,} of the {(~real).sum():,} other ids\n'
    f'{table.cell} × {table.cell} pixels in {seconds:.1f} s, fingerprint {table.fingerprint[:12]}\n'
    f'{path} ({path.stat().st_size / 2**20:.1f} MiB), {folder / "glyphs.png"}'
  )


if __name__ == '__main__':
  command.main('glyphs', execute)
