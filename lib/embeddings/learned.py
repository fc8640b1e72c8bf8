# SPDX-License-Identifier: Apache-2.0
"""The ordinary embedding: one trained row for each id, tied to the LM head or not."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lib.embeddings import table_pairs
from lib.embeddings.lm_head import lm_head_loss
from lib.parameters import declared


class Learned(nn.Module):
  """Trained rows at both ends of the model.

  The id `vocab_size` is BOS. It is read but never predicted, so its row is a separate parameter
  and the vocabulary axis of the table shards evenly.

  Attributes:
    vocab_size: V, ids that can be predicted.
    dim: D, width of a row.
    tied: the LM head uses the input table; otherwise it has its own.
    bias: the LM head adds a trained bias for each id.
    init_std: standard deviation of the initial rows.
    logit_scale: fixed factor of the logits, less the bias.
    z_loss: weight of the squared log of the softmax's denominator, which keeps logits from
      drifting. It is part of the loss alone, not of `token_loss`.
    dtype: of the vectors handed to the model.
  """

  vocab_size: int
  dim: int
  tied: bool = True
  bias: bool = False
  init_std: float = 0.02
  logit_scale: float = 1.0
  z_loss: float = 0.0
  dtype: jnp.dtype = jnp.float32

  def setup(self) -> None:
    """Makes the parameters."""
    init = nn.initializers.normal(self.init_std)
    rows = declared(init, ('tensor', 'fsdp'))
    self.table = self.param('table', rows, (self.vocab_size, self.dim))
    self.bos = self.param('bos', init, (self.dim,))
    if not self.tied:
      self.lm_head_table = self.param('lm_head_table', rows, (self.vocab_size, self.dim))
    if self.bias:
      zeros = declared(nn.initializers.zeros, ('tensor',))
      self.lm_head_bias = self.param('lm_head_bias', zeros, (self.vocab_size,))

  def sample_rows(self, key: jax.Array, batch: Mapping[str, jax.Array]) -> None:
    """Returns None: trained rows are the same for every sequence."""

  def encode(self, ids: jax.Array, rows: None) -> jax.Array:
    """Vectors [B, T, D] of ids [B, T] in 0…V."""
    vectors = self.table[jnp.minimum(ids, self.vocab_size - 1)]
    is_bos = (ids == self.vocab_size)[..., None]
    return jnp.where(is_bos, self.bos[None, None], vectors).astype(self.dtype)

  def token_loss(self, hidden: jax.Array, targets: jax.Array, rows: None) -> jax.Array:
    """Nats [B, T] (float32) of targets [B, T] given hidden [B, T, D]."""
    table, bias = self._lm_head()
    return lm_head_loss(
      self, hidden * self.logit_scale, table.astype(self.dtype), targets, bias, self.z_loss
    )

  def logits(self, hidden: jax.Array, rows: None) -> jax.Array:
    """Logits [B, T, V] (float32) given hidden [B, T, D]: for decoding and probes."""
    table, bias = self._lm_head()
    logits = jnp.einsum(
      'btd,vd->btv',
      hidden * self.logit_scale,
      table.astype(self.dtype),
      preferred_element_type=jnp.float32,
    )
    return logits if bias is None else logits + bias[None, None]

  def _lm_head(self) -> tuple[jax.Array, jax.Array | None]:
    table = self.table if self.tied else self.lm_head_table
    return table, self.lm_head_bias if self.bias else None

  def get_tables(self, variables: table_pairs.Variables) -> table_pairs.Tables:
    """The trained tables; see `lib.embeddings.table_pairs`."""
    params = {name: np.asarray(array) for name, array in variables['params'].items()}
    table = params['table']
    return table_pairs.Tables(table, params.get('lm_head_table', table), params.get('lm_head_bias'))

  def put_tables(
    self, variables: table_pairs.Variables, tables: table_pairs.Tables
  ) -> tuple['Learned', table_pairs.Variables]:
    """Over other tables; a tied embedding stays tied if both are equal."""
    table_pairs.check_width(tables, self.dim)
    tied = self.tied and np.array_equal(tables.input, tables.output)
    dtype = variables['params']['table'].dtype
    params = {'bos': variables['params']['bos'], 'table': np.asarray(tables.input, dtype)}
    if not tied:
      params['lm_head_table'] = np.asarray(tables.output, dtype)
    if tables.bias is not None:
      params['lm_head_bias'] = np.asarray(tables.bias, dtype)
    size = len(tables.input)
    embedding = self.clone(vocab_size=size, tied=tied, bias=tables.bias is not None)
    return embedding, {**variables, 'params': params}
