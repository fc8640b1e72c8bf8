# SPDX-License-Identifier: Apache-2.0
"""How fast the kernels are, at the experiments' own shapes.

  python -m pallas_kernels.bench --kernels=linear_cross_entropy --record

On an accelerator: time of each implementation and peer, forward and with gradients, as a ratio to
the reference and to the fastest other, the share of what the chip could do, and peak memory. All
of a kernel are compiled before any is timed, in runs that follow each other.
Elsewhere times would mean nothing: there all that TPUs can run is compiled for them ahead of time,
with gradients, and what is printed is the memory that each way plans with and how the kernels'
static schedules compare with the matrix units alone.

--record puts a kernel's rows in the place of those it has of this device in RESULTS.md.
"""

import argparse
import importlib.metadata
import importlib.util
import itertools
import math
import multiprocessing
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels import aot
from pallas_kernels.bench_cases import ONE_CARD, Case, cases

RESULTS = pathlib.Path(__file__).with_name('RESULTS.md')
# Published peaks: bfloat16 FLOP/s of a chip, bytes/s of its memory.
PEAKS = {
  'TPU v5 lite': (197e12, 0.82e12),
  'TPU v5': (459e12, 2.77e12),
  'TPU v6 lite': (918e12, 1.64e12),
  'NVIDIA H100 80GB HBM3': (989e12, 3.35e12),
  'NVIDIA H200': (989e12, 4.8e12),
}
MEASURED = ('shape', 'pass', 'way', 'ms', '× reference', '× best other', 'of roofline', 'peak GB')
COMPILED = (
  'shape', 'chip', 'way', 'temporary MB', 'body', 'cycles', 'matrix cycles', 'ratio', 'spills'
)  # fmt: skip
GPU = ('cudnn', 'cudnn without biases', 'triton', 'Triton attention of JAX')  # ways
TPU = ('pallas', 'flash_attention of JAX', 'splash_attention of JAX')
THREADS = 12  # compile at once; XLA tries its ways on arrays of full size
ROUND = 0.02  # seconds at least of runs in a row that are timed
Row = tuple[str, ...]


def passes(case: Case) -> dict[str, Callable[[Callable], Callable]]:
  """Forward, and with gradients where the kernel has any."""

  def with_gradients(way: Callable) -> Callable:
    def total(*arrays: jax.Array) -> jax.Array:
      return sum(
        (x.astype(jnp.float32).sum() for x in jax.tree.leaves(way(*arrays))), jnp.zeros(())
      )

    return jax.value_and_grad(total, argnums=case.by)

  return {'forward': lambda way: way} | ({'with gradients': with_gradients} if case.by else {})


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
  """Of each case, each pass and way that this accelerator may have: compiled, or the refusal."""
  others = TPU if jax.default_backend() == 'gpu' else GPU

  def compiled(case: Case, wrap: Callable, way: str) -> Any:
    try:
      return jax.jit(wrap(case.ways[way])).lower(*jax.eval_shape(case.inputs)).compile()
    except Exception as error:  # a peer or a kernel that this backend refuses
      return error

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
  """Rows of MEASURED on this machine's accelerator; what cannot run here says why.

  Args:
    case: at one shape.
    found: its passes and ways, by `compile_here`.
  """
  peaks = PEAKS.get(jax.devices()[0].device_kind)
  arrays = case.inputs()
  for i, name in enumerate(passes(case)):
    times, held = {}, {}
    for way in (way for one, way in found if one == name):
      compiled = found[name, way]
      try:
        if isinstance(compiled, Exception):
          raise compiled
        times[way] = seconds(compiled, arrays)
      except Exception as error:
        yield case.shape, name, way, _refusal(error), *[''] * 4
        continue
      held[way] = held_bytes(compiled)
    for way, took in times.items():
      others = [other for key, other in times.items() if key != way]
      over = lambda times, took=took: f'{took / min(times):.2f}' if times else ''
      least = max(case.flops[i] / peaks[0], case.bytes[i] / peaks[1]) if peaks else None
      yield (
        case.shape, name, way, f'{took * 1e3:.3f}',
        over([times['reference']] if 'reference' in times else []), over(others),
        f'{least / took:.2f}' if least else '', f'{held[way] / 1e9:.2f}',
      )  # fmt: skip


