# SPDX-License-Identifier: Apache-2.0
"""Substitution ciphers (section 3.3 of arXiv 2305.16349): keys generation, probing, solvers and
scores.

A key that enciphers is bytes [256]. A key that is read from a probe or solved without a model maps
cipher symbols to plain ones: key[n, c] is the plain symbol of cipher symbol c in sequence n, -1
where it is unknown. A window is the positions `start` to `start + width`, end excluded; the solvers
without a model read all text up to the window's end, as a causal model does.

Legend: N sequences, T length, V symbols, cipher and plain alike.
"""

import numba
import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from lib.data.alphabets import check_distinct
from lib.errors import InputError
from lib.evals.ngram import NGram

KICK_SWAPS = 10  # random exchanges before each further climb


def random_key(alphabet: bytes, movable: bytes, seed: int) -> bytes:
  """A substitution cipher: the byte that enciphers each byte, bytes [256].

  The bytes of `movable` are permuted uniformly at random, so some may stay in place; all others
  do. The paper permutes the lower-case letters. Over the ids of
  `alphabet` the true key is that of `decipher(alphabet, key, alphabet)`.

  Raises:
    InputError: a byte repeated, or one of `movable` outside of `alphabet`, named with its place.
  """
  check_distinct(alphabet, 'The alphabet')
  check_distinct(movable, 'The set of movable bytes')
  _check_inside(movable, alphabet)
  permuted = np.random.default_rng(seed).permutation(np.frombuffer(movable, np.uint8))
  return bytes.maketrans(movable, permuted.tobytes())


def encipher(text: bytes, key: bytes, alphabet: bytes) -> bytes:
  """The cipher text of `text` by a key from `random_key`; InputError for a byte outside."""
  _check_key(key)
  _check_inside(text, alphabet)
  return text.translate(key)


def decipher(text: bytes, key: bytes, alphabet: bytes) -> bytes:
  """The plain text of `text` by the key that enciphered it; InputError for a byte outside."""
  _check_key(key)
  _check_inside(text, alphabet)
  return text.translate(bytes.maketrans(key, bytes(range(256))))


def seen_symbols(ids: ArrayLike, vocab_size: int, start: int, width: int) -> np.ndarray:
  """Which symbols occur in the window: bool [N, V] of ids [N, T]."""
  return _counts(_window(ids, vocab_size, start, width), vocab_size) > 0


def window_votes(logits: ArrayLike, ids: ArrayLike, start: int, width: int) -> np.ndarray:
  """How often the window's cipher symbol c is read as plain symbol p: int64 [N, V, V].

  Args:
    logits: [N, T, V] of the plain symbol at each position, or log probabilities.
    ids: integer [N, T] cipher symbols.
    start: first position of the window.
    width: its positions, 100 in the paper.

  Raises:
    InputError: shapes that do not fit, a window outside of the text or a symbol out of range.
  """
  logits, symbols = _probe_window(logits, ids, start, width)
  rows = np.arange(len(symbols))[:, None]
  votes = np.zeros((len(symbols), logits.shape[-1], logits.shape[-1]), np.int64)
  np.add.at(votes, (rows, symbols, logits.argmax(-1)), 1)
  return votes


def window_probabilities(logits: ArrayLike, ids: ArrayLike, start: int, width: int) -> np.ndarray:
  """`window_votes` with each position's vote split by probability: float64 [N, V, V].

  Probabilities are summed, not their logarithms: the sum over a key's entries is then the number
  of the window's characters it is expected to decode correctly, and one confident error costs one
  vote.
  """
  logits, symbols = _probe_window(logits, ids, start, width)
  rows = np.arange(len(symbols))[:, None]
  scores = np.zeros((len(symbols), logits.shape[-1], logits.shape[-1]))
  np.add.at(scores, (rows, symbols), special.softmax(logits.astype(np.float64), axis=-1))
  return scores


def majority_key(votes: np.ndarray) -> np.ndarray:
  """The plain symbol with most votes for each cipher symbol, the paper's key: int64 [N, V].

  `votes` [N, V, V] are votes or summed probabilities. A symbol without any is -1, a tie goes to the
  lower id, and two cipher symbols may get one plain symbol.
  """
  return np.where(votes.any(axis=-1), votes.argmax(axis=-1), -1)


def assignment_key(scores: np.ndarray) -> np.ndarray:
  """The one-to-one key of the greatest total score (Hungarian method): int64 [N, V].

  `scores` [N, V, V] are votes or summed probabilities. A symbol without any is -1.
  """
  key = np.full(scores.shape[:2], -1)
  for n, table in enumerate(scores):
    seen = np.flatnonzero(table.any(axis=-1))
    cipher, plain = optimize.linear_sum_assignment(table[seen], maximize=True)
    key[n, seen[cipher]] = plain
  return key


