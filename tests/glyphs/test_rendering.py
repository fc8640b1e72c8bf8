# SPDX-License-Identifier: Apache-2.0
"""Fonts and token pictures: known pixels, the paper's strip, files that vouch for themselves."""

import dataclasses
import gzip
import io
import sys
import time

import numpy as np
import pytest
from PIL import Image

from lib import tokenizers
from lib.errors import InputError
from lib.glyphs import fonts, rendering
from lib.glyphs.look_alikes import confusables, look_alikes
from lib.tokenizers.characters import Characters
from tests.helpers import recipes

# A 6 × 10 frame whose ink ends on the baseline, a 16 × 16 square, and a hyphen.
HEX = f"""0041:{'00' * 4}{'7E'}{'42' * 8}{'7E'}{'00' * 2}
25A0:{'FFFF' * 16}
002D:{'00' * 8}{'3C'}{'00' * 7}
0020:{'00' * 16}
000A:{'FF00' * 16}
"""


@pytest.fixture
def font(tmp_path):
  path = tmp_path / 'tiny.hex'
  path.write_text(HEX)
  return fonts.HexFont(path)


def drawing(pixels):
  return [''.join('.#'[bit] for bit in row) for row in np.asarray(pixels, int)]


def test_a_hex_glyph_is_centred_by_its_width_and_its_box(font):
  ink, known = font.render(np.array([0x41, 0x25A0, 0x2D, 0x42]), 16)
  assert known.tolist() == [True, True, True, False]
  frame = ['.....######.....', *['.....#....#.....'] * 8, '.....######.....']
  assert drawing(ink[0]) == ['.' * 16] * 3 + frame + ['.' * 16] * 3  # 10 rows in 16
  assert ink[1].all()
  # The hyphen's box reaches from its row 8 to the baseline below row 13: 6 rows from row 5 on.
  assert drawing(ink[2]) == ['.' * 16] * 5 + ['......####......'] + ['.' * 16] * 10
  assert not ink[3].any()


def test_larger_cells_double_the_pixels(font):
  points = np.array([0x41, 0x2D])
  small, large = (font.render(points, cell)[0] for cell in (16, 32))
  assert (large == small.repeat(2, axis=1).repeat(2, axis=2)).all()
  assert font.render(points, 64)[0].sum() == 16 * small.sum()


def test_a_compressed_hex_file_is_the_same_font(font, tmp_path):
  path = tmp_path / 'tiny.hex.gz'
  path.write_bytes(gzip.compress(HEX.encode()))
  twin = fonts.find_font(str(path))
  assert twin.identity == font.identity
  assert twin.name == 'tiny.hex.gz'


def test_invalid_fonts_are_refused(tmp_path):
  path = tmp_path / 'bad.hex'
  for content, message in (
    ('0041:00\n', 'line 1 of .* is not a glyph'),
    (HEX + '0042:' + 'G' * 32, 'line 6 of .* is not a glyph'),
    ('x:' + '0' * 32, 'line 1 of .* is not a glyph'),
    ('', 'contains no glyph'),
  ):
    path.write_text(content)
    with pytest.raises(InputError, match=message):
      fonts.find_font(str(path))
  for name in ('bad.hex.gz', 'bad.ttf'):
    (tmp_path / name).write_bytes(b'nothing of the kind')
    with pytest.raises(InputError, match=r'is damaged|is not a font'):
      fonts.find_font(str(tmp_path / name))
    with pytest.raises(InputError, match='cannot read the font'):
      fonts.find_font(str(tmp_path / f'missing-{name}'))


def test_a_font_that_draws_nothing_is_refused(tmp_path):
  from fontTools.fontBuilder import FontBuilder
  from fontTools.ttLib.tables._g_l_y_f import Glyph

  (tmp_path / 'blank.hex').write_text(f'0041:{"0" * 32}\n4E2D:{"0" * 64}\n')
  blank = FontBuilder(1000)
  blank.setupGlyphOrder(['.notdef', 'A'])
  blank.setupCharacterMap({65: 'A', 0x4E2D: 'A'})
  blank.setupGlyf({'.notdef': Glyph(), 'A': Glyph()})
  blank.setupHorizontalMetrics({'.notdef': (500, 0), 'A': (500, 0)})
  blank.setupHorizontalHeader()
  blank.setupPost()
  blank.save(tmp_path / 'blank.ttf')
  for name in ('blank.hex', 'blank.ttf'):
    with pytest.raises(InputError, match=rf'{name} has only blank'):
      fonts.find_font(str(tmp_path / name))
  (tmp_path / 'blank.hex').write_text(f'0041:{"0" * 32}\n10FFFF:{"0" * 63}1\n')
  assert fonts.find_font(str(tmp_path / 'blank.hex')).name == 'blank.hex'


