# SPDX-License-Identifier: Apache-2.0
"""States of a gated linear recurrence, h_t = a_t h_{t−1} + x_t, separately for each channel.

The gradient is the same recurrence in reverse. If g_t is the gradient with respect to the state
h_t, then λ_t = g_t + a_{t+1} λ_{t+1} is the gradient with respect to the input x_t, and λ_t h_{t−1}
that with respect to the gate a_t. So each implementation runs forward and in reverse, and only the
states are stored between the two. Both Pallas kernels read gates and inputs once and write states
once; neither has been timed.

Legend: B batch, N length, D channels; K chunks of C positions; tiles of n positions, d channels.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas import triton as plgpu

from pallas_kernels.implementations import backend, check_implementation

IMPLEMENTATIONS = ('reference', 'chunked', 'pallas', 'triton')
DTYPES = ('float32', 'bfloat16')  # of the Pallas kernels
Scan = Callable[[jax.Array, jax.Array, jax.Array, bool], jax.Array]


def _wide(*arrays: jax.Array) -> list[jax.Array]:
  """Arrays in the dtype of the sums: float32, or float64 if an array has that dtype."""
  return [x.astype(jnp.result_type(jnp.float32, *arrays)) for x in arrays]


def _padded(gates: jax.Array, inputs: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
  """Gates and inputs padded to a multiple of positions; the padding leaves the state unchanged."""
  spare = ((0, 0), (0, -inputs.shape[1] % size), (0, 0))
  return jnp.pad(gates, spare, constant_values=1), jnp.pad(inputs, spare)


def linear_recurrence_reference(
  gates: jax.Array, inputs: jax.Array, initial: jax.Array
) -> jax.Array:
  """The specification: `lax.scan` over the positions, differentiated by JAX."""

  def step(state, gate_and_input):
    gate, added = gate_and_input
    state = gate * state + added
    return state, state

  a, x, first = _wide(gates, inputs, initial)
  _, states = lax.scan(step, first, (a.swapaxes(0, 1), x.swapaxes(0, 1)))
  return states.swapaxes(0, 1).astype(inputs.dtype)


# --- chunked: 2 C + K steps instead of N, on any backend ------------------------------------------


def _chunked_scan(
  gates: jax.Array, inputs: jax.Array, initial: jax.Array, reverse: bool
) -> jax.Array:
  """All chunks at once: first the last state of each chunk, then all states.

  A chunk's last state is (product of its gates) · (state before it) + (last state after zeros): so
  the states before the chunks are a recurrence over the K chunks.
  """
  batch, length, dim = inputs.shape
  size = 1 << length.bit_length() // 2  # about √N, which minimises the number of steps
  in_chunks = lambda x: x.reshape(batch, -1, size, x.shape[2])
  a, x, first = _wide(gates, inputs, initial)
  a_bkcd, x_bkcd = map(in_chunks, _padded(a, x, size))
  place = lambda i: size - 1 - i if reverse else i
  at = lambda i: [
    lax.dynamic_index_in_dim(z, place(i), 2, keepdims=False) for z in (a_bkcd, x_bkcd)
  ]

  def within(i, decay_and_state):
    decay, state = decay_and_state
    gate, added = at(i)
    return gate * decay, gate * state + added

  def across(state, decay_and_added):
    decay, added = decay_and_added
    return decay * state + added, state

  def again(i, state_and_states):
    state, states = state_and_states
    gate, added = at(i)
    state = gate * state + added
    return state, lax.dynamic_update_index_in_dim(states, state, place(i), 2)

  start = jnp.ones_like(a_bkcd[:, :, 0]), jnp.zeros_like(x_bkcd[:, :, 0])
  chunks = (x.swapaxes(0, 1) for x in lax.fori_loop(0, size, within, start))
  _, before_kbd = lax.scan(across, first, tuple(chunks), reverse=reverse)
  carry = before_kbd.swapaxes(0, 1), jnp.zeros_like(x_bkcd)
  _, states = lax.fori_loop(0, size, again, carry)
  return states.reshape(batch, -1, dim)[:, :length].astype(inputs.dtype)


# --- pallas: TPU kernel; the state between tiles of positions stays in vector memory --------------

TILE_N, TILE_D = 256, 512  # most positions and channels of a tile
SUBLANES, ROWS = 8, 16  # positions of a float32 register, and of a bfloat16 one


def _register_scan(a, x, reverse):
  """Of 8 positions [8, d]: products of the gates, and states after zeros, by doubling."""
  position = lax.broadcasted_iota(jnp.int32, x.shape, 0)
  for step in (1, 2, 4):
    seen = position < SUBLANES - step if reverse else position >= step
    by = SUBLANES - step if reverse else step
    x += a * jnp.where(seen, pltpu.roll(x, by, 0), 0.0)
    a *= jnp.where(seen, pltpu.roll(a, by, 0), 1.0)
  return a, x


def _tpu_kernel(reverse, gates_ref, inputs_ref, initial_ref, states_ref, state_ref):
  @pl.when(pl.program_id(2) == 0)
  def _():
    state_ref[...] = initial_ref[...].astype(jnp.float32)

  count = inputs_ref.shape[0] // ROWS
  halves = [slice(start, start + SUBLANES) for start in range(0, ROWS, SUBLANES)]

  def step(i, state_1d):
    rows = pl.ds(pl.multiple_of((count - 1 - i if reverse else i) * ROWS, ROWS), ROWS)
    x = inputs_ref[rows, :].astype(jnp.float32)
    a = jnp.broadcast_to(gates_ref[rows, :].astype(jnp.float32), x.shape)
    states = []
    for half in reversed(halves) if reverse else halves:
      decays, added = _register_scan(a[half], x[half], reverse)
      states.append(decays * state_1d + added)
      state_1d = states[-1][:1] if reverse else states[-1][-1:]
    together = jnp.concatenate(states[::-1] if reverse else states)
    states_ref[rows, :] = together.astype(states_ref.dtype)
    return state_1d

  state_ref[...] = lax.fori_loop(0, count, step, state_ref[...])


def _tpu_scan(
  interpret: bool | pltpu.InterpretParams,
  gates: jax.Array,
  inputs: jax.Array,
  initial: jax.Array,
  reverse: bool,
) -> jax.Array:
  batch, length, dim = inputs.shape
  size = min(TILE_N, -(-length // ROWS) * ROWS)
  wide = dim if dim < TILE_D else TILE_D
  gates, inputs = _padded(gates, inputs, size)
  last = inputs.shape[1] // size - 1
  place = lambda j: last - j if reverse else j
  tile = pl.BlockSpec((None, size, wide), lambda b, k, j: (b, place(j), k))
  shared = pl.BlockSpec((None, size, 1), lambda b, k, j: (b, place(j), 0))
  first = pl.BlockSpec((None, 1, wide), lambda b, k, j: (b, 0, k))
  states = pl.pallas_call(
    functools.partial(_tpu_kernel, reverse),
    grid=(batch, -(-dim // wide), last + 1),
    in_specs=[shared if gates.shape[2] < dim else tile, tile, first],
    out_specs=tile,
    out_shape=jax.ShapeDtypeStruct(inputs.shape, inputs.dtype),
    scratch_shapes=[pltpu.VMEM((1, wide), jnp.float32)],
    compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel', 'parallel', 'arbitrary')),
    interpret=interpret,
  )(gates, inputs, initial[:, None])
  return states[:, :length]


# --- triton: GPU kernel; a warp takes some channels of a sequence through all positions -----------

CHANNELS, AT_ONCE = 64, 16  # channels of a warp, and positions that it loads at once


def _gpu_kernel(reverse, gates_ref, inputs_ref, initial_ref, states_ref):
  count = inputs_ref.shape[0] // AT_ONCE

  def step(i, state_d):
    first = (count - 1 - i if reverse else i) * AT_ONCE
    positions = [first + row for row in range(AT_ONCE)][:: -1 if reverse else 1]
    read = [(gates_ref[t, :], inputs_ref[t, :]) for t in positions]
    for t, (gate, added) in zip(positions, read):
      state_d = gate.astype(jnp.float32) * state_d + added.astype(jnp.float32)
      states_ref[t, :] = state_d.astype(states_ref.dtype)
    return state_d

  lax.fori_loop(0, count, step, initial_ref[...].astype(jnp.float32))


def _gpu_scan(
  interpret: bool, gates: jax.Array, inputs: jax.Array, initial: jax.Array, reverse: bool
) -> jax.Array:
  batch, length, dim = inputs.shape
  channels = ((0, 0), (0, 0), (0, -dim % CHANNELS))
  inputs, initial = jnp.pad(inputs, channels), jnp.pad(initial, channels[1:])
  gates = jnp.pad(jnp.broadcast_to(gates, (batch, length, dim)), channels)
  gates, inputs = _padded(gates, inputs, AT_ONCE)
  column = pl.BlockSpec((None, inputs.shape[1], CHANNELS), lambda b, k: (b, 0, k))
  states = pl.pallas_call(
    functools.partial(_gpu_kernel, reverse),
    grid=(batch, inputs.shape[2] // CHANNELS),
    in_specs=[column, column, pl.BlockSpec((None, CHANNELS), lambda b, k: (b, k))],
    out_specs=column,
    out_shape=jax.ShapeDtypeStruct(inputs.shape, inputs.dtype),
    compiler_params=plgpu.CompilerParams(num_warps=1),
    interpret=interpret,
  )(gates, inputs, initial)
  return states[:, :length, :dim]


# --- gradients ------------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _states(scan: Scan, gates: jax.Array, inputs: jax.Array, initial: jax.Array) -> jax.Array:
  return scan(gates, inputs, initial, False)


def _forward(scan, gates, inputs, initial):
  states = scan(gates, inputs, initial, False)
  return states, (gates, initial, states)


def _backward(scan, residuals, d_states):
  gates, initial, states = residuals
  after = jnp.pad(gates[:, 1:], ((0, 0), (0, 1), (0, 0)))
  d_inputs = scan(after, d_states, jnp.zeros_like(initial), True)
  slopes, gate, first, later = _wide(d_inputs, gates[:, 0], initial[:, None], states[:, :-1])
  d_gates = slopes * jnp.concatenate([first, later], axis=1)
  if gates.shape[2] == 1:
    d_gates = d_gates.sum(axis=2, keepdims=True)
  d_initial = (gate * slopes[:, 0]).astype(initial.dtype)
  return d_gates.astype(gates.dtype), d_inputs, d_initial


_states.defvjp(_forward, _backward)


# --- the public functions -------------------------------------------------------------------------


def chunked(gates: jax.Array, inputs: jax.Array, initial: jax.Array) -> jax.Array:
  """What the reference gives, in about 3 √N steps."""
  return _states(_chunked_scan, gates, inputs, initial)


def pallas(
  gates: jax.Array,
  inputs: jax.Array,
  initial: jax.Array,
  interpret: bool | pltpu.InterpretParams = False,
) -> jax.Array:
  """What the reference gives, by the TPU kernel whatever the backend: for compiling."""
  return _states(functools.partial(_tpu_scan, interpret), gates, inputs, initial)


def triton(
  gates: jax.Array, inputs: jax.Array, initial: jax.Array, interpret: bool = False
) -> jax.Array:
  """What the reference gives, by the GPU kernel whatever the backend: for compiling."""
  return _states(functools.partial(_gpu_scan, interpret), gates, inputs, initial)


def preferred(*dtypes: jnp.dtype) -> str:
  """What `linear_recurrence` takes of arrays in these dtypes where no implementation is named."""
  kernels = {'tpu': 'pallas', 'gpu': 'triton'}
  fits = all(jnp.dtype(dtype).name in DTYPES for dtype in dtypes)
  return kernels.get(backend(), 'chunked') if fits else 'chunked'


def _check(gates: jax.Array, inputs: jax.Array, initial: jax.Array) -> None:
  batch, length, dim = inputs.shape
  if gates.shape not in ((batch, length, dim), (batch, length, 1)):
    raise ValueError(
      f'gates {list(gates.shape)} do not fit inputs {list(inputs.shape)}: there is one for each '
      'position and channel, or one for each position with a last axis of 1.'
    )
  if initial.shape != (batch, dim):
    raise ValueError(
      f'initial states {list(initial.shape)} do not fit inputs {list(inputs.shape)}: they are '
      f'{[batch, dim]}.'
    )


def linear_recurrence(
  gates: jax.Array,
  inputs: jax.Array,
  initial: jax.Array | None = None,
  *,
  implementation: str | None = None,
  interpret: bool | pltpu.InterpretParams = False,
) -> jax.Array:
  """Returns all states [B, N, D] of h_t = gates_t · h_{t−1} + inputs_t, in the inputs' dtype.

  Sums are in float32, or in float64 where the arrays are.

  Args:
    gates: [B, N, D], or [B, N, 1] for all channels alike; in [0, 1] the states cannot explode. A
      gate of 0 forgets exactly: at the first token of a document nothing of those before is left.
    inputs: [B, N, D].
    initial: h before the first position, [B, D]; None for zeros.
    implementation: 'reference' takes N steps one after the other; 'chunked' about 3 √N, on any
      backend; 'pallas' (on a TPU) and 'triton' (on a GPU) pass over the arrays once, in float32 or
      bfloat16; None for 'pallas' on a TPU, 'triton' on a GPU, and 'chunked' elsewhere and in
      float64.
    interpret: emulate 'pallas' or 'triton' on any backend (for tests: slow); True, or for 'pallas'
      pltpu.InterpretParams.

  Raises:
    ValueError: no such implementation, one that this backend cannot run, a dtype that it does not
      take, or shapes that do not fit each other.
  """
  if initial is None:
    initial = jnp.zeros_like(inputs[:, 0])
  arrays = gates, inputs, initial
  name = implementation or preferred(*(x.dtype for x in arrays))
  check_implementation('linear_recurrence', name, IMPLEMENTATIONS, interpret)
  _check(*arrays)
  if name == 'reference':
    return linear_recurrence_reference(*arrays)
  if name == 'chunked':
    return chunked(*arrays)
  for x in arrays:
    if x.dtype.name not in DTYPES:
      raise ValueError(f'an array of {x.dtype}: {name!r} takes {" or ".join(DTYPES)}.')
  return pallas(*arrays, interpret) if name == 'pallas' else triton(*arrays, bool(interpret))