def late_key(logits: ArrayLike, ids: ArrayLike) -> np.ndarray:
  """The one-to-one key by the probabilities of all positions: int64 [N, V].

  The first half of the text, which has less context, has a tenth of the weight: it matters only
  for symbols that occur nowhere else.

  Args:
    logits: [N, T, V] of the plain symbol at each position.
    ids: integer [N, T] cipher symbols.
  """
  length = np.shape(ids)[1]
  middle = length // 2
  early = window_probabilities(logits, ids, 0, middle)
  return assignment_key(0.1 * early + window_probabilities(logits, ids, middle, length - middle))


def precision(key: np.ndarray, truth: ArrayLike, seen: np.ndarray) -> np.ndarray:
  """The fraction of `seen` symbols whose plain symbol is right: float64 [N], nan where none is.

  Args:
    key: [N, V].
    truth: [N, V], or [V] if all sequences have one key.
    seen: bool [N, V], from `seen_symbols`: the paper counts the symbols in the window alone.
  """
  right = (seen & (key == _truth(truth, key))).sum(axis=-1)
  count = seen.sum(axis=-1)
  return np.divide(right, count, out=np.full(len(key), np.nan), where=count > 0)


def accuracy(
  key: np.ndarray, truth: ArrayLike, ids: ArrayLike, start: int, width: int
) -> np.ndarray:
  """The fraction of the window's characters that the key decodes correctly: float64 [N].

  It is `precision` with each symbol weighted by its occurrences; `truth` is [N, V] or [V].
  """
  symbols = _window(ids, key.shape[-1], start, width)
  return np.take_along_axis(key == _truth(truth, key), symbols, axis=-1).mean(axis=-1)


def apply_key(ids: ArrayLike, key: np.ndarray, stand_in: int) -> np.ndarray:
  """Plain ids [N, T] of cipher ids [N, T] by a key [N, V]; `stand_in` where the key is unknown."""
  ids = np.asarray(ids)
  plain = np.take_along_axis(key, _window(ids, key.shape[-1], 0, ids.shape[-1]), axis=-1)
  return np.where(plain < 0, stand_in, plain)


def frequency_matching(
  ids: ArrayLike, reference_counts: ArrayLike, start: int, width: int
) -> np.ndarray:
  """The key that pairs symbols of equal frequency rank: int64 [N, V].

  Args:
    ids: integer [N, T] cipher symbols, counted up to the window's end.
    reference_counts: [V] of plain symbols in other text.
    start: first position of the window.
    width: its positions.

  Returns:
    A one-to-one key of the symbols counted, -1 elsewhere; ties go to the lower id.
  """
  reference = np.asarray(reference_counts)
  counts = _counts(_window(ids, reference.size, 0, start + width), reference.size)
  cipher = np.argsort(-counts, axis=-1, kind='stable')
  plain = np.argsort(-reference, kind='stable')
  key = np.empty_like(cipher)
  np.put_along_axis(key, cipher, np.broadcast_to(plain, cipher.shape), axis=-1)
  return np.where(counts > 0, key, -1)


def bigram_table(train: np.ndarray, vocab_size: int) -> np.ndarray:
  """log P(second | first) by Witten and Bell's smoothed bigram of `train` [n]: float64 [V, V]."""
  pairs = np.stack(np.meshgrid(*[np.arange(vocab_size)] * 2, indexing='ij'), axis=-1)
  return -NGram(train, 1, vocab_size).nats(pairs.ravel())[1::2].reshape(vocab_size, vocab_size)


def hill_climb(
  ids: ArrayLike,
  key: np.ndarray,
  log_bigrams: np.ndarray,
  start: int,
  width: int,
  restarts: int = 100,
  seed: int = 0,
) -> np.ndarray:
  """Exchanges a key's plain symbols as long as the text's bigram likelihood rises: int64 [N, V].

  Each climb takes the best of all exchanges until none helps. Each restart applies a
  few random exchanges to the best key so far and climbs again (iterated local search).

  Args:
    ids: integer [N, T] cipher symbols, read up to the window's end.
    key: [N, V] to start from, one-to-one where known, such as that of `frequency_matching`.
    log_bigrams: finite [V, V], log P(second | first) of plain symbols, from `bigram_table`.
    start: first position of the window.
    width: its positions.
    restarts: climbs after the first.
    seed: of the random exchanges.

  Returns:
    A one-to-one key of the symbols read, -1 elsewhere.
  """
  vocab_size = key.shape[-1]
  text = _window(ids, vocab_size, 0, start + width)
  if log_bigrams.shape != (vocab_size, vocab_size) or not np.isfinite(log_bigrams).all():
    raise InputError(
      f'A key of {vocab_size} symbols needs a finite log probability for each of its bigrams; '
      f'smooth a table of shape {(vocab_size, vocab_size)}, not {log_bigrams.shape}.'
    )
  solved = np.empty_like(key)
  table = np.ascontiguousarray(log_bigrams, np.float64)
  for n, row in enumerate(text):
    counts = np.zeros((vocab_size, vocab_size))
    np.add.at(counts, (row[:-1], row[1:]), 1)
    kicks = np.random.default_rng([seed, n]).integers(vocab_size, size=(restarts, KICK_SWAPS, 2))
    solved[n] = _search(counts, table, _completed(key[n]), kicks)
  return np.where(_counts(text, vocab_size) > 0, solved, -1)


