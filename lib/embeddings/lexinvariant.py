# SPDX-License-Identifier: Apache-2.0
"""Lexinvariant embeddings: fresh random rows for every sequence (arXiv 2305.16349).

A symbol's row is sampled for each sequence and is both its input vector and its row of the LM
head, so relabelled text has the same distribution under the model. No parameter has a vocabulary
axis.

Legend: B batch, T length, V vocabulary, R width of a row, D model width.
"""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lib.embeddings.lm_head import lm_head_loss
from lib.errors import InputError
from lib.parameters import declare_flops, declared
from pallas_kernels.lexinvariant_cross_entropy import lexinvariant_cross_entropy
from pallas_kernels.linear_cross_entropy import linear_cross_entropy
from pallas_kernels.random_rows import random_rows

LAWS = ('gaussian', 'orthonormal')
ROW_SAMPLING = ('per_sequence', 'seeded', 'shared')
FEW = 2**12  # ids that are permuted by pairs


class SampledRows(NamedTuple):
  """The rows of a batch, sampled once for both ends of the model and for all steps of decoding.

  Attributes:
    table: [B, V, R], or [V, R] for rows that all sequences share, each under its own labels.
    labels: int32 [B, V], the row of each id in each sequence; None if id i has row i.
  """

  table: jax.Array
  labels: jax.Array | None


class Seeds(NamedTuple):
  """The rows of a batch as seeds, from which they are computed where they are needed.

  Attributes:
    seeds: uint32 [B, 2].
  """

  seeds: jax.Array


def exchangeable_rows(key: jax.Array, law: str, vocab_size: int, dim: int) -> jax.Array:
  """Exchangeable random rows [V, R] whose entries have variance 1.

  Args:
    key: random key.
    law: 'gaussian' (the paper: independent N(0, 1)) or 'orthonormal' (Haar: uniform over all V
      orthogonal vectors of length √R; V ≤ R).
    vocab_size: V.
    dim: R.

  Raises:
    InputError: an unknown law, or more orthogonal rows than dimensions.
  """
  if law == 'gaussian':
    return jax.random.normal(key, (vocab_size, dim))
  if law != 'orthonormal':
    raise InputError(f'law {law!r} of random rows is not one of {", ".join(LAWS)}.')
  if vocab_size > dim:
    raise InputError(
      f'{vocab_size} symbols cannot have orthonormal rows of width {dim}: choose a width of '
      f'{vocab_size} or more, or law gaussian.'
    )
  q, r = jnp.linalg.qr(jax.random.normal(key, (dim, vocab_size)))
  # LAPACK fixes the signs of R's diagonal, which would distinguish the columns. Without these signs
  # the columns are Haar distributed and exchangeable.
  return (q * jnp.sign(jnp.diagonal(r))[None]).T * dim**0.5


