# SPDX-License-Identifier: Apache-2.0
"""The speed table of BPE: all peers give the ids of ours; tables of earlier runs are kept."""

import pytest

from experiments.tools.speed import bpe, record
from lib.errors import InputError
from lib.report import results
from lib.report.results import Row
from tests.helpers import byte_models


def test_rows_of_ours_and_of_peers_with_equal_ids(monkeypatch):
  monkeypatch.setattr(bpe, 'LEARNED', 300_000)
  monkeypatch.setattr(bpe, 'SIZE', 600)
  monkeypatch.setattr(bpe, 'RUN', 1 << 12)
  rows = [row for found in bpe.table(byte_models.sources()[:20_000], 1) for row in found]
  methods = {row.where['method'] for row in rows}
  assert {name.split()[0] for name in methods} - {'rustbpe'} == {'ours', 'tiktoken', 'tokenizers'}
  assert {row.column for row in rows} == {
    'learn_seconds', 'learn_core_seconds', 'learn_mb', 'encode_mb_per_core_s',
    'encode_seconds_over_ours', 'seconds_over_a_quarter',
  }  # fmt: skip
  assert all(row.measured > 0 for row in rows if row.column != 'learn_mb')
  files = bpe.distinct_files(300_000)
  assert len(set(files)) == len(files)
  assert sum(map(len, files)) >= 300_000


def test_tables_that_are_not_measured_again_are_kept_with_their_commit(tmp_path):
  file, order = tmp_path / 'speed.json', ['walk', 'bpe', 'steps']
  row = lambda table, value: Row(table, {'method': 'ours'}, 'mb_per_s', value)
  now = lambda commit: {'commit': commit, 'date': '2026-01-02', 'machine': 'a machine'}
  texts = {table: f'About {table}.' for table in order}

  def write(measured, commit):
    made = {one.table: now(commit) for one in measured}
    rows, made = record.join(file, measured, made, order)
    results.write_json(
      file, {'devices': ['x'], 'made': made, 'rows': [*map(results.as_line, rows)]}
    )
    return [(one.table, one.measured) for one in rows], record.captions(texts, made)

  write([row('steps', 1.0), row('walk', 2.0)], 'first')
  rows, captions = write([row('bpe', 3.0), row('walk', 4.0)], 'second')
  assert rows == [('walk', 4.0), ('bpe', 3.0), ('steps', 1.0)]
  assert captions['walk'] == 'About walk. Measured on 2026-01-02 at commit second on a machine.'
  assert 'commit first' in captions['steps']
  results.write_json(file, {'devices': ['old'], 'rows': [results.as_line(row('steps', 6.0))]})
  rows, captions = write([row('walk', 5.0)], 'third')
  assert rows == [('walk', 5.0), ('steps', 6.0)]
  assert captions['steps'].endswith('at an earlier commit, which was not recorded, on old.')
  file.write_text('{}')
  with pytest.raises(InputError, match='no recorded speeds'):
    write([row('walk', 5.0)], 'third')
