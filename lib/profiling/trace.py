# SPDX-License-Identifier: Apache-2.0
"""Time of a compiled program by op, from a trace of `jax.profiler`.

The trace has the times of each op under its name in the compiled text, and the text has the line of
the model that the op comes from. Ops of a thread can be nested (a loop and its body); the time of
an op excludes nested ops. On a CPU an op gives tasks to other threads; their time counts as the
op's.
"""

import collections
import contextlib
import itertools
import pathlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from lib.profiling.compiled_step import computations

PRODUCT = re.compile(r' (dot|convolution)\(|custom_call_target="[^"]*(matmul|gemm|dot)')
INSTRUCTION = re.compile(r'\s+(?:ROOT )?%?([\w.\-]+) = ')
UNKNOWN = ''  # name for device time outside of ops


class Op(NamedTuple):
  """An instruction of a compiled program.

  Attributes:
    path: its place in the model, such as jit(step)/jvp(LanguageModel)/…/up/dot; '' for the
      compiler's own instructions.
    product: whether it multiplies matrices, perhaps fused with other ops.
  """

  path: str
  product: bool


@contextlib.contextmanager
def traced() -> Iterator[dict[str, float]]:
  """Traces its block; after the block the yielded dict has the seconds of each op."""
  found: dict[str, float] = {}
  options = jax.profiler.ProfileOptions()
  options.python_tracer_level = 0
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder, profiler_options=options):
      yield found
    (path,) = pathlib.Path(folder).rglob('*.xplane.pb')
    found.update(seconds(jax.profiler.ProfileData.from_file(str(path)).planes))


def seconds(planes: Iterable[Any]) -> dict[str, float]:
  """Seconds of each op of a trace's planes, all devices and threads together.

  If devices have their own planes, time there outside of ops is under ''.
  """
  planes = list(planes)
  devices = [plane for plane in planes if plane.name.startswith('/device:')]
  lines = [line for plane in devices or planes for line in plane.lines]
  read = [_of_device(line) if devices else _of_thread(line) for line in lines]
  total: dict[str | int, float] = collections.defaultdict(float)
  owners: dict[int, str | int] = {}
  for events in read:
    for what, own in _own(events, owners):
      total[what] += own * 1e-9
  found: dict[str, float] = collections.defaultdict(float)
  for what, own in total.items():
    while isinstance(what, int):
      what = owners.get(what, UNKNOWN)
    found[what] += own
  if not devices:  # threads also do other work
    found.pop(UNKNOWN, None)
  return dict(found)


class _Event(NamedTuple):
  """An interval of a trace: an op's name, or the number of a task for another thread.

  A task is handed over at one moment (`handed`), and executed in an interval of another thread.
  """

  start: float
  minus: float  # negative duration: of intervals with one start, the outer one comes first
  what: str | int
  handed: bool = False


def _of_device(line: Any) -> list[_Event]:
  events = [
    _Event(event.start_ns, -event.duration_ns, dict(event.stats).get('hlo_op', UNKNOWN))
    for event in line.events
  ]
  return events if any(event.what != UNKNOWN for event in events) else []  # else marks, not work


def _of_thread(line: Any) -> list[_Event]:
  """Ops and tasks; XLA's thread pool marks handover, start and end."""
  events, begun = [], None
  for event in sorted(line.events, key=lambda event: event.start_ns):
    stats = dict(event.stats)
    if 'hlo_op' in stats:
      events.append(_Event(event.start_ns, -event.duration_ns, stats['hlo_op']))
    elif event.name == 'ThreadpoolListener::Record':
      events.append(_Event(event.start_ns, 0.0, int(stats['_p']), handed=True))
    elif event.name == 'ThreadpoolListener::StartRegion':
      begun = event.start_ns, int(stats['_c'])
    elif event.name == 'ThreadpoolListener::StopRegion' and begun:
      events.append(_Event(begun[0], begun[0] - event.start_ns, begun[1]))
      begun = None
  return events


def _own(events: list[_Event], owners: dict[int, str | int]) -> Iterator[tuple[str | int, float]]:
  """The time of each op and task without nested ones, and the op that each task was handed over
  by.
  """
  around: list[tuple[float, str | int]] = []  # ends and names of open intervals
  for event in sorted(events, key=lambda event: event[:2]):
    while around and around[-1][0] <= event.start:
      around.pop()
    if event.handed:
      owners[int(event.what)] = around[-1][1] if around else UNKNOWN
      continue
    end = event.start - event.minus
    if around:
      yield around[-1][1], event.start - min(end, around[-1][0])
    yield event.what, -event.minus
    around.append((end, event.what))


def ops(hlo: str) -> dict[str, Op]:
  """The instructions of a compiled program (XLA's text of it) by name."""
  programs, _ = computations(hlo)
  found = {}
  for line in itertools.chain.from_iterable(programs.values()):
    if instruction := INSTRUCTION.match(line):
      path = re.search(r'op_name="([^"]*)"', line)
      found[instruction[1]] = Op(path[1] if path else '', _multiplies(line, programs))
  return found


def _multiplies(line: str, programs: Mapping[str, list[str]]) -> bool:
  """Whether an instruction, or one fused into it, is a product."""
  if PRODUCT.search(line):
    return True
  inner = re.search(r' fusion\(.*calls=%?([\w.\-]+)', line)
  fused = programs.get(inner[1], []) if inner else []
  return any(_multiplies(one, programs) for one in fused)
