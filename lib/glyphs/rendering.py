# SPDX-License-Identifier: Apache-2.0
"""Tables of token pictures: every token drawn into one square, one bit a pixel (arXiv 2507.04886).

The paper's small fixed rotation, shift and noise are left out: they are the same for every token
of a script, so they do not distinguish tokens.
"""

import dataclasses
import functools
import hashlib
import io
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from lib import atomic
from lib.errors import InputError
from lib.glyphs.fonts import CELLS, Font

COMPOSITIONS = ('squeeze', 'area')
# Characters that Pillow leaves blank in the paper for every font, so they share one picture.
BLANK = '\n\r\x1c\x1d\x1e\x85\xa0\xad'
MAGIC, VERSION = 'glyph-table', 1
CHUNK = 2**14  # characters that are composed at once: 16 MiB of pixels at 32 × 32


@dataclasses.dataclass(frozen=True, eq=False)
class GlyphTable:
  """One picture for each token.

  Attributes:
    bits: uint8 [V, cell² / 8], pixels row by row from the top left, highest bit first; 1 is ink.
    covered: bool [V], whether the font has all characters of the token.
    cell: pixels along an edge.
    fingerprint: sha256, in hex, of the font, the tokens and the options.
  """

  bits: np.ndarray
  covered: np.ndarray
  cell: int
  fingerprint: str

  def pixels(self, ids: slice | np.ndarray = slice(None)) -> np.ndarray:
    """Ink of some tokens, uint8 0 or 1 [N, cell, cell]."""
    return np.unpackbits(self.bits[ids], axis=1).reshape(-1, self.cell, self.cell)

  @functools.cached_property
  def distinct(self) -> tuple[np.ndarray, np.ndarray]:
    """The first token of each of K pictures, [K], and which picture each token has, [V]."""
    rows = np.ascontiguousarray(self.bits).view(f'V{self.bits.shape[1]}')[:, 0]
    _, first, which = np.unique(rows, return_index=True, return_inverse=True)
    return first, which

  @functools.cached_property
  def shared(self) -> np.ndarray:
    """Whether another token has the same picture, bool [V]."""
    _, which = self.distinct
    return np.bincount(which)[which] > 1


def render(
  tokens: Sequence[str | bytes],
  font: Font,
  cell: int = 32,
  composition: str = 'squeeze',
  blank: str = BLANK,
) -> GlyphTable:
  """Draws every token.

  Args:
    tokens: V tokens; bytes that are no UTF-8 are drawn as `\\xNN`.
    font: what draws their characters; one that it has not leaves a blank cell.
    cell: edge of a character's square and of a token's, one of `CELLS`.
    composition: how the strip of a token's k characters, cell × k·cell, becomes a square:
      'squeeze' (the paper: of every k columns the middle one is kept) or 'area' (the mean of every
      k columns, inked from one half).
    blank: characters left blank. '' keeps them apart, the newline from the space, where the font
      has signs for them.

  Raises:
    InputError: an unknown cell or composition, no tokens, or a font with none of their characters.
  """
  for name, value, allowed in (('cell', cell, CELLS), ('composition', composition, COMPOSITIONS)):
    if value not in allowed:
      raise InputError(f'{name}={value!r} is not one of {", ".join(map(str, allowed))}.')
  texts = _texts(tokens)
  if not any(texts):
    raise InputError('there is no token to draw: give some that have characters.')
  lengths = np.array([len(text) for text in texts])
  encoded = ''.join(texts).encode('utf-32-le', 'surrogatepass')
  points, character = np.unique(np.frombuffer(encoded, '<u4'), return_inverse=True)
  ink, known = font.render(points.astype(np.int64), cell)
  if not known.any():
    raise InputError(
      f'{font.name} has none of the {points.size} characters of these tokens: choose a font with '
      'their script.'
    )
  left_blank = np.isin(points, [ord(c) for c in blank])
  ink[left_blank] = False
  known |= left_blank
  missing = np.bincount(
    np.repeat(np.arange(len(texts)), lengths), ~known[character], minlength=len(texts)
  )
  return GlyphTable(
    _composed(ink, character, lengths, composition),
    (missing == 0) & (lengths > 0),
    cell,
    fingerprint(tokens, font, cell, composition, blank),
  )


def fingerprint(
  tokens: Sequence[str | bytes],
  font: Font,
  cell: int = 32,
  composition: str = 'squeeze',
  blank: str = BLANK,
) -> str:
  """That of the table that `render` would draw, for `load` to ask for."""
  texts = _texts(tokens)
  lengths = [len(text) for text in texts]
  options = f'{font.identity} {cell} {composition} {blank!a} {lengths}\n'
  encoded = ''.join(texts).encode('utf-32-le', 'surrogatepass')
  return hashlib.sha256(options.encode() + encoded).hexdigest()


def _texts(tokens: Sequence[str | bytes]) -> list[str]:
  return [t if isinstance(t, str) else t.decode('utf-8', 'backslashreplace') for t in tokens]


