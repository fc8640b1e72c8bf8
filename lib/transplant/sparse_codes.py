# SPDX-License-Identifier: Apache-2.0
"""Orthogonal matching pursuit of many vectors at once.

Each step changes the products of a target's residual with all atoms by a weighted sum of rows of
the Gram matrix (Batch-OMP, Rubinstein et al., 2008). A row is computed when a target takes its
atom, and kept for other targets, as far as the memory allows.
Legend: N targets, S atoms, d width, B targets of a batch, k atoms of a target.
"""

import numba
import numpy as np
from scipy import sparse

from lib.errors import InputError

BATCH = 256  # targets, at most
MEMORY = 2**33  # bytes of the rows of the Gram matrix that are kept, at most
TILE = 4096  # atoms whose products are changed at once, for the cache
CLOSE = 1e-6  # share of a vector's length; a smaller residual is rounding error


def omp(
  targets: np.ndarray, atoms: np.ndarray, k: int, normalise: bool = False
) -> sparse.csr_array:
  """Coefficients [N, S], at most k a row, with which atoms [S, d] add up to the targets [N, d].

  Each step takes the atom with the largest absolute product with the residual, and projects the
  target onto all atoms so far. A target takes no further atoms once its residual is about 0.

  Args:
    targets: float32 or float64.
    atoms: of the same type.
    k: the most atoms of a target.
    normalise: divide the products by the atoms' lengths, as textbooks do. Without it long atoms
      are preferred, as in the published code of arXiv 2506.06607.

  Raises:
    InputError: k is above d or S.
  """
  if not 1 <= k <= min(atoms.shape):
    raise InputError(
      f'matching pursuit needs k from 1 to {min(atoms.shape)}, for {atoms.shape[0]} atoms of width '
      f'{atoms.shape[1]}; got {k}.'
    )
  lengths = np.linalg.norm(atoms, axis=1)
  values = np.zeros((len(targets), k), targets.dtype)
  chosen = np.zeros((len(targets), k), np.int64)
  most = MEMORY // (len(atoms) * atoms.itemsize)  # rows of the Gram matrix
  size = max(1, min(BATCH, most // k))
  gram = _Gram(atoms, max(most, size * k))
  for first in range(0, len(targets), size):
    rows = slice(first, first + size)
    values[rows], chosen[rows] = _omp(targets[rows], gram, lengths, k, normalise)
  places = np.repeat(np.arange(len(targets)), k), chosen.ravel()
  found = sparse.csr_array((values.ravel(), places), shape=(len(targets), len(atoms)))
  found.eliminate_zeros()
  return found


class _Gram:
  """Rows of the Gram matrix of the atoms [S, S]; the rows that are used most stay in memory.

  Args:
    atoms: [S, d].
    most: rows in memory; at least as many as one batch of targets takes atoms.
  """

  def __init__(self, atoms: np.ndarray, most: int):
    self.atoms = atoms
    self.rows = np.empty((min(most, len(atoms)), len(atoms)), atoms.dtype)
    self._place = np.full(len(atoms), -1)  # of each atom in `rows`
    self._asked = np.zeros(len(atoms), np.int64)  # how often the row of each atom was needed
    self._atom = np.full(len(self.rows), -1)  # whose row it is
    self._fixed = np.zeros(len(self.rows), bool)  # during a batch

  def begin(self) -> None:
    """Begins a new batch; rows that only earlier batches needed may be replaced."""
    self._fixed[:] = False

  def find(self, atoms: np.ndarray) -> np.ndarray:
    """Places in `rows` of the rows of some atoms; they stay there during this batch."""
    wanted = np.unique(atoms)
    here = self._place[wanted] >= 0
    missing = wanted[~here]
    self._fixed[self._place[wanted[here]]] = True
    if missing.size:
      # The rows that were needed least often are replaced, empty ones first.
      worth = np.where(self._atom < 0, -1, self._asked[self._atom])
      worth[self._fixed] = np.iinfo(worth.dtype).max
      places = np.argpartition(worth, missing.size - 1)[: missing.size]
      gone = self._atom[places]
      self._place[gone[gone >= 0]] = -1
      self._place[missing], self._atom[places], self._fixed[places] = places, missing, True
      self.rows[places] = self.atoms[missing] @ self.atoms.T
    self._asked[wanted] += 1
    return self._place[atoms]


def _omp(
  targets: np.ndarray, gram: _Gram, lengths: np.ndarray, k: int, normalise: bool
) -> tuple[np.ndarray, np.ndarray]:
  """Coefficients and atoms [B, k] of a batch; a step that is not taken has the coefficient 0."""
  (count, width), atoms = targets.shape, gram.atoms
  gram.begin()
  left, products = targets, targets @ atoms.T
  sizes = np.empty_like(products)
  basis = np.zeros((count, k, width), targets.dtype)  # orthonormal, of the atoms so far
  triangle = np.tile(np.eye(k, dtype=targets.dtype), (count, 1, 1))  # atoms in that basis
  along = np.zeros((count, k), targets.dtype)  # the targets in it
  chosen = np.zeros((count, k), np.int64)
  places = np.zeros((count, k), np.int64)  # of the atoms' rows in gram
  least = CLOSE * np.linalg.norm(targets, axis=1)
  active = np.ones(count, bool)
  for step in range(k):
    active &= np.linalg.norm(left, axis=1) > least
    if not active.any():
      break
    np.abs(products, out=sizes)
    if normalise:
      sizes /= np.where(lengths > 0, lengths, 1)
    np.put_along_axis(sizes, chosen[:, :step], -1, axis=1)
    atom = sizes.argmax(axis=1)
    new, onto = atoms[atom], np.zeros((count, step), targets.dtype)
    for _ in range(2):  # once more, for rounding
      again = (basis[:, :step] @ new[..., None])[..., 0]
      new = new - (again[:, None] @ basis[:, :step])[:, 0]
      onto += again
    size = np.linalg.norm(new, axis=1)
    active &= size > CLOSE * lengths[atom]
    new = np.where(active[:, None], new / np.where(size > 0, size, 1)[:, None], 0)
    chosen[:, step] = atom
    basis[:, step] = new
    triangle[active, :step, step] = onto[active]
    triangle[active, step, step] = size[active]
    along[:, step] = np.einsum('bd,bd->b', new, left)
    left = left - along[:, step, None] * new
    if step + 1 < k:
      # The new vector of the basis as a sum of atoms, times its share of the target.
      some = np.flatnonzero(active)
      places[some, step] = gram.find(atom[some])
      last = np.zeros((len(some), step + 1, 1), targets.dtype)
      last[:, -1, 0] = along[some, step]
      shares = np.linalg.solve(triangle[some, : step + 1, : step + 1], last)[..., 0]
      _subtract(products, gram.rows, some, places[some, : step + 1], shares)
  return np.linalg.solve(triangle, along[..., None])[..., 0], chosen


@numba.njit(cache=True, nogil=True, fastmath={'contract'})
def _subtract(products, rows, some, places, shares):
  """Takes shares [n, j] of `rows` at places [n, j] from the products [B, S] of some targets [n]."""
  size = products.shape[1]
  for first in range(0, size, TILE):
    last = min(size, first + TILE)
    for i in range(len(some)):
      changed = products[some[i], first:last]
      for j in range(places.shape[1]):
        row, share = rows[places[i, j], first:last], shares[i, j]
        for column in range(last - first):
          changed[column] -= share * row[column]