class Lexinvariant(nn.Module):
  """Random rows at both ends of the model.

  The id `vocab_size` is BOS. Its vector is trained, and it is never predicted, so the model stays
  lexinvariant in all symbols that it predicts.

  Attributes:
    vocab_size: V, ids that can be predicted. Nothing trained depends on it.
    dim: D, width of the model.
    row_sampling: 'per_sequence' (the paper: independent rows for each sequence, B·V·R numbers);
      'seeded' (the same, but a sequence has a seed of 64 bits, from which rows are computed where
      they are needed: two numbers per sequence for any V; not orthonormal);
      'shared' (fresh rows for each call under an independent uniform permutation of the ids for
      each sequence: the same law for each sequence, hence the same expected gradient, at V·R
      numbers and an ordinary LM head).
    law: of the rows, see `exchangeable_rows`.
    row_dim: R; D where None. A narrower row is mapped into the model and back by trained maps.
    logit_scale: logits are divided by the square root of the row's width ('dim') or of the
      vocabulary ('vocabulary').
    dtype: of the vectors handed to the model.
  """

  vocab_size: int
  dim: int
  row_sampling: str = 'shared'
  law: str = 'gaussian'
  row_dim: int | None = None
  logit_scale: str = 'dim'
  dtype: jnp.dtype = jnp.float32

  def setup(self) -> None:
    """Makes the parameters, and refuses unknown choices."""
    for name, allowed in (('row_sampling', ROW_SAMPLING), ('logit_scale', ('dim', 'vocabulary'))):
      if getattr(self, name) not in allowed:
        raise InputError(f'{name}={getattr(self, name)!r} is not one of {", ".join(allowed)}.')
    if self.row_sampling == 'seeded' and self.law != 'gaussian':
      raise InputError(f'rows from a seed have no law {self.law!r}: choose gaussian.')
    self.width = self.row_dim or self.dim
    self.bos = self.param('bos', nn.initializers.normal(1.0), (self.dim,))
    # Appendix B: a trained scale and bias on the result of the embedding, one for each channel.
    self.input_scale = self.param('input_scale', nn.initializers.ones, (self.dim,))
    self.input_bias = self.param('input_bias', nn.initializers.zeros, (self.dim,))
    if self.row_dim:
      declare_flops(self, 4 * self.row_dim * self.dim)
      into = nn.initializers.normal(self.row_dim**-0.5)
      back = nn.initializers.normal(0.3 * self.dim**-0.5)  # near-uniform predictions at first
      self.row_in = self.param('row_in', into, (self.row_dim, self.dim))
      self.row_out = self.param('row_out', back, (self.dim, self.row_dim))

  def sample_rows(self, key: jax.Array, batch: Mapping[str, jax.Array]) -> SampledRows | Seeds:
    """Rows for each sequence of a batch; the same key and batch size give the same rows."""
    count = batch['inputs'].shape[0]
    for_rows, for_labels = jax.random.split(key)
    if self.row_sampling == 'seeded':
      return Seeds(jax.random.bits(for_rows, (count, 2), jnp.uint32))
    if self.row_sampling == 'per_sequence':
      keys = jax.random.split(for_rows, count)
      table = jax.vmap(lambda k: exchangeable_rows(k, self.law, self.vocab_size, self.width))(keys)
      return SampledRows(table.astype(self.dtype), None)
    table = exchangeable_rows(for_rows, self.law, self.vocab_size, self.width)
    return SampledRows(table.astype(self.dtype), permutations(for_labels, count, self.vocab_size))

  def encode(self, ids: jax.Array, rows: SampledRows | Seeds) -> jax.Array:
    """Vectors [B, T, D] of ids [B, T] in 0…V."""
    known = jnp.minimum(ids, self.vocab_size - 1)
    if isinstance(rows, Seeds):
      vectors = self._rows(rows, known)
    elif rows.table.ndim == 3:
      vectors = jnp.take_along_axis(rows.table, known[..., None], axis=1)
    else:
      vectors = rows.table[relabel(rows.labels, known)]
    if self.row_dim:
      vectors = jnp.dot(vectors, self.row_in.astype(self.dtype))
    scale, bias, bos = (
      x.astype(self.dtype)[None, None] for x in (self.input_scale, self.input_bias, self.bos)
    )
    return jnp.where((ids == self.vocab_size)[..., None], bos, vectors * scale + bias)

  def token_loss(
    self, hidden: jax.Array, targets: jax.Array, rows: SampledRows | Seeds
  ) -> jax.Array:
    """Nats [B, T] (float32) of targets [B, T] given hidden [B, T, D]."""
    back = self._back(hidden)
    if isinstance(rows, Seeds) or rows.table.ndim == 3:
      declare_flops(self, 2 * self.vocab_size * self.width)
    if isinstance(rows, Seeds):
      return lexinvariant_cross_entropy(back, rows.seeds, targets, vocab_size=self.vocab_size)[0]
    if rows.table.ndim == 3:
      return jax.vmap(linear_cross_entropy)(back, rows.table, targets)[0]
    return lm_head_loss(self, back, rows.table, relabel(rows.labels, targets))

  def logits(self, hidden: jax.Array, rows: SampledRows | Seeds) -> jax.Array:
    """Logits [B, T, V] (float32) given hidden [B, T, D]: for decoding and probes."""
    back, table = self._back(hidden), self.tables(rows)
    return jnp.einsum('btr,bvr->btv', back, table, preferred_element_type=jnp.float32)

  def _rows(self, rows: Seeds, ids: jax.Array) -> jax.Array:
    """Rows [B, N, R] of ids [B or 1, N] under each sequence's seed."""
    return random_rows(rows.seeds[:, None], ids, self.width).astype(self.dtype)

  def tables(self, rows: SampledRows | Seeds) -> jax.Array:
    """Each sequence's rows by its own ids, [B, V, R]."""
    if isinstance(rows, Seeds):
      return self._rows(rows, jnp.arange(self.vocab_size)[None])
    return rows.table if rows.labels is None else rows.table[rows.labels]

  def _back(self, hidden: jax.Array) -> jax.Array:
    """Hidden vectors as queries of the rows, at the fixed scale of the LM head."""
    if self.row_dim:
      hidden = jnp.dot(hidden, self.row_out.astype(self.dtype))
    size = self.vocab_size if self.logit_scale == 'vocabulary' else self.width
    return hidden * size**-0.5


