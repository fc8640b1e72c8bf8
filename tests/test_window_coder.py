# SPDX-License-Identifier: Apache-2.0
"""The window coder in 32 bits: the Python coder's integers, on every input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from jax.experimental.pallas import tpu as pltpu

from lib.tokenizers.coding import arithmetic, tabulate
from pallas_kernels import window_coder as kernel

STRICT = pltpu.InterpretParams(
  detect_races=True, out_of_bounds_reads='raise', uninitialized_memory='nan'
)
N = 6  # streams
floats = st.floats(0, width=32, allow_nan=False, allow_infinity=False)


@functools.partial(jax.jit, static_argnums=(3, 4))
def step(probabilities, symbols, intervals, window, options=()):
  return kernel.window_coder(probabilities, symbols, intervals, window, **dict(options))


def rows(kind, rng, symbols=256):
  """Probabilities of many kinds: flat, steep, of few symbols, with ties, tiny, any bits at all."""
  x = rng.normal(size=(N, symbols))
  found = {
    'flat': np.exp(x / 4),
    'steep': np.exp(4 * x),
    'ties': rng.integers(0, 3, (N, symbols)),
    'few': np.exp(8 * x) * (rng.random((N, symbols)) < 0.02),
    'tiny': np.exp(x) * 1e-39,
    'bits': rng.integers(0, 0x7F800000, (N, symbols)).astype(np.int32).view(np.float32),
  }[kind].astype(np.float32)
  found[:, 7] += found.max(axis=1) == 0
  return found


KINDS = ('flat', 'steep', 'ties', 'few', 'tiny', 'bits')


@settings(max_examples=150, deadline=None)
@given(arrays.arrays(np.float32, (N, 5), elements=floats))
def test_integers_are_those_of_the_python_quantiser_on_any_floats(probabilities):
  probabilities[:, 2] += probabilities.max(axis=1) == 0
  _, _, stops = step(probabilities, np.zeros(N, np.int32), kernel.fresh(N), 16)
  assert (stops == arithmetic.quantise(probabilities)[:, 1:]).all()


@pytest.mark.parametrize('window', [16, 32, 128])
@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_greedy_windows_are_those_of_the_python_coder(window, kinds, seed):
  rng = np.random.default_rng(seed)
  lanes, out = arithmetic.lanes(N), np.zeros((N, 400), np.uint8)
  intervals = kernel.fresh(N)
  for kind in kinds:
    probabilities = rows(kind, rng)
    symbols = rng.integers(0, 256, N).astype(np.int32)
    if rng.random() < 0.5:
      symbols = probabilities.argmax(axis=1).astype(np.int32)
    before = kernel.Intervals(*map(np.asarray, intervals))
    fits, intervals, stops = step(probabilities, symbols, before, window)
    cumulative = arithmetic.quantise(probabilities)
    assert (stops == cumulative[:, 1:]).all()
    for i in range(N):
      start, stop = (int(cumulative[i, symbols[i] + k]) for k in (0, 1))
      ends = int(lanes[i]['low']), int(lanes[i]['width'])
      shift = 32 + int(lanes[i]['bits']) - window
      assert fits[i] == tabulate.fits(*arithmetic.narrow(*ends, start, stop, 14), shift)
      arithmetic.push(lanes[i], out[i], start, stop)
    assert (intervals.low == lanes['low'] & 0xFFFFFFFF).all()
    assert (np.asarray(intervals.width).astype(np.int64) + arithmetic.UNIT == lanes['width']).all()
    assert (intervals.bits == lanes['bits']).all()
    # What does not fit begins anew.
    lanes[~np.asarray(fits)], out[~np.asarray(fits)] = arithmetic.lanes(1)[0], 0
    intervals = jax.tree.map(lambda x, new: np.where(fits, x, new), intervals, kernel.fresh(N))


@pytest.mark.parametrize('interpret', [True, STRICT], ids=['plain', 'strict'])
def test_kernel_gives_the_integers_of_the_reference(interpret):
  rng = np.random.default_rng(0)
  probabilities = np.concatenate([rows(kind, rng, 200) for kind in KINDS])[:35]
  symbols = rng.integers(0, 200, 35).astype(np.int32)
  begin = kernel.fresh(35)
  options = dict(implementation='pallas', interpret=interpret, blocks=kernel.BlockSizes(16))
  _, begin, _ = step(probabilities, symbols, begin, 24)
  expected = step(probabilities, symbols, begin, 24)
  found = kernel.window_coder(probabilities, symbols, begin, 24, **options)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    assert a.dtype == b.dtype
    assert (a == b).all()
  assert set(np.asarray(expected[0]).tolist()) == {True, False}


def test_lowers_for_tpu():
  shapes = [jax.ShapeDtypeStruct((1000, 256), jnp.float32)]
  dtypes = (jnp.int32, jnp.uint32, jnp.uint32, jnp.int32)
  shapes += [jax.ShapeDtypeStruct((1000, 1), dtype) for dtype in dtypes]
  call = jax.jit(lambda rows, *columns: kernel.pallas(16, rows, columns))
  module = jax.export.export(call, platforms=['tpu'])(*shapes).mlir_module()
  assert module.count('tpu_custom_call') == 1


def test_bad_requests_are_refused_with_a_sentence():
  good = np.ones((N, 256), np.float32), np.zeros(N, np.int32), kernel.fresh(N), 16
  for options, message in (
    ({'implementation': 'fast'}, "no implementation 'fast'"),
    ({'implementation': 'pallas'}, 'runs on a TPU, not on cpu'),
    (
      {'implementation': 'pallas', 'interpret': True, 'blocks': kernel.BlockSizes(2**13)},
      'vector memory',
    ),
  ):
    with pytest.raises(ValueError, match=message):
      kernel.window_coder(*good, **options)
  with pytest.raises(ValueError, match='multiple of 8'):
    kernel.BlockSizes(12)
  with pytest.raises(ValueError, match='at most 256 symbols'):
    kernel.window_coder(np.ones((N, 300), np.float32), *good[1:])
