# SPDX-License-Identifier: Apache-2.0
"""The report over all recipes as one HTML file that needs nothing else, and as Markdown."""

import base64
import pathlib
import re
from collections.abc import Iterator, Sequence
from html import escape

from lib.report import sections, tables
from lib.report.claims import Judged, Verdict
from lib.report.rules import Comparison
from lib.report.sections import Section

STYLE = pathlib.Path(__file__).with_suffix('.css')
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # nothing is fetched
LOOKS = {
  Verdict.REPRODUCED: 'good',
  Verdict.AGREES: 'good',
  Verdict.DIRECTION: 'fair',
  Verdict.FAILS: 'bad',
  Verdict.UNTESTABLE: 'none',
  Verdict.NOT_RUN: 'none',
}
HOLDS = {True: 'good', False: 'bad', None: 'none'}
HEAD = 'holds', 'row', 'measured', 'n', 'against', 'difference, 95 % interval', 'p'
AUDITS = 'Findings about the papers'


def html(found: Sequence[Section], remarks: Sequence[str]) -> str:
  """The whole page.

  Args:
    found: a section for each run.
    remarks: what could not be had, in sentences.
  """
  parts = [
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
    f'<title>{escape(sections.TITLE)}</title>\n<style>\n{STYLE.read_text()}</style>\n</head>\n<body>',
    f'<h1>{escape(sections.TITLE)}</h1>\n<p>{escape(sections.INTRODUCTION)}</p>',
    *(f'<p class="soft">{escape(words)}</p>' for words in sections.READING),
    *(f'<p class="verdict">{escape(remark)}</p>' for remark in remarks),
    _table(sections.overview(found)),
    '<nav><ul>',
    *(f'<li><a href="#{i}">{escape(one.title)}</a></li>' for i, one in enumerate(found)),
    f'<li><a href="#audits">{AUDITS}</a></li>\n</ul></nav>',
    *(part for i, one in enumerate(found) for part in _section(one, i)),
    f'<h2 id="audits">{AUDITS}</h2>',
  ]
  for one in found:
    parts.append(f'<h3>{escape(one.title)}</h3>')
    parts += [_article(one, judged) for judged in one.audits]
  return '\n'.join([*parts, '</body>\n</html>\n'])


def _section(one: Section, index: int) -> Iterator[str]:
  yield f'<h2 id="{index}">{escape(one.title)}</h2>'
  yield f'<p class="soft">{escape(" ".join(one.facts))}</p>'
  yield from (_article(one, judged) for judged in one.claims)
  yield f'<details><summary>{sections.ERRORS}</summary>{_table(one.errors)}</details>'
  for picture in one.pictures:
    data = base64.b64encode(picture.read_bytes()).decode()
    name = escape(picture.stem.replace('_', ' '))
    yield (
      f'<figure><img alt="{name}" src="data:image/png;base64,{data}">'
      f'<figcaption>{name}</figcaption></figure>'
    )
  for table in dict.fromkeys(row.table for row in one.rows):
    rows = [row for row in one.rows if row.table == table]
    caption = escape(one.captions.get(table, ''))
    yield f'<details><summary>Table {escape(table)}</summary><p class="soft">{caption}</p>'
    yield _table(tables.grid(rows))
    if legend := tables.legend(rows):
      yield f'<p class="soft">{escape(legend)}</p>'
    yield '</details>'


