# SPDX-License-Identifier: Apache-2.0
"""Methods that make the rows of new pieces: each is a pure function of a `Problem`.

Most methods mix rows of the old table, with weights that are the same at both ends of the model.
A donor is a model that was trained with the new tokenizer. Methods with a donor express its rows of
new pieces by its rows of shared pieces ("anchors"), separately at each end.
Legend: V old ids, V′ new ids, N pieces to make, D model width, d width of vectors.
"""

import dataclasses
import functools
import hashlib
import inspect
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from lib.embeddings.table_pairs import Tables
from lib.errors import InputError
from lib.tokenizers.base import Dictionary
from lib.transplant import hull as constrained
from lib.transplant import linear, neighbours, sparse_codes
from lib.transplant.pieces import Parts

COLUMNS = 512  # of a table that are mixed at once, in float32
SPREAD = 1e-5  # of `multivariate`: share of the old rows' covariance
LOCAL, GLOBAL = 0.7, 0.3  # shares of TokenAdapt's hybrid
TOKENADAPT, WECHSEL = 0.3, 0.1  # temperatures


@dataclasses.dataclass(frozen=True)
class Problem:
  """The input of all methods.

  Attributes:
    tables: of the old tokenizer: [V, D], perhaps with more rows.
    old: the old tokenizer.
    new: the new one.
    matched: int64 [V'], the old id with the same bytes; −1 where there is none.
    ids: int64 [N], the new ids that are made.
    parts: their pieces, cut by the old tokenizer.
    vectors: external vectors of the old ids [V, d] and of the new ids [V', d], or None.
    donor: tables of a model with the new tokenizer, or None.
    texts: in the language of the new tokenizer.
    seed: of random numbers. A random row depends only on the seed and the bytes of its piece.
  """

  tables: Tables
  old: Dictionary
  new: Dictionary
  matched: np.ndarray
  ids: np.ndarray
  parts: Parts
  vectors: tuple[np.ndarray, np.ndarray] | None = None
  donor: Tables | None = None
  texts: Sequence[bytes] = ()
  seed: int = 0

  @property
  def size(self) -> int:
    """Old ids, V; rows of the tables beyond them belong to no id."""
    return self.old.vocab_size

  @functools.cached_property
  def anchors(self) -> np.ndarray:
    """New ids of text that have an old id, int64 [S]; special tokens are left out."""
    is_text = self.new.lengths > 0
    is_text[list(self.new.special_tokens)] = False
    return np.flatnonzero((self.matched >= 0) & is_text)

  def each(self, make: Callable[[np.ndarray, np.ndarray | None, int], np.ndarray]) -> Tables:
    """Rows [N, D] from each table alone: make(old table [V, D], donor's, 0 for input or 1).

    Equal tables give equal rows. An output bias is one more column of the table.
    """
    (table, head, bias), size = self.tables, self.size
    donor = self.donor or Tables(None, None)  # type: ignore[arg-type]
    tied = table is head or np.array_equal(table, head)
    joined = lambda one: one[:size] if bias is None else np.column_stack([one[:size], bias[:size]])
    output = make(joined(head), donor.output, int(not tied))
    rows = output if bias is None else output[:, :-1]
    first = rows if tied else make(table[:size], donor.input, 0)
    return Tables(first, rows, None if bias is None else output[:, -1])

  def normal(self, width: int, end: int) -> np.ndarray:
    """Standard normal numbers, float32 [N, width]."""
    found = np.empty((len(self.ids), width), np.float32)
    for row, i in enumerate(self.ids.tolist()):
      name = self.new.special_tokens.get(i, '').encode() or self.new.pieces[i]
      key = hashlib.blake2b(name, digest_size=16, salt=f'{self.seed} {end}'.encode()).digest()
      bits = np.random.Philox(key=np.frombuffer(key, np.uint64))
      found[row] = np.random.Generator(bits).standard_normal(width, np.float32)
    return found


class Rows(NamedTuple):
  """New rows.

  Attributes:
    tables: [N, D].
    fallback: bool [N], pieces about which the method knows nothing: `gaussian` made their rows.
  """

  tables: Tables
  fallback: np.ndarray


