# SPDX-License-Identifier: Apache-2.0
"""What a report says of each run of a recipe: its claims with their verdicts, tables, pictures."""

import dataclasses
import pathlib
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from lib.report import tables
from lib.report.claims import Judged, Verdict
from lib.report.page import Block, Card, Code, Fold, Grid, Heading, Picture, Text
from lib.report.results import Row
from lib.report.rules import SEPARATOR, Comparison, Outcome

TITLE = 'What the papers claim, and what was measured'
READING = (
  'Each claim is judged by rules from the measured rows of a run. The rules and the numbers are '
  'shown next to the verdict. “Findings” are statements of this project about a paper; they are '
  'judged in the same way.',
  '“Reproduced” needs the sizes of the paper, or a claim that does not depend on sizes; at other '
  'sizes the strongest verdict is that the direction holds. A theorem or closed form that our own '
  'sampler confirms “agrees with the theorem”. “Not testable” means that an error is missing, that '
  'there is only one seed or document, or that the difference is within its error. “Not run” means '
  'that the run lacks a table or a row.',
  '± is one standard error everywhere, over the units that the table “What ± is” lists; n is their '
  'number. [low, high] is the 95 % interval of a difference, by Student’s t. p is adjusted for the '
  'number of comparisons in a claim (Holm); a comparison is decided where p is at most 0.05. '
  'Deterministic numbers (counts, closed forms) are compared by value. An address reads '
  'table / row / column; * is any value.',
)
ERRORS = 'What ± is'
FEW, SHOWN = 8, 4  # up to FEW comparisons of a rule are all shown, of more only SHOWN
LOOKS = {
  Verdict.REPRODUCED: 'good',
  Verdict.AGREES: 'good',
  Verdict.DIRECTION: 'fair',
  Verdict.FAILS: 'bad',
  Verdict.UNTESTABLE: 'none',
  Verdict.NOT_RUN: 'none',
}
COUNTED = {  # after '1' and after more
  Verdict.REPRODUCED: ('is reproduced', 'are reproduced'),
  Verdict.AGREES: ('agrees with the theorem', 'agree with the theorem'),
  Verdict.DIRECTION: ('holds in its direction', 'hold in their direction'),
  Verdict.FAILS: ('does not hold', 'do not hold'),
  Verdict.UNTESTABLE: ('is not testable at this scale', 'are not testable at this scale'),
  Verdict.NOT_RUN: ('was not run', 'were not run'),
}
HOLDS = {True: 'good', False: 'bad', None: 'none'}
HEAD = 'holds', 'row', 'measured', 'n', 'compared with', 'difference, 95 % interval', 'p'


@dataclasses.dataclass(frozen=True)
class Section:
  """A run of a recipe, judged.

  Attributes:
    name: of the recipe.
    title: of the paper.
    summary: what the paper says, in a sentence.
    scale: of the run.
    changed: fields of the config that are not those of the scale, with their values.
    minutes: of measuring.
    devices: it ran on, or '' where it has not ended.
    made: commit, date and versions of the run, as far as they are known.
    remark: what is wrong with the run, or ''.
    judged: all claims and findings.
    rows: that are worth showing.
    errors: what ± is in each table, as lib.report.tables.errors gives it.
    captions: table -> how to read it.
    pictures: PNG files, with what they show.
  """

  name: str
  title: str
  summary: str
  scale: str
  changed: Mapping[str, str]
  minutes: float
  devices: str
  made: Mapping[str, str]
  remark: str
  judged: Sequence[Judged]
  rows: Sequence[Row]
  errors: Sequence[Sequence[str]]
  captions: Mapping[str, str]
  pictures: Mapping[pathlib.Path, str]

  @property
  def claims(self) -> list[Judged]:
    """What the paper claims, by verdict: what was found first, what was not run last."""
    return _by_verdict([one for one in self.judged if not one.claim.audit])

  @property
  def audits(self) -> list[Judged]:
    """Findings of this project about the paper, by verdict."""
    return _by_verdict([one for one in self.judged if one.claim.audit])

  @property
  def headline(self) -> Judged | None:
    """The finding to name first: the main claim if it is decided, else the first that is."""
    decided = [one for one in (*self.claims, *self.audits) if one.verdict.decided]
    return next((one for one in decided if one.claim.headline), next(iter(decided), None))

  @property
  def facts(self) -> list[str]:
    """What a reader must know of the run, in sentences."""
    devices = f' on {self.devices}' if self.devices else ''
    found = [f'Scale {self.scale}, {self.minutes:.1f} minutes{devices}.']
    if self.changed:
      fields = ', '.join(f'{field} = {value}' for field, value in self.changed.items())
      found.append(f'Other than the scale says: {fields}.')
    if self.made:
      parts = ', '.join(f'{name} {value}' for name, value in self.made.items())
      found.append(f'Measured with {parts}.')
    return [*found, self.remark] if self.remark else found

  @property
  def outcome(self) -> str:
    """How the claims fare, and the findings, in one sentence each."""
    parts = ((self.claims, 'claim'), (self.audits, 'finding'))
    return ' '.join(_counted(judged, noun) for judged, noun in parts if judged)