def _completed(key: np.ndarray) -> np.ndarray:
  """A permutation: unknown symbols get the plain symbols left over, in order."""
  known = key[key >= 0]
  left = np.setdiff1d(np.arange(key.size), known)
  if left.size + known.size != key.size:
    raise InputError(
      'Hill climbing needs a one-to-one key; give that of frequency_matching or assignment_key.'
    )
  permutation = key.astype(np.int64)
  permutation[key < 0] = left
  return permutation


@numba.njit(cache=True, nogil=True)
def _search(counts, log_bigrams, key, kicks):
  _climb(counts, log_bigrams, key)
  for exchanges in kicks:
    trial, gain = key.copy(), 0.0
    for a, b in exchanges:
      gain += _gain(counts, log_bigrams, trial, a, b)
      trial[a], trial[b] = trial[b], trial[a]
    if gain + _climb(counts, log_bigrams, trial) > 0:
      key = trial
  return key


@numba.njit(cache=True, nogil=True)
def _climb(counts, log_bigrams, key):
  """Improves `key` in place up to a local optimum; returns the gain."""
  total = 0.0
  while True:
    best, first, second = 1e-9, -1, -1  # a gain below rounding does not count
    for a in range(key.size):
      for b in range(a):
        gain = _gain(counts, log_bigrams, key, a, b)
        if gain > best:
          best, first, second = gain, a, b
    if first < 0:
      return total
    key[first], key[second] = key[second], key[first]
    total += best


@numba.njit(cache=True, nogil=True)
def _gain(counts, log_bigrams, key, a, b):
  """The rise of sum_xy counts[x, y] log_bigrams[key[x], key[y]] if a and b exchange symbols."""
  p, q = key[a], key[b]
  gain = (counts[a, a] - counts[b, b]) * (log_bigrams[q, q] - log_bigrams[p, p])
  gain += (counts[a, b] - counts[b, a]) * (log_bigrams[q, p] - log_bigrams[p, q])
  for c in range(key.size):
    if c != a and c != b:
      r = key[c]
      gain += (counts[a, c] - counts[b, c]) * (log_bigrams[q, r] - log_bigrams[p, r])
      gain += (counts[c, a] - counts[c, b]) * (log_bigrams[r, q] - log_bigrams[r, p])
  return gain


def _counts(symbols: np.ndarray, vocab_size: int) -> np.ndarray:
  """Occurrences [N, V] of each symbol in `symbols` [N, n]."""
  counts = np.zeros((len(symbols), vocab_size), np.int64)
  np.add.at(counts, (np.arange(len(symbols))[:, None], symbols), 1)
  return counts


def _truth(truth: ArrayLike, key: np.ndarray) -> np.ndarray:
  truth = np.asarray(truth)
  if truth.shape not in (key.shape, key.shape[1:]):
    raise InputError(
      f'The true key must be of shape {key.shape}, or {key.shape[1:]} for all sequences; '
      f'got {truth.shape}.'
    )
  return np.broadcast_to(truth, key.shape)


def _probe_window(
  logits: ArrayLike, ids: ArrayLike, start: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
  """Logits [N, width, V] and symbols [N, width] of the window."""
  logits, ids = np.asarray(logits), np.asarray(ids)
  if logits.ndim != 3 or logits.shape[:2] != ids.shape:
    raise InputError(
      f'Logits must be [N, T, V] for ids [N, T]; got shapes {logits.shape} and {ids.shape}.'
    )
  symbols = _window(ids, logits.shape[-1], start, width)
  return logits[:, start : start + width], symbols


def _window(ids: ArrayLike, vocab_size: int, start: int, width: int) -> np.ndarray:
  """The symbols [N, width] of the window."""
  ids = np.asarray(ids)
  if ids.ndim != 2 or start < 0 or width < 1 or start + width > ids.shape[1]:
    raise InputError(
      'A window needs ids [N, T], start >= 0, width >= 1 and start + width <= T; '
      f'got ids of shape {ids.shape}, start {start} and width {width}.'
    )
  window = ids[:, start : start + width]
  if window.size and (window.min() < 0 or window.max() >= vocab_size):
    raise InputError(
      f'Ids must be in [0, {vocab_size}), without BOS; got {window.min()} to {window.max()}.'
    )
  return window.astype(np.int64)


def _check_inside(text: bytes, alphabet: bytes) -> None:
  if foreign := text.translate(None, alphabet):
    raise InputError(
      f'Byte {foreign[:1]!r} at position {text.index(foreign[0])} is outside the alphabet '
      f'{alphabet!r}; fold the text first.'
    )


def _check_key(key: bytes) -> None:
  if sorted(key) != list(range(256)):
    raise InputError(f'A key must be a permutation of the 256 bytes; got {len(key)} bytes.')
