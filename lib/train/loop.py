# SPDX-License-Identifier: Apache-2.0
"""The one training loop."""

import contextlib
import os
import pathlib
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from lib.train import metrics as metric_files
from lib.train import sharding
from lib.train.checkpoint import Checkpoints
from lib.train.experiment import Experiment
from lib.train.state import State, make_step, state_shapes


class Stopped(Exception):
  """The run was asked to stop (SIGTERM); its state is saved and the same command goes on."""


class Diverged(FloatingPointError):
  """The loss is no longer finite; the message names the step."""


@contextlib.contextmanager
def sigterm_flag() -> Iterator[list[bool]]:
  """A list that receives True once SIGTERM has come, so that the loop can finish its step."""
  flag: list[bool] = []
  before = signal.signal(signal.SIGTERM, lambda *_: flag.append(True))
  try:
    yield flag
  finally:
    signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def maybe_profile(
  folder: pathlib.Path, step: int, window: tuple[int, int] | None
) -> Iterator[None]:
  """Starts a profiler trace at the window's first step and stops it after its last."""
  if window and step == window[0] and jax.process_index() == 0:
    jax.profiler.start_trace(folder / 'profile')
  with jax.profiler.StepTraceAnnotation('train', step_num=step):
    yield
  if window and step == window[1] - 1 and jax.process_index() == 0:
    jax.profiler.stop_trace()


def check_finite(step: int, values: Mapping[str, Any]) -> None:
  """Raises Diverged, naming the step, if the loss or the gradient is not finite."""
  for name in ('loss', 'gradient_norm'):
    if not np.all(np.isfinite(values[name])):
      raise Diverged(
        f'{name} is {values[name]} at step {step}: stopped; the checkpoints are older.'
      )


def train(
  experiment: Experiment,
  optimizer: optax.GradientTransformation,
  *,
  steps: int,
  seed: int,
  mesh: Mesh,
  rules: sharding.Rules,
  workdir: str | os.PathLike,
  run: str = 'train',
  log_every: int = 10,
  evaluate_every: int = 100,
  checkpoint_every: int = 1000,
  profile: tuple[int, int] | None = None,
  config: Mapping[str, Any] | None = None,
) -> tuple[State, list[dict[str, Any]]]:
  """Trains to `steps`, from the newest checkpoint if there is one.

  Args:
    experiment: what to train.
    optimizer: the optax chain.
    steps: steps in all.
    seed: of the initial state and of every step's randomness.
    mesh: devices.
    rules: ordered (expression, spec) pairs that place every array of the state.
    workdir: gets metrics.jsonl, tensorboard/RUN and checkpoints/RUN.
    run: name of this run; several may share a workdir.
    log_every: steps between lines of metrics.
    evaluate_every: steps between evaluations; the last state is always evaluated.
    checkpoint_every: steps between checkpoints; the last state is always saved.
    profile: (first, last + 1) steps to trace, or None.
    config: kept in each checkpoint.

  Returns:
    The final state, and the history: every line of metrics of this run, in which `seconds` is the
    time spent in training steps so far (compilation, evaluation and saving left out).

  Raises:
    Stopped: after SIGTERM, with the state saved.
    Diverged: the loss became NaN or infinite.
  """
  workdir = pathlib.Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  data = iter(experiment.batches)
  with jax.set_mesh(mesh), Checkpoints(workdir / 'checkpoints' / run) as checkpoints:
    first = next(iter(experiment.batches))  # shapes alone; `data` keeps its position
    example = sharding.global_batch(first, mesh, experiment.batch_axis)
    make, shapes = state_shapes(experiment, optimizer, example, seed, rules, mesh)
    restored = checkpoints.restore(shapes, data)
    state, progress = restored or (make(), {'seconds': 0.0})
    start, seconds = int(state['step']), progress['seconds']
    step_fn = make_step(experiment, optimizer, seed, shapes).lower(state, example).compile()
    metrics = metric_files.Metrics(workdir, run, start if restored else -1)
    bar = metric_files.progress_bar(run, start, steps)
    with contextlib.closing(metrics), contextlib.closing(bar), sigterm_flag() as stop:

      def evaluate(step: int) -> None:
        for name, evaluation in experiment.evaluations.items():
          values = evaluation(state['variables'])
          metrics.write(step, {f'{name}/{k}': v for k, v in values.items()} | {'seconds': seconds})

      def save(step: int) -> None:
        checkpoints.save(step, state, data, {'seconds': seconds}, config or {})

      def report(step: int, values: Mapping[str, jax.Array], elapsed: float) -> None:
        host = jax.device_get(values)
        check_finite(step, host)
        if step % log_every == 0 or step == steps - 1:
          line = metric_files.summarise(host, max(elapsed, 1e-9))
          metric_files.show(bar, line)
          metrics.write(step + 1, line | {'seconds': seconds})

      pending: tuple | None = None

      def settle() -> None:
        # The state may be evaluated or saved only once its own loss is known to be finite.
        nonlocal pending
        if pending:
          report(*pending)
          pending = None

      clock = time.perf_counter()
      for step in range(start, steps):
        # NOTE: keep this order. Evaluate and save the *old* state, then take the next batch: so a
        # checkpoint at step s holds the data position of batch s, and step 0 is covered.
        due_save = step > start and step % checkpoint_every == 0
        if stop or due_save or step % evaluate_every == 0:
          settle()
          if (step > start or not restored) and step % evaluate_every == 0:
            evaluate(step)
          if stop or due_save:
            save(step)
          if stop:
            raise Stopped(f'stopped by SIGTERM at step {step}, saved; the same command goes on.')
          clock = time.perf_counter()
        with maybe_profile(workdir, step, profile):
          batch = sharding.global_batch(next(data), mesh, experiment.batch_axis)
          with jax.transfer_guard('disallow'):
            state, values = step_fn(state, batch)
        if pending:  # metrics of the step before, read while this one runs
          report(*pending)
        now = time.perf_counter()
        elapsed, clock = now - clock, now
        seconds += elapsed
        pending = (step, values, elapsed)
        bar.update()
      settle()
      if start < steps:
        evaluate(steps)
        save(steps)
  return state, metric_files.read(workdir / 'metrics.jsonl', run)
