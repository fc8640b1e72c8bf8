# SPDX-License-Identifier: Apache-2.0
"""A language that differs from a known one in its words alone: the dictionary is known exactly.

Words are exchanged by a fixed random bijection that keeps lengths and the case of each letter, so
that all documents keep their bytes' number, their grammar and their statistics.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from lib.data.sources import Source

WORD = re.compile(rb'[A-Za-z]+')


def bijection(documents: Iterable[bytes], seed: int) -> dict[bytes, bytes]:
  """A random bijection of the lower-case words of documents, each to one as long."""
  words = sorted({word.lower() for text in documents for word in WORD.findall(text)})
  rng = np.random.default_rng(seed)
  by_length: dict[int, list[bytes]] = {}
  for word in words:
    by_length.setdefault(len(word), []).append(word)
  return {
    word: some[i]
    for some in by_length.values()
    for word, i in zip(some, rng.permutation(len(some)))
  }


def relexify(text: bytes, words: Mapping[bytes, bytes]) -> bytes:
  """The text with each word exchanged; the case of its letters stays in place."""

  def other(found: re.Match[bytes]) -> bytes:
    word, lower = found[0], found[0].lower()
    new = words.get(lower, lower)
    return bytes(n & 0xDF if w < ord('a') else n for w, n in zip(word, new, strict=True))

  return WORD.sub(other, text)


class Relexified:
  """Documents of a source in the other language."""

  def __init__(self, source: Source, words: Mapping[bytes, bytes]):
    self._source, self._words = source, words

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> bytes:
    return relexify(self._source[index], self._words)
