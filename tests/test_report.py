# SPDX-License-Identifier: Apache-2.0
"""Rows, published numbers and tables."""

import json
import math

import pytest

from lib.report import published, results, tables
from lib.report.results import Row

ROW = Row('ngram', 'k=2,m=2', 'nats_per_char', 0.5003, 0.0004)
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
    assert set(entry) == {'table', 'row', 'column', 'value', 'unit', 'source', 'where'}
    assert entry['source']
    assert entry['where'] or entry['table'] == 'theory'  # which holds at any size
  places = {(e['table'], e['row'], e['column'], str(e['where'])) for e in entries}
  assert len(places) == len(entries)


def test_rows_survive_their_file_and_infinities_become_null(tmp_path):
  odd = Row('t', 'a=1', 'x', math.inf, math.nan)
  results.write_rows(tmp_path / 'rows.json', [ROW, odd], 1.5)
  assert 'Infinity' not in (tmp_path / 'rows.json').read_text()
  content = results.read_rows(tmp_path / 'rows.json')
  assert content['seconds'] == 1.5
  first, second = content['rows']
  assert first == ROW
  assert second.measured is second.sem is None


def test_a_failed_write_leaves_the_old_file(tmp_path):
  path = tmp_path / 'results.json'
  results.write_json(path, {'old': 1})
  with pytest.raises(TypeError):
    results.write_json(path, {'new': object()})
  assert json.loads(path.read_text()) == {'old': 1}


def test_mean_and_standard_error_over_seeds():
  # Values 1, 2, 3: variance 1, standard error √(1/3).
  assert results.mean_and_sem([1, 2, 3]) == (2, pytest.approx(math.sqrt(1 / 3)))
  assert results.mean_and_sem([5]) == (5, None)


def test_a_table_shows_error_published_number_and_notes():
  rows = [
    Row('t', 'k=1', 'nats', 0.5, 0.01, 0.49, note='as the paper'),
    Row('t', 'k=2', 'nats', None, note='not measured'),
    Row('t', 'k=1', 'size', 4096),
  ]
  text = tables.markdown(rows, {'t': 'A caption.'})
  assert '0.5000 ± 0.01 (published 0.4900)' in text
  assert '4,096' in text
  assert '| k=2 | –' in text
  assert '- as the paper (k=1)' in text
  assert 'A caption.' in text


def test_a_summary_keeps_the_rows_and_columns_named():
  rows = [
    Row('t', 'k=1,d=4', 'nats', 0.5),
    Row('t', 'k=1,d=4', 'bits', 0.7),
    Row('t', 'k=1,d=8', 'nats', 0.5),
    Row('t', 'k=1,d=4,seed=0', 'nats', 0.5),
    Row('u', 'k=1,d=4', 'nats', 0.5),
  ]
  assert tables.select(rows, {'t': ('d=4', ('nats',))}) == rows[:1]
