# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules and the optax chain, from plain arguments."""

import re
from typing import Any

import jax
import optax

from lib.errors import InputError
from lib.train.sharding import path_name


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
  decay_pattern: str = r'kernel$',
  clip_norm: float | None = None,
) -> optax.GradientTransformation:
  """The optax chain of a run.

  Args:
    name: 'adamw'; 'adafactor' with T5X's defaults (rates relative to the parameter's scale); or
      'muon' on the matrices of the decoder's blocks, AdamW (with Nesterov's momentum) at the same
      rate on the rest.
    schedule: learning rate by step.
    b2: second-moment decay of AdamW.
    weight_decay: times the learning rate. 'adamw' has it on parameters whose path ends in
      `decay_pattern` (optax alone would decay embeddings, norms and biases too), 'muon' on its
      matrices, whatever the pattern, 'adafactor' on none.
    decay_pattern: regular expression searched in paths such as 'decoder/blocks/up/kernel'.
    clip_norm: largest global gradient norm, or None.
  """
  decayed = lambda params: jax.tree_util.tree_map_with_path(
    lambda path, _: re.search(decay_pattern, path_name(path)) is not None, params
  )
  if name == 'adamw':
    chain = optax.adamw(schedule, b2=b2, weight_decay=weight_decay, mask=decayed)
  elif name == 'adafactor':
    chain = optax.adafactor(schedule, decay_rate=0.8, multiply_by_parameter_scale=True)
  elif name == 'muon':
    chain = optax.contrib.muon(
      schedule,
      adam_b2=b2,
      weight_decay=weight_decay,
      muon_weight_dimension_numbers=matrices,
    )
  else:
    raise InputError(f'optimizer {name!r} is not one of adamw, adafactor, muon.')
  return chain if clip_norm is None else optax.chain(optax.clip_by_global_norm(clip_norm), chain)


def matrices(params: Any) -> Any:
  """How Muon sees each parameter: a block's kernels are matrices under leading stack axes.

  Heads count with the axis that they were split from: query, key and value are D × (H·K), out is
  (H·K) × D. Whatever is not a kernel in a block is no matrix.
  """

  def view(path: tuple, leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
    name, last = path_name(path), leaf.ndim - 1
    if not re.search(r'blocks/.*kernel$', name):
      return None
    if re.search(r'(query|key|value)/kernel$', name):
      return optax.contrib.MuonDimensionNumbers(last - 2, (last - 1, last))
    if re.search(r'out/kernel$', name):
      return optax.contrib.MuonDimensionNumbers((last - 2, last - 1), last)
    return optax.contrib.MuonDimensionNumbers(last - 1, last)

  return jax.tree_util.tree_map_with_path(view, params)
