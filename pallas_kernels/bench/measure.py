# SPDX-License-Identifier: Apache-2.0
"""Times the kernels on this accelerator, or compiles them for TPUs that are not attached."""

import itertools
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.bench import aot
from pallas_kernels.bench.cases import Case, cases
from pallas_kernels.chips import chip_here

MEASURED = (
  'shape', 'pass', 'way', 'ms', '× reference', '× best other', 'of roofline', 'peak GB', 'compile s'
)  # fmt: skip
COMPILED = (
  'shape', 'chip', 'way', 'temporary MB', 'compile s', 'body', 'cycles', 'matrix cycles', 'ratio',
  'spills',
)  # fmt: skip
GPU = ('cudnn', 'cudnn without biases', 'triton', 'Triton attention of JAX')  # ways
TPU = ('pallas', 'flash_attention of JAX', 'splash_attention of JAX')
THREADS = 12  # compile at once; XLA tries its ways on arrays of full size
ROUND = 0.02  # seconds at least of runs in a row that are timed
Row = tuple[str, ...]


def passes(case: Case) -> dict[str, Callable[[Callable], Callable]]:
  """A name and a wrapper of a way for each pass that is timed."""

  def with_gradients(way: Callable) -> Callable:
    def total(*arrays: jax.Array) -> jax.Array:
      sums = (x.astype(jnp.float32).sum() for x in jax.tree.leaves(way(*arrays)))
      return sum(sums, jnp.zeros(()))

    return jax.value_and_grad(total, argnums=case.by)

  return {'forward': lambda way: way, 'with gradients': with_gradients}


def seconds(compiled: Callable, arrays: Sequence[jax.Array], rounds: int = 5) -> float:
  """Median over rounds of the time of a run among others in a row, after two that warm up."""

  def once(count: int) -> float:
    begin = time.perf_counter()
    for _ in range(count):
      result = compiled(*arrays)
    jax.block_until_ready(result)
    return (time.perf_counter() - begin) / count

  once(1)
  count = math.ceil(ROUND / once(1))
  return statistics.median(once(count) for _ in range(rounds))


def held_bytes(compiled: Any) -> int:
  """Memory of arguments, results and all between, as the compiler planned it."""
  plan = compiled.memory_analysis()
  return plan.temp_size_in_bytes + plan.argument_size_in_bytes + plan.output_size_in_bytes


def compile_here(cases: Sequence[Case]) -> list[dict[tuple[str, str], Any]]:
  """Compiles each pass and implementation of each case; returns the program, or the error.

  Also returns the seconds that compiling took, while others were compiled at the same time.
  """
  others = TPU if jax.default_backend() == 'gpu' else GPU

  def compiled(case: Case, wrap: Callable, way: str) -> tuple[Any, float]:
    begin = time.perf_counter()
    made: Any
    try:
      made = jax.jit(wrap(case.ways[way])).lower(*jax.eval_shape(case.inputs)).compile()
    except Exception as error:  # a peer or a kernel that this backend refuses
      made = error
    return made, time.perf_counter() - begin

  with ThreadPoolExecutor(THREADS) as pool:
    found = [
      {
        (name, way): pool.submit(compiled, case, wrap, way)
        for name, wrap in passes(case).items()
        for way in case.ways
        if way not in others
      }
      for case in cases
    ]
  return [{key: future.result() for key, future in one.items()} for one in found]


def measure(case: Case, found: Mapping[tuple[str, str], Any]) -> Iterator[Row]:
  """Rows of MEASURED on this machine's accelerator; a row that cannot run here has the reason.

  Args:
    case: at one shape.
    found: its passes and ways, by `compile_here`.
  """
  chip = chip_here()
  arrays = case.inputs()
  for i, name in enumerate(passes(case)):
    times, held = {}, {}
    for way in (way for one, way in found if one == name):
      compiled, _ = found[name, way]
      try:
        if isinstance(compiled, Exception):
          raise compiled
        times[way] = seconds(compiled, arrays)
      except Exception as error:
        yield case.shape, name, way, _refusal(error), *[''] * 5
        continue
      held[way] = held_bytes(compiled)
    for way, took in times.items():
      others = [other for key, other in times.items() if key != way]
      over = lambda times, took=took: f'{took / min(times):.2f}' if times else ''
      least = max(case.flops[i] / chip.flops, case.bytes[i] / chip.bandwidth) if chip else None
      yield (
        case.shape, name, way, f'{took * 1e3:.3f}',
        over([times['reference']] if 'reference' in times else []), over(others),
        f'{least / took:.2f}' if least else '', f'{held[way] / 1e9:.2f}',
        f'{found[name, way][1]:.1f}',
      )  # fmt: skip


def compile_ahead(case: Case, chips: Sequence[str]) -> Iterator[Row]:
  """Rows of COMPILED for each chip; a row that its compiler refuses has the reason."""
  shapes = jax.eval_shape(case.inputs)
  ways = {way: _whole(case, way) for way in case.ways if way not in GPU}
  for chip, (way, function) in itertools.product(chips, ways.items()):
    begin = time.process_time()
    try:
      plan = aot.compile_for(chip, function, shapes).memory_analysis()
    except Exception as error:  # more than the chip has
      yield case.shape, chip, way, _refusal(error), *[''] * 6
      continue
    took = time.process_time() - begin
    first = case.shape, chip, way, f'{plan.temp_size_in_bytes / 1e6:.1f}', f'{took:.1f}'
    if way != 'pallas':
      yield *first, *[''] * 5
      continue
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as fresh:
      bodies = fresh.submit(schedules, case.kernel, case.shape, chip).result()
    for found in bodies:
      ratio = f'{found.bundles / found.matrix_cycles:.2f}' if found.matrix_cycles else ''
      numbers = (f'{x:,}' for x in (found.bundles, found.matrix_cycles))
      yield *first, found.kernel, *numbers, ratio, f'{found.spills:,}'


def _whole(case: Case, way: str) -> Callable:
  """A way with its gradients."""
  return passes(case)['with gradients'](case.ways[way])


def schedules(kernel: str, shape: str, chip: str) -> list[aot.Schedule]:
  """Of a case's kernels: for a process of its own."""
  (case,) = (case for case in cases() if (case.kernel, case.shape) == (kernel, shape))
  return list(aot.schedules(chip, _whole(case, 'pallas'), jax.eval_shape(case.inputs)))


def _refusal(error: Exception) -> str:
  return f'no: {(str(error) or repr(error)).splitlines()[0][:80]}'
