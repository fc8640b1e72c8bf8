# SPDX-License-Identifier: Apache-2.0
"""How a document is scored: the windows that a model reads, and their batches.

A document is the BOS token and its tokens; if the model has no BOS, the document's first token is
read in its place and not scored. A window has as many inputs as the model's context; the
next window begins half a context later. All targets of the first window are scored, and the second
half of each later window. So every token is scored exactly once, and after the first window it has
at least half a context before it. Later windows begin with an ordinary token, as training rows that
continue a document do.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

TOKENS = 4096  # tokens of the windows that are scored together
SHORTEST = 16  # least row length of a batch


class Window(NamedTuple):
  """Targets [start, stop) of a document are predicted; those from `first` on are scored."""

  document: int
  start: int
  first: int
  stop: int


class Batch(NamedTuple):
  """A batch of windows.

  Attributes:
    windows: windows of the first rows; the other rows are empty.
    documents: int32 [B], document of each row.
    arrays: int32 [B, T] each: inputs, targets, segments (0 is padding), positions.
  """

  windows: list[Window]
  documents: np.ndarray
  arrays: dict[str, np.ndarray]


def windows(document: int, tokens: int, context: int) -> list[Window]:
  """The windows of a document of a number of tokens."""
  if not tokens:
    return []
  found = [Window(document, 0, 0, min(tokens, context))]
  step = max(1, context // 2)
  while found[-1].stop < tokens:
    start, stop = found[-1].start + step, found[-1].stop
    found.append(Window(document, start, stop, min(tokens, start + context)))
  return found


def batches(
  documents: Sequence[np.ndarray], before: Sequence[int], context: int, multiple: int = 1
) -> Iterator[Batch]:
  """All windows of documents (ids [n] each), windows of similar length together.

  Shapes are powers of two, or the context, so that few programs are compiled.

  Args:
    documents: ids of each.
    before: the id before the first token of each.
    context: most inputs of a window.
    multiple: what the number of rows must be a multiple of.
  """
  groups: dict[int, list[Window]] = {}
  for index, ids in enumerate(documents):
    for window in windows(index, len(ids), context):
      length = min(context, max(SHORTEST, power_of_two(window.stop - window.start)))
      groups.setdefault(length, []).append(window)
  for length, several in sorted(groups.items()):
    most = max(1, TOKENS // length)
    for begin in range(0, len(several), most):
      part = several[begin : begin + most]
      rows = -(-min(most, power_of_two(len(part))) // multiple) * multiple
      yield _batch(documents, before, part, rows, length)


def power_of_two(number: int) -> int:
  """The least power of two that is `number` or more."""
  return 1 << (number - 1).bit_length()


def _batch(
  documents: Sequence[np.ndarray], before: Sequence[int], part: list[Window], rows: int, length: int
) -> Batch:
  fields = ('inputs', 'targets', 'segments', 'positions')
  arrays = {field: np.zeros((rows, length), np.int32) for field in fields}
  for row, window in enumerate(part):
    ids = documents[window.document]
    count = window.stop - window.start
    arrays['targets'][row, :count] = ids[window.start : window.stop]
    first = ids[window.start - 1] if window.start else before[window.document]
    arrays['inputs'][row, 0] = first
    arrays['inputs'][row, 1:count] = ids[window.start : window.stop - 1]
    arrays['segments'][row, :count] = 1
    arrays['positions'][row, :count] = np.arange(count)
  of_rows = np.zeros(rows, np.int32)
  of_rows[: len(part)] = [window.document for window in part]
  return Batch(part, of_rows, arrays)
