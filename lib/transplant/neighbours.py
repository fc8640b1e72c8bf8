# SPDX-License-Identifier: Apache-2.0
"""The largest inner products of two sets of vectors, block by block, and weights made from them.

The matrix of all products [N, M] is never in memory: at 128,000 × 128,000 it would take 64 GB.
Legend: N queries, M keys, d width.
"""

import numba
import numpy as np

QUERIES, KEYS = 1024, 2048  # products of a block, 8 MB


def normalised(vectors: np.ndarray) -> np.ndarray:
  """The vectors [n, d] at length 1, float32; a zero vector stays zero."""
  vectors = np.asarray(vectors, np.float32)
  lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.where(lengths > 0, lengths, 1)


def top_k(queries: np.ndarray, keys: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
  """The k largest inner products of each query [N, d] with the keys [M, d].

  Returns:
    Products, descending, and the keys' indices, [N, min(k, M)] each. Of equal products the lower
    index comes first.
  """
  k = min(k, len(keys))
  scores = np.full((len(queries), k), -np.inf, np.result_type(queries, keys))
  found = np.zeros((len(queries), k), np.int64)
  for first in range(0, len(queries), QUERIES):
    rows = slice(first, first + QUERIES)
    for start in range(0, len(keys), KEYS):
      _insert(queries[rows] @ keys[start : start + KEYS].T, start, scores[rows], found[rows])
  return scores, found


@numba.njit(cache=True, nogil=True)
def _insert(products, start, scores, found):
  """Puts the products [n, m] with keys from `start` on into the sorted lists [n, k] of each row."""
  k = scores.shape[1]
  for row in range(products.shape[0]):
    least = scores[row, k - 1]
    for key in range(products.shape[1]):
      value = products[row, key]
      if value > least:
        place = k - 1
        while place > 0 and scores[row, place - 1] < value:
          scores[row, place], found[row, place] = scores[row, place - 1], found[row, place - 1]
          place -= 1
        scores[row, place], found[row, place] = value, start + key
        least = scores[row, k - 1]


def softmax(scores: np.ndarray, temperature: float) -> np.ndarray:
  """Weights [N, k] that sum to 1."""
  powers = np.exp((scores - scores.max(axis=1, keepdims=True)) / temperature)
  return powers / powers.sum(axis=1, keepdims=True)


def sparsemax(scores: np.ndarray) -> np.ndarray:
  """Weights [N, k] of descending scores: their projection onto the simplex (arXiv 1602.02068)."""
  sums = np.cumsum(scores, axis=1, dtype=np.float64)
  size = 1 + np.arange(scores.shape[1])
  support = (1 + size * scores > sums).sum(axis=1, keepdims=True)
  threshold = (np.take_along_axis(sums, support - 1, axis=1) - 1) / support
  return np.maximum(scores - threshold, 0)


def sparsemax_top(queries: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Sparsemax over the products with all keys: weights and indices [N, k], with unused zeros.

  Products are taken from the largest on; queries that use all of theirs get more.
  """
  k = min(64, len(keys))
  scores, found = top_k(queries, keys, k)
  weights = sparsemax(scores)
  while k < len(keys) and (unsure := np.flatnonzero(weights[:, -1] > 0)).size:
    k = min(4 * k, len(keys))
    scores, more = top_k(queries[unsure], keys, k)
    wider = lambda array: np.pad(array, [(0, 0), (0, k - array.shape[1])])
    weights, found = wider(weights), wider(found)
    weights[unsure], found[unsure] = sparsemax(scores), more
  return weights, found
