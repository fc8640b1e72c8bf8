# SPDX-License-Identifier: Apache-2.0
"""Rules that decide from measured rows whether a claim holds.

A cell is named by its address, 'table / row / column'; published numbers have the same address
after 'published / '. In the addresses of a rule, * matches any value and {a,b} matches a or b. The
values matched in `left` replace each * in `right`. Each of {a,b} must match.

A rule is a dict with its `kind` and:
  above, below: `left` is above or below `right` (an address or a number, times `times`, plus
    `plus`);
  equivalent: `left` differs from `right` by less than `margin`;
  order: `rises` or `falls` is a list of addresses, each below (above) the next;
  published: `left` is within the factor 1 ± `ratio` of the paper's number for this scale;
  needs: `what` a test would require; such a rule is never tested.
Optional fields:
  paired: rows that `left` matches and that differ only in `seed=*` are one mean difference, whose
    error is over the seeds;
  wherever_given: rows of `left` are left out if nothing was measured on the right;
  exact: true means that both sides are deterministic (counts, closed forms, yes or no), so that
    only values are compared; 'right' means that only the right side is deterministic;
  or_equal: equal values, up to rounding, hold as well; only where `exact` is true;
  scale: the only scale at which these rows are measured, if there is only one.

All other comparisons use errors: each is a two-sided t-test of a difference, with the df of its
cells, and the p-values of one claim are adjusted together (Holm). A cell without an error, with one
seed, or without any spread cannot be tested. Numbers in a rule and published numbers have no error
and do not need one.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lib import stats
from lib.report.published import EVIDENCE
from lib.report.results import LOSSY, Row, coordinates
from lib.report.tables import printed, with_error
from lib.stats import Estimate

SEPARATOR = ' / '
ROUNDING = 1e-6  # relative difference up to which two values are equal
WILDCARD = re.compile(r'\*|\{[^}]*\}')
UNMEASURED = 'no value was measured'
UNPUBLISHED = 'no number is published for this scale'
UNFIT = 'the rule is exact, but this row has an error'  # a mistake in the claim or in the recipe


@dataclasses.dataclass(frozen=True)
class Cell:
  """A number with its address, error and published counterpart.

  Attributes:
    estimate: the value with its error, or None where nothing was measured.
    constant: the value needs no error: a number in a rule, a published number, or a value that
      the rule calls deterministic.
    published: the paper's number at this scale, or None.
    evidence: origin of that number, if the paper does not print it.
    unit: of the value.
    lossy: the cell is about a tokenizer that is not lossless.
  """

  address: str
  estimate: Estimate | None
  constant: bool = False
  published: float | None = None
  evidence: str = ''
  unit: str = ''
  lossy: bool = False

  @property
  def words(self) -> str:
    """The address in words: its quantity, then its row."""
    return words(self.address) + f' {LOSSY}' * self.lossy

  @property
  def row(self) -> str:
    """The row of the address, marked if the tokenizer is not lossless."""
    return _row(self.address.split(SEPARATOR)[-2]) + f' {LOSSY}' * self.lossy

  @property
  def printed(self) -> str:
    """The published number, with its origin if the paper does not print it; '' if there is none."""
    if self.published is None:
      return ''
    kind = f' ({EVIDENCE[self.evidence]})' * bool(self.evidence)
    return printed(self.published, self.unit) + kind

  @property
  def value(self) -> float:
    """The value; NaN if nothing was measured."""
    return self.estimate.value if self.estimate else math.nan


@dataclasses.dataclass(frozen=True)
class Comparison:
  """The comparison of a cell with another cell or a number.

  Attributes:
    cell: the left side.
    against: the right side in words: its value, with one standard error if it has one.
    difference: left minus right, with its error; None if a side is missing.
    slack: margin by which the rule holds, in the unit of the cells; negative if it fails.
    exact: whether only values are compared.
    untested: why it cannot be tested, or ''.
    p: p-value of the two-sided test that the slack is 0; None if there is no test.
    adjusted: p, adjusted for all comparisons of the claim.
  """

  cell: Cell
  against: str = ''
  difference: Estimate | None = None
  slack: float = 0.0
  exact: bool = False
  untested: str = ''
  p: float | None = None
  adjusted: float | None = None

  @property
  def holds(self) -> bool | None:
    """Whether the rule holds here; None if it is undecided or cannot be tested."""
    if self.untested:
      return None
    decided = self.exact or (self.adjusted is not None and self.adjusted <= 1 - stats.LEVEL)
    return bool(self.slack > 0) if decided else None


@dataclasses.dataclass(frozen=True)
class Outcome:
  """The result of a rule.

  Attributes:
    words: the rule in words, which is printed next to the verdict.
    address: the rule with the addresses of its cells.
    comparisons: all comparisons.
    not_run: addresses or tables that the run does not have.
    untested: why nothing could be compared, or ''.
  """

  words: str
  address: str = ''
  comparisons: tuple[Comparison, ...] = ()
  not_run: tuple[str, ...] = ()
  untested: str = ''

  @property
  def holds(self) -> bool | None:
    """Whether every comparison holds; False if one fails; None in all other cases."""
    found = [one.holds for one in self.comparisons]
    if False in found:
      return False
    return None if self.not_run or self.untested or None in found or not found else True


class NotRun(Exception):
  """Addresses or tables that the run does not have."""


class Untested(Exception):
  """Why a rule cannot be tested."""


class Cells:
  """The cells of a run and of its paper, by address.

  Args:
    rows: measured.
    entries: published, as in `published.load`.
  """

  def __init__(self, rows: Sequence[Row], entries: Sequence[Mapping[str, Any]]):
    self._found = {}
    for row in rows:
      address = SEPARATOR.join((row.table, row.row, row.column))
      self._found[address] = Cell(
        address, row.estimate, False, row.published, row.evidence, row.unit, row.lossy
      )
    for entry in entries:
      if isinstance(entry['value'], (int, float)):
        address = SEPARATOR.join(('published', entry['table'], entry['row'], entry['column']))
        self._found[address] = Cell(address, Estimate(entry['value']), constant=True)
    self._tables = {row.table for row in rows if row.estimate} | {'published'}

  def one(self, address: str) -> Cell:
    """The cell of an address.

    Raises:
      NotRun: there is none.
    """
    if address not in self._found:
      raise self._absent(address)
    return self._found[address]

  def _absent(self, address: str) -> NotRun:
    table = address.split(SEPARATOR)[0]
    return NotRun(address if table in self._tables else f'table {table}')

  def matching(self, pattern: str) -> list[tuple[Cell, tuple[str, ...]]]:
    """The cells whose address matches a pattern, each with the values of its wildcards.

    Raises:
      NotRun: there is none.
    """
    form = re.compile(expression(pattern))
    matches = [(cell, form.fullmatch(address)) for address, cell in self._found.items()]
    found = [(cell, tuple(match.groups())) for cell, match in matches if match]
    if not found:
      raise self._absent(pattern)
    return found


def unmatched(pattern: str, found: Sequence[tuple[str, ...]]) -> list[str]:
  """The pattern with each alternative of its {a,b} that no match has, in place of the braces.

  Args:
    pattern: of addresses.
    found: the values of its wildcards, of each match.
  """
  absent = []
  for place, wildcard in enumerate(WILDCARD.finditer(pattern)):
    if wildcard[0] != '*':
      there = {values[place] for values in found}
      before, after = pattern[: wildcard.start()], pattern[wildcard.end() :]
      options = wildcard[0][1:-1].split(',')
      absent += [before + option + after for option in options if option not in there]
  return absent


def expression(pattern: str) -> str:
  """The regular expression of an address with wildcards, each of them a group."""
  parts = re.split(f'({WILDCARD.pattern})', pattern)
  return ''.join(
    f'({"|".join(map(re.escape, part[1:-1].split(",")))})'
    if part.startswith('{')
    else '([^,/]*)'
    if part == '*'
    else re.escape(part)
    for part in parts
  )


def judge(rules: Sequence[Mapping[str, Any]], cells: Cells) -> list[Outcome]:
  """The outcomes of the rules of one claim, with p-values adjusted together.

  Args:
    rules: see the docstring of this module.
    cells: of the run.
  """
  outcomes = [_outcome(rule, cells) for rule in rules]
  tested = [one for found in outcomes for one in found.comparisons if one.p is not None]
  adjusted = dict(zip(map(id, tested), stats.holm([one.p for one in tested if one.p is not None])))
  return [
    dataclasses.replace(
      found,
      comparisons=tuple(
        dataclasses.replace(one, adjusted=adjusted.get(id(one))) for one in found.comparisons
      ),
    )
    for found in outcomes
  ]


def _outcome(rule: Mapping[str, Any], cells: Cells) -> Outcome:
  found: list[Comparison] = []
  not_run: tuple[str, ...] = ()
  untested = ''
  try:
    for one in KINDS[rule['kind']](rule, cells):
      found.append(one)  # kept if a later one is missing
  except NotRun as missing:
    aside = f' (needs scale {rule["scale"]})' if 'scale' in rule else ''
    not_run = tuple(f'{one}{aside}' for one in missing.args)
  except Untested as why:
    untested = str(why)
  return Outcome(describe(rule), by_address(rule), tuple(found), not_run, untested)


def words(address: str) -> str:
  """An address in words, such as 'nats per char, k=2, m=1' or 'lookup accuracy, every p'."""
  *_, row, column = address.split(SEPARATOR)
  quantity = column.replace('_at_*', ' everywhere').replace('*', 'any')
  quantity = re.sub(r'\{([^}]*)\}', lambda some: ' or '.join(some[1].split(',')), quantity)
  return ', '.join(filter(None, (quantity.replace('_', ' '), _row(row))))


def _row(row: str) -> str:
  """'k={1,2},p=*' as 'k=1 or 2, every p'."""
  parts = []
  for key, value in coordinates(row).items():
    if value == '*':
      parts.append(f'every {key}')
    else:
      parts.append(f'{key}={" or ".join(value.strip("{}").split(","))}')
  return ', '.join(parts)


FORMS = {
  ('above', False): '{} is above {}',
  ('above', True): '{} is at least {}',
  ('below', False): '{} is below {}',
  ('below', True): '{} is at most {}',
  ('equivalent', False): '{} is within {margin:g} of {}',
}
ASIDES = {
  'wherever_given': 'only where both sides were measured',
  'paired': 'paired by seed',
  'exact': 'compared by value',
}


def describe(rule: Mapping[str, Any]) -> str:
  """A rule in words: 'nats per char is above 0 (k=2, every p; paired by seed)'."""
  kind = rule['kind']
  if kind == 'needs':
    return f'not tested; it takes {rule["what"]}'
  if kind == 'order':
    [way] = {'rises', 'falls'} & set(rule)
    said = f'each is {"below" if way == "rises" else "above"} the next: '
    return said + '; '.join(map(words, rule[way]))
  quantity, _, row = words(rule['left']).partition(', ')
  if kind == 'published':
    said = f'{quantity} is within {100 * rule["ratio"]:g} % of the paper’s number for this scale'
  else:
    form = FORMS[kind, rule.get('or_equal', False)]
    said = form.format(quantity, _right_in_words(rule), **rule)
  asides = [ASIDES[key] for key in ASIDES if rule.get(key) is True]
  asides += ['the right side has no error'] * (rule.get('exact') == 'right')
  told = '; '.join(filter(None, (row, *asides)))
  return said + f' ({told})' * bool(told)


def _right_in_words(rule: Mapping[str, Any]) -> str:
  """The right side in words, with only those coordinates that the left side lacks."""
  right = rule['right']
  if isinstance(right, str):
    said = words(right)
    left = words(rule['left']).partition(', ')[2].split(', ')
    quantity, *row = said.split(', ')
    other = [part for part in row if part not in left and not part.startswith('every ')]
    said = f'{quantity}{" of " * bool(other)}{", ".join(other)}'
  else:
    said = printed(right)
  times, plus = rule.get('times', 1), rule.get('plus', 0)
  sum_of = f' {"−" if plus < 0 else "+"} {abs(plus):g}'
  return f'{times:g} × ' * (times != 1) + said + sum_of * (plus != 0)


def by_address(rule: Mapping[str, Any]) -> str:
  """A rule with its addresses: 'above: t / k=* / loss; 0'."""
  sides = rule.get('rises') or rule.get('falls') or [rule.get('left'), rule.get('right')]
  return f'{rule["kind"]}: ' + '; '.join(str(one) for one in sides if one is not None)


def _two_sided(rule: Mapping[str, Any], cells: Cells) -> Iterator[Comparison]:
  """Rules of two sides."""
  pairs: dict[str, list[tuple[Cell, Cell]]] = {}  # address of the left side -> cells to compare
  matching = cells.matching(rule['left'])
  missing = unmatched(rule['left'], [values for _, values in matching])
  for cell, values in matching:
    address = _of_all_seeds(rule['left'], values) if rule.get('paired') else cell.address
    try:
      other = _right(rule, cells, values)
    except NotRun as absent:
      missing += absent.args
      continue
    if not rule.get('wherever_given') or (cell.estimate and other.estimate):
      pairs.setdefault(address, []).append((cell, other))
  for address, members in pairs.items():
    if rule.get('paired'):
      yield _over_seeds(rule, address, members)
    else:
      [(cell, other)] = members
      yield _compared(rule, cell, other)
  if not pairs and rule.get('wherever_given'):
    raise Untested(f'no row has a measured counterpart in {rule["right"]}')
  if missing and not rule.get('wherever_given'):
    raise NotRun(*dict.fromkeys(missing))


def _right(rule: Mapping[str, Any], cells: Cells, values: Sequence[str]) -> Cell:
  """The right side for one cell of the left side, with `times` and `plus` applied."""
  right, left = rule['right'], iter(values)
  if isinstance(right, str):
    cell = cells.one(re.sub(r'\*', lambda _: next(left, '*'), right))
  else:
    cell = Cell('', Estimate(right), constant=True)
  if cell.estimate is None:
    return cell
  value, factor = cell.estimate.value, rule.get('times', 1)
  scaled = cell.estimate.times(factor)._replace(value=factor * value + rule.get('plus', 0))
  constant = cell.constant or rule.get('exact') == 'right'
  return dataclasses.replace(cell, estimate=scaled, constant=constant)


def _of_all_seeds(pattern: str, values: Sequence[str]) -> str:
  """The pattern with its wildcards filled, except that of the seed."""
  left = iter(values)

  def filled(match: re.Match[str]) -> str:
    value = next(left)
    return match[0] if pattern[: match.start()].endswith('seed=') else value

  return WILDCARD.sub(filled, pattern)


def _over_seeds(
  rule: Mapping[str, Any], address: str, members: Sequence[tuple[Cell, Cell]]
) -> Comparison:
  """One mean difference over pairs of cells, one pair per seed."""
  left, right = zip(*members)
  if any(cell.estimate is None for cell in (*left, *right)):
    return Comparison(Cell(address, None), untested=UNMEASURED)
  mean = lambda side: stats.mean([cell.value for cell in side])
  cell = Cell(address, mean(left))
  other = dataclasses.replace(right[0], estimate=mean(right))
  difference = stats.mean([one.value - two.value for one, two in members])
  return _decided(rule, cell, other, difference, [difference])


def _compared(rule: Mapping[str, Any], cell: Cell, other: Cell) -> Comparison:
  """The comparison of one cell with an independent cell or a constant."""
  if cell.estimate is None or other.estimate is None:
    return Comparison(cell, untested=UNMEASURED)
  if other.constant:
    difference = cell.estimate._replace(value=cell.value - other.value)
  elif cell.constant:
    difference = other.estimate._replace(value=cell.value - other.value)
  else:
    difference = stats.difference(cell.estimate, other.estimate)
  tested = [one.estimate for one in (cell, other) if one.estimate and not one.constant]
  return _decided(rule, cell, other, difference, tested)


def _decided(
  rule: Mapping[str, Any], cell: Cell, other: Cell, difference: Estimate, tested: Sequence[Estimate]
) -> Comparison:
  """The comparison with this difference; `tested` are the estimates that need an error."""
  exact, against = rule.get('exact', False), _in_words(other)
  slack = {
    'above': difference.value,
    'below': -difference.value,
    'equivalent': rule.get('margin', 0.0) - abs(difference.value),
  }[rule['kind']]
  deterministic = [cell, other] if exact is True else [other] if exact else []
  if any(one.estimate.sem for one in deterministic if one.estimate):
    return Comparison(cell, against, difference, slack, untested=UNFIT)
  if exact is True:
    if abs(difference.value) <= ROUNDING * max(abs(cell.value), abs(other.value)):
      slack = (
        math.ulp(0) if rule.get('or_equal') else slack if rule['kind'] == 'equivalent' else 0.0
      )
    return Comparison(cell, against, difference, slack, exact=True)
  why = next(filter(None, map(_why_untested, tested)), '' if tested else 'no error')
  p = None if why else difference._replace(value=slack).p_value()
  if not why and (p is None or difference.no_spread or all(one.no_spread for one in tested)):
    why, p = 'no spread', None  # deterministic values are compared by exact rules
  return Comparison(cell, against, difference, slack, untested=why, p=p)


def _in_words(cell: Cell) -> str:
  """A value with its error, marked if the tokenizer is not lossless."""
  if not cell.estimate:
    return ''
  if not cell.address:  # a number of a rule
    return printed(cell.value)
  return with_error(cell.estimate, cell.unit) + f' {LOSSY}' * cell.lossy


def _why_untested(estimate: Estimate) -> str:
  """Why an estimate cannot be tested, or ''."""
  if estimate.sem is not None and estimate.df is not None:
    return ''
  for count, unit in zip(estimate.n.split('×'), estimate.over.split('×')):
    if count == '1' and unit:
      return f'one {unit.removesuffix("s")}'
  return 'no error' if estimate.sem is None else 'no error over independent units'


def _order(rule: Mapping[str, Any], cells: Cells) -> Iterator[Comparison]:
  """The comparison of each cell with the one before it."""
  kind = 'above' if 'rises' in rule else 'below'
  found: list[Cell | None] = []
  missing: list[str] = []
  for address in rule.get('rises', rule.get('falls')):
    try:
      found.append(cells.one(address))
    except NotRun as absent:
      found.append(None)
      missing += absent.args
  for before, cell in itertools.pairwise(found):
    if before and cell:
      yield _compared({**rule, 'kind': kind}, cell, before)
  if missing:
    raise NotRun(*dict.fromkeys(missing))


def _published(rule: Mapping[str, Any], cells: Cells) -> Iterator[Comparison]:
  for cell, _ in cells.matching(rule['left']):
    if cell.published is None:
      yield Comparison(cell, untested=UNPUBLISHED)
      continue
    margin = rule['ratio'] * abs(cell.published)
    paper = Cell('', Estimate(cell.published), constant=True)
    yield _compared({**rule, 'kind': 'equivalent', 'margin': margin}, cell, paper)


def _needs(rule: Mapping[str, Any], cells: Cells) -> Iterator[Comparison]:
  del cells
  raise Untested(f'it takes {rule["what"]}')


KINDS: Mapping[str, Callable[[Mapping[str, Any], Cells], Iterator[Comparison]]] = {
  'above': _two_sided,
  'below': _two_sided,
  'equivalent': _two_sided,
  'order': _order,
  'published': _published,
  'needs': _needs,
}