def mix(
  problem: Problem, weights: sparse.csr_array, at_output: sparse.csr_array | None = None
) -> Rows:
  """Weighted sums of old rows; a piece without weights is made by `gaussian`.

  The output of the model has the same weights as its input, or its own.
  """
  unknown = np.diff(weights.indptr) == 0

  def make(table: np.ndarray, donor: np.ndarray | None, end: int) -> np.ndarray:
    found = np.empty((weights.shape[0], table.shape[1]), table.dtype)
    own = weights if not end or at_output is None else at_output
    for first in range(0, table.shape[1], COLUMNS):
      columns = slice(first, first + COLUMNS)
      found[:, columns] = own @ table[:, columns].astype(np.float32)
    return found

  made = problem.each(make)
  if not unknown.any():
    return Rows(made, unknown)
  some = dataclasses.replace(problem, ids=problem.ids[unknown])
  for rows, drawn in zip(made, gaussian(some).tables):
    if rows is not None:
      rows[unknown] = drawn
  return Rows(made, unknown)


def _rows(
  problem: Problem, make: Callable[[np.ndarray, np.ndarray | None, int], np.ndarray]
) -> Rows:
  return Rows(problem.each(make), np.zeros(len(problem.ids), bool))


def zero(problem: Problem) -> Rows:
  """Rows of zeros."""
  return _rows(problem, lambda table, *_: np.zeros((len(problem.ids), table.shape[1]), table.dtype))


def mean(problem: Problem) -> Rows:
  """The mean of all old rows."""
  return _rows(problem, lambda table, *_: np.tile(_mean(table), (len(problem.ids), 1)))


def random(problem: Problem) -> Rows:
  """N(0, s²), s the root mean square of all numbers of the old table: rows without information."""
  draw = lambda table, _, end: problem.normal(table.shape[1], end) * _rms(table)
  return _rows(problem, draw)


def gaussian(problem: Problem) -> Rows:
  """N(μ, σ²) with the mean and deviation of each dimension of the old rows."""

  def make(table: np.ndarray, donor: np.ndarray | None, end: int) -> np.ndarray:
    spread = table.astype(np.float32).std(axis=0)
    return _mean(table) + problem.normal(table.shape[1], end) * spread

  return _rows(problem, make)


def multivariate(problem: Problem) -> Rows:
  """N(μ, 1e-5 Σ) with the covariance of the old rows, as in arXiv 2407.05841."""

  def make(table: np.ndarray, donor: np.ndarray | None, end: int) -> np.ndarray:
    wide = table.astype(np.float32)
    values, axes = np.linalg.eigh(np.cov(wide.T, bias=True).reshape(len(wide.T), -1))
    root = np.sqrt(SPREAD * np.maximum(values, 0))
    return _mean(table) + (problem.normal(table.shape[1], end) * root) @ axes.T

  return _rows(problem, make)


def parts(problem: Problem) -> Rows:
  """The mean of the rows of a piece's parts (FVT; ReTok)."""
  shares = 1 / problem.parts.counts[problem.parts.piece]
  return mix(problem, problem.parts.weights(shares, problem.size))


def parts_by_length(problem: Problem) -> Rows:
  """The same, each part weighted by its bytes."""
  return mix(problem, problem.parts.weights(_lengths(problem.parts), problem.size))


def focus(problem: Problem) -> Rows:
  """Sparsemax of the cosines with the pieces of both vocabularies (arXiv 2305.14481)."""
  old, new = _vectors(problem)
  anchors = np.intersect1d(problem.matched[problem.anchors], _known(old))
  if not anchors.size:
    raise InputError('focus needs pieces with vectors that both tokenizers have: there are none.')
  return mix(problem, _near(problem, new, anchors, *neighbours.sparsemax_top(new, old[anchors])))


def wechsel(problem: Problem, k: int = 10) -> Rows:
  """Softmax of the cosines with the k nearest old pieces, temperature 0.1 (arXiv 2112.06598)."""
  old, new = _vectors(problem)
  known = _known(old)
  scores, found = neighbours.top_k(new, old[known], k)
  return mix(problem, _near(problem, new, known, neighbours.softmax(scores, WECHSEL), found))


def tokenadapt_local(problem: Problem) -> Rows:
  """Parts weighted by cosine and length, temperature 0.3 (arXiv 2505.09738)."""
  return mix(problem, _local(problem))


def tokenadapt_global(problem: Problem, k: int = 3) -> Rows:
  """The k nearest old pieces by cosine, temperature 0.3 (arXiv 2505.09738)."""
  return mix(problem, _global(problem, k))