def _article(section: Section, one: Judged) -> str:
  lines = [
    f'<article class="{LOOKS[one.verdict]}">\n<p>{escape(one.claim.claim)}</p>',
    f'<p class="soft"><span class="verdict">{one.verdict}</span> · '
    f'{escape(sections.basis(section, one))}</p>',
    f'<p class="soft">Published: {escape(one.published)}</p>',
  ]
  for outcome in one.outcomes:
    lines.append(f'<p class="soft">Rule: {_address(outcome.words)}</p>')
    if outcome.not_run:
      lines.append(f'<p class="soft">Not run: {escape("; ".join(outcome.not_run))}</p>')
    if outcome.untested:
      lines.append(f'<p class="soft">Not testable: {escape(outcome.untested)}</p>')
    if outcome.comparisons:
      heads = ''.join(f'<th>{head}</th>' for head in HEAD)
      lines.append(f'<div class="scroll"><table>\n<tr>{heads}</tr>')
      lines += [_comparison(each) for each in sections.nearest(outcome)]
      lines.append('</table></div>')
    if rest := sections.left_out(outcome):
      lines.append(f'<p class="soft">{rest}</p>')
  return '\n'.join([*lines, '</article>'])


def _comparison(one: Comparison) -> str:
  numbers = (
    sections.measured(one), sections.units(one), one.against,
    sections.difference(one), sections.p_value(one),
  )  # fmt: skip
  return (
    f'<tr><td class="{HOLDS[one.holds]}">{escape(sections.verdict_of(one))}</td>'
    f'<td>{_address(one.cell.label)}</td>'
    + ''.join(f'<td class="number">{escape(text)}</td>' for text in numbers)
    + '</tr>'
  )


def _address(text: str) -> str:
  """An address, which may be broken after its separators."""
  broken = re.sub('([,/_])', r'\1<wbr>', escape(text))
  return f'<code>{broken}</code>'


def _table(cells: Sequence[Sequence[str]]) -> str:
  line = lambda tag, texts: ''.join(f'<{tag}>{escape(text)}</{tag}>' for text in texts)
  head, *body = cells
  rows = [f'<tr>{line("th", head)}</tr>', *(f'<tr>{line("td", texts)}</tr>' for texts in body)]
  return '<div class="scroll"><table>\n' + '\n'.join(rows) + '\n</table></div>'


def markdown(found: Sequence[Section], remarks: Sequence[str]) -> str:
  """The same in Markdown, without plots; the tables are in the reports of the runs."""
  parts = [f'# {sections.TITLE}', sections.INTRODUCTION, *sections.READING, *remarks]
  parts.append(tables.ruled(sections.overview(found)))
  for one in found:
    parts += [f'## {one.title}', ' '.join(one.facts)]
    parts += [_item(one, judged) for judged in one.claims]
    parts += [f'### {sections.ERRORS}', tables.ruled(one.errors)]
  parts.append(f'## {AUDITS}')
  for one in found:
    parts.append(f'### {one.title}')
    parts += [_item(one, judged) for judged in one.audits]
  return '\n\n'.join(parts) + '\n'


def _item(section: Section, one: Judged) -> str:
  lines = [
    f'- **{one.verdict}**: {one.claim.claim} ({sections.basis(section, one)})',
    f'  - published: {one.published}',
  ]
  for outcome in one.outcomes:
    lines.append(f'  - rule: `{outcome.words}`')
    lines += [f'    - not run: {missing}' for missing in outcome.not_run]
    lines += [f'    - not testable: {outcome.untested}'] if outcome.untested else []
    lines += [_line(each) for each in sections.nearest(outcome)]
    if rest := sections.left_out(outcome):
      lines.append(f'    - {rest}')
  return '\n'.join(lines)


def _line(one: Comparison) -> str:
  """'yes: `address` 0.50 ± 0.01 (n 57) against 0.60; difference −0.10 [−0.12, −0.08], p 0.01'."""
  units, p = sections.units(one), sections.p_value(one)
  parts = [
    f'{sections.verdict_of(one)}: `{one.cell.label}` {sections.measured(one)}',
    f'(n {units})' * bool(units),
    f'against {one.against}' * bool(one.against),
  ]
  found = f'difference {sections.difference(one)}' if one.difference else ''
  tested = p if one.exact else f'p {"" if p[:1] == "<" else "= "}{p}' * bool(p)
  rest = ', '.join(part for part in (found, tested) if part)
  return '    - ' + '; '.join(filter(None, (' '.join(filter(None, parts)), rest)))
