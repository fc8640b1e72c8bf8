# SPDX-License-Identifier: Apache-2.0
"""From documents to batches: tokenize, shift, pack or pad, shuffle, resume exactly.

Neither batches nor the place in the data, which a checkpoint keeps, depend on how many processes
there are. In training each process reads only the lanes that fill the rows of its devices
(`lib.data.lanes`).

A row is a dict of int32 arrays [length]:
  targets    token ids
  inputs     targets of the same document shifted right by one, after the id `vocab_size`, which
             marks a document's beginning; a row that continues a document begins with the
             document's previous token
  bytes      bytes that each target covers
  segments   1, 2, ... for the documents in the row; 0 is padding, where all other fields are 0
  positions  place within the segment
and, where the loss is not over all tokens,
  scored     1 for targets that count, 0 for targets that are only read
"""

import functools
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import jax
import numpy as np
from numpy.typing import ArrayLike

from lib.data import excerpts
from lib.data import lanes as lane_rows
from lib.data.corpora import Corpus
from lib.data.encoded import Encoded
from lib.data.sources import Source
from lib.data.token_cache import TokenCache
from lib.errors import InputError
from lib.tokenizers.base import Tokenizer

FIELDS = ('targets', 'inputs', 'bytes', 'segments', 'positions')
# Rows of one long document would fill whole batches, so rows are shuffled within a window, which is
# read before the first batch: at most this many batches and this many tokens (a few megabytes).
SHUFFLE_BATCHES = 64
SHUFFLE_TOKENS = 2**18
SHUFFLE_ROWS = 16  # of a window of one lane among several, if the batches have as many
# Threads read and tokenize (compiled tokenizers release the GIL) a few documents ahead of each.
THREADS = min(16, max(4, os.cpu_count() or 1))
AT_HAND = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)  # for data in memory


