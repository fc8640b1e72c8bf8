# SPDX-License-Identifier: Apache-2.0
"""The interface of tokenizers: bytes to ids and back, with the bytes that each id covers."""

import abc
import dataclasses
import functools
import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from lib.errors import InputError
from lib.tokenizers import trie

State = dict[str, np.ndarray]
BYTES = bytes(range(256))


@dataclasses.dataclass(frozen=True)
class Coded:
  """A document as tokens.

  Attributes:
    ids: int32 [n].
    byte_lengths: int32 [n], bytes that each id covers.
    size: bytes of the document.
    crc: their CRC32.
  """

  ids: np.ndarray
  byte_lengths: np.ndarray
  size: int
  crc: int


class Tokenizer(abc.ABC):
  """Bytes to ids and back; where `lossless`, `decode(encode(x)) == x` for every `x` it accepts.

  Attributes:
    family: name of the class in files and fingerprints.
    lossless: see above.
    alphabet: the bytes that it accepts.
    unknown_ids: ids of text outside the tokenizer's vocabulary.
    fixed_lengths: whether `byte_lengths` of any ids needs no decoding.
    progress: called with the number of further bytes that `encode_batch` or `decode_batch` has
      done, ends of texts included; for progress bars.
    on_fallback: called by `encode` with the number of bytes that it wrote one by one.
  """

  family: ClassVar[str]
  lossless: bool = True
  alphabet: bytes = BYTES
  unknown_ids: frozenset[int] = frozenset()
  fixed_lengths: bool = False
  progress: Callable[[int], object] = staticmethod(lambda size: None)
  on_fallback: Callable[[int], object] = staticmethod(lambda size: None)

  @property
  @abc.abstractmethod
  def vocab_size(self) -> int:
    """Number of ids: each is in `range(vocab_size)`."""

  @property
  def preferred_batch(self) -> int:
    """The number of documents per call that is most efficient."""
    return 1

  @abc.abstractmethod
  def encode(self, data: bytes) -> np.ndarray:
    """Returns ids, int32 [n]; raises InputError for bytes that it cannot encode."""

  @abc.abstractmethod
  def decode(self, ids: ArrayLike) -> bytes:
    """Returns the bytes of `ids` [n]; raises InputError for an id out of range."""

  @abc.abstractmethod
  def byte_lengths(self, ids: ArrayLike) -> np.ndarray:
    """Bytes covered by each of `ids` [n], int32 [n]; over an encoding they sum to its bytes."""

  def cover(self, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids, and how many bytes of `data` each covers, int32 [n] both.

    These equal `byte_lengths` of the ids, unless the ids decode to other bytes than `data`. They
    add up to the bytes of `data`, so bits per byte include all of them.
    """
    ids = self.encode(data)
    return ids, self.byte_lengths(ids)

  def token_bytes(self, token: int) -> bytes | None:
    """The bytes of an id; None if they depend on the ids before it."""
    self.check_ids([token])
    return None

  def windows(self) -> tuple[np.ndarray, list[bytes]]:
    """The smallest groups of tokens with their own text, int32 [n, tokens of a window], and the
    texts.

    Raises:
      InputError: tokens have no text without the tokens before them.
    """
    raise InputError(
      f'text cannot be sampled from {self.family} tokens: use a tokenizer whose windows are whole '
      'numbers of tokens and each have their own text, such as equal_info up to 16 bits or a '
      'dictionary'
    )

  def encode_batch(self, documents: Sequence[bytes]) -> list[np.ndarray]:
    """The ids of each document, int32 [n] each; raises InputError as `encode` does."""
    rows = []
    for document in documents:
      rows.append(self.encode(document))
      self.progress(len(document))
    return rows

  def cover_batch(self, documents: Sequence[bytes]) -> list[Coded]:
    """`cover` of each document, which can take as long as a decoding."""
    covered = map(self.cover, documents)
    return [Coded(*pair, len(x), zlib.crc32(x)) for pair, x in zip(covered, documents, strict=True)]

  def decode_batch(self, rows: Sequence[ArrayLike]) -> list[bytes]:
    """The bytes of each row of ids; raises InputError as `decode` does."""
    documents = []
    for row in rows:
      documents.append(self.decode(row))
      self.progress(len(documents[-1]))
    return documents

  def fallback_bytes(self, data: bytes) -> int:
    """Number of bytes of `data` in byte fallback, because the library does not restore them."""
    del data
    return 0

  @abc.abstractmethod
  def state(self) -> State:
    """The arrays that define the tokenizer; `from_state` rebuilds it from them."""

  @classmethod
  @abc.abstractmethod
  def from_state(cls, state: State) -> 'Tokenizer':
    """Rebuilds a tokenizer from `state()` or `file_state()`."""

  def file_state(self) -> State:
    """The arrays of its file: the state, and what else is needed to rebuild the tokenizer."""
    return self.state()

  @functools.cached_property
  def fingerprint(self) -> str:
    """The sha256, in hex, of the family and the state: equal exactly for equal tokenizers."""
    return digest(self.family, self.state())

  def check_ids(self, ids: ArrayLike) -> np.ndarray:
    """Returns `ids` as int32 [n]; raises InputError that names an id out of range."""
    array = np.asarray(ids)
    if array.size == 0:
      return np.zeros(0, np.int32)
    if array.ndim != 1 or array.dtype.kind not in 'iu':
      raise InputError(
        f'token ids must be one row of integers, not {array.dtype} of shape {array.shape}'
      )
    wrong = np.flatnonzero((array < 0) | (array >= self.vocab_size))
    if wrong.size:
      raise InputError(
        f'token id {array[wrong[0]]} at position {wrong[0]} is out of range: '
        f'this {self.family} tokenizer has ids 0 to {self.vocab_size - 1}'
      )
    return array.astype(np.int32)

  def __reduce__(self):
    # Data workers get the defining arrays and rebuild the rest, since processors cannot be pickled.
    return type(self).from_state, (self.state(),)


class Dictionary(Tokenizer):
  """A tokenizer whose ids have fixed bytes; text is cut greedily or into the fewest pieces.

  An empty piece is a control token: it is never emitted and decodes to nothing. Of equal pieces
  the first id is emitted.

  Args:
    pieces: the bytes of each id.
    encoder: 'greedy' (longest match at each point) or 'minimal' (fewest tokens).
    alphabet: the bytes that may occur, in the order of their symbols; by default those of
      `pieces`, ascending.
  """

  family = 'dictionary'
  encoders: ClassVar[tuple[str, ...]] = ('greedy', 'minimal')
  fixed_lengths = True

  def __init__(
    self, pieces: Sequence[bytes], encoder: str = 'greedy', alphabet: bytes | None = None
  ):
    if not pieces:
      raise InputError('a dictionary needs at least one piece')
    if encoder not in self.encoders:
      raise InputError(
        f'encoder {encoder!r} is unknown here: use one of {", ".join(self.encoders)}'
      )
    self.pieces = list(pieces)
    self.encoder = encoder
    joined = b''.join(filter(None, pieces))
    self.alphabet = letters(joined) if alphabet is None else alphabet
    if len(set(self.alphabet)) < len(self.alphabet):
      raise InputError(f'alphabet {self.alphabet!r} repeats a byte: each may occur once')
    if stray := joined.translate(None, self.alphabet):
      raise InputError(f'byte {stray[0]:#04x} occurs in a piece but not in the alphabet')
    self.lengths = np.fromiter(map(len, pieces), np.int32, len(pieces))
    self._symbol_table = bytes(max(self.alphabet.find(byte), 0) for byte in range(256))

  @property
  def vocab_size(self) -> int:
    """Number of ids."""
    return len(self.pieces)

  @property
  def special_tokens(self) -> Mapping[int, str]:
    """The ids without text, such as <s>, and their names."""
    return {}

  @functools.cached_property
  def trie(self) -> trie.Trie:
    """The pieces as a trie over the alphabet."""
    return trie.build(self.symbols(b''.join(self.pieces)), self.lengths, len(self.alphabet))

  def symbols(self, data: bytes) -> np.ndarray:
    """The place in the alphabet of each byte, uint8 [n]; raises InputError for a byte outside."""
    foreign = data.translate(None, self.alphabet)
    if foreign:
      raise InputError(
        f'byte {foreign[0]:#04x} at position {data.index(foreign[0])} is outside the alphabet '
        f'{self.alphabet!r} of this {self.family} tokenizer'
      )
    return np.frombuffer(data.translate(self._symbol_table), np.uint8)

  def encode(self, data: bytes) -> np.ndarray:
    """Returns ids, int32 [n]; raises InputError where the pieces cannot cover `data`."""
    walk = {'greedy': trie.greedy, 'minimal': trie.minimal}[self.encoder]
    ids, stuck = walk(self.trie.children, self.trie.token, self.symbols(data))
    if stuck >= 0:
      raise InputError(
        f'the {self.encoder} encoder finds no piece that continues from byte {stuck} '
        f'({data[stuck : stuck + 8]!r}): make every byte of the alphabet a piece'
      )
    return ids

  def decode(self, ids: ArrayLike) -> bytes:
    """The pieces of `ids` [n], joined; raises InputError for an id out of range."""
    return b''.join(map(self.pieces.__getitem__, self.check_ids(ids).tolist()))

  def byte_lengths(self, ids: ArrayLike) -> np.ndarray:
    """Bytes in the piece of each of `ids` [n], int32 [n]."""
    return self.lengths[self.check_ids(ids)]

  def token_bytes(self, token: int) -> bytes:
    """The piece of an id."""
    return self.pieces[self.check_ids([token])[0]]

  def windows(self) -> tuple[np.ndarray, list[bytes]]:
    """Each id and its piece."""
    return np.arange(self.vocab_size, dtype=np.int32)[:, None], self.pieces

  def state(self) -> State:
    """Concatenated pieces with their lengths, the alphabet and the encoder's name."""
    return {
      'bytes': byte_array(b''.join(self.pieces)),
      'lengths': self.lengths,
      'alphabet': byte_array(self.alphabet),
      'encoder': byte_array(self.encoder.encode()),
    }

  @classmethod
  def from_state(cls, state: State) -> 'Dictionary':
    """Rebuilds a dictionary from `state()`."""
    pieces = split(state['bytes'].tobytes(), state['lengths'])
    return cls(pieces, state['encoder'].tobytes().decode(), state['alphabet'].tobytes())


def digest(family: str, state: State) -> str:
  """The sha256, in hex, of a name and of arrays with theirs."""
  found = hashlib.sha256(family.encode())
  for name, array in sorted(state.items()):
    found.update(f'\n{name} {array.dtype.str} {array.shape}\n'.encode())
    found.update(array.tobytes())
  return found.hexdigest()


def letters(data: bytes) -> bytes:
  """The distinct bytes of `data`, ascending."""
  return bytes(sorted(set(data)))


def byte_array(data: bytes) -> np.ndarray:
  """The bytes as uint8 [n]."""
  return np.frombuffer(data, np.uint8)


def split(data: bytes, lengths: np.ndarray) -> list[bytes]:
  """Cuts `data` into pieces of these lengths [n]; raises InputError if they do not add up."""
  stops = np.cumsum(lengths, dtype=np.int64).tolist()
  outside = np.any((lengths < 0) | (lengths > len(data)))
  if lengths.dtype.kind not in 'iu' or outside or (stops[-1] if stops else 0) != len(data):
    raise InputError('the lengths of the pieces do not add up to their bytes')
  return [data[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]
