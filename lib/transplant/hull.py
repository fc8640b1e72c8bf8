# SPDX-License-Identifier: Apache-2.0
"""Constrained word2vec (arXiv 2407.05841): new rows in the convex hull of the old ones.

Each new row is a weighted mean of old rows, with weights that are trained by skip-grams with
negative samples on text in the new tokens; old rows are not changed. Only the rows of its parts and
of its nearest pieces have weights; the paper has a softmax over all V old rows. The released code
sums the products with negative samples before it applies the logistic function; here the function
is applied to each product, as in word2vec.
Legend: N pieces to make, m old rows of a piece, D model width, B pairs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import sparse

WINDOW, NEGATIVES = 5, 5
SMOOTHING = 0.75  # exponent of the counts of negative samples
DROP = 2.0  # a centre with n times this count is kept with probability n^-0.5
BATCH, EPOCHS, PAIRS, RATE = 4096, 5, 200_000, 0.02
LEAST = 1e-3  # of a weight at the beginning
LEAST_STEPS = 20


def padded(weights: sparse.csr_array, k: int) -> tuple[np.ndarray, np.ndarray]:
  """The k largest weights of each row and their columns, [N, m] each; 0 where there are fewer."""
  width = max(1, min(k, int(np.diff(weights.indptr).max(initial=1))))
  values = np.zeros((weights.shape[0], width), np.float32)
  columns = np.zeros(values.shape, np.int64)
  for row in range(weights.shape[0]):
    some = slice(weights.indptr[row], weights.indptr[row + 1])
    order = np.argsort(-weights.data[some], kind='stable')[:width]
    values[row, : len(order)] = weights.data[some][order]
    columns[row, : len(order)] = weights.indices[some][order]
  return values, columns


def pairs(
  rows: Sequence[np.ndarray], is_made: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Centres and contexts [P], ids of which at least one is a new row's; at most `PAIRS`."""
  counts = np.bincount(np.concatenate(rows), minlength=len(is_made))
  kept = np.sqrt(DROP / np.maximum(counts, DROP))
  found = [np.zeros((0, 2), np.int64)]
  for ids in rows:
    for step in range(1, WINDOW + 1):
      both = np.stack([ids[:-step], ids[step:]], axis=1).astype(np.int64)
      found += [both, both[:, ::-1]]
  every = np.concatenate(found)
  every = every[is_made[every].any(axis=1)]
  every = every[rng.random(len(every)) < kept[every[:, 0]]]
  every = every[rng.permutation(len(every))[:PAIRS]]
  return every[:, 0], every[:, 1]


def train(
  start: sparse.csr_array,
  k: int,
  tables: tuple[np.ndarray, np.ndarray],
  place: np.ndarray,
  matched: np.ndarray,
  texts: Sequence[np.ndarray],
  seed: int,
) -> tuple[sparse.csr_array, sparse.csr_array]:
  """Weights [N, V] of the new rows at the input and at the output; equal if the tables are tied.

  Args:
    start: weights [N, V] at the beginning.
    k: the most old rows of a new one.
    tables: input and output [V, D] of the old model, the same object if they are tied.
    place: int64 [V'], the row among N of each new id; −1 where it is not made.
    matched: int64 [V'], the old id of each new id that is not made.
    texts: as new ids.
    seed: of pairs and negative samples.
  """
  rng = np.random.default_rng(seed)
  values, columns = padded(start, k)
  tied = tables[0] is tables[1]
  centers, contexts = pairs(texts, place >= 0, rng)
  counts = np.bincount(np.concatenate(texts), minlength=len(place)) ** SMOOTHING
  absent = values == 0
  begin = np.where(absent, -np.inf, np.log(np.maximum(values, LEAST)))
  begin[absent.all(axis=1)] = 0
  logits = [jnp.asarray(begin, jnp.float32)] * (1 if tied else 2)
  if len(centers):
    ends = tuple(jnp.asarray(table, jnp.float32) for table in tables)
    step, state = _step(ends, columns, place, matched)
    state = state(logits)
    steps = max(LEAST_STEPS, EPOCHS * len(centers) // BATCH)
    batch, share = min(BATCH, len(centers)), counts / counts.sum()
    for _ in range(steps):
      chosen = rng.integers(0, len(centers), batch)
      negatives = rng.choice(len(counts), (batch, NEGATIVES), p=share)
      logits, state = step(logits, state, centers[chosen], contexts[chosen], negatives)
  made = []
  for one in logits:
    weights = np.where(absent.all(axis=1)[:, None], 0, np.asarray(jax.nn.softmax(one, axis=1)))
    index = np.repeat(np.arange(len(weights)), weights.shape[1]), columns.ravel()
    csr = sparse.csr_array((weights.ravel(), index), shape=start.shape)
    csr.eliminate_zeros()
    made.append(csr)
  return made[0], made[-1]


def _step(
  ends: tuple[jax.Array, ...], columns: np.ndarray, place: np.ndarray, matched: np.ndarray
) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """A step of Adam, and what makes its state."""
  optimizer = optax.adam(RATE)
  where, known, mixed = jnp.asarray(place), jnp.maximum(matched, 0), jnp.asarray(columns)

  def rows(logits: jax.Array, table: jax.Array, ids: jax.Array) -> jax.Array:
    own = jnp.maximum(where[ids], 0)
    made = jnp.einsum('...m,...md->...d', jax.nn.softmax(logits[own]), table[mixed[own]])
    return jnp.where((where[ids] >= 0)[..., None], made, table[known[ids]])

  def loss(logits: list[jax.Array], centers: Any, contexts: Any, negatives: Any) -> jax.Array:
    one = rows(logits[0], ends[0], centers)
    others = rows(logits[-1], ends[1], jnp.concatenate([contexts[:, None], negatives], axis=1))
    products = jnp.einsum('bd,bnd->bn', one, others)
    return -(
      jax.nn.log_sigmoid(products[:, 0]) + jax.nn.log_sigmoid(-products[:, 1:]).sum(1)
    ).mean()

  @jax.jit
  def step(logits: Any, state: Any, centers: Any, contexts: Any, negatives: Any) -> Any:
    gradients = jax.grad(loss)(logits, centers, contexts, negatives)
    gradients = jax.tree.map(lambda one, at: jnp.where(jnp.isfinite(at), one, 0), gradients, logits)
    updates, state = optimizer.update(gradients, state)
    return optax.apply_updates(logits, updates), state

  return step, optimizer.init
