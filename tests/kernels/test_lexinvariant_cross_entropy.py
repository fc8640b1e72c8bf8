# SPDX-License-Identifier: Apache-2.0
"""Random rows computed in place, and the loss over them, against arrays of the same rows."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels import lexinvariant_cross_entropy as kernel
from pallas_kernels.random_rows import random_rows, random_tile

STRICT = pltpu.InterpretParams(
  detect_races=True, out_of_bounds_reads='raise', uninitialized_memory='nan'
)
BLOCKS = kernel.BlockSizes(t=128, v=256)
SEEDS = jax.random.bits(jax.random.key(9), (3, 2), jnp.uint32)


def hash_by_hand(cell, seed):
  def mix(x):
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ x >> 16

  return mix((mix(cell ^ seed[0]) + seed[1]) % 2**32)


def test_entries_are_points_in_the_plane_from_the_hash():
  ids, seed, dim = [0, 1, 7, 8, 255, 256, 31_999], [int(word) for word in SEEDS[0]], 6
  rows = np.asarray(random_rows(SEEDS[:1], np.array(ids), dim))
  unit = lambda bits: ((bits % 2**32 >> 8) + 0.5) / 2**24
  for i, v in enumerate(ids):
    for d in range(dim // 2):
      bits = hash_by_hand(v * dim + d + dim // 2, seed)
      radius = math.sqrt(-2 * math.log(unit(hash_by_hand(v * dim + d, seed))))
      angle = (unit(bits << 2) - 0.5) * math.pi / 2
      point = [math.cos(angle), math.sin(angle)][:: -1 if bits >> 30 & 1 else 1]
      expected = [radius * (-1 if bits >> 31 else 1) * x for x in point]
      np.testing.assert_allclose(rows[i, [d, d + dim // 2]], expected, rtol=1e-5, atol=1e-6)


def test_entries_are_independent_of_mean_zero_and_variance_one():
  rows = np.asarray(random_rows(SEEDS[:, None], np.arange(2048)[None], 64), np.float64)
  count = rows.size
  assert abs(rows.mean()) < 4 * count**-0.5
  assert abs((rows**2).mean() - 1) < 4 * 2**0.5 * count**-0.5
  assert abs((rows**4).mean() - 3) < 4 * 96**0.5 * count**-0.5
  # Inner products of neighbouring rows, of rows a word apart, of columns and of sequences.
  for a, b in [
    (rows[:, 1:], rows[:, :-1]),
    (rows[:, 8:], rows[:, :-8]),
    (rows[:, 256:], rows[:, :-256]),
    (rows[..., 1:], rows[..., :-1]),
    (rows[..., 32:], rows[..., :32]),
    (rows[1:], rows[:-1]),
  ]:
    assert abs((a * b).mean()) < 4 * a.size**-0.5
    assert abs((a**2 * b**2).mean() - 1) < 4 * 8**0.5 * a.size**-0.5


@pytest.mark.parametrize('interpret', [True, STRICT], ids=['plain', 'strict'])
def test_a_kernel_makes_the_rows_that_a_gather_makes(interpret):
  size, dim = 256, 12

  def body(seeds_ref, out_ref):
    seed = (seeds_ref[0, 0], seeds_ref[0, 1])
    out_ref[...] = random_tile(seed, pl.program_id(0) * size, size, dim)

  tile = pl.pallas_call(
    body,
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=1,
      grid=2,
      in_specs=[],
      out_specs=pl.BlockSpec((size, dim), lambda i, seeds: (i, 0)),
    ),
    out_shape=jax.ShapeDtypeStruct((2 * size, dim), jnp.float32),
    interpret=interpret,
  )(SEEDS[:1])
  ids = np.random.default_rng(0).permutation(2 * size)
  rows = jax.jit(functools.partial(random_rows, dim=dim))(SEEDS[:1], ids)
  # The same bits; floats are rounded as each program rounds.
  np.testing.assert_allclose(np.asarray(tile)[ids], rows, rtol=1e-5, atol=1e-6)


def inputs(length, dim, vocab_size, dtype):
  keys = jax.random.split(jax.random.key(0), 2)
  hidden = (jax.random.normal(keys[0], (3, length, dim)) * dim**-0.5).astype(dtype)
  targets = jax.random.randint(keys[1], (3, length), 0, vocab_size)
  return hidden, SEEDS, targets.at[:, ::5].set(-1) if length > 1 else targets


@functools.partial(jax.jit, static_argnames=('implementation', 'vocab_size', 'blocks', 'interpret'))
def loss_and_slope(implementation, hidden, seeds, targets, **options):
  weights = jnp.cos(jnp.arange(targets.size)).reshape(targets.shape)  # uneven, some negative

  def loss(hidden):
    nats, lse = kernel.lexinvariant_cross_entropy(
      hidden, seeds, targets, implementation=implementation, **options
    )
    return (weights * nats + 0.1 * weights**2 * lse**2).sum(), (nats, lse)

  (_, values), slope = jax.value_and_grad(loss, has_aux=True)(hidden)
  return *values, slope


def assert_same(found, expected, dtype):
  # float32: sums in another order; bfloat16: the slopes are rounded to it before the products.
  tolerance = {jnp.float32: 2e-5, jnp.bfloat16: 3e-2}[dtype]
  for a, b in zip(found, expected, strict=True):
    assert a.dtype == b.dtype
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    assert np.abs(a - b).max() <= tolerance * max(1, np.abs(b).max())


@pytest.mark.parametrize(
  ('implementation', 'shape', 'dtype'),
  [
    ('chunked', (133, 17, 300), jnp.float32),
    ('chunked', (9, 13, 257), jnp.bfloat16),
    ('pallas', (133, 17, 300), jnp.float32),
    ('pallas', (1, 12, 7), jnp.float32),
    ('pallas', (131, 24, 510), jnp.bfloat16),
    ('pallas', (128, 64, 512), jnp.float32),
  ],
)
def test_equals_the_reference_forward_and_backward(monkeypatch, implementation, shape, dtype):
  monkeypatch.setattr(kernel, 'HELD', 0)  # chunks of 128
  options = dict(blocks=BLOCKS, interpret=True) if implementation == 'pallas' else {}
  arrays, given = inputs(*shape, dtype), dict(vocab_size=shape[2])
  found = loss_and_slope(implementation, *arrays, **given, **options)
  assert_same(found, loss_and_slope('reference', *arrays, **given), dtype)


def test_has_no_races_and_reads_no_unwritten_memory():
  arrays, given = inputs(133, 17, 300, jnp.float32), dict(vocab_size=300)
  found = loss_and_slope('pallas', *arrays, **given, blocks=BLOCKS, interpret=STRICT)
  assert_same(found, loss_and_slope('reference', *arrays, **given), jnp.float32)


def test_memory_does_not_grow_with_the_vocabulary():
  def held(implementation, vocab_size):
    shapes = [
      jax.ShapeDtypeStruct((64, 64, 64), jnp.float32),
      jax.ShapeDtypeStruct((64, 2), jnp.uint32),
      jax.ShapeDtypeStruct((64, 64), jnp.int32),
    ]
    given = dict(vocab_size=vocab_size)
    compiled = loss_and_slope.lower(implementation, *shapes, **given).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert held('reference', 32_768) >= 64 * 32_768 * 64 * 4
  assert held(None, 2**17) == pytest.approx(held(None, 2**16), rel=0.01)


def test_lowers_for_tpu_at_the_papers_shape():
  shapes = [
    jax.ShapeDtypeStruct((64, 512, 1024), jnp.bfloat16),
    jax.ShapeDtypeStruct((64, 2), jnp.uint32),
    jax.ShapeDtypeStruct((64, 512), jnp.int32),
  ]
  step = jax.grad(lambda *of: sum(x.sum() for x in kernel.pallas(*of, 32_000)))
  module = jax.export.export(jax.jit(step), platforms=['tpu'])(*shapes).mlir_module()
  assert module.count('tpu_custom_call') == 2  # forward, backward


def test_bad_requests_are_refused_with_a_sentence():
  hidden, seeds, targets = inputs(4, 8, 16, jnp.float32)
  call = functools.partial(kernel.lexinvariant_cross_entropy, hidden, seeds, targets)
  with pytest.raises(ValueError, match='have more than the 2³² entries'):
    call(vocab_size=2**30)
  with pytest.raises(ValueError, match="no implementation 'fast'"):
    call(vocab_size=16, implementation='fast')
  with pytest.raises(ValueError, match='runs on a TPU, not on cpu'):
    call(vocab_size=16, implementation='pallas')
  with pytest.raises(ValueError, match='multiple of 128 and rows of 256'):
    kernel.BlockSizes(v=128)
  wide = jnp.zeros((1, 4, 1024), jnp.bfloat16)
  with pytest.raises(ValueError, match=r'2048 × 1024 at width 1024 take .* vector memory'):
    kernel.pallas(wide, seeds[:1], targets[:1], 16, kernel.BlockSizes(2048, 1024))
  # What no one asks for fits by itself.
  assert kernel.BlockSizes.fitting(512, 1024, 2).t == 512
  assert kernel.BlockSizes.fitting(512, 1024, 4).t == 256
  assert kernel.BlockSizes.fitting(200, 64, 4).t == 256
  assert kernel.BlockSizes.fitting(7, 64, 4).t == 128