class AnnealedLexinvariant(Lexinvariant):
  """Annealing from trained rows, which identify their symbol, to random rows.

  On random rows alone a small model stays on a plateau for long. Here a row is
  c F(v) + √(1 − c²) E(v) with a trained table F (rows of norm √R) and a coefficient c for each
  sequence, uniform in 0…`batch['revealed']`. A schedule takes the bound to 0: the information of
  a row about its symbol, about c √R standard deviations of chance, fades, and the model must use
  the context. At c = 0 (or without a bound) F plays no part: the parameters, less `annealed_table`,
  are those of a `Lexinvariant`, which is what to evaluate. The rows of a batch take B·V·R numbers
  in every mode.
  """

  def setup(self) -> None:
    """Makes the parameters of `Lexinvariant` and the table."""
    super().setup()
    init = declared(nn.initializers.normal(1.0), ('tensor', 'fsdp'))
    self.annealed_table = self.param('annealed_table', init, (self.vocab_size, self.width))

  def sample_rows(self, key: jax.Array, batch: Mapping[str, jax.Array]) -> SampledRows:
    """As `Lexinvariant.sample_rows`, mixed with the table's rows."""
    key_rows, key_mix = jax.random.split(key)
    rows = self.tables(super().sample_rows(key_rows, batch))
    square = jnp.mean(self.annealed_table**2, axis=-1, keepdims=True)
    table = (self.annealed_table * jax.lax.rsqrt(square + 1e-6)).astype(self.dtype)
    uniform = jax.random.uniform(key_mix, (rows.shape[0], 1, 1), self.dtype)
    c = jnp.asarray(batch.get('revealed', 0.0), self.dtype) * uniform
    return SampledRows(c * table[None] + jnp.sqrt(1 - c**2) * rows, None)


def permutations(key: jax.Array, count: int, size: int) -> jax.Array:
  """Independent uniform permutations [count, size] of 0…size − 1."""
  keys = jax.random.split(key, count)
  if size <= FEW:
    return jax.vmap(lambda k: jax.random.permutation(k, size))(keys)
  # XLA for CPU sorts pairs, as `permutation` does, five times more slowly than single integers: so
  # each integer has its place in the low bits and random bits above. Sorting what was sorted puts
  # new random digits before the old ones; two of the whole random numbers agree in less than one
  # sequence of a million.
  low = (size - 1).bit_length()
  digits = -(-(2 * low + 19) // (32 - low))
  labels = places = jnp.broadcast_to(jnp.arange(size, dtype=jnp.uint32), (count, size))
  for digit in jax.random.split(key, digits):
    bits = jax.random.bits(digit, (count, size), jnp.uint32)
    order = jnp.sort(bits << low | places, axis=-1) & (2**low - 1)
    labels = jnp.take_along_axis(labels, order, axis=1)
  return labels.astype(jnp.int32)


def relabel(labels: jax.Array | None, ids: jax.Array) -> jax.Array:
  """Labels of ids [B, T] by each sequence's labels [B, V], or the ids if None; −1 stays −1."""
  if labels is None:
    return ids
  return jnp.where(ids < 0, ids, jnp.take_along_axis(labels, jnp.maximum(ids, 0), axis=1))
