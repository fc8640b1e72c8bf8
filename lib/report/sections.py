# SPDX-License-Identifier: Apache-2.0
"""The part of a report about one run of a recipe: claims with verdicts, tables, pictures."""

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
  'Rules judge each claim from the measured rows of a run. The rules and the numbers are shown '
  'next to the verdict. Statements of this project about a paper are listed apart, and '
  'judged in the same way.',
  '“Reproduced” needs the sizes of the paper, or a claim that does not depend on sizes; at other '
  'sizes the strongest verdict is that the direction holds. “Agrees with the theorem” means that '
  'our own sampler confirms a theorem or closed form. “Not decided” means that the difference is '
  'within its error; “not testable” that an error is missing, or that there is only one seed or '
  'document. “Not run” means that the run lacks a table or a row.',
  '± is one standard error everywhere, over the units that the table “What ± is” lists; n is their '
  'number. [low, high] is the 95 % interval of a difference, by Student’s t. p is adjusted for the '
  'number of comparisons in a claim (Holm); a comparison is decided where p is at most 0.05. '
  'Deterministic numbers (counts, closed forms) are compared by value. An address reads '
  'table / row / column; * is any value.',
)
ERRORS = 'What ± is'
OURS = 'statement of this project'
FEW, SHOWN = (
  8,
  4,
)  # all comparisons of a rule are shown if there are at most FEW, otherwise SHOWN of them
LOOKS = {
  Verdict.REPRODUCED: 'good',
  Verdict.AGREES: 'good',
  Verdict.DIRECTION: 'fair',
  Verdict.FAILS: 'bad',
  Verdict.UNDECIDED: 'none',
  Verdict.UNTESTABLE: 'none',
  Verdict.NOT_RUN: 'none',
}
COUNTED = {  # after '1' and after more
  Verdict.REPRODUCED: ('is reproduced', 'are reproduced'),
  Verdict.AGREES: ('agrees with the theorem', 'agree with the theorem'),
  Verdict.DIRECTION: ('holds in its direction', 'hold in their direction'),
  Verdict.FAILS: ('does not hold', 'do not hold'),
  Verdict.UNDECIDED: ('is not decided at this scale', 'are not decided at this scale'),
  Verdict.UNTESTABLE: ('is not testable at this scale', 'are not testable at this scale'),
  Verdict.NOT_RUN: ('was not run', 'were not run'),
}
HOLDS = {True: 'good', False: 'bad', None: 'none'}
HEAD = (
  'holds',
  'row',
  'measured',
  'n',
  'compared with',
  'difference, 95 % interval',
  'p of the rule (Holm)',
)


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
    made: commits, days, CPU cores and versions of its tables, and which were 'resumed'.
    models: sizes and training of its models, in words.
    remark: what is wrong with the run, or ''.
    judged: all claims and statements.
    rows: the rows to show.
    errors: what ± is in each table, as lib.report.tables.errors gives it.
    captions: table -> its caption.
    pictures: PNG files with their captions.
  """

  name: str
  title: str
  summary: str
  scale: str
  changed: Mapping[str, str]
  minutes: float
  devices: str
  made: Mapping[str, str]
  models: Sequence[str]
  remark: str
  judged: Sequence[Judged]
  rows: Sequence[Row]
  errors: Sequence[Sequence[str]]
  captions: Mapping[str, str]
  pictures: Mapping[pathlib.Path, str]

  @property
  def claims(self) -> list[Judged]:
    """The claims of the paper, sorted by verdict: decided claims first, claims that were not run
    last.
    """
    return _by_verdict([one for one in self.judged if not one.claim.audit])

  @property
  def audits(self) -> list[Judged]:
    """Statements of this project about the paper, by verdict."""
    return _by_verdict([one for one in self.judged if one.claim.audit])

  @property
  def headline(self) -> Judged | None:
    """The claim to show first: the headline if it is decided, else the first decided claim."""
    decided = [one for one in (*self.claims, *self.audits) if one.verdict.decided]
    return next((one for one in decided if one.claim.headline), next(iter(decided), None))

  @property
  def facts(self) -> list[str]:
    """Facts about the run that a reader must know, as sentences."""
    devices = f' on {self.devices}' if self.devices else ''
    found = [f'Scale {self.scale}, {self.minutes:.1f} minutes{devices}.']
    if self.changed:
      fields = ', '.join(f'{field} = {value}' for field, value in self.changed.items())
      found.append(f'Changed from the scale: {fields}.')
    if self.models:
      found.append(f'Models: {"; ".join(self.models)}.')
    if self.made:
      found.append(_measured(self.made))
    if 'resumed' in self.made:
      found.append(f'Of {self.made["resumed"]}, minutes are of the last call alone.')
    return [*found, self.remark] if self.remark else found

  @property
  def outcome(self) -> str:
    """Counts of verdicts on claims, and on statements, in one sentence each."""
    parts = ((self.claims, 'claim'), (self.audits, OURS))
    return ' '.join(_counted(judged, noun) for judged, noun in parts if judged)


def _measured(made: Mapping[str, str]) -> str:
  """When, on how many cores and with which versions the tables of a run were measured."""
  commits = made.get('commit', '')
  cores = made.get('cores', '')
  parts = [
    commits and f'commit{"s" * ("," in commits)} {commits}',
    cores and f'{cores} CPU core{"s" * (cores != "1")}',
    *(f'{name} {made[key]}' for key, name in (('python', 'Python'), ('jax', 'jax')) if key in made),
  ]
  day = f' on {", ".join(sorted(made["date"].split(", ")))}' if made.get('date') else ''
  return f'Measured{day} with {", ".join(filter(None, parts))}.'


def _by_verdict(judged: Sequence[Judged]) -> list[Judged]:
  return sorted(judged, key=lambda one: [*Verdict].index(one.verdict))


def _counted(judged: Sequence[Judged], noun: str) -> str:
  """'Of 11 claims, 4 agree with the theorem and 7 were not run.'"""
  counts = Counter(one.verdict for one in judged)
  parts = [f'{counts[one]} {COUNTED[one][counts[one] > 1]}' for one in Verdict if counts[one]]
  listed = ' and '.join(filter(None, (', '.join(parts[:-1]), parts[-1])))
  return f'Of {len(judged)} {_nouns(noun, len(judged))}, {listed}.'


def _nouns(noun: str, count: int) -> str:
  """'claim' or 'claims', by their number."""
  first, *rest = noun.split(' ')
  return ' '.join([first + 's' * (count > 1), *rest])


def report(
  found: Sequence[Section], remarks: Sequence[str], commands: Sequence[str] = ()
) -> list[Block]:
  """The report on all runs: an index with one result of each, then a section for each.

  Args:
    found: a section for each run.
    remarks: sentences about missing runs.
    commands: commands for a reader to try next.
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
  """A line of the index: a result, and counts of all verdicts."""
  best = section.headline
  blocks: list[Block] = []
  if best:
    blocks += [Text(best.claim.claim, f'{best.verdict}:'), Text(evidence(best), soft=True)]
  scale = section.scale + ', with other settings' * bool(section.changed)
  blocks.append(Text(f'{section.outcome} (scale {scale})', soft=True))
  return Card(section.title, LOOKS[best.verdict] if best else 'none', blocks, section.name)


