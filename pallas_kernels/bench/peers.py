# SPDX-License-Identifier: Apache-2.0
"""Other libraries' implementations of the same operations, which `pallas_kernels.bench` times
too.
"""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.experimental.pallas.ops.tpu import flash_attention, splash_attention

from pallas_kernels import causal_attention as causal

Ways = dict[str, Callable[..., Any]]


def in_parts(function: Callable, count: int) -> Callable:
  """The usual way to save memory: one part of the first axis at a time, recomputed for gradients.

  Args:
    function: of arrays that are split, and of others after them.
    count: of parts.
  """

  def call(split: tuple[jax.Array, ...], *whole: jax.Array) -> Any:
    one = jax.checkpoint(lambda parts: function(*parts, *whole))
    parts = [x.reshape(count, -1, *x.shape[1:]) for x in split]
    found = lax.map(one, tuple(parts))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)

  return call


def linear_cross_entropy_peers() -> Ways:
  """tokamax's loss, if it is installed: a sum of losses; no bias, and no log-sum-exp."""
  if not importlib.util.find_spec('tokamax'):
    return {}
  import tokamax

  return {
    'tokamax': lambda hidden, table, bias, targets: tokamax.linear_softmax_cross_entropy_loss(
      hidden, targets, table.T
    )
  }


def causal_attention_peers(starts: tuple[int, ...], biased: bool, grouped: bool) -> Ways:
  """JAX's kernels for TPUs and GPUs, and cuDNN's, with biases if they accept an array of them.

  For heads that share keys only cuDNN's is used: JAX's kernels would need repeated keys. cuDNN's
  kernel without biases or segments does less work, and shows what biases cost.
  """
  found: Ways = {
    'cudnn': functools.partial(_cudnn, starts=starts),
    'cudnn without biases': lambda q, k, v, *_: jax.nn.dot_product_attention(
      q, k, v, is_causal=True, implementation='cudnn'
    ),
  }
  if not grouped:
    found['flash_attention of JAX'] = functools.partial(_flash, starts=starts)
  if not biased and not grouped:
    found['splash_attention of JAX'] = _splash
    found['Triton attention of JAX'] = _triton
  return found


def associative_scan(gates: jax.Array, inputs: jax.Array, initial: jax.Array) -> jax.Array:
  """A linear recurrence by JAX's scan in log N steps, differentiated by JAX."""
  first = inputs.at[:, 0].add(gates[:, 0] * initial)
  both = lambda a, b: (b[0] * a[0], b[0] * a[1] + b[1])
  whole = jax.numpy.broadcast_to(gates, inputs.shape)
  return lax.associative_scan(both, (whole, first), axis=1)[1]


def _flash(q, k, v, segments, table, vectors, starts):
  (batch, length, heads, width), ids = q.shape, flash_attention.SegmentIds(segments, segments)
  bias, _ = causal.bias_and_mask(q, segments, table, vectors, starts)
  if bias is not None:
    bias = jax.numpy.broadcast_to(bias, (batch, heads, length, length))
  # Its sm_scale would scale the biases too.
  q, k, v = (x.swapaxes(1, 2) for x in (q * width**-0.5, k, v))
  return flash_attention.flash_attention(q, k, v, bias, ids, causal=True).swapaxes(1, 2)


def _cudnn(q, k, v, segments, table, vectors, starts):
  bias, mask = causal.bias_and_mask(q, segments, table, vectors, starts)
  if bias is not None:
    bias = bias.astype(q.dtype)
  return jax.nn.dot_product_attention(q, k, v, bias, mask, is_causal=True, implementation='cudnn')


def _splash(q, k, v, segments, table, vectors):
  _, length, heads, width = q.shape
  q, k, v = (x.swapaxes(1, 2) for x in (q * width**-0.5, k, v))
  mask = splash_attention.MultiHeadMask([splash_attention.CausalMask((length, length))] * heads)
  side = min(512, length)
  sizes = splash_attention.BlockSizes(
    block_q=side,
    block_kv=side,
    block_q_dkv=side,
    block_kv_dkv=side,
    block_q_dq=side,
    block_kv_dq=side,
  )
  call = splash_attention.make_splash_mha_single_device(mask, block_sizes=sizes)
  ids = splash_attention.SegmentIds(segments, segments)
  return jax.vmap(call)(q, k, v, segment_ids=ids).swapaxes(1, 2)


def _triton(q, k, v, segments, table, vectors):
  from jax.experimental.pallas.ops.gpu import attention  # JAX means to give it up

  return attention.mha(q, k, v, segments, sm_scale=q.shape[3] ** -0.5, causal=True)
