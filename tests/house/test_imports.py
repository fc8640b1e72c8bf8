# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: the rules of the rooms, read from the source."""

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[2]
ROOMS = ('lib', 'pallas_kernels', 'configs', 'experiments')
FORBIDDEN = {
  'lib': {'experiments', 'configs', 'ml_collections'},  # library code takes plain arguments
  'pallas_kernels': {'lib', 'experiments', 'configs', 'ml_collections'},
  'configs': {'experiments'},
}
# What the import of a room must not bring, by the first statements of its files.
HEAVY = {
  'lib.data': {'lib.models', 'lib.embeddings', 'lib.compression', 'flax'},
  'lib.tokenizers': {'lib.models', 'lib.embeddings', 'lib.compression', 'flax', 'jax'},
  'lib.evals': {'flax'},
  'lib.glyphs': {'lib.models', 'lib.embeddings', 'flax', 'jax'},
  'lib.parallel': {'flax', 'lib.models', 'lib.embeddings', 'lib.train'},
  'lib.profiling': {'flax', 'lib.models', 'lib.embeddings'},
  'lib.tasks': {'flax'},
  'lib.train': {'flax', 'lib.models', 'lib.embeddings'},
  'lib.report': {'flax', 'jax'},
}


def imported(source: str, package: str = '') -> Iterator[str]:
  """Names of modules that a source may import; of `from a import b` both a and a.b.

  A registry names what it imports when it is asked for by texts 'module:name' of its own package.
  """
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, 'imports are absolute'
      assert node.module
      yield node.module
      yield from (f'{node.module}.{alias.name}' for alias in node.names)
    elif lazy := re.fullmatch(r'(\w+(?:\.\w+)*):\w+', str(getattr(node, 'value', ''))):
      yield f'{package}.{lazy[1]}'


def module_name(path: pathlib.Path) -> str:
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_name(path): path for room in ROOMS for path in (ROOT / room).rglob('*.py')}
IMPORTS = {
  name: set(imported(path.read_text(), '.'.join(path.relative_to(ROOT).parts[:-1])))
  for name, path in MODULES.items()
}


def recipe(name: str) -> str | None:
  """The recipe that a module belongs to: a folder of experiments that can be run."""
  parts = name.split('.')
  known = len(parts) > 1 and f'experiments.{parts[1]}.__main__' in MODULES
  return parts[1] if known and parts[0] == 'experiments' else None


def recipe_edges(imports: dict[str, set[str]]) -> set[tuple[str, str]]:
  """Pairs (importing, imported) of different recipes."""
  pairs = {(recipe(name), recipe(other)) for name, others in imports.items() for other in others}
  return {(a, b) for a, b in pairs if a and b and a != b}


def reached(imports: dict[str, set[str]], roots: set[str]) -> set[str]:
  """The modules that the roots import, directly or through others, with their packages."""
  found, waiting = set(), set(roots)
  while waiting:
    name = waiting.pop()
    found.add(name)
    package = {name.rpartition('.')[0]} & imports.keys()
    waiting |= ((imports[name] & imports.keys()) | package) - found
  return found


@pytest.mark.parametrize('room', FORBIDDEN)
def test_no_package_imports_a_package_above_it(room):
  offenders = {
    name: others
    for name, imports in IMPORTS.items()
    if name.split('.')[0] == room
    and (others := {other for other in imports if other.split('.')[0] in FORBIDDEN[room]})
  }
  assert not offenders


@pytest.mark.parametrize('room', HEAVY)
def test_no_package_imports_dependencies_that_its_users_lack(room):
  for name, path in MODULES.items():
    if f'{name}.'.startswith(f'{room}.'):
      lazy = (ast.FunctionDef, ast.ClassDef)
      first = [node for node in ast.parse(path.read_text()).body if not isinstance(node, lazy)]
      found = set(imported(ast.unparse(ast.Module(first, []))))
      assert not {one for one in found for part in HEAVY[room] if f'{one}.'.startswith(f'{part}.')}


def test_no_recipe_imports_another():
  assert not recipe_edges(IMPORTS)


def test_every_module_is_reached_by_an_experiment():
  roots = {name for name in MODULES if name.startswith('experiments')}
  rooms = ('lib', 'pallas_kernels')
  apart = ('pallas_kernels.bench',)  # has commands of its own
  wanted = {name for name in MODULES if name.startswith(rooms) and not name.startswith(apart)}
  assert not wanted - reached(IMPORTS, roots)


def test_offences_are_seen():
  source = """import a.b
def f():
  from c import d
  from experiments.lexinvariant import x
  return resolve('coding.windows:Name')
"""
  found = set(imported(source, 'p'))
  assert found >= {'a.b', 'c', 'c.d', 'experiments.lexinvariant', 'p.coding.windows'}
  assert recipe_edges({'experiments.markov.plots': found}) == {('markov', 'lexinvariant')}
  assert (
    recipe_edges({'experiments.lexinvariant.plots': found, 'experiments.tools': found}) == set()
  )
  graph = {'root': {'p.a'}, 'p': set(), 'p.a': {'p.b', 'numpy'}, 'p.b': set(), 'p.c': {'p.a'}}
  assert reached(graph, {'root'}) == {'root', 'p', 'p.a', 'p.b'}
