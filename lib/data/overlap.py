# SPDX-License-Identifier: Apache-2.0
"""Text that two splits share: its amount, and held-out documents without it.

Overlap is the share of held-out bytes inside exact stretches of at least `STRETCH` bytes
that also occur in a document of the training text, at any offset. Every match is confirmed byte by
byte, so the measure is exact.

The held-out text is indexed, and the training text streams through, twice. A stretch of 100 bytes
contains one of the windows of 50 bytes that begin at multiples of 51. First these windows are
looked up in the training text; then all windows of 100 bytes around the matches. Both take time
proportional to the text, even if it is repetitive.

Memory: 3 bytes for each held-out byte, at most 1 GiB more, and one training document.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numba
import numpy as np

from lib.tokenizers import utf8

STRETCH = 100  # length in bytes of a shared stretch
LIMIT = 0.005  # largest overlap of a cleaned split
LINE = 1000  # bytes: lines up to this length are cut as a whole
LEFT = 0.25  # bytes of a cut document; a shorter one is dropped
BLOCK = 1 << 24  # windows that are looked up at once
BASE = np.uint64(0x9E3779B97F4A7C15 | 1)  # of the polynomial hash, modulo 2**64
SPREAD = np.uint64(0xD6E8FEB86659FD93)  # takes the hash's high bits to its place in the table

VERSION = 2  # version of the rules for splits and cuts; part of every cache's name

Pieces = Sequence[tuple[int, int]]  # (first byte, end) of a part that is kept


class Documents(Protocol):
  """Random access to documents."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> bytes: ...


class Overlap(NamedTuple):
  """Overlap of held-out documents with the training text.

  Attributes:
    before: of the documents as they were.
    after: of what is kept.
    kept: share of their bytes that is kept.
  """

  before: float
  after: float
  kept: float


class Cut(NamedTuple):
  """Held-out documents without the text that they share with other splits.

  Attributes:
    pieces: what is kept of each document, in order; empty for a dropped document.
    overlap: before and after.
  """

  pieces: Sequence[Pieces]
  overlap: Overlap

  def join(self, held: Documents) -> list[bytes]:
    """What is kept of each document; b'' for a dropped document."""
    return [
      b''.join(held[index][start:stop] for start, stop in pieces)
      for index, pieces in enumerate(self.pieces)
    ]


def clean(train: Documents, validation: Documents, test: Documents) -> dict[str, Cut]:
  """Validation and test without text of train, and test also without text of validation.

  Returns:
    {'validation': Cut, 'test': Cut}; train is unchanged.
  """
  first = cut(validation, train)
  return {'validation': first, 'test': cut(test, train, first.join(validation))}


def share(held: Documents, train: Documents) -> float:
  """Overlap of held-out documents with training documents; 0 for no text."""
  return _mean(marks(held, train))


def cut(held: Documents, train: Documents, *more: Documents) -> Cut:
  """Cuts out of held-out documents the text that `train` or `more` documents also contain.

  Whole lines are cut, and parts of lines longer than `LINE` bytes. A document with less
  than `LEFT` bytes left is dropped. The rest of a document is joined and checked again, until at
  most `LIMIT` of the bytes are shared.

  Args:
    held: the held-out documents.
    train: the training documents, which `before` and `after` are measured against.
    *more: other documents that held-out text must not share, such as those of validation.
  """
  texts = [held[index] for index in range(len(held))]
  pieces: list[Pieces] = [[(0, len(text))] if text else [] for text in texts]
  size, before = sum(map(len, texts)), None
  while True:
    found = marks(texts, train)
    overlap = _mean(found)
    for other in more:
      found = [a | b for a, b in zip(found, marks(texts, other), strict=True)]
    shared = any(one.any() for one in found)
    if before is None:
      before = overlap
    elif _mean(found) <= LIMIT:
      shared = False
    if not shared:
      kept = sum(map(len, texts)) / size if size else 1.0
      return Cut(pieces, Overlap(before, overlap, kept))
    for index, marked in enumerate(found):
      if marked.any():
        whole = held[index]
        pieces[index] = _without(pieces[index], _gaps(texts[index], marked))
        if sum(stop - start for start, stop in pieces[index]) < LEFT * len(whole):
          pieces[index] = []
        texts[index] = b''.join(whole[start:stop] for start, stop in pieces[index])


def marks(held: Documents, train: Documents, length: int = STRETCH) -> list[np.ndarray]:
  """Which bytes are in stretches of `length` bytes or more that also occur in a training document.

  Returns:
    A bool array [bytes] for each held-out document.
  """
  texts = [np.frombuffer(held[index], np.uint8) for index in range(len(held))]
  stops = np.cumsum([0, *(text.size for text in texts)])
  text = np.concatenate([np.zeros(0, np.uint8), *texts])
  width = length // 2
  stride = length - width + 1
  seeds = _ranges(stops[:-1], stops[1:] - width + 1, stride)
  seeds = seeds[_present(text, seeds, width, train)]
  document = np.searchsorted(stops, seeds, side='right')  # the next document's place
  first = np.maximum(seeds - (length - width), stops[document - 1])
  around = _covered(first, np.minimum(seeds, stops[document] - length) + 1, text.size)
  windows = np.flatnonzero(around)
  del around
  windows = windows[_present(text, windows, length, train)]
  found = _covered(windows, windows + length, text.size)
  return [found[start:stop] for start, stop in itertools.pairwise(stops.tolist())]


