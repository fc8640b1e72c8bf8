# SPDX-License-Identifier: Apache-2.0
"""The documents that state results: docs/results and the README's table of papers.

`python -m experiments.reproduce --record` writes them from finished runs. Nothing in them is typed
by hand: pages are made from results.json; the README's table, and the page on what changed since
commit ad6c8d5, from docs/results/verdicts.json.
"""

import importlib
import json
import pathlib
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import changes
from experiments.minutes import MINUTES
from experiments.recipe import Recipe
from lib import atomic
from lib.report import page, published, results, sections
from lib.report.claims import Verdict
from lib.report.page import Block, Code, Heading, Picture, Text
from lib.report.sections import Section

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = 'docs/results'
VERDICTS = f'{FOLDER}/verdicts.json'
BEGIN, END = '<!-- written by experiments.reproduce --record: begin -->', '<!-- end -->'
HEAD = 'paper', 'claim', 'verdicts', 'command', 'minutes'
MADE = (
  'Written by `python -m experiments.reproduce --record`; not by hand. Names of tokenizers, '
  'embeddings and errors: [concepts and glossary](../concepts.md).'
)

Verdicts = Mapping[str, Mapping[str, Any]]  # recipe -> what `summary` returns


def recipe_of(name: str) -> Recipe:
  """The recipe of a name."""
  return importlib.import_module(f'experiments.{name}.recipe').RECIPE


def record(found: Sequence[Section], root: pathlib.Path = ROOT) -> list[pathlib.Path]:
  """Writes the page of each run, the README's table, and what changed; other recipes keep theirs.

  Args:
    found: runs, judged.
    root: the checkout.

  Returns:
    The files that were written.
  """
  written = []
  for section in found:
    written.append(root / FOLDER / f'{section.name}.md')
    pictures = root / FOLDER / section.name
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir(parents=True)
    for path in section.pictures:
      shutil.copy(path, pictures)
    atomic.write(written[-1], page.markdown(blocks(section, pictures), written[-1].parent))
  verdicts = {**read(root), **{section.name: summary(section) for section in found}}
  results.write_json(
    root / VERDICTS, {name: verdicts[name] for name in MINUTES if name in verdicts}
  )
  readme, changed = root / 'README.md', root / changes.PAGE
  atomic.write(readme, with_table(readme.read_text(), table(verdicts)))
  atomic.write(changed, what_changed(verdicts))
  return [*written, root / VERDICTS, readme, changed]


def read(root: pathlib.Path = ROOT) -> dict[str, Any]:
  """The verdicts that were recorded; none in a checkout without runs."""
  path = root / VERDICTS
  return json.loads(path.read_text()) if path.exists() else {}


def blocks(section: Section, pictures: pathlib.Path) -> list[Block]:
  """The page of a run: how it was made, its claims, its pictures, its tables."""
  found: list[Block] = [Heading(section.title, 1), Text(MADE), Code([command(section.name)])]
  for block in (*sections.run(section), *sections.folded_tables(section)):
    if isinstance(block, Picture):
      block = Picture(pictures / block.path.name, block.caption)
    found.append(block)
  return found


def summary(section: Section) -> dict[str, Any]:
  """A run in short, as JSON: verdicts of its claims, scale, minutes, source.

  A recipe without a paper has the verdicts of this project's statements.
  """
  counts = Counter(str(one.verdict) for one in section.claims or section.audits)
  return {
    'verdicts': {str(one): counts[str(one)] for one in Verdict if counts[str(one)]},
    'claims': {
      one.claim.claim: {'verdict': str(one.verdict), 'evidence': sections.evidence(one)}
      for one in section.judged
    },
    'scale': section.scale,
    'changed': sorted(section.changed),
    'minutes': round(section.minutes, 1),
    **section.made,
  }


def command(name: str, scale: str = 'cpu') -> str:
  """The command that runs a recipe."""
  return f'python -m experiments.{name} --config={name}:{scale} --workdir=runs/{name}'


def table(verdicts: Verdicts) -> str:
  """The README's table in Markdown: a line for each recipe, whether it was recorded or not."""
  lines = [[*HEAD]]
  for name, minutes in MINUTES.items():
    recipe, run = recipe_of(name), verdicts.get(name)
    estimate = f'about {max(1, round(sum(minutes.values())))}'
    lines.append([
      linked(name, recipe.title),
      recipe.summary,
      _verdicts(name, run) if run else 'not recorded yet',
      f'`{command(name)}`',
      _minutes(run) if run and run['scale'] == 'cpu' else estimate,
    ])  # fmt: skip
  return page.ruled(lines, align=False)


def what_changed(verdicts: Verdicts) -> str:
  """The page that sets the conclusions of commit ad6c8d5 next to today's."""
  return changes.markdown(verdicts, {name: recipe_of(name).title for name in changes.PAPERS})


def _minutes(run: Mapping[str, Any]) -> str:
  more = ' and more, since it was resumed' * ('resumed' in run)
  return f'{run["minutes"]:.0f} on {run["cores"]} core{"s" * (run["cores"] != "1")}{more}'


def linked(name: str, title: str) -> str:
  """The title of a recipe, with links to its papers."""
  paper = published.load(name).get('paper', '')
  links = [f'[{one}](https://arxiv.org/abs/{one})' for one in re.findall(r'\d{4}\.\d{5}', paper)]
  return f'{title} ({", ".join(links)})' if links else title


def with_table(readme: str, lines: str) -> str:
  """A README with `lines` between the marks."""
  before, _, rest = readme.partition(BEGIN)
  _, mark, after = rest.partition(END)
  assert mark, f'README.md lacks {BEGIN} or {END}'
  return f'{before}{BEGIN}\n{lines}\n{END}{after}'


def _verdicts(name: str, run: Mapping[str, Any]) -> str:
  listed = ', '.join(f'{count} {verdict}' for verdict, count in run['verdicts'].items())
  scale = '' if run['scale'] == 'cpu' and not run['changed'] else ' (other settings)'
  return f'[{listed}]({FOLDER}/{name}.md){scale}'
