# SPDX-License-Identifier: Apache-2.0
"""Bytes that are marked where a token of another tokenizer ends: subword boundaries as ids.

Bolmo (arXiv 2512.15586) predicts with each byte whether it ends a subword. So a model of bytes can
cut its text where a subword tokenizer does, and read no byte before its turn: where subwords end
depends on later bytes, but the marks are read and predicted as a part of the ids.
"""

import numpy as np

from lib.tokenizers import base, registry

ENDS = tuple(range(256, 512))  # ids of bytes that end a token


class TokenEnds(base.Dictionary):
  """Id b for the byte b, or 256 + b if it ends a token of `subwords`.

  A text has one encoding, so bits per byte include those of the marks, and are an upper bound on
  the bits of the text.

  Args:
    subwords: any tokenizer that accepts all bytes.
  """

  family = 'token_ends'

  def __init__(self, subwords: base.Tokenizer):
    super().__init__([bytes([i % 256]) for i in range(512)])
    self.subwords = subwords

  def encode(self, data: bytes) -> np.ndarray:
    """Returns the bytes with their marks, int32 [n]."""
    ids = base.byte_array(data).astype(np.int32)
    lengths = self.subwords.cover(data)[1]
    ids[np.cumsum(lengths)[lengths > 0] - 1] += 256
    return ids

  def state(self) -> base.State:
    """The other tokenizer: its family, and its state."""
    return self._named(self.subwords.state())

  def file_state(self) -> base.State:
    """As `state`, with what the other tokenizer's file has."""
    return self._named(self.subwords.file_state())

  def _named(self, state: base.State) -> base.State:
    family = {'family': base.byte_array(self.subwords.family.encode())}
    return family | {f'subwords.{name}': array for name, array in state.items()}

  @classmethod
  def from_state(cls, state: base.State) -> 'TokenEnds':
    """Rebuilds from `state()` or `file_state()`."""
    subwords = registry.resolve(registry.FAMILIES[state['family'].tobytes().decode()].tokenizer)
    own = {name.partition('.')[2]: array for name, array in state.items() if '.' in name}
    return cls(subwords.from_state(own))
