# SPDX-License-Identifier: Apache-2.0
"""Independent jobs on all cores."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lib.progress import Bar


def on_all_cores(label: str, work: Callable, jobs: Sequence[tuple]) -> list[Any]:
  """`work(*job)` for every job, in order, on threads (compiled loops release the lock)."""
  pool = ThreadPoolExecutor(os.cpu_count())
  try:
    futures = [pool.submit(work, *job) for job in jobs]
    return [future.result() for future in Bar(futures, desc=label, unit='job')]
  finally:
    pool.shutdown(wait=False, cancel_futures=True)  # an error or a signal does not wait
