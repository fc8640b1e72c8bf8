# SPDX-License-Identifier: Apache-2.0
"""What the report over all recipes is made of: a section for each run, and its parts in words."""

import dataclasses
import pathlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from lib.report import tables
from lib.report.claims import Judged, Verdict
from lib.report.results import Row
from lib.report.rules import Comparison, Outcome

TITLE = 'What the papers claim, and what was measured'
INTRODUCTION = (
  'Each claim is judged by rules from the measured rows of a run; the rules and the numbers are '
  'shown next to the verdict. Findings about a paper, which are ours and not the paper’s, are '
  'judged in the same way and listed separately.'
)
READING = (
  '“Reproduced” needs the sizes of the paper, or a claim that does not depend on sizes; at other '
  'sizes the strongest verdict is that the direction holds. A theorem or closed form that our own '
  'sampler confirms “agrees with the theorem”. “Not testable” means that an error is missing, that '
  'there is only one seed or document, or that the difference is within its error. “Not run” means '
  'that the run lacks a table or a row.',
  '± is one standard error everywhere, over the units that the table “What ± is” lists. '
  '[low, high] is the 95 % interval of a difference, by Student’s t. p is adjusted for the number '
  'of comparisons in a claim (Holm); a comparison is decided where p is at most 0.05. '
  'Deterministic numbers (counts, closed forms) are compared by value. An address reads table / '
  'row / column.',
)
ERRORS = 'What ± is'
FEW, SHOWN = 8, 4  # up to FEW comparisons of a rule are all shown, of more only SHOWN


@dataclasses.dataclass(frozen=True)
class Section:
  """A run of a recipe, judged.

  Attributes:
    name: of the recipe.
    title: of the paper.
    scale: of the run.
    changed: fields of the config that are not those of the scale, with their values.
    minutes: of measuring.
    devices: it ran on, or '' where it has not ended.
    remark: what is wrong with the run, or ''.
    judged: all claims and findings.
    rows: that are worth showing.
    errors: what ± is in each table, as lib.report.tables.errors gives it.
    captions: table -> how to read it.
    pictures: PNG files.
  """

  name: str
  title: str
  scale: str
  changed: Mapping[str, str]
  minutes: float
  devices: str
  remark: str
  judged: Sequence[Judged]
  rows: Sequence[Row]
  errors: Sequence[Sequence[str]]
  captions: Mapping[str, str]
  pictures: Sequence[pathlib.Path]

  @property
  def claims(self) -> list[Judged]:
    """What the paper claims."""
    return [one for one in self.judged if not one.claim.audit]

  @property
  def audits(self) -> list[Judged]:
    """What audits found."""
    return [one for one in self.judged if one.claim.audit]

  @property
  def facts(self) -> list[str]:
    """What a reader must know of the run, in sentences."""
    devices = f' on {self.devices}' if self.devices else ''
    found = [f'Scale {self.scale}, {self.minutes:.1f} minutes{devices}.']
    if self.changed:
      fields = ', '.join(f'{field} = {value}' for field, value in self.changed.items())
      found.append(f'Other than the scale says: {fields}.')
    return [*found, self.remark] if self.remark else found


def overview(sections: Sequence[Section]) -> list[list[str]]:
  """A head, and a line for the claims and one for the findings of each section, by verdict."""
  heads = (re.split(' (?:at|here|with)', verdict)[0] for verdict in Verdict)
  lines = [['recipe', 'of', 'scale', *heads]]
  for section in sections:
    scale = section.scale + ', changed' * bool(section.changed)
    for kind, judged in (('the paper', section.claims), ('findings', section.audits)):
      counts = Counter(one.verdict for one in judged)
      if judged:
        lines.append([section.name, kind, scale, *(str(counts[verdict]) for verdict in Verdict)])
  return lines


def basis(section: Section, one: Judged) -> str:
  """Where a claim is from, and the scale of the run that judges it."""
  return f'{one.claim.source}; here: scale {section.scale}'


def nearest(outcome: Outcome) -> list[Comparison]:
  """The comparisons to show: all of a few, else those nearest to failing."""
  if len(outcome.comparisons) <= FEW:
    return list(outcome.comparisons)
  rank = {False: 0, None: 1, True: 2}
  by_doubt = lambda one: (rank[one.holds], -(one.p or 0.0), one.slack)
  return sorted(outcome.comparisons, key=by_doubt)[:SHOWN]


def left_out(outcome: Outcome) -> str:
  """How many comparisons are not shown."""
  held, total = sum(one.holds is True for one in outcome.comparisons), len(outcome.comparisons)
  if len(nearest(outcome)) == total:
    return ''
  return f'The rule holds for {held} of {total}; shown are the {SHOWN} nearest to failing.'


def verdict_of(one: Comparison) -> str:
  """What one comparison says, in words."""
  if one.untested:
    return f'not testable: {one.untested}'
  return {True: 'yes', False: 'no', None: 'open'}[one.holds]


def measured(one: Comparison) -> str:
  """The left side: '0.5004 ± 0.0003', with one standard error."""
  return tables.with_error(one.cell.estimate) if one.cell.estimate else '–'


def units(one: Comparison) -> str:
  """The number of units behind the left side's error."""
  return one.cell.estimate.n if one.cell.estimate else ''


def difference(one: Comparison) -> str:
  """Left less right, with its 95 % interval."""
  if one.difference is None:
    return ''
  return f'{tables.signed(one.difference.value)} {tables.interval(one.difference)}'.strip()


def p_value(one: Comparison) -> str:
  """The adjusted p; 'exact' where values alone decide."""
  if one.exact:
    return 'exact'
  if one.adjusted is None:
    return ''
  return '< 0.0001' if one.adjusted < 1e-4 else f'{one.adjusted:.2g}'