def test_the_embedded_font_draws_as_pillow_does():
  from PIL import ImageDraw, ImageFont

  font = fonts.find_font('dejavu')
  ink, known = font.render(np.array([ord('g'), ord('漢'), ord('А')]), 32)
  assert known.tolist() == [True, False, True]
  plain = ImageFont.truetype(font._path, 32, layout_engine=ImageFont.Layout.BASIC)
  strip = Image.new('L', (96, 32), 255)
  for i, character in enumerate('gА'):
    left, top, right, bottom = plain.getbbox(character)
    x, y = 32 * i + (32 - right + left) // 2, (32 - bottom + top) // 2 - top
    ImageDraw.Draw(strip).text((x, y), character, fill=0, font=plain)
  assert (np.asarray(strip)[:, :64] < 128).tolist() == np.hstack([ink[0], ink[2]]).tolist()
  assert not ink[1].any()


@pytest.mark.parametrize('k', range(1, 8))
def test_squeezing_equals_pillows_resizing_of_a_bitmap(k):
  ink = np.random.default_rng(k).random((k, 32, 32)) < 0.3
  bits = rendering._composed(ink, np.arange(k), np.array([k]), 'squeeze')
  strip = Image.fromarray(np.hstack(list(ink))).convert('1')
  expected = np.asarray(strip.resize((32, 32), Image.Resampling.BILINEAR))
  assert (np.unpackbits(bits[0]).reshape(32, 32) == expected).all()
  area = rendering._composed(ink, np.arange(k), np.array([k]), 'area')
  means = np.hstack(list(ink)).reshape(32, 32, k).mean(axis=2)
  assert (np.unpackbits(area[0]).reshape(32, 32) == (means >= 0.5)).all()


def test_a_table_holds_every_token_packed(font):
  tokens = ['A', '-', 'A-', '', 'Ax', b'-A', b'\xff', ' ', '\n', '\n\n']
  table = rendering.render(tokens, font, cell=16)
  assert table.bits.shape == (10, 32)
  assert table.covered.tolist() == [1, 1, 1, 0, 0, 1, 0, 1, 1, 1]
  pixels = table.pixels()
  assert (np.packbits(pixels.reshape(10, -1), axis=1) == table.bits).all()
  assert (pixels[:2] == font.render(np.array([0x41, 0x2D]), 16)[0]).all()
  both = np.hstack(pixels[:2])
  assert (pixels[2] == both[:, 1::2]).all()
  assert (table.pixels(np.array([5])) == np.hstack(pixels[[1, 0]])[None, :, 1::2]).all()
  # A blank newline looks like a space, and like nothing; with the font's sign it does not.
  assert table.shared.tolist() == [0, 0, 0, 1, 0, 0, 1, 1, 1, 1]
  apart = rendering.render(tokens, font, cell=16, blank='')
  assert apart.pixels()[8].any()
  assert apart.shared.tolist() == [0, 0, 0, 1, 0, 0, 1, 1, 0, 0]


def test_shared_rows_are_counted_exactly(font):
  rng = np.random.default_rng(0)
  tokens = [''.join(rng.choice(['A', '-', ' ', '■'], size)) for size in rng.integers(1, 9, 500)]
  table = rendering.render(tokens, font, 16)
  rows = [row.tobytes() for row in table.bits]
  assert table.shared.tolist() == [rows.count(row) > 1 for row in rows]
  assert 0 < table.shared.sum() < 500


