# SPDX-License-Identifier: Apache-2.0
"""Flash attention with biases by distance: every implementation against the reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from lib.models.decoder import Decoder
from lib.models.packed_attention import packed_attention
from lib.models.positions import T5Bias
from lib.parallel import sharding
from pallas_kernels import causal_attention as kernel
from pallas_kernels import distances
from tests.helpers import absent

STRICT = pltpu.InterpretParams(
  detect_races=True, out_of_bounds_reads='raise', uninitialized_memory='nan'
)
BLOCKS = kernel.BlockSizes(t=128)
STARTS = T5Bias(heads=1).starts()


def inputs(batch, length, heads, width, kinds, dtype=jnp.float32, seed=0):
  """Arrays that are trained, segments, and weights of the results; kinds name biases."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
  q, k, v = (draw(batch, length, heads, width) for _ in range(3))
  wide = lambda *shape: draw(*shape).astype(jnp.float32)  # parameters stay float32
  table = wide(heads, len(STARTS)) if 'table' in kinds else None
  vectors = wide(kinds['vectors'] + 1, width) if 'vectors' in kinds else None
  segments = jnp.asarray(rng.integers(1, 3, (batch, length)).cumsum(axis=1) // 60, jnp.int32)
  return (q, k, v, table, vectors), segments, draw(batch, length, heads, width)


def run(implementation, arrays, segments, weight, **options):
  starts = () if arrays[3] is None else STARTS

  def call(q, k, v, table, vectors):
    return kernel.causal_attention(
      q, k, v, segments, table=table, vectors=vectors, starts=starts,
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


TABLE, VECTORS = {'table': True}, {'vectors': 128}


@pytest.mark.parametrize(
  ('shape', 'kinds', 'dtype', 'tile'),
  [
    ((1, 1, 1, 8), TABLE, jnp.float32, 128),
    ((2, 130, 2, 16), TABLE, jnp.float32, 128),
    ((2, 130, 2, 16), TABLE, jnp.bfloat16, 128),
    ((1, 256, 1, 8), {}, jnp.float32, 128),
    ((2, 1, 1, 8), {'vectors': 0}, jnp.float32, 128),
    ((2, 390, 2, 16), VECTORS, jnp.float32, 128),  # the last tile and the first are out of reach
    ((2, 390, 2, 16), VECTORS, jnp.bfloat16, 256),
    ((1, 600, 1, 8), {'vectors': 130}, jnp.float32, 256),  # windows of three blocks
    ((1, 130, 2, 8), TABLE | {'vectors': 5}, jnp.float32, 128),
  ],
)
def test_equals_the_reference_forward_and_backward(shape, kinds, dtype, tile):
  arrays, segments, weight = inputs(*shape, kinds, dtype)
  wide = jax.tree.map(lambda x: x.astype(jnp.float32), (arrays, weight))
  expected = run('reference', wide[0], segments, wide[1])
  blocks = kernel.BlockSizes(tile)
  found = run('pallas', arrays, segments, weight, blocks=blocks, interpret=True)
  assert found[0].dtype == dtype
  assert_same(found, expected, dtype)


@pytest.mark.parametrize(
  ('shape', 'kinds', 'dtype'),
  [
    ((1, 1, 1, 8), TABLE, jnp.float32),
    ((2, 130, 2, 16), TABLE, jnp.float32),
    ((2, 130, 2, 16), TABLE, jnp.bfloat16),
    ((1, 192, 1, 8), {}, jnp.float32),
    ((2, 1, 1, 8), {'vectors': 0}, jnp.float32),
    ((2, 64, 2, 16), VECTORS, jnp.float32),  # a strip is a text
    ((2, 330, 2, 16), VECTORS, jnp.float32),  # the last tiles are out of reach of the first
    ((2, 330, 2, 16), VECTORS, jnp.bfloat16),
    ((1, 330, 1, 8), {'vectors': 130}, jnp.float32),
    ((1, 130, 2, 8), TABLE | {'vectors': 5}, jnp.float32),
  ],
)
def test_gpu_kernels_equal_the_reference_forward_and_backward(shape, kinds, dtype):
  arrays, segments, weight = inputs(*shape, kinds, dtype)
  wide = jax.tree.map(lambda x: x.astype(jnp.float32), (arrays, weight))
  expected = run('reference', wide[0], segments, wide[1])
  found = run('triton', arrays, segments, weight, interpret=True)
  assert found[0].dtype == dtype
  assert_same(found, expected, dtype)


@pytest.mark.parametrize('name', ['pallas', 'triton'])
@pytest.mark.parametrize('kinds', [{}, TABLE | {'vectors': 5}], ids=str)
def test_heads_that_share_keys_see_them_as_if_they_were_repeated(name, kinds):
  (q, k, v, *biases), segments, weight = inputs(2, 190, 4, 8, kinds)
  k, v = k[:, :, :2], v[:, :, :2]
  expected = run('reference', (q, k, v, *biases), segments, weight)
  found = run(name, (q, k, v, *biases), segments, weight, interpret=True)
  assert_same(found, expected, jnp.float32)
  repeated = [jnp.repeat(x, 2, axis=2) for x in (k, v)]
  np.testing.assert_allclose(
    expected[0], run('reference', (q, *repeated, *biases), segments, weight)[0], atol=1e-6
  )


@pytest.mark.parametrize('kinds', [TABLE, VECTORS], ids=str)
def test_has_no_races_and_reads_no_unwritten_memory(kinds):
  arrays, segments, weight = inputs(1, 140, 1, 8, kinds)
  found = run('pallas', arrays, segments, weight, blocks=BLOCKS, interpret=STRICT)
  assert_same(found, run('xla', arrays, segments, weight), jnp.float32)


@pytest.mark.parametrize('name', ['pallas', 'triton'])
def test_scores_of_any_size_stay_finite(name):
  (q, k, v, *_), segments, _ = inputs(1, 140, 1, 8, {})
  call = functools.partial(kernel.causal_attention, implementation=name, interpret=True)
  found = jax.jit(lambda q: call(q, k, v, segments))(1e4 * q)
  np.testing.assert_allclose(
    found, kernel.causal_attention_reference(1e4 * q, k, v, segments), atol=1e-3
  )


def test_a_row_by_distance_and_its_tile_are_each_others_transpose():
  rng = np.random.default_rng(0)
  row, tile = rng.normal(size=(1, 256)), rng.normal(size=(128, 128))
  row, tile = row.astype(np.float32), tile.astype(np.float32)
  spread, folded = jax.jit(distances.spread)(row), jax.jit(distances.folded)(tile)
  key, query = np.indices((128, 128))
  assert (spread == row[0][128 + query - key]).all()
  expected = np.bincount((128 + query - key).ravel(), tile.ravel(), minlength=256)
  np.testing.assert_allclose(folded[0], expected, atol=1e-4)


def test_columns_move_down_by_their_number_and_up_again():
  window = np.random.default_rng(0).normal(size=(384, 128)).astype(np.float32)
  down = jax.jit(distances.slanted)(window)
  row, column = np.indices(window.shape)
  assert (down == window[(row - column) % 384, column]).all()
  assert (jax.jit(functools.partial(distances.slanted, back=True))(down) == window).all()


@pytest.mark.parametrize('kinds', [{}, TABLE, VECTORS], ids=str)
def test_lowers_for_tpu_at_papers_shapes(kinds):
  # 113M compressed-text model: T 512, 12 heads of 64; B 64 of 256.
  shapes = [jax.ShapeDtypeStruct((64, 512, 12, 64), jnp.bfloat16)] * 3
  shapes += [jax.ShapeDtypeStruct((64, 512), jnp.int32)]
  shapes += [jax.ShapeDtypeStruct((12, 32), jnp.float32) if 'table' in kinds else None]
  shapes += [jax.ShapeDtypeStruct((129, 64), jnp.float32) if 'vectors' in kinds else None]
  by = (0, 1, 2, 4, 5)
  call = functools.partial(kernel.pallas, starts=STARTS if 'table' in kinds else ())
  step = jax.jit(jax.grad(lambda *of: call(*of).astype(jnp.float32).sum(), argnums=by))
  module = jax.export.export(step, platforms=['tpu'])(*shapes).mlir_module()
  assert module.count('tpu_custom_call') == 3  # forward, by queries, by keys and values


@pytest.mark.parametrize('kinds', [{}, TABLE, VECTORS], ids=str)
def test_lowers_for_gpu_at_papers_shapes(kinds):
  arrays = [jax.ShapeDtypeStruct((64, 512, 12, 64), jnp.bfloat16)] * 3
  segments = jax.ShapeDtypeStruct((64, 512), jnp.int32)
  table = jax.ShapeDtypeStruct((12, 32), jnp.float32) if 'table' in kinds else None
  vectors = jax.ShapeDtypeStruct((129, 64), jnp.float32) if 'vectors' in kinds else None
  call = functools.partial(kernel.triton, starts=STARTS if 'table' in kinds else ())
  step = jax.grad(lambda *of: call(*of).astype(jnp.float32).sum(), argnums=(0, 1, 2))
  text = absent.lowered_for_gpu(step, *arrays, segments, table, vectors)
  assert text.count('custom_call @__gpu$xla.gpu.triton') == 3


@pytest.mark.parametrize(
  ('position', 'sizes', 'name'),
  [
    ('t5', {'data': 2, 'tensor': 4}, 'pallas'),
    ('t5', {'data': 4, 'tensor': 2}, 'triton'),
    ('relative', {'fsdp': 4, 'tensor': 2}, 'pallas'),
    ('relative', {'fsdp': 2, 'tensor': 4}, 'triton'),
  ],
)
def test_decoder_with_the_kernel_is_the_decoder(monkeypatch, position, sizes, name):
  decoder = Decoder(layers=2, dim=16, heads=2, mlp_dim=8, position=position, max_distance=20)
  rng = np.random.default_rng(0)
  x = rng.normal(size=(4, 40, 16)).astype(np.float32)
  segments = np.sort(rng.integers(1, 4, (4, 40)))
  variables = jax.jit(decoder.init)(jax.random.key(0), x, segments, segments)
  loss = lambda variables, x: jnp.sin(decoder.apply(variables, x, segments, segments)[0]).sum()
  expected = jax.jit(jax.grad(loss, argnums=(0, 1)))(variables, x)
  monkeypatch.setattr('lib.models.decoder.preferred', lambda width, dtype: name)
  monkeypatch.setattr(kernel, 'preferred', lambda width, dtype: name)
  monkeypatch.setattr(
    'lib.models.packed_attention.causal_attention',
    functools.partial(kernel.causal_attention, interpret=True),
  )
  with jax.set_mesh(sharding.make_mesh(sizes)):
    step = jax.jit(jax.grad(loss, argnums=(0, 1)))
    assert 'pallas_call' in str(jax.make_jaxpr(step)(variables, x))
    found = step(variables, x)
  assert_same(found, expected, jnp.float32)


def test_texts_that_do_not_divide_among_devices_are_the_same_on_all(monkeypatch):
  monkeypatch.setattr(kernel, 'preferred', lambda width, dtype: 'triton')
  monkeypatch.setattr(
    'lib.models.packed_attention.causal_attention',
    functools.partial(kernel.causal_attention, interpret=True),
  )
  (q, k, v, *_), segments, _ = inputs(1, 70, 2, 8, {})
  expected = kernel.causal_attention_reference(q, k, v, segments)
  with jax.set_mesh(sharding.make_mesh({'data': 4}, jax.devices()[:4])):
    found = jax.jit(lambda *of: packed_attention(*of, None, None, ()))(q, k, v, segments)
  assert_same(found, expected, jnp.float32)


def test_bad_requests_are_refused_with_a_sentence():
  (q, k, v, table, vectors), segments, _ = inputs(1, 4, 2, 8, TABLE | VECTORS)
  call = functools.partial(kernel.causal_attention, q, k, v, segments)
  for options, message in (
    ({'implementation': 'flash'}, "no implementation 'flash'"),
    ({'implementation': 'pallas'}, 'runs on a TPU, not on cpu'),
    ({'implementation': 'triton'}, 'runs on a GPU, not on cpu'),
    ({'table': table, 'starts': STARTS[1:]}, 'starts of 31 buckets do not fit a table of 32'),
    ({'table': table, 'starts': STARTS[::-1]}, 'rise from 0'),
    ({'vectors': vectors[:, 1:]}, r'vectors \[129, 7\] do not fit queries of width 8'),
  ):
    with pytest.raises(ValueError, match=message):
      call(**options)
  with pytest.raises(ValueError, match='float32 or bfloat16'):
    kernel.causal_attention(
      *(x.astype(jnp.float16) for x in (q, k, v)), segments, implementation='pallas', interpret=True
    )
  for size in (64, 384):
    with pytest.raises(ValueError, match='power of two, at least 128'):
      kernel.BlockSizes(size)
  long, big = jnp.zeros((1, 2048, 1, 64)), kernel.BlockSizes(2048)
  with pytest.raises(ValueError, match=r'2048 tokens at width 64 take .* vector memory'):
    kernel.pallas(long, long, long, jnp.zeros((1, 2048), jnp.int32), blocks=big)
  # What no one asks for fits by itself.
  fitting = kernel.BlockSizes.fitting
  sizes = [(512, 128, 4), (512, 256, 4), (257, 64, 2), (256, 64, 2), (130, 64, 2), (128, 64, 2)]
  assert [fitting(*size).t for size in sizes] == [512, 256, 512, 256, 256, 128]
