# SPDX-License-Identifier: Apache-2.0
"""Does a test fail when the code breaks? `make mutants SEED=0 COUNT=10 MINUTES=60`.

Places are drawn evenly from all nodes of the syntax trees that `changes` knows. One change is made
there, in a copy of the project with caches of its own, and tests run until one fails: first those
that import the changed module, then those that reach it through others, then the rest. A test that
catches a change must pass without it; one that takes five minutes has failed. What is printed is a
table in Markdown.
"""

import ast
import itertools
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[1]
ROOMS = ('lib', 'pallas_kernels', 'experiments', 'configs')
LEFT_OUT = shutil.ignore_patterns('.git', '.venv', '.*cache', '__pycache__', '.hypothesis', 'runs')
SEED, COUNT = int(os.environ.get('SEED', '0')), int(os.environ.get('COUNT', '10'))
MINUTES = float(os.environ.get('MINUTES', '60'))  # for each; 0 only shows the places
TWINS = (
  (ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot),
  (ast.In, ast.NotIn), (ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.FloorDiv, ast.Mod),
  (ast.And, ast.Or), (ast.LShift, ast.RShift), (ast.BitAnd, ast.BitOr),
)  # fmt: skip
TURNED = {ast.Pow: ast.Mult, ast.MatMult: ast.Mult, ast.BitXor: ast.BitOr}
TURNED |= {a: b for pair in TWINS for a, b in (pair, pair[::-1])}


def changes(node: ast.AST) -> list[tuple[ast.AST, ast.AST]]:
  """What can be changed at a node, as pairs (before, after)."""
  but = lambda **fields: (node, type(node)(**{**vars(node), **fields}))
  less = lambda parts: [parts[:i] + parts[i + 1 :] for i in range(len(parts))]
  match node:
    case ast.Compare(ops=ops):
      turn = lambda i: [*ops[:i], TURNED[type(ops[i])](), *ops[i + 1 :]]
      return [but(ops=turn(i)) for i in range(len(ops))]
    case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op):
      return [but(op=TURNED[type(op)]())]
    case ast.UnaryOp(ast.Not() | ast.USub() | ast.Invert(), operand):
      return [(node, operand)]
    case ast.Constant(bool(value)):
      return [but(value=not value)]
    case ast.Constant(int(value) | float(value)):
      return [but(value=value + 1), but(value=value - 1)]
    case ast.Call(args=args, keywords=named):
      return [but(keywords=left) for left in less(named)] or [but(args=left) for left in less(args)]
    case ast.If(test) | ast.IfExp(test) | ast.While(test) | ast.comprehension(ifs=[test]):
      return [(test, ast.UnaryOp(ast.Not(), test))]
    case ast.Raise() | ast.Expr(ast.Call() | ast.Yield()) | ast.Assign(targets=[ast.Subscript()]):
      return [(node, ast.Pass())]
  return []


def nodes(node: ast.AST) -> Iterator[ast.AST]:
  """A node and what is below it, but for annotations and the parts of messages."""
  yield node
  for field, value in ast.iter_fields(node):
    for child in value if isinstance(value, list) else [value]:
      spoken = isinstance(child, ast.JoinedStr) or field in ('annotation', 'returns', 'msg')
      if isinstance(child, ast.AST) and not spoken:
        yield from nodes(child)


def changed(text: bytes, old: ast.AST, new: ast.AST) -> tuple[bytes, str]:
  """A file's text with one node for another; the change as two cells of a table."""
  starts = [0, 0, *itertools.accumulate(map(len, text.splitlines(keepends=True)))]
  begin, end = starts[old.lineno] + old.col_offset, starts[old.end_lineno] + old.end_col_offset
  bare = isinstance(new, ast.stmt | ast.Call | ast.Constant)
  code = ast.unparse(new) if bare else f'({ast.unparse(new)})'
  head, tail = text[max(starts[old.lineno], begin - 32) : begin], text[end:].split(b'\n')[0]
  show = lambda part: ' '.join((head + part + tail[:24]).decode(errors='ignore').split())
  cells = [show(part).replace('|', '\\|') for part in (text[begin:end], code.encode())]
  return text[:begin] + code.encode() + text[end:], f'`{cells[0]}` | `{cells[1]}`'


def name(path: pathlib.Path | str) -> str:
  return re.sub(r'(\.__\w+__)?(\.py)?$', '', str(path).replace('/', '.'))


