# SPDX-License-Identifier: Apache-2.0
"""Declarations of a module about its parameters and cost, where it makes them.

  self.param('table', declared(init, ('tensor', 'fsdp')), (vocab_size, dim))
  nn.Dense(width, kernel_init=declared(init, ('fsdp', 'tensor'), inputs=1))
  declare_flops(self, 2 * vocab_size * dim)

Only `describe` sees the declarations. In any other trace `declared(init, …)` is `init`, so that
variables are plain arrays. A module that scans or maps others must pass the collection 'flops' on,
as it does 'params': `variable_axes={'params': 0, 'flops': 0}`.
"""

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from flax.core import DenyList
from jax.extend.core import jaxpr_as_fun

SOWN = ('losses', 'metrics', 'intermediates')  # collections that are not variables
_describing = contextvars.ContextVar('describing', default=False)
_times = contextvars.ContextVar('times', default=1.0)  # calls for each token


class Declaration(NamedTuple):
  """The declaration of one parameter.

  Attributes:
    axes: the axis of the mesh over which each of its dimensions is spread, or None. They are the
      last dimensions of the array: stacked layers and replicas have others in front.
    inputs: how many of these dimensions, the first, are the input of a matrix; the rest are its
      output. 0 marks a parameter that is not a matrix. Muon trains matrices, and weight decay
      applies to them.
  """

  axes: tuple[str | None, ...] = ()
  inputs: int = 0


@dataclasses.dataclass(frozen=True)
class Description:
  """A description of the variables that an initial function makes.

  Attributes:
    shapes: its variables, as ShapeDtypeStructs.
    declared: path such as 'params/decoder/blocks/up/kernel' -> what its module declares. A
      parameter that is not in it is replicated and not a matrix.
    flops: of a forward pass, for each token; the sum over replicas.
    init_fn: (key, batch) -> variables, as the function does, whose modules are not traced again.
  """

  shapes: dict[str, Any]
  declared: Mapping[str, Declaration]
  flops: float
  init_fn: Callable[[jax.Array, Mapping[str, Any]], dict[str, Any]]


@struct.dataclass
class _Noted(nn.meta.AxisMetadata[Any]):
  """A value with a note that survives scans and maps."""

  value: Any
  note: Any = struct.field(pytree_node=False)

  def unbox(self) -> Any:
    return self.value

  def replace_boxed(self, val: Any) -> '_Noted':
    return _Noted(val, self.note)

  def add_axis(self, index: int, params: Mapping) -> '_Noted':
    return self

  def remove_axis(self, index: int, params: Mapping) -> '_Noted':
    return self


def declared(init: Callable, axes: tuple[str | None, ...], inputs: int = 0) -> Callable:
  """An initial function (key, shape, …) -> array whose array is declared as a `Declaration`."""

  return lambda *args, **options: declare(init(*args, **options), axes, inputs)


def declare(value: jax.Array, axes: tuple[str | None, ...], inputs: int = 0) -> Any:
  """A parameter's initial value, declared as a `Declaration`."""
  return _Noted(value, Declaration(axes, inputs)) if _describing.get() else value


def declare_flops(module: nn.Module, flops: float) -> None:
  """Adds to the FLOPs of a forward pass for each token, by a call of `module`.

  Matrix products are counted, two per multiply-add; smaller costs are not.
  """
  if _describing.get():
    module.sow('flops', 'flops', _Noted(jnp.zeros(()), float(flops) * _times.get()))


@contextlib.contextmanager
def flops_times(factor: float) -> Iterator[None]:
  """Inside, `declare_flops` counts for each token that many times, as for one chunk in several."""
  token = _times.set(_times.get() * factor)
  try:
    yield
  finally:
    _times.reset(token)


def describe(init_fn: Callable, batch: Mapping[str, Any]) -> Description:
  """Traces (key, batch) -> variables, and reads the declarations of all modules in it.

  Args:
    init_fn: any function of Flax modules' initial variables that keeps them as trees.
    batch: arrays or shapes.
  """
  token = _describing.set(True)
  try:  # the function is new to JAX, so that no trace without declarations is taken for it
    trace = jax.make_jaxpr(lambda key, batch: init_fn(key, batch), return_shape=True)
    # Shapes alone: the devices of the mesh in use may be absent.
    jaxpr, noted = trace(jax.eval_shape(jax.random.key, 0), dict(batch))
  finally:
    _describing.reset(token)
  structure, noted = jax.tree.structure(noted), dict(noted)
  is_noted = lambda leaf: isinstance(leaf, _Noted)
  costs = jax.tree.leaves(noted.pop('flops', {}), is_leaf=is_noted)
  leaves = jax.tree_util.tree_leaves_with_path(noted, is_leaf=is_noted)

  def again(key: jax.Array, batch: Mapping[str, Any]) -> dict[str, Any]:
    found = jaxpr_as_fun(jaxpr)(*jax.tree.leaves((key, dict(batch))))
    variables = nn.meta.unbox(jax.tree.unflatten(structure, found))
    return {name: leaves for name, leaves in variables.items() if name != 'flops'}

  return Description(
    shapes=nn.meta.unbox(noted),
    declared={path_name(path): leaf.note for path, leaf in leaves if is_noted(leaf)},
    flops=sum(cost.note * math.prod(cost.value.shape) for cost in costs),
    init_fn=again,
  )


def describe_model(model: nn.Module, length: int = 2) -> Description:
  """The description of a language model; its FLOPs are those in a text of `length` tokens."""
  fields = ('inputs', 'targets', 'segments', 'positions')
  batch = dict.fromkeys(fields, jax.ShapeDtypeStruct((1, length), jnp.int32))
  return describe(lambda key, batch: initial_variables(model, key, batch), batch)


def initial_variables(model: Any, key: jax.Array, batch: Mapping[str, Any]) -> Any:
  """The variables of a language model, without sown values."""
  return model.init(key, batch, key, mutable=DenyList(SOWN))


def path_name(path: tuple[Any, ...]) -> str:
  """A tree path as 'params/decoder/blocks/up/kernel'."""
  return '/'.join(str(getattr(k, 'key', getattr(k, 'name', getattr(k, 'idx', k)))) for k in path)
