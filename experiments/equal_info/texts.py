# SPDX-License-Identifier: Apache-2.0
"""Held-out documents, as the tables without M2 are measured on."""

from ml_collections import ConfigDict

from experiments import coders
from lib.data import excerpts
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
  source, total = config.data.source, examples * length
  return excerpts.of_split(source, 'test', length=length, total=total, most=1)
