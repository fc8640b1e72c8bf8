# SPDX-License-Identifier: Apache-2.0
"""Held-out excerpts: equal stretches of documents, each of which knows its document.

The document is the independent unit of every error, so excerpts carry its index.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from lib.errors import InputError


class Documents(Protocol):
  """Random access to anything that can be cut: documents as bytes, or as arrays of ids."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Excerpts:
  """N stretches of one length.

  Attributes:
    texts: the stretches, in the type of the documents (bytes, or arrays of ids).
    documents: int64 [N], the index of each stretch's document in the split.
  """

  texts: Sequence[Any]
  documents: np.ndarray

  def __len__(self) -> int:
    return len(self.texts)

  @property
  def distinct(self) -> int:
    """Number of documents that have a stretch here: the independent units."""
    return len(np.unique(self.documents))

  def where(self, keep: np.ndarray) -> 'Excerpts':
    """The stretches for which `keep`, bool [N], is true."""
    texts = [text for text, kept in zip(self.texts, keep, strict=True) if kept]
    return Excerpts(texts, self.documents[np.asarray(keep, bool)])


def take(
  source: Documents,
  *,
  length: int,
  count: int,
  most: int | None = None,
  seed: int = 0,
  prepare: Callable[[bytes], Any] = lambda document: document,
  name: str = 'the source',
) -> Excerpts:
  """Stretches of `length`, end to end, of documents in a fixed random order.

  Args:
    source: the documents of one split.
    length: of a stretch, in bytes or in ids; the rest of a document is left out.
    count: number of stretches wanted; fewer where the source has no more.
    most: stretches of one document at most, spread evenly over it; by default all.
    seed: of the order of documents.
    prepare: turns a document into what is cut, such as a tokenizer's `encode`.
    name: of the source and split, for the message.

  Raises:
    InputError: no document is long enough.
  """
  texts: list[Any] = []
  documents: list[int] = []
  for index in map(int, np.random.default_rng(seed).permutation(len(source))):
    document = prepare(source[index])
    starts: Sequence[int] = range(0, len(document) - length + 1, length)
    if most:
      starts = starts[:: max(1, len(starts) // most)][:most]
    for start in starts[: count - len(texts)]:
      texts.append(document[start : start + length])
      documents.append(index)
    if len(texts) >= count:
      break
  if not texts:
    raise InputError(
      f'no document of {name} is {length} long: choose shorter excerpts, or longer documents.'
    )
  return Excerpts(texts, np.array(documents, np.int64))
