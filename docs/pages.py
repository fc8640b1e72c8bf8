# SPDX-License-Identifier: Apache-2.0
"""What the site needs beyond docs/*.md: the README as its first page, and one page a module."""

import pathlib
import re
from collections.abc import Iterator
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).parents[1]
ROOMS = ('lib', 'pallas_kernels', 'experiments', 'configs')
FRONT = {
  'index.md': 'README.md',
  'contributing.md': 'CONTRIBUTING.md',
  'kernels.md': 'pallas_kernels/RESULTS.md',
}


def modules() -> Iterator[pathlib.PurePosixPath]:
  """Every module with something in it, as a path without suffix, room by room."""
  for room in ROOMS:
    for path in sorted((ROOT / room).rglob('*.py')):
      if path.stat().st_size and path.name != '__main__.py':
        yield pathlib.PurePosixPath(path.relative_to(ROOT).with_suffix(''))


def page(module: pathlib.PurePosixPath) -> str:
  """Where a module's page lies in the site; a package's is its folder's first."""
  name = module.with_name('index') if module.name == '__init__' else module
  return f'modules/{name}.md'


def linked(text: str) -> str:
  """A page whose links are those of the site, where what lies above docs/ lies in it."""
  for mark in ('](', '<img src="'):
    text = text.replace(f'{mark}docs/', mark)
  text = re.sub(r'\]\((\.\./)?CONTRIBUTING.md', '](contributing.md', text)
  text = text.replace('](../README.md', '](index.md')
  text = re.sub(r'\]\((\.\./)?pallas_kernels/RESULTS.md', '](kernels.md', text)
  return re.sub(r'\]\(LICENSE\)', '](https://www.apache.org/licenses/LICENSE-2.0)', text)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
  """The navigation: the guides of mkdocs.yml, written results, then the modules by folder."""
  tree: dict = {}
  for module in modules():
    *folders, name = module.parts
    at = tree
    for folder in folders:
      at = at.setdefault(folder, {})
    at[name] = page(module)
  results = sorted(f'results/{path.name}' for path in (ROOT / 'docs/results').glob('*.md'))
  config.nav = [*config.nav, *([{'Results': results}] if results else []), *_nested(tree)]
  return config


def _nested(tree: dict) -> list:
  order = sorted(tree.items(), key=lambda item: item[0] != '__init__')
  return [
    {name: _nested(part)}
    if isinstance(part, dict)
    else part
    if name == '__init__'
    else {name: part}
    for name, part in order
  ]


def on_files(files: Files, config: MkDocsConfig) -> Files:
  """Adds the pages that are no files of docs/."""
  for target, source in FRONT.items():
    files.append(File.generated(config, target, content=(ROOT / source).read_text()))
  for module in modules():
    name = '.'.join(module.parent.parts if module.name == '__init__' else module.parts)
    content = f'# {name}\n\n::: {name}\n    options:\n      show_root_heading: false\n'
    files.append(File.generated(config, page(module), content=content))
  return files


def on_page_markdown(markdown: str, **_: Any) -> str:
  """A page's text, with its links mended."""
  return linked(markdown)
