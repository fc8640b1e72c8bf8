# SPDX-License-Identifier: Apache-2.0
"""The report over all recipes as one HTML file that needs nothing else, and as Markdown."""

import base64
import pathlib
import re
from collections.abc import Iterator, Sequence
from html import escape

from lib.report import claims, sections, tables
from lib.report.claims import Judged
from lib.report.sections import Section

STYLE = pathlib.Path(__file__).with_suffix('.css')
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # nothing is fetched
LOOKS = {
  claims.REPRODUCED: 'good',
  claims.SHOWN: 'good',
  claims.DIRECTION: 'fair',
  claims.FAILS: 'bad',
  claims.NOT_SHOWN: 'bad',
  claims.UNTESTABLE: 'none',
}
HOLDS = {
  True: '<td class="good">yes</td>',
  False: '<td class="bad">no</td>',
  None: '<td class="none">open</td>',
}
WORDS = {True: 'holds', False: 'fails', None: 'open'}
AUDITS = 'What the audits found'


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
    f'<p class="soft">{escape(sections.READING)}</p>',
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
  for picture in one.pictures:
    data = base64.b64encode(picture.read_bytes()).decode()
    name = escape(picture.stem.replace('_', ' '))
    yield (
      f'<figure><img alt="{name}" src="data:image/png;base64,{data}">'
      f'<figcaption>{name}</figcaption></figure>'
    )
  for table in dict.fromkeys(row.table for row in one.rows):
    grid = tables.grid([row for row in one.rows if row.table == table])
    caption = escape(one.captions.get(table, ''))
    yield f'<details><summary>Table {escape(table)}</summary><p class="soft">{caption}</p>'
    yield _table(grid) + '</details>'


def _article(section: Section, one: Judged) -> str:
  lines = [
    f'<article class="{LOOKS[one.verdict]}">\n<p>{escape(one.claim.claim)}</p>',
    f'<p class="soft"><span class="verdict">{one.verdict}</span> · '
    f'{escape(sections.basis(section, one))}</p>',
    f'<p class="soft">Published: {escape(one.published)}</p>',
  ]
  for outcome in one.outcomes:
    lines.append(f'<p class="soft">Rule: {_address(outcome.words)}</p>')
    if outcome.missing:
      lines.append(f'<p class="soft">Missing: {escape("; ".join(outcome.missing))}</p>')
      continue
    lines.append(
      '<div class="scroll"><table>\n'
      '<tr><th>holds</th><th>row</th><th>measured</th><th>against</th></tr>'
    )
    for each in sections.nearest(outcome):
      lines.append(
        f'<tr>{HOLDS[each.holds]}<td>{_address(each.cell.address)}</td>'
        f'<td class="number">{sections.measured(each, one.quantile)}</td>'
        f'<td class="number">{each.against}</td></tr>'
      )
    lines.append('</table></div>')
    if rest := sections.left_out(outcome):
      lines.append(f'<p class="soft">{rest}</p>')
  return '\n'.join([*lines, '</article>'])


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
  parts = [f'# {sections.TITLE}', sections.INTRODUCTION, sections.READING, *remarks]
  parts.append(tables.ruled(sections.overview(found)))
  for one in found:
    parts += [f'## {one.title}', ' '.join(one.facts)]
    parts += [_item(one, judged) for judged in one.claims]
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
    lines += [f'    - missing: {missing}' for missing in outcome.missing]
    lines += [
      f'    - {WORDS[each.holds]}: `{each.cell.address}` '
      f'{sections.measured(each, one.quantile)}' + (f' against {each.against}' * bool(each.against))
      for each in sections.nearest(outcome)
    ]
    if rest := sections.left_out(outcome):
      lines.append(f'    - {rest}')
  return '\n'.join(lines)
