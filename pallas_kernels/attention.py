# SPDX-License-Identifier: Apache-2.0
"""Masked softmax attention with a trained additive bias.

With grouped-query attention, H / G consecutive heads of queries share one head of keys and values.
Keys and values are not repeated: the queries of a group form one longer row.

Legend: B batch, T queries, S keys, H heads, G heads of keys and values, K width of a head.
"""

import functools

import jax
import jax.numpy as jnp

from pallas_kernels.implementations import backend

IMPLEMENTATIONS = ('reference', 'xla', 'tiled')
TILE, TILES = 64, 8  # 'tiled' takes so many queries at a time, or more, so that tiles are few


def attention_reference(
  q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array | None, mask: jax.Array
) -> jax.Array:
  """The specification: `jax.nn.dot_product_attention`."""
  return jax.nn.dot_product_attention(q, k, v, bias=bias, mask=mask)


_dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def _tiles(tile, queries, keys):
  """The place of each tile of queries in the scores, whose keys end with the tile."""
  for start in range(0, queries, tile):
    end = min(start + tile, queries)
    yield slice(start, end), slice(0, keys - queries + end)


def _by_group(x, groups):
  """Rows [B, H, T, …] of all heads that share keys, end to end: [B, G, H/G T, …]."""
  return x.reshape(x.shape[0], groups, -1, *x.shape[3:])


def _weights(q, k, bias, mask):
  """Weights [B, H, T, S] before they are normalised."""
  scores = _dot('bhtk,bhsk->bhts', _by_group(q, k.shape[1]), k).reshape(*q.shape[:3], -1)
  # With an added mask, XLA for CPU fuses all of this into one loop on all cores.
  scores = scores * q.shape[-1] ** -0.5 + jnp.where(mask, 0.0, -1e30)
  if bias is not None:
    scores = scores + bias.astype(jnp.float32)
  return jnp.exp(scores - scores.max(axis=-1, keepdims=True)).astype(q.dtype)


def _sums(weights):
  return weights.sum(axis=-1, keepdims=True, dtype=jnp.float32)


def _on_all_cores(products):
  """The same numbers, computed on all cores.

  XLA for CPU computes many small products on one core, but a loop of products and sums on all
  cores. On two cores the `cpu` step of equal_info takes 53 ms with this and 85 ms without, that of
  lexinvariant 46 and 66 ms (shortest of three processes).
  """
  if backend() != 'cpu':
    return products
  return products - 0 * products.sum(axis=-1, keepdims=True)


def _forward(tile, q, k, v, bias, mask):
  q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
  parts = []
  for mine, theirs in _tiles(tile, q.shape[2], k.shape[2]):
    places = (slice(None), slice(None), mine, theirs)
    weights = _weights(
      q[:, :, mine], k[:, :, theirs], None if bias is None else bias[places], mask[places]
    )
    mixed = _dot('bhts,bhsk->bhtk', _by_group(weights, v.shape[1]), v[:, :, theirs])
    mixed = mixed.reshape(*weights.shape[:3], -1) / _sums(weights)
    parts.append((weights, mixed))
  out = jnp.concatenate([mixed for _, mixed in parts], axis=2).astype(q.dtype)
  return out.transpose(0, 2, 1, 3), (q, k, v, bias, parts)


def _backward(tile, saved, d_out):
  q, k, v, bias, parts = saved
  d_out = d_out.transpose(0, 2, 1, 3)
  d_q, d_k, d_v, d_bias = [], [], [], []
  by_group = lambda x: _by_group(x, k.shape[1])

  for (mine, theirs), (weights, mixed) in zip(_tiles(tile, q.shape[2], k.shape[2]), parts):
    weights = jax.lax.optimization_barrier(weights)  # else the sums leave the loop made forward
    d_mixed = d_out[:, :, mine] / _sums(weights)
    inner = (d_mixed * mixed).sum(axis=-1, keepdims=True)
    d_mixed = d_mixed.astype(q.dtype)
    d_mixed = by_group(d_mixed)
    d_weights = _dot('bhtk,bhsk->bhts', d_mixed, v[:, :, theirs]).reshape(weights.shape)
    d_scores = weights * (d_weights - inner)
    narrow = by_group(d_scores.astype(q.dtype))
    products = _on_all_cores(_dot('bhts,bhsk->bhtk', narrow, k[:, :, theirs]))
    d_q.append(products.reshape(mixed.shape))
    # XLA for CPU multiplies faster if the last axis of the left factor is summed over.
    q_columns = by_group(q[:, :, mine]).swapaxes(2, 3)
    d_k.append(_on_all_cores(_dot('bhkt,bhts->bhks', q_columns, narrow)))
    # XLA already runs this product on all cores; a loop of sums would be slower.
    d_v.append(_dot('bhkt,bhts->bhks', d_mixed.swapaxes(2, 3), by_group(weights)))
    if bias is not None:
      later = bias.shape[3] - d_scores.shape[3]
      d_bias.append(jnp.pad(_sum_to(d_scores, bias.shape[0]), [(0, 0)] * 3 + [(0, later)]))
  scale = q.shape[-1] ** -0.5
  return (
    (jnp.concatenate(d_q, axis=2) * scale).transpose(0, 2, 1, 3).astype(q.dtype),
    (_of_all_keys(d_k) * scale).transpose(0, 3, 1, 2).astype(k.dtype),
    _of_all_keys(d_v).transpose(0, 3, 1, 2).astype(v.dtype),
    jnp.concatenate(d_bias, axis=2).astype(bias.dtype) if d_bias else None,
    None,
  )


