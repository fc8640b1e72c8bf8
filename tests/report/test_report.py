# SPDX-License-Identifier: Apache-2.0
"""Rows, published numbers and tables."""

import csv
import fnmatch
import io
import json
import math
import re

import pytest

from experiments.recipe import Recipe, Table
from lib import stats
from lib.report import page, published, results, sections, tables
from lib.report.results import Row, Rows, coordinates, select
from lib.stats import Estimate

ROW = Row('ngram', {'k': 2, 'm': 2}, 'nats_per_char', 0.5003, 0.0004)
HERE = {'p': 0.8, 'q': 0.8, 'kind': 'switching'}


def test_published_numbers_stand_beside_the_same_scale_with_their_source():
  [row] = published.attach([ROW], 'markov', HERE)
  assert row.published == pytest.approx(0.500402)
  assert 'closed form' in row.note


def test_a_published_number_of_another_scale_stays_out_of_the_column():
  [row] = published.attach([ROW], 'markov', HERE | {'p': 0.9})
  assert row.published is None
  assert 'not this scale' in row.note
  assert 'p=0.8' in row.note


@pytest.mark.parametrize('paper', ['markov', 'lexinvariant', 'equal_info', 'visual_unicode'])
def test_every_published_number_has_a_place_of_its_own_and_names_its_source_and_scale(paper):
  entries = published.load(paper)['entries']
  assert len(entries) > 60
  for entry in entries:
    fields = {'table', 'row', 'column', 'value', 'unit', 'source', 'where'}
    assert set(entry) - {'evidence'} == fields
    assert entry.get('evidence', '') in published.EVIDENCE
    assert ('derived' in entry['source'] or 'closed form' in entry['source']) == (
      entry.get('evidence') == 'derived'
    )
    assert entry['source']
    assert entry['where'] or entry['table'] == 'theory'  # which holds at any size
  places = {(e['table'], e['row'], e['column'], str(e['where'])) for e in entries}
  assert len(places) == len(entries)


def test_a_value_has_the_decimals_of_its_error_and_one_kind_of_minus():
  shown = lambda value, sem: tables.with_error(Estimate(value, sem, '3', 'seeds', 2.0))
  assert shown(-0.12345, 0.0134) == '−0.123 ± 0.013'
  assert shown(3.39501, 0.0431) == '3.395 ± 0.043'
  assert shown(1234.5, 21.0) == '1,234 ± 21'
  assert shown(0.50041, 0.00029) == '0.5004 ± 0.0003'
  assert shown(2.0, 0.5) == '2.00 ± 0.50'
  assert tables.interval(Estimate(-0.5, 0.1, '3', 'seeds', 2.0)) == '[−0.93, −0.07]'
  assert tables.number(-3e-7) == '−3e-07'


def test_a_derived_number_is_not_called_published():
  [row] = published.attach([ROW], 'markov', HERE)
  assert tables.cell(row) == '0.5003 ± 0.0004 (derived 0.5004)'
  [apart] = published.attach([ROW], 'markov', HERE | {'p': 0.9})
  assert 'derived 0.5' in apart.note
  for evidence, word in (('', 'published'), ('recalled', 'recalled'), ('secondary', 'secondary')):
    one = Row('t', {'a': 1}, 'x', 1.5, published=2.5, evidence=evidence)
    assert tables.cell(one) == f'1.5000 ({word} 2.5)'


@pytest.mark.parametrize('paper', ['markov', 'lexinvariant', 'equal_info', 'visual_unicode'])
def test_what_no_recipe_measures_has_rows_of_its_own(paper):
  data = published.load(paper)
  rows = published.unmeasured(paper)
  assert all(row.measured is None and row.note.startswith('not measured: ') for row in rows)
  places = {(row.table, row.row, row.column) for row in rows}
  for patterns in data.get('unmeasured', {}).values():
    for pattern in patterns:
      assert any(fnmatch.fnmatchcase(' / '.join(place), pattern) for place in places)
  # A number that is a text, such as a code's bits, stays out of the column of numbers.
  for row in published.attach(rows, paper, {'scale': 'paper'}):
    assert isinstance(row.published, (int, float)) or 'published ' in row.note


