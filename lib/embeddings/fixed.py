# SPDX-License-Identifier: Apache-2.0
"""Input rows that are given, frozen or as the start of training, with a trained LM head.

All arms of arXiv 2507.04886 are this one module; `lib.glyphs.row_kinds` makes their rows.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lib.embeddings import table_pairs
from lib.embeddings.lm_head import lm_head_loss
from lib.errors import InputError
from lib.parameters import declare, declare_flops, declared

AXES = ('tensor', 'fsdp')  # of tables


class FixedRows(nn.Module):
  """Given input rows and an untied, trained LM head.

  A frozen table is the variable `frozen/table`: part of the state, so an argument of every compiled
  step, but not a parameter, so without gradient and optimiser state. The id `vocab_size`, BOS, has
  no given row: its input vector is always trained.

  Attributes:
    vocab_size: V, ids that can be predicted.
    dim: D, width of the model.
    rows: seed -> the first rows, float [V, R]. For R ≠ D a trained map without bias takes them to
      D. The seed comes from the module's own key, so that each replica under `vmap` has its own.
      None for a module whose rows are in its variables already: they start as zeros.
    frozen: the rows stay; otherwise they are where training starts.
    init_std: standard deviation of the initial LM head and BOS vector.
    dtype: of the vectors handed to the model.
    width: R where `rows` is None; D where both are.
  """

  vocab_size: int
  dim: int
  rows: Callable[[int], Any] | None = None
  frozen: bool = True
  init_std: float = 0.02
  dtype: jnp.dtype = jnp.float32
  width: int | None = None

  def setup(self) -> None:
    """Makes the variables; raises InputError for rows of another vocabulary."""
    init = nn.initializers.normal(self.init_std)
    # Before the table, which takes a key only where it is made: so both are equal in all arms.
    self.bos = self.param('bos', init, (self.dim,))
    lm_head = declared(init, AXES)
    self.lm_head_table = self.param('lm_head_table', lm_head, (self.vocab_size, self.dim))
    if self.frozen:
      self.table = self.variable(
        'frozen', 'table', lambda: self._rows(self.make_rng('params'))
      ).value
    else:
      self.table = self.param('table', self._rows)
    width = self.table.shape[1]
    if width != self.dim:
      declare_flops(self, 2 * width * self.dim)
      into = nn.initializers.normal(width**-0.5)
      self.row_in = self.param('row_in', into, (width, self.dim))

  def _rows(self, key: jax.Array) -> Any:
    return declare(self._made(key), AXES)

  def _made(self, key: jax.Array) -> jax.Array:
    if self.rows is None:
      return jnp.zeros((self.vocab_size, self.width or self.dim))
    shape = self._array(0).shape
    if len(shape) != 2 or shape[0] != self.vocab_size:
      raise InputError(
        f'rows of shape {shape} do not fit {self.vocab_size} ids: render them from the '
        'tokens of the tokenizer in use.'
      )
    # A plain array would be written into the compiled program of the initial state.
    return jax.pure_callback(
      lambda seed: self._array(int(seed)),
      jax.ShapeDtypeStruct(shape, jnp.float32),
      jax.random.bits(key),
      vmap_method='sequential',
    )

  def _array(self, seed: int) -> np.ndarray:
    assert self.rows is not None
    return np.asarray(self.rows(seed), np.float32)

  def sample_rows(self, key: jax.Array, batch: Mapping[str, jax.Array]) -> None:
    """Returns None: the rows are the same for every sequence."""

  def encode(self, ids: jax.Array, rows: None) -> jax.Array:
    """Vectors [B, T, D] of ids [B, T] in 0…V."""
    known = jnp.minimum(ids, self.vocab_size - 1)
    vectors = self.table[known].astype(self.dtype)
    if vectors.shape[-1] != self.dim:
      vectors = jnp.dot(vectors, self.row_in.astype(self.dtype))
    bos = self.bos.astype(self.dtype)[None, None]
    return jnp.where((ids == self.vocab_size)[..., None], bos, vectors)

  def token_loss(self, hidden: jax.Array, targets: jax.Array, rows: None) -> jax.Array:
    """Nats [B, T] (float32) of targets [B, T] given hidden [B, T, D]."""
    return lm_head_loss(self, hidden, self.lm_head_table.astype(self.dtype), targets)

  def logits(self, hidden: jax.Array, rows: None) -> jax.Array:
    """Logits [B, T, V] (float32) given hidden [B, T, D]: for decoding and probes."""
    table = self.lm_head_table.astype(self.dtype)
    return jnp.einsum('btd,vd->btv', hidden, table, preferred_element_type=jnp.float32)

  def as_data(self, variables: table_pairs.Variables) -> 'FixedRows':
    """The module without the function that made its rows, which are in `variables`."""
    width = self._table(variables).shape[1]
    return self.clone(rows=None, width=None if width == self.dim else width)

  def _table(self, variables: table_pairs.Variables) -> Any:
    return variables['frozen' if self.frozen else 'params']['table']

  def get_tables(self, variables: table_pairs.Variables) -> table_pairs.Tables:
    """The rows, mapped to the model's width, and the LM head; see `lib.embeddings.table_pairs`."""
    params, table = variables['params'], self._table(variables)
    if 'row_in' in params:
      table = jnp.dot(table, params['row_in'])
    return table_pairs.Tables(np.asarray(table), np.asarray(params['lm_head_table']))

  def put_tables(
    self, variables: table_pairs.Variables, tables: table_pairs.Tables
  ) -> tuple['FixedRows', table_pairs.Variables]:
    """Over other rows of the model's width, which stay frozen if these were."""
    table_pairs.check_width(tables, self.dim)
    if tables.bias is not None:
      raise InputError('the LM head over given rows has no bias: give tables whose bias is None.')
    params = variables['params']
    dtype = params['lm_head_table'].dtype
    trained = {'bos': params['bos'], 'lm_head_table': np.asarray(tables.output, dtype)}
    rows = {'table': np.asarray(tables.input, dtype)}
    embedding = self.clone(vocab_size=len(tables.input), rows=None, width=None)
    if self.frozen:
      return embedding, {'params': trained, 'frozen': rows}
    return embedding, {'params': trained | rows}
