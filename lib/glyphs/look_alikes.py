# SPDX-License-Identifier: Apache-2.0
"""Characters that look alike, by the bitmaps of a font or by the list of Unicode, and text in them.

The list of Unicode Technical Standard 39 ("confusables") was compiled by people from many fonts,
so it does not depend on one font's pixels. The package `confusable-homoglyphs` has its data.
"""

import functools
import importlib.resources
import json
import unicodedata
from collections.abc import Mapping

import numpy as np

from lib.data import pipeline
from lib.glyphs.fonts import CELLS, Font
from lib.glyphs.rendering import render
from lib.tokenizers.base import Tokenizer

LETTERS = ('Lu', 'Ll', 'Lt', 'Lm', 'Lo', 'Nl')


def look_alikes(
  characters: str, font: Font, cell: int = 32, tolerance: float = 0.0, most: int = 4
) -> dict[str, str]:
  """For each character, the letters beyond ASCII that look like it, the most similar first.

  Args:
    characters: to be imitated; those without a look-alike are left out.
    font: for the bitmaps.
    cell: pixels along an edge.
    tolerance: pixels that may differ, as a share of the character's ink; 0 means equality.
    most: the most look-alikes of one character.
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
      known = font.render(np.array([ord(one) for one in letters], np.int64), CELLS[0])[1]
      letters = [one for one, there in zip(letters, known, strict=True) if there]
    if letters:
      found[character] = ''.join(letters[:most])
  return found


def attack(clean: str, alike: Mapping[str, str], rate: float, seed: int) -> str:
  """Replaces each letter that has look-alikes, with probability `rate`, by one of them."""
  rng = np.random.default_rng(seed)
  return ''.join(
    alike[character][rng.integers(len(alike[character]))]
    if rng.random() < rate and character in alike
    else character
    for character in clean
  )


def aligned(
  tokenizer: Tokenizer, clean: str, attacked: str, length: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Rows [length] with the same clean target tokens after the clean and after the attacked context.

  A clean token is left out of both if no token of the attacked text begins at the same character.
  `scored` is 1, and `bytes` above 0, where a target counts.
  """
  ids, begins = _tokens(tokenizer, clean)
  read, starts = _tokens(tokenizer, attacked)
  both = np.intersect1d(begins[:length], starts[:length])
  both = both[both == both.astype(int)]
  sought = ids[np.searchsorted(begins, both)]
  one, other = (
    _row(tokenizer, context, np.searchsorted(places, both), sought, length)
    for context, places in ((ids, begins), (read, starts))
  )
  return one, other


def _tokens(tokenizer: Tokenizer, whole: str) -> tuple[np.ndarray, np.ndarray]:
  """Ids [n], and the index of each token's first character."""
  ids = tokenizer.encode(whole.encode())
  ends = np.cumsum(tokenizer.byte_lengths(ids))
  first_bytes = np.cumsum([0, *(len(character.encode()) for character in whole)])
  starts = np.concatenate([[0], ends[:-1]])
  character = np.searchsorted(first_bytes, starts)
  # A token inside a character is assigned to the next character.
  return ids, np.where(first_bytes[character] == starts, character, character - 0.5)


def _row(
  tokenizer: Tokenizer, context: np.ndarray, places: np.ndarray, sought: np.ndarray, length: int
) -> dict[str, np.ndarray]:
  row = {field: np.zeros(length, np.int32) for field in (*pipeline.FIELDS, 'scored')}
  count = min(length, len(context))
  row['inputs'][:count] = np.concatenate([[tokenizer.vocab_size], context])[:count]
  row['segments'][:count] = 1
  row['positions'][:count] = np.arange(count)
  row['targets'][places] = sought
  row['bytes'][places] = tokenizer.byte_lengths(sought)
  row['scored'][places] = 1
  return row
