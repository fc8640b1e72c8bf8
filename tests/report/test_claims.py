# SPDX-License-Identifier: Apache-2.0
"""Rules and verdicts on hand-written rows, and the data of the claims."""

import importlib
import math
import pathlib
import re

import numpy as np
import pytest
from scipy import stats as scipy_stats

from configs import markov
from configs.common import SCALES
from experiments.reproduce import RECIPES
from lib import stats
from lib.report import claims, page, published, rules, sections, tables
from lib.report.claims import Claim, Verdict
from lib.report.results import Row, coordinates
from lib.report.rules import Cells
from lib.report.sections import Section
from lib.stats import Estimate
from tests.helpers import addresses


def row(name, column, value, sem=None, n='10', df=9.0, **rest):
  over = 'documents' if sem is not None else ''
  return Row(
    't',
    coordinates(name),
    column,
    value,
    sem,
    n=n,
    over=over,
    df=None if sem is None else df,
    **rest,
  )


ROWS = [
  row('k=1,d=4', 'loss', 0.60, 0.01),
  row('k=1,d=8', 'loss', 0.50, 0.01),
  row('k=1,d=16', 'loss', 0.49, 0.01),
  row('k=2,d=4', 'loss', 0.70, 0.01, published=0.69),
  row('k=2,d=8', 'loss', 0.65, 0.01, published=0.50),
  row('k=2,d=8', 'bound', 0.70),
  row('k=1,d=8', 'bound', None),
  row('k=1,d=4', 'size', 4),
  row('k=1,d=8', 'size', 4),
  row('k=1,d=16', 'size', 16),
  row('arm=a,seed=0', 'loss', 1.0),
  row('arm=a,seed=1', 'loss', 2.0),
  row('arm=a,seed=2', 'loss', 3.0),
  row('arm=b,seed=0', 'loss', 0.9),
  row('arm=b,seed=1', 'loss', 1.91),
  row('arm=b,seed=2', 'loss', 2.9),
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
  ('below', {'left': 't / k=2,d=8 / loss', 'right': 't / k=2,d=8 / bound', 'exact': 'right'}, True),
  ('below', {'left': 't / k=2,d=4 / loss', 'right': 't / k=2,d=8 / bound', 'exact': 'right'}, None),
  ('equivalent', {'left': 't / k=1,d=8 / loss', 'right': 0.51, 'margin': 0.05}, True),
  ('equivalent', {'left': 't / k=1,d=8 / loss', 'right': 0.60, 'margin': 0.05}, False),
  ('equivalent', {'left': 't / k=1,d=8 / loss', 'right': 0.54, 'margin': 0.05}, None),
  ('order', {'falls': ['t / k=1,d=4 / loss', 't / k=1,d=8 / loss', 't / k=1,d=16 / loss']}, None),
  ('order', {'falls': ['t / k=2,d=4 / loss', 't / k=1,d=4 / loss', 't / k=1,d=8 / loss']}, True),
  ('order', {'rises': ['t / k=1,d=4 / loss', 't / k=1,d=8 / loss']}, False),
  ('published', {'left': 't / k=2,d=4 / loss', 'ratio': 0.1}, True),
  ('published', {'left': 't / k=2,d=* / loss', 'ratio': 0.1}, False),
  ('below', {'left': 'published / t / model=big / loss', 'right': 't / k=1,d=8 / loss'}, True),
  ('above', {'left': 't / k=1,d=16 / size', 'right': 't / k=1,d=8 / size', 'exact': True}, True),
  ('above', {'left': 't / k=1,d=4 / size', 'right': 't / k=1,d=8 / size', 'exact': True}, False),
  ('above', {'left': 't / k=1,d=4 / size', 'right': 4, 'exact': True, 'or_equal': True}, True),
  ('below', {'left': 't / k=1,d=* / size', 'right': 4, 'exact': True, 'or_equal': True}, False),
  ('equivalent', {'left': 't / k=1,d=4 / size', 'right': 5, 'margin': 2, 'exact': True}, True),
  ('order', {'rises': ['t / k=1,d=4 / size', 't / k=1,d=16 / size'], 'exact': True}, True),
  ('order', {'rises': ['t / k=1,d=4 / size', 't / k=1,d=8 / size'], 'exact': True}, False),
]  # fmt: skip


