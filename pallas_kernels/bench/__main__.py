# SPDX-License-Identifier: Apache-2.0
"""Times the kernels at the shapes of the experiments.

  python -m pallas_kernels.bench --kernels=linear_cross_entropy --record

On an accelerator it prints, for each implementation and each library, the time forward and with
gradients, ratios to the reference and to the fastest other, the share of the chip's peak, and peak
memory. All programs of a kernel are compiled before the first is timed.

Without an accelerator, times would mean nothing. Then all programs for TPUs are compiled ahead of
time, with gradients, and the planned memory is printed, with the static schedules of the kernels
compared with the matrix units alone. --here times implementations on a CPU nonetheless.

--record replaces the kernel's rows for this device in RESULTS.md.
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
  """Replaces the section of the same title, or inserts the section in the order of titles."""
  introduction, *sections = (part.rstrip() for part in path.read_text().split('\n## '))
  kept = [section for section in sections if section.split('\n')[0] != title]
  path.write_text('\n\n## '.join([introduction, *sorted([*kept, f'{title}\n\n{text}'])]) + '\n')


def main(argv: Sequence[str] | None = None) -> None:
  """Prints a table for each kernel, row by row, and records it if asked to."""
  parser = argparse.ArgumentParser(prog='pallas_kernels.bench', description=__doc__.split('\n')[0])
  known = cases()
  names = sorted({case.kernel for case in known})
  parser.add_argument(
    '--kernels', nargs='+', choices=names, default=names, help='kernels to run; by default all'
  )
  parser.add_argument('--shapes', nargs='+', help='shapes to run; by default all')
  chips = list(aot.TOPOLOGIES)
  parser.add_argument(
    '--chips', nargs='+', choices=chips, default=chips, help='chips to compile for; by default all'
  )
  parser.add_argument('--here', action='store_true', help='time on this machine, even on a CPU')
  parser.add_argument('--record', action='store_true', help='write the rows to RESULTS.md')
  given = parser.parse_args(argv)
  here = given.here or jax.default_backend() != 'cpu'
  if given.record and not here and (given.shapes or len(given.chips) < len(aot.TOPOLOGIES)):
    parser.error('--record replaces all rows of a kernel: leave out --shapes and --chips.')
  if not here and not importlib.util.find_spec('libtpu'):
    sys.exit('Neither an accelerator nor libtpu was found: `make bench` installs libtpu.')
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
