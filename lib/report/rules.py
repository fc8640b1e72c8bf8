# SPDX-License-Identifier: Apache-2.0
"""Rules by which measured rows speak for a claim or against it.

A cell is named by its address, 'table / row / column'; published numbers have the same address
after 'published / '. In the addresses of a rule, * stands for any value and {a,b} for one of a
few; what they found in `left` takes the place of each * in `right`.

A rule is a dict with its `kind` and:
  above, below: `left` against `right` (an address or a number, times `times`, plus `plus`), by the
    95 % interval of the difference;
  at_least, at_most: the same, by the values alone;
  near: no further from `right` than `within`;
  equivalent: the 95 % interval of the difference lies within ± `margin`;
  order: `rises` or `falls`, a list of addresses;
  published: `left` within the factor 1 ± `ratio` of the number published for this scale;
  needs: `what` it would take; never tested.
`wherever_given` leaves out what has nothing to compare with; `paired` takes all rows that `left`
fits for seeds of one difference, whose error is over them.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lib.report.results import Row, mean_and_sem
from lib.report.tables import number

SEPARATOR = ' / '
ROUNDING = 1e-6  # of a bound, by which a value that attains it may exceed it


@dataclasses.dataclass(frozen=True)
class Cell:
  """A number with its address, standard error and published counterpart.

  Attributes:
    published: at this scale, or None.
  """

  address: str
  value: float
  sem: float | None = None
  published: float | None = None


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A cell against what it is compared with.

  Attributes:
    slack: by how much the rule holds; below 0 it does not.
    half: of the 95 % interval of the difference, 0 for rules that ask for none.
  """

  cell: Cell
  against: str
  slack: float
  half: float = 0.0

  @property
  def holds(self) -> bool | None:
    """Whether the rule holds; None where the interval leaves it open."""
    if self.slack >= 0:
      return True
    return None if self.slack >= -2 * self.half < 0 else False


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a rule found.

  Attributes:
    words: the rule, to be printed beside the verdict.
    comparisons: what was compared.
    missing: what it lacked; where there is anything, nothing is said.
  """

  words: str
  comparisons: tuple[Comparison, ...] = ()
  missing: tuple[str, ...] = ()

  @property
  def holds(self) -> bool | None:
    """Whether every comparison holds; None where that is open or something is missing."""
    found = [one.holds for one in self.comparisons]
    if self.missing or (None in found and False not in found):
      return None
    return all(found)


class Missing(Exception):
  """What a rule needs and the rows do not have."""


class Cells:
  """The cells of a run and of its paper, by address.

  Args:
    rows: measured.
    entries: published, as in `published.load`.
  """

  def __init__(self, rows: Sequence[Row], entries: Sequence[Mapping[str, Any]]):
    self._found: dict[str, Cell | None] = {}
    for row in rows:
      address = SEPARATOR.join((row.table, row.row, row.column))
      self._found[address] = None
      if row.measured is not None:
        self._found[address] = Cell(address, row.measured, row.sem, row.published)
    for entry in entries:
      if isinstance(entry['value'], (int, float)):
        parts = ('published', entry['table'], entry['row'], entry['column'])
        address = SEPARATOR.join(parts)
        self._found[address] = Cell(address, entry['value'])
    self._tables = {row.table for row in rows}

  def one(self, address: str) -> Cell:
    """The cell of an address; raises Missing if there is none, or nothing was measured."""
    if cell := self._found.get(address):
      return cell
    if address in self._found:
      raise Missing(f'{address}: no value was measured')
    table = address.split(SEPARATOR)[0]
    raise Missing(address if table in self._tables | {'published'} else f'table {table}')

  def matching(self, pattern: str) -> list[tuple[Cell, tuple[str, ...]]]:
    """Cells whose address fits a pattern, each with what its wildcards stand for."""
    form, fits = re.compile(_expression(pattern)), []
    for address in self._found:
      if match := form.fullmatch(address):
        fits.append((self.one(address), tuple(map(str, match.groups()))))
    return fits or [(self.one(pattern), ())]  # says what is missing


def _expression(pattern: str) -> str:
  parts = re.split(r'(\*|\{[^}]*\})', pattern)
  values = {'*': '([^,/]*)'}
  return ''.join(
    f'({"|".join(map(re.escape, part[1:-1].split(",")))})'
    if part.startswith('{')
    else values.get(part, re.escape(part))
    for part in parts
  )


def _filled(pattern: str, values: Sequence[str]) -> str:
  left = iter(values)
  return re.sub(r'\*', lambda _: next(left, '*'), pattern)


def judge(rule: Mapping[str, Any], cells: Cells, quantile: float) -> Outcome:
  """What a rule finds.

  Args:
    rule: see the head of this file.
    cells: of the run.
    quantile: standard errors in half a 95 % interval.
  """
  words = describe(rule)
  try:
    compared = tuple(KINDS[rule['kind']](rule, cells, quantile))
  except Missing as missing:
    return Outcome(words, missing=(str(missing),))
  return Outcome(words, compared)


def describe(rule: Mapping[str, Any]) -> str:
  """A rule in words."""
  kind = rule['kind']
  if kind == 'needs':
    return f'not tested: it takes {rule["what"]}'
  if kind == 'order':
    [way] = {'rises', 'falls'} & set(rule)
    return f'each {"below" if way == "rises" else "above"} the next: ' + '; '.join(rule[way])
  left = rule['left']
  if kind == 'published':
    percent = f'{100 * rule["ratio"]:g} %'
    return f'{left}: within {percent} of the published number, where the scale is the same'
  words = {
    'above': 'above {} by the 95 % interval of the difference',
    'below': 'below {} by the 95 % interval of the difference',
    'at_least': 'at least {}',
    'at_most': 'at most {}',
    'near': 'within {within} of {}',
    'equivalent': 'the 95 % interval of its difference from {} within ±{margin}',
  }[kind].format(_right_in_words(rule), **rule)
  asides = {'wherever_given': ', wherever that is given', 'paired': ', paired by seed'}
  return f'{left}: {words}' + ''.join(asides[key] for key in asides if rule.get(key))


def _right_in_words(rule: Mapping[str, Any]) -> str:
  right = rule['right']
  words = right if isinstance(right, str) else f'{right:g}'
  left = rule['left'].rsplit(SEPARATOR, 1)[0]
  if words.startswith(left + SEPARATOR):  # the same row: its column says it
    words = words.removeprefix(left + SEPARATOR)
  times, plus = rule.get('times', 1), rule.get('plus', 0)
  sum_of = f' {"−" if plus < 0 else "+"} {abs(plus):g}'
  return f'{times:g} × ' * (times != 1) + words + sum_of * (plus != 0)


def _compare(rule: Mapping[str, Any], cells: Cells, quantile: float) -> list[Comparison]:
  """Rules of two sides."""
  times, plus, right = rule.get('times', 1), rule.get('plus', 0), rule['right']
  pairs = []
  for cell, values in cells.matching(rule['left']):
    try:
      other = cells.one(_filled(right, values)) if isinstance(right, str) else Cell('', right)
    except Missing:
      if rule.get('wherever_given'):
        continue
      raise
    pairs.append((cell, Cell(other.address, times * other.value + plus, other.sem)))
  if not pairs:
    raise Missing(f'{right}: no value was measured')
  if rule.get('paired'):
    return [_over_seeds(rule, pairs, quantile)]
  return [
    _comparison(
      rule, cell, bound.value, math.hypot(cell.sem or 0, times * (bound.sem or 0)), quantile
    )
    for cell, bound in pairs
  ]


def _over_seeds(
  rule: Mapping[str, Any], pairs: Sequence[tuple[Cell, Cell]], quantile: float
) -> Comparison:
  """One difference, of which every pair is a seed."""
  value, sem = mean_and_sem([cell.value for cell, _ in pairs])
  _, of_difference = mean_and_sem([cell.value - bound.value for cell, bound in pairs])
  bound, _ = mean_and_sem([bound.value for _, bound in pairs])
  cell = Cell(rule['left'], value, sem)
  return _comparison(rule, cell, bound, of_difference or 0.0, quantile)


def _comparison(
  rule: Mapping[str, Any], cell: Cell, bound: float, sem: float, quantile: float
) -> Comparison:
  """A cell against a bound; `sem` is of their difference."""
  half = quantile * sem if rule['kind'] in ('above', 'below', 'equivalent') else 0.0
  return Comparison(cell, number(bound), _slack(rule, cell.value - bound, half, bound), half)


def _slack(rule: Mapping[str, Any], difference: float, half: float, bound: float) -> float:
  kind = rule['kind']
  if kind in ('above', 'below'):
    slack = (difference if kind == 'above' else -difference) - half
    return slack or -math.ulp(0)  # equal is neither
  if kind in ('at_least', 'at_most'):
    return (difference if kind == 'at_least' else -difference) + ROUNDING * abs(bound)
  if kind == 'equivalent':
    return rule['margin'] - abs(difference) - half
  return rule['within'] - abs(difference)


def _order(rule: Mapping[str, Any], cells: Cells, quantile: float) -> list[Comparison]:
  del quantile
  sign = 1 if 'rises' in rule else -1
  found = [cells.one(address) for address in rule.get('rises', rule.get('falls'))]
  first = Comparison(found[0], '', math.inf)
  return [first] + [
    Comparison(cell, number(before.value), sign * (cell.value - before.value) or -math.ulp(0))
    for before, cell in zip(found, found[1:])
  ]


def _published(rule: Mapping[str, Any], cells: Cells, quantile: float) -> list[Comparison]:
  del quantile
  found = []
  for cell, _ in cells.matching(rule['left']):
    if cell.published is None:
      raise Missing(f'{cell.address}: no number is published for this scale')
    slack = rule['ratio'] - abs(cell.value / cell.published - 1)
    found.append(Comparison(cell, number(cell.published), slack))
  return found


def _needs(rule: Mapping[str, Any], cells: Cells, quantile: float) -> list[Comparison]:
  del cells, quantile
  raise Missing(rule['what'])


TWO_SIDED = ('above', 'below', 'at_least', 'at_most', 'near', 'equivalent')
KINDS = dict.fromkeys(TWO_SIDED, _compare) | {
  'order': _order,
  'published': _published,
  'needs': _needs,
}
