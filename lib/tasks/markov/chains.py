# SPDX-License-Identifier: Apache-2.0
"""Markov sources of any order over a small alphabet: exact entropies and fast samples.

All entropies and losses are in nats. Symbol s is written as the byte 48 + s: b'0', b'1', ...
Each seed has several independent streams of a source (`stream_seed`).
"""

import functools
from collections.abc import Iterator

import numba
import numpy as np
from scipy.special import entr

from lib.errors import InputError

# Streams: to learn dictionaries from, to count or train on, to score, to validate by.
DICTIONARY, TRAIN, TEST, VALIDATION = range(4)
PARTS = 20  # independent texts that are scored where an error is over texts, not over seeds
_MAX_CONTEXTS = 4096  # the stationary law is solved densely
_MAX_ALPHABET = 208  # bytes 48 .. 255
_CHUNK = 1 << 20  # uniforms held in memory at once while sampling


class MarkovSource:
  """A stationary Markov chain of order k: the next symbol's law given the last k symbols.

  Args:
    kernel: [A**k, A] probabilities, all positive (so that the chain has one stationary law and
      forgets its start). Row index is sum_j A**j x_{n-k+j}: the oldest symbol is least significant.

  Raises:
    InputError: the kernel has another shape, a row that does not sum to 1, or a zero.
  """

  def __init__(self, kernel: np.ndarray):
    kernel = np.array(kernel, np.float64)
    self.order = _order(kernel.shape)
    if not (np.all(kernel > 0) and np.allclose(kernel.sum(1), 1, rtol=0, atol=1e-9)):
      raise InputError(
        'A Markov kernel needs rows of positive probabilities that sum to 1; '
        f'the smallest entry here is {kernel.min():g} and row sums run from '
        f'{kernel.sum(1).min():g} to {kernel.sum(1).max():g}.'
      )
    kernel.setflags(write=False)
    self.kernel = kernel
    self.contexts, self.alphabet_size = kernel.shape
    self.alphabet = bytes(range(48, 48 + self.alphabet_size))
    # A uniform sample u becomes the number of thresholds that are at most u.
    self._thresholds = np.ascontiguousarray(np.cumsum(kernel, axis=1)[:, :-1])

  @functools.cached_property
  def next_contexts(self) -> np.ndarray:
    """[A**k, A] the context after reading each symbol: the oldest leaves, the newest joins."""
    kept = np.arange(self.contexts)[:, None] // self.alphabet_size
    newest = np.arange(self.alphabet_size) * (self.contexts // self.alphabet_size)
    return kept + newest

  @functools.cached_property
  def stationary(self) -> np.ndarray:
    """[A**k] the stationary law of contexts."""
    step = np.zeros((self.contexts, self.contexts))
    np.put_along_axis(step, self.next_contexts, self.kernel, axis=1)
    # Balance everywhere but at context 0, whose weight is fixed to 1 and normalised afterwards.
    balance = np.eye(self.contexts - 1) - step[1:, 1:].T
    law = np.concatenate([[1.0], np.linalg.solve(balance, step[0, 1:])])
    return law / law.sum()

  @functools.cached_property
  def entropy_rate(self) -> float:
    """Nats per character of the best predictor that sees the whole past."""
    return float(self.stationary @ entr(self.kernel).sum(1))

  @functools.cached_property
  def min_probability(self) -> float:
    """The smallest transition probability (the paper's delta)."""
    return float(self.kernel.min())

  def block_law(self, length: int) -> np.ndarray:
    """[A**length] the law of `length` <= k successive symbols, oldest least significant."""
    return self.stationary.reshape(-1, self.alphabet_size**length).sum(0)

  def block_entropy(self, length: int) -> float:
    """Nats in `length` successive characters: H(first k), then the entropy rate for each."""
    if length < 0:
      raise InputError(f'A block has at least 0 characters; got {length}.')
    opening = entr(self.block_law(min(length, self.order))).sum()
    return float(opening + max(length - self.order, 0) * self.entropy_rate)

  def ngram_loss(self, context: int) -> float:
    """Nats per character of the best predictor that sees `context` previous characters."""
    return self.block_entropy(context + 1) - self.block_entropy(context)

  def window_floor(self, length: int) -> float:
    """Nats per character of the best predictor on fresh windows of `length` characters.

    Above the entropy rate, since the first k characters of a window lack their context.
    """
    return self.block_entropy(length) / length

  def sample(self, length: int, seed: int) -> np.ndarray:
    """uint8 [length] symbols of one stationary stream."""
    return self._draw(length, np.random.default_rng(seed))

  def text(self, length: int, seed: int) -> bytes:
    """The stream of `sample` as bytes."""
    return as_text(self.sample(length, seed))

  def _draw(self, length: int, rng: np.random.Generator) -> np.ndarray:
    symbols = np.empty(max(length, self.order), np.uint8)
    context = int(np.searchsorted(np.cumsum(self.stationary)[:-1], rng.random(), side='right'))
    digits = context // self.alphabet_size ** np.arange(self.order) % self.alphabet_size
    symbols[: self.order] = digits
    for start in range(self.order, length, _CHUNK):
      out = symbols[start : start + _CHUNK]
      context = _walk(rng.random(len(out)), self._thresholds, context, out)
    return symbols[:length]


class MarkovDocuments:
  """Random access to `count` independent documents of `length` characters each.

  Document i depends on (seed, i) alone; other seeds give other, independent documents.
  """

  def __init__(self, source: MarkovSource, length: int, count: int, seed: int):
    if length < 1 or count < 1 or seed < 0:
      raise InputError(
        'Markov documents need length >= 1, count >= 1 and seed >= 0; '
        f'got length {length}, count {count}, seed {seed}.'
      )
    self.source, self.length, self.count, self.seed = source, length, count, seed

  def __len__(self) -> int:
    return self.count

  def __iter__(self) -> Iterator[bytes]:
    return (self[index] for index in range(self.count))

  def __getitem__(self, index: int) -> bytes:
    if not 0 <= index < self.count:
      raise IndexError(f'Document {index} of {self.count}.')
    # A spawn key, unlike entropy [seed, index], can never repeat the stream of a plain seed.
    sequence = np.random.SeedSequence(self.seed, spawn_key=(int(index),))
    return as_text(self.source._draw(self.length, np.random.default_rng(sequence)))

  def symbols(self) -> np.ndarray:
    """int32 [count, length] symbols of all documents."""
    texts = [np.frombuffer(self[i], np.uint8) for i in range(self.count)]
    return np.stack(texts).astype(np.int32) - 48


def stream_seed(seed: int, stream: int, order: int) -> int:
  """The seed of a stream of a source, different for every (seed, stream, order) with order < 64."""
  return (seed * 64 + order) * 4 + stream


def sample_text(source: MarkovSource, chars: int, seed: int, stream: int) -> bytes:
  """A text of the source, from the named stream of a seed."""
  return source.text(chars, stream_seed(seed, stream, source.order))


def sample_parts(
  source: MarkovSource, chars: int, seed: int, stream: int, multiple: int = 1
) -> list[bytes]:
  """About `chars` characters as PARTS independent texts, which are the units of the standard error.

  The length of each is a multiple of `multiple`.
  """
  length = max(1, chars // PARTS // multiple) * multiple
  return list(MarkovDocuments(source, length, PARTS, stream_seed(seed, stream, source.order)))


def make(
  order: int, seed: int, *, kind: str, p: float, q: float, alphabet_size: int, delta: float
) -> MarkovSource:
  """The source of a kind: 'switching' (p, q), 'random' (alphabet_size) or 'interpolated' (delta).

  Raises:
    InputError: an unknown kind, or options that it does not have.
  """
  if kind == 'switching':
    return switching(p, q, order)
  if kind == 'random':
    return random_kernel(order, alphabet_size, seed)
  if kind == 'interpolated':
    return interpolated(p, q, order, delta, seed)
  raise InputError(f'source.kind {kind!r} is not one of switching, random, interpolated.')


def switching(p: float, q: float, order: int) -> MarkovSource:
  """Binary source whose symbol x_n depends on x_{n-order} alone: P(1|0) = p, P(0|1) = q.

  It interleaves `order` independent chains of order 1 (Makkuva et al., arXiv 2402.04161).
  """
  for name, value in (('p', p), ('q', q)):
    if not 0 < value < 1:
      raise InputError(
        f'The switching probability {name} must be strictly between 0 and 1; got {value}.'
      )
  _contexts(order, 2)
  return MarkovSource(np.tile([[1 - p, p], [q, 1 - q]], (2 ** (order - 1), 1)))


def random_kernel(
  order: int, alphabet_size: int, seed: int, concentration: float = 1.0
) -> MarkovSource:
  """Source with every row drawn from Dirichlet(concentration): uniform on the simplex at 1."""
  if not concentration > 0:
    raise InputError(f'The Dirichlet concentration must be positive; got {concentration}.')
  contexts = _contexts(order, alphabet_size)
  rows = np.random.default_rng(seed).dirichlet(np.full(alphabet_size, concentration), contexts)
  return MarkovSource(rows)


def interpolated(p: float, q: float, order: int, delta: float, seed: int) -> MarkovSource:
  """The binary mixture of kernels (1 - delta) * switching(p, q) + delta * random."""
  if not 0 <= delta <= 1:
    raise InputError(f'The weight delta of the random kernel must be in [0, 1]; got {delta}.')
  ordered, random = switching(p, q, order).kernel, random_kernel(order, 2, seed).kernel
  return MarkovSource((1 - delta) * ordered + delta * random)


def as_text(symbols: np.ndarray) -> bytes:
  """Symbols [n] as bytes: symbol s becomes byte 48 + s."""
  return (symbols + 48).astype(np.uint8).tobytes()


def _contexts(order: int, alphabet_size: int) -> int:
  """The number of contexts, or an InputError where it is out of reach."""
  if not 2 <= alphabet_size <= _MAX_ALPHABET:
    raise InputError(f'An alphabet has 2 to {_MAX_ALPHABET} symbols; got {alphabet_size}.')
  if order < 1 or alphabet_size**order > _MAX_CONTEXTS:
    raise InputError(
      f'A Markov order must be at least 1 with at most {_MAX_CONTEXTS} contexts '
      f'(alphabet size ** order); got order {order} over {alphabet_size} symbols.'
    )
  return alphabet_size**order


def _order(shape: tuple[int, ...]) -> int:
  """The order of a kernel of this shape."""
  if len(shape) == 2 and shape[1] >= 2:
    order = round(np.log(shape[0]) / np.log(shape[1])) if shape[0] else 0
    if shape[1] ** order == shape[0] and order > 0:
      _contexts(order, shape[1])
      return order
  raise InputError(f'A Markov kernel has shape [A**k, A] with A >= 2 and k >= 1; got {shape}.')


@numba.njit(cache=True, nogil=True)
def _walk(uniforms, thresholds, context, out):
  """Fills out [n] with the symbols that follow `context`; returns the last context."""
  contexts, size = thresholds.shape[0], thresholds.shape[1] + 1
  newest = contexts // size
  for i in range(out.size):
    symbol = 0
    for j in range(size - 1):
      symbol += uniforms[i] >= thresholds[context, j]
    out[i] = symbol
    context = context // size + symbol * newest
  return context
