# SPDX-License-Identifier: Apache-2.0
"""Vectors that tell the symbols just before them too: a short causal convolution over an embedding.

A model must join what stands next to each other before it can look anything up. To learn that from
positions alone takes a small model long; here it is given.

Legend: B batch, T length, V vocabulary, D model width.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lib.embeddings import table_pairs
from lib.parameters import declare_flops


class Preceding(nn.Module):
  """Adds to each vector a trained map of each of the `back` vectors before it in its row.

  The maps are the same for all symbols: over random rows the model stays lexinvariant. They reach
  over the borders of segments, so rows should hold a document each.

  Attributes:
    inner: an embedding of D.
    back: how many vectors before.
  """

  inner: nn.Module
  back: int

  @property
  def vocab_size(self) -> int:
    """V of `inner`."""
    return self.inner.vocab_size

  def draw(self, key: jax.Array, batch: Mapping[str, jax.Array]) -> Any:
    """As `inner` draws."""
    return self.inner.draw(key, batch)

  @nn.compact
  def encode(self, ids: jax.Array, draw: Any) -> jax.Array:
    """Vectors [B, T, D] of ids [B, T] in 0…V."""
    vectors = self.inner.encode(ids, draw)
    length, dim = vectors.shape[1:]
    declare_flops(self, 2 * self.back * dim**2)
    init = nn.initializers.normal(dim**-0.5)
    maps = self.param('preceding', init, (self.back, dim, dim)).astype(vectors.dtype)
    told = vectors
    for distance in range(1, self.back + 1):
      before = jnp.pad(vectors, ((0, 0), (distance, 0), (0, 0)))[:, :length]
      told = told + before @ maps[distance - 1]
    return told

  def encode_after(self, ids: jax.Array, before: jax.Array, draw: Any) -> jax.Array:
    """Vectors [B, N, D] of ids [B, N] after the ids `before` [B, N, back], nearest first, or −1."""
    maps: jax.Array = self.get_variable('params', 'preceding')
    vectors = self.inner.encode(ids, draw)
    for distance in range(self.back):
      known = before[..., distance]
      earlier = jnp.where(
        (known >= 0)[..., None], self.inner.encode(jnp.maximum(known, 0), draw), 0
      )
      vectors = vectors + earlier @ maps[distance].astype(vectors.dtype)
    return vectors

  def nats(self, hidden: jax.Array, targets: jax.Array, draw: Any) -> jax.Array:
    """Nats [B, T] (float32) of targets [B, T] given hidden [B, T, D]."""
    return self.inner.nats(hidden, targets, draw)

  def logits(self, hidden: jax.Array, draw: Any) -> jax.Array:
    """Logits [B, T, V] (float32) given hidden [B, T, D]."""
    return self.inner.logits(hidden, draw)

  def get_tables(self, variables: table_pairs.Variables) -> table_pairs.Tables:
    """Those of `inner`; see `lib.embeddings.table_pairs`."""
    return table_pairs.get_tables(self.inner, table_pairs.part_of(variables, 'inner'))

  def put_tables(
    self, variables: table_pairs.Variables, tables: table_pairs.Tables
  ) -> tuple['Preceding', table_pairs.Variables]:
    """Over other tables in `inner`."""
    own = table_pairs.part_of(variables, 'inner')
    inner, part = table_pairs.put_tables(self.inner, own, tables)
    return self.clone(inner=inner), table_pairs.with_part(variables, 'inner', part)
