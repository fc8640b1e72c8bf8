# SPDX-License-Identifier: Apache-2.0
"""Kernels compiled ahead of time for TPUs that are not there (`make aot` installs libtpu)."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# libtpu reads its environment once, at import, so each compilation has a process of its own.
HERE = {
  'JAX_PLATFORMS': 'cpu',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_WORKER_ID': '0',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}
PROGRAM = """
import sys
import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
from pallas_kernels import linear_cross_entropy as kernel

chip = topologies.get_topology_desc(sys.argv[1], platform='tpu').devices[0]
here = SingleDeviceSharding(chip)
loss = lambda *of: sum(x.sum() for x in kernel.pallas(*of))
step = jax.value_and_grad(loss, argnums=(0, 1, 2))
for dtype in (jnp.bfloat16, jnp.float32):
  n, d, v = 32_768, 768, 65_536  # a chip's share of the 113M compressed-text model
  arrays = [((n, d), dtype), ((v, d), dtype), ((v,), jnp.float32), ((n,), jnp.int32)]
  shapes = [jax.ShapeDtypeStruct(*array) for array in arrays]
  jitted = jax.jit(step, in_shardings=here, out_shardings=here)
  compiled = jitted.trace(*shapes).lower(lowering_platforms=('tpu',)).compile()
  print(compiled.memory_analysis().temp_size_in_bytes / (n * v * 4))
"""


@pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed: see `make aot`'
)
@pytest.mark.parametrize('topology', ['v5e:2x2', 'v5p:2x2x1', 'v6e:2x2'])
def test_linear_cross_entropy_compiles_and_holds_no_logits(topology):
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM, topology],
    cwd=ROOT, env=os.environ | HERE, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  shares = [float(line) for line in done.stdout.split()]
  assert len(shares) == 2
  assert max(shares) < 1 / 64  # of the memory that the float32 logits would take
