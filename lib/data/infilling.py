# SPDX-License-Identifier: Apache-2.0
"""Texts with a hole, as texts that a model reads from left to right (arXiv 2207.14255).

The text after the hole comes first, then the text before it, which the middle continues (the order
suffix, prefix, middle). The parts are marked by control characters, so any tokenizer of bytes can
read them.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from lib.data.sources import Source

SUFFIX, PREFIX = b'\x01', b'\x02'  # before each of these parts
END = b'\x03'  # after the middle


def prompt(prefix: bytes, suffix: bytes) -> bytes:
  """The text that the middle and END continue."""
  return SUFFIX + suffix + PREFIX + prefix


def middles(parts: Iterable[list[bytes]]) -> Iterator[list[bytes]]:
  """The parts of several sampled texts, each up to its END; stops once all have one."""
  ended: list[bool] = []
  for part in parts:
    ended = ended or [False] * len(part)
    yield [b'' if over else new.partition(END)[0] for new, over in zip(part, ended, strict=True)]
    ended = [over or END in new for new, over in zip(part, ended, strict=True)]
    if all(ended):
      return


class WithHoles:
  """Stretches of documents of a source, each with a random hole, as texts to train on.

  Args:
    source: the documents.
    length: bytes of a stretch; shorter documents are taken whole.
    copies: stretches of each document.
    seed: of the places of stretches and holes.
  """

  def __init__(self, source: Source, length: int, copies: int = 1, seed: int = 0):
    self._source, self._length, self._copies, self._seed = source, length, copies, seed

  def __len__(self) -> int:
    return len(self._source) * self._copies

  def __getitem__(self, index: int) -> bytes:
    """A prompt, its middle, and END."""
    document = self._source[index // self._copies]
    rng = np.random.default_rng([self._seed, index])
    start = int(rng.integers(max(len(document) - self._length, 0) + 1))
    text = document[start : start + self._length]
    first, stop = np.sort(rng.integers(len(text) + 1, size=2)).tolist()
    return prompt(text[:first], text[stop:]) + text[first:stop] + END
