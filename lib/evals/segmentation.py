# SPDX-License-Identifier: Apache-2.0
"""Measures of a tokenized text, without any model: lengths, use of the vocabulary, evenness.

A text is measured in blocks, each encoded by itself. They are the independent units of all errors:
blocks are drawn again, with replacement (bootstrap).
"""

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from lib.tokenizers import documents, utf8
from lib.tokenizers.base import Tokenizer
from lib.tokenizers.documents import Restored

ORDER = 2.5  # of the Rényi entropy, by which Zouhar et al. (2023) rank tokenizers best
CUTS = 16  # blocks whose beginning is cut away, for the stability of boundaries


@dataclasses.dataclass(frozen=True)
class Segmented:
  """A text of B blocks as tokens of one of V ids.

  Attributes:
    sizes, characters, words: int64 [B], of each block; words are separated by whitespace.
    tokens: int64 [B].
    counts: sparse int64 [B, V], how often each id occurs.
    restored: share of the text that decoding restores.
    stable: int64 [C, 2], of some blocks, boundaries that stay when the block's beginning is cut
      away, and all boundaries.
    seconds: of CPU time that encoding took, in one thread.
  """

  sizes: np.ndarray
  characters: np.ndarray
  words: np.ndarray
  tokens: np.ndarray
  counts: sparse.csr_array
  restored: Restored
  stable: np.ndarray
  seconds: float


def segment(tokenizer: Tokenizer, blocks: Sequence[bytes]) -> Segmented:
  """The blocks of a text, one or more, as tokens."""
  tokenizer.encode(blocks[0])  # what is made once for all texts does not count
  begin = time.thread_time()
  rows = tokenizer.encode_batch(blocks)
  seconds = time.thread_time() - begin
  tokens = np.array([row.size for row in rows], np.int64)
  ids = np.concatenate(rows)
  places = np.repeat(np.arange(len(rows)), tokens), ids
  counts = sparse.csr_array(
    sparse.coo_array((np.ones(ids.size, np.int64), places), shape=(len(rows), tokenizer.vocab_size))
  )
  texts = [block.decode('utf-8', 'replace') for block in blocks]
  of = lambda sizes: np.array([*sizes], np.int64)
  return Segmented(
    of(map(len, blocks)),
    of(map(len, texts)),
    of(len(text.split()) for text in texts),
    tokens,
    counts,
    documents.restored(tokenizer, blocks, rows),
    np.array([_stable(tokenizer, block) for block in blocks[:CUTS]], np.int64).reshape(-1, 2),
    seconds,
  )


def join(texts: Sequence[Segmented]) -> Segmented:
  """Several texts under one tokenizer as one."""
  sizes = np.array([text.sizes.sum() for text in texts], float)
  parts = np.array([text.restored for text in texts])
  values = {
    field.name: np.concatenate([getattr(text, field.name) for text in texts])
    for field in dataclasses.fields(Segmented)
    if field.name not in ('counts', 'restored', 'seconds')
  }
  return Segmented(
    **values,
    counts=sparse.csr_array(sparse.vstack([text.counts for text in texts])),
    restored=Restored(*(parts * sizes[:, None]).sum(axis=0) / sizes.sum()),
    seconds=sum(text.seconds for text in texts),
  )


def renyi_efficiency(counts: ArrayLike, size: int, order: float = ORDER) -> float:
  """Rényi entropy of the ids over the logarithm of the size of the vocabulary, 0 to 1.

  Args:
    counts: [V], how often each id comes.
    size: of the whole vocabulary, used or not: of the ids that come, a small text has few.
    order: not 1.

  Source: Zouhar et al. (2023), Tokenization and the Noiseless Channel, equation 14.
  """
  found = np.asarray(counts, float)
  shares = found[found > 0] / found.sum()
  return float(np.log((shares**order).sum()) / (1 - order) / np.log(size))


def gini(costs: ArrayLike) -> float:
  """Gini coefficient of n positive costs: Σ |a − b| / (2 n² mean); 0 where all are equal.

  Source: Foroutan et al. (2508.04796), Parity-Aware Byte-Pair Encoding.
  """
  found = np.asarray(costs, float)
  return float(np.abs(found[:, None] - found).mean() / (2 * found.mean()))


def _stable(tokenizer: Tokenizer, block: bytes) -> tuple[int, int]:
  """How many boundaries after the first half stay if that half is cut away, and how many are."""
  cut = utf8.boundary(block, len(block) // 2)
  whole = np.cumsum(tokenizer.cover(block)[1])
  rest = cut + np.cumsum(tokenizer.cover(block[cut:])[1])
  there = whole[(whole > cut) & (whole < len(block))]
  return int(np.isin(there, rest).sum()), there.size