def _by_verdict(judged: Sequence[Judged]) -> list[Judged]:
  return sorted(judged, key=lambda one: [*Verdict].index(one.verdict))


def _counted(judged: Sequence[Judged], noun: str) -> str:
  """'Of 11 claims, 4 agree with the theorem and 7 were not run.'"""
  counts = Counter(one.verdict for one in judged)
  parts = [f'{counts[one]} {COUNTED[one][counts[one] > 1]}' for one in Verdict if counts[one]]
  listed = ' and '.join(filter(None, (', '.join(parts[:-1]), parts[-1])))
  return f'Of {len(judged)} {noun}{"s" * (len(judged) > 1)}, {listed}.'


def report(
  found: Sequence[Section], remarks: Sequence[str], commands: Sequence[str] = ()
) -> list[Block]:
  """The report over all runs: an index with a finding of each, then a part for each.

  Args:
    found: a section for each run.
    remarks: what could not be had, in sentences.
    commands: what a reader may type next.
  """
  blocks: list[Block] = [Heading(TITLE, 1)]
  blocks += [Text(remark, 'Missing:') for remark in remarks]
  blocks += [_entry(one) for one in found]
  if commands:
    blocks += [Text('Next:'), Code(commands)]
  blocks.append(Fold('How to read this page', [Text(words) for words in READING]))
  for one in found:
    blocks += [Heading(one.title, 2, one.name), *run(one), *folded_tables(one)]
  return blocks


def _entry(section: Section) -> Card:
  """A line of the index: a finding, and how the others fare."""
  best = section.headline
  blocks: list[Block] = []
  if best:
    blocks += [Text(best.claim.claim, f'{best.verdict}:'), Text(_evidence(best), soft=True)]
  scale = section.scale + ', with other settings' * bool(section.changed)
  blocks.append(Text(f'{section.outcome} (scale {scale})', soft=True))
  return Card(section.title, LOOKS[best.verdict] if best else 'none', blocks, section.name)


def _evidence(one: Judged) -> str:
  """The comparison that comes nearest to failing, or fails, in words; or what a test takes."""
  compared = sorted((each for outcome in one.outcomes for each in outcome.comparisons), key=_doubt)
  if not compared:
    why = [outcome.untested for outcome in one.outcomes if outcome.untested]
    return f'Not tested: {"; ".join(why)}.' if why else ''
  first = compared[0]
  if first.untested:
    return f'{first.cell.words}: {first.untested}.'
  n = f'(n {units(first)})' if units(first) else ''
  words = [f'{first.cell.words}: measured', measured(first), n, 'compared with', first.against]
  return ' '.join(filter(None, words)) + '.'


def run(section: Section) -> Iterator[Block]:
  """The part of one run: its summary, its claims by verdict, its pictures."""
  yield Text(' '.join(filter(None, (section.summary, section.outcome))))
  yield Text(' '.join(section.facts), soft=True)
  yield from _claims(section.claims, 'claim')
  if section.audits:
    yield Heading('Findings about this paper', 3)
    yield from _claims(section.audits, 'finding')
  for path, caption in section.pictures.items():
    yield Picture(path, caption)


def folded_tables(section: Section) -> Iterator[Block]:
  """What ± is, and each table, to be unfolded."""
  yield Fold(ERRORS, [Grid(section.errors)])
  for table in dict.fromkeys(row.table for row in section.rows):
    rows = [row for row in section.rows if row.table == table]
    words = filter(None, (section.captions.get(table, ''), tables.legend(rows)))
    yield Fold(f'Table {table}', [Text(' '.join(words), soft=True), Grid(tables.grid(rows))])


def whole_tables(section: Section, rows: Sequence[Row]) -> Iterator[Block]:
  """For the report of one run: each table with its notes; all its columns are in its CSV file."""
  for table in dict.fromkeys(row.table for row in rows):
    shown = [row for row in section.rows if row.table == table]
    shown = shown or [row for row in rows if row.table == table]
    yield Heading(table, 3)
    words = section.captions.get(table, ''), tables.errors_in_words(shown), tables.legend(shown)
    yield Text(' '.join(filter(None, words)))
    yield Grid(tables.grid(shown))
    if noted := tables.notes(shown):
      yield Fold('Notes', [Text(f'- {note}') for note in noted])
    yield Text(f'All rows and columns: [{table}.csv](tables/{table}.csv).')


