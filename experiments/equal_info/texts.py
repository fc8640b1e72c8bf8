# SPDX-License-Identifier: Apache-2.0
"""The text of this experiment: what tokenizers count on, and held-out stretches to measure on."""

import numpy as np
from ml_collections import ConfigDict

from lib.data import sources
from lib.errors import InputError


def train(config: ConfigDict) -> list[bytes]:
  """Documents of the train split that learned tokenizers count on."""
  source = sources.open_source(config.data.source, 'train')
  return sources.sample(source, config.tokenizers.train_bytes)


def held_out(config: ConfigDict, examples: int, length: int) -> list[bytes]:
  """Beginnings of `length` bytes of so many documents of the test split, or of all that reach."""
  return stretches(config, 'test', length, examples * length, 1)


def stretches(
  config: ConfigDict, split: str, length: int, total: int, most: int | None = None
) -> list[bytes]:
  """Stretches of `length` bytes, end to end, of documents of a split in a fixed random order.

  At least one, and no more than about `total` bytes in all; the rest of a document is left out. Of
  more than `most` in a document, so many are taken that lie evenly in it.

  Raises:
    InputError: no document is so long.
  """
  source = sources.open_source(config.data.source, split)
  found: list[bytes] = []
  wanted = max(1, total // length)
  for index in np.random.default_rng(0).permutation(len(source)):
    document = source[int(index)]
    starts = range(0, len(document) - length + 1, length)
    if most:
      starts = starts[:: max(1, len(starts) // most)][:most]
    found += [document[start : start + length] for start in starts[: wanted - len(found)]]
    if len(found) == wanted:
      break
  if not found:
    raise InputError(
      f'no document of {config.data.source} ({split}) has {length} bytes: choose shorter examples, '
      'or longer documents.'
    )
  return found
