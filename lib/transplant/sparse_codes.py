# SPDX-License-Identifier: Apache-2.0
"""Orthogonal matching pursuit of many vectors at once.

Legend: N targets, S atoms, d width, B targets of a batch, k atoms of a target.
"""

import numpy as np
from scipy import sparse

from lib.errors import InputError

BATCH = 256  # targets: their products with 128,000 atoms take 128 MB
CLOSE = 1e-6  # of a vector's length: a smaller rest is rounding


def omp(
  targets: np.ndarray, atoms: np.ndarray, k: int, normalise: bool = False
) -> sparse.csr_array:
  """Coefficients [N, S], at most k a row, with which atoms [S, d] add up to the targets [N, d].

  Each step takes the atom with the largest absolute product with what is left of the target, and
  projects the target onto all atoms so far. A target that is reached takes no further atoms.

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
  chooser = atoms / np.where(lengths > 0, lengths, 1)[:, None] if normalise else atoms
  values = np.zeros((len(targets), k), targets.dtype)
  chosen = np.zeros((len(targets), k), np.int64)
  for first in range(0, len(targets), BATCH):
    rows = slice(first, first + BATCH)
    values[rows], chosen[rows] = _omp(targets[rows], atoms, chooser, lengths, k)
  places = np.repeat(np.arange(len(targets)), k), chosen.ravel()
  found = sparse.csr_array((values.ravel(), places), shape=(len(targets), len(atoms)))
  found.eliminate_zeros()
  return found


def _omp(
  targets: np.ndarray, atoms: np.ndarray, chooser: np.ndarray, lengths: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
  """Coefficients and atoms [B, k] of a batch; a step that is not taken has the coefficient 0."""
  count, width = targets.shape
  left = targets
  basis = np.zeros((count, k, width), targets.dtype)  # orthonormal, of the atoms so far
  triangle = np.tile(np.eye(k, dtype=targets.dtype), (count, 1, 1))  # atoms in that basis
  along = np.zeros((count, k), targets.dtype)  # the targets in it
  chosen = np.zeros((count, k), np.int64)
  least = CLOSE * np.linalg.norm(targets, axis=1)
  active = np.ones(count, bool)
  for step in range(k):
    active &= np.linalg.norm(left, axis=1) > least
    if not active.any():
      break
    products = np.abs(left @ chooser.T)
    np.put_along_axis(products, chosen[:, :step], -1, axis=1)
    atom = products.argmax(axis=1)
    new, onto = atoms[atom], np.zeros((count, step), targets.dtype)
    for _ in range(2):  # once more, for rounding
      again = np.einsum('bjd,bd->bj', basis[:, :step], new)
      new = new - np.einsum('bj,bjd->bd', again, basis[:, :step])
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
  return np.linalg.solve(triangle, along[..., None])[..., 0], chosen
