# SPDX-License-Identifier: Apache-2.0
"""Compares the kernels of this accelerator with their references.

  python -m pallas_kernels.bench.check    # or `make check`; JAX_PLATFORMS must name the CPU too

Results and gradients of bfloat16 arrays are compared with the reference in float32 on the CPU, at
sizes that are not multiples of a tile; random rows are compared with those of the CPU. Exits with
code 1 if a difference is too large.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels import causal_attention as causal
from pallas_kernels import lexinvariant_cross_entropy as lexinvariant
from pallas_kernels import linear_cross_entropy as linear
from pallas_kernels import linear_recurrence as recurrence
from pallas_kernels import random_rows
from pallas_kernels.bench.cases import LAST, STARTS, random_arrays

LIMIT = 0.03  # as a share of the largest number: products and factors are rounded to bfloat16
NORMAL = 1e-5  # error of a Gaussian entry, which is computed by a logarithm and a series
KERNEL = {'tpu': 'pallas', 'gpu': 'triton'}
Found = tuple[str, float, float]  # what was compared, the largest error, and its limit


def error(found: Any, expected: Any) -> float:
  """The largest difference, as a share of the largest number or of 1 of each array."""
  shares = [
    np.abs(a - b).max() / max(1.0, np.abs(b).max())
    for a, b in zip(*(map(_wide, jax.tree.leaves(x)) for x in (found, expected)), strict=True)
  ]
  return float(max(shares))


def _wide(x: jax.Array) -> np.ndarray:
  return np.asarray(x, np.float32)


def _with_gradients(call: Callable, *arrays: jax.Array) -> Any:
  """Results, and gradients of their weighted sum."""

  @jax.jit
  def both(arrays):
    results, back = jax.vjp(call, *arrays)
    weigh = lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape).astype(x.dtype)
    return results, back(jax.tree.map(weigh, results))

  return both(arrays)


def _on_cpu(call: Callable, *arrays: jax.Array) -> Any:
  """The results of a function on the CPU."""
  cpu = jax.devices('cpu')[0]
  with jax.default_device(cpu):
    return jax.device_get(call(*(jax.device_put(x, cpu) for x in arrays)))


def _random(*shapes: tuple[int, ...]) -> list[jax.Array]:
  return random_arrays(0, *((shape, jnp.bfloat16) for shape in shapes))


def attention(name: str) -> Iterator[Found]:
  """Attention with every kind of bias, at two widths, over rows of several documents."""
  for kind, width in (('none', 64), ('table', 128), ('vectors', 64)):
    q, k, v = _random(*[(2, 700, 4, width)] * 3)
    segments = np.broadcast_to(np.arange(700, dtype=np.int32) // 300, (2, 700))
    shape = {'none': None, 'table': (4, len(STARTS)), 'vectors': (LAST + 1, width)}[kind]
    trained = () if shape is None else (jax.random.normal(jax.random.key(1), shape),)

    def call(way, q, k, v, *trained, kind=kind, segments=segments):
      biases = {} if kind == 'none' else {kind: trained[0]}
      starts = STARTS if kind == 'table' else ()
      return way(q, k, v, jnp.asarray(segments), starts=starts, **biases)

    way = functools.partial(causal.causal_attention, implementation=name)
    expected = _on_cpu(
      functools.partial(
        _with_gradients, functools.partial(call, causal.causal_attention_reference)
      ),
      *(x.astype(jnp.float32) for x in (q, k, v)),
      *trained,
    )
    found = _with_gradients(functools.partial(call, way), q, k, v, *trained)
    yield f'causal_attention, biases: {kind}', error(found, expected), LIMIT


def lm_head(name: str, count: int = 9000, ids: int = 5000) -> Iterator[Found]:
  """The loss without gradients, and gradients of a mean and of a weighted sum."""
  hidden, table = _random((count, 200), (ids, 200))
  table, bias = table * 200**-0.5, jax.random.normal(jax.random.key(1), (ids,))
  targets = np.random.default_rng(0).integers(-1, ids, count, np.int32)
  for title, weights in (('mean', np.ones(count)), ('uneven', np.cos(np.arange(count)))):

    def call(way, *arrays, weights=weights):
      hidden, table, bias = arrays
      of: dict[str, Any] = dict(bias=bias, z_loss=1e-3, implementation=way)
      nats, penalties = linear.linear_cross_entropy(hidden, table, jnp.asarray(targets), **of)
      return (jnp.asarray(weights, jnp.float32) * (nats + penalties)).sum() / count

    slopes = lambda way: jax.jit(
      jax.value_and_grad(functools.partial(call, way), argnums=(0, 1, 2))
    )
    wide = (hidden.astype(jnp.float32), table.astype(jnp.float32), bias)
    expected = _on_cpu(slopes('reference'), *wide)
    # Gradients of a mean are small, so errors are relative to their own size.
    scaled = [
      jax.tree.map(lambda x, like: _wide(x) / np.abs(_wide(like)).max(), part, expected)
      for part in (slopes(name)(hidden, table, bias), expected)
    ]
    yield f'linear_cross_entropy, {title}', error(*scaled), LIMIT
    alone = jax.jit(functools.partial(call, name))(hidden, table, bias)
    yield f'linear_cross_entropy, {title}, without gradients', error(alone, expected[0]), LIMIT


def rows(name: str) -> Iterator[Found]:
  """The loss under random tables, and the rows compared with those of the CPU."""
  (hidden,) = _random((3, 300, 256))
  seeds = jax.random.bits(jax.random.key(1), (3, 2), jnp.uint32)
  targets = jax.random.randint(jax.random.key(2), (3, 300), -1, 3000)
  way = lexinvariant.pallas if name == 'pallas' else lexinvariant.chunked
  of: dict[str, Any] = dict(vocab_size=3000)
  expected = _on_cpu(
    lambda x, seeds, targets: _with_gradients(
      lambda x: lexinvariant.lexinvariant_cross_entropy_reference(x, seeds, targets, **of), x
    ),
    (hidden * 256**-0.5).astype(jnp.float32),
    seeds,
    targets,
  )
  loss = functools.partial(way, seeds=seeds, targets=targets, **of)
  found = _with_gradients(loss, hidden * 256**-0.5)
  yield 'lexinvariant_cross_entropy', error(found, expected), LIMIT
  make = jax.jit(lambda seed: random_rows.random_rows(seed, jnp.arange(4096), 256))
  yield 'random_rows', error(make(seeds[:1]), _on_cpu(make, seeds[:1])), NORMAL


def recurrences(name: str) -> Iterator[Found]:
  """The recurrence with a gate for each channel, and with one gate for all."""
  for title, channels in (('by channel', 200), ('shared', 1)):
    gates, inputs, initial = _random((2, 300, channels), (2, 300, 200), (2, 200))
    given = jax.nn.sigmoid(gates + 2), inputs, initial
    expected = _on_cpu(
      functools.partial(_with_gradients, recurrence.linear_recurrence_reference),
      *(x.astype(jnp.float32) for x in given),
    )
    way = functools.partial(recurrence.linear_recurrence, implementation=name)
    yield f'linear_recurrence, gates {title}', error(_with_gradients(way, *given), expected), LIMIT


def main() -> None:
  """Prints a line for each comparison."""
  backend = jax.default_backend()
  if backend not in KERNEL:
    sys.exit('No accelerator was found; without one, the tests compare the emulated kernels.')
  print(f'{jax.devices()[0].device_kind}, jax {jax.__version__}\n')
  bad = 0
  for check in (attention, lm_head, rows, recurrences):
    for title, found, limit in check(KERNEL[backend]):
      fine = found <= limit
      bad += not fine
      print(f'{title:50} {found:.2g} of {limit:g} {"" if fine else "WRONG"}', flush=True)
  sys.exit(bool(bad))


if __name__ == '__main__':
  main()
