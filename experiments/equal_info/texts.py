# SPDX-License-Identifier: Apache-2.0
"""The text of this experiment: excerpts of documents to train and to measure on."""

from ml_collections import ConfigDict

from lib.data import excerpts, sources
from lib.data.excerpts import Excerpts


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