def compile_ahead(case: Case, chips: Sequence[str]) -> Iterator[Row]:
  """Rows of COMPILED for each chip; what its compiler refuses says why."""
  shapes = jax.eval_shape(case.inputs)
  ways = {way: _whole(case, way) for way in case.ways if way not in GPU}
  for chip, (way, function) in itertools.product(chips, ways.items()):
    try:
      plan = aot.compile_for(chip, function, shapes).memory_analysis()
    except Exception as error:  # more than the chip has
      yield case.shape, chip, way, _refusal(error), *[''] * 5
      continue
    first = case.shape, chip, way, f'{plan.temp_size_in_bytes / 1e6:.1f}'
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
  """A way with its gradients, if it has any."""
  return list(passes(case).values())[-1](case.ways[way])


def schedules(kernel: str, shape: str, chip: str) -> list[aot.Schedule]:
  """Of a case's kernels: for a process of its own."""
  (case,) = (case for case in cases() if (case.kernel, case.shape) == (kernel, shape))
  return list(aot.schedules(chip, _whole(case, 'pallas'), jax.eval_shape(case.inputs)))


def _refusal(error: Exception) -> str:
  return f'no: {(str(error) or repr(error)).splitlines()[0][:80]}'


def record(title: str, text: str, path: pathlib.Path = RESULTS) -> None:
  """Puts a section in the place of the one with its title, or among the others by title."""
  introduction, *sections = (part.rstrip() for part in path.read_text().split('\n## '))
  kept = [section for section in sections if section.split('\n')[0] != title]
  path.write_text('\n\n## '.join([introduction, *sorted([*kept, f'{title}\n\n{text}'])]) + '\n')


def main(argv: Sequence[str] | None = None) -> None:
  """Prints a table for each kernel, row by row, and records it if asked to."""
  parser = argparse.ArgumentParser(prog='pallas_kernels.bench', description=__doc__.split('\n')[0])
  known = cases()
  names = sorted({case.kernel for case in known})
  parser.add_argument('--kernels', nargs='+', choices=names, default=names)
  parser.add_argument('--shapes', nargs='+', help='of these kernels; all of them by default')
  parser.add_argument('--chips', nargs='+', choices=aot.TOPOLOGIES, default=list(aot.TOPOLOGIES))
  parser.add_argument('--record', action='store_true')
  given = parser.parse_args(argv)
  here = jax.default_backend() != 'cpu'
  if given.record and not here and (given.shapes or len(given.chips) < len(aot.TOPOLOGIES)):
    parser.error('--record replaces all rows of a kernel: leave out --shapes and --chips.')
  if not here and not importlib.util.find_spec('libtpu'):
    sys.exit('There is no accelerator here, nor libtpu to compile for one: `make bench` has it.')
  columns = MEASURED if here else COMPILED
  place = f'measured on {jax.devices()[0].device_kind}' if here else 'compiled ahead of time'
  versions = ', '.join(
    f'{name} {importlib.metadata.version(name)}' for name in ('jax', *([] if here else ['libtpu']))
  )
  for kernel in given.kernels:
    lines = [' | '.join(columns), ' | '.join('---' for _ in columns)]
    print(
      f'\n{kernel}, {place} ({versions})\n\n' + '\n'.join(f'| {x} |' for x in lines), flush=True
    )
    asked = [
      case for case in known if case.kernel == kernel
      and (case.shape in given.shapes if given.shapes else here or ONE_CARD not in case.shape)
    ]  # fmt: skip
    tables: Iterator[Iterator[Row]] = (
      map(measure, asked, compile_here(asked))
      if here
      else (compile_ahead(case, given.chips) for case in asked)
    )
    for row in itertools.chain.from_iterable(tables):
      lines.append(' | '.join(row))
      print(f'| {lines[-1]} |', flush=True)
    if given.record:
      made = versions + (f', of {", ".join(given.shapes)} alone' if given.shapes else '')
      table = '\n'.join(f'| {line} |' for line in lines)
      record(f'{kernel}, {place}', f'{made}\n\n{table}')


if __name__ == '__main__':
  main()