def tokenadapt(problem: Problem, k: int = 3) -> Rows:
  """0.7 of the local and 0.3 of the global rows; where one is missing, the other alone."""
  local, far = _local(problem), _global(problem, k)
  both = LOCAL * local + GLOBAL * far
  sums = both.sum(axis=1)
  return mix(problem, both.multiply(1 / np.where(sums > 0, sums, 1)[:, None]).tocsr())


def hull(problem: Problem, k: int = 32) -> Rows:
  """Means of parts and near pieces, with weights trained by skip-grams (`lib.transplant.hull`)."""
  if not problem.texts:
    raise InputError('this method needs text in the language of the new tokenizer.')
  shares = 1 / problem.parts.counts[problem.parts.piece]
  start = problem.parts.weights(shares, problem.size) + _global(problem, k)
  place = np.full(len(problem.matched), -1)
  place[problem.ids] = np.arange(len(problem.ids))
  table, head = (one[: problem.size] for one in problem.tables[:2])
  if np.array_equal(table, head):
    head = table
  texts = problem.new.encode_batch(problem.texts)
  return mix(
    problem,
    *constrained.train(start, k, (table, head), place, problem.matched, texts, problem.seed),
  )


def donor_neighbours(problem: Problem, k: int = 10) -> Rows:
  """The k anchors whose donor rows are nearest, weighted by 1 / distance."""

  def make(table: np.ndarray, atoms: np.ndarray, targets: np.ndarray) -> np.ndarray:
    half = lambda rows, last: np.column_stack([rows, last])
    lengths = (atoms**2).sum(axis=1)
    scores, found = neighbours.top_k(
      half(targets, np.ones(len(targets))), half(atoms, -lengths / 2), k
    )
    distances = np.sqrt(np.maximum((targets**2).sum(axis=1)[:, None] - 2 * scores, 1e-12))
    weights = 1 / distances
    return np.einsum('nk,nkd->nd', weights / weights.sum(axis=1, keepdims=True), table[found])

  return _from_donor(problem, make)


def omp(problem: Problem, k: int = 32, normalise: bool = False) -> Rows:
  """The donor's row as a weighted sum of k of its anchors; then the same sum of old rows.

  Source: arXiv 2506.06607.
  """
  return _from_donor(
    problem,
    lambda table, atoms, targets: sparse_codes.omp(targets, atoms, k, normalise) @ table,
  )


def ridge(problem: Problem) -> Rows:
  """The donor's row, mapped by ridge regression fitted on the anchors."""
  return _from_donor(problem, lambda table, atoms, targets: linear.ridge(atoms, table, targets))


def procrustes(problem: Problem) -> Rows:
  """The donor's row, moved by the rotation, scale and shift that fit the anchors."""
  return _from_donor(
    problem, lambda table, atoms, targets: linear.similarity(atoms, table, targets)
  )


def _from_donor(
  problem: Problem, make: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
) -> Rows:
  """Rows from make(old rows of the anchors, donor's rows of the anchors, donor's new rows)."""
  if problem.donor is None:
    raise InputError('this method needs a donor, a model that was trained with the new tokenizer.')
  anchors = problem.anchors
  if not anchors.size:
    raise InputError('a donor is of use only if both tokenizers share a piece: they share none.')

  def of_table(table: np.ndarray, donor: np.ndarray | None, end: int) -> np.ndarray:
    assert donor is not None
    if len(donor) < len(problem.matched):
      raise InputError(
        f'the donor has {len(donor)} rows; the new tokenizer has {len(problem.matched)} ids.'
      )
    wide = donor.astype(np.float32)
    shared = table[problem.matched[anchors]].astype(np.float32)
    return make(shared, wide[anchors], wide[problem.ids])

  return _rows(problem, of_table)


