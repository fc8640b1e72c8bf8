# SPDX-License-Identifier: Apache-2.0
"""Claims of papers, and statements of this project, with verdicts computed from measured rows.

claims/PAPER.json has them as data. A claim is a sentence with rules that must all hold
(lib.report.rules). Verdict lists the possible verdicts. REPRODUCED needs the paper's own sizes, or
a deterministic claim that does not depend on them. Otherwise the strongest verdict is DIRECTION:
with noise, the threshold for agreement is ours, not the paper's.
"""

import dataclasses
import enum
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from lib.report import published, rules
from lib.report.results import Row
from lib.report.rules import SEPARATOR, Cells, Outcome
from lib.report.tables import printed

FOLDER = pathlib.Path(__file__).parent / 'claims'


class Verdict(enum.StrEnum):
  """The possible verdicts on a claim."""

  REPRODUCED = 'reproduced'
  AGREES = 'agrees with the theorem'
  DIRECTION = 'direction holds at this scale'
  FAILS = 'does not hold here'
  UNDECIDED = 'not decided at this scale'
  UNTESTABLE = 'not testable at this scale'
  NOT_RUN = 'not run here'

  @property
  def decided(self) -> bool:
    """Whether a run has decided on the claim."""
    return self not in (Verdict.UNDECIDED, Verdict.UNTESTABLE, Verdict.NOT_RUN)


@dataclasses.dataclass(frozen=True)
class Claim:
  """A sentence with the rules that decide on it.

  Attributes:
    claim: the sentence.
    source: the place in the paper, or the origin of the statement.
    rules: each as lib.report.rules takes it; all must hold.
    published: addresses of published numbers, or a text if there are none.
    theory: a theorem or a closed form, which our own sampler checks at any size.
    any_scale: the claim is no theorem but does not depend on sizes: a run at any scale can
      reproduce it, if all its rules are `exact`.
    audit: a statement of this project about the paper, not a claim of the paper.
    headline: the claim that an index of papers shows first.
    before: what commit ad6c8d5 said about it, and the names of the corrections since, as in
      corrections.json: {'said', 'corrected'}; empty if it said nothing.
  """

  claim: str
  source: str
  rules: Sequence[Mapping[str, Any]]
  published: str | Sequence[str] = 'none'
  theory: bool = False
  any_scale: bool = False
  audit: bool = False
  headline: bool = False
  before: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Judged:
  """A claim with its verdict and the outcomes of its rules.

  Attributes:
    published: the numbers of the paper in words, a sentence for each kind of evidence.
  """

  claim: Claim
  verdict: Verdict
  outcomes: Sequence[Outcome]
  published: Sequence[str]


def load(paper: str) -> list[Claim]:
  """The claims and audits of `claims/PAPER.json`; an empty list if there is no such file."""
  path = FOLDER / f'{paper}.json'
  return [Claim(**entry) for entry in json.loads(path.read_text())] if path.exists() else []


def corrections() -> dict[str, dict[str, str]]:
  """What was corrected since commit ad6c8d5: name -> {'title', 'why'}."""
  return json.loads((pathlib.Path(__file__).parent / 'corrections.json').read_text())


def judge_all(paper: str, rows: Sequence[Row], *, same_sizes: bool) -> list[Judged]:
  """Every claim on a paper, judged.

  Args:
    paper: name of the data files.
    rows: of a run.
    same_sizes: whether the run has the paper's own sizes and an unchanged config.
  """
  entries = published.load(paper)['entries']
  cells = Cells(rows, entries)
  return [_judge(claim, cells, entries, same_sizes) for claim in load(paper)]


def _judge(
  claim: Claim, cells: Cells, entries: Sequence[Mapping[str, Any]], same_sizes: bool
) -> Judged:
  outcomes = rules.judge(claim.rules, cells)
  verdict = _verdict(claim, outcomes, same_sizes)
  return Judged(claim, verdict, outcomes, _published(claim, entries))


def _verdict(claim: Claim, outcomes: Sequence[Outcome], same_sizes: bool) -> Verdict:
  held = [outcome.holds for outcome in outcomes]
  if False in held:
    return Verdict.FAILS
  if any(outcome.not_run for outcome in outcomes):
    return Verdict.NOT_RUN
  if None in held:
    unfit = any(outcome.untested or not outcome.comparisons for outcome in outcomes)
    unfit |= any(one.untested for outcome in outcomes for one in outcome.comparisons)
    return Verdict.UNTESTABLE if unfit else Verdict.UNDECIDED
  if claim.theory:
    return Verdict.AGREES
  deterministic = all(rule.get('exact') is True for rule in claim.rules)
  if same_sizes or (claim.any_scale and deterministic):
    return Verdict.REPRODUCED
  return Verdict.DIRECTION


def _published(claim: Claim, entries: Sequence[Mapping[str, Any]]) -> list[str]:
  """'Derived: 0.6931 for nats per char, k=2, m=1 (source).': the numbers that a claim names."""
  if isinstance(claim.published, str):
    return [] if claim.published == 'none' else [f'Published: {claim.published}.']
  found = {SEPARATOR.join((e['table'], e['row'], e['column'])): e for e in entries}
  kinds: dict[str, dict[str, list[str]]] = {}
  for address in claim.published:
    entry = found[address]
    said = f'{_value(entry["value"])} for {rules.words(address)}'
    kind = published.EVIDENCE[entry.get('evidence', '')].capitalize()
    kinds.setdefault(kind, {}).setdefault(entry['source'], []).append(said)
  return [
    f'{kind}: ' + '; '.join(f'{", ".join(said)} ({source})' for source, said in of.items()) + '.'
    for kind, of in kinds.items()
  ]


def _value(value: Any) -> str:
  return printed(value) if isinstance(value, (int, float)) and math.isfinite(value) else str(value)