def test_the_fingerprint_covers_font_tokens_and_options(font):
  tokens = ['A', '-A']
  first, again = (rendering.render(tokens, font, 16) for _ in range(2))
  assert first.fingerprint == again.fingerprint
  assert (first.bits == again.bits).all()
  others = [
    rendering.render(['A-', 'A'], font, 16),
    rendering.render(['A', '-A'][::-1], font, 16),
    rendering.render(tokens, font, 32),
    rendering.render(tokens, font, 16, 'area'),
    rendering.render(tokens, font, 16, blank=''),
    rendering.render(tokens, fonts.find_font('dejavu'), 16),
  ]
  assert len({table.fingerprint for table in (first, *others)}) == 7


def test_tokens_that_cannot_be_drawn_are_refused(font):
  for tokens, options, message in (
    (['A'], {'cell': 17}, 'cell=17 is not one of 16, 32, 64'),
    (['A'], {'composition': 'stretch'}, "'stretch' is not one of squeeze, area"),
    (['', b''], {}, 'no token to draw'),
    (['漢字', '漢'], {}, 'tiny.hex has none of the 2 characters'),
  ):
    with pytest.raises(InputError, match=message):
      rendering.render(tokens, font, **options)


def test_a_saved_table_comes_back_mapped(font, tmp_path):
  table = rendering.render(['A', 'x', '-'], font, 16)
  path = tmp_path / 'table.glyphs'
  rendering.save(table, path)
  twin = rendering.load(path, table.fingerprint)
  assert isinstance(twin.bits, np.memmap)
  for field in dataclasses.fields(table):
    assert np.array_equal(getattr(twin, field.name), getattr(table, field.name))
  with pytest.raises(InputError, match='another font, other tokens'):
    rendering.load(path, '0' * 64)
  assert [p.name for p in tmp_path.iterdir() if 'partial' in p.name] == []


def test_a_damaged_table_is_refused(font, tmp_path):
  path = tmp_path / 'table.glyphs'
  rendering.save(rendering.render(['A', 'x', '-'], font, 16), path)
  content = path.read_bytes()
  for place in range(len(content)):
    flipped = bytearray(content)
    flipped[place] ^= 1
    for wrong in (bytes(flipped), content[:place]):
      path.write_bytes(wrong)
      with pytest.raises(InputError, match=r'damaged|not a glyph table|cannot read'):
        rendering.load(path)


def test_65536_tokens_take_seconds(tmp_path):
  rng = np.random.default_rng(0)
  bitmaps = rng.bytes(65536 * 32).hex().upper()
  lines = (f'{i:04X}:{bitmaps[64 * i : 64 * i + 64]}' for i in range(65536))
  path = tmp_path / 'full.hex'
  path.write_text('\n'.join(lines))
  tokens = [chr(i) for i in range(0xD800)]
  tokens += [chr(i) * (2 + i % 2) for i in range(0x4E00, 0x4E00 + 65536 - len(tokens))]
  start = time.process_time()
  table = rendering.render(tokens, fonts.HexFont(path), 32)
  assert time.process_time() - start < 5
  assert table.bits.shape == (65536, 128)
  assert table.covered.all()


def test_a_contact_sheet_shows_the_pictures(font):
  tokens = ['A', '-', 'A-']
  table = rendering.render(tokens, font, 16)
  sheet = np.asarray(Image.open(io.BytesIO(rendering.contact_sheet(table, tokens, [2]))))
  shown = sheet[4:68:4, 4:68:4] < 128
  assert (shown == table.pixels()[2]).all()
  assert rendering.contact_sheet(table, tokens) == rendering.contact_sheet(table, tokens, [0, 1, 2])


def test_unifont_draws_the_plane_alike_from_both_formats():
  found = list(fonts._unifonts())
  kinds = [next((path for path in found if path.endswith(end)), None) for end in ('.hex', '.otf')]
  if None in kinds:
    pytest.skip('needs GNU Unifont as .hex and .otf: Debian packages unifont and fonts-unifont')
  points = np.arange(0x10000)
  (ink, known), (outline, known_too) = (fonts.find_font(path).render(points, 32) for path in kinds)
  both = known & known_too
  assert both.sum() > 57_000
  # What differs are combining marks, whose advance is zero in the outline font.
  assert (ink[both] == outline[both]).all(axis=(1, 2)).mean() > 0.97
  assert (ink[ord('A')] == ink[ord('А')]).all()
  assert fonts.find_font().name.startswith('unifont.hex')


def command(*arguments):
  return recipes.forked([sys.executable, '-m', 'experiments.tools.glyphs', *map(str, arguments)])


