# SPDX-License-Identifier: Apache-2.0
"""The fused LM head: every implementation against the reference, and lowering for TPU."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import NamedSharding, PartitionSpec

from lib.parallel import sharding
from pallas_kernels import linear_cross_entropy as kernel
from pallas_kernels import linear_cross_entropy_triton
from tests.helpers import absent

STRICT = pltpu.InterpretParams(
  detect_races=True, out_of_bounds_reads='raise', uninitialized_memory='nan'
)
BLOCKS = kernel.BlockSizes(n=128, v=128)


def inputs(positions, dim, vocab_size, dtype=jnp.float32, seed=0):
  keys = jax.random.split(jax.random.key(seed), 4)
  targets = jax.random.randint(keys[3], (positions,), 0, vocab_size)
  return (
    jax.random.normal(keys[0], (positions, dim)).astype(dtype),
    jax.random.normal(keys[1], (vocab_size, dim)).astype(dtype),
    jax.random.normal(keys[2], (vocab_size,)),
    targets.at[::5].set(-1) if positions > 1 else targets,  # some are ignored
  )


@functools.partial(
  jax.jit, static_argnames=('implementation', 'call', 'uneven', 'blocks', 'interpret')
)
def loss_and_slopes(
  implementation,
  hidden,
  table,
  bias,
  targets,
  call=kernel.linear_cross_entropy,
  uneven=True,
  **options,
):
  weights = jnp.ones(targets.shape)
  if uneven:  # some negative
    weights = jnp.cos(jnp.arange(targets.size)).reshape(targets.shape)

  def loss(hidden, table, bias):
    nats, penalties = call(
      hidden, table, targets, bias=bias, z_loss=0.1, implementation=implementation, **options
    )
    return (weights * nats + weights**2 * penalties).sum(), (nats, penalties)

  (_, values), slopes = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(
    hidden, table, bias
  )
  return *values, *slopes


def assert_same(found, expected, dtype):
  # float32: sums in another order; bfloat16: the slopes are rounded to it before the products.
  tolerance = {jnp.float32: 2e-5, jnp.bfloat16: 3e-2}[dtype]
  for a, b in zip(found, expected, strict=True):
    assert a.dtype == b.dtype
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    assert np.abs(a - b).max() <= tolerance * max(1, np.abs(b).max())


def test_the_reference_is_the_log_softmax_with_its_gradient():
  hidden, table, bias, targets = inputs(7, 5, 11)
  nats, squares = kernel.linear_cross_entropy(hidden, table, targets, bias=bias, z_loss=1.0)
  logits = np.asarray(hidden, np.float64) @ np.asarray(table, np.float64).T + np.asarray(bias)
  expected = np.log(np.exp(logits).sum(1))
  real = np.asarray(targets) >= 0
  np.testing.assert_allclose(squares, np.where(real, expected**2, 0), rtol=1e-5)
  picked = logits[np.arange(7), np.asarray(targets)]
  np.testing.assert_allclose(nats, np.where(real, expected - picked, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ('shape', 'dtype'),
  [
    ((133, 17, 300), jnp.float32),
    ((133, 17, 300), jnp.bfloat16),
    ((1, 3, 7), jnp.float32),
    ((128, 64, 129), jnp.float32),
  ],
)
@pytest.mark.parametrize('implementation', ['chunked', 'pallas', 'triton'])
def test_equals_the_reference_forward_and_backward(monkeypatch, implementation, shape, dtype):
  monkeypatch.setattr(kernel, 'CHUNK', 128)
  monkeypatch.setattr(linear_cross_entropy_triton, 'POSITIONS', 128)  # at a time
  monkeypatch.setattr(linear_cross_entropy_triton, 'IDS', 128)
  options = {} if implementation == 'chunked' else dict(blocks=BLOCKS, interpret=True)
  arrays = inputs(*shape, dtype)
  for uneven in (True, False):
    found = loss_and_slopes(implementation, *arrays, uneven=uneven, **options)
    assert_same(found, loss_and_slopes('reference', *arrays, uneven=uneven), dtype)


def test_has_no_races_and_reads_no_unwritten_memory():
  arrays = inputs(133, 17, 300)
  found = loss_and_slopes('pallas', *arrays, blocks=BLOCKS, interpret=STRICT)
  assert_same(found, loss_and_slopes('reference', *arrays), jnp.float32)


@pytest.mark.parametrize(
  ('implementation', 'options'),
  [
    ('reference', {}),
    ('chunked', {}),
    ('pallas', dict(blocks=BLOCKS, interpret=True)),
    ('triton', dict(interpret=True)),
  ],
  ids=str,
)
def test_a_vocabulary_in_shards_equals_the_whole(implementation, options):
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 1, 'tensor': 4})
  hidden, table, bias, targets = inputs(24, 17, 44)
  hidden, targets = hidden.reshape(4, 6, 17), targets.reshape(4, 6)
  expected = loss_and_slopes('reference', hidden, table, bias, targets)
  place = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
  call = functools.partial(
    kernel.sharded_linear_cross_entropy, axis='tensor', batch_axes=('data', 'fsdp')
  )
  with jax.set_mesh(mesh):
    found = loss_and_slopes(
      implementation,
      place(hidden, 'data'),
      place(table, 'tensor'),
      place(bias, 'tensor'),
      place(targets, 'data'),
      call=call,
      **options,
    )
  assert_same(found, expected, jnp.float32)


def test_shards_exchange_no_logits():
  mesh = sharding.make_mesh({'data': 1, 'fsdp': 1, 'tensor': 8})
  shape = lambda of, dtype, *spec: jax.ShapeDtypeStruct(
    of, dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec))
  )
  count, size = 64, 8192
  call = functools.partial(kernel.sharded_linear_cross_entropy, axis='tensor')
  with jax.set_mesh(mesh):
    compiled = loss_and_slopes.lower(
      'chunked',
      shape((count, 16), jnp.float32),
      shape((size, 16), jnp.float32, 'tensor'),
      shape((size,), jnp.float32, 'tensor'),
      shape((count,), jnp.int32),
      call=call,
    ).compile()
  text = compiled.as_text()
  assert 'all-reduce' in text
  assert 'all-gather' not in text
  assert 'all-to-all' not in text


@pytest.mark.parametrize('implementation', ['pallas', 'triton'])
def test_large_logits_do_not_overflow(implementation):
  hidden, table, bias, targets = inputs(16, 8, 256)
  arrays = (100 * hidden, table, bias, targets)
  nats, penalties = loss_and_slopes(implementation, *arrays, blocks=BLOCKS, interpret=True)[:2]
  assert np.isfinite(nats).all()
  expected = loss_and_slopes('reference', *arrays)
  np.testing.assert_allclose(nats, expected[0], rtol=1e-5, atol=1e-3)
  np.testing.assert_allclose(penalties, expected[1], rtol=1e-5)


@pytest.mark.parametrize('implementation', ['reference', 'chunked', 'triton'])
def test_an_id_past_the_vocabulary_is_no_number(implementation):
  hidden, table, _, _ = inputs(3, 8, 16)
  targets = jnp.array([2, 16, -3])
  for found in kernel.linear_cross_entropy(
    hidden, table, targets, z_loss=1.0, implementation=implementation, interpret=True
  ):
    assert np.isnan(found).tolist() == [False, True, False]
    assert found[2] == 0


@pytest.mark.parametrize('implementation', ['chunked', 'triton'])
def test_a_batch_without_targets_has_no_gradient(implementation):
  hidden, table, bias, targets = inputs(20, 8, 16)
  arrays = (hidden, table, bias, jnp.full_like(targets, -1))
  for uneven in (False, True):
    for found in loss_and_slopes(implementation, *arrays, uneven=uneven, interpret=True):
      assert (np.asarray(found) == 0).all()


def test_without_gradients_the_loss_is_the_same():
  arrays = inputs(133, 17, 300)
  call = lambda implementation: kernel.linear_cross_entropy(
    *arrays[:2], arrays[3], bias=arrays[2], z_loss=0.1, implementation=implementation,
    interpret=True,
  )  # fmt: skip
  assert_same(call('triton'), call('reference'), jnp.float32)


@pytest.mark.parametrize('vocab_size', [65_536, 32_000])
def test_default_does_not_hold_large_logits(vocab_size):
  # 8,192 positions: 2 GiB of logits or 1, which the compiled default must not need.
  shapes = [
    jax.ShapeDtypeStruct((8192, 16), jnp.float32),
    jax.ShapeDtypeStruct((vocab_size, 16), jnp.float32),
    jax.ShapeDtypeStruct((vocab_size,), jnp.float32),
    jax.ShapeDtypeStruct((8192,), jnp.int32),
  ]
  memory = lambda implementation: (
    loss_and_slopes.lower(implementation, *shapes).compile().memory_analysis().temp_size_in_bytes
  )
  assert memory('reference') >= 4 * 8192 * vocab_size
  assert memory(None) <= memory('reference') / 8


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_lowers_for_tpu_at_papers_shapes(dtype):
  # 113M compressed-text model: B 256 × T 512, D 768, V 65,536.
  shapes = [
    jax.ShapeDtypeStruct((131_072, 768), dtype),
    jax.ShapeDtypeStruct((65_536, 768), dtype),
    jax.ShapeDtypeStruct((65_536,), jnp.float32),
    jax.ShapeDtypeStruct((131_072,), jnp.int32),
  ]
  step = jax.grad(lambda *of: sum(x.sum() for x in kernel.pallas(*of)), argnums=(0, 1, 2))
  module = jax.export.export(jax.jit(step), platforms=['tpu'])(*shapes).mlir_module()
  assert module.count('tpu_custom_call') == 3  # forward, by hidden, by table


def test_lowers_for_gpu_at_papers_shapes():
  shapes = [
    jax.ShapeDtypeStruct((131_072, 768), jnp.bfloat16),
    jax.ShapeDtypeStruct((65_536, 768), jnp.bfloat16),
    jax.ShapeDtypeStruct((65_536,), jnp.float32),
    jax.ShapeDtypeStruct((131_072,), jnp.int32),
  ]
  loss = functools.partial(linear_cross_entropy_triton.loss, False, 1e-4)
  whole = jax.value_and_grad(lambda *of: sum(x.sum() for x in loss(*of)), argnums=(0, 1, 2))
  parts = jax.value_and_grad(lambda *of: sum(x.sum() for x in kernel.triton(*of)))
  # Once for sums and exponentials, and for slopes if not all positions weigh the same.
  for step in (whole, parts):
    text = absent.lowered_for_gpu(step, *shapes)
    assert text.count('custom_call @__gpu$xla.gpu.triton') == 2


def test_a_mean_needs_three_products_on_a_gpu(monkeypatch):
  """Logits, and two with the slopes; without a trained table two."""
  monkeypatch.setattr(linear_cross_entropy_triton, 'backward', lambda _, *of: of[:3])
  shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs(8192, 64, 512, jnp.bfloat16)]
  loss = functools.partial(linear_cross_entropy_triton.loss, False, 0.0)

  def products(trained):
    step = jax.grad(lambda *of: loss(*of)[0].mean(), argnums=trained)
    text = absent.lowered_for_gpu(step, *shapes)
    assert text.count('custom_call @__gpu$xla.gpu.triton') == 1
    return len(re.findall(r'stablehlo.dot_general.*x64xf32', text))

  assert products((0, 1, 2)) == 2
  assert products((0,)) == 1


def test_bad_requests_are_refused_with_a_sentence():
  hidden, table, bias, targets = inputs(4, 8, 16)
  with pytest.raises(ValueError, match="no implementation 'fast'"):
    kernel.linear_cross_entropy(hidden, table, targets, implementation='fast')
  with pytest.raises(ValueError, match='runs on a TPU, not on cpu'):
    kernel.linear_cross_entropy(hidden, table, targets, implementation='pallas')
  with pytest.raises(ValueError, match="'triton' runs on a GPU, not on cpu"):
    kernel.linear_cross_entropy(hidden, table, targets, implementation='triton')
  with pytest.raises(ValueError, match='100 × 128: both must be multiples of 128'):
    kernel.BlockSizes(n=100, v=128)
  wide = jnp.zeros((4, 1024), jnp.bfloat16)
  with pytest.raises(ValueError, match=r'2048 × 4096 at width 1024 take .* vector memory'):
    kernel.pallas(wide, wide, bias[:4], targets, blocks=kernel.BlockSizes(n=2048, v=4096))
  # What no one asks for fits by itself.
  assert kernel.BlockSizes.fitting(768, 2) == kernel.BlockSizes(512, 512)
  assert kernel.BlockSizes.fitting(2048, 2) == kernel.BlockSizes(256, 256)
