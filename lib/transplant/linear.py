# SPDX-License-Identifier: Apache-2.0
"""Linear maps from one space of rows to another, fitted on rows that both have.

Legend: S shared rows, d width of the source, D width of the target.
"""

import numpy as np

from lib.errors import InputError

PENALTIES = 10.0 ** np.arange(-4, 3)  # of ridge regression, in units of the mean squared length


def procrustes(source: np.ndarray, target: np.ndarray) -> np.ndarray:
  """The matrix [d, D] of orthonormal rows or columns W that makes ‖source · W − target‖ least.

  Args:
    source: [S, d].
    target: [S, D].

  Raises:
    InputError: fewer pairs than dimensions, which leave the map open.
  """
  if len(source) < min(source.shape[1], target.shape[1]):
    raise InputError(
      f'{len(source)} pairs do not fix a rotation of {min(source.shape[1], target.shape[1])} '
      'dimensions: give more pairs, or vectors of fewer dimensions.'
    )
  left, _, right = np.linalg.svd(source.T @ target, full_matrices=False)
  return left @ right


def similarity(source: np.ndarray, target: np.ndarray, points: np.ndarray) -> np.ndarray:
  """Points [N, d] moved by the rotation, scale and shift that fit the pairs best: [N, D]."""
  center, goal = source.mean(axis=0), target.mean(axis=0)
  turn = procrustes(source - center, target - goal)
  turned = (source - center) @ turn
  scale = (turned * (target - goal)).sum() / max((turned**2).sum(), np.finfo(np.float32).tiny)
  return scale * ((points - center) @ turn) + goal


def ridge(source: np.ndarray, target: np.ndarray, points: np.ndarray) -> np.ndarray:
  """Points [N, d] mapped by ridge regression on the pairs: [N, D].

  The penalty is the one of `PENALTIES` with the least error on pairs that are left out one by one.
  """
  center, goal = source.mean(axis=0), target.mean(axis=0)
  left, sizes, right = np.linalg.svd(source - center, full_matrices=False)
  inside = left.T @ (target - goal)
  best, shrunk = np.inf, inside
  for penalty in PENALTIES * np.mean(sizes**2):
    keep = sizes**2 / (sizes**2 + penalty)
    rest = target - goal - left @ (keep[:, None] * inside)
    own = (left**2) @ keep + 1 / len(source)  # how much of its own target a pair predicts
    error = float(((rest / np.maximum(1 - own, 1e-6)[:, None]) ** 2).sum())
    if error < best:
      best, shrunk = error, (sizes / (sizes**2 + penalty))[:, None] * inside
  return (points - center) @ (right.T @ shrunk) + goal
