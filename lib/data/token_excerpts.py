# SPDX-License-Identifier: Apache-2.0
"""Held-out excerpts of equal length, in tokens: cut, scored, and summed by document."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lib import stats
from lib.data import excerpts
from lib.data.excerpts import Documents
from lib.data.ngram_text import NgramText
from lib.tokenizers.base import Tokenizer

Batch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class HeldOut:
  """N rows of T tokens, as batches.

  Attributes:
    batches: the fields of `lib.data.pipeline`, [B, T]; the last batch is filled up with padding.
    units: [N], the independent unit of each row, such as its document.
    bytes: float64 [N], the number that the targets of each row cover.
    starts: int64 [N], bytes of the document before the first target; None if they are unknown.
  """

  batches: Sequence[Batch]
  units: np.ndarray
  bytes: np.ndarray
  starts: np.ndarray | None = None

  def sums(self, of_batch: Callable[[Batch], np.ndarray]) -> np.ndarray:
    """Sums [N] over the targets of each row that count; `of_batch` gives values [B, T].

    Targets at padding do not count, nor those for which `scored` is 0.
    """
    return np.concatenate(
      [
        np.where(
          (batch['segments'] > 0) & (batch.get('scored', 1) > 0),
          np.asarray(of_batch(batch), np.float64),
          0,
        ).sum(axis=1)
        for batch in self.batches
      ]
    )[: len(self.units)]

  def bits(self, nats: Sequence[np.ndarray]) -> np.ndarray:
    """The contribution of each of D units to bits per byte, [S, D]; the mean is that of all text.

    Args:
      nats: of each row, [N], for each of S models.
    """
    above = stats.by_group(np.stack(nats), self.units)
    below = stats.by_group(self.bytes, self.units)
    return stats.contributions(above, below) / np.log(2)

  def law_nats(self, source: NgramText) -> np.ndarray:
    """Nats [N] under the exact law of the source, which reads whole documents."""
    of_document = functools.cache(lambda index: source.nats(source[index]))
    assert self.starts is not None
    ends = self.starts + self.bytes.astype(np.int64)
    places = zip(self.units.tolist(), self.starts, ends, strict=True)
    return np.array([of_document(index)[start:end].sum() for index, start, end in places])


def of_rows(
  rows: Batch, batch_size: int, units: Sequence | np.ndarray, starts: np.ndarray | None = None
) -> HeldOut:
  """Rows [N, T] as batches of one size; bytes of targets that are not `scored` do not count."""
  padding = [(0, -len(units) % batch_size), (0, 0)]
  filled = {field: np.pad(values, padding) for field, values in rows.items()}
  batches = [
    {field: values[start : start + batch_size] for field, values in filled.items()}
    for start in range(0, len(units), batch_size)
  ]
  covered = (rows['bytes'] * rows.get('scored', 1)).sum(axis=1).astype(np.float64)
  return HeldOut(batches, np.asarray(units), covered, starts)


def cut(
  source: Documents,
  tokenizer: Tokenizer,
  *,
  length: int,
  count: int,
  batch_size: int,
  most: int | None = None,
  name: str = 'the source',
) -> HeldOut:
  """`count` excerpts of `length` targets, or fewer if the source has no more.

  The first input is the token before the targets, as in a training row that continues a document.

  Args:
    source: the documents of one split.
    tokenizer: bytes to ids.
    length: targets of an excerpt.
    count: number of excerpts wanted.
    batch_size: rows of a batch.
    most: the most excerpts of one document.
    name: of the source and split, for the message.

  Raises:
    InputError: no document is long enough.
  """

  def columns(document: bytes) -> np.ndarray:
    """Ids, the bytes that each covers, and the bytes before it, int64 [n, 3]."""
    ids, covered = tokenizer.cover(document)
    return np.stack((ids, covered, np.cumsum(covered, dtype=np.int64) - covered), axis=1)

  found = excerpts.take(
    source, length=length + 1, count=count, most=most, prepare=columns, name=f'{name}, in tokens'
  )
  ids, covered, before = np.moveaxis(np.stack(found.texts), -1, 0)
  ones = np.ones_like(ids[:, 1:], np.int32)
  rows = {
    'targets': ids[:, 1:].astype(np.int32),
    'inputs': ids[:, :-1].astype(np.int32),
    'bytes': covered[:, 1:].astype(np.int32),
    'segments': ones,
    'positions': np.cumsum(ones, axis=1, dtype=np.int32) - 1,
  }
  return of_rows(rows, batch_size, found.documents, before[:, 1])
