# SPDX-License-Identifier: Apache-2.0
"""Smoothed m-gram models over integer sequences: characters or tokens, with separate training and
test text.

Every choice is made without the test text: the unigram adds 1/2 to each count (Krichevsky and
Trofimov 1981); a longer context interpolates with the next shorter one with Witten and Bell's
weight (1991), P(w|h) = (c(hw) + T(h) P(w|h')) / (c(h) + T(h)), T(h) = distinct successors of h.
A unigram over tokens ignores the distribution of their number, O(log n / n) nats per character.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lib import stats
from lib.errors import InputError
from lib.stats import Estimate
from lib.tokenizers.base import Tokenizer


@dataclasses.dataclass(frozen=True)
class _Counts:
  """Counts of one context length, by packed keys: a context h, and h * vocab + w for a gram hw."""

  grams: np.ndarray  # uint64 [g], sorted
  gram_counts: np.ndarray  # [g]
  contexts: np.ndarray  # uint64 [h], sorted
  context_counts: np.ndarray  # [h]
  successors: np.ndarray  # [h], distinct


class NGram:
  """An m-gram model fitted to `train`: m = `order` symbols of context, 0 for a unigram.

  Args:
    train: integer [n] symbols in [0, vocab_size).
    order: symbols of context.
    vocab_size: number of symbols, seen or not.

  Raises:
    InputError: a symbol out of range, an empty text, or grams that do not fit 64 bits.
  """

  def __init__(self, train: np.ndarray, order: int, vocab_size: int):
    if order < 0 or vocab_size < 1 or vocab_size ** (order + 1) > 1 << 64:
      raise InputError(
        'An m-gram model needs m >= 0 and vocabulary ** (m+1) <= 2**64; '
        f'got m = {order} and a vocabulary of {vocab_size}.'
      )
    self.order, self.vocab_size = order, vocab_size
    train = self._symbols(train)
    counts = np.bincount(train.astype(np.int64), minlength=vocab_size)
    self._unigram = (counts + 0.5) / (train.size + vocab_size / 2)
    self._levels = [
      _count(_pack(train, m + 1, vocab_size), vocab_size) for m in range(1, order + 1)
    ]

  def nats(self, test: np.ndarray) -> np.ndarray:
    """float64 [n] nats of each symbol; symbol i < m has only the i symbols before it as context."""
    test = self._symbols(test)
    probability = self._unigram[test.astype(np.int64)]
    for m, level in enumerate(self._levels, start=1):
      grams = _pack(test, m + 1, self.vocab_size)
      probability[m:] = _mixed(level, grams, self.vocab_size, probability[m:])
    return -np.log(probability)

  def by_document(self, documents: Sequence[np.ndarray]) -> np.ndarray:
    """float64 [D] nats of all symbols of each document; 0 for a document without symbols."""
    return np.array([self.nats(ids).sum() if len(ids) else 0.0 for ids in documents])

  def _symbols(self, sequence: np.ndarray) -> np.ndarray:
    sequence = np.asarray(sequence)
    if sequence.size == 0 or sequence.min() < 0 or sequence.max() >= self.vocab_size:
      raise InputError(
        f'An m-gram model over {self.vocab_size} symbols needs at least one symbol, each in '
        f'[0, {self.vocab_size}); got {sequence.size} symbols'
        + (f' from {sequence.min()} to {sequence.max()}.' if sequence.size else '.')
      )
    return sequence.astype(np.uint64)


def windows(ids: np.ndarray, counts: np.ndarray, size: int) -> np.ndarray:
  """Documents cut into windows of `size` tokens, int64 [W, size]; -1 where one is cut short.

  Args:
    ids: integer, those of all documents, concatenated.
    counts: integer [documents], ids in each.
    size: tokens of a window.
  """
  whole = -(-counts // size)
  found = np.full(int(whole.sum()) * size, -1, np.int64)
  starts = np.cumsum(whole * size) - whole * size  # of each document, in whole windows
  shift = np.repeat(starts - (np.cumsum(counts) - counts), counts)
  found[np.arange(counts.sum()) + shift] = ids
  return found.reshape(-1, size)


def whole_windows(batches: Iterable[Mapping[str, np.ndarray]], size: int, begin: int) -> np.ndarray:
  """The complete windows of `size` tokens in rows of training, int64 [W, size].

  A row that continues a document may start inside a window; the document's last window is complete,
  so windows are counted from its end.

  Args:
    batches: with targets, inputs, segments and positions, [B, T] each (`lib.data.pipeline`).
    size: tokens of a window.
    begin: the BOS id of the inputs.
  """
  found = []
  for batch in batches:
    targets, segments, positions = batch['targets'], batch['segments'], batch['positions']
    first = segments == 1
    goes_on = first & (batch['inputs'][:, :1] != begin)
    ends = first.sum(axis=1, keepdims=True)
    place = np.where(goes_on, positions - ends, positions) % size
    known = (segments > 0) & ~(goes_on & (ends == targets.shape[1]))
    last = targets.shape[1] - size + 1
    whole = known[:, :last] & (segments[:, :last] == segments[:, size - 1 :])
    row, start = np.nonzero(whole & (place[:, :last] == 0))
    found.append(targets[row[:, None], start[:, None] + np.arange(size)])
  return np.concatenate(found).astype(np.int64)


def guessed(known: np.ndarray, held_out: np.ndarray) -> np.ndarray:
  """Accuracy [w] of always guessing the most frequent token of each place in a window.

  Args:
    known: integer [N, w], windows to count; -1 where one is cut short.
    held_out: windows to guess, likewise.
  """
  found = []
  for counted, tokens in zip(known.T, held_out.T, strict=True):
    guess = np.bincount(counted[counted >= 0]).argmax()
    found.append((tokens[tokens >= 0] == guess).mean())
  return np.array(found)


class WindowUnigram:
  """A unigram over windows: each token given the earlier tokens of its window alone.

  It ignores all text before the window, so a model of windows must beat it to show that it uses
  context. The first token's probability is that of a unigram; a later one's is interpolated as
  in `NGram`, with separate counts for each place in the window.

  Args:
    windows: integer [N, w], N windows of w tokens; -1 where a window is cut short.
    vocab_size: number of tokens, seen or not.

  Raises:
    InputError: a token out of range, or no window.
  """

  def __init__(self, windows: np.ndarray, vocab_size: int):
    if windows.ndim != 2 or not windows.size or windows.max() >= vocab_size:
      raise InputError(
        f'a unigram over windows of {vocab_size} ids needs windows [N, w] of such ids; got the '
        f'shape {windows.shape}.'
      )
    self.vocab_size = vocab_size
    longest = int(64 // np.log2(max(vocab_size, 2)))  # tokens of a gram that fit 64 bits
    self._places = []
    for place in range(windows.shape[1]):
      known = windows[windows[:, place] >= 0, : place + 1]
      counts = np.bincount(known[:, -1], minlength=vocab_size)
      unigram = (counts + 0.5) / (len(known) + vocab_size / 2)
      orders = range(1, min(place, longest - 1) + 1)
      levels = [_count(_rows(known, m + 1, vocab_size), vocab_size) for m in orders]
      self._places.append((unigram, levels))

  def nats(self, windows: np.ndarray) -> np.ndarray:
    """float64 [N, w] nats of each token of windows [N, w]; 0 where there is no token."""
    nats = np.zeros(windows.shape)
    for place, (unigram, levels) in enumerate(self._places):
      real = windows[:, place] >= 0
      known = windows[real, : place + 1]
      probability = unigram[known[:, -1]]
      for m, level in enumerate(levels, start=1):
        grams = _rows(known, m + 1, self.vocab_size)
        probability = _mixed(level, grams, self.vocab_size, probability)
      nats[real, place] = -np.log(probability)
    return nats


def token_nats(
  tokenizer: Tokenizer, train: Sequence[bytes], test: Sequence[bytes], orders: Sequence[int]
) -> np.ndarray:
  """float64 [orders, D] nats of each test document under m-gram models over its tokens.

  Counts come from the documents `train`, joined in order. Each document of `test` is scored
  separately.
  """
  counted = np.concatenate([tokenizer.encode(document) for document in train])
  scored = [tokenizer.encode(document) for document in test]
  models = (NGram(counted, order, tokenizer.vocab_size) for order in orders)
  return np.stack([model.by_document(scored) for model in models])


def token_loss(
  tokenizer: Tokenizer,
  train: Sequence[bytes],
  test: Sequence[bytes],
  orders: Sequence[int],
  over: str = 'documents',
) -> list[Estimate]:
  """Nats per byte of m-gram models over tokens, for each m in `orders`.

  The error is over the documents of `test`, which `over` names. All bytes of a document count,
  also those without a token. See `token_nats`.
  """
  sizes = [len(document) for document in test]
  return [
    stats.ratio(nats, sizes, over=over) for nats in token_nats(tokenizer, train, test, orders)
  ]


def _pack(sequence: np.ndarray, length: int, vocab_size: int) -> np.ndarray:
  """uint64 [n - length + 1] grams of `length` symbols, the last symbol least significant."""
  count = max(sequence.size - length + 1, 0)
  keys = np.zeros(count, np.uint64)
  for offset in range(length):
    keys = keys * np.uint64(vocab_size) + sequence[offset : offset + count]
  return keys


def _rows(windows: np.ndarray, length: int, vocab_size: int) -> np.ndarray:
  """uint64 [N] grams of the last `length` symbols of each row, the last least significant."""
  keys = np.zeros(len(windows), np.uint64)
  for column in windows[:, -length:].T:
    keys = keys * np.uint64(vocab_size) + column.astype(np.uint64)
  return keys


def _mixed(level: _Counts, grams: np.ndarray, vocab_size: int, shorter: np.ndarray) -> np.ndarray:
  """Witten and Bell's probability of each gram [n] from that of the next shorter context [n]."""
  gram_count = _look_up(level.grams, grams, level.gram_counts)
  contexts = grams // np.uint64(vocab_size)
  count = _look_up(level.contexts, contexts, level.context_counts)
  successors = _look_up(level.contexts, contexts, level.successors)
  # An unseen context has the shorter one's probability.
  mixed = gram_count + successors * shorter
  return np.divide(mixed, count + successors, out=shorter.copy(), where=count > 0)


def _count(grams: np.ndarray, vocab_size: int) -> _Counts:
  """Counts of grams [n], packed, and of their contexts."""
  grams, gram_counts = np.unique(grams, return_counts=True)
  contexts, starts, successors = np.unique(
    grams // np.uint64(vocab_size), return_index=True, return_counts=True
  )
  totals = np.add.reduceat(gram_counts, starts) if starts.size else gram_counts
  return _Counts(grams, gram_counts, contexts, totals, successors)


def _look_up(table: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
  """The value of each key in a sorted table, 0 where the table has no such key."""
  if table.size == 0:
    return np.zeros(keys.size, np.int64)
  at = np.minimum(np.searchsorted(table, keys), table.size - 1)
  return np.where(table[at] == keys, values[at], 0)
