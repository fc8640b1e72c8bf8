# SPDX-License-Identifier: Apache-2.0
"""Starts several processes of one command on this machine, connected like the hosts of a pod.

python -m experiments.tools.launch --processes=4 -- -m experiments.markov --workdir=runs/markov

Each process has `--devices` CPU devices; they communicate through Gloo. This is for testing: on a
real pod, the cluster manager starts the processes (docs/pod.md).
"""

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.tools import command
from lib.errors import InputError

PROCESSES = flags.DEFINE_integer('processes', 2, 'Number of processes.', lower_bound=1)
DEVICES = flags.DEFINE_integer('devices', 1, 'CPU devices of each process.', lower_bound=1)
GRACE = flags.DEFINE_float(
  'grace',
  10.0,
  'Seconds that the others may continue after one has failed, and after SIGTERM.',
)


def environment(process: int, processes: int, devices: int, port: int) -> dict[str, str]:
  """The variables by which a process finds the others (`lib.parallel.processes.join`)."""
  return os.environ | {
    'JAX_COORDINATOR_ADDRESS': f'localhost:{port}',
    'JAX_NUM_PROCESSES': str(processes),
    'JAX_PROCESS_ID': str(process),
    'JAX_PLATFORMS': 'cpu',
    'JAX_NUM_CPU_DEVICES': str(devices),
    'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo',
  }


def free_port() -> int:
  """A free port."""
  with socket.socket() as listener:
    listener.bind(('localhost', 0))
    return listener.getsockname()[1]


def run(arguments: Sequence[str], processes: int, devices: int = 1, grace: float = 10.0) -> int:
  """Runs `python ARGUMENTS` as several processes.

  SIGTERM is passed on to all. When one fails, the others, which cannot continue without it, get
  SIGTERM after `grace` seconds and SIGKILL after as many more.

  Returns:
    The exit code of the process that failed first, or 0.
  """
  port = free_port()
  started = [
    subprocess.Popen(
      [sys.executable, *arguments],
      env=environment(i, processes, devices, port),
      stdout=subprocess.PIPE,
    )
    for i in range(processes)
  ]
  readers = [threading.Thread(target=_print, args=(one,), daemon=True) for one in started]
  for reader in readers:
    reader.start()

  told = []

  def pass_on(*_: Any) -> None:
    told.append(True)
    for one in started:
      one.terminate()

  before = signal.signal(signal.SIGTERM, pass_on)
  failed, deadline, end = 0, math.inf, subprocess.Popen.terminate
  while running := [one for one in started if one.poll() is None]:
    time.sleep(0.05)
    if not failed and (failed := _failed(started)):
      if not told:
        print(
          f'launch: a process ended with code {failed}: the others cannot continue '
          'and are stopped.',
          file=sys.stderr,
          flush=True,
        )
      deadline = time.monotonic() + grace
    if time.monotonic() > deadline:
      for one in running:
        end(one)
      deadline, end = time.monotonic() + grace, subprocess.Popen.kill
  signal.signal(signal.SIGTERM, before)
  for reader in readers:
    reader.join(grace)
  return failed or _failed(started)


def _print(process: subprocess.Popen) -> None:
  """Passes on the output of a process, without gloo's messages about connections."""
  assert process.stdout
  for line in process.stdout:
    if not line.startswith(b'[Gloo]'):
      sys.stdout.write(line.decode(errors='replace'))
      sys.stdout.flush()


def _failed(processes: Sequence[subprocess.Popen]) -> int:
  """Exit code of one that failed, 0 if none has."""
  return next((one.returncode for one in processes if one.returncode), 0)


def execute(*arguments: str) -> None:
  """Runs the command after `--` and exits with its code."""
  if not arguments:
    raise InputError('give a command after --, as in: -- -m experiments.markov.')
  code = run(arguments, PROCESSES.value, DEVICES.value, GRACE.value)
  sys.exit(128 - code if code < 0 else code)


if __name__ == '__main__':
  command.main('launch', execute, more=True)
