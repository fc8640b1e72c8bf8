# SPDX-License-Identifier: Apache-2.0
"""Partly lexinvariant embeddings: trained rows, some of them hidden in each sequence.

Section 3.6 of arXiv 2305.16349 (`Mixed`, which fails, and `PermutedIds`, used instead) and the
split rows of arXiv 2410.17161 (`Interchangeable`).

How many names are hidden is said by the batch: its field `concealed`, [B] or a scalar, is the
probability p of a type (or occurrence) in each sequence. Without it every name is told.

Legend: B batch, T length, V vocabulary, D model width.
"""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lib.embeddings import table_pairs
from lib.embeddings.learned import Learned
from lib.embeddings.lexinvariant import Draw, permutations, rename
from lib.errors import InputError
from lib.parameters import declare_flops, declared
from pallas_kernels.linear_cross_entropy import linear_cross_entropy

PER = ('type', 'occurrence')


def concealed(batch: Mapping[str, jax.Array]) -> jax.Array:
  """p for each sequence of a batch: [B, 1]."""
  count = batch['inputs'].shape[0]
  return jnp.broadcast_to(jnp.asarray(batch.get('concealed', 0.0)), (count,))[:, None]


class Renaming(NamedTuple):
  """New names [B, V] of ids, and whether each occurrence [B, T + 1] bears its new name."""

  names: jax.Array
  renamed: jax.Array


class PermutedIds(nn.Module):
  """Trained rows under the augmentation B_p: an id becomes π(id) with probability p.

  π is a uniform permutation for each sequence. Chosen per type, an id that is renamed is renamed
  throughout its sequence; per occurrence, each occurrence is chosen alone. The map is no bijection:
  a renamed id may meet another that kept its name. For p = 0 this is the inner embedding.

  Attributes:
    inner: the embedding of the renamed ids.
    per: 'type' or 'occurrence' (the paper's text leaves open which).
  """

  inner: Learned
  per: str = 'type'

  @property
  def vocab_size(self) -> int:
    """V of `inner`."""
    return self.inner.vocab_size

  def draw(self, key: jax.Array, batch: Mapping[str, jax.Array]) -> Renaming:
    """Names and choices for each sequence of a batch."""
    if self.per not in PER:
      raise InputError(f'per={self.per!r} is not one of {", ".join(PER)}.')
    count, length = batch['inputs'].shape
    for_names, for_choice = jax.random.split(key)
    size, p = self.inner.vocab_size, concealed(batch)
    names = permutations(for_names, count, size)
    if self.per == 'occurrence':
      return Renaming(names, jax.random.bernoulli(for_choice, p, (count, length + 1)))
    chosen = jax.random.bernoulli(for_choice, p, (count, size))
    everywhere = jnp.ones((count, length + 1), bool)
    return Renaming(jnp.where(chosen, names, jnp.arange(size)[None]), everywhere)

  def encode(self, ids: jax.Array, draw: Renaming) -> jax.Array:
    """Vectors [B, T, D] of ids [B, T] in 0…V, under their new names."""
    begin = ids == self.inner.vocab_size
    names = rename(draw.names, jnp.minimum(ids, self.inner.vocab_size - 1))
    kept = begin | ~draw.renamed[:, : ids.shape[1]]
    return self.inner.encode(jnp.where(kept, ids, names), None)

  def nats(self, hidden: jax.Array, targets: jax.Array, draw: Renaming) -> jax.Array:
    """Nats [B, T] of the targets under their new names: each is the next position's input."""
    renamed = draw.renamed[:, 1 : targets.shape[1] + 1]
    return self.inner.nats(
      hidden, jnp.where(renamed, rename(draw.names, targets), targets), None
    )  # fmt: skip

  def logits(self, hidden: jax.Array, draw: Renaming) -> jax.Array:
    """Logits [B, T, V] of ids by the names that their types have."""
    logits = self.inner.logits(hidden, None)
    if self.per == 'occurrence':
      return logits
    return jnp.take_along_axis(logits, draw.names[:, None], axis=-1)

  def get_tables(self, variables: table_pairs.Variables) -> table_pairs.Tables:
    """Those of `inner`; see `lib.embeddings.table_pairs`."""
    return table_pairs.get_tables(self.inner, table_pairs.part_of(variables, 'inner'))

  def put_tables(
    self, variables: table_pairs.Variables, tables: table_pairs.Tables
  ) -> tuple['PermutedIds', table_pairs.Variables]:
    """Over other tables in `inner`."""
    own = table_pairs.part_of(variables, 'inner')
    inner, part = table_pairs.put_tables(self.inner, own, tables)
    return self.clone(inner=inner), table_pairs.with_part(variables, 'inner', part)


