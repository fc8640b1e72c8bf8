# SPDX-License-Identifier: Apache-2.0
"""Writes pages from code, configs and recorded verdicts: `python docs/reference.py`.

The meaning of a config's field is the comment next to it in configs/*.py. A test holds the pages
equal to what this program writes.
"""

import ast
import importlib
import inspect
import io
import pathlib
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from configs import common, fields  # noqa: E402 - after the path
from experiments import changes, documents  # noqa: E402
from experiments.command_line import configs  # noqa: E402
from lib.tokenizers import registry  # noqa: E402

MADE = 'This page is written by `python docs/reference.py`; edit {} instead.\n'
LONGEST = 60  # characters of a value that is shown whole


class Comments:
  """The comments next to the fields of a config file: (section.)field -> text."""

  def __init__(self, module: Any):
    source = pathlib.Path(module.__file__).read_text()
    self.found: dict[str, str] = {}
    self._names: dict[str, list[ast.expr]] = {}
    self._known: set[str] = set()  # names that were read
    self._lines = dict(_comments(source))
    for node in ast.walk(ast.parse(source)):
      if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        self._names.setdefault(node.targets[0].id, []).append(node.value)

  def read(self, node: ast.AST, prefix: str = '') -> dict[str, str]:
    """Adds the fields of an expression that makes a dict, with all that it is joined from."""
    if isinstance(node, ast.Dict):
      for key, value in zip(node.keys, node.values, strict=True):
        if key is None:
          self.read(value, prefix)
        elif isinstance(key, ast.Constant):
          if text := self._next_to(key, value):
            self.found[prefix + key.value] = text
          self.read(value, f'{prefix}{key.value}.')
    elif isinstance(node, ast.BinOp):
      self.read(node.left, prefix)
      self.read(node.right, prefix)
    elif isinstance(node, ast.DictComp):
      self.read(node.generators[0].iter.func.value, prefix)
    elif isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'Section':
      for argument in node.args:
        self.read(argument, prefix)
    elif isinstance(node, ast.Name) and node.id in self._names:
      self._known.add(node.id)
      values = self._names.pop(node.id)  # a name may be assigned from itself
      for value in values:
        self.read(value, prefix)
      self._names[node.id] = values
    elif isinstance(node, ast.Name | ast.Attribute):
      name = node.id if isinstance(node, ast.Name) else node.attr
      if name not in self._known:
        self.found |= {prefix + field: text for field, text in shared(name).items()}
    return self.found

  def of(self, name: str) -> dict[str, str]:
    """The fields of the dict that is assigned to a name."""
    return self.read(ast.Name(name))

  def _next_to(self, key: ast.expr, value: ast.expr) -> str:
    above, line = [], key.lineno - 1
    while self._lines.get(line, ('', False))[1]:
      above.insert(0, self._lines[line][0])
      line -= 1
    ends = [key.lineno]
    if not isinstance(value, ast.Dict | ast.BinOp):
      ends.append(value.end_lineno)
    beside = [self._lines[line][0] for line in dict.fromkeys(ends) if line in self._lines]
    return ' '.join([*above, *beside])


def _comments(source: str) -> Iterator[tuple[int, tuple[str, bool]]]:
  """(line, (comment, whether the line has nothing else)) of a source."""
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    text = token.string.removeprefix('#').strip()
    if token.type == tokenize.COMMENT and not text.startswith(('fmt:', 'noqa')):
      text = text.removesuffix('# fmt: skip').strip()
      yield token.start[0], (text, not token.line[: token.start[1]].strip())


def shared(name: str) -> dict[str, str]:
  """The comments of a dict that several configs use; none if it has no fields."""
  for module in (common, importlib.import_module('configs.markov')):
    if isinstance(getattr(module, name, None), Mapping):
      return Comments(module).of(name)
  return {}


