# SPDX-License-Identifier: Apache-2.0
"""Endless text: documents sampled from an n-gram law of a corpus, whose entropy is known exactly.

A model can train on such text for any time without reading anything twice, and its loss can be
compared with the law's entropy: the difference is the regret of the model, in nats.

The law interpolates contexts of 0 to `order` symbols as Witten and Bell (1991) do,
P(w|h) = (c(hw) + T(h) P(w|h')) / (c(h) + T(h)), where c counts the training text, T(h) is the
number of distinct successors of h, and h' is h without its oldest symbol. A context that is not
in the text has the probabilities of the shorter one, and the unigram adds 1/2 to each count. The
first symbols of a document have only the symbols before them as context. The training text is read
as a ring, so that every n-gram has a successor.
"""

import functools
import threading
from collections.abc import Iterable

import numba
import numpy as np

from lib.data import alphabets, own_files, sources
from lib.data.excerpts import Excerpts
from lib.errors import InputError

PREFIX = 'ngram:'
LIMIT_BYTES = 2**26  # bytes of the corpus that are counted; `_found` has 27 bits for a count
BYTES = bytes(range(256))
# Documents of each split: 64 GB of training text before one is repeated.
COUNTS = {'train': 2**24, 'validation': 2**12, 'test': 2**12}
OPTIONS = {'order': 6, 'seed': 0, 'length': 4096}  # of a spec, with their defaults


class NgramLaw:
  """The law of the next symbol given the last `order`.

  Args:
    text: uint8 [n] symbols in [0, vocab_size).
    order: symbols of context.
    vocab_size: number of symbols, including those not in the text.

  Raises:
    InputError: no text, a symbol out of range, or contexts that do not fit 64 bits.
  """

  def __init__(self, text: np.ndarray, order: int, vocab_size: int):
    _check_order(order, vocab_size)
    self._bits = vocab_size.bit_length()  # of a symbol in a context's key, where it is 1 … V
    if not text.size or int(text.max()) >= vocab_size or text.size > LIMIT_BYTES:
      raise InputError(
        f'an n-gram law over {vocab_size} symbols needs a text of 1 to {LIMIT_BYTES} of them; '
        f'got {text.size} symbols' + (f' up to {text.max()}.' if text.size else '.')
      )
    self.order, self.vocab_size = order, vocab_size
    # Positions sorted by the symbols before them, newest first: each context is a range.
    keys = np.zeros(text.size, np.uint64)
    for age in range(1, order + 2):
      keys = keys << np.uint64(self._bits) | (np.roll(text, age).astype(np.uint64) + np.uint64(1))
    self._text, self._places = text, np.argsort(keys)
    self._keys, self._next = keys[self._places], text[self._places]
    self._contexts = self._table(range(1, order + 1))
    self._counts = np.bincount(text, minlength=vocab_size)

  @functools.cached_property
  def _grams(self) -> np.ndarray:
    """Counts of the n-grams of order + 1 symbols, which sampling does not need."""
    return self._table([self.order + 1])

  def _table(self, levels: Iterable[int]) -> np.ndarray:
    """A hash table of the contexts of some lengths: uint64 [size, 2] of keys and `_packed`."""
    edges = [np.zeros((3, 0), np.int64)]
    for level in levels:
      parts = self._keys >> np.uint64(self._bits * (self.order + 1 - level))
      starts = np.flatnonzero(np.append(True, parts[1:] != parts[:-1]))
      edges.append(
        np.stack([np.full_like(starts, level), starts, np.append(starts[1:], len(parts))])
      )
    ranges = np.concatenate(edges, axis=1).T
    table = np.zeros((1 << int(len(ranges) * 1.5 + 1).bit_length(), 2), np.uint64)
    _fill(ranges, self._text, self._places, self._next, np.uint64(self._bits), table)
    return table

  def sample(self, length: int, seed: np.random.SeedSequence) -> np.ndarray:
    """uint8 [length]: the beginning of one document."""
    out = np.empty(length, np.uint8)
    state = seed.generate_state(1, np.uint64)[0]
    _sample(self._contexts, self._next, self.order, self.vocab_size, state, out)
    return out

  def nats(self, symbols: np.ndarray) -> np.ndarray:
    """float64 [n]: −log of the probability of each symbol of a document from its beginning."""
    symbols = np.ascontiguousarray(symbols, np.uint8)
    found = np.empty(symbols.size)
    _probabilities(self._contexts, self._grams, self._counts, self.order, symbols, found)
    return -np.log(found)


