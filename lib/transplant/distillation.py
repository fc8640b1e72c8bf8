# SPDX-License-Identifier: Apache-2.0
"""Token Distillation (arXiv 2505.20133): input rows that give the hidden states of the old model.

The old model reads a text in its own tokens, the new one the same text in new tokens. Where both
have a token that ends at the same byte, their last hidden states should be equal: the input rows of
new tokens are fitted to that, and nothing else is changed. The meaning of a word of several pieces
arises in the layers, so a mean of rows does not contain it.
Legend: N snippets, L tokens of a snippet with BOS, V′ new ids, D model width.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lib.errors import InputError
from lib.language_model import TrainedModel
from lib.tokenizers.base import Dictionary
from lib.transplant import pieces

PREFIX = 'distilled_'  # of the name of the method that makes the first rows
BATCH, RATE = 16, 3e-3  # snippets of a step, and the peak of the learning rate


class Snippets(NamedTuple):
  """Texts in the tokens of two tokenizers, int32 [N, L] each.

  Attributes:
    old: ids of the old tokenizer; −1 marks padding.
    new: ids of the new one; −1 marks padding.
    at: for each new token, the place of the old token that ends at the same byte; −1 if none does.
  """

  old: np.ndarray
  new: np.ndarray
  at: np.ndarray


class Distilled(NamedTuple):
  """A model after distillation.

  Attributes:
    model: the new model.
    losses: the mean squared difference of hidden states at each step.
    tokens: tokens that the new model has read, BOS included.
  """

  model: TrainedModel
  losses: list[float]
  tokens: int


def snippets(
  old: Dictionary, new: Dictionary, texts: Sequence[bytes], length: int, bos: tuple[int, int] | None
) -> Snippets:
  """Cuts texts into snippets of at most `length` tokens of each tokenizer, BOS included.

  Raises:
    InputError: there is no text.
  """
  first = 0 if bos is None else 1
  rows = []
  for ids in old.encode_batch(texts):
    for start in range(0, len(ids), length - first):
      part = ids[start : start + length - first]
      other = new.encode(old.decode(part))[: length - first]
      ends, stops = np.cumsum(old.lengths[part]), np.cumsum(new.lengths[other])
      place = np.minimum(np.searchsorted(ends, stops), len(ends) - 1)
      row = np.full((3, length), -1, np.int32)
      row[0, first : first + len(part)] = part
      row[1, first : first + len(other)] = other
      row[2, first : first + len(other)] = np.where(ends[place] == stops, place + first, -1)
      if bos is not None:
        row[:2, 0] = bos
      rows.append(row)
  if not rows:
    raise InputError('distillation needs text.')
  return Snippets(*np.moveaxis(np.stack(rows), 1, 0))


def distil(
  model: TrainedModel,
  made: TrainedModel,
  texts: Sequence[bytes],
  *,
  steps: int = 200,
  length: int = 64,
  seed: int = 0,
) -> Distilled:
  """Fits the input rows of tokens that the old model lacks.

  The LM head stays, so that a model with tied tables has two tables afterwards.

  Args:
    model: the old model.
    made: its transplant to another tokenizer.
    texts: training text, in the language of the new tokenizer.
    steps: steps of Adam.
    length: tokens of a snippet, at most the model's context.
    seed: of the order of snippets.

  Returns:
    The new model, its losses and the tokens that it has read.

  Raises:
    InputError: there is no text, or a model without tables.
  """
  old, new = pieces.dictionary(model.tokenizer, 'old'), pieces.dictionary(made.tokenizer, 'new')
  both = None if model.bos is None or made.bos is None else (model.bos, made.bos)
  read = snippets(old, new, texts, min(length, model.context), both)
  tables = made.embedding_tables()
  free = jnp.asarray((pieces.match(old, new) < 0)[:, None])
  table = jnp.asarray(tables.input[: new.vocab_size], jnp.float32)
  optimizer = optax.adam(optax.cosine_decay_schedule(RATE, steps))
  step, state = _step(model, made, optimizer, free), optimizer.init(table)
  weights = jax.tree.map(jnp.asarray, (dict(model.variables), dict(made.variables)))
  rng, losses, tokens = np.random.default_rng(seed), [], 0
  for _ in range(steps):
    some = rng.integers(0, len(read.old), BATCH)
    table, state, loss = step(table, state, weights, Snippets(*(one[some] for one in read)))
    losses.append(loss)
    tokens += int((read.new[some] >= 0).sum())
  fitted = np.array(tables.input)
  fitted[: new.vocab_size] = np.where(free, table, fitted[: new.vocab_size])
  changed = made.with_tables(tables._replace(input=fitted), new, made.bos, made.ends)
  return Distilled(changed, np.array(losses, float).tolist(), tokens)


def _step(
  model: TrainedModel, made: TrainedModel, optimizer: optax.GradientTransformation, free: jax.Array
) -> Callable[..., Any]:
  """A step for the input table of `made`, whose rows that are not `free` stay."""

  def hidden(one: TrainedModel, variables: Any, ids: jax.Array) -> jax.Array:
    batch = {
      'inputs': jnp.maximum(ids, 0), 'targets': ids, 'segments': (ids >= 0).astype(jnp.int32),
      'positions': jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32)[None], ids.shape),
    }  # fmt: skip
    return one.module.apply(variables, batch, None, method='hidden')[0].astype(jnp.float32)

  def loss(table: jax.Array, weights: Any, read: Any) -> jax.Array:
    old, new = weights
    own = new['params']['embedding']
    own = {**own, 'table': table.astype(own['table'].dtype)}
    new = {**new, 'params': {**new['params'], 'embedding': own}}
    wanted = jax.lax.stop_gradient(hidden(model, old, read.old))
    wanted = jnp.take_along_axis(wanted, jnp.maximum(read.at, 0)[..., None], axis=1)
    apart = ((hidden(made, new, read.new) - wanted) ** 2).mean(axis=-1)
    aligned = read.at >= 0
    return jnp.where(aligned, apart, 0).sum() / jnp.maximum(aligned.sum(), 1)

  @jax.jit
  def step(table: jax.Array, state: Any, weights: Any, read: Any) -> tuple[jax.Array, Any, Any]:
    value, gradient = jax.value_and_grad(loss)(table, weights, read)
    updates, state = optimizer.update(jnp.where(free, gradient, 0), state)
    return optax.apply_updates(table, updates), state, value

  return step
