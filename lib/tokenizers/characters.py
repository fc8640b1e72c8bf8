# SPDX-License-Identifier: Apache-2.0
"""One token a character: the tokenizer that does nothing."""

from collections.abc import Sequence

import numpy as np

from lib.errors import InputError
from lib.tokenizers import base


class Characters(base.Dictionary):
  """Each byte of the alphabet is a token; by default all 256."""

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
  """An id for each of the 256 bytes, whatever the documents; raises InputError for fewer ids."""
  del documents
  if vocab_size < 256:
    raise InputError(f'{vocab_size} ids do not hold all bytes: ask for 256 or more')
  return Characters()
