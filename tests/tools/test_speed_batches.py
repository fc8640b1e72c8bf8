# SPDX-License-Identifier: Apache-2.0
"""The speed table of batches: three rows for each tokenizer, and what hosts must feed."""

import itertools
import types

import pytest

from experiments.tools.speed import batches
from lib.report.results import name
from lib.tokenizers.characters import Characters


def test_feeds_are_compared_with_what_models_take(monkeypatch):
  clock = itertools.count()  # every timing takes a second
  monkeypatch.setattr(batches, 'time', types.SimpleNamespace(process_time=lambda: next(clock)))
  text = bytes(range(256)) * 40
  found = list(batches.table({'bytes': Characters()}, text, 3, (4, 32), {'m/size=1,k=2': 1e9}))
  rows = {(row.row, row.column): row.measured for part in found for row in part}
  for source in ('text', 'tokens on disk', 'tokens in memory'):
    assert rows[name(method='bytes', source=source), 'tokens_per_core_s'] == 3 * 4 * 32
  # Eight chips at half of 989e12 operations a second, fed by 224 cores.
  fed = name(model='m/size 1;k 2', host='8 h200')
  assert rows[fed, 'tokens_per_s'] == pytest.approx(8 * 0.5 * 989e12 / 1e9)
  assert rows[fed, 'times_tokens_on_disk'] == pytest.approx(
    224 * 3 * 4 * 32 / rows[fed, 'tokens_per_s']
  )
  assert len(rows) == 3 + 2 * 4
