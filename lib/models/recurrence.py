# SPDX-License-Identifier: Apache-2.0
"""Layers of gated linear recurrence or of convolution, with the interface of a decoder.

They replace the Mamba-2 layers of H-Net's outer networks (arXiv 2507.07955), without the
expansion of the state.

Legend: B batch, T length, N new tokens, S slots of a cache, D model width, E inner width (2 D),
L layers.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from lib.errors import InputError
from lib.models.decoder import scan_layers
from lib.models.kv_cache import Cache
from lib.parallel.activations import by_rows
from lib.parallel.mesh import BATCH_AXES, TENSOR, batch_devices
from lib.parameters import declare_flops, declared
from pallas_kernels.linear_recurrence import linear_recurrence, preferred

KINDS = ('recurrence', 'convolution')
TAPS = 4  # inputs of the convolution, the current one included
FORGETS = (0.5, 0.98)  # share of the state that the first and the last channel keep at the start


def ages(segments: jax.Array) -> jax.Array:
  """The number of earlier tokens of its document, for each token of segments [B, T]."""
  places = jnp.arange(segments.shape[1])[None]
  before = jnp.pad(segments, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
  return places - jax.lax.cummax(jnp.where(segments != before, places, 0), axis=1)


def last_slots(kept: jax.Array, lengths: jax.Array, count: int) -> jax.Array:
  """The newest `count` of what is kept in slots [B, S, E], [B, count, E]; 0 before a text."""
  slots = lengths[:, None] + jnp.arange(-count, 0)[None]
  found = jnp.take_along_axis(kept, jnp.maximum(slots, 0)[..., None], axis=1)
  return jnp.where((slots >= 0)[..., None], found, 0)


def recurrence(gates: jax.Array, inputs: jax.Array, initial: jax.Array | None = None) -> jax.Array:
  """`linear_recurrence`, on the mesh in use: each device has its own texts and channels.

  A compiler cannot split a kernel, so `shard_map` gives each device its part. Texts or channels
  that do not divide over their axes are replicated along them.
  """
  if initial is None:
    initial = jnp.zeros_like(inputs[:, 0])
  mesh = jax.sharding.get_abstract_mesh()
  kernel = preferred(gates.dtype, inputs.dtype, initial.dtype) != 'chunked'
  if not kernel or batch_devices(mesh) * mesh.shape.get(TENSOR, 1) == 1:
    return linear_recurrence(gates, inputs, initial)
  batch = BATCH_AXES if inputs.shape[0] % batch_devices(mesh) == 0 else None
  channels = TENSOR if inputs.shape[2] % mesh.shape[TENSOR] == 0 else None
  whole = PartitionSpec(batch, None, channels)
  alike = PartitionSpec(batch) if gates.shape[2] == 1 else whole
  return jax.shard_map(
    linear_recurrence,
    in_specs=(alike, whole, PartitionSpec(batch, channels)),
    out_specs=whole,
    check_vma=False,
  )(gates, inputs, initial)


class RecurrentLayer(nn.Module):
  """Norm, a causal convolution, a gated linear recurrence, and a gate, added to the stream."""

  dim: int
  kind: str
  residual_scale: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self,
    x_btd: jax.Array,
    read: tuple[jax.Array, jax.Array] | None,
    age: jax.Array,
    lengths: Any,
  ) -> tuple[jax.Array, Any]:
    """The new residual stream, and to be stacked: the stream, or with a cache what it keeps.

    A cache has the inputs of the convolution and the states after each token, [B, 1, S, E] each.
    """
    batch, length, width = *x_btd.shape[:2], 2 * self.dim
    declare_flops(self, 2 * 3 * self.dim * width)
    init = lambda scale: nn.initializers.variance_scaling(scale, 'fan_in', 'truncated_normal')
    into = declared(init(1.0), ('fsdp', None, 'tensor'), inputs=1)
    out_of = declared(init(self.residual_scale**2), ('tensor', 'fsdp'), inputs=1)
    channels = lambda name, init, shape: self.param(
      name, declared(init, (None,) * (len(shape) - 1) + ('tensor',)), shape
    )
    normed = nn.RMSNorm(epsilon=1e-5, dtype=self.dtype, name='norm')(by_rows(x_btd))
    dense = nn.DenseGeneral(
      (2, width), use_bias=False, kernel_init=into, dtype=self.dtype, name='into'
    )
    both = dense(normed.reshape(-1, self.dim)).reshape(batch, length, 2, width)
    inputs, gate = both[:, :, 0], both[:, :, 1]

    tail = jnp.zeros((batch, TAPS - 1, width), inputs.dtype)
    if read is not None:
      tail = last_slots(read[0][:, 0], lengths, TAPS - 1)
    taps = channels('taps', nn.initializers.normal(TAPS**-0.5), (TAPS, width)).astype(self.dtype)
    joined = jnp.concatenate([tail, inputs], axis=1)
    mixed = channels('taps_bias', nn.initializers.zeros, (width,)).astype(self.dtype)[None, None]
    for back in range(TAPS):
      seen = jax.lax.slice_in_dim(joined, TAPS - 1 - back, TAPS - 1 - back + length, axis=1)
      mixed = mixed + taps[back][None, None] * jnp.where((age >= back)[..., None], seen, 0)
    mixed = nn.silu(mixed)

    states = mixed
    if self.kind == 'recurrence':
      wide = mixed.astype(jnp.float32)
      slope = channels('keep_slope', nn.initializers.zeros, (width,))
      keep = nn.sigmoid(
        channels('keep_bias', _spread_out, (width,))[None, None] + slope[None, None] * wide
      )
      new = (1 - keep) * wide
      keep = jnp.where((age > 0)[..., None], keep, 0)
      before = None if read is None else last_slots(read[1][:, 0], lengths, 1)[:, 0]
      states = recurrence(keep, new, before)
      mixed = mixed + states.astype(self.dtype)
    project = nn.Dense(self.dim, use_bias=False, kernel_init=out_of, dtype=self.dtype, name='out')
    rows = (mixed * nn.silu(gate)).reshape(-1, width)
    x_btd = by_rows(x_btd + project(rows).reshape(x_btd.shape))
    return x_btd, x_btd if read is None else (inputs[:, :, None], states[:, :, None])


def _spread_out(key: jax.Array, shape: tuple[int], dtype: Any = jnp.float32) -> jax.Array:
  """Initial biases, with which channels forget at different rates."""
  keep = np.linspace(*FORGETS, shape[0])
  return jnp.asarray(np.log(keep / (1 - keep)), dtype)


class RecurrentDecoder(nn.Module):
  """A stack of recurrent layers under `nn.scan`: vectors to vectors, as `lib.models.decoder`.

  A layer: RMSNorm; [u, z] = W x of width E = 2 D each; c = SiLU of a causal convolution of u over
  `TAPS` tokens; keep k = σ(b + w c); state h_t = k_t h_{t−1} + (1 − k_t) c_t;
  x + W' ((c + h) SiLU(z)). Both stop at the borders of documents. 6 D² parameters.

  Attributes:
    layers, dim: L, D.
    kind: 'recurrence', or 'convolution' without the state.
    remat: recompute each layer in the backward pass.
    dtype: of activations; parameters and states are float32.
  """

  layers: int
  dim: int
  kind: str = 'recurrence'
  remat: bool = False
  dtype: jnp.dtype = jnp.float32
  reads_ids = False
  reads_mask = False

  @nn.compact
  def __call__(
    self,
    x_btd: jax.Array,
    positions: jax.Array,
    segments: jax.Array | None,
    cache: Cache | None = None,
    mask: jax.Array | None = None,
  ) -> tuple[jax.Array, Any]:
    """As `Decoder`; the mask of a cache is not read: a token follows the one before it."""
    if self.kind not in KINDS:
      raise InputError(f'kind={self.kind!r} is not one of {", ".join(KINDS)}.')
    plain = cache is None and not self.is_initializing()
    stack = scan_layers(RecurrentLayer, self.layers, inputs=2, remat=self.remat, unrolled=plain)(
      self.dim, self.kind, (2 * self.layers) ** -0.5, self.dtype, name='layers'
    )
    if cache is None:
      assert segments is not None
      age, read, lengths = ages(segments), None, None
    else:
      age, read, lengths = positions, (cache.keys, cache.values), cache.lengths
    x_btd, stacked = stack(x_btd.astype(self.dtype), read, age, lengths)
    norm = nn.RMSNorm(epsilon=1e-5, dtype=self.dtype, name='final_norm')
    return norm(x_btd), stacked if cache is None else cache.append(*stacked)

  def empty_cache(self, batch: int, length: int) -> Cache:
    """A cache for `batch` texts of up to `length` tokens, none of which has begun.

    Its keys are the inputs of the convolutions, its values the states, of one head. They are kept
    for every slot, so that a text can go back to any of its tokens.
    """
    shape = (self.layers, batch, 1, length, 2 * self.dim)
    return Cache.empty(shape, self.dtype, jnp.float32)
