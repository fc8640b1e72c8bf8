# SPDX-License-Identifier: Apache-2.0
"""Plots: one look for an arm, errors where rows have them, and readable labels."""

import io

import numpy as np
import pytest
from matplotlib import colors, figure
from PIL import Image

from lib.report import plots
from lib.report.plots import Picture
from lib.report.results import Row
from lib.stats import Estimate


def row(value, sem=0.5):
  return Row.of('t', {'k': 1}, 'loss', Estimate(value, sem, '3', 'seeds', 2.0))


def drawn(panel):
  axis = figure.Figure().subplots()
  panel(axis)
  return axis


def test_an_arm_has_one_colour_in_every_company():
  alone = plots.looks(['glyphs, frozen'])['glyphs, frozen']
  among = plots.looks(['trained from rms 1', 'new', 'glyphs, frozen', 'newer'])
  assert among['glyphs, frozen'] == alone
  assert len({look['color'] for look in among.values()}) == 4
  several = plots.looks([f'greedy{bits}, v=256' for bits in (16, 24, 32, 64)])
  assert len({look['color'] for look in several.values()}) == 1
  assert len({(look['marker'], look['linestyle']) for look in several.values()}) == 4


def test_looks_differ_in_grey():
  found = plots.looks([f'arm {number}' for number in range(14)])
  assert len({(one['marker'], one['linestyle'], one['color']) for one in found.values()}) == 14
  greys = sorted(colors.rgb_to_hsv(colors.to_rgb(one))[2] for one in plots.COLORS)
  markers = {one['marker'] for one in list(found.values())[:7]}
  assert len(markers) == 7  # so that curves of like grey differ
  assert greys[0] < 0.1


@pytest.mark.parametrize('count', [3, 30])
def test_errors_of_rows_are_seen(count):
  points = [(float(x), row(10.0 + x, 2.0)) for x in range(count)]
  axis = drawn(plots.row_curves('', 'x', 'y', {'arm': points}))
  low, high = axis.dataLim.intervaly
  assert low <= 8.0
  assert high >= 10.0 + count - 1 + 2.0
  bare = drawn(
    plots.row_curves('', 'x', 'y', {'arm': [(x, row(y.measured, None)) for x, y in points]})
  )
  assert bare.dataLim.intervaly == pytest.approx([10.0, 9.0 + count])


def test_bars_begin_at_zero_and_have_errors():
  for panel in (
    plots.row_bars('', 'y', ['a', 'b'], {'arm': [row(5.0), row(6.0)]}, {}),
    plots.ranked('', 'x', {'a': row(5.0), 'b': row(6.0)}, {}),
  ):
    axis = drawn(panel)
    limits = axis.get_ylim() if panel.height > 3 else axis.get_xlim()
    assert limits[0] == 0
    assert limits[1] >= 6.5


def test_log_axes_name_the_sizes_that_were_measured():
  points = [(float(d), row(1.0)) for d in (4, 10, 4096)]
  axis = drawn(plots.row_curves('', 'd', 'y', {'arm': points}, log_x=True))
  axis.figure.canvas.draw()
  assert [tick.get_text() for tick in axis.get_xticklabels()] == ['4', '10', '4,096']


def test_a_picture_has_no_empty_panel_and_its_caption_is_kept(tmp_path):
  panel = plots.row_curves('', 'x', 'y', {'arm': [(0.0, row(1.0)), (1.0, row(2.0))]})
  pictures = {
    'none.png': Picture('Nothing.', []),
    'one.png': Picture('One.', [panel]),
    'five.png': Picture('Five.', [panel] * 5),
  }
  assert plots.save(tmp_path, pictures) == {'one.png': 'One.', 'five.png': 'Five.'}
  assert not (tmp_path / 'none.png').exists()
  size = Image.open(io.BytesIO((tmp_path / 'one.png').read_bytes())).size
  assert size[0] < 900  # one column, readable at half its width


def test_words_that_would_cover_others_are_left_out():
  places = np.array([[0.0, 0.0], [0.001, 0.0], [1.0, 1.0]])
  axis = drawn(plots.words('', places, ['first', 'second', 'third'], 'x', 'y'))
  assert [text.get_text() for text in axis.texts] == ['first', 'third']
