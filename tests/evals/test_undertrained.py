# SPDX-License-Identifier: Apache-2.0
"""Under-trained tokens of a model whose unused tokens are known, as it was trained without them."""

import numpy as np
import pytest

from lib.errors import InputError
from lib.evals import undertrained

SIZE, DIM, UNUSED, KNOWN = 120, 24, 30, 6


@pytest.fixture(scope='module')
def tables():
  """Tables of a log-bilinear bigram model; the last ids never come in its text.

  AdamW with weight decay, in plain numpy.
  """
  rng = np.random.default_rng(0)
  used = SIZE - UNUSED
  law = rng.dirichlet(np.full(used, 0.1), used)
  tables = [rng.normal(0, 0.1, (SIZE, DIM)) for _ in range(2)]
  moments = [np.zeros((2, SIZE, DIM)) for _ in tables]
  for step in range(1, 201):
    before = rng.integers(0, used, 256)
    after = (law[before].cumsum(axis=1) > rng.random((256, 1))).argmax(axis=1)
    hidden = tables[0][before]
    logits = hidden @ tables[1].T
    wrong = np.exp(logits - logits.max(axis=1, keepdims=True))
    wrong /= wrong.sum(axis=1, keepdims=True)
    wrong[np.arange(256), after] -= 1
    gradients = [np.zeros((SIZE, DIM)), wrong.T @ hidden / 256]
    np.add.at(gradients[0], before, wrong @ tables[1] / 256)
    for table, moment, gradient in zip(tables, moments, gradients):
      moment[0] += 0.1 * (gradient - moment[0])
      moment[1] += 0.05 * (gradient**2 - moment[1])
      mean, square = moment[0] / (1 - 0.9**step), moment[1] / (1 - 0.95**step)
      table -= 0.01 * (mean / (np.sqrt(square) + 1e-8) + 0.1 * table)
  return tables


def area(scores):
  """The probability that an unused token, not known to be one, has the lower score."""
  unused, used = scores[SIZE - UNUSED : SIZE - KNOWN], scores[: SIZE - UNUSED]
  return (unused[:, None] < used).mean()


def test_unused_tokens_are_found_by_the_rows(tables):
  known = range(SIZE - KNOWN, SIZE)
  assert area(undertrained.output_distance(tables[1], known)) > 0.99
  assert area(undertrained.input_norm(tables[0])) > 0.99
  shuffled = np.random.default_rng(1).permutation(tables[1].ravel()).reshape(SIZE, DIM)
  assert 0.2 < area(undertrained.output_distance(shuffled, known)) < 0.8


def test_a_known_token_is_not_compared_with_itself():
  rows = np.random.default_rng(0).normal(size=(50, 8))
  found = undertrained.output_distance(rows, range(4))
  mean, norm = rows[1:4].mean(axis=0), np.linalg.norm
  assert found[0] == pytest.approx(1 - rows[0] @ mean / norm(rows[0]) / norm(mean))
  mean = rows[:4].mean(axis=0)
  assert found[9] == pytest.approx(1 - rows[9] @ mean / norm(rows[9]) / norm(mean))
  with pytest.raises(InputError, match='two or more unused tokens must be known; got 1'):
    undertrained.output_distance(rows, [3])
