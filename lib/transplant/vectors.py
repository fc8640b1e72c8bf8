# SPDX-License-Identifier: Apache-2.0
"""Vectors of pieces that do not come from the model: from text, or from a file.

From text: the singular vectors of a matrix of positive pointwise mutual information (Levy and
Goldberg, 2014) of pieces and their contexts. The contexts of both tokenizers' pieces are old
tokens, so that their vectors are in one space, and equal pieces have equal vectors.
Legend: V old ids, V′ new ids, d width.
"""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from lib import errors
from lib.errors import InputError
from lib.tokenizers.base import Dictionary

DIM, WINDOW = 100, 5  # of the vectors; contexts on each side
SMOOTHING = 0.75  # exponent of the counts of contexts
Pair = tuple[np.ndarray, np.ndarray]  # vectors of the old ids [V, d], and of the new ones [V', d]


def of_text(old: Dictionary, new: Dictionary, texts: Sequence[bytes], dim: int = DIM) -> Pair:
  """Vectors of the ids of two tokenizers from the same texts; zero for pieces that do not occur.

  Raises:
    InputError: texts without tokens.
  """
  index: dict[bytes, int] = {}
  rows_of = [
    np.array([index.setdefault(piece, len(index)) for piece in one.pieces]) for one in (old, new)
  ]
  counts = sparse.csr_array((len(index), 2 * old.vocab_size), dtype=np.float64)
  contexts = old.encode_batch(texts)
  for one, rows in zip((old, new), rows_of, strict=True):
    coded = contexts if one is old else one.encode_batch(texts)
    for ids, around in zip(coded, contexts, strict=True):
      places = _around(one.lengths[ids], old.lengths[around])
      counts = counts + _counts(rows[ids], around, places, counts.shape)
  if not counts.nnz:
    raise InputError('vectors of pieces need text of two tokens or more.')
  found = svd(ppmi(counts), dim)
  return found[rows_of[0]], found[rows_of[1]]


def _around(sizes: np.ndarray, context_sizes: np.ndarray) -> np.ndarray:
  """Places [n, 2 · WINDOW] of the contexts before and after each token; −1 outside of the text."""
  stops, edges = np.cumsum(sizes), np.cumsum([0, *context_sizes])
  ahead = np.searchsorted(edges, stops)  # the first context that begins where the token ends
  behind = np.searchsorted(edges, stops - sizes, side='right') - 2  # the last that ends before it
  steps = np.arange(WINDOW)
  places = np.concatenate([behind[:, None] - steps, ahead[:, None] + steps], axis=1)
  return np.where((places >= 0) & (places < len(context_sizes)), places, -1)


def _counts(
  rows: np.ndarray, around: np.ndarray, places: np.ndarray, shape: tuple[int, int]
) -> sparse.csr_array:
  """Occurrences of rows with contexts; those before and those after are different contexts."""
  known = places >= 0
  side = np.repeat([0, shape[1] // 2], WINDOW)[None]
  columns = (around[np.maximum(places, 0)] + side)[known] if len(around) else places[known]
  rows = np.broadcast_to(rows[:, None], places.shape)[known]
  return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


def ppmi(counts: sparse.csr_array) -> sparse.csr_array:
  """Positive pointwise mutual information of counts [n, contexts]."""
  of_rows, of_columns = counts.sum(axis=1), counts.sum(axis=0) ** SMOOTHING
  found = counts.tocoo()
  row, column = found.coords
  share = of_columns / of_columns.sum()
  values = np.log(found.data / (of_rows[row] * share[column]))
  kept = values > 0
  places = row[kept], column[kept]
  return sparse.csr_array((values[kept], places), shape=counts.shape)


def svd(matrix: sparse.csr_array, dim: int) -> np.ndarray:
  """The leading left singular vectors times √ of their values, float32 [n, d], d at most `dim`."""
  size = min(matrix.shape)
  if size <= dim + 1:
    left, values, _ = np.linalg.svd(matrix.toarray(), full_matrices=False)
  else:
    start = np.random.default_rng(0).normal(size=size)
    left, values, _ = sparse.linalg.svds(matrix, dim, v0=start)
  found = (left * np.sqrt(np.maximum(values, 0))).astype(np.float32)
  found[np.diff(matrix.indptr) == 0] = 0  # rather than rounding
  return found


def read(path: str | os.PathLike, old: Dictionary, new: Dictionary) -> Pair:
  """Vectors of the ids of two tokenizers from a file.

  Args:
    path: .npz with arrays `old` [V, d] and `new` [V', d]; or text as word2vec writes it, a word and
      its numbers in each line. A piece has the vector of its text without white space around it;
      zero where the file has none.
    old: the old tokenizer.
    new: the new one.

  Raises:
    InputError: another kind of file, or one without any of the pieces.
  """
  with errors.refused(f'{path} has no vectors'):
    if pathlib.Path(path).suffix == '.npz':
      with np.load(path, allow_pickle=False) as found:
        pair = tuple(np.asarray(found[name], np.float32) for name in ('old', 'new'))
      for vectors, tokenizer in zip(pair, (old, new), strict=True):
        if vectors.ndim != 2 or len(vectors) != tokenizer.vocab_size:
          raise InputError(
            f'its arrays must be [{old.vocab_size}, d] and [{new.vocab_size}, d]; '
            f'got {[list(one.shape) for one in pair]}.'
          )
      return pair  # type: ignore[return-value]
    wanted = {piece.strip() for one in (old, new) for piece in one.pieces} - {b''}
    words: dict[bytes, np.ndarray] = {}
    with open(path, 'rb') as lines:
      for line in lines:
        word, *numbers = line.rstrip().split(b' ')
        if word in wanted and len(numbers) > 1:  # the first line is two numbers
          words[word] = np.array(numbers, np.float32)
    if not words or len({len(one) for one in words.values()}) > 1:
      raise InputError('it must have a word of the vocabulary and as many numbers in each line.')
    none = np.zeros_like(next(iter(words.values())))
    of = lambda one: np.stack([words.get(piece.strip(), none) for piece in one.pieces])
    return of(old), of(new)
