# SPDX-License-Identifier: Apache-2.0
"""What `pallas_kernels.bench` runs: each kernel at shapes that the experiments' configs name."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pallas_kernels import lexinvariant_cross_entropy as lexinvariant
from pallas_kernels import linear_cross_entropy as linear
from pallas_kernels.random_rows import LAWS


class Case(NamedTuple):
  """A kernel at one shape.

  Attributes:
    kernel: the file in this folder.
    shape: what the shape is called.
    inputs: makes the arguments, random.
    ways: implementations and peers by name, each a function of the arguments, to be compared with
      'reference'; `pallas` is compiled ahead of time where there is no accelerator.
    by: the arguments by which the sum of the results is differentiated.
    flops: of the matrix products without which it cannot be done: forward, and with gradients.
    bytes: that must at least be read and written: forward, and with gradients.
  """

  kernel: str
  shape: str
  inputs: Callable[[], tuple[jax.Array, ...]]
  ways: Mapping[str, Callable[..., Any]]
  by: tuple[int, ...]
  flops: tuple[float, float]
  bytes: tuple[float, float]


# Positions and vocabulary of a readout: a step's batch × length over this many chips.
LINEAR = {
  # equal_info, paper, m2.models 113m: 256 × 512 tokens, of 16 bits
  'equal_info_113m': {'positions': 256 * 512 // 4, 'dim': 768, 'vocab_size': 2**16},
  # equal_info, paper, m2.models 2b
  'equal_info_2b': {'positions': 256 * 512 // 16, 'dim': 2048, 'vocab_size': 2**16},
  # equal_info, paper, m1: 128 × 1,024 bytes
  'equal_info_m1': {'positions': 128 * 1024, 'dim': 256, 'vocab_size': 2**8},
}

# A fourth of a step of lexinvariant, paper, text with symbols 32k; for each law of the rows.
LEXINVARIANT = {'sequences': 64 // 4, 'length': 512, 'dim': 1024, 'vocab_size': 32_000}


def _random(count: int, *shapes: tuple[tuple[int, ...], Any]) -> list[jax.Array]:
  """Normal numbers, or for integers uniform ids below `count`, of each (shape, dtype)."""
  keys = jax.random.split(jax.random.key(0), len(shapes))
  return [
    jax.random.randint(key, shape, 0, count) if dtype == jnp.int32
    else jax.random.normal(key, shape, dtype)
    for key, (shape, dtype) in zip(keys, shapes)
  ]  # fmt: skip


def _linear(name: str, positions: int, dim: int, vocab_size: int) -> Case:
  def inputs():
    hidden, table, bias, targets = _random(
      vocab_size,
      ((positions, dim), jnp.bfloat16),
      ((vocab_size, dim), jnp.bfloat16),
      ((vocab_size,), jnp.float32),
      ((positions,), jnp.int32),
    )
    return hidden, table * dim**-0.5, bias, targets

  ways = {
    'reference': linear.linear_cross_entropy_reference,
    'chunked': linear.chunked,
    'pallas': linear.pallas,
    'triton': linear.triton,
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


def _lexinvariant(law: str, sequences: int, length: int, dim: int, vocab_size: int) -> Case:
  def inputs():
    hidden, targets = _random(
      vocab_size, ((sequences, length, dim), jnp.bfloat16), ((sequences, length), jnp.int32)
    )
    seeds = jax.random.bits(jax.random.key(1), (sequences, 2), jnp.uint32)
    return hidden * dim**-0.5, seeds, targets

  ways = {
    'reference': lexinvariant.lexinvariant_cross_entropy_reference,
    'chunked': lexinvariant.chunked,
    'pallas': lexinvariant.pallas,
  }
  product, matrix = 2.0 * sequences * length * dim * vocab_size, 2.0 * sequences * length * dim
  return Case(
    'lexinvariant_cross_entropy',
    law,
    inputs,
    {name: functools.partial(way, vocab_size=vocab_size, law=law) for name, way in ways.items()},
    (0,),
    (product, 2 * product),
    (matrix, 2 * matrix),
  )


def cases() -> list[Case]:
  """All of them."""
  return [
    *(_linear(name, **shape) for name, shape in LINEAR.items()),
    *(_lexinvariant(law, **LEXINVARIANT) for law in LAWS),
  ]
