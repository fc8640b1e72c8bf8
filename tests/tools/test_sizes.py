# SPDX-License-Identifier: Apache-2.0
"""The table of sizes: its numbers are those of the containers, and only the table changes."""

import gzip
import pathlib
import re

import pytest

from experiments.tools import sizes
from lib import tokenizers
from lib.errors import InputError
from lib.tokenizers import container
from tests.helpers import hostile

PAGE = (pathlib.Path(__file__).parents[2] / 'docs/compress.md').read_text()


def percents(line):
  return [float(found) for found in re.findall(r'([\d.]+) %', line)]


def test_sizes_are_those_of_whole_containers():
  found = {'text': hostile.TEXT * 30, 'noise': bytes(range(256)) * 9}
  codecs = {'bpe': tokenizers.train('bpe_unsplit', [hostile.TEXT], 300)}
  codecs['lower'] = hostile.family('foreign')
  lines = {line.split('|')[1].strip(): line for line in sizes.table(found, codecs).splitlines()}
  for name, of in [
    ('gzip -9', lambda data: len(gzip.compress(data, 9))),
    ('bpe', lambda data: len(container.to_bytes(codecs['bpe'], data))),
  ]:
    expected = [100 * of(data) / len(data) for data in found.values()]
    assert percents(lines[name]) == pytest.approx(expected, abs=0.051)
  assert lines['lower'].count('–') == 2
  assert percents(lines['zstd -19'])[0] < percents(lines['bpe'])[0]


def test_all_but_the_table_of_the_page_stays():
  page = sizes.written(PAGE, 'a table')
  assert sizes.written(page, 'a table') == page
  assert page.split(sizes.BEGIN)[0] == PAGE.split(sizes.BEGIN)[0]
  assert page.split(sizes.END)[1] == PAGE.split(sizes.END)[1]
  with pytest.raises(InputError, match='no place for the table'):
    sizes.written(page.replace(sizes.END, ''), 'a table')


def test_the_page_has_all_rows_of_the_command():
  table = PAGE.split(sizes.BEGIN)[1].split(sizes.END)[0]
  assert 'python -m experiments.tools.sizes' in table
  for name in (*sizes.COMPRESSORS, *sizes.TRAINED):
    [line] = [line for line in table.splitlines() if line.startswith(f'| {name} ')]
    assert len(percents(line)) == 3
