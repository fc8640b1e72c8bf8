# SPDX-License-Identifier: Apache-2.0
"""Kernels compiled ahead of time for TPUs that are not there (`make aot` installs libtpu)."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

from pallas_kernels.bench import aot, cases
from pallas_kernels.bench.cases import CAUSAL, ONE_CARD

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed: see `make aot`'
)
# libtpu reads its environment once, so each chip has a process of its own. Printed is the memory
# beside arguments and results, as a share of two numbers for each position and id: it grows with
# their sum, where logits grow with their product; a column would be padded to 128 numbers a row.
PROGRAM = """
import sys
import jax
import jax.numpy as jnp
from pallas_kernels import lexinvariant_cross_entropy, linear_cross_entropy
from pallas_kernels.bench import aot

def share(kernel, arguments, n, v, *arrays):
  loss = lambda *of: sum(x.sum() for x in kernel(*of))
  step = jax.value_and_grad(loss, argnums=arguments)
  shapes = [jax.ShapeDtypeStruct(*array) for array in arrays]
  compiled = aot.compile_for(sys.argv[1], step, shapes)
  print(compiled.memory_analysis().temp_size_in_bytes / (2 * 4 * (n + v)))

bf16, f32, v = jnp.bfloat16, jnp.float32, 65_536
# A chip's share of the 113M and of the 2B model of compressed text.
for dtype, n, d in [(bf16, 32_768, 768), (f32, 32_768, 768), (bf16, 8192, 2048)]:
  share(linear_cross_entropy.pallas, (0, 1, 2), n, v,
        ((n, d), dtype), ((v, d), dtype), ((v,), f32), ((n,), jnp.int32))
b, t, d, v = 16, 512, 1024, 32_000  # of lexinvariant models
share(lambda *of: lexinvariant_cross_entropy.pallas(*of, v), (0,), b * t, v,
      ((b, t, d), bf16), ((b, 2), jnp.uint32), ((b, t), jnp.int32))
"""

# Attention with biases of each kind and with none.
ATTENTION = """
import sys
import jax
import jax.numpy as jnp
from pallas_kernels.bench import aot
from pallas_kernels.bench.cases import ONE_CARD, cases

for case in cases():
  if case.kernel == 'causal_attention' and ONE_CARD not in case.shape:
    total = lambda *of: case.ways['pallas'](*of).astype(jnp.float32).sum()
    step = jax.value_and_grad(total, argnums=case.by)
    compiled = aot.compile_for(sys.argv[1], step, jax.eval_shape(case.inputs))
    print(case.shape, compiled.memory_analysis().temp_size_in_bytes)
"""


RECURRENCE = ATTENTION.replace('causal_attention', 'linear_recurrence')


def printed(program, chip):
  """Lines that a program prints of a chip."""
  done = subprocess.run(
    [sys.executable, '-c', program, chip], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.splitlines()


@pytest.mark.parametrize('chip', aot.TOPOLOGIES)
def test_losses_compile_and_hold_neither_logits_nor_tables(chip):
  shares = [float(line) for line in printed(PROGRAM, chip)]
  assert len(shares) == 4
  assert max(shares) < 1


@pytest.mark.parametrize('chip', aot.TOPOLOGIES)
def test_attention_compiles_and_holds_no_scores(chip):
  held = {shape: int(size) for shape, size in map(str.split, printed(ATTENTION, chip))}
  several = {name: shape for name, shape in CAUSAL.items() if ONE_CARD not in name}
  assert held.keys() == several.keys()
  for name, shape in several.items():
    scores = 4 * shape['texts'] * shape['heads'] * shape['length'] ** 2
    assert held[name] < scores / 2


@pytest.mark.parametrize('chip', aot.TOPOLOGIES)
def test_recurrences_compile_and_hold_no_more_than_their_arrays(chip):
  held = {shape: int(size) for shape, size in map(str.split, printed(RECURRENCE, chip))}
  assert held.keys() == cases.RECURRENCE.keys()
  for name, shape in cases.RECURRENCE.items():
    # Of the backward pass: gates and states moved by one position, and both gradients.
    lanes = -(-shape['dim'] // 128) * 128
    assert held[name] <= 4.5 * 4 * shape['sequences'] * shape['length'] * lanes
