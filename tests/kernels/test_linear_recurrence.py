# SPDX-License-Identifier: Apache-2.0
"""The gated linear recurrence: a loop in numpy, its own closed forms, and each implementation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels import linear_recurrence as kernel
from pallas_kernels.linear_recurrence import linear_recurrence
from tests.helpers import absent

STRICT = pltpu.InterpretParams(
  detect_races=True, out_of_bounds_reads='raise', uninitialized_memory='nan'
)


def arrays(batch, length, dim, dtype=jnp.float32, shared=False):
  keys = jax.random.split(jax.random.key(length), 3)
  gates = jax.nn.sigmoid(2 + jax.random.normal(keys[0], (batch, length, 1 if shared else dim)))
  gates = gates.at[:, 3::7].set(0)  # documents start
  inputs = jax.random.normal(keys[1], (batch, length, dim))
  initial = jax.random.normal(keys[2], (batch, dim))
  return tuple(x.astype(dtype) for x in (gates, inputs, initial))


def loop(gates, inputs, initial):
  states, state = [], np.asarray(initial, np.float64)
  for t in range(inputs.shape[1]):
    state = np.float64(gates[:, t]) * state + np.float64(inputs[:, t])
    states.append(state)
  return np.stack(states, axis=1)


@functools.partial(jax.jit, static_argnames=('implementation', 'interpret'))
def states_and_slopes(implementation, *arrays, **options):
  def total(*arrays):
    states = linear_recurrence(*arrays, implementation=implementation, **options)
    weights = jnp.cos(jnp.arange(states.size)).reshape(states.shape)  # some negative
    return (weights * states).sum(), states

  (_, states), slopes = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(*arrays)
  return states, *slopes


def assert_same(found, expected, like, tolerance):
  for a, b, x in zip(found, expected, like, strict=True):
    assert a.dtype == x.dtype
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert np.abs(a - b).max() <= tolerance * max(1, np.abs(b).max())


@pytest.mark.parametrize('implementation', ['reference', 'chunked'])
def test_equals_a_loop_in_float64(implementation):
  with jax.enable_x64(True):
    given = arrays(2, 37, 3, jnp.float64)
    found = linear_recurrence(*given, implementation=implementation)
    np.testing.assert_allclose(found, loop(*map(np.asarray, given)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
  ('shape', 'shared', 'dtype'),
  [
    ((3, 133, 17), False, jnp.float32),
    ((2, 64, 5), True, jnp.float32),
    ((2, 1, 4), False, jnp.float32),
    ((2, 45, 8), False, jnp.bfloat16),
    ((1, 270, 70), True, jnp.float32),
  ],
)
@pytest.mark.parametrize('implementation', ['chunked', 'pallas', 'triton'])
def test_equals_the_reference_forward_and_backward(
  monkeypatch, implementation, shape, shared, dtype
):
  monkeypatch.setattr(kernel, 'TILE_D', 64)
  given = arrays(*shape, dtype, shared)
  wide = [x.astype(jnp.float32) for x in given]
  emulated = {} if implementation == 'chunked' else {'interpret': True}
  found = states_and_slopes(implementation, *given, **emulated)
  expected = states_and_slopes('reference', *wide)
  tolerance = {jnp.float32: 1e-5, jnp.bfloat16: 2e-2}[dtype]
  assert_same(found, expected, [given[1], *given], tolerance)


def test_arrays_may_differ_in_dtype():
  gates, inputs, initial = arrays(2, 20, 3)
  given = gates, inputs, initial.astype(jnp.bfloat16)
  found = states_and_slopes('chunked', *given)
  assert_same(found[:3], states_and_slopes('reference', *given)[:3], [inputs, *given[:2]], 1e-5)
  assert found[3].dtype == jnp.bfloat16


def test_has_no_races_and_reads_no_unwritten_memory(monkeypatch):
  monkeypatch.setattr(kernel, 'TILE_N', 16)
  monkeypatch.setattr(kernel, 'TILE_D', 16)
  given = arrays(2, 37, 24)
  found = states_and_slopes('pallas', *given, interpret=STRICT)
  assert_same(found, states_and_slopes('reference', *given), [given[1], *given], 1e-5)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('channels', [1, 1536])
def test_lowers_for_tpu_and_gpu_forward_and_backward(channels, dtype):
  shapes = [(4, 1000, channels), (4, 1000, 1536), (4, 1536)]
  shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
  step = lambda way: jax.grad(lambda *of: way(*of).astype(jnp.float32).sum(), argnums=(0, 1, 2))
  module = jax.export.export(jax.jit(step(kernel.pallas)), platforms=['tpu'])(*shapes)
  assert module.mlir_module().count('tpu_custom_call') == 2
  lowered = jax.jit(step(kernel.triton)).trace(*shapes).lower(lowering_platforms=('cuda',))
  assert lowered.as_text().count('__gpu$xla.gpu.triton') == 2


def test_the_backend_and_the_dtypes_choose():
  both = jnp.dtype('float32'), jnp.dtype('bfloat16')
  assert kernel.preferred(*both) == 'chunked'
  with absent.on('tpu'):
    assert kernel.preferred(*both) == 'pallas'
    assert kernel.preferred(*both, jnp.dtype('float64')) == 'chunked'
  with absent.on('gpu'):
    assert kernel.preferred(*both) == 'triton'


def test_a_zero_gate_forgets_all_before_it():
  gates, inputs, _ = arrays(1, 40, 4)
  at = 24  # 3 + 3 · 7
  assert (gates[:, at] == 0).all()
  states = linear_recurrence(gates, inputs)
  apart = linear_recurrence(gates[:, at:], inputs[:, at:])
  np.testing.assert_allclose(states[:, at:], apart, rtol=1e-6, atol=1e-6)
  slope = jax.grad(lambda x: linear_recurrence(gates, x)[:, at:].sum())(inputs)
  assert (slope[:, :at] == 0).all()
  assert (slope[:, at:] != 0).all()


def test_continues_from_its_state_and_ignores_later_inputs():
  gates, inputs, initial = arrays(2, 50, 3)
  states = linear_recurrence(gates, inputs, initial)
  first = linear_recurrence(gates[:, :19], inputs[:, :19], initial)
  second = linear_recurrence(gates[:, 19:], inputs[:, 19:], first[:, -1])
  np.testing.assert_allclose(states, jnp.concatenate([first, second], 1), rtol=1e-5, atol=1e-5)
  slope = jax.grad(lambda x: linear_recurrence(gates, x)[:, 19].sum())(inputs)
  assert (slope[:, 20:] == 0).all()


def test_a_moving_average_of_a_constant_is_known_in_closed_form():
  decay, length = 0.9, 200
  gates = jnp.full((1, length, 1), decay)
  states = linear_recurrence(gates, jnp.full((1, length, 2), 1 - decay))
  expected = 1 - decay ** np.arange(1, length + 1)
  np.testing.assert_allclose(states[0, :, 0], expected, rtol=1e-5)


def test_holds_less_than_the_reference():
  def held(implementation):
    shapes = [jax.ShapeDtypeStruct(x, jnp.float32) for x in ((8, 256, 64), (8, 256, 64), (8, 64))]
    compiled = states_and_slopes.lower(implementation, *shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert held('chunked') < held('reference')


def test_bad_requests_are_refused_with_a_sentence():
  gates, inputs, initial = arrays(2, 4, 3)
  with pytest.raises(ValueError, match="no implementation 'fast'"):
    linear_recurrence(gates, inputs, implementation='fast')
  with pytest.raises(ValueError, match='runs on a TPU, not on cpu'):
    linear_recurrence(gates, inputs, implementation='pallas')
  with pytest.raises(ValueError, match="float16: 'triton' takes float32 or bfloat16"):
    linear_recurrence(gates, inputs.astype(jnp.float16), implementation='triton', interpret=True)
  with pytest.raises(ValueError, match=r'gates \[2, 3, 3\] do not fit inputs \[2, 4, 3\]'):
    linear_recurrence(gates[:, 1:], inputs)
  with pytest.raises(ValueError, match=r'initial states \[1, 3\] do not fit .* they are \[2, 3\]'):
    linear_recurrence(gates, inputs, initial[:1])