def find(kind, fields, rows=ROWS):
  [found] = rules.judge([{'kind': kind} | fields], Cells(rows, ENTRIES))
  return found


@pytest.mark.parametrize(('kind', 'fields', 'holds'), CASES)
def test_every_kind_of_rule_holds_and_fails(kind, fields, holds):
  found = find(kind, fields)
  assert not found.not_run
  assert not any(one.untested for one in found.comparisons)
  assert found.holds is holds
  assert found.words


@pytest.mark.parametrize(
  ('kind', 'fields', 'missing'),
  [
    ('above', {'left': 't / k=3,d=* / loss', 'right': 0}, 't / k=3,d=* / loss'),
    ('above', {'left': 'other / k=3 / loss', 'right': 0}, 'table other'),
    ('below', {'left': 't / k=*,d=16 / loss', 'right': 't / k=*,d=1 / loss'}, 't / k=1,d=1 / loss'),
    ('order', {'rises': ['t / k=1,d=4 / loss', 't / k=1,d=5 / loss']}, 't / k=1,d=5 / loss'),
    ('below', {'left': 'published / t / model=x / loss', 'right': 1}, 'published / t / model=x'),
  ],
)  # fmt: skip
def test_what_was_not_run_is_named(kind, fields, missing):
  found = find(kind, fields)
  assert found.holds is None
  assert missing in found.not_run[0]
  assert find(kind, {**fields, 'scale': 'gpu'}).not_run[0].endswith(' (needs scale gpu)')


# The reason, and the left side's error: (sem, n, df).
REASONS = {
  'no error': (None, '', None),
  'one seed': (0.1, '1×57', None),
  'one document': (None, '1', None),
  'no error over independent units': (0.1, '', None),
  'no spread': (0.0, '3', 2.0),
}


@pytest.mark.parametrize('reason', REASONS)
def test_without_an_error_nothing_is_decided_by_values(reason):
  sem, n, df = REASONS[reason]
  over = 'seeds×documents' if '×' in n else 'documents'
  alone = Row('t', {'a': 1}, 'x', 0.5, sem, n=n, over=over, df=df)
  for other in (0.5, 0.4, 0.6):
    [one] = find('above', {'left': 't / a=1 / x', 'right': other}, [alone]).comparisons
    assert one.untested == reason
    assert one.holds is one.adjusted is None
  [one] = find('published', {'left': 't / k=1,d=4 / loss', 'ratio': 1}).comparisons
  assert one.untested == 'no number is published for this scale'
  [one] = find('above', {'left': 't / k=1,d=8 / bound', 'right': 0}).comparisons
  assert one.untested == 'no value was measured'
  assert find('needs', {'what': 'a library of tasks'}).untested == 'it takes a library of tasks'


def test_zero_hits_against_zero_hits_says_nothing_and_against_all_hits_much():
  none, every = stats.share(np.zeros(1000)), stats.share(np.ones(1000))
  cells = [
    Row.of('t', {'a': a}, 'x', found) for a, found in enumerate((none, none, every), start=1)
  ]
  assert find('above', {'left': 't / a=1 / x', 'right': 't / a=2 / x'}, cells).holds is None
  assert find('above', {'left': 't / a=3 / x', 'right': 't / a=2 / x'}, cells).holds


def test_a_rule_on_deterministic_numbers_refuses_rows_with_an_error():
  fields = {'left': 't / k=1,d=4 / loss', 'right': 't / k=1,d=8 / size'}
  for exact in (True, 'right'):
    swapped = fields if exact is True else {'left': fields['right'], 'right': fields['left']}
    found = find('below', swapped | {'exact': exact})
    assert found.comparisons[0].untested == rules.UNFIT
    assert found.holds is None


