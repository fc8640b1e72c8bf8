# SPDX-License-Identifier: Apache-2.0
"""What `pallas_kernels.bench` runs: each kernel at shapes that the experiments' configs name."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pallas_kernels import causal_attention as causal
from pallas_kernels import lexinvariant_cross_entropy as lexinvariant
from pallas_kernels import linear_cross_entropy as linear
from pallas_kernels import linear_cross_entropy_triton as linear_triton
from pallas_kernels import linear_recurrence as recurrence
from pallas_kernels.bench.peers import (
  Ways,
  associative_scan,
  causal_attention_peers,
  in_parts,
  linear_cross_entropy_peers,
)


class Case(NamedTuple):
  """A kernel at one shape.

  Attributes:
    kernel: the file in this folder.
    shape: what the shape is called.
    inputs: makes the arguments, random.
    ways: implementations and peers by name, each a function of the arguments, to be compared with
      'reference'; `pallas` is compiled ahead of time where there is no accelerator.
    by: the arguments with respect to which the sum of the results is differentiated.
    flops: FLOPs of the necessary matrix products: forward, and with gradients.
    bytes: least bytes that are read and written: forward, and with gradients.
  """

  kernel: str
  shape: str
  inputs: Callable[[], tuple[jax.Array, ...]]
  ways: Mapping[str, Callable[..., Any]]
  by: tuple[int, ...]
  flops: tuple[float, float]
  bytes: tuple[float, float]


GROUPED = 'grouped_heads'
ONE_CARD = 'one_card'  # in the names of cases that only run on a GPU

# Positions and vocabulary of an LM head: a step's batch × length over this many chips.
LINEAR = {
  # equal_info, paper, m2.models 113m: 256 × 512 tokens, of 16 bits
  'equal_info_113m': {'positions': 256 * 512 // 4, 'dim': 768, 'vocab_size': 2**16},
  # equal_info, paper, m2.models 2b
  'equal_info_2b': {'positions': 256 * 512 // 16, 'dim': 2048, 'vocab_size': 2**16},
  # equal_info, paper, m1: 128 × 1,024 bytes
  'equal_info_m1': {'positions': 128 * 1024, 'dim': 256, 'vocab_size': 2**8},
  # as wide a vocabulary as the papers have, at a width between the two above, for one card
  ONE_CARD: {'positions': 2**16, 'dim': 1024, 'vocab_size': 2**16},
}

# A fourth of a step of lexinvariant, paper, text with symbols 32k. And a
# whole one, for one card.
LEXINVARIANT = {'sequences': 64 // 4, 'length': 512, 'dim': 1024, 'vocab_size': 32_000}
LEXINVARIANT_ONE_CARD = LEXINVARIANT | {'sequences': 64, 'vocab_size': 2**15}

# Attention of a layer: a step's batch over this many chips.
CAUSAL: dict[str, dict[str, Any]] = {
  # lexinvariant, paper, text: with T5 biases
  'lexinvariant': {'texts': 64 // 4, 'length': 512, 'heads': 8, 'width': 128, 'biases': 'table'},
  # equal_info, paper, m2.models 113m, and m1: with vectors of distances in each layer
  'equal_info_113m': {
    'texts': 256 // 4, 'length': 512, 'heads': 12, 'width': 64, 'biases': 'vectors',
  },
  'equal_info_m1': {'texts': 128, 'length': 1024, 'heads': 4, 'width': 64, 'biases': 'vectors'},
  # visual_unicode, paper, loss
  'visual_unicode': {'texts': 512 // 64, 'length': 1024, 'heads': 32, 'width': 32, 'biases': None},
  # Mistral 7B and Llama 3 8B: four heads share keys; a text of 4,096 tokens on each chip
  GROUPED: {'texts': 1, 'length': 4096, 'heads': 32, 'groups': 8, 'width': 128, 'biases': None},
  # a whole step of lexinvariant on one card, and as many tokens in longer texts
  **{
    f'{ONE_CARD}_{length}': {
      'texts': 64 * 512 // length, 'length': length, 'heads': 8, 'width': 128, 'biases': 'table',
    }
    for length in (512, 1024, 2048, 4096)
  },
}  # fmt: skip

# hierarchy, paper: a layer over bytes, and the averages over chunks, in which all channels have the
# same gate; a step's batch over 64 chips. And cpu: a layer.
RECURRENCE: dict[str, dict[str, Any]] = {
  'layer': {'sequences': 256 // 64, 'length': 8192, 'dim': 2048, 'shared': False},
  'averages': {'sequences': 256 // 64, 'length': 4096, 'dim': 1024, 'shared': True},
  'layer_of_a_cpu': {'sequences': 8, 'length': 128, 'dim': 64, 'shared': False},
}

STARTS = (*range(16), *range(16, 128, 7))  # of 32 buckets
LAST = 128  # distance that vectors tell apart


def random_arrays(count: int, *shapes: tuple[tuple[int, ...], Any]) -> list[jax.Array]:
  """Normal numbers, or for integers uniform ids below `count`, of each (shape, dtype)."""
  keys = jax.random.split(jax.random.key(0), len(shapes))
  return [
    jax.random.randint(key, shape, 0, count) if dtype == jnp.int32
    else jax.random.normal(key, shape, dtype)
    for key, (shape, dtype) in zip(keys, shapes)
  ]  # fmt: skip


def _linear(name: str, positions: int, dim: int, vocab_size: int) -> Case:
  def inputs():
    hidden, table, bias, targets = random_arrays(
      vocab_size,
      ((positions, dim), jnp.bfloat16),
      ((vocab_size, dim), jnp.bfloat16),
      ((vocab_size,), jnp.float32),
      ((positions,), jnp.int32),
    )
    return hidden, table * dim**-0.5, bias, targets

  def nats(way):
    def call(*arrays):
      lse, picked = way(*arrays)
      return lse - picked

    return call

  reference = nats(linear.linear_cross_entropy_reference)
  parts = in_parts(lambda h, t, w, b: reference(h, w, b, t), 16)
  ways = {
    'reference': reference,
    'chunked': nats(linear.chunked),
    'pallas': nats(linear.pallas),
    'triton': lambda *of: linear_triton.loss(False, 0.0, *of)[0],
    'positions in 16 parts': lambda h, w, b, t: parts((h, t), w, b),
    **linear_cross_entropy_peers(),
  }
  product, matrices = 2.0 * positions * dim * vocab_size, 2.0 * dim * (positions + vocab_size)
  return Case(
    'linear_cross_entropy',
    name,
    inputs,
    ways,
    (0, 1, 2),
    (product, 3 * product),
    (matrices, 3 * matrices),
  )


def _lexinvariant(shape: str, sequences: int, length: int, dim: int, vocab_size: int) -> Case:
  def inputs():
    hidden, targets = random_arrays(
      vocab_size, ((sequences, length, dim), jnp.bfloat16), ((sequences, length), jnp.int32)
    )
    seeds = jax.random.bits(jax.random.key(1), (sequences, 2), jnp.uint32)
    return hidden * dim**-0.5, seeds, targets

  reference = lexinvariant.lexinvariant_cross_entropy_reference

  def one_by_one(*arrays, **of):
    return in_parts(functools.partial(reference, **of), sequences)(arrays)

  ways = {
    'reference': reference,
    'chunked': lexinvariant.chunked,
    'pallas': lexinvariant.pallas,
    'one sequence at a time': one_by_one,
  }
  product, matrix = 2.0 * sequences * length * dim * vocab_size, 2.0 * sequences * length * dim
  return Case(
    'lexinvariant_cross_entropy',
    shape,
    inputs,
    {name: functools.partial(way, vocab_size=vocab_size) for name, way in ways.items()},
    (0,),
    (product, 2 * product),
    (matrix, 2 * matrix),
  )


def _causal(
  name: str,
  texts: int,
  length: int,
  heads: int,
  width: int,
  biases: str | None,
  groups: int | None = None,
) -> Case:
  groups = groups or heads

  def inputs():
    shape, wide = (texts, length, heads, width), jnp.float32
    shared = (texts, length, groups, width)
    kinds = {'table': (heads, len(STARTS)), 'vectors': (LAST + 1, width)}
    trained = [(kinds[biases], wide)] if biases else []
    queries_and_keys = [(one, jnp.bfloat16) for one in (shape, shared, shared)]
    *qkv, found = [*random_arrays(0, *queries_and_keys, *trained), None][:4]
    documents = jnp.arange(length, dtype=jnp.int32) // (length // 2)
    segments = jnp.broadcast_to(documents, (texts, length))
    return *qkv, segments, *[found if biases == kind else None for kind in kinds]

  starts = STARTS if biases == 'table' else ()

  own = {
    'reference': causal.causal_attention_reference,
    'xla': causal.xla,
    'pallas': causal.pallas,
    'triton': causal.triton,
  }
  ways: Ways = {
    **{name: functools.partial(way, starts=starts) for name, way in own.items()},
    **causal_attention_peers(starts, biases is not None, groups < heads),
  }
  product = 2.0 * texts * heads * width * length**2 / 2  # of the pairs that are seen
  array = 2.0 * texts * length * width * (heads + groups) / 2  # queries and keys, on average
  by = (0, 1, 2, *{'table': (4,), 'vectors': (5,), None: ()}[biases])
  return Case(
    'causal_attention', name, inputs, ways, by, (2 * product, 7 * product), (4 * array, 12 * array)
  )


def _recurrence(shape: str, sequences: int, length: int, dim: int, shared: bool) -> Case:
  def inputs():
    sizes = (sequences, length, 1 if shared else dim), (sequences, length, dim), (sequences, dim)
    gates, added, initial = random_arrays(0, *((size, jnp.float32) for size in sizes))
    return jax.nn.sigmoid(gates + 2), added, initial

  ways = {
    'reference': recurrence.linear_recurrence_reference,
    'chunked': recurrence.chunked,
    'pallas': recurrence.pallas,
    'triton': recurrence.triton,
  }
  if not shared:  # else it is the same with gates for each channel
    ways['associative_scan of JAX'] = associative_scan
  # Forward: gates, inputs, states. Backward: gates, states and their gradient; both gradients.
  channels, gates = (
    4.0 * sequences * length * dim,
    4.0 * sequences * length * (1 if shared else dim),
  )
  least = 2 * channels + gates, 5 * channels + 3 * gates
  return Case('linear_recurrence', shape, inputs, ways, (0, 1, 2), (0.0, 0.0), least)


def cases() -> list[Case]:
  """All of them."""
  return [
    *(_causal(name, **shape) for name, shape in CAUSAL.items()),
    *(_linear(name, **shape) for name, shape in LINEAR.items()),
    *(_recurrence(name, **shape) for name, shape in RECURRENCE.items()),
    _lexinvariant('gaussian', **LEXINVARIANT),
    _lexinvariant(f'gaussian, {ONE_CARD}', **LEXINVARIANT_ONE_CARD),
  ]
