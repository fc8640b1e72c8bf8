# SPDX-License-Identifier: Apache-2.0
"""Rules and verdicts on hand-written rows, and the data of the claims."""

import importlib
import math
import re

import pytest

from configs import markov
from experiments.reproduce import RECIPES
from lib.report import claims, published, rules
from lib.report.claims import Claim
from lib.report.results import Row
from lib.report.rules import Cells

ROWS = [
  Row('t', 'k=1,d=4', 'loss', 0.60, 0.01),
  Row('t', 'k=1,d=8', 'loss', 0.50, 0.01),
  Row('t', 'k=1,d=16', 'loss', 0.49, 0.01),
  Row('t', 'k=2,d=4', 'loss', 0.70, 0.01, published=0.69),
  Row('t', 'k=2,d=8', 'loss', 0.65, 0.01, published=0.50),
  Row('t', 'k=2,d=8', 'bound', 0.66),
  Row('t', 'k=1,d=8', 'bound', None),
  Row('t', 'arm=a,seed=0', 'loss', 1.0),
  Row('t', 'arm=a,seed=1', 'loss', 2.0),
  Row('t', 'arm=b,seed=0', 'loss', 0.9),
  Row('t', 'arm=b,seed=1', 'loss', 1.91),
]
ENTRIES = [{'table': 't', 'row': 'model=big', 'column': 'loss', 'value': 0.4}]
# kind and fields, whether the rule holds (None: open)
CASES = [
  ('above', {'left': 't / k=1,d=4 / loss', 'right': 't / k=1,d=8 / loss'}, True),
  ('above', {'left': 't / k=1,d=8 / loss', 'right': 't / k=1,d=4 / loss'}, False),
  ('above', {'left': 't / k=1,d=8 / loss', 'right': 't / k=1,d=16 / loss'}, None),
  ('below', {'left': 't / k=*,d=8 / loss', 'right': 't / k=*,d=4 / loss'}, True),
  ('below', {'left': 't / k=*,d=4 / loss', 'right': 't / k=*,d=8 / loss'}, False),
  ('below', {'left': 't / k={1,2},d=8 / loss', 'right': 0.7}, True),
  ('below', {'left': 't / k=1,d=8 / loss', 'right': 't / k=1,d=4 / loss', 'plus': -0.2}, False),
  ('above', {'left': 't / k=1,d=4 / loss', 'right': 't / k=1,d=8 / loss', 'times': 2}, False),
  ('at_most', {'left': 't / k=2,d=8 / loss', 'right': 't / k=2,d=8 / bound'}, True),
  ('at_most', {'left': 't / k=2,d=4 / loss', 'right': 't / k=2,d=8 / bound'}, False),
  ('at_least', {'left': 't / k=2,d=8 / loss', 'right': 0.65}, True),
  ('at_least', {'left': 't / k=2,d=8 / loss', 'right': 0.66}, False),
  ('near', {'left': 't / k=1,d=8 / loss', 'right': 0.51, 'within': 0.02}, True),
  ('near', {'left': 't / k=*,d=8 / loss', 'right': 0.51, 'within': 0.02}, False),
  ('equivalent', {'left': 't / k=1,d=8 / loss', 'right': 0.51, 'margin': 0.05}, True),
  ('equivalent', {'left': 't / k=1,d=8 / loss', 'right': 0.60, 'margin': 0.05}, False),
  ('equivalent', {'left': 't / k=1,d=8 / loss', 'right': 0.54, 'margin': 0.05}, None),
  ('order', {'falls': ['t / k=1,d=4 / loss', 't / k=1,d=8 / loss', 't / k=1,d=16 / loss']}, True),
  ('order', {'rises': ['t / k=1,d=4 / loss', 't / k=1,d=8 / loss']}, False),
  ('published', {'left': 't / k=2,d=4 / loss', 'ratio': 0.05}, True),
  ('published', {'left': 't / k=2,d=* / loss', 'ratio': 0.05}, False),
  ('below', {'left': 'published / t / model=big / loss', 'right': 't / k=1,d=8 / loss'}, True),
]  # fmt: skip


