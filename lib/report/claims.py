# SPDX-License-Identifier: Apache-2.0
"""Claims of papers, and what audits found, with verdicts computed from measured rows.

claims/PAPER.json holds them as data. A claim is said in a sentence and has rules that must all hold
(lib.report.rules). Its verdict is REPRODUCED only at the paper's own sizes, or where the claim is
of theory and knows no sizes; elsewhere the most is DIRECTION.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from lib.report import published
from lib.report.results import Row
from lib.report.rules import SEPARATOR, Cells, Outcome, judge
from lib.report.tables import number

FOLDER = pathlib.Path(__file__).parent / 'claims'
REPRODUCED = 'reproduced'
DIRECTION = 'direction holds at this scale'
FAILS = 'does not hold here'
UNTESTABLE = 'not testable at this scale'
SHOWN, NOT_SHOWN = 'shown here', 'not shown here'  # of what an audit found
VERDICTS = REPRODUCED, DIRECTION, FAILS, UNTESTABLE
NORMAL = stats.norm.ppf(0.975)


@dataclasses.dataclass(frozen=True)
class Claim:
  """A sentence with the rules that decide on it.

  Attributes:
    claim: the sentence.
    source: where the paper says so, or whose finding it is.
    rules: each as lib.report.rules takes it; all must hold.
    published: addresses of published numbers, or a text where there are none.
    seeds: the config's field that counts the seeds (or chains) which errors are over, or ''.
    theory: holds at any size, so that a run of any scale can reproduce it.
    audit: a finding on the paper, not a claim of it.
  """

  claim: str
  source: str
  rules: Sequence[Mapping[str, Any]]
  published: str | Sequence[str] = 'none'
  seeds: str = ''
  theory: bool = False
  audit: bool = False


@dataclasses.dataclass(frozen=True)
class Judged:
  """A claim with its verdict and what led to it.

  Attributes:
    seeds: number of seeds behind the measured numbers, or None where they have none.
    quantile: standard errors in half a 95 % interval.
    published: the numbers of the paper in words.
  """

  claim: Claim
  verdict: str
  outcomes: Sequence[Outcome]
  seeds: int | None
  quantile: float
  published: str


def load(paper: str) -> list[Claim]:
  """The claims of `claims/PAPER.json`, and what audits found."""
  return [Claim(**entry) for entry in json.loads((FOLDER / f'{paper}.json').read_text())]


def judge_all(
  paper: str, rows: Sequence[Row], config: Mapping[str, Any], *, same_sizes: bool
) -> list[Judged]:
  """Every claim on a paper, judged.

  Args:
    paper: name of the data files.
    rows: of a run.
    config: of the run, for the number of its seeds.
    same_sizes: whether the run has the paper's own sizes and nothing about it was changed.
  """
  entries = published.load(paper)['entries']
  cells = Cells(rows, entries)
  return [_judge(claim, cells, entries, config, same_sizes) for claim in load(paper)]


def _judge(
  claim: Claim,
  cells: Cells,
  entries: Sequence[Mapping[str, Any]],
  config: Mapping[str, Any],
  same_sizes: bool,
) -> Judged:
  seeds = _field(config, claim.seeds) if claim.seeds else None
  quantile = stats.t.ppf(0.975, seeds - 1) if seeds and seeds > 1 else NORMAL
  outcomes = [judge(rule, cells, quantile) for rule in claim.rules]
  verdict = _verdict(claim, outcomes, same_sizes)
  return Judged(claim, verdict, outcomes, seeds, float(quantile), _published(claim, entries))


def _verdict(claim: Claim, outcomes: Sequence[Outcome], same_sizes: bool) -> str:
  held = [outcome.holds for outcome in outcomes]
  if any(outcome.missing for outcome in outcomes):
    return UNTESTABLE
  if claim.audit:
    return SHOWN if all(held) else NOT_SHOWN
  if False in held:
    return FAILS
  if None in held:
    return UNTESTABLE
  return REPRODUCED if claim.theory or same_sizes else DIRECTION


def _field(config: Mapping[str, Any], path: str) -> int | None:
  for part in path.split('.'):
    config = config.get(part, {})
  return config if isinstance(config, int) else None


def _published(claim: Claim, entries: Sequence[Mapping[str, Any]]) -> str:
  """'1.46 for m2 / … (Table 15); …': the numbers that a claim names, or its own words."""
  if isinstance(claim.published, str):
    return claim.published
  found = {SEPARATOR.join((e['table'], e['row'], e['column'])): e for e in entries}
  by_source: dict[str, list[str]] = {}
  for address in claim.published:
    said = f'{_value(found[address]["value"])} for {address}'
    by_source.setdefault(found[address]['source'], []).append(said)
  return '; '.join(f'{", ".join(said)} ({source})' for source, said in by_source.items())


def _value(value: Any) -> str:
  return number(value) if isinstance(value, (int, float)) and math.isfinite(value) else str(value)