def test_comparisons_are_those_of_student_and_welch():
  [one] = find('below', {'left': 't / k=1,d=8 / loss', 'right': 't / k=1,d=4 / loss'}).comparisons
  assert one.difference.df == pytest.approx(18)  # equal errors of 9 degrees each
  assert one.difference.sem == pytest.approx(0.01 * math.sqrt(2))
  assert one.p == pytest.approx(2 * scipy_stats.t.sf(0.1 / 0.01 / math.sqrt(2), 18))
  rng = np.random.default_rng(0)
  left, right = rng.normal(0, 1, 7), rng.normal(1, 3, 5)
  cells = [Row.of('t', {'a': i}, 'x', stats.mean(side)) for i, side in enumerate((left, right))]
  [one] = find('above', {'left': 't / a=0 / x', 'right': 't / a=1 / x'}, cells).comparisons
  assert one.p == pytest.approx(scipy_stats.ttest_ind(left, right, equal_var=False).pvalue)


def test_an_equivalence_holds_exactly_if_the_interval_lies_inside_the_margins():
  for value in np.linspace(-0.1, 0.1, 41):
    cell = Row('t', {'a': 1}, 'x', value, 0.01, n='5', df=4.0)
    [one] = find(
      'equivalent', {'left': 't / a=1 / x', 'right': 0, 'margin': 0.05}, [cell]
    ).comparisons
    half = scipy_stats.t.ppf(0.975, 4) * 0.01
    inside, outside = abs(value) + half < 0.05, abs(value) - half > 0.05
    assert one.holds is (True if inside else False if outside else None)


def test_rows_without_a_bound_are_left_out_where_the_rule_says_so():
  fields = {'left': 't / k=*,d=8 / loss', 'right': 't / k=*,d=8 / bound', 'exact': 'right'}
  [one] = find('below', fields | {'wherever_given': True}).comparisons
  assert one.cell.address == 't / k=2,d=8 / loss'
  assert find('below', fields).holds is None
  none = find('below', fields | {'left': 't / k=1,d=8 / loss', 'wherever_given': True})
  assert 'no row has a measured counterpart' in none.untested


def test_paired_seeds_are_one_difference():
  fields = {'left': 't / arm=a,seed=* / loss', 'right': 't / arm=b,seed=* / loss', 'paired': True}
  [one] = find('above', fields).comparisons
  by_seed = [0.1, 0.09, 0.1]
  assert one.difference.value == pytest.approx(np.mean(by_seed))
  assert one.difference.sem == pytest.approx(np.std(by_seed, ddof=1) / math.sqrt(3))
  assert one.difference.df == 2
  assert one.holds  # the losses themselves differ by 1 from seed to seed
  assert one.cell.address == 't / arm=a,seed=* / loss'
  [alone] = find(
    'above', fields, [one for one in ROWS if 'seed' not in one.row or '=0' in one.row]
  ).comparisons
  assert alone.untested == 'one seed'


def test_only_seeds_are_paired_and_other_wildcards_stay_apart():
  fields = {'left': 't / arm=*,seed=* / loss', 'right': 0.5, 'paired': True}
  found = find('above', fields).comparisons
  assert [one.cell.address for one in found] == [
    't / arm=a,seed=* / loss',
    't / arm=b,seed=* / loss',
  ]
  assert [one.difference.value for one in found] == pytest.approx([1.5, 1.4033333])


def test_equal_values_are_neither_above_nor_below_and_rounding_is_no_difference():
  cell = Row('t', {'a': 1}, 'x', 0.1 + 0.2)
  fields = {'left': 't / a=1 / x', 'right': 0.3, 'exact': True}
  for kind in ('above', 'below'):
    assert find(kind, fields, [cell]).holds is False
    assert find(kind, fields | {'or_equal': True}, [cell]).holds


def judged(claim, rows=ROWS, same_sizes=False):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(claims, 'load', lambda paper: [claim])
    [found] = claims.judge_all('markov', rows, same_sizes=same_sizes)
  return found


