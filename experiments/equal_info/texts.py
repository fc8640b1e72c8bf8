# SPDX-License-Identifier: Apache-2.0
"""Excerpts of documents, to train and to measure on."""

from ml_collections import ConfigDict

from experiments import coders
from lib.data import excerpts, sources
from lib.data.excerpts import Excerpts
from lib.errors import InputError


def check(config: ConfigDict, table: str) -> None:
  """Raises InputError where M1 cannot be had, or not the excerpts of a table."""
  options = config[table]
  coders.check_m1(config)
  if options.examples < 2 or options.length < 16:
    raise InputError(
      f'{table}.examples must be 2 or more and {table}.length 16 or more; got '
      f'{options.examples} and {options.length}.'
    )
  held_out(config, options.examples, options.length)


def held_out(config: ConfigDict, examples: int, length: int) -> Excerpts:
  """The first `length` bytes of `examples` test documents, or of all that are so long."""
  return stretches(config, 'test', length, examples * length, 1)


def stretches(
  config: ConfigDict, split: str, length: int, total: int, most: int | None = None
) -> Excerpts:
  """Excerpts of `length` bytes of a split, about `total` bytes in all and at least one.

  Args:
    config: of the recipe.
    split: train, validation or test.
    length: bytes of an excerpt.
    total: bytes of all; fewer where the split has no more.
    most: excerpts of one document at most; by default as few as the number of documents allows.

  Raises:
    InputError: no document is long enough.
  """
  source = sources.open_source(config.data.source, split)
  count = max(1, total // length)
  name = f'{config.data.source} ({split})'
  return excerpts.take(source, length=length, count=count, most=most, name=name)
