# SPDX-License-Identifier: Apache-2.0
"""Routers decide where chunks of tokens begin.

A router is a module that maps tokens, `Seen`, to the probability [B, N] that each of them begins a
chunk. A chunk begins where it is above 1/2, and at the beginning of a document. A router that has a
model of its own also has that model's cache.

Legend: B batch, T length, N new tokens, S slots of a cache, D model width.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lib.errors import InputError
from lib.parameters import declare_flops, declared

NO_IDS = 'this router reads ids, but a second stage has no ids: use a learned router.'


class Seen(NamedTuple):
  """Tokens, and what a router may read of each of them.

  Attributes:
    vectors: [B, N, D] of the tokens.
    before: [B, N, D] of the token before each; undefined at a document's first.
    ids: int32 [B, N]; None in a second stage, whose tokens are chunks.
    ids_before: int32 [B, N], ids of the tokens before; None as above.
    ages: int32 [B, N], tokens of the document before each.
    segments: int32 [B, N], or None with a cache.
  """

  vectors: jax.Array
  before: jax.Array
  ids: jax.Array | None
  ids_before: jax.Array | None
  ages: jax.Array
  segments: jax.Array | None


class Router(nn.Module):
  """Decides where chunks begin, by a rule or by learned weights."""

  reads_ids = False

  def __call__(self, seen: Seen, cache: Any = None) -> tuple[jax.Array, Any]:
    """Probabilities [B, N], float32, and the longer cache of a router that has one."""
    raise NotImplementedError

  def empty_cache(self, batch: int, length: int) -> Any:
    """A cache for texts that have not begun, or None."""


class Cosine(Router):
  """H-Net's learned router: p = (1 − cos(W_q x_t, W_k x_{t−1})) / 2; W are the identity at first.

  Attributes:
    dim: D.
  """

  dim: int

  @nn.compact
  def __call__(self, seen: Seen, cache: Any = None) -> tuple[jax.Array, Any]:
    """As `Router`."""
    declare_flops(self, 2 * 2 * self.dim**2)
    identity = declared(_identity, ('fsdp', 'tensor'))
    dense = lambda name: nn.Dense(self.dim, use_bias=False, kernel_init=identity, name=name)
    query = dense('query')(seen.vectors.astype(jnp.float32))
    key = dense('key')(seen.before.astype(jnp.float32))
    length = lambda x: jnp.sqrt((x**2).sum(axis=-1) + 1e-12)
    cosine = (query * key).sum(axis=-1) / (length(query) * length(key))
    return jnp.clip((1 - cosine) / 2, 0, 1), None


def _identity(key: jax.Array, shape: tuple[int, int], dtype: jnp.dtype) -> jax.Array:
  return jnp.eye(shape[0], dtype=dtype)


def _marks(marked: tuple[int, ...], ids: jax.Array | None) -> jax.Array:
  """1 at ids [B, N] that are among the marked, 0 at others."""
  if ids is None:
    raise InputError(NO_IDS)
  table = np.zeros(max(marked) + 2, np.float32)
  table[list(marked)] = 1
  return jnp.asarray(table)[jnp.minimum(ids, len(table) - 1)]


class Stride(Router):
  """Every `size`-th token of a document begins a chunk.

  Attributes:
    size: tokens of a chunk.
  """

  size: int

  def __call__(self, seen: Seen, cache: Any = None) -> tuple[jax.Array, Any]:
    """As `Router`: 0 or 1."""
    if self.size < 1:
      raise InputError(f'a stride must be 1 or more; got {self.size}.')
    return (seen.ages % self.size == 0).astype(jnp.float32), None


class Spaces(Router):
  """SpaceByte's rule: a chunk begins at a token of `ids` if the token before is not of `ids`.

  Attributes:
    ids: such as those of `spacelike`.
  """

  ids: tuple[int, ...]
  reads_ids = True

  def __call__(self, seen: Seen, cache: Any = None) -> tuple[jax.Array, Any]:
    """As `Router`: 0 or 1."""
    return _marks(self.ids, seen.ids) * (1 - _marks(self.ids, seen.ids_before)), None


class Marked(Router):
  """A chunk begins at each token of `ids`: known borders, such as those of subwords.

  Bolmo (arXiv 2512.15586) cuts bytes where the tokens of a subword tokenizer end: the last byte of
  a subword begins the chunk that helps to predict the next one.

  Attributes:
    ids: such as `ENDS` of lib.tokenizers.token_ends.
  """

  ids: tuple[int, ...]
  reads_ids = True

  def __call__(self, seen: Seen, cache: Any = None) -> tuple[jax.Array, Any]:
    """As `Router`: 0 or 1."""
    return _marks(self.ids, seen.ids), None


class Entropy(Router):
  """A chunk begins at a token after which a small model of tokens is uncertain of the next one.

  BLT (arXiv 2412.09871) begins a patch with the uncertain byte itself. Here the byte before it
  begins the chunk, as the space before a word does, so that the chunk helps to predict it.

  Attributes:
    model: a trained language model, which the loss does not train.
    threshold: entropy of the next token, in nats, above which a chunk begins. It is the initial
      value of a parameter without a gradient, so that models side by side can have their own.
  """

  model: nn.Module
  threshold: float = 0.0
  reads_ids = True

  @nn.compact
  def __call__(self, seen: Seen, cache: Any = None) -> tuple[jax.Array, Any]:
    """As `Router`: 0 or 1."""
    if seen.ids is None:
      raise InputError(NO_IDS)
    model: Any = self.model
    threshold = self.param('threshold', nn.initializers.constant(self.threshold), ())
    if cache is None:
      batch = {'inputs': seen.ids, 'positions': seen.ages, 'segments': seen.segments}
      hidden = model.hidden(batch, None)[0]
    else:
      hidden, cache = model.extend(seen.ids, seen.ages, None, cache)
    uncertain = entropy(model.embedding.logits(hidden, None)) > threshold
    return uncertain.astype(jnp.float32), cache

  def empty_cache(self, batch: int, length: int) -> Any:
    """That of the model."""
    return self.model.decoder.empty_cache(batch, length)


def entropy(logits: jax.Array) -> jax.Array:
  """Of the softmax of logits [..., V], in nats."""
  logs = jax.nn.log_softmax(logits)
  return -(jnp.exp(logs) * logs).sum(axis=-1)


def spacelike(pieces: Iterable[bytes]) -> tuple[int, ...]:
  """The ids whose piece ends in a byte that is no letter, digit or part of a longer character."""
  ends = lambda piece: piece[-1:].isalnum() or piece[-1:] >= b'\x80'
  return tuple(i for i, piece in enumerate(pieces) if piece and not ends(piece))
