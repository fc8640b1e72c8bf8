# SPDX-License-Identifier: Apache-2.0
"""How long a piece of work takes: what the commands that measure share."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax

from lib.report.results import Row

K = TypeVar('K', bound=Hashable)


class Timing(NamedTuple):
  """Seconds of each call, and what the work returned.

  Attributes:
    wall: by the clock.
    cpu: of this process on all cores.
    result: of the first call, which is not timed.
  """

  wall: list[float]
  cpu: list[float]
  result: Any


def time_calls(work: Callable[[], Any], repeats: int) -> Timing:
  """Times calls, each until its arrays are computed, after one call that compiles."""
  result = jax.block_until_ready(work())
  wall, cpu = [], []
  for _ in range(repeats):
    begin, cpu_begin = time.perf_counter(), time.process_time()
    jax.block_until_ready(work())
    wall.append(time.perf_counter() - begin)
    cpu.append(time.process_time() - cpu_begin)
  return Timing(wall, cpu, result)


def in_turns(works: Mapping[K, Callable[[], Any]], repeats: int) -> dict[K, list[float]]:
  """Wall-clock seconds of each call of works that take turns, so that all meet the same load."""
  seconds: dict[K, list[float]] = {key: [] for key in works}
  for _ in range(repeats):
    for key, work in works.items():
      begin = time.perf_counter()
      jax.block_until_ready(work())
      seconds[key].append(time.perf_counter() - begin)
  return seconds


def rates(
  table: str, row: Mapping[str, Any], work: Callable[[], Any], column: str, size: int, repeats: int
) -> tuple[list[Row], Any]:
  """Rows of the megabytes (10⁶ bytes) a second of work on `size` bytes, and what it returned.

  By the clock and by the processor's time, which agree for work on one core; medians.
  """
  timing = time_calls(work, repeats)
  wall, cpu = (size / statistics.median(times) / 1e6 for times in (timing.wall, timing.cpu))
  return [
    Row(table, row, f'{column}_mb_per_s', wall, unit='MB/s'),
    Row(table, row, f'{column}_mb_per_core_s', cpu, unit='MB per second of one core'),
  ], timing.result
