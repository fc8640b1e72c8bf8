# SPDX-License-Identifier: Apache-2.0
"""The input and output tables of an embedding: read them, and put others in their place.

An embedding that has tables offers two methods, over its own part of the variables (collections of
arrays by name):

  get_tables(variables) -> Tables
  put_tables(variables, tables) -> (embedding, variables)

The second returns an embedding of the tables' vocabulary, which need not be the old one, with its
variables. What depends on no vocabulary, such as the BOS vector, stays.

Legend: V vocabulary, D model width.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from lib.errors import InputError

Variables = Mapping[str, Any]


class Tables(NamedTuple):
  """The vectors of a vocabulary.

  Attributes:
    input: [V, D], the vector that the decoder reads for each id.
    output: [V, D], the rows of the LM head: the logits are scale · hidden · outputᵀ + bias, with
      the embedding's own constant scale. For a tied embedding the same numbers as `input`.
    bias: [V], or None.
  """

  input: np.ndarray
  output: np.ndarray
  bias: np.ndarray | None = None


def get_tables(embedding: nn.Module, variables: Variables) -> Tables:
  """The tables of an embedding; raises InputError if it has none."""
  return _with_tables(embedding).get_tables(variables)


def put_tables(
  embedding: nn.Module, variables: Variables, tables: Tables
) -> tuple[nn.Module, Variables]:
  """An embedding of the same kind over other tables, and its variables.

  Raises:
    InputError: the embedding has no tables, or these do not fit it.
  """
  embedding = _with_tables(embedding)
  given, out = np.shape(tables.input), np.shape(tables.output)
  if len(given) != 2 or given[0] < 1 or out != given:
    raise InputError(f'tables must be two arrays [V, D] of one shape; got {given} and {out}.')
  if tables.bias is not None and np.shape(tables.bias) != given[:1]:
    raise InputError(f'the bias must be an array [{given[0]}]; got {np.shape(tables.bias)}.')
  return embedding.put_tables(variables, tables)


def check_width(tables: Tables, dim: int) -> None:
  """Raises InputError unless the tables are as wide as the model."""
  if tables.input.shape[1] != dim:
    raise InputError(
      f'tables of width {tables.input.shape[1]} do not fit a model of width {dim}: '
      f'give tables [V, {dim}].'
    )


def part_of(variables: Variables, name: str) -> dict[str, Any]:
  """The variables of one submodule: each collection's entry of that name."""
  return {collection: tree[name] for collection, tree in variables.items() if name in tree}


def with_part(variables: Variables, name: str, part: Variables) -> dict[str, Any]:
  """The variables with those of one submodule replaced."""
  old = {collection: dict(tree) for collection, tree in variables.items()}
  for tree in old.values():
    tree.pop(name, None)
  new = {c: old.get(c, {}) | {name: tree} for c, tree in part.items()}
  return {collection: tree for collection, tree in (old | new).items() if tree}


def _with_tables(embedding: nn.Module) -> Any:
  if not hasattr(embedding, 'get_tables'):
    raise InputError(
      f'an embedding of the class {type(embedding).__name__} has no tables: it draws the rows of '
      'its ids for each text.'
    )
  return embedding
