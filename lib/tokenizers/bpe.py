# SPDX-License-Identifier: Apache-2.0
"""Byte-pair encoding: an alphabet and ordered merges within the pieces of a pretokenizer."""

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lib.errors import InputError
from lib.tokenizers import base, bpe_apply, bpe_learn, pairs, pretokenizers
from lib.tokenizers.wordpiece import byte_characters


class BPE(pairs.PairDictionary):
  """Applies its merges within pieces of the text, in their order, each from left to right.

  The other two encoders use the merges only as a dictionary, without their order and the rule.

  Args:
    alphabet: the A characters, ids 0 to A - 1.
    merges: int32 [m, 2], row i joins ids (left, right) to id A + i.
    encoder: 'merges', 'greedy' or 'minimal'.
    rule: the pretokenizer (`lib.tokenizers.pretokenizers`), which cuts a text into pieces.
    shared: whether merges with equal bytes make the same token, as in other libraries. If true,
      row i makes the token that has its bytes already, or else the next id.
  """

  family = 'bpe'
  encoders = ('merges', 'greedy', 'minimal')

  def __init__(
    self,
    alphabet: bytes,
    merges: ArrayLike,
    encoder: str = 'merges',
    rule: str = 'none',
    shared: bool = False,
  ):
    pretokenizers.patterns(rule)
    self.rule = rule
    super().__init__(alphabet, merges, encoder, shared)

  def encode(self, data: bytes) -> np.ndarray:
    """Returns ids, int32 [n]; raises InputError for a byte outside the alphabet."""
    if self.encoder == 'merges':
      return self.apply(data)
    return super().encode(data)

  def apply(self, data: bytes, cache: bool = True) -> np.ndarray:
    """As `encode` by merges; `cache` stores the ids of words that occur again in `data`."""
    self.symbols(data)
    return bpe_apply.encode(data, pretokenizers.cut(data, self.rule), self.tables, cache)

  def last_tokens(self, data: bytes) -> np.ndarray:
    """The last token of the encoding of each prefix data[: i + 1] of a piece, int32 [n].

    Raises:
      InputError: a byte outside the alphabet, or two merges that make the same token.
    """
    self.symbols(data)
    if not len(self.tables.parts):
      raise InputError('last tokens need merges of which no two make the same token')
    return bpe_apply.last_tokens(data, self.tables)

  def boundaries(self) -> np.ndarray:
    """Which tokens can be neighbours: bool [d, d], true if the bytes a + b are encoded as (a, b).

    A sequence of ids is the encoding of a piece by 'merges' if and only if all neighbours can be.
    """
    whole = np.zeros(self.vocab_size, bool)
    whole[self.tables.ids[self.tables.ids >= 0]] = True
    return bpe_apply.boundaries(self.tables) & whole[:, None] & whole

  @functools.cached_property
  def tables(self) -> bpe_apply.Tables:
    """The tables of the compiled encoder."""
    letters = np.arange(len(self.alphabet), dtype=np.int32)
    symbols = np.zeros(256, np.int32)
    symbols[base.byte_array(self.alphabet)] = letters
    parts = np.vstack([np.stack([letters, letters], axis=1), self.merges])
    once = len(parts) == self.vocab_size
    table = bpe_apply.rules(self.merges)
    return bpe_apply.tables(self.pieces, symbols, table, self.made, parts[: len(parts) * once])

  def to_json(self) -> str:
    """A `tokenizer.json` that gives the library `tokenizers` the same ids for every text.

    Raises:
      InputError: an incomplete alphabet, an encoder other than 'merges', or two tokens of equal
        bytes, which such a file cannot express.
    """
    import tokenizers
    from tokenizers import Regex, decoders, models, pre_tokenizers

    once = len(set(self.pieces)) == self.vocab_size
    if self.encoder != 'merges' or len(self.alphabet) < 256 or not once:
      raise InputError(
        'a tokenizer.json can express a BPE with all bytes, encoded by merges, of which no two '
        'tokens have the same bytes'
      )
    names = byte_characters()
    written = [''.join(names[byte] for byte in piece) for piece in self.pieces]
    merges = [(written[left], written[right]) for left, right in self.merges.tolist()]
    model = models.BPE({name: i for i, name in enumerate(written)}, merges)
    made = tokenizers.Tokenizer(model)
    splits = [
      pre_tokenizers.Split(Regex(pattern), 'isolated')
      for pattern in pretokenizers.patterns(self.rule)
    ]
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([*splits, bytewise])
    made.decoder = decoders.ByteLevel()
    return made.to_str()

  def state(self) -> base.State:
    """The alphabet, the merges, the encoder's name, the rule (if any), and `shared`."""
    state = super().state()
    if self.rule != 'none':
      state['rule'] = base.byte_array(self.rule.encode())
    return state

  @classmethod
  def from_state(cls, state: base.State) -> 'BPE':
    """Rebuilds from `state()`."""
    encoder, rule = (
      state[name].tobytes().decode() if name in state else 'none' for name in ('encoder', 'rule')
    )
    return cls(state['alphabet'].tobytes(), state['merges'], encoder, rule, 'shared' in state)


