# SPDX-License-Identifier: Apache-2.0
"""A language model that reads one text token by token, for sampling."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lib.models.decoder import LanguageModel


@functools.cache
def _step(model: LanguageModel) -> jax.stages.Wrapped:
  """`model.step`, compiled once for all equal models."""
  return jax.jit(functools.partial(model.apply, method='step'))


class Reader:
  """Logits of the next token after each token read, with a cache.

  When the cache is full, the text is forgotten but for its newer half, read anew as a text of its
  own, as the model has seen texts begin in training.

  Args:
    model: the module.
    variables: of the model.
    begin: the id that begins a text, its vocabulary's size.
    length: tokens that the cache holds, the begin among them: as many as in training.
    window: tokens of a window; what is kept begins where one does.
    draw: the embedding's draw for a batch of one text; None for rows that draw nothing.
  """

  def __init__(
    self,
    model: LanguageModel,
    variables: Mapping[str, Any],
    begin: int,
    length: int,
    window: int = 1,
    draw: Any = None,
  ):
    self._step, self._draw = _step(model), draw
    self._empty = lambda: model.decoder.empty_cache(1, length)
    self._variables, self._begin, self._length = variables, begin, length
    self._forgotten = -(-length // 2 // window) * window  # whole windows
    self._cache = self._empty()
    self._ids: list[int] = []

  def __call__(self, token: int) -> np.ndarray:
    """Reads one more id; logits [V] of what follows."""
    if len(self._ids) == self._length:
      recent = self._ids[1 + self._forgotten :]
      self._cache, self._ids = self._empty(), []
      for one in [self._begin, *recent]:
        self._read(one)
    return self._read(token)

  def _read(self, token: int) -> np.ndarray:
    self._ids.append(token)
    ids = jnp.full(1, token, jnp.int32)
    logits, self._cache = self._step(self._variables, ids, self._cache, self._draw)
    return np.asarray(logits[0])
