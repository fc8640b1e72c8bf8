# SPDX-License-Identifier: Apache-2.0
"""Rows of packed pictures: the bits that went in, whatever the backend, and lowering for TPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels import glyph_rows as kernel

STRICT = pltpu.InterpretParams(
  detect_races=True, out_of_bounds_reads='raise', uninitialized_memory='nan'
)


def inputs(tokens, pixels, ids, seed=0):
  rng = np.random.default_rng(seed)
  pictures = rng.integers(0, 2, (tokens, pixels))
  mean, scales = rng.random(pixels, np.float32), rng.random(tokens, np.float32)
  wanted = jnp.asarray(rng.integers(0, tokens, ids), jnp.int32)
  packed = kernel.pack(pictures)
  rows = (pictures.astype(np.float32) - mean) * scales[:, None]
  return rows, (wanted, jnp.asarray(packed), jnp.asarray(mean), jnp.asarray(scales))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, kernel.LARGEST), st.integers(0, 2**32 - 1))
def test_every_bit_comes_back(tokens, pixels, seed):
  pictures = np.random.default_rng(seed).integers(0, 2, (tokens, pixels))
  packed = kernel.pack(pictures)
  each = 32 // kernel.planes(pixels)
  assert packed.shape == (-(-tokens // each), 1, 128)
  token, pixel = seed % tokens, seed % pixels
  plane, lane = divmod(pixel, 128)
  word = int(packed[token // each, 0, lane])
  assert word >> (token % each * kernel.planes(pixels) + plane) & 1 == pictures[token, pixel]


@pytest.mark.parametrize(
  ('shape', 'options'),
  [
    ((40, 256, 150), dict(implementation='reference')),
    ((40, 256, 150), dict(implementation='pallas', interpret=True)),
    ((3, 1100, 1), dict(implementation='pallas', interpret=True)),
    ((9, 1024, 5), dict(implementation='pallas', interpret=STRICT)),
  ],
)
def test_rows_are_the_float_tables(shape, options):
  rows, arrays = inputs(*shape)
  for dtype in (jnp.float32, jnp.bfloat16):
    found = jax.jit(lambda *of: kernel.glyph_rows(*of, dtype=dtype, **options))(*arrays)
    assert found.dtype == dtype
    assert (found == rows[np.asarray(arrays[0])].astype(dtype)).all()
    if options.get('interpret') is STRICT:
      break


def test_shape_of_ids_is_kept_and_none_is_the_fastest_that_runs():
  rows, (ids, *arrays) = inputs(40, 256, 6)
  found = kernel.glyph_rows(ids.reshape(2, 3), *arrays)
  assert (np.asarray(found) == rows[np.asarray(ids)].reshape(2, 3, 256)).all()


@pytest.mark.parametrize('pixels', [256, 1024])
def test_lowers_for_tpu_and_holds_bits_alone(pixels):
  vocab, count = 65_536, 131_072
  rows = vocab * kernel.planes(pixels) // 32
  shapes = [
    jax.ShapeDtypeStruct((count,), jnp.int32),
    jax.ShapeDtypeStruct((rows, 1, 128), jnp.int32),
    jax.ShapeDtypeStruct((pixels,), jnp.float32),
    jax.ShapeDtypeStruct((vocab,), jnp.float32),
  ]
  assert 4 * 128 * rows == vocab * pixels // 8
  call = jax.jit(lambda *of: kernel.pallas(*of, jnp.bfloat16))
  module = jax.export.export(call, platforms=['tpu'])(*shapes).mlir_module()
  assert module.count('tpu_custom_call') == 1


def test_bad_requests_are_refused_with_a_sentence():
  _, arrays = inputs(3, 20, 4)
  for options, message in (
    ({'implementation': 'fast'}, "no implementation 'fast'"),
    ({'implementation': 'pallas'}, 'runs on a TPU, not on cpu'),
    (
      {'implementation': 'pallas', 'interpret': True, 'blocks': kernel.BlockSizes(2**17)},
      'vector memory',
    ),
  ):
    with pytest.raises(ValueError, match=message):
      kernel.glyph_rows(*arrays, **options)
  with pytest.raises(ValueError, match='multiple of 128'):
    kernel.BlockSizes(100)
  with pytest.raises(ValueError, match='1 to 4096'):
    kernel.pack(np.zeros((2, 4097)))