def batches(
  source: Source | Encoded | Corpus | TokenCache,
  tokenizer: Tokenizer,
  *,
  batch_size: int,
  length: int,
  seed: int,
  pack: bool = True,
  context_bytes: int | None = None,
  example_bytes: int | None = None,
  shuffle: bool = True,
  repeat: bool = True,
  lanes: int = 1,
) -> grain.IterDataset:
  """Batches of rows [batch_size, length].

  `pack` joins documents end to end and splits them into rows; otherwise each document makes one
  row, cropped or padded to `length`. Iterators are checkpointable, and every epoch has another
  order. `context_bytes` keeps the tokens that begin within the document's first `context_bytes`
  bytes, so that tokenizers see equal text. The last token may extend beyond: dropping it would
  favour short tokens, since long ones, which cost less per byte, cross the end more often.

  `example_bytes`, with `pack`, cuts documents into examples of this size (`excerpts.pieces`), which
  are tokenized separately and packed whole, as by `pack_whole_documents`. Only an example of more
  than `length` tokens is split: it fills rows of its own, and the rest of it begins the next row.

  Documents of an `Encoded` source, a `Corpus` or a `TokenCache` are tokens of this tokenizer.

  `repeat=True`, for training, never ends. `repeat=False`, for evaluation, is one pass whose last
  batch is filled up with rows of segments 0.

  `lanes` is the number of lanes that training rows come from; 0 takes `lanes.default`. Evaluation
  reads all documents in one lane.

  Raises:
    InputError: no documents, an empty batch or row, `pack` together with `context_bytes`,
      `example_bytes` without `pack` or for tokens, or lanes that do not fit the batch or the
      documents.
  """
  if batch_size < 1 or length < 1:
    raise InputError(
      f'{batch_size} rows of {length} tokens are not a batch: choose 1 or more of both.'
    )
  if repeat and not len(source):
    raise InputError('the source has no document; training needs at least one.')
  if pack and context_bytes is not None:
    raise InputError('context_bytes needs one document per row; set pack=False with it.')
  coded = isinstance(source, Encoded | Corpus | TokenCache)
  if example_bytes is not None and (coded or not pack):
    raise InputError('examples are cut from bytes and packed; give bytes, and set pack=True.')
  count = (lanes or lane_rows.default(batch_size)) if repeat else 1

  def rows_of(lane: int, readers: int) -> grain.IterDataset:
    """The rows of a lane; `readers` are open at once."""
    documents = grain.MapDataset.source(source)
    if count > 1:
      documents = documents[lane::count]
    seed_here, size = lane_rows.seed_of(seed, lane), len(documents)
    if shuffle:
      documents = _InOrder(documents, seed_here)
    if repeat:
      documents = documents.repeat()
    options = AT_HAND if isinstance(source, Encoded) else _reading(readers)
    if example_bytes is None:
      tokens = _tokenized(documents, tokenizer, context_bytes)
    else:
      tokens = _tokenized_examples(documents, tokenizer, example_bytes)
    if pack:
      read = tokens.to_iter_dataset(options)
      if example_bytes is not None:
        read = grain.experimental.FlatMapIterDataset(read, _EachExample())
      rows = _Packed(read, length, size, whole=example_bytes is not None)
      if not shuffle:
        return rows
      within = SHUFFLE_TOKENS // (length * count)
      if count > 1:  # rows of different lanes are different documents already
        within = max(within, SHUFFLE_ROWS)
      window = max(1, min(SHUFFLE_BATCHES * batch_size // count, within))
      return _Shuffled(rows, window, seed_here)
    rows = tokens.map(functools.partial(_padded, length=length)).to_iter_dataset(options)
    return _WithTokens(rows, size) if repeat else rows

  if count != 1:
    lane_rows.check(count, batch_size, len(source))
    return lane_rows.Lanes(rows_of, count, batch_size)
  if repeat:
    return rows_of(0, 1).batch(batch_size)
  fill = functools.partial(grain.experimental.batch_and_pad, batch_size=batch_size)
  return rows_of(0, 1).batch(batch_size, batch_fn=fill)


def _reading(readers: int) -> grain.ReadOptions:
  """Threads and documents ahead of one of `readers` that share this host."""
  threads = max(1, THREADS // readers)
  return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)


def batch_from_ids(ids: ArrayLike, vocab_size: int) -> dict[str, np.ndarray]:
  """A batch of whole documents of equal length: one byte per token, no padding.

  Args:
    ids: tokens [B, T] or [replica, B, T], each row a document from its beginning.
    vocab_size: of the tokenizer, which is the id that marks a document's beginning.
  """
  targets = np.asarray(ids, np.int32)
  inputs = np.roll(targets, 1, axis=-1)
  inputs[..., 0] = vocab_size
  ones = np.ones_like(targets)
  return {
    'targets': targets, 'inputs': inputs, 'bytes': ones, 'segments': ones,
    'positions': np.cumsum(ones, axis=-1, dtype=np.int32) - 1,
  }  # fmt: skip


def prefixed(
  prefixes: Sequence[np.ndarray], ids: np.ndarray, room: int, vocab_size: int
) -> dict[str, np.ndarray]:
  """Rows [N, room + T] of a prefix, padded to one length, and then ids that alone are scored.

  Args:
    prefixes: ids [n] with n up to `room` of each row; none if `room` is 0.
    ids: integer [N, T], each of one byte.
    room: places for a prefix; 0 for none.
    vocab_size: the id before the first of the prefix, and before the first of `ids`.
  """
  count, size = ids.shape
  table = np.zeros((5, count, room + size), np.int32)
  targets, inputs, covered, segments, scored = table
  targets[:, room:] = ids
  covered[:, room:] = segments[:, room:] = scored[:, room:] = 1
  for row, prefix in enumerate(prefixes):
    targets[row, : prefix.size], segments[row, : prefix.size] = prefix, 1
  inputs[:, 1:] = targets[:, :-1]
  inputs[:, [0, room]] = vocab_size
  positions = np.tile(np.arange(room + size, dtype=np.int32), (count, 1))
  return {
    'targets': targets, 'inputs': inputs, 'bytes': covered, 'segments': segments,
    'positions': positions, 'scored': scored,
  }  # fmt: skip


def batches_of_rows(
  arrays: Mapping[str, np.ndarray], *, batch_size: int, seed: int
) -> grain.IterDataset:
  """Endless shuffled batches [batch_size, length] of rows that were made before.

  Args:
    arrays: the fields of N rows, [N, length] each, the row's `scored` among them if it has one.
    batch_size: rows of a step.
    seed: of the order, another in each epoch.
  """
  count = len(arrays['targets'])
  # Endless, but countable: the length of repeat() is too large to be batched by one.
  order = grain.MapDataset.range(count).seed(seed).shuffle().repeat((1 << 62) // count)
  return (
    order.batch(batch_size)
    .map(lambda picked: {field: values[picked] for field, values in arrays.items()})
    .to_iter_dataset(AT_HAND)
  )


def pack_whole_documents(documents: Encoded, vocab_size: int, length: int) -> dict[str, np.ndarray]:
  """Rows [N, length] of whole documents, each with as many as fit, in order.

  So no document is cut, and its tokens have the same context in every tokenizer's rows.

  Raises:
    InputError: a document of more than `length` tokens, or no token at all.
  """
  longest = int(documents.counts.max(initial=0))
  if not longest:
    raise InputError(_no_token(len(documents)))
  if longest > length:
    raise InputError(f'a document of {longest} tokens does not fit a row of {length}.')
  tables: list[np.ndarray] = []
  filled = segment = 0
  for ids, covered in documents:
    if not tables or filled + ids.size > length:
      tables.append(np.zeros((5, length), np.int32))
      filled = segment = 0
    segment += 1
    _put(tables[-1], filled, segment, _shifted(ids, covered, vocab_size))
    filled += ids.size
  return _row(np.stack(tables, axis=1))


def shapes(batch_size: int, length: int) -> dict[str, jax.ShapeDtypeStruct]:
  """What `batches` yields, without any data."""
  return dict.fromkeys(FIELDS, jax.ShapeDtypeStruct((batch_size, length), np.int32))


def stack_replicas(datasets: Sequence[grain.IterDataset]) -> grain.IterDataset:
  """Batches of several data sets side by side, [replica, batch, length]: one seed each."""
  return grain.experimental.ZipIterDataset(datasets).map(
    lambda replicas: {field: np.stack([r[field] for r in replicas]) for field in replicas[0]}
  )


def _tokenized(
  documents: grain.MapDataset, tokenizer: Tokenizer, context_bytes: int | None
) -> grain.MapDataset:
  """Documents as int32 arrays [3, tokens]: targets, inputs, bytes."""

  def tokenize(document: bytes | np.ndarray) -> np.ndarray:
    if isinstance(document, np.ndarray):
      ids, covered = document
    else:
      ids, covered = tokenizer.cover(document)
    if context_bytes is not None:
      begun = np.cumsum(covered) - covered < context_bytes
      ids, covered = ids[begun], covered[begun]
    return _shifted(ids, covered, tokenizer.vocab_size)

  return documents.map(tokenize)


def _tokenized_examples(
  documents: grain.MapDataset, tokenizer: Tokenizer, example_bytes: int
) -> grain.MapDataset:
  """The examples of each document, one or more, as int32 arrays [3, tokens]."""

  def tokenize(document: bytes) -> list[np.ndarray]:
    examples = excerpts.pieces(document, example_bytes) or [document]
    return [_shifted(*tokenizer.cover(one), tokenizer.vocab_size) for one in examples]

  return documents.map(tokenize)


class _EachExample(grain.experimental.FlatMapTransform):
  """From a document's examples to single ones."""

  max_fan_out = 2**31  # of no effect where the documents are iterated over

  def flat_map(self, element: list[np.ndarray]) -> list[np.ndarray]:
    return element


def _shifted(ids: np.ndarray, covered: np.ndarray, vocab_size: int) -> np.ndarray:
  """A document as int32 [3, tokens]: targets, inputs, bytes."""
  tokens = np.empty((3, len(ids)), np.int32)
  tokens[0], tokens[2] = ids, covered
  tokens[1, :1], tokens[1, 1:] = vocab_size, ids[:-1]
  return tokens


def _put(table: np.ndarray, start: int, segment: int, tokens: np.ndarray) -> None:
  """Writes one segment into `table` [5, length], the fields of a row."""
  count = tokens.shape[1]
  table[:3, start : start + count] = tokens
  table[3, start : start + count] = segment
  table[4, start : start + count] = np.arange(count)


@functools.lru_cache
def _order(size: int, seed: int) -> grain.MapDataset:
  """Endless places of `size` documents, shuffled again in each pass."""
  return grain.MapDataset.range(size).seed(seed).shuffle().repeat()


@functools.lru_cache(2**16)
def _place(size: int, seed: int, index: int) -> int:
  """One of them, remembered: of few documents grain finds a place by up to 2¹⁶ tries."""
  return _order(size, seed)[index]


class _InOrder(grain.MapDataset):
  """Documents in an order of their own in each pass."""

  def __init__(self, parent: grain.MapDataset, seed: int):
    super().__init__(parent)
    self._seed = seed

  def __len__(self) -> int:
    return len(self._parent)

  def __getitem__(self, index: Any) -> Any:
    if isinstance(index, slice):
      return self.slice(index)
    return self._parent[_place(len(self), self._seed, index)]


def _row(table: np.ndarray) -> dict[str, np.ndarray]:
  return dict(zip(FIELDS, table, strict=True))


def _no_token(documents: int) -> str:
  return f'none of the {documents} documents gives a token; give documents with text in them.'


def _padded(tokens: np.ndarray, length: int) -> dict[str, np.ndarray]:
  table = np.zeros((5, length), np.int32)
  _put(table, 0, 1, tokens[:, :length])
  return _row(table)


class _WithTokens(grain.IterDataset):
  """Endless rows of one document each; InputError where a whole pass has no token."""

  def __init__(self, parent: grain.IterDataset, documents: int):
    super().__init__(parent)
    self._documents = documents

  def __iter__(self) -> grain.DatasetIterator:
    return _WithTokensIterator(iter(self._parent), self._documents)


class _WithTokensIterator(grain.DatasetIterator):
  def __init__(self, parent: grain.DatasetIterator, documents: int):
    super().__init__(parent)
    self._documents, self._empty = documents, 0

  def __next__(self) -> dict[str, np.ndarray]:
    row = next(self._parent)
    self._empty = 0 if row['segments'].any() else self._empty + 1
    if self._empty >= 2 * self._documents:  # a token at the start of a pass and the end of the next
      raise InputError(_no_token(self._documents))
    return row

  def get_state(self) -> dict[str, Any]:
    return self._parent.get_state()

  def set_state(self, state: dict[str, Any]) -> None:
    self._parent.set_state(state)
    self._empty = 0


class _Packed(grain.IterDataset):
  """Documents [3, tokens] joined end to end and split into rows.

  With `whole`, a document that does not fit into the rest of a row begins the next row.

  grain 0.2.18 has ConcatThenSplitIterDataset, but it loses a document when its state has been
  through JSON, as in every checkpoint (a tuple comes back as a list). Here the state is the place
  of the next row's first token: the reader's state before its document, and the offset in it.
  """

  def __init__(self, parent: grain.IterDataset, length: int, documents: int, whole: bool):
    super().__init__(parent)
    self._length, self._documents, self._whole = length, documents, whole

  def __iter__(self) -> grain.DatasetIterator:
    return _PackedIterator(iter(self._parent), self._length, self._documents, self._whole)


class _PackedIterator(grain.DatasetIterator):
  def __init__(self, parent: grain.DatasetIterator, length: int, documents: int, whole: bool):
    super().__init__(parent)
    self._length, self._documents, self._whole = length, documents, whole  # documents of a pass
    self._start = parent.get_state()
    self._offset = 0
    self._document: np.ndarray | None = None

  def __next__(self) -> dict[str, np.ndarray]:
    table = np.zeros((5, self._length), np.int32)
    filled = segment = empty = 0
    while filled < self._length:
      if empty >= 2 * self._documents:  # a token at the start of a pass and the end of the next
        raise InputError(_no_token(self._documents))
      try:
        document = self._current()
      except StopIteration:
        if filled:
          break
        raise
      room = self._length - filled
      if self._whole and filled and document.shape[1] - self._offset > room:
        break
      piece = document[:, self._offset : self._offset + room]
      empty = 0 if piece.shape[1] else empty + 1
      if piece.shape[1]:
        segment += 1
        _put(table, filled, segment, piece)
        filled += piece.shape[1]
      self._advance(piece.shape[1])
    return _row(table)

  def _current(self) -> np.ndarray:
    if self._document is None:
      self._document = next(self._parent)
    return self._document

  def _advance(self, tokens: int) -> None:
    assert self._document is not None
    self._offset += tokens
    if self._offset >= self._document.shape[1]:
      self._document, self._offset, self._start = None, 0, self._parent.get_state()

  def get_state(self) -> dict[str, Any]:
    return {'parent': self._start, 'offset': self._offset}

  def set_state(self, state: dict[str, Any]) -> None:
    self._parent.set_state(state['parent'])
    self._start = state['parent']
    self._offset = state['offset']
    self._document = None


class _Shuffled(grain.IterDataset):
  """Rows shuffled within windows of `window` rows, each window in another order.

  grain 0.2.18 has WindowShuffleIterDataset, which draws a row's place among 2¹⁶ again and again
  until it lies in the window: half of the time of reading rows that are tokens already.
  """

  def __init__(self, parent: grain.IterDataset, window: int, seed: int):
    super().__init__(parent)
    self._window = window
    self._seed = seed

  def __iter__(self) -> grain.DatasetIterator:
    return _ShuffledIterator(iter(self._parent), self._window, self._seed)


class _ShuffledIterator(grain.DatasetIterator):
  def __init__(self, parent: grain.DatasetIterator, window: int, seed: int):
    super().__init__(parent)
    self._window = window
    self._seed = seed
    self._begin(parent.get_state(), 0, 0)

  def _begin(self, start: dict[str, Any], number: int, place: int) -> None:
    """Goes to a place in a window, whose rows are read when they are asked for."""
    self._start, self._number, self._place = start, number, place
    self._rows: list[dict[str, np.ndarray]] | None = None

  def __next__(self) -> dict[str, np.ndarray]:
    if self._rows is None:
      rows = list(itertools.islice(self._parent, self._window))
      order = np.random.default_rng((self._seed, self._number)).permutation(len(rows))
      self._rows = [rows[i] for i in order]
    if self._place == len(self._rows):
      raise StopIteration
    row = self._rows[self._place]
    self._place += 1
    if self._place == self._window:
      self._begin(self._parent.get_state(), self._number + 1, 0)
    return row

  def get_state(self) -> dict[str, Any]:
    return {'parent': self._start, 'number': self._number, 'place': self._place}

  def set_state(self, state: dict[str, Any]) -> None:
    self._parent.set_state(state['parent'])
    self._begin(state['parent'], state['number'], state['place'])
