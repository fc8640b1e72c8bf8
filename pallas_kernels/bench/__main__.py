# SPDX-License-Identifier: Apache-2.0
"""How fast the kernels are, at the experiments' own shapes.

  python -m pallas_kernels.bench --kernels=linear_cross_entropy --record

On an accelerator: time of each implementation and peer, forward and with gradients, as a ratio to
the reference and to the fastest other, the share of what the chip could do, and peak memory. All
of a kernel are compiled before any is timed, in runs that follow each other.
Elsewhere times would mean nothing: there all that TPUs can run is compiled for them ahead of time,
with gradients, and what is printed is the memory that each way plans with and how the kernels'
static schedules compare with the matrix units alone. --here times on a CPU nonetheless: for what a
CPU runs too.

--record puts a kernel's rows in the place of those it has of this device in RESULTS.md.
"""

import argparse
import importlib.metadata
import importlib.util
import itertools
import pathlib
import sys
from collections.abc import Iterator, Sequence

import jax

from pallas_kernels.bench import aot
from pallas_kernels.bench.cases import ONE_CARD, cases
from pallas_kernels.bench.measure import (
  COMPILED,
  MEASURED,
  Row,
  compile_ahead,
  compile_here,
  measure,
)

RESULTS = pathlib.Path(__file__).parents[1] / 'RESULTS.md'


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
  parser.add_argument('--here', action='store_true', help='time on this machine, be it a CPU')
  parser.add_argument('--record', action='store_true')
  given = parser.parse_args(argv)
  here = given.here or jax.default_backend() != 'cpu'
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