def test_the_command_leaves_a_table_and_a_sheet(font, tmp_path):
  tokenizers.save(Characters(b'A- x\n'), tmp_path / 'tokenizer')
  out = tmp_path / 'new/out'
  options = f'--font={tmp_path}/tiny.hex', f'--tokenizer={tmp_path}/tokenizer', f'--out={out}'
  done = command(*options, '--cell=16')
  assert done.returncode == 0, done.stderr
  assert 'tiny.hex covers 4 of 5 tokens that stand for text (80.00%)' in done.stdout
  assert '3 of them share their picture' in done.stdout  # the space, the newline and the x
  expected = rendering.render(['A', '-', ' ', 'x', '\n'], font, 16)
  table = rendering.load(out / 'glyphs.table', expected.fingerprint)
  assert (table.bits == expected.bits).all()
  assert Image.open(out / 'glyphs.png').size[0] > 0
  assert sorted(path.name for path in out.iterdir()) == ['glyphs.png', 'glyphs.table']


def test_the_command_refuses_bad_input_with_a_sentence(tmp_path):
  for arguments, sentence in (
    ([f'--font={tmp_path}/none.hex'], 'cannot read the font'),
    (['--font=dejavu', f'--out={tmp_path}/file/out'], 'cannot write to'),
  ):
    (tmp_path / 'file').write_text('in the way')
    failed = command(*arguments)
    assert failed.returncode == 2
    assert failed.stderr.startswith('glyphs: ')
    assert sentence in failed.stderr
    assert failed.stderr.count('\n') == 1


# --- look-alikes ----------------------------------------------------------------------------------


def test_look_alikes_are_found_in_the_font():
  found = look_alikes('AoQ7', fonts.find_font('dejavu'), 32)
  assert 'А' in found['A']
  assert 'Α' in found['A']
  assert 'о' in found['o']
  assert '7' not in found  # no letter looks like it
  assert all(ord(other) > 0x7F for others in found.values() for other in others)


def test_tolerance_admits_more_and_the_likest_come_first(tmp_path):
  rows = ['7E', *['42'] * 8, '7E']
  draw = lambda changed: '00' * 4 + ''.join([*rows[:5], changed, *rows[6:]]) + '00' * 2
  path = tmp_path / 'near.hex'
  # At 28 pixels of ink: equal, one more pixel, and three more.
  glyphs_of = {'A': '42', 'А': '4A', 'Α': '42', 'Ꭺ': '7A'}
  path.write_text(''.join(f'{ord(c):04X}:{draw(row)}\n' for c, row in glyphs_of.items()))
  font = fonts.HexFont(path)
  assert look_alikes('A', font, 16) == {'A': 'Α'}
  assert look_alikes('A', font, 16, tolerance=0.05) == {'A': 'ΑА'}
  assert look_alikes('A', font, 16, tolerance=0.2) == {'A': 'ΑАᎪ'}
  assert look_alikes('A', font, 16, tolerance=0.2, most=2) == {'A': 'ΑА'}


def test_confusables_are_letters_of_unicodes_list_that_the_font_has():
  dejavu = fonts.find_font('dejavu')
  found = confusables('aAI7k', dejavu)
  assert 'а' in found['a']  # Cyrillic
  assert 'ɑ' in found['a']  # another picture, which readers take for an a all the same
  assert 'ɑ' not in look_alikes('a', dejavu, 32, tolerance=0.05)['a']
  assert {'Α', 'А'} <= set(found['A'])
  assert '7' not in found
  others = ''.join(found.values())
  assert all(0x7F < ord(other) < 0x10000 for other in others)
  assert dejavu.render(np.array([ord(other) for other in others]), 16)[1].all()
  assert len(confusables('a', dejavu, most=1)['a']) == 1


def test_the_fingerprint_is_known_before_drawing(font):
  tokens = ['A', 'AA', '-']
  for options in ({}, {'cell': 16}, {'composition': 'area'}, {'blank': ''}):
    drawn = rendering.render(tokens, font, **options).fingerprint
    assert rendering.fingerprint(tokens, font, **options) == drawn
  assert rendering.fingerprint(['A', 'A', 'A-'], font) != rendering.fingerprint(tokens, font)