def config_page() -> str:
  """docs/config.md."""
  model, training = dict.fromkeys(common.MODEL), dict.fromkeys(common.TRAINING)
  lines = [
    '# Config fields\n',
    MADE.format('the comments in `configs/*.py`'),
    'Change a field with `--config.SECTION.FIELD=VALUE`; quote lists: '
    "`'--config.orders=(1,2)'`. An unknown field is refused. A value that differs by scale is "
    'given for `smoke` / `cpu` / `gpu` / `paper`; … marks a list that is longer.\n',
    '## Every config\n',
    *_table(_by_scale(common.base((), ())), Comments(common).read(_returned('base')), {}),
    '## A model\n',
    'Fields of every section that is marked *model*.\n',
    *_table(_by_scale(common.MODEL), _meanings(common.MODEL, shared('MODEL')), {}),
    '## Its training\n',
    'Fields of every section that is marked *training*.\n',
    *_table(_by_scale(common.TRAINING), _meanings(common.TRAINING, shared('TRAINING')), {}),
  ]
  for name in configs():
    module = importlib.import_module(f'configs.{name}')
    declared = module.get_config().declared
    values = {scale: _flat(module.get_config(scale).to_dict()) for scale in common.SCALES}
    comments = Comments(module)
    text = comments.of('SECTIONS' if hasattr(module, 'SECTIONS') else 'sections')
    choices = {name: field.choices for name, field in declared.items() if field.choices}
    title = module.__doc__.strip().splitlines()[0].removesuffix('.')
    lines += [f'## {name}\n', f'{title} …\n' if len(title) > 80 else f'{title}.\n']
    lines += [f'Tables: {", ".join(f"`{table}`" for table in module.TABLES)}.\n']
    every = dict.fromkeys(field for one in values.values() for field in one)
    top = [f for f in every if '.' not in f and f not in _by_scale(common.base((), ()))]
    at = lambda field, values=values: [values[scale].get(field) for scale in common.SCALES]
    lines += _table({field: at(field) for field in top}, text, {})
    for section in dict.fromkeys(field.partition('.')[0] for field in every if '.' in field):
      if section == 'mesh':
        continue
      inside = {f.partition('.')[2]: at(f) for f in every if f.partition('.')[0] == section}
      kinds = [
        kind
        for kind, known in (('model', model), ('training', training))
        if set(known) & set(inside) and len(set(known) - set(inside)) < len(known) / 2
      ]
      usual = {}
      for kind in kinds:
        defaults = common.MODEL if kind == 'model' else common.TRAINING
        usual |= _by_scale(defaults)
      marks = f' (*{"*, *".join(kinds)}*)' if kinds else ''
      about = text.get(section, '')
      lines += [f'### {name}: {section}{marks}\n', *([f'{about}\n'] if about else [])]
      meanings = {
        field: text.get(f'{section}.{field}', '')
        or (shared('MODEL') | shared('TRAINING')).get(field, '') * bool(kinds)
        for field in inside
      }
      meanings = {f: _with_choices(t, choices.get(f'{section}.{f}')) for f, t in meanings.items()}
      lines += _table(inside, meanings, usual)
  return '\n'.join(lines)


def _meanings(section: Mapping, text: Mapping[str, str]) -> dict[str, str]:
  declared = fields.build(section, 'cpu').declared
  return {
    name: _with_choices(text.get(name, ''), field.choices) for name, field in declared.items()
  }


def _with_choices(text: str, choices: tuple | None) -> str:
  if not choices:
    return text
  return (
    f'{text.rstrip(".")}: {", ".join(map(str, choices))}'
    if text
    else f'one of {", ".join(map(str, choices))}'
  )


def _returned(function: str) -> ast.expr:
  """The dict in what a function of configs.common returns."""
  tree = ast.parse(pathlib.Path(common.__file__).read_text())
  [found] = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function]
  return found.body[-1].value


def _by_scale(section: Mapping) -> dict[str, list]:
  """(section.)field -> its value at each scale."""
  declared = fields.build(section, 'cpu').declared
  return {name: [field.at(scale) for scale in common.SCALES] for name, field in declared.items()}


def _flat(section: Any, prefix: str = '') -> dict[str, Any]:
  found = {}
  for key, value in section.items():
    if hasattr(value, 'items'):
      found |= _flat(value, f'{prefix}{key}.')
    else:
      found[prefix + key] = value
  return found