def _composed(
  ink: np.ndarray, character: np.ndarray, lengths: np.ndarray, composition: str
) -> np.ndarray:
  """Packed pictures uint8 [V, cell² / 8] of tokens cut by `lengths` [V] out of `character`."""
  cell = ink.shape[1]
  starts = np.cumsum(lengths) - lengths
  bits = np.zeros((lengths.size, cell * cell // 8), np.uint8)
  for k in np.unique(lengths[lengths > 0]).tolist():
    of_length = np.flatnonzero(lengths == k)
    for ids in np.array_split(of_length, -(-of_length.size * k // CHUNK)):
      cells = ink[character[starts[ids, None] + np.arange(k)]]  # [n, k, cell, cell]
      strips = cells.transpose(0, 2, 1, 3).reshape(-1, cell, cell, k)
      if composition == 'area':
        square = 2 * strips.sum(axis=3) >= k
      else:
        square = strips[..., k // 2]
      bits[ids] = np.packbits(square.reshape(ids.size, -1), axis=1)
  return bits


def save(table: GlyphTable, path: str | os.PathLike) -> None:
  """Writes a table to one file, atomically.

  The first line is `glyph-table VERSION TOKENS CELL FINGERPRINT SHA256`; after it come the pictures
  and one byte a token, 1 where covered. SHA256 is of the line before it and those bytes.
  """
  line = f'{MAGIC} {VERSION} {len(table.bits)} {table.cell} {table.fingerprint}'
  payload = table.bits.tobytes() + table.covered.astype(np.uint8).tobytes()
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  atomic.write(path, f'{line} {_digest(line, payload)}\n'.encode() + payload)


def load(path: str | os.PathLike, fingerprint: str | None = None) -> GlyphTable:
  """Maps a saved table into memory.

  Args:
    path: of the file.
    fingerprint: what the table's must be, or None for any.

  Raises:
    InputError: no such file, one that is not just as it was written, or another fingerprint.
  """
  try:
    content = np.memmap(path, np.uint8, 'r')
  except (OSError, ValueError) as error:  # an empty file cannot be mapped
    raise InputError(f'cannot read the glyph table {path}: {error}') from error
  header = bytes(content[:256]).partition(b'\n')[0]
  fields = header.decode('ascii', 'replace').split(' ')
  if len(fields) != 6 or fields[0] != MAGIC:
    raise InputError(f'{path} is not a glyph table: its first line should begin with {MAGIC!r}')
  payload = content[len(header) + 1 :]
  if fields[5] != _digest(' '.join(fields[:5]), payload.data):
    raise InputError(f'{path} is damaged or cut short: its checksum differs; render it again')
  if fields[1] != str(VERSION):
    raise InputError(f'{path} has format version {fields[1]}; this program reads {VERSION}')
  if fingerprint not in (None, fields[4]):
    raise InputError(
      f'{path} was rendered from another font, other tokens or other options (fingerprint '
      f'{fields[4][:12]}, not {str(fingerprint)[:12]}): render it again'
    )
  size, cell = (int(field) if field.isdecimal() else 0 for field in fields[2:4])
  if not size or cell not in CELLS or payload.size != size * (cell * cell // 8 + 1):
    raise InputError(f'{path} is damaged: {payload.size} bytes are not those of its tokens')
  bits, covered = payload[:-size].reshape(size, -1), payload[-size:] > 0
  return GlyphTable(bits, covered, cell, fields[4])


def _digest(line: str, payload: bytes | memoryview) -> str:
  digest = hashlib.sha256(f'{line}\n'.encode())
  digest.update(payload)
  return digest.hexdigest()


def contact_sheet(
  table: GlyphTable, tokens: Sequence[str | bytes], ids: Sequence[int] | None = None
) -> bytes:
  """A PNG of some tokens' pictures, each above its id and its text.

  Args:
    table: of the pictures.
    tokens: as they were rendered.
    ids: which to show; by default the first that have ink, then some evenly spaced, first of single
      characters, then of longer tokens.
  """
  from PIL import Image, ImageDraw, ImageFont

  shown = _sample(table, tokens) if ids is None else list(ids)
  label, edge, columns = ImageFont.load_default(10), 64, 16
  width, height = edge + 8, edge + 30
  sheet = Image.new('L', (columns * width, -(-len(shown) // columns) * height), 255)
  draw = ImageDraw.Draw(sheet)
  for place, (i, pixels) in enumerate(zip(shown, table.pixels(np.array(shown)), strict=True)):
    x, y = place % columns * width + 4, place // columns * height + 4
    picture = Image.fromarray(255 - 255 * pixels).resize((edge, edge), Image.Resampling.NEAREST)
    sheet.paste(picture, (x, y))
    draw.rectangle((x - 1, y - 1, x + edge, y + edge), outline=190)
    text = ascii(tokens[i]).removeprefix('b')[1:-1]
    draw.text((x, y + edge + 1), f'{i}\n{text[:10]}', fill=0, font=label, spacing=1)
  png = io.BytesIO()
  sheet.save(png, 'PNG')
  return png.getvalue()


def _sample(table: GlyphTable, tokens: Sequence[str | bytes], each: int = 64) -> list[int]:
  """Ids of up to four times `each` tokens that have ink."""
  inked = np.flatnonzero(table.bits.any(axis=1))
  shown, rest = [inked[: 2 * each]], inked[2 * each :]
  single = np.array([len(tokens[i]) == 1 for i in rest], bool)
  for group in (rest[single], rest[~single]):
    shown.append(group[np.linspace(0, group.size - 1, min(each, group.size)).astype(int)])
  return np.concatenate(shown).tolist()
