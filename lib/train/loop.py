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


class Stopped(BaseException):
  """The run was asked to stop (SIGTERM); its state is saved and the same command goes on.

  Like KeyboardInterrupt, it is no Exception, so that no handler of errors takes it for one.
  """


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


class Profiler:
  """Traces the steps of a window (first, last + 1), if one is given, on process 0."""

  def __init__(self, folder: pathlib.Path, window: tuple[int, int] | None):
    self._folder, self._window = folder, window if jax.process_index() == 0 else None
    self._tracing = False

  @contextlib.contextmanager
  def step(self, step: int) -> Iterator[None]:
    """Names the step in the trace, and starts or stops the trace at the window's edges."""
    inside = self._window is not None and self._window[0] <= step < self._window[1]
    if inside and not self._tracing:
      jax.profiler.start_trace(self._folder)
      self._tracing = True
    with jax.profiler.StepTraceAnnotation('train', step_num=step):
      yield
    if self._window and step == self._window[1] - 1:
      self.close()

  def close(self) -> None:
    """Ends a trace that is still going on."""
    if self._tracing:
      jax.profiler.stop_trace()
      self._tracing = False


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
    profile: (first, last + 1) steps to trace into workdir/profile/RUN, or None.
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
  with (
    jax.set_mesh(mesh),
    sigterm_flag() as stop,
    Checkpoints(workdir / 'checkpoints' / run) as checkpoints,
  ):
    first = next(iter(experiment.batches))  # shapes alone; `data` keeps its position
    example = sharding.global_batch(first, mesh, experiment.batch_axis)
    make, shapes = state_shapes(experiment, optimizer, example, seed, rules, mesh)
    restored = checkpoints.restore(shapes, data)
    state, progress = restored or (make(), {'seconds': 0.0})
    start, seconds = int(state['step']), progress['seconds']
    if start < steps:  # a run that is done is only read
      step_fn = make_step(experiment, optimizer, seed, shapes).lower(state, example).compile()
    metrics = metric_files.Metrics(workdir, run, start if restored else -1)
    bar = metric_files.progress_bar(run, start, steps)
    profiler = Profiler(workdir / 'profile' / run, profile)
    pending: tuple[int, Mapping[str, jax.Array]] | None = None
    clock = time.perf_counter()  # when the last step was done, or the loop went on after a pause

    def evaluate(step: int) -> None:
      for name, evaluation in experiment.evaluations.items():
        values = evaluation(state['variables'])
        metrics.write(step, {f'{name}/{k}': v for k, v in values.items()} | {'seconds': seconds})

    def save(step: int) -> None:
      checkpoints.save(step, state, data, {'seconds': seconds}, config or {})

    def settle() -> None:
      """Waits for the step in flight, checks its loss and reports it with its time."""
      nonlocal pending, clock, seconds
      if pending is None:
        return
      (step, values), pending = pending, None
      host = jax.device_get(values)
      elapsed, clock = time.perf_counter() - clock, time.perf_counter()
      seconds += elapsed
      check_finite(step, host)
      if step % log_every == 0 or step == steps - 1:
        line = metric_files.summarise(host, elapsed)
        metric_files.show(bar, line)
        metrics.write(step + 1, line | {'seconds': seconds})

    with contextlib.closing(metrics), contextlib.closing(bar), contextlib.closing(profiler):
      for step in range(start, steps):
        # NOTE: keep this order. Evaluate and save the *old* state, then take the next batch: so a
        # checkpoint at step s holds the data position of batch s, and step 0 is covered. Before
        # either, settle: a state may be kept only once its own loss is known to be finite.
        due_save = step > start and step % checkpoint_every == 0
        due_evaluation = step % evaluate_every == 0 and (step > start or not restored)
        if stop or due_save or due_evaluation:
          settle()
          if due_evaluation:
            evaluate(step)
          if stop or due_save:
            save(step)
          if stop:
            raise Stopped(f'stopped by SIGTERM at step {step}, saved; the same command goes on.')
          clock = time.perf_counter()
        with profiler.step(step):
          batch = sharding.global_batch(next(data), mesh, experiment.batch_axis)
          with jax.transfer_guard('disallow'):
            state, values = step_fn(state, batch)
        settle()  # the step before, read while this one runs
        pending = (step, values)
        bar.update()
      settle()
      if start < steps:
        evaluate(steps)
        save(steps)
      if stop:
        raise Stopped(f'stopped by SIGTERM after step {steps}, saved; the same command goes on.')
  return state, metric_files.read(workdir / 'metrics.jsonl', run)
