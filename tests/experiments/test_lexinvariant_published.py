# SPDX-License-Identifier: Apache-2.0
"""Numbers of the lexinvariant paper: its notes, its formulas, and what "4×" comes to."""

import json
import math
import pathlib
import re

import numpy as np
import pytest

from experiments.lexinvariant import theory
from lib.errors import InputError
from lib.report import published
from lib.report.results import Row, coordinates
from lib.tasks.look_up import improvement

NOTES = pathlib.Path(__file__).parents[3] / 'shared/papers/lexinvariant.md'


def table(symbols: str, vocabulary: str = '') -> tuple[list[float], list[float]]:
  """The published accuracies of both embeddings, pair by pair."""
  entries = published.load('lexinvariant')['entries']
  cells = {e['row']: e['value'] for e in entries if e['table'] == 'in_context'}
  wanted = f'symbols={symbols}'
  standard = [row for row in cells if wanted in row and row.endswith('=learned')]
  standard = [row for row in standard if f'vocabulary={vocabulary}' in row]
  other = [row.replace('=learned', '=lexinvariant') for row in standard]
  return [cells[row] for row in standard], [cells[row] for row in other]


def test_audit_of_the_fourfold_claim():
  uniform = improvement(*table('uniform'))
  assert len(table('uniform')[0]) == 12
  assert uniform.pop('largest_ratio') == pytest.approx(18.9, abs=0.05)
  expected = {
    'mean_ratio': 4.94,
    'geometric_mean_ratio': 3.71,
    'ratio_of_means': 3.04,
    'median_ratio': 3.16,
  }
  assert uniform == pytest.approx(expected, abs=0.005)
  for part, ratio in (('char', 2.33), ('32k', 7.56)):
    assert improvement(*table('uniform', part))['mean_ratio'] == pytest.approx(ratio, abs=0.005)
  assert improvement(*table('frequency'))['mean_ratio'] == pytest.approx(1.46, abs=0.005)


def test_improvement_of_nothing_is_infinite_and_of_unpaired_scores_refused():
  found = improvement([0.0, 0.5], [0.2, 0.5])
  assert found['mean_ratio'] == found['largest_ratio'] == math.inf
  assert found['ratio_of_means'] == pytest.approx(1.4)
  for standard, other in (([0.1], [0.1, 0.2]), ([], []), ([-0.1], [0.1])):
    with pytest.raises(InputError):
      improvement(standard, other)


def test_published_numbers_are_whole():
  entries = published.load('lexinvariant')['entries']
  names = {(entry['table'], entry['row'], entry['column']) for entry in entries}
  assert len(names) == len(entries)
  for entry in entries:
    fields = {'table', 'row', 'column', 'value', 'unit', 'source', 'where'}
    assert set(entry) - {'evidence'} == fields
    assert entry['source']
    assert entry['unit']
    assert entry['where'] == ({} if entry['table'] == 'theory' else {'scale': 'paper'})


def test_published_numbers_are_those_of_the_notes():
  if not NOTES.exists():
    pytest.skip(f'{NOTES} is not there: its numbers cannot be compared')
  noted = json.loads(re.search(r'```json\n(.*?)\n```', NOTES.read_text(), re.DOTALL).group(1))
  percent = lambda row: row['unit'] == '% accuracy' or row['column'] == 'mean precision'
  expected = sorted(row['value'] / (100 if percent(row) else 1) for row in noted)
  found = sorted(entry['value'] for entry in published.load('lexinvariant')['entries'])
  np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_published_theory_follows_from_its_formulas():
  checked = 0
  for entry in published.load('lexinvariant')['entries']:
    if entry['table'] != 'theory':
      continue
    d, epsilon, delta = int(entry['row'].removeprefix('d=')), theory.EPSILON, theory.DELTA
    budget, column = math.lgamma(d + 1), entry['column']
    at = int(column.rsplit('_', 1)[1]) if '_at_' in column else 0
    if column == 'log_d_factorial_nats':
      expected, within = budget, 1e-4
    elif column.startswith('bound'):
      expected, within = math.sqrt(2 * budget / at), 1e-3
    elif column.startswith('paper_rate'):
      expected, within = (d / at) ** 0.25, 1e-3
    elif column == 'required_tokens':
      expected, within = 2 * budget / epsilon**2, 1e-2
    else:
      assert column == 'paper_required_tokens'
      expected, within = paper_tokens(d, epsilon, delta), 1e-2
    assert entry['value'] == pytest.approx(expected, rel=within)
    checked += 1
  assert checked == 17


def paper_tokens(d: int, epsilon: float, delta: float) -> float:
  """T = 512 log(2/δ) log²(dT/(δε')) log(d!) / ε⁴ with ε' = ε / (2√2 (2 log(2/δ))^¼)."""
  small = epsilon / (2 * math.sqrt(2) * (2 * math.log(2 / delta)) ** 0.25)
  tokens = 1e9
  for _ in range(100):
    tokens = 512 * math.log(2 / delta) * math.log(d * tokens / (delta * small)) ** 2
    tokens *= math.lgamma(d + 1) / epsilon**4
  return tokens


def test_published_numbers_are_attached_only_at_the_paper_scale():
  name = 'data=pile,vocabulary=char,symbols=uniform,task=lookup,embedding=lexinvariant'
  row = Row('in_context', coordinates(name), 'accuracy', 0.9)
  [attached] = published.attach([row], 'lexinvariant', {'scale': 'paper'})
  [apart] = published.attach([row], 'lexinvariant', {'scale': 'cpu'})
  assert attached.published == pytest.approx(0.918)
  assert apart.published is None
  assert 'published 0.918 at scale=paper' in apart.note
  bound = Row('theory', {'d': 6}, 'bound_l1_at_64', 0.17)
  assert published.attach([bound], 'lexinvariant', {'scale': 'cpu'})[0].published == 0.4534
