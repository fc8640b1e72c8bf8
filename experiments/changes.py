# SPDX-License-Identifier: Apache-2.0
"""The page on what changed since commit ad6c8d5: conclusions then and now, claim by claim.

What was said then, and what was corrected since, is data (lib.report.claims). What is measured now
is from recorded runs.
"""

import pathlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from lib.report import claims, page
from lib.report.page import Block, Grid, Heading, Text

PAGE = 'docs/results/what_changed.md'
PAPERS = 'markov', 'lexinvariant', 'equal_info', 'visual_unicode', 'matrix'  # at that commit
ABOUT = (
  'At commit ad6c8d5 this project had numbers for four papers and a grid. A review then asked of '
  'each conclusion: which simplest explanation was left out? It found no error in a formula, a '
  'denominator, a mask or the coder. It found errors in what was compared with what, in what '
  'errors were over, and in rules that pass by themselves. This page has each conclusion of that '
  'commit next to the one of today, and names the corrections that apply to it.',
  'The first column has the claim as it is judged today. The second is what the README of commit '
  'ad6c8d5 said, with its numbers; ± is their error as it was computed then. The third is of the '
  'recorded run: the verdict, and of all comparisons of its rule the one that fails or is nearest '
  'to failing. Sizes of models and numbers of steps changed as well, so two numbers in a row may '
  'differ for more reasons than the corrections named.',
  'Written by `python -m experiments.reproduce --record`; not by hand.',
)
HEAD = 'claim', 'commit ad6c8d5', 'today', 'corrected since'
ABSENT = {'verdict': 'not recorded yet', 'evidence': ''}


def markdown(verdicts: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]) -> str:
  """The page.

  Args:
    verdicts: of recorded runs: recipe -> what `documents.summary` returns.
    titles: of all recipes in `PAPERS`.
  """
  return page.markdown([*_blocks(verdicts, titles)], pathlib.Path(PAGE).parent)


def _blocks(
  verdicts: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]
) -> Iterator[Block]:
  every = {name: claims.load(name) for name in PAPERS}
  yield Heading('What changed since commit ad6c8d5, and why', 1)
  yield from map(Text, ABOUT)
  yield Heading('What was corrected', 2)
  uses = Counter(
    key for found in every.values() for one in found for key in one.before.get('corrected', ())
  )
  for key, entry in sorted(claims.corrections().items(), key=lambda item: -uses[item[0]]):
    count = f'{uses[key]} conclusion{"s" * (uses[key] > 1)}'
    yield Text(f'{entry["why"]} ({count})', f'{entry["title"]}.')
  for name in PAPERS:
    yield Heading(titles[name], 2)
    judged = verdicts.get(name, {}).get('claims', {})
    yield Grid([list(HEAD), *(_line(one, judged) for one in every[name] if one.before)])
    if new := sum(not one.before for one in every[name]):
      every_claim = f'[all claims]({name}.md)' if name in verdicts else 'no run is recorded yet'
      yield Text(f'{new} of the claims of today were not judged then: {every_claim}.')


def _line(one: claims.Claim, judged: Mapping[str, Mapping[str, str]]) -> list[str]:
  today, known = judged.get(one.claim, ABSENT), claims.corrections()
  moved = '; '.join(known[key]['title'] for key in one.before['corrected'])
  now = ': '.join(filter(None, (f'*{today["verdict"]}*', today['evidence'])))
  return [one.claim, one.before['said'], now, moved or 'nothing']
