# SPDX-License-Identifier: Apache-2.0
"""Masked softmax attention with an additive bias that is trained.

Legend: B batch, T queries, S keys, H heads, K width of a head.
"""

import functools

import jax
import jax.numpy as jnp

IMPLEMENTATIONS = ('reference', 'xla')


def attention_reference(
  q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array | None, mask: jax.Array
) -> jax.Array:
  """The specification: `jax.nn.dot_product_attention`."""
  return jax.nn.dot_product_attention(q, k, v, bias=bias, mask=mask)


def _probabilities(q, k, bias, mask):
  """Weights [B, H, T, S] before they are normalised, and their sums [B, H, T, 1] (float32)."""
  scores = jnp.einsum('bthk,bshk->bhts', q, k, preferred_element_type=jnp.float32)
  scores = scores * q.shape[-1] ** -0.5
  if bias is not None:
    scores = scores + bias.astype(jnp.float32)
  scores = jnp.where(mask, scores, -1e30)
  weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
  return weights.astype(q.dtype), weights.sum(axis=-1, keepdims=True)


def _forward(q, k, v, bias, mask):
  weights, sums = _probabilities(q, k, bias, mask)
  mixed = jnp.einsum('bhts,bshk->bhtk', weights, v, preferred_element_type=jnp.float32) / sums
  out = mixed.astype(q.dtype).transpose(0, 2, 1, 3)
  return out, (q, k, v, bias, weights, sums, mixed)


def _backward(saved, d_out):
  q, k, v, bias, weights, sums, mixed = saved
  dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  d_mixed = d_out.transpose(0, 2, 1, 3) / sums
  inner = (d_mixed * mixed).sum(axis=-1, keepdims=True)
  d_mixed = d_mixed.astype(q.dtype)
  d_weights = dot('bhtk,bshk->bhts', d_mixed, v)
  d_scores = weights * (d_weights - inner)
  narrow = d_scores.astype(q.dtype)
  scale = q.shape[-1] ** -0.5
  d_q = dot('bhts,bshk->bthk', narrow, k) * scale
  d_k = dot('bhts,bthk->bshk', narrow, q) * scale
  d_v = dot('bhts,bhtk->bshk', weights, d_mixed)
  d_bias = None if bias is None else _sum_to(d_scores, bias.shape).astype(bias.dtype)
  return d_q.astype(q.dtype), d_k.astype(k.dtype), d_v.astype(v.dtype), d_bias, None


def _sum_to(x, shape):
  """`x` [B, H, T, S] summed over the batch where `shape` has 1 there.

  As a product with ones: XLA for CPU sums over a leading axis forty times more slowly.
  """
  if shape[0] == x.shape[0]:
    return x
  return jnp.einsum('b,bhts->hts', jnp.ones(x.shape[0], x.dtype), x)[None]


@jax.custom_vjp
def _attention_xla(q, k, v, bias, mask):
  return _forward(q, k, v, bias, mask)[0]


_attention_xla.defvjp(_forward, _backward)


def attention(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  bias: jax.Array | None = None,
  *,
  mask: jax.Array,
  implementation: str | None = None,
) -> jax.Array:
  """Returns [B, T, H, K]: softmax(q·k/√K + bias) over the keys that the mask allows, times v.

  Args:
    q: queries [B, T, H, K].
    k: keys [B, S, H, K].
    v: values [B, S, H, K].
    bias: [1 or B, H, T, S], added to the scores, or None.
    mask: bool [1 or B, 1, T, S], true where a query may see a key; each query must see one.
    implementation: 'reference'; 'xla' (the same with its gradient written out, which takes half
      the time on CPU: the weights are kept unnormalised, and the bias's gradient is summed by a
      matrix product); or None for 'xla'.

  Raises:
    ValueError: an unknown implementation, or a bias whose shape is not of the scores.
  """
  chosen = implementation or 'xla'
  if chosen not in IMPLEMENTATIONS:
    raise ValueError(f'implementation={chosen!r} is not one of {", ".join(IMPLEMENTATIONS)}.')
  scores = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
  if bias is not None and bias.shape not in (scores, (1, *scores[1:])):
    raise ValueError(f'a bias {bias.shape} does not fit scores {scores}; its batch may be 1.')
  compute = attention_reference if chosen == 'reference' else _attention_xla
  return compute(q, k, v, bias, mask)


def attend_next(
  q_bhk: jax.Array,
  new_bhk: tuple[jax.Array, jax.Array],
  old_bhsk: tuple[jax.Array, jax.Array],
  places: jax.Array,
  bias: jax.Array | None,
  mask: jax.Array,
) -> jax.Array:
  """Attention of the next token of each text over those before it and itself, [B, H, K].

  The cache is only read, once: copying it would take longer than all else.

  Args:
    q_bhk: queries.
    new_bhk: the token's own key and value.
    old_bhsk: keys and values of the tokens before it.
    places: int32 [B], where in S the new token belongs.
    bias: [B or 1, H, 1, S] or None.
    mask: bool [B, 1, 1, S], true where a key is seen, the token's own among them.
  """
  (k_new, v_new), (k_old, v_old) = new_bhk, old_bhsk
  here = (jnp.arange(k_old.shape[2])[None] == places[:, None])[:, None]
  dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  scores = jnp.where(here, dot('bhk,bhk->bh', q_bhk, k_new)[..., None],
                     dot('bhk,bhsk->bhs', q_bhk, k_old))  # fmt: skip
  scores = scores * q_bhk.shape[-1] ** -0.5
  if bias is not None:
    scores = scores + bias[:, :, 0].astype(jnp.float32)
  weights = jax.nn.softmax(jnp.where(mask[:, :, 0], scores, -1e30))
  own = jnp.where(here, weights, 0.0).sum(axis=-1, keepdims=True)
  old = jnp.where(here, 0.0, weights).astype(v_old.dtype)
  mixed = dot('bhs,bhsk->bhk', old, v_old) + own * v_new
  return mixed.astype(q_bhk.dtype)
