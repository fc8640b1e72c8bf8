# SPDX-License-Identifier: Apache-2.0
"""The speed table of batches: a row for the step, and two for each tokenizer."""

import itertools
import types

import pytest

from experiments.tools import timing
from experiments.tools.speed import batches
from lib.report.results import name
from lib.tokenizers.characters import Characters


def test_feeds_are_compared_with_the_step(monkeypatch):
  clock = itertools.count()  # every timing takes a second
  fake = types.SimpleNamespace(perf_counter=lambda: next(clock), process_time=lambda: 0)
  for module in (batches, timing):
    monkeypatch.setattr(module, 'time', fake)
  monkeypatch.setattr(batches, 'VOCAB', 300)
  text = bytes(range(256)) * 40
  found = list(
    batches.table({'bytes': Characters()}, text, 3, shape=(4, 32), model=('tiny', 1, 8, 2, 8))
  )
  rows = {(row.row, row.column): row.measured for part in found for row in part}
  assert rows[name(step='tiny', rows=2, length=32), 'tokens_per_s'] == 2 * 32
  for source in ('text', 'tokens'):
    assert rows[name(method='bytes', source=source), 'tokens_per_s'] == 3 * 4 * 32
    assert rows[name(method='bytes', source=source), 'times_appetite'] == 6
    # A layer of width 8 with a gated MLP of 8 and 300 ids; scores of 32 positions, 8 wide.
    flops = 6 * (4 * 8 * 8 + 3 * 8 * 8 + 300 * 8) + 12 * 32 * 8
    found = rows[name(method='bytes', source=source), 'times_h200']
    assert found == pytest.approx(3 * 4 * 32 * flops / 989e12)
  assert len(rows) == 7
