# SPDX-License-Identifier: Apache-2.0
"""The ordinary embedding: one trained row for each id, tied to the readout or not."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lib.embeddings import table_pairs
from lib.embeddings.readout import readout_nats
from lib.parameters import declared


class Learned(nn.Module):
  """Trained rows at both ends of the model.

  The id `vocab_size` stands for "begin of document": it is read but never predicted, so its row
  is a parameter of its own and the table keeps a vocabulary axis that shards evenly.

  Attributes:
    vocab_size: V, ids that can be predicted.
    dim: D, width of a row.
    tied: the readout uses the input table; otherwise it has its own.
    bias: the readout adds a trained bias for each id.
    init_std: standard deviation of the initial rows.
    readout_scale: fixed factor of the logits, less the bias.
    z_loss: weight of the squared log of the softmax's denominator, which keeps logits from
      drifting. It is part of the loss alone, not of `nats`.
    dtype: of the vectors handed to the model.
  """

  vocab_size: int
  dim: int
  tied: bool = True
  bias: bool = False
  init_std: float = 0.02
  readout_scale: float = 1.0
  z_loss: float = 0.0
  dtype: jnp.dtype = jnp.float32

  def setup(self) -> None:
    """Makes the parameters."""
    init = nn.initializers.normal(self.init_std)
    rows = declared(init, ('tensor', 'fsdp'))
    self.table = self.param('table', rows, (self.vocab_size, self.dim))
    self.begin = self.param('begin', init, (self.dim,))
    if not self.tied:
      self.readout_table = self.param('readout_table', rows, (self.vocab_size, self.dim))
    if self.bias:
      zeros = declared(nn.initializers.zeros, ('tensor',))
      self.readout_bias = self.param('readout_bias', zeros, (self.vocab_size,))

  def draw(self, key: jax.Array, batch: Mapping[str, jax.Array]) -> None:
    """Nothing: trained rows are the same for every sequence."""

  def encode(self, ids: jax.Array, draw: None) -> jax.Array:
    """Vectors [B, T, D] of ids [B, T] in 0…V."""
    rows = self.table[jnp.minimum(ids, self.vocab_size - 1)]
    return jnp.where((ids == self.vocab_size)[..., None], self.begin[None, None], rows).astype(
      self.dtype
    )

  def nats(self, hidden: jax.Array, targets: jax.Array, draw: None) -> jax.Array:
    """Nats [B, T] (float32) of targets [B, T] given hidden [B, T, D]."""
    table, bias = self._readout()
    return readout_nats(
      self, hidden * self.readout_scale, table.astype(self.dtype), targets, bias, self.z_loss
    )

  def logits(self, hidden: jax.Array, draw: None) -> jax.Array:
    """Logits [B, T, V] (float32) given hidden [B, T, D]: for decoding and probes."""
    table, bias = self._readout()
    logits = jnp.einsum(
      'btd,vd->btv',
      hidden * self.readout_scale,
      table.astype(self.dtype),
      preferred_element_type=jnp.float32,
    )
    return logits if bias is None else logits + bias[None, None]

  def _readout(self) -> tuple[jax.Array, jax.Array | None]:
    table = self.table if self.tied else self.readout_table
    return table, self.readout_bias if self.bias else None

  def get_tables(self, variables: table_pairs.Variables) -> table_pairs.Tables:
    """The trained tables; see `lib.embeddings.table_pairs`."""
    params = {name: np.asarray(array) for name, array in variables['params'].items()}
    table = params['table']
    return table_pairs.Tables(table, params.get('readout_table', table), params.get('readout_bias'))

  def put_tables(
    self, variables: table_pairs.Variables, tables: table_pairs.Tables
  ) -> tuple['Learned', table_pairs.Variables]:
    """Over other tables; a tied embedding stays tied if both are equal."""
    table_pairs.check_width(tables, self.dim)
    tied = self.tied and np.array_equal(tables.input, tables.output)
    dtype = variables['params']['table'].dtype
    params = {'begin': variables['params']['begin'], 'table': np.asarray(tables.input, dtype)}
    if not tied:
      params['readout_table'] = np.asarray(tables.output, dtype)
    if tables.bias is not None:
      params['readout_bias'] = np.asarray(tables.bias, dtype)
    size = len(tables.input)
    embedding = self.clone(vocab_size=size, tied=tied, bias=tables.bias is not None)
    return embedding, {**variables, 'params': params}
