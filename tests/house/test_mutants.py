# SPDX-License-Identifier: Apache-2.0
"""What `make mutants` changes, and which tests it runs first."""

import ast

from tests import mutants
from tests.mutants import ROOT

CODE = b'''
def f(x: int = 2) -> int | None:
  """A docstring that stays, by 1 + 1."""
  if 0 <= x < 3 and not g(x, key=-x):
    raise ValueError(f'{x + 1}')
  x += 1
  table[x] = [y for y in x if y]
'''


def test_each_change_is_another_program_and_the_rest_of_the_file_stays():
  found = [pair for node in mutants.nodes(ast.parse(CODE)) for pair in mutants.changes(node)]
  texts = {mutants.changed(CODE, old, new)[0] for old, new in found}
  # Two each of four numbers and of 0 <= x < 3; ten other nodes have one change.
  assert len(texts) == len(found) == 2 * 4 + 2 + 10
  assert all(ast.dump(ast.parse(text)) != ast.dump(ast.parse(CODE)) for text in texts)
  assert all(b'A docstring that stays, by 1 + 1.' in text for text in texts)
  assert sum(b'{x + 1}' not in text for text in texts) == 2  # the message or the raise left out
  assert sum(b'0 < x < 3' in text or b'0 <= x <= 3' in text for text in texts) == 2


def test_tests_that_import_a_module_come_before_those_that_reach_it():
  groups = mutants.likely('lib.report.tables')
  assert 'tests/report/test_report.py' in groups[0]
  assert 'tests/experiments/test_reproduce.py' in groups[1]
  assert 'tests/models/test_attention.py' in groups[-1]
  files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'tests').rglob('test_*.py'))
  assert sorted(file for group in groups for file in group) == files
