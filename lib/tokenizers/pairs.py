# SPDX-License-Identifier: Apache-2.0
"""Dictionaries grown from an alphabet, each new piece out of two earlier ones: BPE and LZW."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from lib.errors import InputError
from lib.tokenizers import base, characters

LIMIT = 1 << 28  # bytes of all pieces: thirty merges of hostile hands could make a gigabyte


class PairDictionary(base.Dictionary):
  """Ids are the characters of the alphabet, then piece by piece `left + right` of each merge.

  Args:
    alphabet: the A characters; they are always tokens.
    merges: int32 [m, 2], row i makes id A + i out of two lower ids (left, right).
    encoder: how a text is cut into the pieces, one of `encoders`.
  """

  def __init__(self, alphabet: bytes, merges: ArrayLike, encoder: str):
    self.merges = np.array(merges, np.int32).reshape(-1, 2)
    made = len(alphabet) + np.arange(len(self.merges))[:, None]
    wrong = np.flatnonzero(np.any((self.merges < 0) | (self.merges >= made), axis=1))
    if wrong.size:
      left, right = self.merges[wrong[0]]
      raise InputError(
        f'merge {wrong[0]} joins ids {left} and {right}: both must be lower than the id '
        f'{len(alphabet) + wrong[0]} that it makes'
      )
    pieces, room = [bytes([byte]) for byte in alphabet], LIMIT
    for left, right in self.merges.tolist():
      room -= len(pieces[left]) + len(pieces[right])
      if room < 0:
        raise InputError(f'the pieces of these merges are longer than {LIMIT:,} bytes in all')
      pieces.append(pieces[left] + pieces[right])
    super().__init__(pieces, encoder, alphabet)

  def smaller(self, size: int) -> Self:
    """The first `size` tokens: what training would have given for that dictionary size."""
    if not len(self.alphabet) <= size <= self.vocab_size:
      raise InputError(
        f'{size} tokens asked for: this dictionary gives {len(self.alphabet)} to {self.vocab_size}'
      )
    return type(self)(self.alphabet, self.merges[: size - len(self.alphabet)], self.encoder)

  def state(self) -> base.State:
    """The alphabet, the merges and the encoder's name."""
    return {
      'alphabet': base.byte_array(self.alphabet),
      'merges': self.merges,
      'encoder': base.byte_array(self.encoder.encode()),
    }

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
    documents: to learn from; -1 stands between the symbols of two, int16 [n].
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
      f'{vocab_size} tokens cannot hold the alphabet: ask for {len(alphabet)} or more'
    )
  parts, gap = [], np.array([-1], np.int16)
  for document in documents:
    parts += [gap, characters.Characters(alphabet).symbols(document).astype(np.int16)]
  symbols = np.concatenate(parts[1:] or [gap[:0]])
  return alphabet, symbols, min(vocab_size, len(alphabet) + symbols.size)