def test_rows_survive_their_file_and_infinities_become_null(tmp_path):
  odd = Row('t', {'a': 1}, 'x', math.inf, math.nan)
  results.write_rows(tmp_path / 'rows.json', [ROW, odd], 1.5, {}, {})
  assert 'Infinity' not in (tmp_path / 'rows.json').read_text()
  content = results.read_rows(tmp_path / 'rows.json')
  assert content['seconds'] == 1.5
  first, second = content['rows']
  assert first == ROW
  assert second.measured is second.sem is None


def test_a_row_holds_its_estimate_and_is_written_with_its_units(tmp_path):
  estimate = stats.crossed([[1.0, 2, 3], [1.5, 2, 4]])
  row = Row.of('t', {'a': 1}, 'x', estimate, unit='nats', note='a note')
  assert row.estimate == estimate
  assert Row('t', {'a': 1}, 'x', None).estimate is None
  results.write_rows(tmp_path / 'rows.json', [row], 1.0, {}, {})
  [written] = json.loads((tmp_path / 'rows.json').read_text())['rows']
  assert list(written) == list(results.FIELDS)
  assert (written['n'], written['over'], written['df']) == ('2×3', 'seeds×documents', estimate.df)
  assert results.read_rows(tmp_path / 'rows.json')['rows'] == [row]


def test_a_failed_write_leaves_the_old_file(tmp_path):
  path = tmp_path / 'results.json'
  results.write_json(path, {'old': 1})
  with pytest.raises(TypeError):
    results.write_json(path, {'new': object()})
  assert json.loads(path.read_text()) == {'old': 1}


def test_a_table_shows_error_published_number_and_notes():
  rows = [
    Row('t', {'k': 1}, 'nats', 0.5, 0.01, 0.49, note='as the paper'),
    Row('t', {'k': 2}, 'nats', None, note='not measured'),
    Row('t', {'k': 1}, 'size', 4096),
  ]
  text = tables.markdown(rows, {'t': 'A caption.'})
  assert '0.500 ± 0.010 (published 0.49)' in text
  assert '4,096' in text
  assert '| k=2 | –' in text
  assert '- `nats`: as the paper (k=1)' in text
  assert 'A caption.' in text


def test_a_table_says_what_its_errors_are_over():
  of = lambda name, *estimate: Row.of('t', coordinates(name), 'x', Estimate(1.0, *estimate))
  rows = [
    of('k=1', 0.1, '3×57', 'seeds×documents', 2.5), of('k=2', 0.1, '10×57', 'seeds×documents', 9.1),
    of('k=3', 0.1, '5', 'seeds', 4.0), of('k=4'), Row('u', {'k': 1}, 'x', 4096),
  ]  # fmt: skip
  assert tables.errors(rows)[1:] == [
    ['t', 'seeds×documents', '3×57, 10×57', '2.5, 9.1'],
    ['t', 'seeds', '5', '4'],
  ]
  text = tables.markdown(rows)
  assert (
    '± is one standard error over seeds×documents (n 3×57, 10×57); or over seeds (n 5).' in text
  )
  assert '±' not in text.partition('### u')[2]
  many = [of(f'k={n}', 0.1, str(n), 'documents', n - 1.0) for n in range(2, 9)]
  assert tables.errors(many)[1] == ['t', 'documents', '2 to 8', '1 to 7']


def test_differences_and_their_intervals_have_signs():
  difference = Estimate(-0.01, 0.002, '5', 'seeds', 4.0)
  assert tables.signed(difference.value) == '−0.0100'
  assert tables.interval(difference) == '[−0.0156, −0.0044]'  # t(4) = 2.776
  assert tables.interval(Estimate(-0.01, 0.002)) == ''


def test_the_terminal_shows_the_rows_and_columns_of_each_table():
  one = Table('t', lambda config, run: [], '', ('nats',), rows=lambda where: where['d'] == '4',
              also={'u': ('', ('bits',))})  # fmt: skip
  recipe = Recipe('r', 'R', [one])
  shown = [
    ('t', {'k': 1, 'd': 4}, 'nats', True),
    ('t', {'k': 1, 'd': 4}, 'bits', False),
    ('t', {'k': 1, 'd': 8}, 'nats', False),
    ('t', {'k': 1, 'd': 4, 'seed': 0}, 'nats', False),
    ('u', {'k': 1, 'd': 4}, 'nats', False),
    ('u', {'k': 1, 'd': 4}, 'bits', True),
    ('v', {'d': 4}, 'nats', False),
  ]
  rows = [Row(table, where, column, 0.5) for table, where, column, _ in shown]
  assert recipe.shown(rows) == [row for row, case in zip(rows, shown) if case[-1]]