def evidence(one: Judged) -> str:
  """The comparison that fails, or is nearest to failing, in words; or the requirements of a
  test.
  """
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
    yield Heading('Statements of this project, tested like claims', 3)
    yield from _claims(section.audits, OURS)
  for path, caption in section.pictures.items():
    yield Picture(path, caption)


def folded_tables(section: Section) -> Iterator[Block]:
  """The meaning of ±, and each table, folded."""
  yield Fold(ERRORS, [Grid(section.errors)])
  for table in dict.fromkeys(row.table for row in section.rows):
    rows = [row for row in section.rows if row.table == table]
    words = filter(None, (section.captions.get(table, ''), tables.legend(rows)))
    yield Fold(f'Table {table}', [Text(' '.join(words), soft=True), Grid(tables.grid(rows))])


def whole_tables(section: Section, rows: Sequence[Row]) -> Iterator[Block]:
  """For the report on one run: each table with its notes; its CSV file has all columns."""
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
  """A card for each claim that was run; the others are folded."""
  there = [one for one in judged if one.verdict != Verdict.NOT_RUN]
  yield from (_card(one) for one in there)
  if absent := [one for one in judged if one.verdict == Verdict.NOT_RUN]:
    title = f'Not run here: {len(absent)} {_nouns(noun, len(absent))}'
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
  """A header and a row for each comparison, with published numbers if there are any."""
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
  """The comparisons to show: all if there are few, otherwise those nearest to failing."""
  if len(outcome.comparisons) <= FEW:
    return list(outcome.comparisons)
  return sorted(outcome.comparisons, key=_doubt)[:SHOWN]


def _doubt(one: Comparison) -> tuple[int, float]:
  """Sort key: failures first, then undecided comparisons, then those that hold; of each the one
  that is furthest from holding, in units of its error.
  """
  sem = one.difference.sem if one.difference else None
  return {False: 0, None: 1, True: 2}[one.holds], one.slack / sem if sem else one.slack


def left_out(outcome: Outcome) -> str:
  """The number of comparisons that are not shown, in words."""
  held, total = sum(one.holds is True for one in outcome.comparisons), len(outcome.comparisons)
  if len(nearest(outcome)) == total:
    return ''
  return f'The rule holds for {held} of {total}; shown are the {SHOWN} nearest to failing.'


def verdict_of(one: Comparison) -> str:
  """The result of one comparison, in words."""
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
  """Left minus right, with its 95 % interval."""
  if one.difference is None:
    return ''
  shown = tables.signed(one.difference.value, one.cell.unit, one.difference.sem)
  return f'{shown} {tables.interval(one.difference)}'.strip()


def p_value(one: Comparison) -> str:
  """The adjusted p-value; 'exact' if only values are compared."""
  if one.exact:
    return 'exact'
  if one.adjusted is None:
    return ''
  return '< 0.0001' if one.adjusted < 1e-4 else f'{one.adjusted:.2g}'


def terminal(section: Section) -> str:
  """The verdicts for a terminal of 80 columns, and one sentence at the end."""
  lines = []
  wrapped = lambda words, first, rest: textwrap.fill(
    words, 80, initial_indent=first, subsequent_indent=rest
  )
  for one in (*section.claims, *section.audits):
    if one.verdict != Verdict.NOT_RUN:
      ours = f' (a {OURS})' * one.claim.audit
      lines.append(wrapped(f'{one.verdict.upper()}: {one.claim.claim}{ours}', '* ', '  '))
      if words := evidence(one):
        lines.append(wrapped(words, '    ', '    '))
  end = wrapped(f'{section.title}: {section.outcome or "no claims."}', '', '')
  return '\n'.join([*lines, *[''] * bool(lines), end])