class Mixed(nn.Module):
  """Trained rows of which each is replaced, per sequence with probability p, by a Gaussian one.

  The paper's first idea: trained rows grow until their norm tells them from random ones.

  Attributes:
    vocab_size: V.
    dim: D.
    dtype: of the vectors handed to the model.
  """

  vocab_size: int
  dim: int
  dtype: jnp.dtype = jnp.float32

  def setup(self) -> None:
    """Makes the parameters."""
    init = nn.initializers.normal(1.0)
    rows = declared(init, ('tensor', 'fsdp'))
    self.table = self.param('table', rows, (self.vocab_size, self._table_width()))
    self.begin = self.param('begin', init, (self.dim,))

  def draw(self, key: jax.Array, batch: Mapping[str, jax.Array]) -> Draw:
    """Rows [B, V, D], trained or random."""
    for_choice, for_rows = jax.random.split(key)
    count = batch['inputs'].shape[0]
    random = jax.random.bernoulli(
      for_choice, concealed(batch)[..., None], (count, self.vocab_size, 1)
    )
    rows = jnp.where(random, self._random_rows(for_rows, count), self._trained_rows()[None])
    return Draw(rows.astype(self.dtype), None)

  def _table_width(self) -> int:
    return self.dim

  def _trained_rows(self) -> jax.Array:
    return self.table

  def _random_rows(self, key: jax.Array, count: int) -> jax.Array:
    return jax.random.normal(key, (count, self.vocab_size, self.dim))

  def encode(self, ids: jax.Array, draw: Draw) -> jax.Array:
    """Vectors [B, T, D] of ids [B, T] in 0…V."""
    known = jnp.minimum(ids, self.vocab_size - 1)
    rows = jnp.take_along_axis(draw.rows, known[..., None], axis=1)
    begin = self.begin.astype(self.dtype)[None, None]
    return jnp.where((ids == self.vocab_size)[..., None], begin, rows)

  def nats(self, hidden: jax.Array, targets: jax.Array, draw: Draw) -> jax.Array:
    """Nats [B, T] (float32) of targets [B, T] given hidden [B, T, D]."""
    declare_flops(self, 2 * self.vocab_size * self.dim)
    return jax.vmap(linear_cross_entropy)(hidden * self.dim**-0.5, draw.rows, targets)[0]

  def logits(self, hidden: jax.Array, draw: Draw) -> jax.Array:
    """Logits [B, T, V] (float32) given hidden [B, T, D]."""
    return jnp.einsum(
      'btd,bvd->btv', hidden * self.dim**-0.5, draw.rows, preferred_element_type=jnp.float32
    )


class Interchangeable(Mixed):
  """Rows in two halves: what the type means, and who it is (Işık et al., arXiv 2410.17161).

  A type chosen to be interchangeable has the one trained half that all such types share, and a
  random half of its own; another type has a trained half of its own, and nothing in the other.
  All rows are scaled to norm √D, so that no norm can tell them apart. The cited work fixes which
  tokens are interchangeable; here they are chosen per sequence.
  """

  def setup(self) -> None:
    """Makes the parameters."""
    super().setup()
    self.shared = self.param('shared', nn.initializers.normal(1.0), (self.dim // 2,))

  def _table_width(self) -> int:
    return self.dim // 2

  def _trained_rows(self) -> jax.Array:
    return _scaled(jnp.pad(self.table, ((0, 0), (0, self.dim - self.dim // 2))))

  def _random_rows(self, key: jax.Array, count: int) -> jax.Array:
    size = self.dim - self.dim // 2
    random = jax.random.normal(key, (count, self.vocab_size, size))
    shared = jnp.broadcast_to(self.shared, (count, self.vocab_size, self.dim // 2))
    return _scaled(jnp.concatenate([shared, random], axis=-1))


def _scaled(rows: jax.Array) -> jax.Array:
  return rows * jax.lax.rsqrt(jnp.mean(rows**2, axis=-1, keepdims=True) + 1e-6)