def find(kind, fields, quantile=1.96):
  return rules.judge({'kind': kind} | fields, Cells(ROWS, ENTRIES), quantile)


@pytest.mark.parametrize(('kind', 'fields', 'holds'), CASES)
def test_every_kind_of_rule_holds_and_fails(kind, fields, holds):
  found = find(kind, fields)
  assert not found.missing
  assert found.holds is holds
  assert found.words


@pytest.mark.parametrize(
  ('kind', 'fields', 'missing'),
  [
    ('above', {'left': 't / k=3,d=* / loss', 'right': 0}, 't / k=3,d=* / loss'),
    ('above', {'left': 'other / k=3 / loss', 'right': 0}, 'table other'),
    ('below', {'left': 't / k=*,d=16 / loss', 'right': 't / k=*,d=1 / loss'}, 't / k=1,d=1 / loss'),
    ('at_most', {'left': 't / k=1,d=8 / loss', 'right': 't / k=1,d=8 / bound'}, 'no value was'),
    ('order', {'rises': ['t / k=1,d=4 / loss', 't / k=1,d=5 / loss']}, 't / k=1,d=5 / loss'),
    ('published', {'left': 't / k=1,d=4 / loss', 'ratio': 1}, 'no number is published for this'),
    ('needs', {'what': 'a library of tasks'}, 'a library of tasks'),
  ],
)  # fmt: skip
def test_what_a_rule_lacks_is_named(kind, fields, missing):
  found = find(kind, fields)
  assert found.holds is None
  assert missing in found.missing[0]


def test_rows_without_a_bound_are_left_out_where_the_rule_says_so():
  fields = {'left': 't / k=*,d=8 / loss', 'right': 't / k=*,d=8 / bound', 'wherever_given': True}
  [one] = find('at_most', fields).comparisons
  assert one.cell.address == 't / k=2,d=8 / loss'


def test_paired_seeds_are_one_difference():
  # Differences 0.1 and 0.09: mean 0.095, standard error 0.005; the losses differ by 1.
  fields = {'left': 't / arm=a,seed=* / loss', 'right': 't / arm=b,seed=* / loss', 'paired': True}
  [one] = find('above', fields, quantile=12.7).comparisons
  assert one.slack == pytest.approx(0.095 - 12.7 * 0.005)
  assert one.holds


def test_a_value_that_attains_its_bound_is_at_most_it_and_equal_values_are_not_below():
  value = Row('t', 'a=1', 'x', 0.1 + 0.2)
  rule = {'left': 't / a=1 / x', 'right': 0.3}
  cells = Cells([value], [])
  assert rules.judge(rule | {'kind': 'at_most'}, cells, 2).holds
  assert not rules.judge(rule | {'kind': 'below', 'right': value.measured}, cells, 2).holds


def verdict(claim, rows=ROWS, config=None, same_sizes=False):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(claims, 'load', lambda paper: [claim])
    [judged] = claims.judge_all('markov', rows, config or {}, same_sizes=same_sizes)
  return judged


HOLDS = {'kind': 'below', 'left': 't / k=1,d=8 / loss', 'right': 't / k=1,d=4 / loss'}
FAILS = HOLDS | {'kind': 'above'}
OPEN = {'kind': 'above', 'left': 't / k=1,d=8 / loss', 'right': 't / k=1,d=16 / loss'}
LACKS = {'kind': 'above', 'left': 't / k=9 / loss', 'right': 0}


@pytest.mark.parametrize(
  ('found', 'fields', 'same_sizes', 'expected'),
  [
    ([HOLDS], {}, False, claims.DIRECTION),
    ([HOLDS], {}, True, claims.REPRODUCED),
    ([HOLDS], {'theory': True}, False, claims.REPRODUCED),
    ([HOLDS, FAILS], {'theory': True}, True, claims.FAILS),
    ([HOLDS, OPEN], {}, True, claims.UNTESTABLE),
    ([HOLDS, LACKS], {}, True, claims.UNTESTABLE),
    ([HOLDS], {'audit': True}, False, claims.SHOWN),
    ([OPEN], {'audit': True}, True, claims.NOT_SHOWN),
    ([LACKS], {'audit': True}, False, claims.UNTESTABLE),
  ],
)
def test_a_verdict_follows_from_the_rules_and_the_sizes(found, fields, same_sizes, expected):
  claim = Claim('A sentence.', 'a table', found, **fields)
  assert verdict(claim, same_sizes=same_sizes).verdict == expected


