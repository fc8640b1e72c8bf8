# SPDX-License-Identifier: Apache-2.0
"""The text of this experiment: what tokenizers count on, and held-out stretches to measure on."""

import numpy as np
from ml_collections import ConfigDict

from lib.data import sources
from lib.errors import InputError


def train(config: ConfigDict) -> list[bytes]:
  """Documents of the train split that learned tokenizers count on."""
  source = sources.open_source(config.data.source, 'train')
  return sources.take(source, config.tokenizers.train_bytes)


def held_out(config: ConfigDict, examples: int, length: int, split: str = 'test') -> list[bytes]:
  """Stretches of `length` bytes, each the beginning of another document of a split.

  Documents come in a fixed random order; those that are shorter are passed over. Fewer stretches
  come where there are not enough documents.

  Raises:
    InputError: no document is so long.
  """
  source = sources.open_source(config.data.source, split)
  found: list[bytes] = []
  for index in np.random.default_rng(0).permutation(len(source)):
    document = source[int(index)]
    if len(document) >= length:
      found.append(document[:length])
    if len(found) == examples:
      break
  if not found:
    raise InputError(
      f'no document of {config.data.source} ({split}) has {length} bytes: choose shorter examples, '
      'or longer documents.'
    )
  return found
