# SPDX-License-Identifier: Apache-2.0
"""The speed table of BPE: all peers give the ids of ours, its files are distinct."""

from experiments.tools.speed import bpe
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
