# SPDX-License-Identifier: Apache-2.0
"""Held-out excerpts: stretches of equal length, each with the index of its document.

The document is the independent unit of every error, so each excerpt has its document's index.
"""

import bisect
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from lib.data import sources
from lib.errors import InputError

LOOK = 10_000  # after this many short documents in a row, the rest are assumed to be too short


class Documents(Protocol):
  """Random access to anything that can be cut: documents as bytes, or as arrays of ids."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Excerpts:
  """N stretches of one length; the last of a document that is cut whole may be shorter.

  Attributes:
    texts: the stretches, in the type of the documents (bytes, or arrays of ids).
    documents: int64 [N], the index of each stretch's document in the split.
  """

  texts: Sequence[Any]
  documents: np.ndarray

  def __len__(self) -> int:
    return len(self.texts)

  @property
  def ids(self) -> np.ndarray:
    """The stretches as one array [N, length], if they are ids."""
    return np.stack(self.texts)

  @property
  def distinct(self) -> int:
    """Number of documents that have a stretch here: the independent units."""
    return len(np.unique(self.documents))

  def where(self, keep: np.ndarray) -> 'Excerpts':
    """The stretches for which `keep`, bool [N], is true."""
    texts = [text for text, kept in zip(self.texts, keep, strict=True) if kept]
    return Excerpts(texts, self.documents[np.asarray(keep, bool)])


def of_split(
  source: str, split: str, *, length: int, total: int, most: int | None = None
) -> Excerpts:
  """Stretches of `length` bytes of a split, about `total` bytes in all and at least one.

  Args:
    source: as `sources.open_source` takes it.
    split: train, validation or test.
    length: bytes of a stretch.
    total: bytes of all; fewer where the split has no more.
    most: as of `take`.

  Raises:
    InputError: no document is long enough.
  """
  documents, name = sources.open_source(source, split), f'{source} ({split})'
  return take(documents, length=length, count=max(1, total // length), most=most, name=name)


def pieces(document: bytes, length: int) -> list[bytes]:
  """The whole document in stretches of `length` bytes, of which the last may be shorter."""
  return [document[start : start + length] for start in range(0, len(document), length)]


def of_whole_documents(source: str, split: str, *, length: int, total: int) -> Excerpts:
  """The `pieces` of a random sample of documents, about `total` bytes in all.

  The sample is that of `sources.sample`, and documents are numbered in its order.
  """
  sample = sources.sample(sources.open_source(source, split), total)
  cut = [pieces(document, length) for document in sample]
  numbers = np.repeat(np.arange(len(cut)), [len(one) for one in cut])
  return Excerpts([piece for one in cut for piece in one], numbers)


def take(
  source: Documents,
  *,
  length: int,
  count: int,
  most: int | None = None,
  seed: int = 0,
  prepare: Callable[[bytes], Any] | None = None,
  name: str = 'the source',
) -> Excerpts:
  """Stretches of `length`, spread over as many documents as the source allows.

  Documents are sampled evenly over the split (`sources.stratified`). Each gives one
  stretch; if there are fewer documents than stretches, each gives two, then three, and so on. The
  stretches of a document are evenly spaced in it.

  Args:
    source: the documents of one split.
    length: of a stretch, in bytes or in ids.
    count: number of stretches wanted; fewer if the source has no more.
    most: the most stretches of one document; 1 means the beginnings of documents. By default
      unlimited.
    seed: of the choice of documents and of places in them.
    prepare: turns a document into what is cut, such as a tokenizer's `encode`.
    name: of the source and split, for the message.

  Raises:
    InputError: no document is long enough, or none of the first LOOK that were sampled.
  """
  too_short = InputError(
    f'no document of {name} is {length} long: choose shorter excerpts, or longer documents.'
  )
  if prepare is None:
    prepare = lambda document: document
    if getattr(source, 'length', length) < length:  # of all documents
      raise too_short
  rooms: dict[int, int] = {}  # document -> stretches that it can give
  idle = 0
  for index in sources.stratified(len(source), seed):
    room = len(prepare(source[index])) // length
    idle = 0 if room else idle + 1
    if room:
      rooms[index] = min(room, most or room)
    if len(rooms) >= count or idle >= LOOK:
      break
  if not rooms:
    raise too_short
  rng = np.random.default_rng(seed)
  texts: list[Any] = []
  documents: list[int] = []
  shares = _shares(np.array(list(rooms.values())), count)
  for index, share in zip(rooms, shares.tolist(), strict=True):
    document = prepare(source[index])
    step = len(document) // length // max(share, 1)
    first = 0 if most == 1 else int(rng.integers(step))
    for start in range(first, first + share * step, step):
      texts.append(document[start * length : (start + 1) * length])
      documents.append(index)
  return Excerpts(texts, np.array(documents, np.int64))


def _shares(rooms: np.ndarray, count: int) -> np.ndarray:
  """How many stretches each document gives: `count` in all, as equally as `rooms` allow."""
  wanted = min(count, int(rooms.sum()))
  given = lambda each: np.minimum(rooms, each)
  each = bisect.bisect_left(range(int(rooms.max())), wanted, key=lambda each: given(each).sum())
  found = given(each)
  found[np.flatnonzero(found == each)[::-1][: found.sum() - wanted]] -= 1
  return found