def _vectors(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
  """External vectors of the old ids [V, d] and of the pieces to make [N, d], at length 1."""
  if problem.vectors is None:
    raise InputError('this method needs vectors of the pieces: give text, or vectors.')
  old, new = problem.vectors
  return neighbours.normalised(old), neighbours.normalised(new[problem.ids])


def _known(old: np.ndarray) -> np.ndarray:
  """Old ids that have a vector."""
  known = np.flatnonzero(old.any(axis=1))
  if not known.size:
    raise InputError('no piece of the old tokenizer has a vector: give other text or vectors.')
  return known


def _near(
  problem: Problem, new: np.ndarray, known: np.ndarray, weights: np.ndarray, found: np.ndarray
) -> sparse.csr_array:
  """The matrix of weights [N, k] of the old ids known[found]; none for pieces without a vector."""
  known_piece = new.any(axis=1, keepdims=True)
  weights = np.where(known_piece, weights, 0).astype(np.float32)
  rows = np.repeat(np.arange(len(weights)), weights.shape[1])
  places = rows, known[found].ravel()
  made = sparse.csr_array((weights.ravel(), places), shape=(len(weights), problem.size))
  made.eliminate_zeros()
  return made


def _lengths(parts: Parts) -> np.ndarray:
  """The share of each part in the bytes of its piece [M]."""
  return parts.bytes / np.bincount(parts.piece, parts.bytes, len(parts.counts))[parts.piece]


def _local(problem: Problem) -> sparse.csr_array:
  """TokenAdapt's softmax over parts, of half their softmax of cosines and half their length."""
  old, new = _vectors(problem)
  cut = problem.parts
  cosines = np.einsum('md,md->m', old[cut.ids], new[cut.piece])
  scores = (_softmax_by(cosines, cut) + _lengths(cut)) / 2
  return cut.weights(_softmax_by(scores / TOKENADAPT, cut), problem.size)


def _softmax_by(scores: np.ndarray, cut: Parts) -> np.ndarray:
  """Softmax among the parts of each piece; scores are at most a few units."""
  powers = np.exp(scores)
  return powers / np.bincount(cut.piece, powers, len(cut.counts))[cut.piece]


def _global(problem: Problem, k: int) -> sparse.csr_array:
  """TokenAdapt's nearest pieces; those of negative cosine are left out."""
  old, new = _vectors(problem)
  known = _known(old)
  scores, found = neighbours.top_k(new, old[known], k)
  weights = neighbours.softmax(scores, TOKENADAPT) * (scores >= 0)
  weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
  return _near(problem, new, known, weights, found)


def _mean(table: np.ndarray) -> np.ndarray:
  return table.mean(axis=0, dtype=np.float32)


def _rms(table: np.ndarray) -> np.ndarray:
  return np.sqrt((table.astype(np.float32) ** 2).mean())


class Method(NamedTuple):
  """A method by its name.

  Attributes:
    make: the function; its argument `k`, if it has one, is a number after the name, as in omp32.
    needs: '', 'vectors' or 'donor'.
  """

  make: Callable[..., Rows]
  needs: str = ''

  @property
  def k(self) -> int:
    """The number after the name, or its default; 0 if the method has none."""
    parameter = inspect.signature(self.make).parameters.get('k')
    return parameter.default if parameter else 0


METHODS: dict[str, Method] = {
  'zero': Method(zero),
  'mean': Method(mean),
  'random': Method(random),
  'gaussian': Method(gaussian),
  'multivariate': Method(multivariate),
  'parts': Method(parts),
  'parts_by_length': Method(parts_by_length),
  'focus': Method(focus, 'vectors'),
  'wechsel': Method(wechsel, 'vectors'),
  'tokenadapt_local': Method(tokenadapt_local, 'vectors'),
  'tokenadapt_global': Method(tokenadapt_global, 'vectors'),
  'tokenadapt': Method(tokenadapt, 'vectors'),
  'hull': Method(hull, 'vectors'),
  'donor_neighbours': Method(donor_neighbours, 'donor'),
  'omp': Method(omp, 'donor'),
  'omp_normalised': Method(functools.partial(omp, normalise=True), 'donor'),
  'ridge': Method(ridge, 'donor'),
  'procrustes': Method(procrustes, 'donor'),
}


def find(name: str) -> Method:
  """The method of a name such as 'focus' or 'omp32'; raises InputError for an unknown one."""
  base, digits = re.fullmatch(r'(.*?)(\d*)', name, re.DOTALL).groups()  # type: ignore[union-attr]
  method = METHODS.get(base)
  if method is None:
    raise InputError(f'there is no method {name!r}: use one of {", ".join(METHODS)}.')
  if not digits:
    return method
  if not method.k or not int(digits):
    raise InputError(f'the method {name!r} cannot have the number {digits}.')
  return method._replace(make=functools.partial(method.make, k=int(digits)))
