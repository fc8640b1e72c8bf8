# SPDX-License-Identifier: Apache-2.0
"""Table `causality`: no vector depends on later tokens or other documents, and steps are the pass.

Models of the arms with random weights, those that begin as 0 among them. The gradient of an output
by an input is 0, exactly, where the input is later or of another document of the row: through
routers, averages and room that runs out too. Bytes read one by one have room for every chunk, so
the pass that they are compared with has it too.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import decoders
from experiments.hierarchy import arms
from experiments.recipe import Run, Table
from lib.models.decoder import LanguageModel
from lib.models.recurrence import ages
from lib.report.results import Rows
from lib.train.experiment import Batch

LENGTH, TEXT = 24, b'abc  .'
SPREAD = 0.3  # of the weights


def measure(config: ConfigDict, run: Run) -> Rows:
  """The largest forbidden gradients and the error of single steps, of each arm of bytes."""
  rows = Rows('causality')
  for name in config.causality.arms:
    model = arms.model(config, arms.main_arm(config, name))
    future, across, visible, step = errors(model, config.seed)
    where = {'arm': name}
    rows.add(where, 'largest_future_gradient', future)
    rows.add(where, 'largest_cross_document_gradient', across)
    rows.add(where, 'largest_visible_gradient', visible, note='what could have been found')
    rows.add(where, 'step_error', step, note='of hidden vectors, whose mean square is 1')
  return rows


def errors(model: LanguageModel, seed: int) -> tuple[float, float, float, float]:
  """The largest gradient by later inputs, by other documents and by the rest; error of steps."""
  rng = np.random.default_rng(seed)
  letters = [first + byte for first in range(0, model.embedding.vocab_size, 256) for byte in TEXT]
  ids = jnp.asarray(rng.choice(letters, (2, LENGTH)), jnp.int32)
  segments = jnp.array([[1] * 9 + [2] * 15, [1] * 14 + [2] * 7 + [0] * 3])
  batch = {'inputs': ids, 'targets': ids, 'segments': segments, 'positions': ages(segments)}
  shapes = jax.eval_shape(model.init, jax.random.key(0), batch, jax.random.key(0))
  noise = lambda leaf: SPREAD * rng.standard_normal(leaf.shape, np.float32)
  variables = jax.tree.map(noise, shapes)
  slopes = np.asarray(_by_inputs(model)(variables, batch))
  places = np.arange(LENGTH)
  later = places[:, None] < places[None]
  own = np.asarray(segments)[:, :, None] == np.asarray(segments)[:, None]
  real = (np.asarray(segments) > 0)[:, :, None]
  largest = lambda which: float(slopes[np.broadcast_to(which & real, slopes.shape)].max())
  roomy = model.clone(decoder=decoders.with_rooms(model.decoder, (1.0, 1.0)))
  step_error = float(_step_error(roomy)(variables, ids))
  return largest(later), largest(~own), largest(own & ~later), step_error


def _encode(model: LanguageModel, batch: Batch) -> jax.Array:
  return model.embedding.encode(batch['inputs'], None)


def _hidden(model: LanguageModel, vectors: jax.Array, batch: Batch) -> jax.Array:
  ids = {'ids': batch['inputs']} if model.decoder.reads_ids else {}
  return model.decoder(vectors, batch['positions'], batch['segments'], **ids)[0]


def _by_inputs(model: LanguageModel) -> Any:
  """(variables, batch) -> |∂ output t / ∂ input s| of each row, [B, T, T]."""

  @jax.jit
  def slopes(variables: Any, batch: Batch) -> jax.Array:
    vectors: Any = model.apply(variables, batch, method=_encode)
    along = jax.random.normal(jax.random.key(0), vectors.shape[-1:])

    def outputs(vectors: jax.Array) -> jax.Array:
      hidden: Any = model.apply(variables, vectors, batch, method=_hidden)
      return (hidden @ along).sum(axis=0)  # rows of a batch do not meet

    return jnp.abs(jax.jacrev(outputs)(vectors)).max(axis=-1).swapaxes(0, 1)

  return slopes


def _step_error(model: LanguageModel) -> Any:
  """(variables, ids) -> the largest difference of the vectors of one pass and of single steps."""

  @jax.jit
  def error(variables: Any, ids: jax.Array) -> jax.Array:
    ones = jnp.ones_like(ids)
    batch = {'inputs': ids, 'segments': ones, 'positions': ages(ones)}
    vectors = model.apply(variables, batch, method=_encode)
    whole: Any = model.apply(variables, vectors, batch, method=_hidden)

    def step(cache: Any, both: Any) -> tuple[Any, jax.Array]:
      now, place = (x[:, None] for x in both)
      found: Any = model.apply(variables, now, place, None, cache, method='extend')
      return found[1], found[0][:, 0]

    empty = model.decoder.empty_cache(*ids.shape)
    steps = jax.lax.scan(step, empty, (ids.T, batch['positions'].T))[1]
    return jnp.abs(whole - steps.swapaxes(0, 1)).max()

  return error


TABLE = Table(
  'causality',
  measure,
  caption='Models with random weights on two rows of two documents: the largest gradient of an '
  'output by a later input, by an input of another document, and by those that it may depend on; '
  'and the largest difference between vectors that are computed byte by byte, over a cache, and '
  'those of one pass with room for every chunk.',
  shown=(
    'largest_future_gradient',
    'largest_cross_document_gradient',
    'largest_visible_gradient',
    'step_error',
  ),
  check=arms.check,
)
