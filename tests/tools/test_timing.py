# SPDX-License-Identifier: Apache-2.0
"""What commands that measure share: each call counts by itself, the first one not at all."""

import itertools
import types

import pytest

from experiments.tools import timing


def clocks(monkeypatch):
  """A wall clock that takes two seconds a look, and a processor's that takes one."""
  wall, cpu = itertools.count(0, 2), itertools.count()
  fake = types.SimpleNamespace(perf_counter=lambda: next(wall), process_time=lambda: next(cpu))
  monkeypatch.setattr(timing, 'time', fake)


def test_the_first_call_compiles_and_gives_the_result(monkeypatch):
  clocks(monkeypatch)
  calls = itertools.count()
  found = timing.time_calls(lambda: next(calls), 3)
  assert found == ([2, 2, 2], [1, 1, 1], 0)
  assert next(calls) == 4


def test_rates_are_megabytes_a_second(monkeypatch):
  clocks(monkeypatch)
  rows, result = timing.rates('walk', {'method': 'a'}, lambda: 'ids', 'encode', 3_000_000, 2)
  assert result == 'ids'
  assert {row.column: row.measured for row in rows} == {
    'encode_mb_per_s': pytest.approx(1.5),
    'encode_mb_per_core_s': pytest.approx(3.0),
  }


def test_works_take_turns(monkeypatch):
  clocks(monkeypatch)
  order = []
  works = {name: lambda name=name: order.append(name) for name in 'ab'}
  assert timing.in_turns(works, 2) == {'a': [2, 2], 'b': [2, 2]}
  assert order == ['a', 'b', 'a', 'b']
