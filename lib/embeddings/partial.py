# SPDX-License-Identifier: Apache-2.0
"""Partly lexinvariant embeddings: trained rows, some of them hidden in each sequence.

Section 3.6 of arXiv 2305.16349 (`PartlyRandom`, which fails, and `PermutedIds`, used instead) and
the split rows of arXiv 2410.17161 (`Interchangeable`).

A batch's field `hidden_probability`, [B] or a scalar, is the probability p that the identity of a
type (or of an occurrence) is hidden in a sequence. It is 0 without the field.

Legend: B batch, T length, V vocabulary, D model width.
"""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lib.embeddings import table_pairs
from lib.embeddings.learned import Learned
from lib.embeddings.lexinvariant import SampledRows, permutations, relabel
from lib.errors import InputError
from lib.parameters import declare_flops, declared
from pallas_kernels.linear_cross_entropy import linear_cross_entropy

PER = ('type', 'occurrence')


def hidden_probability(batch: Mapping[str, jax.Array]) -> jax.Array:
  """p for each sequence of a batch: [B, 1]."""
  count = batch['inputs'].shape[0]
  return jnp.broadcast_to(jnp.asarray(batch.get('hidden_probability', 0.0)), (count,))[:, None]


class Relabelling(NamedTuple):
  """Labels [B, V] of ids, and whether each occurrence [B, T + 1] is relabelled."""

  labels: jax.Array
  relabelled: jax.Array


class PermutedIds(nn.Module):
  """Trained rows under the augmentation B_p: an id becomes π(id) with probability p.

  π is a uniform permutation for each sequence. Per type, an id is relabelled throughout its
  sequence or not at all; per occurrence, each occurrence is chosen independently. The map is not a
  bijection: the label of one id may be another id that was kept. For p = 0 this is `inner`.

  Attributes:
    inner: the embedding of the labels.
    per: 'type' or 'occurrence' (the paper's text leaves open which).
  """

  inner: Learned
  per: str = 'type'

  @property
  def vocab_size(self) -> int:
    """V of `inner`."""
    return self.inner.vocab_size

  def sample_rows(self, key: jax.Array, batch: Mapping[str, jax.Array]) -> Relabelling:
    """Labels and choices for each sequence of a batch."""
    if self.per not in PER:
      raise InputError(f'per={self.per!r} is not one of {", ".join(PER)}.')
    count, length = batch['inputs'].shape
    for_labels, for_choice = jax.random.split(key)
    size, p = self.inner.vocab_size, hidden_probability(batch)
    labels = permutations(for_labels, count, size)
    if self.per == 'occurrence':
      return Relabelling(labels, jax.random.bernoulli(for_choice, p, (count, length + 1)))
    chosen = jax.random.bernoulli(for_choice, p, (count, size))
    everywhere = jnp.ones((count, length + 1), bool)
    return Relabelling(jnp.where(chosen, labels, jnp.arange(size)[None]), everywhere)

  def encode(self, ids: jax.Array, rows: Relabelling) -> jax.Array:
    """Vectors [B, T, D] of ids [B, T] in 0…V, relabelled."""
    bos = ids == self.inner.vocab_size
    labels = relabel(rows.labels, jnp.minimum(ids, self.inner.vocab_size - 1))
    kept = bos | ~rows.relabelled[:, : ids.shape[1]]
    return self.inner.encode(jnp.where(kept, ids, labels), None)

  def token_loss(self, hidden: jax.Array, targets: jax.Array, rows: Relabelling) -> jax.Array:
    """Nats [B, T] of the relabelled targets; each is the next position's input."""
    relabelled = rows.relabelled[:, 1 : targets.shape[1] + 1]
    return self.inner.token_loss(
      hidden, jnp.where(relabelled, relabel(rows.labels, targets), targets), None
    )  # fmt: skip

  def logits(self, hidden: jax.Array, rows: Relabelling) -> jax.Array:
    """Logits [B, T, V] of ids by the labels of their types."""
    logits = self.inner.logits(hidden, None)
    if self.per == 'occurrence':
      return logits
    return jnp.take_along_axis(logits, rows.labels[:, None], axis=-1)

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


class PartlyRandom(nn.Module):
  """Trained rows of which each is replaced, per sequence with probability p, by a Gaussian one.

  The paper's first idea. It fails: trained rows grow until their norm distinguishes them.

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
    self.bos = self.param('bos', init, (self.dim,))

  def sample_rows(self, key: jax.Array, batch: Mapping[str, jax.Array]) -> SampledRows:
    """Rows [B, V, D], trained or random."""
    for_choice, for_rows = jax.random.split(key)
    count = batch['inputs'].shape[0]
    random = jax.random.bernoulli(
      for_choice, hidden_probability(batch)[..., None], (count, self.vocab_size, 1)
    )
    table = jnp.where(random, self._random_rows(for_rows, count), self._trained_rows()[None])
    return SampledRows(table.astype(self.dtype), None)

  def _table_width(self) -> int:
    return self.dim

  def _trained_rows(self) -> jax.Array:
    return self.table

  def _random_rows(self, key: jax.Array, count: int) -> jax.Array:
    return jax.random.normal(key, (count, self.vocab_size, self.dim))

  def encode(self, ids: jax.Array, rows: SampledRows) -> jax.Array:
    """Vectors [B, T, D] of ids [B, T] in 0…V."""
    known = jnp.minimum(ids, self.vocab_size - 1)
    vectors = jnp.take_along_axis(rows.table, known[..., None], axis=1)
    bos = self.bos.astype(self.dtype)[None, None]
    return jnp.where((ids == self.vocab_size)[..., None], bos, vectors)

  def token_loss(self, hidden: jax.Array, targets: jax.Array, rows: SampledRows) -> jax.Array:
    """Nats [B, T] (float32) of targets [B, T] given hidden [B, T, D]."""
    declare_flops(self, 2 * self.vocab_size * self.dim)
    return jax.vmap(linear_cross_entropy)(hidden * self.dim**-0.5, rows.table, targets)[0]

  def logits(self, hidden: jax.Array, rows: SampledRows) -> jax.Array:
    """Logits [B, T, V] (float32) given hidden [B, T, D]."""
    return jnp.einsum(
      'btd,bvd->btv', hidden * self.dim**-0.5, rows.table, preferred_element_type=jnp.float32
    )


class Interchangeable(PartlyRandom):
  """Rows in two halves, for the meaning and for the identity of a type (Işık et al., arXiv
  2410.17161).

  A type chosen to be interchangeable has the one trained half that all such types share, and a
  random half of its own; another type has a trained half of its own, and nothing in the other.
  All rows are scaled to norm √D, so norms do not distinguish them. The cited work fixes which
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