class NgramText:
  """Random access to documents of one split; document i depends on (seed, split, i) alone.

  Args:
    source: spec of a finite source, whose train split is counted.
    split: train, validation or test: independent streams.
    order: bytes of context.
    seed: of the text.
    length: bytes of a document.
    alphabet: bytes that the corpus is folded into before it is counted; by default all 256.
  """

  def __init__(
    self,
    source: str,
    split: str,
    order: int = OPTIONS['order'],
    seed: int = OPTIONS['seed'],
    length: int = OPTIONS['length'],
    alphabet: bytes = BYTES,
  ):
    if split not in own_files.SPLITS:
      raise InputError(f'split {split!r} of {PREFIX}{source} is not one of {", ".join(COUNTS)}.')
    if seed < 0 or length < 1:
      raise InputError(
        f'{PREFIX}{source} needs seed >= 0 and length >= 1; got seed {seed}, length {length}.'
      )
    _check_order(order, len(alphabet))
    sources.open_source(source, 'train')  # fails early if the source is wrong
    self._about = (source, split, order, seed, length)
    self.alphabet, self.length = alphabet, length
    self._count, self._split = COUNTS[split], own_files.SPLITS.index(split)
    self._seed = seed
    self._to_bytes = np.frombuffer(alphabet, np.uint8)
    self._to_symbols = np.full(256, len(alphabet), np.int64)
    self._to_symbols[self._to_bytes] = np.arange(len(alphabet))

  @property
  def law(self) -> NgramLaw:
    """The law, counted at first use."""
    source, _, order, _, _ = self._about
    with _COUNTING:  # readers are threads
      return _law(source, order, self.alphabet)

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, index: int) -> bytes:
    if not 0 <= index < self._count:
      raise IndexError(f'Document {index} of {self._count}.')
    seed = np.random.SeedSequence(self._seed, spawn_key=(self._split, int(index)))
    return self._to_bytes[self.law.sample(self.length, seed)].tobytes()

  def nats(self, document: bytes) -> np.ndarray:
    """float64 [n]: −log of each byte's probability, given those before it in the document.

    Raises:
      InputError: a byte outside of the alphabet.
    """
    symbols = self._to_symbols[np.frombuffer(document, np.uint8)]
    if symbols.size and symbols.max() == len(self.alphabet):
      raise InputError(
        f'the document has bytes outside of the alphabet {self.alphabet!r}; fold it first.'
      )
    return self.law.nats(symbols)

  def excerpt_nats(self, found: Excerpts) -> np.ndarray:
    """Nats [N] of excerpts of this text under its law.

    The law also sees the document before the excerpt, so on average no model of the excerpt alone
    is better.
    """
    nats = []
    for index, text in zip(found.documents, found.texts, strict=True):
      document, size = self[int(index)], len(text)
      [start, *_] = (
        one for one in range(0, len(document), size) if document[one : one + size] == text
      )
      nats.append(self.nats(document)[start : start + size].sum())
    return np.array(nats)

  def folded(self, alphabet: bytes) -> 'NgramText':
    """Text of the law of the folded corpus, which is an n-gram law over `alphabet` again."""
    return NgramText(*self._about, alphabet=alphabet)


def open_text(spec: str, split: str) -> NgramText:
  """Opens `ngram:SOURCE[,order=N][,seed=N][,length=N]`.

  Raises:
    InputError: an option that does not exist or is not a number, or a source that cannot be
      counted.
  """
  parts = spec.removeprefix(PREFIX).split(',')
  options: dict[str, int] = {}
  while len(parts) > 1 and '=' in parts[-1]:  # paths may have commas
    key, _, value = parts.pop().partition('=')
    if key not in OPTIONS or not value.isdigit():
      raise InputError(
        f'option {key}={value} of {spec!r} is not one of {", ".join(OPTIONS)} with a whole number.'
      )
    options[key] = int(value)
  source = ','.join(parts)
  if not source:
    raise InputError(
      f'{spec!r} names no text to count; give one after ngram:, such as ngram:stdlib.'
    )
  if source.startswith(PREFIX):
    raise InputError(f'{spec!r} counts an endless text; give a finite source after ngram:.')
  known = OPTIONS | options
  return NgramText(source, split, known['order'], known['seed'], known['length'])


def _check_order(order: int, vocab_size: int) -> None:
  """Raises InputError if contexts of order + 1 symbols do not fit a key of 63 bits."""
  highest = 63 // vocab_size.bit_length() - 1
  if not 0 <= order <= highest:
    raise InputError(
      f'an n-gram law over {vocab_size} symbols takes an order from 0 to {highest}; got {order}.'
    )


_COUNTING = threading.Lock()