def _of_all_keys(parts):
  """The sum of arrays [B, G, K, keys up to some], each of more keys than the one before."""
  ends = [part.shape[3] for part in parts]
  pieces = [
    sum(part[..., start:end] for part in parts[first:])
    for first, (start, end) in enumerate(zip([0, *ends], ends))
  ]
  return jnp.concatenate(pieces, axis=3)


def _sum_to(x, batch):
  """`x` [B, H, T, S] summed over the batch if that is to be 1.

  As a product with ones: XLA for CPU sums over a leading axis forty times more slowly.
  """
  if batch == x.shape[0]:
    return x
  return jnp.einsum('b,bhts->hts', jnp.ones(x.shape[0], x.dtype), x)[None]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(tile, q, k, v, bias, mask):
  return _forward(tile, q, k, v, bias, mask)[0]


_attention.defvjp(_forward, _backward)


def check_heads(q: jax.Array, k: jax.Array) -> None:
  """Raises ValueError unless the heads of queries [B, T, H, K] are a multiple of those of keys."""
  if q.shape[2] % k.shape[2]:
    raise ValueError(f'{q.shape[2]} heads of queries are no multiple of {k.shape[2]} of keys.')


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
    k: keys [B, S, G, K]; G divides H, and head h of queries sees head h // (H / G) of keys.
    v: values [B, S, G, K].
    bias: [1 or B, H, T, S], added to the scores, or None.
    mask: bool [1 or B, 1, T, S], true where a query may see a key; each query must see one.
    implementation: 'reference'; 'xla' (the same with its gradient written out, which takes half
      the time on CPU: weights are kept unnormalised, and the bias's gradient is summed by a
      matrix product); 'tiled' (the same for a tile of queries at a time, whose scores end with its
      last one: right if the queries are the last of the keys and the mask hides from each what is
      after it); or None for 'xla'.

  Raises:
    ValueError: an unknown implementation, heads that do not divide, or a bias whose shape is not of
      the scores.
  """
  chosen = implementation or 'xla'
  if chosen not in IMPLEMENTATIONS:
    raise ValueError(f'implementation={chosen!r} is not one of {", ".join(IMPLEMENTATIONS)}.')
  check_heads(q, k)
  scores = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
  if bias is not None and bias.shape not in (scores, (1, *scores[1:])):
    raise ValueError(f'a bias {bias.shape} does not fit scores {scores}; its batch may be 1.')
  if chosen == 'reference':
    return attention_reference(q, k, v, bias, mask)
  tile = max(TILE, -(-q.shape[1] // TILES)) if chosen == 'tiled' else q.shape[1]
  return _attention(tile, q, k, v, bias, mask)


def attend_with_cache(
  q: jax.Array,
  new: tuple[jax.Array, jax.Array],
  old_bhsk: tuple[jax.Array, jax.Array],
  slots: jax.Array,
  bias: jax.Array | None,
  mask: jax.Array,
) -> jax.Array:
  """Attention of the next N tokens of each text over a cache and themselves, [B, N, H, K].

  The cache is only read, once: copying it would take longer than all else.

  Args:
    q: queries [B, N, H, K].
    new: the tokens' own keys and values [B, N, G, K].
    old_bhsk: keys and values of the cache, [B, G, S, K].
    slots: int32 [B, N], the slots that the new tokens will take, one after the other.
    bias: [B or 1, H, N, S] or None.
    mask: bool [B, 1, N, S], true where a slot is seen, the token's own among them.
  """
  (k_new, v_new), (k_old, v_old) = new, old_bhsk
  (batch, count, heads, width), (groups, size) = q.shape, k_old.shape[1:3]
  sharing = heads // groups  # heads of queries with the same keys; their rows lie side by side
  rows = q.reshape(batch, count, groups, sharing, width).swapaxes(2, 3)
  rows = rows.reshape(batch, -1, groups, width)
  by_head = lambda x: (  # [B, G, N H/G, …] -> [B, H, N, …]
    x.reshape(batch, groups, count, sharing, -1).swapaxes(2, 3).reshape(batch, heads, count, -1)
  )
  by_group = lambda x: (
    x.reshape(batch, groups, sharing, count, -1)
    .swapaxes(2, 3)
    .reshape(batch, groups, rows.shape[1], -1)
  )

  def weights(scores: jax.Array) -> jax.Array:
    scores = scores * width**-0.5
    if bias is not None:
      scores = scores + bias.astype(jnp.float32)
    return jax.nn.softmax(jnp.where(mask, scores, -1e30))

  own = by_head(_dot('bnhk,bmhk->bhnm', rows, k_new))
  if count == size:  # the new tokens fill the cache, so it was empty
    mixed = _dot('bhnm,bmhk->bnhk', by_group(weights(own)), v_new)
  else:
    nth = jnp.arange(size)[None] - slots[:, :1]  # which new token takes a slot
    here = ((nth >= 0) & (nth < count))[:, None, None]
    if count > 1:
      own = jnp.take_along_axis(own, jnp.clip(nth, 0, count - 1)[:, None, None], axis=-1)
    old = by_head(_dot('bnhk,bhsk->bhns', rows, k_old))
    all_slots = weights(jnp.where(here, own, old))
    own = jnp.take_along_axis(all_slots, slots[:, None, None], axis=-1, mode='clip')
    old = jnp.where(here, 0.0, all_slots).astype(v_old.dtype)
    old, own = by_group(old), by_group(own)
    mixed = _dot('bhns,bhsk->bnhk', old, v_old) + _dot('bhnm,bmhk->bnhk', own, v_new)
  mixed = mixed.reshape(batch, count, sharing, groups, width).swapaxes(2, 3)
  return mixed.reshape(q.shape).astype(q.dtype)
