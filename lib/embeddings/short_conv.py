# SPDX-License-Identifier: Apache-2.0
"""A short causal convolution over an embedding: previous symbols are mixed into each input.

A model must combine adjacent symbols before it can look anything up. A small model needs long to
learn this from positions alone; here it is built in.

Legend: B batch, T length, V vocabulary, D model width.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lib.embeddings import table_pairs
from lib.parameters import declare_flops


class ShortConv(nn.Module):
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

  def sample_rows(self, key: jax.Array, batch: Mapping[str, jax.Array]) -> Any:
    """Those of `inner`."""
    return self.inner.sample_rows(key, batch)

  @nn.compact
  def encode(self, ids: jax.Array, rows: Any) -> jax.Array:
    """Vectors [B, T, D] of ids [B, T] in 0…V."""
    vectors = self.inner.encode(ids, rows)
    length, dim = vectors.shape[1:]
    declare_flops(self, 2 * self.back * dim**2)
    init = nn.initializers.normal(dim**-0.5)
    maps = self.param('short_conv', init, (self.back, dim, dim)).astype(vectors.dtype)
    mixed = vectors
    for distance in range(1, self.back + 1):
      before = jnp.pad(vectors, ((0, 0), (distance, 0), (0, 0)))[:, :length]
      mixed = mixed + before @ maps[distance - 1]
    return mixed

  def encode_after(self, ids: jax.Array, before: jax.Array, rows: Any) -> jax.Array:
    """Vectors [B, N, D] of ids [B, N] after the ids `before` [B, N, back], nearest first, or −1."""
    maps: jax.Array = self.get_variable('params', 'short_conv')
    vectors = self.inner.encode(ids, rows)
    for distance in range(self.back):
      known = before[..., distance]
      earlier = jnp.where(
        (known >= 0)[..., None], self.inner.encode(jnp.maximum(known, 0), rows), 0
      )
      vectors = vectors + earlier @ maps[distance].astype(vectors.dtype)
    return vectors

  def token_loss(self, hidden: jax.Array, targets: jax.Array, rows: Any) -> jax.Array:
    """Nats [B, T] (float32) of targets [B, T] given hidden [B, T, D]."""
    return self.inner.token_loss(hidden, targets, rows)

  def logits(self, hidden: jax.Array, rows: Any) -> jax.Array:
    """Logits [B, T, V] (float32) given hidden [B, T, D]."""
    return self.inner.logits(hidden, rows)

  def get_tables(self, variables: table_pairs.Variables) -> table_pairs.Tables:
    """Those of `inner`; see `lib.embeddings.table_pairs`."""
    return table_pairs.get_tables(self.inner, table_pairs.part_of(variables, 'inner'))

  def put_tables(
    self, variables: table_pairs.Variables, tables: table_pairs.Tables
  ) -> tuple['ShortConv', table_pairs.Variables]:
    """Over other tables in `inner`."""
    own = table_pairs.part_of(variables, 'inner')
    inner, part = table_pairs.put_tables(self.inner, own, tables)
    return self.clone(inner=inner), table_pairs.with_part(variables, 'inner', part)
