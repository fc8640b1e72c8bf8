# SPDX-License-Identifier: Apache-2.0
"""The cache of a decoder: keys and values in slots, which a text fills in order.

A slot is not a position: two drafts of the same next token have one position and two slots.

Legend: B texts, N new tokens, S slots, L layers, G heads of keys and values, K width of a
head.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Cache(NamedTuple):
  """The tokens read of B texts; slots from `lengths` on are empty; their contents are ignored.

  Attributes:
    keys: [L, B, G, S, K].
    values: [L, B, G, S, K].
    ids: int32 [B, S].
    positions: int32 [B, S], of each token in its text.
    lengths: int32 [B] slots in use; 0 forgets a text.
  """

  keys: jax.Array
  values: jax.Array
  ids: jax.Array
  positions: jax.Array
  lengths: jax.Array

  @classmethod
  def empty(cls, shape: tuple[int, ...], keys: jnp.dtype, values: jnp.dtype) -> 'Cache':
    """A cache [L, B, G, S, K] of texts none of which has begun; dtypes of keys and of values."""
    _, batch, _, length, _ = shape
    slots = lambda: jnp.zeros((batch, length), jnp.int32)  # separate buffers
    lengths = jnp.zeros(batch, jnp.int32)
    return cls(jnp.zeros(shape, keys), jnp.zeros(shape, values), slots(), slots(), lengths)

  def next_slots(self, count: int) -> jax.Array:
    """The first `count` empty slots of each text, int32 [B, count]."""
    return self.lengths[:, None] + jnp.arange(count)[None]

  def announce(self, ids: jax.Array, positions: jax.Array) -> 'Cache':
    """With ids and positions [B, N] in the next slots, which stay empty until `append`."""
    rows, slots = jnp.arange(len(ids))[:, None], self.next_slots(ids.shape[1])
    put = lambda old, new: old.at[rows, slots].set(new, mode='drop')
    return self._replace(ids=put(self.ids, ids), positions=put(self.positions, positions))

  def causal_mask(self, positions: jax.Array) -> jax.Array:
    """Which slots announced tokens at positions [B, N] see by default, bool [B, N, S].

    A token sees every token that is not after it, itself included.
    """
    in_use = jnp.arange(self.ids.shape[1])[None] < self.lengths[:, None] + positions.shape[1]
    return in_use[:, None] & (self.positions[:, None] <= positions[:, :, None])

  def append(self, keys: jax.Array, values: jax.Array) -> 'Cache':
    """With keys and values [L, B, N, G, K] in the next slots; tokens without a slot are dropped."""
    count = keys.shape[2]
    rows, slots = jnp.arange(len(self.lengths))[:, None], self.next_slots(count)
    put = lambda old, new: old.at[:, rows, :, slots].set(new.transpose(1, 2, 0, 3, 4), mode='drop')
    return self._replace(
      keys=put(self.keys, keys), values=put(self.values, values), lengths=self.lengths + count
    )

  def rollback(self, lengths: jax.Array, path: jax.Array | None = None) -> 'Cache':
    """Keeps the first `lengths` [B] slots of each text, and after them the slots of a path.

    Args:
      lengths: int32 [B], at most the slots in use.
      path: int32 [B, P], slots from `lengths` on to keep, in this order; −1 marks none and comes
        last. It picks one path of a tree of drafts.
    """
    kept = self._replace(lengths=lengths)
    if path is None:
      return kept
    rows, size = jnp.arange(len(lengths))[:, None], self.ids.shape[1]
    slots = jnp.where(path < 0, size, kept.next_slots(path.shape[1]))
    move = lambda x: x.at[rows, slots].set(x[rows, path], mode='drop')
    move_layers = lambda x: x.at[:, rows, :, slots].set(x[:, rows, :, path], mode='drop')
    return Cache(
      move_layers(self.keys),
      move_layers(self.values),
      move(self.ids),
      move(self.positions),
      lengths + (path >= 0).sum(axis=1),
    )
