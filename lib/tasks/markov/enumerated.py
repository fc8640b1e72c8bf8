# SPDX-License-Identifier: Apache-2.0
"""A Markov source cut at N letters, with all texts enumerated: exact laws of letters and tokens."""

import itertools
from collections import defaultdict

import numpy as np

from lib.errors import InputError
from lib.tasks.markov.chains import MarkovSource
from lib.tokenizers.base import Tokenizer

MOST = 1 << 14  # texts


class Enumerated:
  """All texts of N letters of a source, and the law of their tokens.

  Args:
    source: whose stationary stream is cut into texts.
    length: N.
    tokenizer: of the texts.

  Attributes:
    end: the id that ends a text, the one after the tokenizer's.
  """

  def __init__(self, source: MarkovSource, length: int, tokenizer: Tokenizer):
    if source.alphabet_size**length > MOST or length < source.order:
      raise InputError(
        f'{source.alphabet_size}^{length} texts cannot be enumerated: choose {source.order} '
        f'letters or more and at most {MOST:,} texts.'
      )
    self.end = tokenizer.vocab_size
    self.texts = [bytes(t) for t in itertools.product(source.alphabet, repeat=length)]
    symbols = np.array([[*text] for text in self.texts]) - source.alphabet[0]
    powers = source.alphabet_size ** np.arange(source.order)
    self._laws = source.block_law(source.order)[symbols[:, : source.order] @ powers]
    for place in range(source.order, length):
      context = symbols[:, place - source.order : place] @ powers
      self._laws = self._laws * source.kernel[context, symbols[:, place]]
    self._next: dict[tuple[int, ...], dict[int, float]] = defaultdict(lambda: defaultdict(float))
    self._byte: dict[bytes, np.ndarray] = defaultdict(lambda: np.zeros(257))
    for text, law in zip(self.texts, self._laws.tolist(), strict=True):
      ids = [*tokenizer.encode(text).tolist(), self.end]
      for place, token in enumerate(ids):
        self._next[tuple(ids[:place])][token] += law
      for place, byte in enumerate([*text, 256]):
        self._byte[text[:place]][byte] += law

  def next_token(self, ids: tuple[int, ...]) -> np.ndarray:
    """P(token | tokens), float64 [V + 1], the end last; zeros if no text has these tokens."""
    found = np.zeros(self.end + 1)
    for token, law in self._next.get(ids, {}).items():
      found[token] = law
    return found / max(found.sum(), np.finfo(float).tiny)

  def next_byte(self, text: bytes) -> np.ndarray:
    """P(byte | text), float64 [257], the end last."""
    return self._byte[text] / self._byte[text].sum()

  def prefixes(self) -> list[tuple[bytes, float]]:
    """Every beginning of a text, the whole ones too, and its probability."""
    return [(text, float(law.sum())) for text, law in self._byte.items()]