def test_the_interval_of_few_seeds_is_wide():
  # 0.6 − 0.5 = 0.1 is above 2.3 · 0.0141 (nine seeds), and below 12.7 · 0.0141 (two).
  claim = Claim('A sentence.', 'a table', [HOLDS], seeds='model.seeds')
  assert verdict(claim, config={'model': {'seeds': 9}}).verdict == claims.DIRECTION
  few = verdict(claim, config={'model': {'seeds': 2}})
  assert few.verdict == claims.UNTESTABLE
  assert few.seeds == 2
  one = verdict(claim, config={'model': {'seeds': 1}})  # the error is over examples
  assert math.isclose(one.quantile, 1.96, abs_tol=1e-3)


def test_published_numbers_come_from_their_file_with_their_source():
  claim = Claim('A sentence.', 'a table', [HOLDS], published=['ngram / k=2,m=2 / nats_per_char'])
  assert '0.5004 for ngram' in verdict(claim).published
  assert 'closed form' in verdict(claim).published


@pytest.mark.parametrize('paper', RECIPES)
def test_claims_name_tables_fields_and_numbers_that_exist(paper):
  loaded = claims.load(paper)
  config = importlib.import_module(f'configs.{paper}')
  known = {f'{e["table"]} / {e["row"]} / {e["column"]}' for e in published.load(paper)['entries']}
  # Some tables come with others.
  tables = {*config.TABLES, 'in_context_audit', 'tokenizers', 'untried', 'published'}
  assert sum(not one.audit for one in loaded) >= 6 * bool(known)
  assert sum(one.audit for one in loaded) >= 2
  settings = config.get_config('cpu').to_dict()
  for claim in loaded:
    assert isinstance(claim.published, str) or set(claim.published) <= known
    if claim.seeds:
      section, field = claim.seeds.split('.')
      assert isinstance(settings[section][field], int)
    for rule in claim.rules:
      assert rule['kind'] in rules.KINDS
      assert rules.describe(rule)
      sides = [rule.get('left'), rule.get('right'), *rule.get('rises', rule.get('falls', ()))]
      addresses = [side for side in sides if isinstance(side, str)]
      assert {side.split(rules.SEPARATOR)[0] for side in addresses} <= tables


@pytest.mark.parametrize(
  ('paper', 'reproduced'), [('equal_info', 5), ('lexinvariant', 2), ('markov', 1)]
)
def test_no_claim_fails_on_the_numbers_of_its_own_paper(paper, reproduced):
  entries = [
    entry for entry in published.load(paper)['entries']
    if entry['where'].get('scale', 'paper') == 'paper' and isinstance(entry['value'], (int, float))
  ]  # fmt: skip
  rows = [
    Row(entry['table'], entry['row'], entry['column'], float(entry['value']),
        published=float(entry['value']))
    for entry in entries
  ]  # fmt: skip
  judged = [
    one for one in claims.judge_all(paper, rows, {}, same_sizes=True) if not one.claim.audit
  ]
  for one in judged:
    assert all(outcome.holds is not False for outcome in one.outcomes), one.claim.claim
  assert sum(one.verdict == claims.REPRODUCED for one in judged) == reproduced


@pytest.mark.parametrize('scale', ['cpu', 'gpu', 'paper'])
def test_steps_that_claims_name_are_evaluated_at_every_scale(scale):
  options = markov.get_config(scale).transformer
  named = {int(step) for step in re.findall(r'_at_(\d+)', str(claims.load('markov')))}
  assert named == {200, 400}
  assert not any(step % options.evaluate_every for step in named)
