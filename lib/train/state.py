# SPDX-License-Identifier: Apache-2.0
"""The training state (a plain, sharded pytree), and the jitted step that advances it."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lib.errors import InputError
from lib.parallel import sharding
from lib.parallel.mesh import BATCH_AXES
from lib.parameters import Description, describe, path_name
from lib.train.experiment import Batch, Experiment, Variables
from lib.train.optimizer import Optimizer, resolve
from pallas_kernels.implementations import backend

State = dict[str, Any]  # {'step': int32 [], 'variables': collections, 'optimizer': optax state}
LARGE = 2**20  # entries of a parameter that should be spread over the devices
SEEDS = 'seeds'  # the axis of `jax.pmap`


@dataclasses.dataclass(frozen=True)
class Training:
  """A training state and the step that advances it, on a mesh; nothing is computed yet.

  Attributes:
    shapes: the state's ShapeDtypeStructs, each with its sharding.
    make: () -> the initial state; each shard is made on its own device (no host copy).
    step: the jitted (state, batch) -> (state, metrics); the old state's memory is donated. Its
      randomness is a function of (seed, step) alone, so a resumed run has the same randomness.
    flops: of a step on all devices: three times the forward pass that modules declare
      (`lib.parameters`): attention is counted over the pairs of tokens that the mask lets through
      in a text of T tokens, and nothing is counted twice that is rematerialised.
  """

  shapes: State
  make: Callable[[], State]
  step: jax.stages.Wrapped
  flops: float


def prepare(
  experiment: Experiment,
  optimizer: Optimizer,
  batch: Batch,
  seed: int | Sequence[int],
  mesh: Mesh,
  accumulate: int = 1,
) -> Training:
  """The training of an experiment on a mesh, or of one model a device by `jax.pmap`.

  Args:
    experiment: what to train.
    optimizer: an optax chain, or what `lib.train.optimizer.make_optimizer` returns.
    batch: arrays or shapes of a batch.
    seed: of the initial state and of every step's randomness. Of several seeds each device of the
      mesh trains one, as if it were alone. Then the leading axis of the batch, of
      `experiment.initial` and of the state is that of the seeds; counts of steps have none.
    mesh: devices.
    accumulate: parts in which the batch is taken, see `accumulated`.

  Raises:
    InputError: `experiment.initial` does not fit what `experiment.init_fn` makes.
  """
  if not isinstance(seed, int):
    return _prepare_each(experiment, optimizer, batch, seed, mesh, accumulate)
  description = describe(experiment.init_fn, batch)
  _warn(description, mesh)
  chain = resolve(optimizer, description.declared)
  initial = experiment.initial
  if initial is not None:
    initial = _checked(dict(initial), description.shapes)

  shapes = _shapes(description, chain)
  places = {
    'step': NamedSharding(mesh, PartitionSpec()),
    'variables': sharding.shardings(shapes['variables'], description.declared, mesh),
    'optimizer': sharding.moment_shardings(shapes['optimizer'], description.declared, mesh),
  }

  def make() -> State:
    placed = initial and jax.tree.map(sharding.put, initial, places['variables'])
    init = functools.partial(_init, description, chain, batch, seed)
    return jax.jit(init, out_shardings=places)(placed)

  everywhere = NamedSharding(mesh, PartitionSpec())
  step = _make_step(experiment, chain, lambda: seed, places['variables']['params'], accumulate)
  return Training(
    shapes=jax.tree.map(
      lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
      shapes,
      places,
    ),
    make=make,
    step=jax.jit(step, donate_argnums=0, out_shardings=(places, everywhere)),
    flops=_flops(description, batch),
  )


def _prepare_each(
  experiment: Experiment,
  optimizer: Optimizer,
  batch: Batch,
  seeds: Sequence[int],
  mesh: Mesh,
  accumulate: int,
) -> Training:
  """`prepare` for several seeds, one on each device of the mesh."""
  every, devices = np.array(seeds), list(mesh.devices.flat)
  first = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in batch.items()}
  description = describe(experiment.init_fn, first)
  chain = resolve(optimizer, description.declared)
  one = _shapes(description, chain)
  count = lambda leaf: leaf.ndim == 0 and jnp.issubdtype(leaf.dtype, jnp.integer)
  axes = {
    'step': None,
    'variables': 0,
    'optimizer': jax.tree.map(lambda leaf: None if count(leaf) else 0, one['optimizer']),
  }
  spread, whole = (NamedSharding(mesh, PartitionSpec(*axis)) for axis in ([BATCH_AXES], []))

  def stacked(axis: int | None, shapes: Any) -> Any:
    if axis is None:
      return jax.ShapeDtypeStruct(shapes.shape, shapes.dtype, sharding=whole)
    return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct((len(every), *leaf.shape), leaf.dtype, sharding=spread),
      shapes,
    )

  shapes = jax.tree.map(stacked, axes, one, is_leaf=lambda axis: axis is None)
  initial = experiment.initial
  if initial is not None:
    initial = _checked(dict(initial), shapes['variables'])
  init = functools.partial(_init, description, chain, first)
  step = _make_step(
    experiment, chain, lambda: jnp.asarray(every)[lax.axis_index(SEEDS)], None, accumulate
  )
  return Training(
    shapes=shapes,
    make=lambda: jax.pmap(init, SEEDS, out_axes=axes, devices=devices)(every, initial),
    step=jax.pmap(
      step, SEEDS, in_axes=(axes, 0), out_axes=(axes, 0), donate_argnums=0, devices=devices
    ),
    flops=len(every) * _flops(description, first),
  )


def _shapes(description: Description, chain: optax.GradientTransformation) -> State:
  return {
    'step': jax.ShapeDtypeStruct((), jnp.int32),
    'variables': description.shapes,
    'optimizer': jax.eval_shape(chain.init, description.shapes['params']),
  }


def _flops(description: Description, batch: Batch) -> float:
  rows, length = batch['targets'].shape[-2:]
  return 3 * description.flops * rows * length


def _init(
  description: Description,
  chain: optax.GradientTransformation,
  batch: Batch,
  seed: int | jax.Array,
  initial: Variables | None,
) -> State:
  variables = initial
  if variables is None:
    example = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), batch)
    variables = description.init_fn(jax.random.key(seed), example)
  else:  # a copy, since the step gives the memory of the state away
    variables = jax.tree.map(jnp.copy, variables)
  return {
    'step': jnp.zeros((), jnp.int32),
    'variables': dict(variables),
    'optimizer': chain.init(variables['params']),
  }


def _warn(description: Description, mesh: Mesh) -> None:
  """Warns once of large arrays that are replicated on a mesh that shards weights."""
  if mesh.size == mesh.shape['data']:
    return
  leaves = jax.tree_util.tree_leaves_with_path(description.shapes)
  names = [path_name(path) for path, leaf in leaves if leaf.size >= LARGE]
  whole = [name for name in names if name not in description.declared]
  if whole:
    logging.log_first_n(
      logging.WARNING,
      'no axes of the mesh are declared for %s: every device has a full copy. '
      'lib.parameters.declared gives them.',
      1,
      ', '.join(whole),
    )


def _checked(initial: Variables, wanted: Variables) -> Variables:
  """The initial variables in the dtypes of the model; raises InputError unless they fit it."""
  check_same_shapes(initial, wanted, 'the initial variables')
  return jax.tree.map(lambda array, like: array.astype(like.dtype), initial, wanted)


def check_same_shapes(found: Variables, wanted: Variables, what: str) -> None:
  """Raises InputError that names the first array that is missing, unknown or of another shape."""
  one, other = (
    {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    for tree in (found, wanted)
  )
  for name in sorted(one.keys() | other.keys()):
    if name not in one:
      raise InputError(f'{what} lack {name} {other[name].shape}, which the model has.')
    if name not in other:
      raise InputError(f'{what} contain {name} {one[name].shape}, which the model does not have.')
    if tuple(one[name].shape) != tuple(other[name].shape):
      raise InputError(
        f'{what} contain {name} of shape {tuple(one[name].shape)}; the model wants '
        f'{tuple(other[name].shape)}.'
      )


def _make_step(
  experiment: Experiment,
  chain: optax.GradientTransformation,
  seed: Callable[[], int | jax.Array],
  places: Any,
  accumulate: int,
) -> Callable[[State, Batch], tuple[State, dict[str, jax.Array]]]:
  """The step of one model; `places` are the shardings of its parameters, None on one device."""

  def step(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
    key = jax.random.fold_in(jax.random.key(seed()), state['step'])
    params = state['variables']['params']
    coefficients = {name: f(state['step']) for name, f in experiment.schedules.items()}

    def of_batch(batch: Batch, key: jax.Array) -> tuple[tuple, Any]:
      def loss(params):
        variables = state['variables'] | {'params': params}
        return experiment.loss_fn(variables, dict(batch) | coefficients, key)

      return jax.value_and_grad(loss, has_aux=True)(params)

    if accumulate > 1:
      of_batch = accumulated(of_batch, accumulate, experiment.batch_axis, places)
    (nats, aux), gradient = of_batch(batch, key)
    updates, moments = chain.update(gradient, state['optimizer'], params)
    new = {
      'step': state['step'] + 1,
      'variables': state['variables'] | {'params': optax.apply_updates(params, updates)},
      'optimizer': moments,
    }
    return new, {'loss': nats, 'gradient_norm': optax.tree.norm(gradient)} | dict(aux)

  return step


def compile_lowered(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
  """The jitted step, on a GPU without CUDA graphs, which are XLA's default.

  With CUDA graphs, steps of twelve unrolled layers did not finish within half a minute on an H200
  (jax 0.11.2, two tries); the cause is unknown. Without them, traces also name ops.
  """
  gpu = backend() == 'gpu'
  return lowered.compile({'xla_gpu_graph_min_graph_size': str(2**30)} if gpu else None)


def accumulated(of_batch: Callable, parts: int, axis: int, places: Any) -> Callable:
  """`of_batch(batch, key) -> ((loss, sums), gradient)` over the parts of a batch, in sequence.

  Parts are weighted by their tokens, so a loss that is a mean over tokens has the gradient of the
  whole batch. Each part has its own random numbers. Every device has an equal share of each part.

  Args:
    of_batch: as above; `tokens` among the sums is a scalar, or has an entry for each replica, which
      then is the leading axis of the gradient.
    parts: their number.
    axis: of the batch in its arrays.
    places: shardings of the gradient; None on one device.

  Raises:
    InputError: the parts do not divide the batch.
  """

  def deal(rows: jax.Array) -> jax.Array:
    shape = rows.shape
    if shape[axis] % parts:
      raise InputError(f'a batch of {shape[axis]} does not divide into accumulate={parts} parts.')
    shape = (*shape[:axis], shape[axis] // parts, parts, *shape[axis + 1 :])
    return jnp.moveaxis(rows.reshape(shape), axis + 1, 0)

  def as_wide(tokens: jax.Array, leaf: jax.Array) -> jax.Array:
    return tokens.astype(leaf.dtype).reshape(tokens.shape + (1,) * (leaf.ndim - tokens.ndim))

  def of_part(batch: Batch, key: jax.Array) -> tuple[Any, Any, Any]:
    (loss, sums), gradient = of_batch(batch, key)
    tokens = sums['tokens']
    return (
      loss * tokens.sum(),
      sums,
      jax.tree.map(lambda leaf: leaf * as_wide(tokens, leaf), gradient),
    )

  def of_parts(batch: Batch, key: jax.Array) -> tuple[tuple, Any]:
    dealt = jax.tree.map(deal, dict(batch)), jax.random.split(key, parts)
    begin = jax.eval_shape(of_part, *jax.tree.map(lambda leaf: leaf[0], dealt))
    loss, sums, gradient = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), begin)
    if places is not None:
      gradient = lax.with_sharding_constraint(gradient, places)
    total = loss, sums, gradient
    add = lambda total, part: (jax.tree.map(jnp.add, total, of_part(*part)), None)
    (loss, sums, gradient), _ = lax.scan(add, total, dealt)
    tokens = sums['tokens']
    mean = jax.tree.map(lambda leaf: leaf / as_wide(tokens, leaf), gradient)
    return (loss / tokens.sum(), sums), mean

  return of_parts
