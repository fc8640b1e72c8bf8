# SPDX-License-Identifier: Apache-2.0
"""Whether rules and published numbers address rows that a recipe writes."""

import functools
import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from configs.common import SCALES
from lib.report import claims, published, rules
from lib.report.results import Row
from lib.report.rules import SEPARATOR, Cells


def faults(paper: str, rows: Sequence[Row], names: Sequence[str] = ()) -> list[str]:
  """What is wrong with the rules and the published numbers of a paper; nothing, if all is well.

  An address must be that of a row of the smoke run. Sizes may differ: numbers in the values and in
  the column compare equal, and so do names that the config of some scale holds (of models, texts,
  methods). Names in a rule must be in the config of scale cpu, or of the `scale` that the rule
  names. Published numbers that are said to be unmeasured must not be measured.

  Args:
    paper: name of the data files.
    rows: of the recipe's smoke run.
    names: further names that compare equal, such as those of fonts.
  """
  data = published.load(paper)['entries']
  entries = [_address(entry) for entry in data]
  aside = {_address_of(row) for row in published.unmeasured(paper)}
  equal = {name.lower() for name in (*_names(paper), *names)}
  written = {_address_of(row) for row in rows} - aside
  forms = {_form(address, equal) for address in written}
  found = []
  for address in entries:
    measured = _form(address, equal) in forms
    if measured == (address in aside):
      found.append(f'published, {"and" if measured else "not"} measured: {address}')
  for rule in (rule for claim in claims.load(paper) for rule in claim.rules):
    for pattern in addresses(rule):
      whole = re.compile(rules.expression(pattern))
      if any(whole.fullmatch(address) for address in aside):
        found.append(f'matches what no recipe measures: {pattern}')
      for address in _alternatives(pattern):
        printed = address.startswith(f'published{SEPARATOR}')
        if printed:
          exists = any(whole.fullmatch(f'published{SEPARATOR}{entry}') for entry in entries)
        else:
          form = re.compile(rules.expression(_form(address, equal)))
          exists = any(form.fullmatch(one) for one in forms)
        if not exists:
          found.append(f'no such row: {address}')
        scale = rule.get('scale', 'cpu')
        for part in () if printed else absent(paper, address, scale, written):
          found.append(f'{part} is not measured at scale {scale}: {address}')
  cells = Cells(rows, data)
  for claim in claims.load(paper):
    for one in (one for outcome in rules.judge(claim.rules, cells) for one in outcome.comparisons):
      if one.untested == rules.UNFIT:
        found.append(f'{rules.UNFIT}: {one.cell.address}')
  return list(dict.fromkeys(found))


def addresses(rule: Mapping[str, Any]) -> list[str]:
  """The addresses that a rule names, with their wildcards."""
  sides = [rule.get('left'), rule.get('right'), *rule.get('rises', ()), *rule.get('falls', ())]
  return [side for side in sides if isinstance(side, str)]


def _address(one: Mapping[str, Any]) -> str:
  return SEPARATOR.join((one['table'], one['row'], one['column']))


def _address_of(row: Row) -> str:
  return SEPARATOR.join((row.table, row.row, row.column))


def _alternatives(pattern: str) -> Iterator[str]:
  """The pattern with each {a,b} replaced by each of its values."""
  if (found := re.search(r'\{([^}]*)\}', pattern)) is None:
    yield pattern
    return
  for value in found[1].split(','):
    yield from _alternatives(pattern[: found.start()] + value + pattern[found.end() :])


def _form(address: str, names: set[str]) -> str:
  """An address without the sizes and names that change with the scale."""
  table, row, column = address.split(SEPARATOR)
  plain = lambda text: '#' if text.lower() in names else re.sub(r'\d+(\.\d+)?', '#', text)
  values = [part.partition('=') for part in row.split(',')]
  quantity, above, other = column.partition('_above_')  # another method
  return SEPARATOR.join((
    table,
    ','.join(f'{key}{sign}{plain(value)}' for key, sign, value in values),
    f'{plain(quantity)}{above}{plain(other)}',
  ))  # fmt: skip


def absent(paper: str, address: str, scale: str, written: set[str]) -> Iterator[str]:
  """Names of an address that the config of its table has at another scale alone.

  A name that smoke rows have without their config, such as that of a constant of the recipe, is not
  the config's to choose.
  """
  table, row, _ = address.split(SEPARATOR)
  if (
    table not in importlib.import_module(f'configs.{paper}').TABLES
  ):  # published, or a part of another table
    return
  constants = {part for other in written for part in other.split(SEPARATOR)[1].split(',')}
  for part in row.split(','):
    name = part.partition('=')[2].lower()
    there = {one: _in_table(paper, one, table, name) for one in SCALES}
    constant = part in constants and not there['smoke']
    if any(there.values()) and not there[scale] and not constant:
      yield part


def _in_table(paper: str, scale: str, table: str, name: str) -> bool:
  """Whether a scale's section of a table has the name; the whole config if no section has it."""
  texts = _texts_by_scale(paper)
  if any(name in found.get(table, ()) for found in texts.values()):
    return name in texts[scale][table]
  return any(name in found for found in texts[scale].values())


@functools.cache
def _texts_by_scale(paper: str) -> dict[str, dict[str, set[str]]]:
  """Scale -> section of the config -> its texts in lower case; the scale itself is none."""
  module = importlib.import_module(f'configs.{paper}')
  return {
    scale: {
      section: set(map(str.lower, _texts(values)))
      for section, values in module.get_config(scale).to_dict().items()
      if section != 'scale'
    }
    for scale in SCALES
  }


def _names(paper: str) -> Iterator[str]:
  """Texts in the configs of all scales."""
  for scale in SCALES:
    yield from _texts(importlib.import_module(f'configs.{paper}').get_config(scale).to_dict())


def _texts(value: Any) -> Iterator[str]:
  if isinstance(value, str):
    yield value
  elif isinstance(value, Mapping):
    for one in value.values():
      yield from _texts(one)
  elif isinstance(value, (list, tuple)):
    for one in value:
      yield from _texts(one)