def _table(rows_of: Mapping[str, list], text: Mapping[str, str], usual: Mapping[str, list]) -> list:
  """Lines of a table of fields; without those that have their usual values."""
  shown = [field for field in rows_of if list(rows_of[field]) != list(usual.get(field, [object]))]
  if not shown:
    return []
  rows = [f'| `{f}` | {_values(rows_of[f])} | {_cell(text.get(f, ""))} |' for f in shown]
  return ['| field | value | meaning |', '|---|---|---|', *rows, '']


def _values(values: list) -> str:
  texts = [_value(value) for value in values]
  return texts[0] if len(set(texts)) == 1 else ' / '.join(texts)


def _value(value: Any) -> str:
  if isinstance(value, int | float) and not isinstance(value, bool):
    return f'{value:,}' if isinstance(value, int) else f'{value:g}'
  text = repr(value)
  if len(text) > LONGEST:
    text = f'{text[: text.rindex(",", 0, LONGEST)]}, …)'
  return f'`{text}`'


def _cell(text: str) -> str:
  return text.replace('|', '\\|')


def tokenizer_page() -> str:
  """docs/tokenizers.md."""
  lines = [
    '# Tokenizers\n',
    MADE.format('the docstrings in `lib/tokenizers`'),
    '`lib.tokenizers.train(NAME, documents, vocab_size, **options)` trains one. '
    '`lib.tokenizers.load(PATH)` reads the file of any of them, a `tokenizer.json` of Hugging '
    'Face, or a SentencePiece `.model`. *Lossless* means that `decode(encode(x)) == x` for every '
    'byte string ([concepts](concepts.md#tokenizer)).\n',
  ]
  for name, family in registry.FAMILIES.items():
    kind = registry.resolve(family.tokenizer)
    module = sys.modules[kind.__module__]
    lines += [f'## {name}\n', f'{_first(module)} {_first(kind)}\n']
    lines += [f'- Lossless: {_lossless(kind)}']
    if family.train:
      function = registry.resolve(family.train)
      options = [_option(p) for p in [*inspect.signature(function).parameters.values()][2:]]
      lines += [f'- Trained by `train({name!r}, …)`: {_first(function)}']
      lines += [f'- Options: {"; ".join(options) or "none"}']
    else:
      lines += ['- Not trained by name; it is made by a recipe, or read from a file.']
    if papers := sorted(set(re.findall(r'arXiv \d{4}\.\d{5}', f'{module.__doc__} {kind.__doc__}'))):
      links = [f'[{paper}](https://arxiv.org/abs/{paper.split()[1]})' for paper in papers]
      lines += [f'- Paper: {", ".join(links)}']
    where = f'{kind.__module__.replace(".", "/")}.py'
    lines += [f'- File: family `{kind.family}`; code: `{where}`\n']
  return '\n'.join(lines)


def _first(thing: Any) -> str:
  """The first sentence of a docstring, as one line."""
  text = ' '.join((inspect.getdoc(thing) or '').split('\n\n')[0].split())
  return text if text.endswith('.') else f'{text}.'


def _lossless(kind: type) -> str:
  if 'self.lossless =' in inspect.getsource(kind):
    return 'as `tokenizer.lossless` says for each file'
  return 'yes' if kind.lossless else 'no'


def _option(parameter: inspect.Parameter) -> str:
  default = repr(parameter.default)
  return f'`{parameter.name}`, by default `{default if len(default) < LONGEST else "all bytes"}`'


def readme() -> str:
  """The README, its table with the recipes' summaries, commands and recorded verdicts."""
  return documents.with_table((ROOT / 'README.md').read_text(), documents.table(documents.read()))


def changed() -> str:
  """What changed since commit ad6c8d5, with the recorded verdicts."""
  return documents.what_changed(documents.read())


PAGES = {
  'docs/config.md': config_page,
  'docs/tokenizers.md': tokenizer_page,
  'README.md': readme,
  changes.PAGE: changed,
}

if __name__ == '__main__':
  for file, page in PAGES.items():
    (ROOT / file).write_text(page())
