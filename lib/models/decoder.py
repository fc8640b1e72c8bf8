# SPDX-License-Identifier: Apache-2.0
"""The pre-norm causal decoder of every experiment, and the language model around it.

Legend: B batch, T length, N new tokens, S slots of a cache, D model width, H heads, G heads of
keys and values, K width of a head, F width of the MLP, L layers.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lib.errors import InputError
from lib.models import positions as position_schemes
from lib.models.kv_cache import Cache
from lib.models.packed_attention import packed_attention
from lib.parallel.activations import by_rows
from lib.parameters import declare_flops, declared
from pallas_kernels.attention import attend_with_cache, attention
from pallas_kernels.causal_attention import preferred
from pallas_kernels.implementations import backend

NORMS = ('layer', 'rms')
BIASES = (False, True, 'qkv')


def gelu(x: jax.Array) -> jax.Array:
  """x Φ(x), as PyTorch computes it; `jax.nn.gelu` uses erfc, which is slower on a CPU."""
  wide = x.astype(jnp.float32)
  return (0.5 * wide * (1 + lax.erf(wide * 0.5**0.5))).astype(x.dtype)


ACTIVATIONS: dict[str, Callable] = {
  'relu': nn.relu,
  'gelu': jax.checkpoint(gelu),  # keeps x alone: another array takes as long as erf does
  'gelu_tanh': nn.gelu,
  'silu': nn.silu,
}


def _check(name: str, value: Any, allowed: Any) -> None:
  if value not in allowed:
    raise InputError(f'{name}={value!r} is not one of {", ".join(map(str, allowed))}.')


class Block(nn.Module):
  """One layer: norm, causal attention, norm, MLP, each added to the residual stream."""

  dim: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp_dim: int
  position: str
  rotary: position_schemes.Rotary
  norm: str
  norm_eps: float
  head_norm: bool
  gated: bool
  activation: str
  bias: bool | str
  init_std: float | None
  residual_scale: float
  max_distance: int
  dtype: jnp.dtype
  starts: tuple[int, ...] | None

  @nn.compact
  def __call__(
    self,
    x_btd: jax.Array,
    cache: tuple[jax.Array, jax.Array] | None,
    positions: jax.Array,
    distance: np.ndarray | jax.Array,
    mask: jax.Array,
    bias: jax.Array | None,
    slots: jax.Array | None,
  ) -> tuple[jax.Array, Any]:
    """One layer in the form that `nn.scan` carries: the new residual stream, and to be stacked.

    With a cache of keys and values [B, G, S, K], whose next slots are `slots` [B, T], the keys and
    values [B, T, G, K] are stacked; without, the residual stream is. With `starts`, the distances
    at which buckets begin, attention is the kernel: `mask` is then the segments [B, T], and `bias`
    the table of biases [H, buckets] or None.
    """
    attention = 2 * (self.heads + self.kv_heads) * self.head_dim
    kernels = self.dim * (attention + (3 if self.gated else 2) * self.mlp_dim)
    declare_flops(self, 2 * kernels)
    normed = self._norm('attention_norm')(by_rows(x_btd))
    mixed, cache = self._attention(normed, cache, positions, distance, mask, bias, slots)
    x_btd = by_rows(x_btd + mixed)
    x_btd = by_rows(x_btd + self._mlp(self._norm('mlp_norm')(x_btd)))
    return x_btd, x_btd if cache is None else cache

  def _norm(self, name: str) -> nn.Module:
    return make_norm(self.norm, self.bias is True, self.dtype, name, self.norm_eps)

  def _dense(
    self,
    features: int | tuple,
    name: str,
    axes: tuple[str | None, ...],
    axis: int | tuple = -1,
    scale: float = 1.0,
  ):
    # Applied to rows [B·T, …]: XLA for CPU multiplies matrices faster than stacks of them.
    if self.init_std is None:
      init = nn.initializers.variance_scaling(scale**2, 'fan_in', 'truncated_normal')
    else:
      init = nn.initializers.normal(self.init_std * scale)
    init = declared(init, axes, inputs=np.size(axis))
    bias = self.bias is True or (self.bias == 'qkv' and name in ('query', 'key', 'value'))
    return nn.DenseGeneral(
      features, axis, use_bias=bias, kernel_init=init, dtype=self.dtype, name=name
    )

  def _attention(self, x_btd, cache, positions, distance, mask, bias, slots):
    batch, length, _ = x_btd.shape
    heads = (self.heads, self.head_dim)
    x_nd = x_btd.reshape(-1, self.dim)

    def project(name: str, count: int) -> jax.Array:
      dense = self._dense((count, self.head_dim), name, ('fsdp', 'tensor', None))
      return dense(x_nd).reshape(batch, length, count, self.head_dim)

    q, k, v = (
      project('query', self.heads), project('key', self.kv_heads), project('value', self.kv_heads)
    )  # fmt: skip
    if self.head_norm:
      q, k = self._norm('query_norm')(q), self._norm('key_norm')(k)
    if self.position == 'rotary':
      q, k = (self.rotary.rotate(x, positions) for x in (q, k))
    vectors = None
    if self.position == 'relative':
      relative = position_schemes.RelativeKeys(self.head_dim, self.max_distance, name='relative')
      if self.starts is None:
        bias = relative(q, distance)
      else:
        vectors = relative.vectors
    if self.starts is not None:
      mixed = packed_attention(q, k, v, mask, bias, vectors, self.starts)
    elif cache is None:
      implementation = 'tiled' if backend() == 'cpu' else None
      mixed = attention(q, k, v, bias, mask=mask, implementation=implementation)
    else:
      mixed, cache = attend_with_cache(q, (k, v), cache, slots, bias, mask), (k, v)
    axes = ('tensor', None, 'fsdp')
    out = self._dense(self.dim, 'out', axes, axis=(-2, -1), scale=self.residual_scale)
    return out(mixed.reshape(-1, *heads)).reshape(x_btd.shape), cache

  def _mlp(self, x_btd) -> jax.Array:
    x_nd = x_btd.reshape(-1, self.dim)
    into, out_of = ('fsdp', 'tensor'), ('tensor', 'fsdp')
    inner = ACTIVATIONS[self.activation](self._dense(self.mlp_dim, 'up', into)(x_nd))
    if self.gated:
      inner = inner * self._dense(self.mlp_dim, 'gate', into)(x_nd)
    down = self._dense(self.dim, 'down', out_of, scale=self.residual_scale)
    return down(inner).reshape(x_btd.shape)


def mean_visible(length: int, window: int | None = None) -> float:
  """Tokens that a token of a text of `length` sees, itself among them; the mean over the text."""
  most = length if window is None else min(window, length)
  return most - most * (most - 1) / (2 * length)


def make_norm(
  kind: str, bias: bool, dtype: jnp.dtype, name: str, epsilon: float = 1e-5
) -> nn.Module:
  """LayerNorm or RMSNorm over the last axis."""
  if kind == 'rms':
    return nn.RMSNorm(epsilon=epsilon, dtype=dtype, name=name)
  return nn.LayerNorm(epsilon=epsilon, use_bias=bias, dtype=dtype, name=name)


def scan_layers(
  layer: type[nn.Module], count: int, *, inputs: int, remat: bool, unrolled: bool
) -> Callable[..., nn.Module]:
  """The class of `count` layers, one after the other, under `nn.scan`.

  XLA copies what a loop over layers keeps for the backward pass, on GPUs in float32. Without the
  loop many layers compile longer, and on CPUs rematerialisation frees nothing. On TPUs, where
  neither was timed, the loop stays.

  Args:
    layer: called with the residual stream, its own slice of a cache, and further inputs; returns
      the new stream, and what is stacked over the layers.
    count: L.
    inputs: number of the further inputs, the same for every layer.
    remat: recompute each layer in the backward pass.
    unrolled: whether there need be no loop: in training, not in decoding.
  """
  unrolled &= backend() == 'gpu' or (backend() == 'cpu' and not remat)
  return nn.scan(
    nn.remat(layer, prevent_cse=unrolled) if remat else layer,
    variable_axes={'params': 0, 'flops': 0, 'losses': 0, 'metrics': 0},
    split_rngs={'params': True},
    in_axes=(0, *[nn.broadcast] * inputs),
    length=count,
    unroll=count if unrolled else 1,
  )


class Decoder(nn.Module):
  """A stack of pre-norm blocks under `nn.scan`; the four papers' models are configurations of it.

  Attributes:
    layers, dim, heads, mlp_dim: L, D, H, F.
    head_dim: K; D / H where None.
    kv_heads: G, heads of keys and values, each shared by H / G heads of queries; H where None.
    position: 'learned' (absolute, up to `max_length`), 't5' (one bias shared by all layers),
      'relative' (per-layer vectors of relative distance), or 'rotary'.
    rotary_base: of the slowest angle of 'rotary'.
    rotary_scaling: how 'rotary' stretches to long texts, as Llama 3 does it: factor, low and high
      frequency factor, and the length before stretching; None for no stretching.
    norm: 'layer' or 'rms'.
    norm_eps: added to the variance.
    head_norm: queries and keys are normalised, each over its K, before they are rotated.
    gated: the MLP has a second input projection that multiplies the activation.
    activation: 'relu', 'gelu' (exact), 'gelu_tanh' (GPT-2's) or 'silu'.
    bias: dense layers and LayerNorms have biases; 'qkv' for queries, keys and values alone.
    init_std: of all kernels, or None for variance scaling by fan-in; kernels that write to the
      residual stream are scaled by 1/√(2L) (GPT-2).
    max_length: rows of the learned position table.
    max_distance: largest distance that 't5' and 'relative' distinguish.
    window: tokens that a token sees, itself among them; None for all before it.
    remat: recompute each block in the backward pass.
    dtype: of activations; parameters stay float32.
  """

  layers: int
  dim: int
  heads: int
  mlp_dim: int
  head_dim: int | None = None
  kv_heads: int | None = None
  position: str = 'learned'
  rotary_base: float = 10_000.0
  rotary_scaling: tuple[float, float, float, int] | None = None
  norm: str = 'layer'
  norm_eps: float = 1e-5
  head_norm: bool = False
  gated: bool = False
  activation: str = 'gelu'
  bias: bool | str = False
  init_std: float | None = 0.02
  max_length: int = 1024
  max_distance: int = 128
  window: int | None = None
  remat: bool = False
  dtype: jnp.dtype = jnp.float32
  reads_ids = False
  reads_mask = True

  @nn.compact
  def __call__(
    self,
    x_btd: jax.Array,
    positions: jax.Array,
    segments: jax.Array | None,
    cache: Cache | None = None,
    mask: jax.Array | None = None,
  ) -> tuple[jax.Array, Any]:
    """Hidden vectors [B, T, D], and the residual streams [L, B, T, D] or the longer cache.

    Args:
      x_btd: input vectors.
      positions: [B, T] position of each token in its document.
      segments: [B, T] document number in the row; a token sees only its own; 0 is padding.
      cache: what was read before, with these tokens announced; then segments are None.
      mask: bool [B, T, S], with a cache: slots that each token sees, its own among them.
    """
    _check('position', self.position, position_schemes.SCHEMES)
    _check('norm', self.norm, NORMS)
    _check('activation', self.activation, ACTIVATIONS)
    _check('bias', self.bias, BIASES)
    heads, kv_heads = self.heads, self.kv_heads or self.heads
    if heads % kv_heads:
      raise InputError(f'{heads} heads are no multiple of kv_heads={kv_heads}.')
    length = x_btd.shape[1] if cache is None else cache.keys.shape[3]
    head_dim = self.head_dim or self.dim // self.heads
    x_btd = x_btd.astype(self.dtype)
    bias = None
    if self.position == 'learned':
      if cache is None and length > self.max_length:
        raise InputError(f'{length} tokens exceed the {self.max_length} learned positions.')
      init = nn.initializers.normal(self.init_std or 0.02)
      table = self.param('positions', init, (self.max_length, self.dim))
      x_btd = x_btd + table[positions].astype(self.dtype)
    if cache is None:
      assert segments is not None
      pairs = self.layers * mean_visible(length, self.window)
      declare_flops(self, 4 * heads * head_dim * pairs)  # scores, and sums of values
      distance: Any = position_schemes.causal_distances(length)
      mask = (segments[:, :, None] == segments[:, None, :]) & (distance >= 0)
    else:
      assert mask is not None
      distance = positions[:, :, None] - cache.positions[:, None]
    if self.window is not None:
      mask &= distance < self.window
    # The kernels know no window.
    kernel = cache is None and not self.window and preferred(head_dim, self.dtype) != 'xla'
    starts: tuple[int, ...] | None = () if kernel else None
    visible: Any = segments if kernel else mask[:, None]
    if self.position == 't5':
      t5 = position_schemes.T5Bias(self.heads, max_distance=self.max_distance, name='t5')
      if kernel:
        bias, starts = t5.table, t5.starts()
      else:
        bias = t5(distance)
    plain = cache is None and not self.is_initializing()
    stack = scan_layers(Block, self.layers, inputs=5, remat=self.remat, unrolled=plain)(
      dim=self.dim,
      heads=heads,
      kv_heads=kv_heads,
      head_dim=head_dim,
      mlp_dim=self.mlp_dim,
      position=self.position,
      rotary=position_schemes.Rotary(self.rotary_base, self.rotary_scaling),
      norm=self.norm,
      norm_eps=self.norm_eps,
      head_norm=self.head_norm,
      gated=self.gated,
      activation=self.activation,
      bias=self.bias,
      init_std=self.init_std,
      residual_scale=(2 * self.layers) ** -0.5,
      max_distance=self.max_distance,
      dtype=self.dtype,
      starts=starts,
      name='blocks',
    )
    read = None if cache is None else (cache.keys, cache.values)
    slots = None if cache is None else cache.next_slots(x_btd.shape[1])
    x_btd, stacked = stack(x_btd, read, positions, distance, visible, bias, slots)
    norm = make_norm(self.norm, self.bias is True, self.dtype, 'final_norm', self.norm_eps)
    return norm(x_btd), stacked if cache is None else cache.append(*stacked)

  def empty_cache(self, batch: int, length: int) -> Cache:
    """A cache for `batch` texts of up to `length` tokens, none of which has begun."""
    head_dim = self.head_dim or self.dim // self.heads
    shape = (self.layers, batch, self.kv_heads or self.heads, length, head_dim)
    return Cache.empty(shape, self.dtype, self.dtype)


class LanguageModel(nn.Module):
  """An embedding and a decoder joined: ids in, nats out.

  Attributes:
    embedding: a module with `sample_rows`, `encode`, `token_loss` and `logits` (lib/embeddings).
    decoder: vectors to vectors: `Decoder`, `RecurrentDecoder` or `Hierarchy`.
  """

  embedding: nn.Module
  decoder: nn.Module

  def __call__(self, batch: Mapping[str, jax.Array], key: jax.Array) -> jax.Array:
    """Nats [B, T] of `batch['targets']`.

    Targets of −1 are ignored. Outputs at padding (segment 0) are undefined.

    Args:
      batch: int32 arrays [B, T] named inputs, targets, segments, positions.
      key: of the embedding's rows, if it samples them.
    """
    rows = self.embedding.sample_rows(key, batch)
    return self.embedding.token_loss(self.hidden(batch, rows)[0], batch['targets'], rows)

  def logits(self, batch: Mapping[str, jax.Array], key: jax.Array) -> jax.Array:
    """Logits [B, T, V] after each input, for decoding and probes.

    The same key and batch size give the same rows, so that decoding can continue with them.
    """
    rows = self.embedding.sample_rows(key, batch)
    return self.embedding.logits(self.hidden(batch, rows)[0], rows)

  def logits_at(
    self, batch: Mapping[str, jax.Array], places: jax.Array, key: jax.Array
  ) -> jax.Array:
    """Logits [B, P, V] after the inputs at places [B, P]; no other logits are computed."""
    rows = self.embedding.sample_rows(key, batch)
    hidden = jnp.take_along_axis(self.hidden(batch, rows)[0], places[..., None], axis=1)
    return self.embedding.logits(hidden, rows)

  def hidden(self, batch: Mapping[str, jax.Array], rows: Any) -> tuple[jax.Array, jax.Array]:
    """Final hidden vectors [B, T, D] and residual streams [L, B, T, D] given those rows."""
    vectors = self.embedding.encode(batch['inputs'], rows)
    ids = self._ids(batch['inputs'])
    return self.decoder(vectors, batch['positions'], batch['segments'], **ids)

  def extend(
    self,
    ids: jax.Array,
    positions: jax.Array,
    mask: jax.Array | None,
    cache: Cache,
    rows: Any = None,
  ) -> tuple[jax.Array, Cache]:
    """Reads N more tokens of each text: hidden vectors [B, N, D], and the cache with them.

    Prefill, one step and the verification of a tree of drafts are all this call. The cache must
    have N empty slots: tokens beyond it are not kept, and their vectors are undefined.

    Args:
      ids: int32 [B, N], which take the next N slots in this order.
      positions: int32 [B, N], of each token in its text.
      mask: bool [B, N, S], slots that each token sees, its own among them; None for all tokens
        that are not after it.
      cache: what was read before.
      rows: the embedding's sampled rows for these texts, if it samples any.
    """
    cache = cache.announce(ids, positions)
    if mask is None:
      mask = cache.causal_mask(positions)
    if back := getattr(self.embedding, 'back', 0):
      vectors = self.embedding.encode_after(ids, _ids_before(cache, positions, mask, back), rows)
    else:
      vectors = self.embedding.encode(ids, rows)
    return self.decoder(vectors, positions, None, cache, mask, **self._ids(ids))

  def _ids(self, ids: jax.Array) -> dict[str, jax.Array]:
    """The ids, for a decoder that reads them next to their vectors."""
    return {'ids': ids} if self.decoder.reads_ids else {}


def _ids_before(cache: Cache, positions: jax.Array, mask: jax.Array, back: int) -> jax.Array:
  """The visible ids 1…`back` positions before each token, int32 [B, N, back]; −1 for none."""
  found = []
  for distance in range(1, back + 1):
    there = mask & (cache.positions[:, None] == positions[:, :, None] - distance)
    ids = jnp.take_along_axis(cache.ids, jnp.argmax(there, axis=-1), axis=1)
    found.append(jnp.where(there.any(axis=-1), ids, -1))
  return jnp.stack(found, axis=-1)
