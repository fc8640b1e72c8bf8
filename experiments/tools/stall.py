# SPDX-License-Identifier: Apache-2.0
"""Measures how long training waits for a checkpoint.

python -m experiments.tools.stall --megabytes=64

Runs training steps of a model of this size, first without a checkpoint, then while one is written.
Prints the time of a step, how long the loop waits when a checkpoint begins, and how long writing
takes.
"""

import functools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import grain
import jax
import jax.numpy as jnp
from absl import flags, logging

from experiments.tools import command
from lib.train.checkpoint import Checkpoints
from lib.train.state import State

MEGABYTES = flags.DEFINE_integer('megabytes', 64, 'Size of the training state.', lower_bound=1)
SAVES = flags.DEFINE_integer('saves', 5, 'Number of checkpoints.', lower_bound=1)
FOLDER = flags.DEFINE_string(
  'folder', None, 'Folder of the checkpoints; by default a new one in /tmp.'
)
WIDTH, ROWS = 512, 32  # of a layer's weights, and of the batch
FREE = 20  # steps before each checkpoint


def measure(folder: str | os.PathLike, megabytes: int, saves: int) -> dict[str, list[float]]:
  """Seconds of steps without (`free`) and with (`during`) a checkpoint in flight, and of these.

  `begin` is the time that the loop waits for one, `flight` the time until it is on disk.
  """
  layers = max(megabytes * 2**20 // (4 * WIDTH**2), 1)
  times: dict[str, list[float]] = {'free': [], 'during': [], 'begin': [], 'flight': []}
  data = iter(grain.MapDataset.range(10).to_iter_dataset())

  def output(weights: jax.Array) -> jax.Array:
    layer = lambda x, weight: (jnp.tanh(x @ weight), None)
    return jax.lax.scan(layer, jnp.ones((ROWS, WIDTH)), weights)[0].mean()

  @functools.partial(jax.jit, donate_argnums=0)
  def advance(state: State) -> State:
    return {'weights': state['weights'] - jax.grad(output)(state['weights'])}

  def timed(name: str, work: Callable[[], Any]) -> Any:
    begin = time.perf_counter()
    done = jax.block_until_ready(work())
    times[name].append(time.perf_counter() - begin)
    return done

  weights = jax.random.normal(jax.random.key(0), (layers, WIDTH, WIDTH)) / WIDTH**0.5
  state = advance({'weights': weights})
  with Checkpoints(folder) as checkpoints:
    checkpoints.save(0, state, data, {}, {})  # the first one makes what all need
    checkpoints.wait()
    for save in range(1, saves + 1):
      for _ in range(FREE):
        state = timed('free', lambda: advance(state))
      begin = time.perf_counter()
      timed('begin', lambda: checkpoints.save(save, state, data, {}, {}))
      while not checkpoints.wait(seconds=0):
        state = timed('during', lambda: advance(state))
      times['flight'].append(time.perf_counter() - begin)
  return times


def execute() -> None:
  """Measures and prints medians."""
  logging.set_verbosity(logging.ERROR)  # of orbax
  with tempfile.TemporaryDirectory() as own:
    times = measure(FOLDER.value or own, MEGABYTES.value, SAVES.value)
  median = lambda name: 1000 * statistics.median(times[name] or [math.nan])
  print(
    f'{MEGABYTES.value} MB of state on {jax.devices()[0].device_kind}, medians of {SAVES.value} '
    f'checkpoints:\n'
    f'a step without a checkpoint in flight {median("free"):9.1f} ms\n'
    f'a step with one in flight             {median("during"):9.1f} ms\n'
    f'training waits while one begins       {median("begin"):9.1f} ms\n'
    f'it is on disk after                   {median("flight"):9.1f} ms'
  )


if __name__ == '__main__':
  command.main('stall', execute)
