# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules and the optax chain, from plain arguments."""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import optax

from lib.errors import InputError
from lib.parallel.sharding import Declared
from lib.parameters import Declaration, path_name

# An optax chain, or what makes one once it is known which parameters are matrices.
Optimizer: TypeAlias = (
  optax.GradientTransformation | Callable[[Declared], optax.GradientTransformation]
)
NAMES = ('adamw', 'adafactor', 'muon')


def make_schedule(kind: str, peak: float, steps: int, warmup: int, final: float) -> optax.Schedule:
  """Learning rate by step.

  Args:
    kind: 'constant', 'cosine' (to final · peak at `steps`) or 'rsqrt' (peak · √(warmup / step)).
    peak: highest rate, reached after `warmup` steps of linear warm-up from peak / 100.
    steps: length of the run.
    warmup: steps of warm-up.
    final: last rate of 'cosine' as a fraction of the peak.
  """
  if kind == 'constant':
    after = optax.constant_schedule(peak)
  elif kind == 'cosine':
    after = optax.cosine_decay_schedule(peak, max(1, steps - warmup), final)
  elif kind == 'rsqrt':
    start = max(1, warmup)
    after = lambda step: peak * (start / (start + step)) ** 0.5
  else:
    raise InputError(f'schedule {kind!r} is not one of constant, cosine, rsqrt.')
  ramp = optax.linear_schedule(peak / 100, peak, max(1, warmup))
  return optax.join_schedules([ramp, after], [warmup]) if warmup else after


def make_optimizer(
  name: str,
  schedule: optax.Schedule,
  *,
  b2: float = 0.95,
  weight_decay: float = 0.0,
  clip_norm: float | None = None,
  factors: Sequence[tuple[str, float]] = (),
) -> Callable[[Declared], optax.GradientTransformation]:
  """The optax chain of a run, as a function of what modules declare of their parameters.

  Args:
    name: 'adamw'; 'adafactor' with T5X's defaults (rates relative to the parameter's scale); or
      'muon' on matrices, AdamW (with Nesterov's momentum) at the same rate on the rest.
    schedule: learning rate by step.
    b2: second-moment decay of AdamW.
    weight_decay: times the learning rate, on matrices alone (optax would decay embeddings, norms
      and biases too); 'adafactor' has none.
    clip_norm: largest global gradient norm, or None.
    factors: of the learning rate: (pattern, factor), of which the first whose pattern is found in
      a parameter's path holds. 0 keeps a parameter as it is.
  """
  if name not in NAMES:
    raise InputError(f'optimizer {name!r} is not one of {", ".join(NAMES)}.')

  def make(declared: Declared) -> optax.GradientTransformation:
    if name == 'adamw':
      decayed = functools.partial(are_matrices, declared)
      chain = optax.adamw(schedule, b2=b2, weight_decay=weight_decay, mask=decayed)
    elif name == 'adafactor':
      chain = optax.adafactor(schedule, decay_rate=0.8, multiply_by_parameter_scale=True)
    else:
      views = functools.partial(matrices, declared)
      chain = optax.contrib.muon(
        schedule, adam_b2=b2, weight_decay=weight_decay, muon_weight_dimension_numbers=views
      )
    clipped = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    scaled = [_scaled(factors)] if factors else []
    return optax.chain(*clipped, chain, *scaled) if clipped or scaled else chain

  return make


def _scaled(factors: Sequence[tuple[str, float]]) -> optax.GradientTransformation:
  """Updates times the first factor whose pattern is found in their path; 1 where none is."""

  def scale(path: tuple, update: jax.Array) -> jax.Array:
    found = (factor for pattern, factor in factors if re.search(pattern, path_name(path)))
    return update * next(found, 1.0)

  return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates))


def resolve(optimizer: Optimizer, declared: Declared) -> optax.GradientTransformation:
  """The optax chain for parameters that are declared so."""
  if isinstance(optimizer, optax.GradientTransformation):
    return optimizer
  return optimizer(declared)


def matrices(declared: Declared, params: Any) -> Any:
  """The input and output axes of each parameter that is declared a matrix, and None for others.

  Several axes on one side count as one: of heads and their width, which a query's kernel has as its
  output, Muon sees the product.
  """

  def view(path: tuple, leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
    axes, inputs = declaration_of(declared, path)
    own = tuple(range(leaf.ndim - len(axes), leaf.ndim))
    return optax.contrib.MuonDimensionNumbers(own[:inputs], own[inputs:]) if inputs else None

  return jax.tree_util.tree_map_with_path(view, params)


def are_matrices(declared: Declared, params: Any) -> Any:
  """Whether each parameter is declared a matrix."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: declaration_of(declared, path).inputs > 0, params
  )


def declaration_of(declared: Declared, path: tuple) -> Declaration:
  """What is declared of the parameter at a path within 'params'."""
  return declared.get(f'params/{path_name(path)}', Declaration())
