# SPDX-License-Identifier: Apache-2.0
"""The fused readout: every implementation against the reference, and lowering for TPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels import linear_cross_entropy as kernel

STRICT = pltpu.InterpretParams(
  detect_races=True, out_of_bounds_reads='raise', uninitialized_memory='nan'
)
BLOCKS = kernel.BlockSizes(n=16, v=128)


def inputs(positions, dim, vocab_size, dtype=jnp.float32, seed=0):
  keys = jax.random.split(jax.random.key(seed), 4)
  return (
    jax.random.normal(keys[0], (positions, dim)).astype(dtype),
    jax.random.normal(keys[1], (vocab_size, dim)).astype(dtype),
    jax.random.normal(keys[2], (vocab_size,)),
    jax.random.randint(keys[3], (positions,), 0, vocab_size),
  )


def loss_and_slopes(implementation, hidden, table, bias, targets, **options):
  weights = jnp.cos(jnp.arange(targets.size))  # uneven, some negative

  def loss(hidden, table, bias):
    nats = kernel.linear_cross_entropy(
      hidden, table, targets, bias=bias, implementation=implementation, **options
    )
    return (nats * weights).sum(), nats

  (_, nats), slopes = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(hidden, table, bias)
  return nats, *slopes


def assert_same(found, expected, dtype):
  # float32: sums in another order; bfloat16: the slopes are rounded to it before the products.
  tolerance = {jnp.float32: 2e-5, jnp.bfloat16: 3e-2}[dtype]
  for a, b in zip(found, expected, strict=True):
    assert a.dtype == b.dtype
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    assert np.abs(a - b).max() <= tolerance * max(1, np.abs(b).max())


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('shape', [(16, 8, 128), (5, 3, 7), (33, 17, 300), (1, 64, 129)], ids=str)
@pytest.mark.parametrize('implementation', ['chunked', 'pallas'])
def test_equals_the_reference_forward_and_backward(monkeypatch, implementation, shape, dtype):
  monkeypatch.setattr(kernel, 'CHUNK', 128)
  options = dict(blocks=BLOCKS, interpret=True) if implementation == 'pallas' else {}
  arrays = inputs(*shape, dtype)
  found = loss_and_slopes(implementation, *arrays, **options)
  assert_same(found, loss_and_slopes('reference', *arrays), dtype)


def test_has_no_races_nor_reads_what_was_not_written():
  arrays = inputs(33, 17, 300)
  found = loss_and_slopes('pallas', *arrays, blocks=BLOCKS, interpret=STRICT)
  assert_same(found, loss_and_slopes('reference', *arrays), jnp.float32)


def test_large_logits_do_not_overflow():
  hidden, table, bias, targets = inputs(16, 8, 256)
  arrays = (100 * hidden, table, bias, targets)
  nats = kernel.linear_cross_entropy(
    100 * hidden, table, targets, bias=bias, implementation='pallas', blocks=BLOCKS, interpret=True
  )
  assert np.isfinite(nats).all()
  np.testing.assert_allclose(nats, loss_and_slopes('reference', *arrays)[0], rtol=1e-5, atol=1e-3)


def test_default_does_not_hold_large_logits():
  # 8,192 positions × 65,536 ids: 2 GiB of logits, which the compiled default must not need.
  shapes = [
    jax.ShapeDtypeStruct((8192, 16), jnp.float32),
    jax.ShapeDtypeStruct((65_536, 16), jnp.float32),
    jax.ShapeDtypeStruct((8192,), jnp.int32),
  ]
  memory = lambda implementation: (
    jax.jit(lambda h, w, t: kernel.linear_cross_entropy(h, w, t, implementation=implementation))
    .lower(*shapes)
    .compile()
    .memory_analysis()
    .temp_size_in_bytes
  )
  assert memory('reference') >= 2**31
  assert memory(None) <= 2**31 / 7


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_lowers_for_tpu_at_papers_shapes(dtype):
  # 113M compressed-text model: B 256 × T 512, D 768, V 65,536.
  shapes = [
    jax.ShapeDtypeStruct((131_072, 768), dtype),
    jax.ShapeDtypeStruct((65_536, 768), dtype),
    jax.ShapeDtypeStruct((65_536,), jnp.float32),
    jax.ShapeDtypeStruct((131_072,), jnp.int32),
  ]
  step = jax.grad(lambda *of: kernel.pallas(*of).sum(), argnums=(0, 1, 2))
  module = jax.export.export(jax.jit(step), platforms=['tpu'])(*shapes).mlir_module()
  assert module.count('tpu_custom_call') == 3  # forward, by hidden, by table


def test_bad_requests_are_refused_with_a_sentence():
  hidden, table, _, targets = inputs(4, 8, 16)
  with pytest.raises(ValueError, match="no implementation 'fast'"):
    kernel.linear_cross_entropy(hidden, table, targets, implementation='fast')
  with pytest.raises(ValueError, match='runs on a TPU, not on cpu'):
    kernel.linear_cross_entropy(hidden, table, targets, implementation='pallas')
  with pytest.raises(ValueError, match='multiple of 8'):
    kernel.BlockSizes(n=7)
  with pytest.raises(ValueError, match='vector memory'):
    kernel.BlockSizes(n=2048, v=4096).check_memory(1024, 2)
