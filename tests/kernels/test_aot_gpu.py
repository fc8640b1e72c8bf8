# SPDX-License-Identifier: Apache-2.0
"""Kernels compiled ahead of time for an H200 that is not there, where the extra `cuda` is."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lib.parallel import sharding
from lib.profiling import topologies
from pallas_kernels.bench import cases

PLUGIN = 'jax_plugins.xla_cuda13'
try:
  found = importlib.util.find_spec(PLUGIN)
except ModuleNotFoundError:
  found = None
pytestmark = pytest.mark.skipif(found is None, reason=f"{PLUGIN} is the extra 'cuda'")
CASES = {(case.kernel, case.shape): case for case in cases.cases() if 'triton' in case.ways}


def temporaries(step, shapes):
  """Bytes beside arguments and results that a step takes of an H200."""
  mesh = sharding.make_mesh({}, topologies.devices('h200x1'))
  whole = NamedSharding(mesh, PartitionSpec())
  with jax.set_mesh(mesh):
    jitted = jax.jit(step, in_shardings=whole, out_shardings=whole)
    compiled = jitted.trace(*shapes).lower(lowering_platforms=('cuda',)).compile()
  return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(('kernel', 'shape'), CASES, ids=str)
def test_kernels_compile_and_hold_no_whole_arrays(kernel, shape):
  case = CASES[kernel, shape]
  shapes = jax.eval_shape(case.inputs)
  total = lambda way: lambda *of: case.ways[way](*of).astype(jnp.float32).sum()
  step = functools.partial(jax.value_and_grad, argnums=case.by)
  held = temporaries(step(total('triton')), shapes)
  if kernel == 'linear_cross_entropy':
    (n, _), (v, d) = (x.shape for x in shapes[:2])
    whole = 2 * 4 * n * v  # logits, and slopes by them
    assert held <= whole / 8 + 4 * (n + v) * d  # and the gradients, found forward, in float32
  else:
    batch, length, heads, _ = shapes[0].shape
    scores = 4 * batch * heads * length**2
    assert held < scores