@functools.lru_cache(maxsize=4)
def _law(source: str, order: int, alphabet: bytes) -> NgramLaw:
  text = b''.join(sources.sample(sources.open_source(source, 'train'), LIMIT_BYTES))
  if alphabet != BYTES:
    text = alphabets.fold(text, alphabet)
    ranks = bytes(max(0, alphabet.find(byte)) for byte in range(256))
    text = text.translate(ranks)
  return NgramLaw(np.frombuffer(text, np.uint8), order, len(alphabet))


@numba.njit(cache=True, nogil=True)
def _mixed(value):
  """SplitMix64's function, a random number of each integer (Steele, Lea and Flood 2014)."""
  value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return value ^ (value >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def _slot(table, key):
  """The place of a key in a hash table, or its free place."""
  mask = np.uint64(len(table) - 1)
  at = _mixed(key) & mask
  while table[at, 0] != 0 and table[at, 0] != key:
    at = (at + np.uint64(1)) & mask
  return at


@numba.njit(cache=True, nogil=True)
def _found(table, key):
  """(start, count, distinct successors) of a context; the count is 0 if the table lacks it."""
  packed = table[_slot(table, key), 1]
  return (
    np.int64(packed >> np.uint64(36)),
    np.int64(packed >> np.uint64(9) & np.uint64(2**27 - 1)),
    np.int64(packed & np.uint64(2**9 - 1)),
  )


@numba.njit(cache=True, nogil=True)
def _fill(ranges, text, places, following, bits, table):
  """Inserts each range (level, start, end) with its context as key.

  The newest symbol of a key is least significant, so that masks cut older ones off.
  """
  seen = np.full(256, -1, np.int64)
  for number in range(len(ranges)):
    level, start, end = ranges[number]
    key, place = np.uint64(0), places[start]
    for age in range(level, 0, -1):
      key = key << bits | np.uint64(text[(place - age) % text.size] + 1)
    distinct = 0
    for i in range(start, end):
      if seen[following[i]] != number:
        seen[following[i]] = number
        distinct += 1
    at = _slot(table, key)
    table[at, 0] = key
    table[at, 1] = np.uint64(start << 36 | (end - start) << 9 | distinct)


@numba.njit(cache=True, nogil=True)
def _masks(order, vocab_size):
  """(bits of a symbol, [order + 1] masks of the newest l symbols of a key)."""
  bits = 0
  while vocab_size >> bits:
    bits += 1
  masks = np.zeros(order + 1, np.uint64)
  for level in range(1, order + 1):
    masks[level] = masks[level - 1] << np.uint64(bits) | np.uint64((1 << bits) - 1)
  return np.uint64(bits), masks


@numba.njit(cache=True, nogil=True)
def _sample(table, following, order, vocab_size, state, out):
  """Fills out [n]: each symbol copies what followed the context at a random place of the text.

  With probability c(h) / (c(h) + T(h)) the place is one of those of h, else one of h'.
  """
  bits, masks = _masks(order, vocab_size)
  golden, unit = np.uint64(0x9E3779B97F4A7C15), 2.0**-53
  context, n = np.uint64(0), following.size
  for i in range(out.size):
    symbol = np.int64(-1)
    for level in range(min(i, order), 0, -1):
      start, count, distinct = _found(table, context & masks[level])
      if count:
        state += golden
        drawn = np.int64(np.int64(_mixed(state) >> np.uint64(11)) * unit * (count + distinct))
        if drawn < count:
          symbol = np.int64(following[start + drawn])
          break
    if symbol < 0:
      state += golden
      drawn = np.int64(np.int64(_mixed(state) >> np.uint64(11)) * unit * (2 * n + vocab_size))
      symbol = np.int64(following[drawn // 2]) if drawn < 2 * n else np.int64(drawn - 2 * n)
    out[i] = symbol
    context = (context << bits | np.uint64(symbol + 1)) & masks[order]


@numba.njit(cache=True, nogil=True)
def _probabilities(table, grams, counts, order, symbols, found):
  """Fills found [n] with the probability of each symbol."""
  bits, masks = _masks(order, counts.size)
  context, n = np.uint64(0), counts.sum()
  for i in range(symbols.size):
    symbol = symbols[i]
    probability = (counts[symbol] + 0.5) / (n + counts.size / 2)
    for level in range(1, min(i, order) + 1):
      known = context & masks[level]
      _, total, distinct = _found(table, known)
      if total:
        gram = known << bits | np.uint64(symbol + 1)
        _, count, _ = _found(grams if level == order else table, gram)
        probability = (count + distinct * probability) / (total + distinct)
    found[i] = probability
    context = (context << bits | np.uint64(symbol + 1)) & masks[order]
