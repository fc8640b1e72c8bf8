# SPDX-License-Identifier: Apache-2.0
"""Characters as black-and-white cells, from GNU Unifont's hex bitmaps or any outline font.

A cell follows arXiv 2507.04886: a character is centred in it by Pillow's box, which spans its
advance width and reaches from its ink to the baseline.
"""

import functools
import glob
import gzip
import hashlib
import io
import os
import pathlib
import sys
import unicodedata
import zlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from fontTools.unicodedata import Blocks

from lib.errors import InputError

CELLS = (16, 32, 64)  # pixels along an edge
HEX_SIZE = 16  # rows of a bitmap in a .hex file, and its most columns
SOME = 128  # characters per batch in the test for a blank font
BASELINE = 14  # rows of a bitmap above the baseline
LIMIT = 1 << 28  # largest font file in bytes, also unpacked; known fonts have a tenth of this
# GNU Unifont's Basic Multilingual Plane, the preferred name first, and its usual paths.
UNIFONT = ('unifont.hex', 'unifont.hex.gz', 'unifont.otf', 'unifont.ttf')
FOLDERS = (
  '/usr/share/unifont',
  '/usr/share/fonts',
  '/usr/local/share',
  '~/.local/share',
  '~/.fonts',
)
EMBEDDED = 'dejavu'  # the font that comes with matplotlib; it has no CJK


class Font(Protocol):
  """Renders characters.

  Attributes:
    name: for people.
    identity: equal exactly if the pictures are equal: a hash of the font and its renderer.
    points: int64 [N], ascending, its code points.
  """

  name: str
  identity: str
  points: np.ndarray

  def render(self, points: np.ndarray, cell: int) -> tuple[np.ndarray, np.ndarray]:
    """Ink, bool [N, cell, cell], of code points [N], and whether the font has them, bool [N].

    The cell of a missing character is blank.
    """


def find_font(name: str = 'auto') -> Font:
  """A font by name.

  Args:
    name: 'auto' (GNU Unifont where this system has it, else 'dejavu'), 'dejavu' (matplotlib's
      DejaVu Sans), or the path of a .hex, .hex.gz, .ttf or .otf file.

  Raises:
    InputError: no such file, a file that is not a font, or a blank font.
  """
  if name == 'auto':
    name = next(_unifonts(), EMBEDDED)
  if name == EMBEDDED:
    import matplotlib

    name = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
  font: Font = HexFont(name) if name.removesuffix('.gz').endswith('.hex') else OutlineFont(name)
  starts = range(0, font.points.size, SOME)
  if not any(font.render(font.points[at : at + SOME], CELLS[0])[0].any() for at in starts):
    raise InputError(f'{name} has only blank characters; give another font')
  return font


def _unifonts() -> Iterator[str]:
  """Paths of GNU Unifont on this system, the best first."""
  for name in UNIFONT:
    for folder in FOLDERS:
      found = glob.glob(os.path.join(os.path.expanduser(folder), '**', name), recursive=True)
      yield from sorted(found)


class HexFont:
  """GNU Unifont's own format: lines `CODE:BITMAP` in hex, each bitmap 8 × 16 or 16 × 16 pixels.

  Args:
    path: of the file, compressed by gzip if it ends in .gz.

  Raises:
    InputError: an unreadable file, or a line that is not a glyph.
  """

  def __init__(self, path: str | os.PathLike):
    content = _read(path)
    if os.fspath(path).endswith('.gz'):
      try:
        with gzip.open(io.BytesIO(content)) as unpacked:
          content = unpacked.read(LIMIT + 1)
      except (OSError, EOFError, zlib.error) as error:
        raise InputError(f'{path} is damaged: it does not unpack ({error})') from error
    if len(content) > LIMIT:
      raise InputError(f'{path} is not a font: it unpacks to more than {LIMIT:,} bytes')
    self.name = pathlib.Path(path).name
    self.identity = f'hex {hashlib.sha256(content).hexdigest()}'
    self.points, self._rows = _parse(content.decode('ascii', 'replace'), path)

  def render(self, points: np.ndarray, cell: int) -> tuple[np.ndarray, np.ndarray]:
    """Ink and presence; see `Font.render`. Pixels are doubled for larger cells."""
    place = np.searchsorted(self.points, points).clip(max=self.points.size - 1)
    known = self.points[place] == points
    rows = np.where(known[:, None], self._rows[place], 0).astype('>u2')
    ink = np.unpackbits(rows.view(np.uint8), axis=1).reshape(-1, HEX_SIZE, HEX_SIZE)
    scale = cell // HEX_SIZE
    ink = ink.repeat(scale, axis=1).repeat(scale, axis=2).astype(bool)
    return _centred(ink), known


