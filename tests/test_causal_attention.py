# SPDX-License-Identifier: Apache-2.0
"""Flash attention with biases by distance: every implementation against the reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from lib.models.decoder import Decoder
from lib.models.positions import T5Bias
from lib.train import sharding
from pallas_kernels import causal_attention as kernel

STRICT = pltpu.InterpretParams(
  detect_races=True, out_of_bounds_reads='raise', uninitialized_memory='nan'
)
BLOCKS = kernel.BlockSizes(t=128)
STARTS = T5Bias(heads=1).starts()


def inputs(batch, length, heads, width, biased, dtype=jnp.float32, seed=0):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
  q, k, v = (draw(batch, length, heads, width) for _ in range(3))
  table = jnp.asarray(rng.normal(size=(heads, 32)), jnp.float32) if biased else None
  segments = jnp.asarray(rng.integers(1, 3, (batch, length)).cumsum(axis=1) // 60, jnp.int32)
  return (q, k, v, table), segments, draw(batch, length, heads, width)


def run(implementation, arrays, segments, weight, **options):
  biased = arrays[3] is not None

  def call(q, k, v, table):
    return kernel.causal_attention(
      q, k, v, segments, table=table, starts=STARTS if biased else (),
      implementation=implementation, **options,
    )  # fmt: skip

  @jax.jit
  def both(arrays, weight):
    out, back = jax.vjp(call, *arrays)
    return out, back(weight)

  return both(arrays, weight)


def assert_same(found, expected, dtype):
  # float32: sums in another order; bfloat16: weights and slopes are rounded before the products.
  tolerance = {jnp.float32: 1e-5, jnp.bfloat16: 2e-2}[dtype]
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    assert a.shape == b.shape
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    assert np.abs(a - b).max() <= tolerance * max(1, np.abs(b).max())


@pytest.mark.parametrize(
  ('shape', 'dtype'),
  [
    ((1, 1, 1, 8, True), jnp.float32),
    ((2, 130, 2, 16, True), jnp.float32),
    ((2, 130, 2, 16, True), jnp.bfloat16),
    ((1, 256, 1, 8, False), jnp.float32),
  ],
)
def test_equals_the_reference_forward_and_backward(shape, dtype):
  arrays, segments, weight = inputs(*shape, dtype)
  wide = jax.tree.map(lambda x: x.astype(jnp.float32), (arrays, weight))
  expected = run('reference', wide[0], segments, wide[1])
  found = run('pallas', arrays, segments, weight, blocks=BLOCKS, interpret=True)
  assert found[0].dtype == dtype
  assert_same(found, expected, dtype)


def test_has_no_races_nor_reads_what_was_not_written():
  arrays, segments, weight = inputs(1, 140, 1, 8, True)
  found = run('pallas', arrays, segments, weight, blocks=BLOCKS, interpret=STRICT)
  assert_same(found, run('xla', arrays, segments, weight), jnp.float32)


def test_scores_of_any_size_stay_finite():
  (q, k, v, _), segments, _ = inputs(1, 140, 1, 8, False)
  call = functools.partial(kernel.causal_attention, implementation='pallas', interpret=True)
  found = jax.jit(lambda q: call(q, k, v, segments, blocks=BLOCKS))(1e4 * q)
  np.testing.assert_allclose(
    found, kernel.causal_attention_reference(1e4 * q, k, v, segments), atol=1e-3
  )


def test_a_row_by_distance_and_its_tile_are_each_others_transpose():
  rng = np.random.default_rng(0)
  row, tile = rng.normal(size=(1, 256)), rng.normal(size=(128, 128))
  row, tile = row.astype(np.float32), tile.astype(np.float32)
  spread, folded = jax.jit(kernel._spread)(row), jax.jit(kernel._folded)(tile)
  key, query = np.indices((128, 128))
  assert (spread == row[0][128 + query - key]).all()
  expected = np.bincount((128 + query - key).ravel(), tile.ravel(), minlength=256)
  np.testing.assert_allclose(folded[0], expected, atol=1e-4)


@pytest.mark.parametrize('biased', [True, False])
def test_lowers_for_tpu_at_papers_shapes(biased):
  # 113M compressed-text model: T 512, 12 heads of 64; B 64 of 256.
  shapes = [jax.ShapeDtypeStruct((64, 512, 12, 64), jnp.bfloat16)] * 3
  shapes += [jax.ShapeDtypeStruct((64, 512), jnp.int32)]
  shapes += [jax.ShapeDtypeStruct((12, 32), jnp.float32)] if biased else []
  by = (0, 1, 2, 4) if biased else (0, 1, 2)
  call = functools.partial(kernel.pallas, starts=STARTS if biased else ())
  step = jax.jit(jax.grad(lambda *of: call(*of).astype(jnp.float32).sum(), argnums=by))
  module = jax.export.export(step, platforms=['tpu'])(*shapes).mlir_module()
  assert module.count('tpu_custom_call') == 3  # forward, by queries, by keys and values


@pytest.mark.parametrize('sizes', [{'data': 2, 'tensor': 4}, {'fsdp': 4, 'tensor': 2}], ids=str)
def test_decoder_with_the_kernel_is_the_decoder(monkeypatch, sizes):
  decoder = Decoder(layers=2, dim=16, heads=2, mlp_dim=8, position='t5')
  rng = np.random.default_rng(0)
  x = rng.normal(size=(4, 40, 16)).astype(np.float32)
  segments = np.sort(rng.integers(1, 4, (4, 40)))
  variables = decoder.init(jax.random.key(0), x, segments, segments)
  loss = lambda variables, x: jnp.sin(decoder.apply(variables, x, segments, segments)[0]).sum()
  expected = jax.jit(jax.grad(loss, argnums=(0, 1)))(variables, x)
  monkeypatch.setattr('lib.models.decoder.preferred', lambda width, dtype: 'pallas')
  monkeypatch.setattr(
    'lib.models.packed_attention.causal_attention',
    functools.partial(kernel.causal_attention, interpret=True),
  )
  with jax.set_mesh(sharding.make_mesh(sizes)):
    step = jax.jit(jax.grad(loss, argnums=(0, 1)))
    assert 'pallas_call' in str(jax.make_jaxpr(step)(variables, x))
    found = step(variables, x)
  assert_same(found, expected, jnp.float32)


def test_bad_requests_are_refused_with_a_sentence():
  (q, k, v, table), segments, _ = inputs(1, 4, 2, 8, True)
  call = functools.partial(kernel.causal_attention, q, k, v, segments)
  for options, message in (
    ({'implementation': 'flash'}, "no implementation 'flash'"),
    ({'implementation': 'pallas'}, 'runs on a TPU, not on cpu'),
    ({'table': table, 'starts': STARTS[1:]}, 'starts of 31 buckets do not fit a table of 32'),
    ({'table': table, 'starts': STARTS[::-1]}, 'rise from 0'),
  ):
    with pytest.raises(ValueError, match=message):
      call(**options)
  with pytest.raises(ValueError, match='float32 or bfloat16'):
    kernel.causal_attention(
      *(x.astype(jnp.float16) for x in (q, k, v)), segments, implementation='pallas', interpret=True
    )
  with pytest.raises(ValueError, match='power of two'):
    kernel.BlockSizes(384)
  long, big = jnp.zeros((1, 2048, 1, 64)), kernel.BlockSizes(2048)
  with pytest.raises(ValueError, match='vector memory'):
    kernel.pallas(long, long, long, jnp.zeros((1, 2048), jnp.int32), blocks=big)
