# SPDX-License-Identifier: Apache-2.0
"""Tokens that a model was hardly trained on, by the rows of its tables (2405.05417).

A token that never comes has an output row that training only pushes away, as those of all such
tokens, and an input row that gets no gradient.

Legend: V vocabulary, D model width.
"""

from collections.abc import Sequence

import numpy as np

from lib.errors import InputError


def output_distance(output: np.ndarray, unused: Sequence[int]) -> np.ndarray:
  """Cosine distance of each output row to the mean of those that are known to be unused, [V].

  A low distance means little training. A known row is compared with the mean of the others. (The
  paper also takes out the first principal component; it is the very direction of unused rows where
  they are many.)

  Args:
    output: [V, D], rows of the LM head.
    unused: ids that no text has, two or more.

  Raises:
    InputError: fewer of them.
  """
  if len(unused) < 2:
    raise InputError(f'two or more unused tokens must be known; got {len(unused)}.')
  rows = np.asarray(output, np.float64)
  total, own = rows[list(unused)].sum(axis=0), np.zeros(len(rows))
  own[list(unused)] = 1
  others = total - own[:, None] * rows
  lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(others, axis=1)
  return 1 - (rows * others).sum(axis=1) / np.maximum(lengths, 1e-30)


def input_norm(rows: np.ndarray) -> np.ndarray:
  """The Euclidean norm of each input row [V, D], [V]: weight decay alone changes unused ones."""
  return np.linalg.norm(np.asarray(rows, np.float64), axis=1)