def test_rows_are_found_by_their_coordinates():
  rows = Rows('t', lossy=lambda where: where['k'] == '2')
  rows.add({'k': 1, 'd': 4}, 'nats', 0.5, 'nats')
  rows.add({'k': 2, 'd': 4}, 'nats', stats.mean([0.5, 0.7]))
  rows.add({'k': 2, 'd': 8}, 'nats', None, note='impossible')
  assert [row.row for row in rows] == ['k=1,d=4', 'k=2,d=4', 'k=2,d=8']
  assert [row.lossy for row in rows] == [False, True, True]
  assert select(rows, 't', 'nats') == rows[:2]
  assert select(rows, 't', 'nats', k=2) == [rows[1]]
  assert rows[1].n == '2'
  assert select(rows, 't', 'nats', k=3) == select(rows, 'u', 'nats') == []


def test_rows_of_lossy_tokenizers_are_marked_in_every_form():
  rows, found = Rows('t'), Rows('t', lossy=lambda where: where['tokenizer'] == 'words')
  for some in (rows, found):
    some.add({'tokenizer': 'words'}, 'bits', 1.0)
    some.add({'tokenizer': 'bpe'}, 'bits', Estimate(2.0, 0.1, '3', 'seeds', 2.0))
    some.add({'tokenizer': 'words'}, 'share_restored', 0.5)
  assert [row.lossy for row in found] == [True, False, True]
  assert [line[0] for line in tables.grid(found)] == ['row', 'tokenizer=words †', 'tokenizer=bpe']
  for text in (tables.markdown(found), shown(found)):
    assert results.ABOUT_LOSSY in text
    assert 'tokenizer=words †' in text
  for text in (tables.markdown(rows), shown(rows)):
    assert '†' not in text


def shown(rows):
  """The page of a run that shows these rows."""
  one = sections.Section(
    'x', 'X', '', 'cpu', {}, 1.0, '', {}, [], '', [], rows, [['a'], ['b']], {}, {}
  )  # fmt: skip
  return page.html('', sections.report([one], []))


def test_a_comma_without_a_name_is_of_the_value():
  row = results.name(op='dot.1', of='bhts,bshk->bhtk')
  assert results.coordinates(row) == {'op': 'dot.1', 'of': 'bhts,bshk->bhtk'}


def test_yes_or_no_and_counts_are_shown_as_such():
  assert [tables.number(x, 'yes/no') for x in (0.0, 1.0)] == ['no', 'yes']
  assert [tables.number(x, 'tokens') for x in (0.0, 1.0, 65536.0)] == ['0', '1', '65,536']
  assert [tables.number(x, 'nats') for x in (0.0, 1.0, 2.22e-16)] == ['0.0000', '1.0000', '2.2e-16']


def test_a_table_of_a_terminal_fits_and_says_what_it_leaves_out():
  rows = Rows('t', lossy=lambda where: where['arm'] == 'a long name of an arm 3')
  for arm in range(20):
    where = {'arm': f'a long name of an arm {arm}', 'seeds': 3}
    for column in ('bits_per_byte', 'learning_rate', *(f'a_long_column_{i}' for i in range(9))):
      rows.add(where, column, Estimate(float(arm), 0.25, '3', 'seeds', 2.0), note='unseen')
  lines = tables.narrow(rows, lines=12).splitlines()
  assert max(map(len, lines)) <= 80
  assert lines[0] == 't  seeds=3'
  assert sum('a long name' in line for line in lines) == 12
  assert [line for line in lines if '†' in line] == [line for line in lines if 'arm 3 ' in line]
  assert re.fullmatch(r'\(8 more rows and \d more columns: tables/t\.csv\)', lines[-1])
  assert 'unseen' not in ' '.join(lines)


def test_a_table_as_csv_has_a_field_for_each_coordinate():
  rows = [Row('t', {'k': 1}, 'x', 0.5, 0.1, note='a, b'), Row('t', {'d': 'é'}, 'y', None)]
  [one, other] = csv.DictReader(io.StringIO(tables.as_csv(rows)))
  assert (one['k'], one['d'], one['measured'], one['note']) == ('1', '', '0.5', 'a, b')
  assert (other['k'], other['d'], other['column'], other['measured']) == ('', 'é', 'y', '')
