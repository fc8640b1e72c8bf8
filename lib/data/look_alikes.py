# SPDX-License-Identifier: Apache-2.0
"""Characters that a font draws alike: found in its bitmaps, in no list."""

import unicodedata

import numpy as np

from lib.data.fonts import Font
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