def likely(module: str) -> list[list[str]]:
  """Files of tests in up to three groups, by how near their imports bring them to a module."""
  imported: dict[str, set[str]] = {}
  for path in [path for room in (*ROOMS, 'tests') for path in ROOT.glob(f'{room}/**/*.py')]:
    text, used = path.read_text(), imported.setdefault(name(path.relative_to(ROOT)), set())
    used |= {name(part) for part in re.findall(r'\w+(?:[./]\w+)+', text)}  # in strings too
    for package, parts in re.findall(r'from (\S+) import ([\w, ]+|\([^)]*\))', text):
      used |= {name(f'{package}.{part}') for part in re.findall(r'\w+', parts)}
  steps, queue = {module: 0}, [module]
  for part in queue:
    users = [user for user, used in imported.items() if part in used and user not in steps]
    steps |= dict.fromkeys(users, steps[part] + 1)
    queue += users
  words = lambda name: set(re.split(r'[._]', name)) - {'tests'}
  far = lambda test: steps.get(test, 99)
  order = lambda test: (far(test), -len(words(test) & words(module)), test)
  tests = sorted((test for test in imported if '.test_' in test), key=order)
  groups = itertools.groupby(tests, lambda test: (far(test) > 1, far(test) == 99))
  return [[test.replace('.', '/') + '.py' for test in group] for _, group in groups]


def run(tests: list[str], change: dict[pathlib.Path, bytes], stop: float) -> tuple[int, str, int]:
  """How pytest ended (-9: time was up), the last test that it names, how many have passed."""
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    tree = shutil.copytree(ROOT, pathlib.Path(folder, 'tree'), ignore=LEFT_OUT)
    for path, text in change.items():
      (tree / path).write_bytes(text)
    command = [
      'timeout', '-s', 'KILL', f'{max(stop - time.monotonic(), 1)}', sys.executable, '-m', 'pytest',
      '-xvv', '--tb=short', '-p', 'no:cacheprovider', '-o', 'faulthandler_timeout=300',
      '-o', 'faulthandler_exit_on_timeout=true', *tests,
    ]  # fmt: skip
    own = {'PYTHONPATH': f'{tree}', 'XDG_CACHE_HOME': f'{tree}/.cache'}
    done = subprocess.run(
      command, env={'JAX_COMPILATION_CACHE_DIR': f'{ROOT}/.cache/jax'} | dict(os.environ) | own,
      cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
  named = r'^(?:FAILED |ERROR )?(tests/[\w/]+\.py(?:::\w+(?:\[.*?\](?= |$))?)?)'
  met = re.findall(named, done.stdout, re.MULTILINE)
  return done.returncode, met[-1] if met else 'collecting', done.stdout.count(' PASSED')


def outcome(path: pathlib.Path, text: bytes) -> str:
  """The test that catches a changed file, or how many did not."""
  stop, passed = time.monotonic() + 60 * MINUTES, 0
  for tests in likely(name(path)):
    code, test, more = run(tests, {path: text}, stop)
    passed += more
    if code == -9:
      return f'SURVIVED {passed} tests in {MINUTES:g} minutes, in the midst of {test}'
    if code not in (0, 5):  # 5: none of them runs here
      good = run([test.partition('[')[0]], {}, stop + 600)[0] in (0, 5)
      return test if good else f'{test}, WHICH FAILS WITHOUT THE CHANGE TOO'
  return f'SURVIVED all {passed} tests'


def main() -> None:
  paths = sorted(path.relative_to(ROOT) for room in ROOMS for path in ROOT.glob(f'{room}/**/*.py'))
  texts = {path: (ROOT / path).read_bytes() for path in paths}
  found = [(path, changes(node)) for path in paths for node in nodes(ast.parse(texts[path]))]
  places, dice = [(path, pairs) for path, pairs in found if pairs], random.Random(SEED)
  dice.shuffle(places)
  print(f'Seed {SEED}, {COUNT} of {len(places):,} places:\n')
  print('| place | before | after | caught by |\n|---|---|---|---|', flush=True)
  for path, pairs in places[:COUNT]:
    old, new = dice.choice(pairs)
    text, cells = changed(texts[path], old, new)
    caught = outcome(path, text) if MINUTES else ''
    print(f'| {path}:{old.lineno} | {cells} | {caught} |', flush=True)


if __name__ == '__main__':
  main()
