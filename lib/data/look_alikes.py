# SPDX-License-Identifier: Apache-2.0
"""Characters that look alike: by the bitmaps of a font, or by the list of Unicode.

The list of Unicode Technical Standard 39 ("confusables") was made by people who looked at many
fonts, so no single font's pixels define it. The package `confusable-homoglyphs` holds its data.
"""

import functools
import importlib.resources
import json
import unicodedata

import numpy as np

from lib.data.fonts import CELLS, Font
from lib.data.glyphs import render

LETTERS = ('Lu', 'Ll', 'Lt', 'Lm', 'Lo', 'Nl')


def look_alikes(
  characters: str, font: Font, cell: int = 32, tolerance: float = 0.0, most: int = 4
) -> dict[str, str]:
  """For each character the letters beyond ASCII that look like it, the likest first.

  Args:
    characters: to be imitated; those that have no look-alike are left out.
    font: that draws.
    cell: pixels along an edge.
    tolerance: pixels that may differ, as a share of the character's ink; 0 asks for equality.
    most: look-alikes of one character.
  """
  others = [
    chr(point) for point in range(0x80, 0x10000) if unicodedata.category(chr(point)) in LETTERS
  ]
  table = render([*characters, *others], font, cell)
  bits, covered = table.bits[len(characters) :], table.covered[len(characters) :]
  found = {}
  for character, drawn in zip(characters, table.bits):
    ink = np.bitwise_count(drawn).sum()
    differ = np.bitwise_count(bits ^ drawn[None]).sum(axis=1)
    near = np.flatnonzero(covered & (differ <= tolerance * ink))
    if ink and near.size:
      order = near[np.argsort(differ[near], kind='stable')][:most]
      found[character] = ''.join(others[i] for i in order)
  return found


@functools.cache
def _confusables() -> dict[str, list[dict[str, str]]]:
  data = importlib.resources.files('confusable_homoglyphs') / 'confusables.json'
  return json.loads(data.read_text('utf-8'))


def confusables(characters: str, font: Font, most: int = 4) -> dict[str, str]:
  """For each character the letters beyond ASCII that Unicode lists as confusable with it.

  Args:
    characters: to be imitated; characters without a look-alike are left out.
    font: look-alikes that it does not have are left out: their pictures would be blank.
    most: look-alikes of one character, in the order of their code points.
  """
  found = {}
  for character in characters:
    listed = {one['c'] for one in _confusables().get(character, ())}
    letters = sorted(
      one
      for one in listed
      if len(one) == 1 and 0x80 <= ord(one) < 0x10000 and unicodedata.category(one) in LETTERS
    )
    if letters:
      known = font.draw(np.array([ord(one) for one in letters], np.int64), CELLS[0])[1]
      letters = [one for one, there in zip(letters, known, strict=True) if there]
    if letters:
      found[character] = ''.join(letters[:most])
  return found
