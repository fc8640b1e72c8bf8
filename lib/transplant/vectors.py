# SPDX-License-Identifier: Apache-2.0
"""External vectors of pieces, which do not come from the model: from text, or from a file.

From text: the singular vectors of a matrix of positive pointwise mutual information (Levy and
Goldberg, 2014) of pieces and their contexts. The contexts of both tokenizers' pieces are old
tokens, so that their vectors are in one space, and equal pieces have equal vectors.
Legend: V old ids, V′ new ids, d width.
"""

import os
import pathlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from lib import errors
from lib.errors import InputError
from lib.tokenizers.base import Dictionary
from lib.transplant import linear, neighbours

DIM, WINDOW = 100, 5  # of the vectors; contexts on each side
SMOOTHING = 0.75  # exponent of the counts of contexts
MOST = 20_000  # words with vectors
WORD = re.compile(rb'[A-Za-z\x80-\xff]+')
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
    left, values = left[:, ::-1], values[::-1]
  found = (left * np.sqrt(np.maximum(values, 0))).astype(np.float32)
  found[np.diff(matrix.indptr) == 0] = 0  # rather than rounding
  return found


class Words(NamedTuple):
  """Vectors of the words of a language.

  Attributes:
    rows: lower-case word -> its row.
    counts: int64 [n].
    vectors: float32 [n, d].
  """

  rows: dict[bytes, int]
  counts: np.ndarray
  vectors: np.ndarray


def common_words(texts: Sequence[bytes]) -> dict[bytes, int]:
  """Counts of the most frequent words of texts, at most `MOST`, that occur twice or more.

  Raises:
    InputError: there are none.
  """
  counts = Counter(word.lower() for text in texts for word in WORD.findall(text))
  found = {word: count for word, count in counts.most_common(MOST) if count > 1}
  if not found:
    raise InputError('vectors of words need text in which a word occurs twice.')
  return found


def of_words(texts: Sequence[bytes], dim: int = DIM) -> Words:
  """Vectors of the common words of texts.

  Raises:
    InputError: there are none.
  """
  counted = common_words(texts)
  rows = [[word.lower() for word in WORD.findall(text)] for text in texts]
  index = {word: i for i, word in enumerate(counted)}
  counts = sparse.csr_array((len(index), 2 * len(index)), dtype=np.float64)
  for row in rows:
    ids = np.array([index[word] for word in row if word in index], np.int64)
    places = _around(np.ones_like(ids), np.ones_like(ids))
    counts = counts + _counts(ids, ids, places, counts.shape)
  return Words(index, np.array([*counted.values()]), svd(ppmi(counts), dim))


def aligned(
  old: Dictionary, new: Dictionary, one: Words, other: Words, pairs: Mapping[bytes, bytes]
) -> Pair:
  """Vectors of the pieces of two languages in one space, as in WECHSEL (arXiv 2112.06598).

  Vectors of the words of each language; the old language's are turned so that the two words of each
  pair of a dictionary come close; a piece has the mean, by count, of the words that contain it.

  Args:
    old: the tokenizer of the old language.
    new: that of the new one.
    one: words of the old language.
    other: words of the new one.
    pairs: lower-case word of the old language -> that of the new one.

  Raises:
    InputError: too few pairs whose words both occur.
  """
  width = min(one.vectors.shape[1], other.vectors.shape[1])
  known = [(one.rows[a], other.rows[b]) for a, b in pairs.items()
           if a in one.rows and b in other.rows]  # fmt: skip
  if not known:
    raise InputError('no pair of the dictionary has two words that occur in the texts.')
  source, target = (words.vectors[:, :width] for words in (one, other))
  left, right = map(list, zip(*known))
  turn = linear.procrustes(
    neighbours.normalised(source[left]), neighbours.normalised(target[right])
  )
  return _of_pieces(old, one, source @ turn), _of_pieces(new, other, target)


def _of_pieces(tokenizer: Dictionary, words: Words, vectors: np.ndarray) -> np.ndarray:
  """Of each id, the mean of the vectors of the words that contain it, weighted by their counts."""
  found = np.zeros((tokenizer.vocab_size, vectors.shape[1]), np.float32)
  forms = [*words.rows, *(b' ' + word for word in words.rows)]
  for row, ids in enumerate(tokenizer.encode_batch(forms)):
    word = row % len(words.rows)
    found[np.unique(ids)] += words.counts[word] * vectors[word]
  return neighbours.normalised(found)


def read_dictionary(path: str | os.PathLike) -> dict[bytes, bytes]:
  """Pairs of words from a file with two words in each line; the first pair of a word counts.

  Raises:
    InputError: there is no such file, or no such line in it.
  """
  with errors.refused(f'{path} has no pairs of words'):
    lines = [line.lower().split() for line in pathlib.Path(path).read_bytes().splitlines()]
    pairs = {line[0]: line[1] for line in reversed(lines) if len(line) == 2}
    if not pairs:
      raise InputError('each line must have a word and its translation.')
    return pairs


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