HOLDS = {'kind': 'below', 'left': 't / k=1,d=8 / loss', 'right': 't / k=1,d=4 / loss'}
FAILS = HOLDS | {'kind': 'above'}
OPEN = {'kind': 'above', 'left': 't / k=1,d=8 / loss', 'right': 't / k=1,d=16 / loss'}
ALONE = {'kind': 'above', 'left': 't / k=1,d=16 / size', 'right': 't / k=1,d=8 / size'}
EXACT = ALONE | {'exact': True}
ABSENT = {'kind': 'above', 'left': 't / k=9 / loss', 'right': 0}
EMPTY = {'kind': 'above', 'left': 't / k=1,d=8 / bound', 'right': 0}
SOME = HOLDS | {'left': 't / k=1,d={8,32} / loss'}  # there is no d = 32
NEEDS = {'kind': 'needs', 'what': 'a library of tasks'}


@pytest.mark.parametrize(
  ('found', 'fields', 'same_sizes', 'expected'),
  [
    ([HOLDS], {}, False, Verdict.DIRECTION),
    ([HOLDS], {}, True, Verdict.REPRODUCED),
    ([HOLDS], {'any_scale': True}, False, Verdict.DIRECTION),
    ([EXACT], {'any_scale': True}, False, Verdict.REPRODUCED),
    ([EXACT, HOLDS], {'any_scale': True}, False, Verdict.DIRECTION),
    ([EXACT], {}, False, Verdict.DIRECTION),
    ([HOLDS], {'theory': True}, False, Verdict.AGREES),
    ([HOLDS], {'theory': True}, True, Verdict.AGREES),
    ([HOLDS, FAILS], {'theory': True}, True, Verdict.FAILS),
    ([HOLDS, OPEN], {}, True, Verdict.UNDECIDED),
    ([OPEN, ALONE], {}, True, Verdict.UNTESTABLE),
    ([SOME], {}, True, Verdict.NOT_RUN),
    ([SOME | {'kind': 'above'}], {}, True, Verdict.FAILS),
    ([HOLDS, ALONE], {}, True, Verdict.UNTESTABLE),
    ([HOLDS, EMPTY], {}, True, Verdict.UNTESTABLE),
    ([NEEDS], {}, True, Verdict.UNTESTABLE),
    ([HOLDS, ABSENT], {}, True, Verdict.NOT_RUN),
    ([OPEN, ABSENT], {}, True, Verdict.NOT_RUN),
    ([FAILS, ABSENT], {}, True, Verdict.FAILS),
    ([HOLDS], {'audit': True}, False, Verdict.DIRECTION),
    ([FAILS], {'audit': True}, True, Verdict.FAILS),
  ],
)
def test_a_verdict_follows_from_the_rules_and_the_sizes(found, fields, same_sizes, expected):
  claim = Claim('A sentence.', 'a table', found, **fields)
  assert judged(claim, same_sizes=same_sizes).verdict is expected


def test_p_values_are_adjusted_over_all_rules_of_a_claim():
  weak = {'kind': 'above', 'left': 't / a=1 / x', 'right': 0}
  cells = [row('a=1', 'x', 2.6, 1.0), *(row(f'b={i}', 'x', 9.0, 1.0) for i in range(9))]
  strong = {'kind': 'above', 'left': 't / b=* / x', 'right': 8.9}
  assert judged(Claim('A sentence.', 'a table', [weak]), cells).verdict is Verdict.DIRECTION
  both = judged(Claim('A sentence.', 'a table', [weak, strong]), cells)
  assert both.verdict is Verdict.UNDECIDED
  found = [one for outcome in both.outcomes for one in outcome.comparisons]
  assert [one.adjusted for one in found] == stats.holm([one.p for one in found])
  assert found[0].adjusted == pytest.approx(10 * found[0].p)


