# SPDX-License-Identifier: Apache-2.0
"""The documents: README is one page, its program runs, and its commands and flags exist."""

import pathlib
import re

import jax
import numpy as np
import pytest

from lib.data import pipeline
from lib.embeddings.learned import Learned
from lib.language_model import TrainedModel
from lib.models.decoder import Decoder, LanguageModel
from lib.tokenizers.characters import Characters

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / 'README.md').read_text()
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').rglob('*'))]
PAGES = [path for path in PAGES if path.suffix in ('.md', '.sh', '.yaml')]


def named(text):
  """Modules that commands of a page run with -m; placeholders such as NAME are left out."""
  found = re.findall(r'-m ((?:experiments|pallas_kernels|lib|tests)(?:\.\w+)+)', text)
  return {name for name in found if not re.search(r'\.[A-Z]', name)}


def exists(name):
  """Whether `python -m name` finds a module or a package that can be run."""
  path = ROOT / name.replace('.', '/')
  return path.with_suffix('.py').is_file() or (path / '__main__.py').is_file()


def test_the_readme_is_one_page():
  assert len(README.splitlines()) <= 150


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_names_a_module_that_exists(page):
  assert [name for name in sorted(named(page.read_text())) if not exists(name)] == []


# docs/mutants.md names files of an older commit, which it states.
@pytest.mark.parametrize(
  'page',
  [path for path in PAGES if path.name != 'mutants.md'],
  ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_every_file_that_is_named_exists(page):
  name = r'\b(?:lib|experiments|configs|pallas_kernels|tests)/[a-z0-9_/]+\.py'
  found = re.findall(name, page.read_text())
  assert [path for path in sorted(set(found)) if not (ROOT / path).is_file()] == []


def test_a_missing_module_is_noticed():
  text = 'python -m experiments.markov; python -m experiments.NAME; python -m lib.nothing'
  assert [name for name in named(text) if not exists(name)] == ['lib.nothing']


COMMANDS = re.split(r'^(?=\*\*|#)', (ROOT / 'docs/commands.md').read_text(), flags=re.MULTILINE)
DEFINED = re.compile(r"flags?\.DEFINE_\w+\(\s*'(\w+)'")


def sections_of(path):
  """The sections of docs/commands.md that name the command of a file."""
  module = '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__main__')
  shared = {'command_line': 'experiments.NAME', 'models': 'experiments.tools.evaluate'}
  name = shared.get(path.stem, module)
  return [section for section in COMMANDS if re.search(rf'{re.escape(name)}\b', section)]


@pytest.mark.parametrize(
  'path',
  [
    path
    for path in sorted((ROOT / 'experiments').rglob('*.py'))
    if DEFINED.search(path.read_text())
  ],
  ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_every_flag_is_documented_with_its_command(path):
  text = '\n'.join(sections_of(path))
  flags = DEFINED.findall(path.read_text())
  assert flags
  assert [flag for flag in flags if f'`--{flag}' not in text] == []


def test_every_config_field_has_a_meaning():
  rows = re.findall(r'^\| `.*$', (ROOT / 'docs/config.md').read_text(), re.MULTILINE)
  assert len(rows) > 500
  meanings = [row.split('|')[-2].strip() for row in rows]
  assert all(meanings)
  # A meaning is a noun phrase that can be read without the name of its field.
  assert [text for text in meanings if text.startswith(('of ', 'to ', 'that ', 'at most'))] == []


def test_the_program_of_the_readme_runs(tmp_path, monkeypatch, capsys):
  [program] = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
  assert len([line for line in program.splitlines() if line]) <= 12
  words = ['the', 'cat', 'sat', 'on', 'a', 'mat', 'and', 'lay', 'by', 'my', 'old', 'hat']
  draw = np.random.default_rng(0)
  lines = [f'The {" ".join(draw.choice(words, 10))}.\n' for _ in range(400)]
  monkeypatch.chdir(tmp_path)
  pathlib.Path('book.txt').write_text(''.join(lines))
  module = LanguageModel(Learned(256, 16), Decoder(layers=1, dim=16, heads=2, mlp_dim=16))
  batch, key = pipeline.batch_from_ids([[1, 2]], 256), jax.random.key(0)
  variables = jax.jit(module.init)(key, batch, key)
  TrainedModel(module, variables, Characters(), context=128).save('MODEL')
  exec(compile(program, 'README.md', 'exec'), {})
  said = capsys.readouterr().out
  assert 'lossless: True' in said
  # A model of nearly equal logits has 8 bits per byte.
  assert re.search(r'^[78]\.\d{3} bits per byte', said, re.MULTILINE)
