# SPDX-License-Identifier: Apache-2.0
"""A Flax module as plain JSON: its class by name and its dataclass fields, which can be modules.

  {"class": "Learned", "fields": {"vocab_size": 256, "dtype": {"dtype": "float32"}, …}}

Only classes of the registry are made; nothing is imported by name and nothing is unpickled.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from lib.embeddings.fixed import FixedRows
from lib.embeddings.learned import Learned
from lib.embeddings.lexinvariant import AnnealedLexinvariant, Lexinvariant
from lib.embeddings.partial import Interchangeable, PartlyRandom, PermutedIds
from lib.embeddings.short_conv import ShortConv
from lib.embeddings.table_pairs import part_of
from lib.errors import InputError
from lib.models.decoder import Decoder, LanguageModel
from lib.models.hierarchy import Hierarchy
from lib.models.recurrence import RecurrentDecoder
from lib.models.routers import Cosine, Entropy, Marked, Spaces, Stride

REGISTRY: dict[str, type[nn.Module]] = {
  module.__name__: module
  for module in (
    LanguageModel, Decoder, Learned, FixedRows, Lexinvariant, AnnealedLexinvariant, PermutedIds,
    PartlyRandom, Interchangeable, ShortConv, RecurrentDecoder, Hierarchy, Cosine, Stride, Spaces,
    Entropy, Marked,
  )
}  # fmt: skip
DTYPES = ('float32', 'bfloat16', 'float16', 'float64')
INHERITED = ('parent', 'name')  # fields that Flax adds
# Names of classes, fields and weights in folders of earlier versions.
RENAMED = {
  'FixedRows': 'FixedRows',
  'PartlyRandom': 'PartlyRandom',
  'ShortConv': 'ShortConv',
  'logit_scale': 'logit_scale',
  'row_sampling': 'row_sampling',
  'begin': 'bos',
  'lm_head_table': 'lm_head_table',
  'lm_head_bias': 'lm_head_bias',
  'preceding': 'short_conv',
}


def register(module: type[nn.Module]) -> type[nn.Module]:
  """Lets models with modules of this class be saved and loaded; a decorator of the class.

  Raises:
    InputError: another class has this name.
  """
  if REGISTRY.setdefault(module.__name__, module) is not module:
    raise InputError(f'there is another module class {module.__name__}: choose another name.')
  return module


def as_data(module: nn.Module, variables: Mapping[str, Any]) -> nn.Module:
  """An equal module whose fields are plain data, without functions that only make initial
  variables.

  A class with such a field has a method `as_data(variables)`. Dtypes become `np.dtype`, so that
  modules of equal fields are equal.
  """
  if hasattr(module, 'as_data'):
    module = module.as_data(variables)
  changed: dict[str, Any] = {}
  for name, value in _fields(module).items():
    if isinstance(value, nn.Module):
      changed[name] = as_data(value, part_of(variables, name))
    elif _is_dtype(value):
      changed[name] = jnp.dtype(value)
  return module.clone(**changed)


def to_json(module: nn.Module) -> dict[str, Any]:
  """The module as JSON-like values.

  Raises:
    InputError: a class that is not registered, or a field that is not plain data.
  """
  name = type(module).__name__
  if REGISTRY.get(name) is not type(module):
    raise InputError(
      f'a model with the module class {name} cannot be saved: put @language_model.register before '
      'the class.'
    )
  fields = {field: _value(name, field, value) for field, value in _fields(module).items()}
  return {'class': name, 'fields': fields}


def from_json(value: Any) -> nn.Module:
  """The module from the output of `to_json`.

  Raises:
    InputError: an unknown class or field, or an invalid value.
  """
  if not isinstance(value, dict) or set(value) != {'class', 'fields'}:
    raise InputError('a module must be a class and its fields.')
  name, fields = value['class'], value['fields']
  if isinstance(name, str) and name not in REGISTRY:
    name = RENAMED.get(name, name)
  if not isinstance(name, str) or name not in REGISTRY or not isinstance(fields, dict):
    raise InputError(
      f'the module class {name!r} is unknown: it must be one of {", ".join(REGISTRY)}, or be '
      'registered with language_model.register.'
    )
  known = {field.name for field in dataclasses.fields(REGISTRY[name])} - set(INHERITED)
  fields = {f if f in known else RENAMED.get(f, f): given for f, given in fields.items()}
  for field in fields:
    if field not in known:
      raise InputError(f'the module class {name} has no field {field!r}.')
  try:
    return REGISTRY[name](**{field: _from_value(given) for field, given in fields.items()})
  except TypeError as error:
    raise InputError(f'the module class {name} cannot be made: {error}') from error


def _fields(module: nn.Module) -> dict[str, Any]:
  names = [field.name for field in dataclasses.fields(module) if field.init]
  return {name: getattr(module, name) for name in names if name not in INHERITED}


def _is_dtype(value: Any) -> bool:
  return isinstance(value, np.dtype | type(jnp.float32)) or (
    isinstance(value, type) and issubclass(value, np.generic)
  )


def _value(name: str, field: str, value: Any) -> Any:
  if isinstance(value, nn.Module):
    return to_json(value)
  if _is_dtype(value) and jnp.dtype(value).name in DTYPES:
    return {'dtype': jnp.dtype(value).name}
  if isinstance(value, np.integer | np.floating):
    value = value.item()
  if value is None or isinstance(value, bool | int | str):
    return value
  if isinstance(value, float) and math.isfinite(value):
    return value
  if isinstance(value, tuple | list):
    return [_value(name, field, one) for one in value]
  raise InputError(
    f'the field {field} of {name} is {value!r}, which cannot be saved: a field must be a number, a '
    'text, a dtype, a module or a tuple of these.'
  )


def _from_value(value: Any) -> Any:
  if isinstance(value, list):
    return tuple(map(_from_value, value))
  if not isinstance(value, dict):
    return value
  if set(value) != {'dtype'}:
    return from_json(value)
  if value['dtype'] not in DTYPES:
    raise InputError(f'the dtype {value["dtype"]!r} is not one of {", ".join(DTYPES)}.')
  return jnp.dtype(value['dtype'])