def test_a_true_claim_of_many_comparisons_is_rarely_called_false_and_one_failure_is_found():
  rng = np.random.default_rng(1)
  rule = {'kind': 'above', 'left': 't / a=* / x', 'right': 0}

  def false(samples):
    rows = [Row.of('t', {'a': i}, 'x', stats.mean(one)) for i, one in enumerate(samples)]
    return rules.judge([rule], Cells(rows, []))[0].holds is False

  equal = rng.normal(0, 1, (300, 12, 5))  # on the edge of the claim
  p = scipy_stats.ttest_1samp(equal, 0, axis=-1, alternative='less').pvalue
  assert (p < 0.025).any(axis=1).mean() > 0.15  # the same tests without the adjustment
  assert np.mean([false(one) for one in equal]) <= 0.05
  one_fails = rng.normal(5, 1, (30, 12, 5))
  one_fails[:, 3] -= 10
  assert np.mean([false(one) for one in one_fails]) > 0.95


def test_published_numbers_come_from_their_file_with_their_source():
  claim = Claim('A sentence.', 'a table', [HOLDS], published=['ngram / k=2,m=2 / nats_per_char'])
  [words] = judged(claim).published
  assert words.startswith('Derived: 0.5004 for nats per char, k=2, m=2 (closed form')


FIELDS = {
  'above': {'left', 'right'}, 'below': {'left', 'right'}, 'equivalent': {'left', 'right', 'margin'},
  'order': set(), 'published': {'left', 'ratio'}, 'needs': {'what'},
}  # fmt: skip
OPTIONS = {
  'times',
  'plus',
  'paired',
  'wherever_given',
  'exact',
  'or_equal',
  'rises',
  'falls',
  'scale',
}


@pytest.mark.parametrize('paper', RECIPES)
def test_claims_name_tables_fields_and_numbers_that_exist(paper):
  loaded = claims.load(paper)
  config = importlib.import_module(f'configs.{paper}')
  known = {f'{e["table"]} / {e["row"]} / {e["column"]}' for e in published.load(paper)['entries']}
  # Some tables come with others.
  also = {'in_context_audit', 'languages_learning'}
  tables = {*config.TABLES, *also, 'tokenizers', 'untried', 'published'}
  assert sum(not one.audit for one in loaded) >= 6 * bool(known)
  assert sum(one.audit for one in loaded) >= 2
  for claim in loaded:
    assert isinstance(claim.published, str) or set(claim.published) <= known
    assert not (claim.theory and claim.any_scale)
    for rule in claim.rules:
      assert FIELDS[rule['kind']] <= set(rule) - {'kind'} <= FIELDS[rule['kind']] | OPTIONS
      assert rules.describe(rule)
      if rule.get('or_equal'):
        assert rule['kind'] in ('above', 'below')
        assert rule['exact'] is True
      assert rule.get('exact', True) in (True, 'right')
      assert rule.get('scale', 'paper') in SCALES
      if rule.get('paired'):
        assert 'seed=*' in rule['left']
        assert (
          'seed=*' in str(rule['right'])
          or rule.get('exact')
          or rule['right'] == float(rule['right'])
        )
      assert {side.split(rules.SEPARATOR)[0] for side in addresses.addresses(rule)} <= tables


def synthetic(paper, change, sem):
  """Rows for every address that a paper's rules name, their values moved by `change`."""
  found = {}
  for claim in claims.load(paper):
    for rule in claim.rules:
      error = None if rule.get('exact') is True else sem
      for side in addresses.addresses(rule):
        if not side.startswith('published'):
          table, name, column = (
            re.sub(r'\{([^,}]*)[^}]*\}', r'\1', side).replace('*', '1').split(' / ')
          )
          value = 1.0 + change * len(found)
          bare = error is None or (rule.get('exact') == 'right' and side == rule['right'])
          cell = Estimate(value) if bare else Estimate(value, error, '9', 'seeds', 8.0)
          where = coordinates(name if '=' in name else f'any={name}')
          found.setdefault((table, name, column), Row.of(table, where, column, cell))
  return list(found.values())


