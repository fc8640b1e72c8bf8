# SPDX-License-Identifier: Apache-2.0
"""What the report over all recipes is made of: a section for each run, and its parts in words."""

import dataclasses
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence

from lib.report import claims
from lib.report.claims import Judged
from lib.report.results import Row
from lib.report.rules import Comparison, Outcome
from lib.report.tables import number

TITLE = 'What the papers claim, and what was measured'
INTRODUCTION = (
  'Each claim is judged by a rule from the measured rows of a run, and the rule stands beside the '
  'verdict. What an audit found against a paper, or beside it, is judged in the same way and has '
  'a part of its own.'
)
READING = (
  '“Reproduced” needs the sizes of the paper, or a claim of theory that knows no sizes; at smaller '
  'sizes the most that can be said is that its direction holds. “Not testable” is what lacks a '
  'row, or a difference that its interval leaves open. Addresses read table / row / column; ± is '
  'half of a 95 % interval, and where no error is known values alone are compared.'
)
FEW, SHOWN = 8, 4  # comparisons of a rule: so many are all shown, of more these


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
  """A head and a line for each section: claims by verdict, and findings of audits shown."""
  heads = (verdict.split(' at ')[0].removesuffix(' here') for verdict in claims.VERDICTS)
  lines = [['recipe', 'scale', *heads, 'audits shown']]
  for section in sections:
    counts = Counter(one.verdict for one in section.claims)
    scale = section.scale + ', changed' * bool(section.changed)
    shown = sum(one.verdict == claims.SHOWN for one in section.audits)
    verdicts = (str(counts[verdict]) for verdict in claims.VERDICTS)
    lines.append([section.name, scale, *verdicts, f'{shown} of {len(section.audits)}'])
  return lines


def basis(section: Section, one: Judged) -> str:
  """Where a claim is from, and what its numbers are of."""
  word, count = one.claim.seeds.rpartition('.')[2], one.seeds  # seeds, or chains
  over = f', one {word.removesuffix("s")}' if count == 1 else f', {count} {word}' if count else ''
  return f'{one.claim.source}; here: scale {section.scale}{over}'


def nearest(outcome: Outcome) -> list[Comparison]:
  """The comparisons to show: all of a few, else those nearest to failing."""
  if len(outcome.comparisons) <= FEW:
    return list(outcome.comparisons)
  return sorted(outcome.comparisons, key=lambda one: one.slack)[:SHOWN]


def left_out(outcome: Outcome) -> str:
  """How many comparisons are not shown."""
  held, total = sum(one.holds is True for one in outcome.comparisons), len(outcome.comparisons)
  if len(nearest(outcome)) == total:
    return ''
  return f'The rule holds for {held} of {total}; shown are the {SHOWN} nearest to failing.'


def measured(one: Comparison, quantile: float) -> str:
  """'0.5004 ± 0.0006': a value with half of its 95 % interval."""
  half = quantile * (one.cell.sem or 0.0)
  return number(one.cell.value) + (f' ± {half:.2g}' if half > 1e-9 else '')
