# SPDX-License-Identifier: Apache-2.0
"""Dictionaries grown from an alphabet, each new piece out of two earlier ones: BPE and LZW."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from lib.errors import InputError
from lib.tokenizers import base, characters

LIMIT = 1 << 28  # most bytes of all pieces: thirty malicious merges could make a gigabyte


class PairDictionary(base.Dictionary):
  """Ids are the characters of the alphabet, then piece by piece `left + right` of each merge.

  Args:
    alphabet: the A characters; they are always tokens.
    merges: int32 [m, 2], row i makes a token out of two earlier ones (left, right).
    encoder: how a text is cut into the pieces, one of `encoders`.
    shared: whether a row whose piece exists already makes the existing id; else it makes a new id.
  """

  def __init__(self, alphabet: bytes, merges: ArrayLike, encoder: str, shared: bool = False):
    self.merges = np.array(merges, np.int32).reshape(-1, 2)
    pieces, made, room = [bytes([byte]) for byte in alphabet], [], LIMIT
    known = {piece: i for i, piece in enumerate(pieces)} if shared else {}
    for row, (left, right) in enumerate(self.merges.tolist()):
      if not 0 <= min(left, right) <= max(left, right) < len(pieces):
        raise InputError(
          f'merge {row} joins ids {left} and {right}: both must be lower than the id {len(pieces)} '
          'that it makes'
        )
      room -= len(pieces[left]) + len(pieces[right])
      if room < 0:
        raise InputError(f'the pieces of these merges are longer than {LIMIT:,} bytes in all')
      piece = pieces[left] + pieces[right]
      made.append(known.setdefault(piece, len(pieces)) if shared else len(pieces))
      if made[-1] == len(pieces):
        pieces.append(piece)
    self.made = np.array(made, np.int32)
    self.shared = len(pieces) < len(alphabet) + len(made)
    super().__init__(pieces, encoder, alphabet)

  def smaller(self, size: int) -> Self:
    """The first `size` tokens, which are the result of training with that size."""
    if not len(self.alphabet) <= size <= self.vocab_size:
      raise InputError(
        f'{size} tokens asked for: this dictionary gives {len(self.alphabet)} to {self.vocab_size}'
      )
    rows = np.flatnonzero(self.made == size - 1)[:1] + 1 if size > len(self.alphabet) else [0]
    return self.from_state(self.state() | {'merges': self.merges[: rows[0]]})

  def state(self) -> base.State:
    """The alphabet, the merges and the encoder's name; `shared` where a token is made twice."""
    state = {
      'alphabet': base.byte_array(self.alphabet),
      'merges': self.merges,
      'encoder': base.byte_array(self.encoder.encode()),
    }
    return state | ({'shared': np.array(True)} if self.shared else {})

  @classmethod
  def from_state(cls, state: base.State) -> Self:
    """Rebuilds from `state()`."""
    encoder = state['encoder'].tobytes().decode()
    return cls(state['alphabet'].tobytes(), state['merges'], encoder)


def prepare(
  documents: Sequence[bytes], vocab_size: int, alphabet: bytes | None
) -> tuple[bytes, np.ndarray, int]:
  """The alphabet, the symbols of all documents and the most tokens that training can end with.

  Args:
    documents: the training text. In the result, int16 [n], -1 separates documents.
    vocab_size: the most tokens.
    alphabet: the bytes that may occur; None takes those of the documents.

  Raises:
    InputError: no alphabet, one larger than `vocab_size`, or a byte outside it.
  """
  alphabet = base.letters(b''.join(documents)) if alphabet is None else alphabet
  if not alphabet:
    raise InputError('there is no text to train on: give some, or an alphabet')
  if vocab_size < len(alphabet):
    raise InputError(
      f'{vocab_size} tokens are fewer than the characters of the alphabet: '
      f'ask for {len(alphabet)} or more'
    )
  parts, gap = [], np.array([-1], np.int16)
  for document in documents:
    parts += [gap, characters.Characters(alphabet).symbols(document).astype(np.int16)]
  symbols = np.concatenate(parts[1:] or [gap[:0]])
  return alphabet, symbols, min(vocab_size, len(alphabet) + symbols.size)
