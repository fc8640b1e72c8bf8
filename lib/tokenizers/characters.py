# SPDX-License-Identifier: Apache-2.0
"""One token for each byte: the trivial tokenizer."""

from collections.abc import Sequence

import numpy as np

from lib.errors import InputError
from lib.tokenizers import base


class Characters(base.Dictionary):
  """Each byte of the alphabet is a token; by default the alphabet is all 256 bytes."""

  family = 'characters'

  def __init__(self, alphabet: bytes = base.BYTES):
    super().__init__([bytes([byte]) for byte in alphabet], alphabet=alphabet)

  def encode(self, data: bytes) -> np.ndarray:
    """Returns the symbol of each byte, int32 [n]; raises InputError for a byte outside."""
    return self.symbols(data).astype(np.int32)

  def state(self) -> base.State:
    """The alphabet."""
    return {'alphabet': base.byte_array(self.alphabet)}

  @classmethod
  def from_state(cls, state: base.State) -> 'Characters':
    """Rebuilds from `state()`."""
    return cls(state['alphabet'].tobytes())


def train_bytes(documents: Sequence[bytes], vocab_size: int = 256) -> Characters:
  """An id for each of the 256 bytes; nothing is learned. Raises InputError for fewer ids."""
  del documents
  if vocab_size < 256:
    raise InputError(f'{vocab_size} ids are fewer than the 256 bytes: ask for 256 or more')
  return Characters()
