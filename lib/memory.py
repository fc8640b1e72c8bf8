# SPDX-License-Identifier: Apache-2.0
"""Free memory, and whether this process returns freed memory to the system."""

import ctypes
import os

# Parameters of glibc's mallopt (malloc.h).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


def keep_freed(large: bool = True) -> None:
  """Keeps freed memory in the process, so that a CPU step reuses its pages.

  XLA allocates a step's temporaries at every call. glibc maps and unmaps such large blocks, and the
  page faults of touching them are a large part of a small model's step: without this the `cpu`
  steps of equal_info and lexinvariant have 15,000 to 17,000 faults each, and take 116 and 102 ms
  of processor time where they take 86 and 78 with it (two cores, medians of three processes);
  markov's take the same. To be called before JAX starts its threads. Where the C library is
  another, nothing happens.

  Args:
    large: steps hold more than 64 MB at once. glibc gives no more of the memory that is a thread's
      own, and maps what is larger at every call; so all threads then share one memory, and wait
      for each other: compiling takes longer, and training tokenizers side by side much longer.
  """
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError):
    return
  mallopt(M_MMAP_MAX, 0)
  mallopt(M_ARENA_MAX, 1 if large else 0)  # 0: the default of glibc
  mallopt(M_TRIM_THRESHOLD, -1)
  mallopt(M_TOP_PAD, 2**28)


def free() -> int:
  """Bytes of memory of all devices together; for CPUs, the free bytes."""
  import jax  # not before `keep_freed`

  stats = [device.memory_stats() for device in jax.local_devices()]
  if stats and all(one and 'bytes_limit' in one for one in stats):
    return sum(one['bytes_limit'] for one in stats) * jax.process_count()
  return of_host() * jax.process_count()


def of_host() -> int:
  """Free bytes of this machine, or all that it has where the system does not say what is free."""
  try:
    with open('/proc/meminfo') as lines:
      fields = dict(line.split(':', 1) for line in lines)
    return int(fields['MemAvailable'].split()[0]) * 1024
  except (OSError, KeyError):
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