def _mean(marked: Sequence[np.ndarray]) -> float:
  size = sum(one.size for one in marked)
  return sum(int(np.count_nonzero(one)) for one in marked) / size if size else 0.0


def _gaps(text: bytes, marked: np.ndarray) -> Pieces:
  """The parts of a document to cut out.

  A marked stretch removes the lines that it covers by half or more, or, if there are none, all
  lines that it touches. In a line longer than `LINE` it removes the marked characters only.
  """
  edges = np.flatnonzero(np.diff(marked, prepend=False, append=False))
  found: list[tuple[int, int]] = []
  for first, last in edges.reshape(-1, 2).tolist():
    start = text.rfind(b'\n', max(0, first - LINE), first) + 1
    if not start and first > LINE:
      start = utf8.boundary(text, first)
    stop = text.find(b'\n', last - 1, last + LINE) + 1
    if not stop:
      stop = len(text) if last + LINE >= len(text) else _after(text, last)
    lines = []
    while start < stop:
      end = text.find(b'\n', start, stop) + 1 or stop
      lines.append((start, end))
      start = end
    covered = lambda line, first=first, last=last: min(line[1], last) - max(line[0], first)
    found += [line for line in lines if 2 * covered(line) >= line[1] - line[0]] or lines
  return found


def _after(text: bytes, at: int) -> int:
  """The first place at or after `at` where no UTF-8 character is cut."""
  return next((place for place in range(at, at + 4) if utf8.boundary(text, place) == place), at)


def _without(pieces: Pieces, gaps: Pieces) -> Pieces:
  """`pieces` without `gaps`, whose places count in the joined pieces."""
  left, begin = [], 0
  for start, stop in pieces:
    size = stop - start
    place = 0
    for first, last in gaps:
      first, last = (min(max(at - begin, place), size) for at in (first, last))
      if place < first:
        left.append((start + place, start + first))
      place = max(place, last)
    if place < size:
      left.append((start + place, stop))
    begin += size
  return left


def _ranges(starts: np.ndarray, stops: np.ndarray, step: int) -> np.ndarray:
  """Every `step`-th number of each range, int64."""
  counts = np.maximum(-((starts - stops) // step), 0)
  ends = np.cumsum(counts)
  within = np.arange(ends[-1] if ends.size else 0) - np.repeat(ends - counts, counts)
  return np.repeat(starts, counts) + step * within


def _present(text: np.ndarray, starts: np.ndarray, width: int, train: Documents) -> np.ndarray:
  """Which windows of `text` at `starts` occur in a training document, bool [starts]."""
  parts = [np.zeros(0, bool)]
  for begin in range(0, starts.size, BLOCK):
    block = starts[begin : begin + BLOCK]
    table = np.full(1 << (2 * block.size - 1).bit_length(), -1, np.int32)
    hashes = np.zeros(block.size, np.uint64)
    same = np.zeros(block.size, np.int32)
    _index(text, block, width, table, hashes, same)
    seen = np.zeros(block.size, bool)
    for document in _each(train):
      _look_up(document, text, block, width, table, hashes, seen)
    parts.append(seen[same])
  return np.concatenate(parts)


def _each(documents: Documents) -> Iterator[np.ndarray]:
  for index in range(len(documents)):
    yield np.frombuffer(documents[index], np.uint8)


@numba.njit(cache=True, nogil=True)
def _index(text, starts, width, table, hashes, same):
  """Puts the windows into `table`, each distinct one once; `same` is the first equal window."""
  shift = _shift(table)
  for i in range(starts.size):
    code = np.uint64(0)
    for j in range(width):
      code = code * BASE + np.uint64(text[starts[i] + j])
    hashes[i] = code
    place = np.int64((code * SPREAD) >> shift)
    while table[place] >= 0:
      known = table[place]
      if hashes[known] == code and _equal(text, starts[known], text, starts[i], width):
        break
      place = (place + 1) & (table.size - 1)
    if table[place] < 0:
      table[place] = i
    same[i] = table[place]


@numba.njit(cache=True, nogil=True)
def _look_up(data, text, starts, width, table, hashes, seen):
  """Marks the windows that occur in `data`, by a hash that rolls over each of its bytes."""
  shift = _shift(table)
  power, code = np.uint64(1), np.uint64(0)
  for _ in range(width):
    power *= BASE
  for at in range(data.size):
    code = code * BASE + np.uint64(data[at])
    if at >= width:
      code -= power * np.uint64(data[at - width])
    if at < width - 1:
      continue
    place = np.int64((code * SPREAD) >> shift)
    while table[place] >= 0:
      known = table[place]
      if hashes[known] == code and not seen[known]:
        seen[known] = _equal(text, starts[known], data, at - width + 1, width)
      place = (place + 1) & (table.size - 1)


@numba.njit(cache=True, nogil=True)
def _shift(table):
  bits = 0
  while 1 << bits < table.size:
    bits += 1
  return np.uint64(64 - bits)


@numba.njit(cache=True, nogil=True)
def _equal(one, start, other, begin, width):
  same = 0
  while same < width and one[start + same] == other[begin + same]:
    same += 1
  return same == width


@numba.njit(cache=True, nogil=True)
def _covered(starts, stops, size):
  """Which of `size` places are in a range; starts and ends of the ranges ascend."""
  found = np.zeros(size, np.bool_)
  done = 0
  for i in range(starts.size):
    for place in range(max(starts[i], done), stops[i]):
      found[place] = True
    done = max(done, stops[i])
  return found
