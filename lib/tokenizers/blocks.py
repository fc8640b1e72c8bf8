# SPDX-License-Identifier: Apache-2.0
"""Fixed-length blocks: the toy tokenizer of arXiv 2404.08335."""

import collections
import itertools
import math
from collections.abc import Sequence

import numpy as np

from lib.errors import InputError
from lib.tokenizers import base

LIMIT_BITS = 20  # log2 of the most blocks; their pieces are all kept in memory


class Blocks(base.Dictionary):
  """Cuts a text into blocks of r characters.

  Ids below A^r are the blocks in lexicographic order of the alphabet (the block's number in base
  A, first character first). The rest of a text, if shorter than r, is spelled with A further ids,
  one for each character; r = 1 needs none.

  Args:
    alphabet: the A characters.
    r: characters of a block.
  """

  family = 'blocks'

  def __init__(self, alphabet: bytes, r: int):
    if not 1 <= r <= 1 << LIMIT_BITS or not alphabet or r * math.log2(len(alphabet)) > LIMIT_BITS:
      raise InputError(
        f'blocks of {r} over {len(alphabet)} characters: there must be 1 to {2**LIMIT_BITS} '
        'blocks, of no more characters'
      )
    blocks = [bytes(block) for block in itertools.product(alphabet, repeat=r)]
    tails = [bytes([byte]) for byte in alphabet] if r > 1 else []
    super().__init__(blocks + tails, alphabet=alphabet)
    self.r = r

  def encode(self, data: bytes) -> np.ndarray:
    """Returns ids, int32 [n // r + n % r]; raises InputError for a byte outside the alphabet."""
    symbols = self.symbols(data).astype(np.int32)
    cut = symbols.size - symbols.size % self.r
    blocks = np.zeros(cut // self.r, np.int32)
    for place in range(self.r):
      blocks = blocks * len(self.alphabet) + symbols[place : cut : self.r]
    return np.concatenate([blocks, symbols[cut:] + len(self.alphabet) ** self.r])

  def state(self) -> base.State:
    """The alphabet and the length of a block."""
    return {'alphabet': base.byte_array(self.alphabet), 'r': np.array(self.r, np.int32)}

  @classmethod
  def from_state(cls, state: base.State) -> 'Blocks':
    """Rebuilds from `state()`."""
    return cls(state['alphabet'].tobytes(), int(state['r']))


def train_blocks(documents: Sequence[bytes], vocab_size: int, r: int = 2) -> base.Dictionary:
  """The most frequent blocks of r bytes; other blocks are spelled with single bytes."""
  if vocab_size < 256 or r < 2:
    raise InputError(
      f'{vocab_size} ids for blocks of {r}: ask for 256 or more, and for blocks of 2 or more'
    )
  counts: collections.Counter[bytes] = collections.Counter()
  for document in documents:
    counts.update(document[i : i + r] for i in range(0, len(document) - r + 1, r))
  frequent = [block for block, _ in counts.most_common(vocab_size - 256)]
  return base.Dictionary([*(bytes([byte]) for byte in base.BYTES), *frequent])
