# SPDX-License-Identifier: Apache-2.0
"""States of a gated linear recurrence, h_t = a_t h_{t−1} + x_t, for each channel by itself.

The gradient is the same recurrence in reverse: with g_t the derivative by the state h_t,
λ_t = g_t + a_{t+1} λ_{t+1} is that by the input x_t, and λ_t h_{t−1} that by the gate a_t. So each
implementation runs forward and in reverse, and the states alone are kept in between.

Legend: B batch, N length, D channels; K chunks of C positions.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from pallas_kernels.implementations import check_implementation

Scan = Callable[[jax.Array, jax.Array, jax.Array, bool], jax.Array]


def _wide(*arrays: jax.Array) -> list[jax.Array]:
  """Arrays in the dtype of the sums: float32, or float64 where the arrays have it."""
  return [x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in arrays]


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
  """All chunks at once: first what each makes of its first state, at last all states.

  A chunk's last state is (product of its gates) · (state before it) + (last state after zeros): so
  the states before the chunks are a recurrence over the K chunks.
  """
  batch, length, dim = inputs.shape
  size = 1 << length.bit_length() // 2  # about √N, for the fewest steps
  spare = ((0, 0), (0, -length % size), (0, 0))
  in_chunks = lambda x: x.reshape(batch, -1, size, x.shape[2])
  a, x, first = _wide(gates, inputs, initial)
  # Positions that fill the last chunk keep the state as it is.
  a_bkcd, x_bkcd = in_chunks(jnp.pad(a, spare, constant_values=1)), in_chunks(jnp.pad(x, spare))
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
  before = jnp.concatenate([initial[:, None], states[:, :-1].astype(initial.dtype)], axis=1)
  slopes, before, gate = _wide(d_inputs, before, gates[:, 0])
  d_gates = slopes * before
  if gates.shape[2] == 1:
    d_gates = d_gates.sum(axis=2, keepdims=True)
  d_initial = (gate * slopes[:, 0]).astype(initial.dtype)
  return d_gates.astype(gates.dtype), d_inputs, d_initial


_states.defvjp(_forward, _backward)


# --- the public functions -------------------------------------------------------------------------


def chunked(gates: jax.Array, inputs: jax.Array, initial: jax.Array) -> jax.Array:
  """What the reference gives, in about 3 √N steps."""
  return _states(_chunked_scan, gates, inputs, initial)


def _check(gates: jax.Array, inputs: jax.Array, initial: jax.Array | None) -> None:
  batch, length, dim = inputs.shape
  if gates.shape not in ((batch, length, dim), (batch, length, 1)):
    raise ValueError(
      f'gates {list(gates.shape)} do not fit inputs {list(inputs.shape)}: there is one for each '
      'position and channel, or one for each position with a last axis of 1.'
    )
  if initial is not None and initial.shape != (batch, dim):
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
) -> jax.Array:
  """Returns all states [B, N, D] of h_t = gates_t · h_{t−1} + inputs_t, in the inputs' dtype.

  Sums are in float32, or in float64 where the arrays are.

  Args:
    gates: [B, N, D], or [B, N, 1] for all channels alike; in [0, 1] the states cannot explode. A
      gate of 0 forgets exactly: at the first token of a document nothing of those before is left.
    inputs: [B, N, D].
    initial: h before the first position, [B, D]; None for zeros.
    implementation: 'reference' takes N steps one after the other; 'chunked' about 3 √N, on any
      backend; None for 'chunked'.

  Raises:
    ValueError: no such implementation, or shapes that do not fit each other.
  """
  name = implementation or 'chunked'
  by_name = {'reference': linear_recurrence_reference, 'chunked': chunked}
  check_implementation('linear_recurrence', name, by_name, False)
  _check(gates, inputs, initial)
  if initial is None:
    initial = jnp.zeros_like(inputs[:, 0])
  return by_name[name](gates, inputs, initial)