def _parse(text: str, path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
  """Code points int64 [N], ascending, and rows of pixels uint16 [N, 16], the left one highest."""
  points, bitmaps = [], []
  for number, line in enumerate(text.splitlines(), start=1):
    point, _, digits = line.partition(':')
    try:
      points.append(int(point, 16))
      bitmaps.append(bytes.fromhex(digits))
    except ValueError:
      bitmaps.append(b'')
    if len(bitmaps[-1]) not in (HEX_SIZE, 2 * HEX_SIZE) or not 0 <= points[-1] <= sys.maxunicode:
      raise InputError(
        f'line {number} of {path} is not a glyph: it should be a code point, a colon and '
        '32 or 64 hex digits'
      )
  if not points:
    raise InputError(f'{path} contains no glyph')
  narrow = np.array([len(bitmap) == HEX_SIZE for bitmap in bitmaps])
  rows = np.empty((len(points), HEX_SIZE), np.uint16)
  for chosen, dtype, shift in ((narrow, '>u1', HEX_SIZE // 4), (~narrow, '>u2', 0)):
    joined = b''.join(bitmaps[i] for i in np.flatnonzero(chosen))
    pixels = np.frombuffer(joined, dtype).astype(np.uint16).reshape(-1, HEX_SIZE)
    rows[chosen] = pixels << shift  # a narrow glyph is centred in the wide cell
  ascending, first = np.unique(np.array(points, np.int64), return_index=True)
  return ascending, rows[first]


def _centred(ink: np.ndarray) -> np.ndarray:
  """Moves each drawing [N, cell, cell] so that its box from ink to baseline is centred, as in
  Pillow.
  """
  cell = ink.shape[1]
  inked = np.any(ink, axis=2)
  blank = ~np.any(inked, axis=1)
  baseline = cell // HEX_SIZE * BASELINE
  top = np.where(blank, baseline, np.argmax(inked, axis=1)).clip(max=baseline)
  bottom = np.where(blank, 0, cell - np.argmax(inked[:, ::-1], axis=1)).clip(min=baseline)
  source = np.arange(cell) + (top - (cell - (bottom - top)) // 2)[:, None]
  # No ink leaves the cell, so wrapped pixels are blank.
  return np.take_along_axis(ink, source[:, :, None] % cell, axis=1)


class OutlineFont:
  """A TrueType or OpenType font, rendered by Pillow without shaping, in grey, thresholded at one
  half.

  Args:
    path: of the file.

  Raises:
    InputError: an unreadable file, or not a font.
  """

  def __init__(self, path: str | os.PathLike):
    from matplotlib import ft2font
    from PIL import features

    content = _read(path)
    self._path = os.fspath(path)
    try:
      self.points = np.array(sorted(ft2font.FT2Font(self._path).get_charmap()), np.int64)
      self._sized(CELLS[0])
    except (OSError, RuntimeError) as error:
      raise InputError(
        f'{path} is not a font: give a .ttf, .otf, .hex or .hex.gz file ({error})'
      ) from error
    self.name = pathlib.Path(path).name
    # FreeType's version also affects pixels.
    library = f'pillow {features.version("pil")} freetype {features.version("freetype2")}'
    self.identity = f'outline {hashlib.sha256(content).hexdigest()} {library}'

  @functools.cache  # noqa: B019 (a font or two live as long as the process)
  def _sized(self, cell: int):
    from PIL import ImageFont

    # BASIC never reorders or joins characters, nor fails on odd control characters.
    return ImageFont.truetype(self._path, cell, layout_engine=ImageFont.Layout.BASIC)

  def render(self, points: np.ndarray, cell: int) -> tuple[np.ndarray, np.ndarray]:
    """Ink and presence; see `Font.render`."""
    from PIL import Image, ImageDraw

    font = self._sized(cell)
    known = np.isin(points, self.points)
    ink = np.zeros((len(points), cell, cell), bool)
    for i in np.flatnonzero(known):
      character = chr(points[i])
      image = Image.new('L', (cell, cell), 255)
      try:
        left, top, right, bottom = font.getbbox(character)
        at = (cell - (right - left)) // 2, (cell - (bottom - top)) // 2 - top
        ImageDraw.Draw(image).text(at, character, fill=0, font=font)
      except OSError as error:
        raise InputError(
          f'{self.name} is damaged: U+{points[i]:04X} cannot be drawn ({error})'
        ) from error
      ink[i] = np.asarray(image) < 128
    return ink, known


def _read(path: str | os.PathLike) -> bytes:
  try:
    if os.path.getsize(path) > LIMIT:
      raise InputError(f'{path} is not a font: it has more than {LIMIT:,} bytes')
    return pathlib.Path(path).read_bytes()
  except OSError as error:
    raise InputError(f'cannot read the font {path}: {error.strerror}') from error


def blocks(font: Font) -> dict[str, tuple[int, int]]:
  """Block of the Basic Multilingual Plane -> its assigned characters, and those in a font.

  Blocks without assigned characters are left out.
  """
  points = np.arange(0x10000)
  categories = np.array([unicodedata.category(chr(point)) for point in points])
  assigned = ~np.isin(categories, ('Cn', 'Cs', 'Co'))
  known = np.isin(points, font.points) & assigned
  found = {}
  for first, last, block in zip(Blocks.RANGES, Blocks.RANGES[1:], Blocks.VALUES):
    if assigned[first:last].any():
      found[block] = int(assigned[first:last].sum()), int(known[first:last].sum())
  return found
