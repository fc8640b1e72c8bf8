# SPDX-License-Identifier: Apache-2.0
"""The training state (a plain pytree), made sharded, and the donated step that advances it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from lib.train import sharding
from lib.train.experiment import Batch, Experiment

State = dict[str, Any]  # {'step': int32 [], 'variables': collections, 'optimizer': optax state}


def state_shapes(
  experiment: Experiment,
  optimizer: optax.GradientTransformation,
  batch: Batch,
  seed: int,
  rules: sharding.Rules,
  mesh: Mesh,
) -> tuple[Callable[[], State], State]:
  """How to make the initial state, and its abstract form with shardings.

  Returns:
    make: () -> state, compiled so that each shard is made on its own device (no host copy).
    shapes: the state's ShapeDtypeStructs, each with the sharding that the rules give.
  """

  def init() -> State:
    example = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), batch)
    variables = experiment.init_fn(jax.random.key(seed), example)
    return {
      'step': jnp.zeros((), jnp.int32),
      'variables': dict(variables),
      'optimizer': optimizer.init(variables['params']),
    }

  shapes = jax.eval_shape(init)
  places = sharding.shardings(shapes, rules, mesh)
  shapes = jax.tree.map(
    lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, places
  )
  return jax.jit(init, out_shardings=places), shapes


def make_step(
  experiment: Experiment, optimizer: optax.GradientTransformation, seed: int, shapes: State
) -> jax.stages.Wrapped:
  """The jitted step (state, batch) -> (state, metrics); the old state's memory is donated.

  The step's randomness is a function of (seed, step) alone, so a resumed run draws the same.
  """

  def step(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
    key = jax.random.fold_in(jax.random.key(seed), state['step'])
    params = state['variables']['params']
    coefficients = {name: f(state['step']) for name, f in experiment.schedules.items()}
    batch = dict(batch) | coefficients

    def loss(params):
      return experiment.loss_fn(state['variables'] | {'params': params}, batch, key)

    (nats, aux), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    updates, moments = optimizer.update(gradient, state['optimizer'], params)
    new = {
      'step': state['step'] + 1,
      'variables': state['variables'] | {'params': optax.apply_updates(params, updates)},
      'optimizer': moments,
    }
    return new, {'loss': nats, 'gradient_norm': optax.tree.norm(gradient)} | dict(aux)

  places = jax.tree.map(lambda leaf: leaf.sharding, shapes)
  return jax.jit(step, donate_argnums=0, out_shardings=(places, None))
