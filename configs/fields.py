# SPDX-License-Identifier: Apache-2.0
"""Types and bounds of config fields, declared next to their defaults."""

import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lib import memory
from lib.errors import InputError

LARGEST = 2**42  # a whole number above it is a mistake
LONGEST = 2**16  # characters of a text


class Scaled(NamedTuple):
  """A value of a config for each scale."""

  smoke: Any
  cpu: Any
  gpu: Any
  paper: Any


@dataclasses.dataclass(frozen=True)
class Field:
  """A default, and the values that may replace it: values of its type, within bounds.

  A plain default is a Field without bounds of its own: then whole numbers are 1 or more and others
  above 0. In tuples the bounds hold for every element.

  Attributes:
    value: the default, or a `Scaled`.
    least, most: inclusive bounds of numbers.
    above, below: exclusive bounds of numbers.
    choices: all allowed values.
    size: least number of elements of a tuple, or characters of a text.
    like: a value of the right type, if every default is an empty tuple.
    bytes: of the machine's memory that each unit takes, at least: 1 for characters of a text that
      is generated at once. What does not fit into free memory is refused.
  """

  value: Any
  least: float | None = None
  most: float = LARGEST
  above: float | None = None
  below: float = math.inf
  choices: tuple = ()
  size: int = 0
  like: Any = None
  bytes: int = 0

  def at(self, scale: str) -> Any:
    """The default at a scale."""
    return getattr(self.value, scale) if isinstance(self.value, Scaled) else self.value

  def check(self, name: str, value: Any) -> None:
    """Raises InputError, one sentence with the field's name, for an invalid value."""
    examples = [*self.value] if isinstance(self.value, Scaled) else [self.value]
    wrong = self._wrong(value, [*examples, *([] if self.like is None else [self.like])])
    if wrong:
      raise InputError(f'{name} must be {wrong}; got {_shown(value)}.')

  def _wrong(self, value: Any, examples: list[Any], inner: bool = False) -> str:
    """The requirement that the value violates, or ''; `examples` are values of the right type."""
    if isinstance(examples[0], tuple | list):
      return self._wrong_tuple(value, [tuple(one) for one in examples], inner)
    kind = float if any(isinstance(one, float) for one in examples) else type(examples[0])
    if kind is str:
      if not isinstance(value, str) or '\0' in value or len(value) > LONGEST:
        return f'text of at most {LONGEST:,} characters'
      if len(value) < self.size:
        return 'not empty'
      return self._not_chosen(value)
    if kind is bool:
      return '' if isinstance(value, bool) else 'True or False'
    return self._wrong_number(value, kind)

  def _wrong_number(self, value: Any, kind: type) -> str:
    words = 'a whole number' if kind is int else 'a number'
    right = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if not right or not math.isfinite(value):
      return words
    least, above = self.least, self.above
    if least is None and above is None:
      least, above = (1, None) if kind is int else (None, 0)
    if least is not None and value < least:
      return f'{least:,} or more'
    if above is not None and not value > above:
      return f'above {above:,}'
    if value > self.most:
      return f'{self.most:,} or less' if self.most != LARGEST else f'{words} below 2**42'
    if self.bytes and value * self.bytes > (free := memory.of_host()):
      return f'{free // self.bytes:,} or less where {free / 1e9:,.0f} GB of memory are free'
    return self._not_chosen(value) if value < self.below else f'below {self.below:,}'

  def _not_chosen(self, value: Any) -> str:
    return (
      f'one of {", ".join(map(str, self.choices))}'
      if value not in (self.choices or [value])
      else ''
    )

  def _wrong_tuple(self, value: Any, examples: list[tuple], inner: bool) -> str:
    """The same for a tuple: a list of any length, or a record with a type for each place."""
    every = [one for example in examples for one in example]
    such = f'such as {_shown(max(examples, key=len))}'
    if not isinstance(value, tuple | list):
      return f'a tuple {such}'
    if not inner and len(value) < self.size:
      return f'a tuple of {self.size} or more'
    likes = [every] * len(value)
    if inner or len({isinstance(one, str) for one in every}) > 1:
      if len(value) not in {len(one) for one in examples}:
        return f'a tuple {such}'
      likes = [[one[place] for one in examples if place < len(one)] for place in range(len(value))]
    for one, like in zip(value, likes, strict=True):
      if like and (wrong := self._wrong(one, like, inner=True)):
        return wrong if inner else f'a tuple {such}, each value {wrong}'
    return ''


class Section(dict):
  """Fields by name. `section | changes` has other defaults, with the same types and bounds."""

  def __or__(self, changes: Any) -> 'Section':
    merged = Section(self)
    for name, value in changes.items():
      known = self.get(name)
      if isinstance(known, Field) and not isinstance(value, Field):
        value = dataclasses.replace(known, value=value)
      merged[name] = value
    return merged


class Config(ConfigDict):
  """A config with the types and bounds of its fields."""

  def __init__(self, initial: Any = None, declared: Mapping[str, Field] | None = None, **options):
    super().__init__(initial, **options)
    object.__setattr__(self, '_declared', dict(declared or {}))

  @property
  def declared(self) -> Mapping[str, Field]:
    """Path of each field, such as m1.rates -> its Field."""
    return self._declared

  def check(self) -> None:
    """Raises InputError that names the first field with an invalid value."""
    for name, field in self.declared.items():
      value: Any = self
      for part in name.split('.'):
        value = value[part]
      field.check(name, value)


def build(sections: Mapping[str, Any], scale: str) -> Config:
  """The config of all sections at a scale."""
  declared = dict(_declared(sections))
  values: dict[str, Any] = {}
  for name, field in declared.items():
    *parents, last = name.split('.')
    place = values
    for part in parents:
      place = place.setdefault(part, {})
    place[last] = field.at(scale)
  return Config(values, declared)


def _declared(sections: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Field]]:
  """Every field by its path; a plain value is a Field without bounds."""
  for name, value in sections.items():
    if isinstance(value, Mapping):
      yield from _declared(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value if isinstance(value, Field) else Field(value)


def _shown(value: Any) -> str:
  try:
    text = repr(tuple(value) if isinstance(value, list) else value)
  except ValueError:  # too many digits
    text = f'a number of more than {sys.get_int_max_str_digits()} digits'
  return text if len(text) <= 80 else f'{text[:77]}…'