def _claims(judged: Sequence[Judged], noun: str) -> Iterator[Block]:
  """A card for each that was run; the others are folded away."""
  there = [one for one in judged if one.verdict != Verdict.NOT_RUN]
  yield from (_card(one) for one in there)
  if absent := [one for one in judged if one.verdict == Verdict.NOT_RUN]:
    title = f'Not run here: {len(absent)} {noun}{"s" * (len(absent) > 1)}'
    yield Fold(title, [_card(one) for one in absent])


def _card(one: Judged) -> Card:
  blocks: list[Block] = [Text(f'· {one.claim.source}', str(one.verdict), soft=True)]
  blocks += [Text(words, soft=True) for words in one.published]
  for outcome in one.outcomes:
    blocks.append(Text(f'Rule: {outcome.words}.', soft=True))
    if outcome.not_run:
      missing = '; '.join(f'`{address}`' for address in outcome.not_run)
      blocks.append(Text(f'Not run: {missing}.', soft=True))
    if outcome.untested:
      blocks.append(Text(f'Not testable: {outcome.untested}.', soft=True))
    if shown := nearest(outcome):
      blocks.append(Grid(_compared(shown), [HOLDS[each.holds] for each in shown]))
    if rest := left_out(outcome):
      blocks.append(Text(rest, soft=True))
  addresses = [outcome.address for outcome in one.outcomes if outcome.address]
  blocks += [Fold('The same rule by addresses', [Code(addresses)])] if addresses else []
  return Card(one.claim.claim, LOOKS[one.verdict], blocks)


def _compared(found: Sequence[Comparison]) -> list[list[str]]:
  """A head and a line for each comparison; published numbers where there are any."""
  parts = [one.cell.address.split(SEPARATOR) for one in found]
  alike = len({(table, column) for *_, table, _, column in parts}) == 1
  beside = any(one.cell.published is not None for one in found)
  lines = [[*HEAD, *['paper’s number'] * beside]]
  for one in found:
    row = one.cell.row if alike else one.cell.words
    lines.append([
      verdict_of(one), row, measured(one), units(one), one.against, difference(one), p_value(one),
      *[one.cell.printed] * beside,
    ])  # fmt: skip
  return lines


def nearest(outcome: Outcome) -> list[Comparison]:
  """The comparisons to show: all of a few, else those nearest to failing."""
  if len(outcome.comparisons) <= FEW:
    return list(outcome.comparisons)
  return sorted(outcome.comparisons, key=_doubt)[:SHOWN]


def _doubt(one: Comparison) -> tuple[int, float, float]:
  """Sorts what fails first, then what is open, then what barely holds."""
  return ({False: 0, None: 1, True: 2}[one.holds], -(one.p or 0.0), one.slack)


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
  return tables.with_error(one.cell.estimate, one.cell.unit) if one.cell.estimate else '–'


def units(one: Comparison) -> str:
  """The number of units behind the left side's error."""
  return one.cell.estimate.n if one.cell.estimate else ''


def difference(one: Comparison) -> str:
  """Left less right, with its 95 % interval."""
  if one.difference is None:
    return ''
  shown = tables.signed(one.difference.value, one.cell.unit)
  return f'{shown} {tables.interval(one.difference)}'.strip()


def p_value(one: Comparison) -> str:
  """The adjusted p; 'exact' where values alone decide."""
  if one.exact:
    return 'exact'
  if one.adjusted is None:
    return ''
  return '< 0.0001' if one.adjusted < 1e-4 else f'{one.adjusted:.2g}'


def terminal(section: Section) -> str:
  """The verdicts for a terminal of 80 columns, findings first, and one sentence at the end."""
  lines = []
  wrapped = lambda words, first, rest: textwrap.fill(
    words, 80, initial_indent=first, subsequent_indent=rest
  )
  for one in (*section.claims, *section.audits):
    if one.verdict != Verdict.NOT_RUN:
      finding = ' (a finding of this project)' * one.claim.audit
      lines.append(wrapped(f'{one.verdict.upper()}: {one.claim.claim}{finding}', '* ', '  '))
      if evidence := _evidence(one):
        lines.append(wrapped(evidence, '    ', '    '))
  end = wrapped(f'{section.title}: {section.outcome or "no claims."}', '', '')
  return '\n'.join([*lines, *[''] * bool(lines), end])