def train_bpe(
  documents: Sequence[bytes], vocab_size: int, rule: str = 'words', min_count: int = 2
) -> BPE:
  """BPE within the pieces of a pretokenizer, which is the usual meaning of BPE.

  The merges equal those of Hugging Face's trainer for the same pieces. Ids of bytes are in the
  order of GPT-2's characters for them. Overlapping occurrences all count ('aaa' contains 'aa'
  twice). Ties go to the lowest (left, right). Merges with equal bytes make the same token.

  Args:
    documents: any bytes.
    vocab_size: most tokens, at least 256.
    rule: the pretokenizer.
    min_count: least count of a pair that is merged, at least 1.

  Raises:
    InputError: a smaller vocabulary, or an unknown rule.
  """
  pretokenizers.patterns(rule)
  alphabet = gpt2_alphabet()
  if vocab_size < len(alphabet):
    raise InputError(f'{vocab_size} tokens cannot hold the bytes: ask for {len(alphabet)} or more')
  pieces = pretokenizers.count(documents, rule)
  cells, weights = pieces.cells(np.argsort(base.byte_array(alphabet)).astype(np.int32))
  tokens = [bytes([byte]) for byte in alphabet]
  merges = bpe_learn.learn(cells, vocab_size, tokens, weights, min_count, overlap=True, shared=True)
  return BPE(alphabet, merges, rule=rule, shared=True)


def gpt2_alphabet() -> bytes:
  """All bytes in the order of the characters that GPT-2 writes for them."""
  return bytes(np.argsort([ord(character) for character in byte_characters()]).tolist())


def train_bpe_unsplit(
  documents: Sequence[bytes],
  vocab_size: int,
  alphabet: bytes | None = base.BYTES,
  min_count: int = 2,
) -> BPE:
  """Merges the most frequent pair until there are `vocab_size` tokens or no pair is frequent
  enough.

  A pair is two neighbours in a document, also across spaces, and must occur `min_count` times.
  Occurrences are counted without overlap ('000' contains '00' once). Ties go to the lowest
  (left, right). If `alphabet` is None, it is the set of bytes that occur.

  Raises:
    InputError: a byte outside `alphabet`, or an alphabet larger than `vocab_size`.
  """
  alphabet, symbols, size = pairs.prepare(documents, vocab_size, alphabet)
  tokens = [bytes([byte]) for byte in alphabet]
  return BPE(alphabet, bpe_learn.learn(symbols, size, tokens, min_count=min_count))


def train_sequential_bpe(data: bytes, texts: int) -> BPE:
  """Algorithm 1 of 'Toward a Theory of Tokenization in LLMs': each merge uses a separate text.

  `data` is cut into d = `texts` equal texts (the remainder is not used). In text i, encoded
  with the merges so far, the most frequent pair is merged if it occurs more than log d times;
  otherwise text i adds nothing.
  """
  size = len(data) // texts if texts > 0 else 0
  if size < 2:
    raise InputError(f'{len(data)} bytes do not make {texts} texts of two characters or more')
  bpe = BPE(base.letters(data), [])
  for start in range(0, size * texts, size):
    merge, count = _most_frequent_pair(bpe.encode(data[start : start + size]), bpe.vocab_size)
    if count > math.log(texts):
      bpe = BPE(bpe.alphabet, np.vstack([bpe.merges, merge]))
  return bpe


def _most_frequent_pair(ids: np.ndarray, size: int) -> tuple[tuple[int, int], int]:
  """The most frequent pair, counted without overlap, and its count; of equal counts the lowest
  pair.
  """
  changes = np.flatnonzero(np.diff(ids, prepend=-1))
  run = np.arange(ids.size) - np.repeat(changes, np.diff(changes, append=ids.size))
  # Within a run of one id, pairs begin only at even places.
  counted = (ids[:-1] != ids[1:]) | (run[:-1] % 2 == 0)
  keys, counts = np.unique(
    (ids[:-1].astype(np.int64) * size + ids[1:])[counted], return_counts=True
  )
  if not counts.size:
    return (0, 0), 0
  best = np.argmax(counts)
  return (int(keys[best] // size), int(keys[best] % size)), int(counts[best])