def section(paper, rows, same_sizes):
  """The run of a paper with some rows, judged."""
  return Section(
    name=paper, title=paper, summary='', scale='smoke', changed={}, minutes=1.0, devices='',
    made={}, models=[], remark='',
    judged=claims.judge_all(paper, rows, same_sizes=same_sizes), rows=[],
    errors=tables.errors(rows), captions={}, pictures={},
  )  # fmt: skip


def index(found):
  """The sentences of the index that say how the claims of each paper fare."""
  return ' '.join(one.outcome for one in found)


def test_all_verdicts_are_reached_and_nothing_else_is_printed():
  words = {
    'reproduced', 'agrees with the theorem', 'direction holds at this scale', 'does not hold here',
    'not decided at this scale', 'not testable at this scale', 'not run here',
  }  # fmt: skip
  assert {str(verdict) for verdict in Verdict} == words == {str(one) for one in sections.LOOKS}
  html, markdown = set(), set()
  for change, sem, share in ((0, None, 1), (-1, 1e-6, 1), (1, 1e-6, 1), (1, 1, 0.5)):
    for same_sizes in (False, True):
      found = []
      for paper in RECIPES:
        rows = synthetic(paper, change, sem)
        found.append(section(paper, rows[: int(share * len(rows))], same_sizes))
      total = sum(len(one.judged) for one in found)
      blocks = sections.report(found, [])
      printed = re.findall('<span class="verdict">(.*?[^:])</span>', page.html('', blocks))
      assert len(printed) == total
      html |= set(printed)
      text = page.markdown(blocks, pathlib.Path())
      printed = re.findall(r'^\*([^*]*?[^:])\* ', text, re.MULTILINE)
      assert len(printed) == total
      markdown |= set(printed)
      counts = re.findall(r'(\d+) (?:is|are|was|were|agrees?|holds?|does|do)\b', index(found))
      assert sum(map(int, counts)) == total
  assert html == markdown == words


def test_a_terminal_says_what_a_test_would_take():
  lines = sections.terminal(section('lexinvariant', [], False))
  assert 'Not tested: it takes BIG-bench, and models of 150M parameters.' in lines


@pytest.mark.parametrize(
  ('paper', 'reproduced'), [('equal_info', 1), ('lexinvariant', 2), ('markov', 1)]
)
def test_no_claim_fails_on_the_numbers_of_its_own_paper(paper, reproduced):
  entries = [
    entry for entry in published.load(paper)['entries']
    if entry['where'].get('scale', 'paper') == 'paper' and isinstance(entry['value'], (int, float))
  ]  # fmt: skip
  rows = [
    Row(entry['table'], coordinates(entry['row']), entry['column'], float(entry['value']),
        None if entry['column'] == 'tokens' else 1e-6, n='9', df=8.0,
        published=float(entry['value']))
    for entry in entries
  ]  # fmt: skip
  found = [one for one in claims.judge_all(paper, rows, same_sizes=True) if not one.claim.audit]
  for one in found:
    assert one.verdict is not Verdict.FAILS, one.claim.claim
  assert sum(one.verdict in (Verdict.REPRODUCED, Verdict.AGREES) for one in found) == reproduced


@pytest.mark.parametrize('scale', ['cpu', 'gpu', 'paper'])
def test_steps_that_claims_name_are_evaluated_at_every_scale(scale):
  options = markov.get_config(scale).transformer
  named = {int(step) for step in re.findall(r'_at_(\d+)', str(claims.load('markov')))}
  assert named == {200, 400}
  assert not any(step % options.evaluate_every for step in named)


def test_rules_whose_rows_no_run_at_cpu_has_are_found():
  cell = 'context / data=pile,vocabulary=*,embedding=learned / perplexity'
  assert [*addresses.absent('lexinvariant', cell, 'cpu', set())] == ['data=pile']
  assert [*addresses.absent('lexinvariant', cell, 'paper', set())] == []
  cell = 'coverage / font=unifont.hex,vocabulary=unicode / tokens'
  assert [*addresses.absent('visual_unicode', cell, 'cpu', {cell})] == []  # a constant
