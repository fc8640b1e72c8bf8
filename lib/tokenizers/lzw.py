# SPDX-License-Identifier: Apache-2.0
"""LZW dictionaries as in arXiv 2404.08335, whose phrases do not overlap."""

from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import ArrayLike

from lib.tokenizers import base, pairs


class LZW(pairs.PairDictionary):
  """Phrases, each an earlier token and one more character: (prefix, symbol) in `merges`."""

  family = 'lzw'

  def __init__(self, alphabet: bytes, merges: ArrayLike, encoder: str = 'greedy'):
    super().__init__(alphabet, merges, encoder)


def train_lzw(
  documents: Sequence[bytes], vocab_size: int, alphabet: bytes | None = base.BYTES
) -> LZW:
  """Collects phrases from the documents until the dictionary has `vocab_size` tokens.

  Each phrase is the shortest prefix that is not yet a phrase (LZ78 parsing without overlap, unlike
  textbook LZW). A phrase that is cut short by a document's end is dropped. The characters of the
  alphabet have the first ids, whether or not they occur. An `alphabet` of None is the bytes that
  occur.

  Raises:
    InputError: a byte outside `alphabet`, or an alphabet larger than `vocab_size`.
  """
  alphabet, symbols, size = pairs.prepare(documents, vocab_size, alphabet)
  return LZW(alphabet, _phrases(symbols, len(alphabet), size))


@numba.njit(cache=True, nogil=True)
def _phrases(symbols, width, size):
  longer = np.full((size, width), -1, np.int32)  # the phrase with one more symbol; -1 = none
  begun = np.zeros(width, np.bool_)  # single characters cut off so far
  merges = np.empty((size - width, 2), np.int32)
  made, token = width, -1  # token: the phrase matched since the last cut, -1 = nothing yet
  for symbol in symbols:
    if made == size:
      break
    if symbol < 0:
      token = -1
    elif token < 0:
      if begun[symbol]:
        token = symbol
      begun[symbol] = True
    elif longer[token, symbol] >= 0:
      token = longer[token, symbol]
    else:
      longer[token, symbol] = made
      merges[made - width, 0], merges[made - width, 1] = token, symbol
      made, token = made + 1, -1
  return merges[: made - width].copy()
