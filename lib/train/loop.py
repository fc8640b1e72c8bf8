# SPDX-License-Identifier: Apache-2.0
"""The one training loop."""

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lib.errors import InputError
from lib.mirror import Mirror
from lib.parallel import processes, sharding
from lib.train import metrics as metric_files
from lib.train.checkpoint import Checkpoints
from lib.train.experiment import Experiment
from lib.train.optimizer import Optimizer
from lib.train.state import State, compile_lowered, prepare
from lib.train.stopping import Stopped, StopSignals


class Diverged(FloatingPointError):
  """The loss is no longer finite; the message names the step."""


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
    """Ends a running trace."""
    if self._tracing:
      jax.profiler.stop_trace()
      self._tracing = False


def check_finite(step: int, values: Mapping[str, Any]) -> None:
  """Raises Diverged, naming the step, if the loss or the gradient is not finite."""
  for name in ('loss', 'gradient_norm'):
    if not np.all(np.isfinite(values[name])):
      raise Diverged(
        f'{name} is {values[name]} at step {step}: training stopped; the last checkpoint is '
        'from an earlier step.'
      )


def train(
  experiment: Experiment,
  optimizer: Optimizer,
  *,
  steps: int,
  seed: int,
  mesh: Mesh,
  workdir: str | os.PathLike,
  run: str = 'train',
  log_every: int = 10,
  evaluate_every: int = 100,
  checkpoint_every: int = 1000,
  profile: tuple[int, int] | None = None,
  accumulate: int = 1,
  identity: Mapping[str, Any] | None = None,
  mirror: Mirror | None = None,
) -> tuple[State, list[dict[str, Any]]]:
  """Trains to `steps`, from the newest checkpoint if there is one.

  Args:
    experiment: what to train.
    optimizer: an optax chain, or what `lib.train.optimizer.make_optimizer` returns.
    steps: steps in all.
    seed: of the initial state and of every step's randomness.
    mesh: devices.
    workdir: gets metrics.jsonl, tensorboard/RUN and checkpoints/RUN.
    run: name of this run; several may share a workdir.
    log_every: steps between lines of metrics.
    evaluate_every: steps between evaluations; the last state is always evaluated.
    checkpoint_every: steps between checkpoints; the last state is always saved.
    profile: (first, last + 1) steps to trace into workdir/profile/RUN, or None.
    accumulate: parts of each batch that are processed one after the other, to save memory.
    identity: of the run (`lib.provenance`), kept in each checkpoint. Checkpoints of another
      identity are refused.
    mirror: if workdir is the copy of a bucket. Checkpoints are written to the bucket; files are
      sent before each of them, so that no earlier line of metrics can be lost.

  Returns:
    The final state, its variables whole on this process, and the history: every line of metrics of
    this run, in which `seconds` is the time spent in training steps so far (compilation, evaluation
    and saving left out). Evaluations too see variables that are whole on this process.

  Raises:
    InputError: no part of a batch, steps between lines, evaluations or checkpoints that are fewer
      than 1, or a profile of no steps.
    Stopped: after SIGTERM or Ctrl-C in a step or an evaluation, with the state saved.
    Diverged: the loss became NaN or infinite.
  """
  if min(log_every, evaluate_every, checkpoint_every, accumulate) < 1:
    raise InputError(
      'steps between lines of metrics, evaluations and checkpoints, and parts of a batch, must be '
      f'1 or more; got {log_every}, {evaluate_every}, {checkpoint_every} and {accumulate}.'
    )
  if profile is not None and (len(profile) != 2 or not 0 <= profile[0] < profile[1]):
    raise InputError(f'profile={profile} contains no step: give (first, last + 1).')
  workdir = pathlib.Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  data = iter(experiment.batches)
  stop = StopSignals()
  with (
    jax.set_mesh(mesh),
    Checkpoints(f'{mirror.url if mirror else workdir}/checkpoints/{run}') as checkpoints,
    contextlib.closing(metric_files.progress_bar(run, steps)) as bar,
  ):
    bar.phase('compiling')
    first = next(iter(experiment.batches))  # shapes alone; `data` keeps its position
    example = sharding.global_batch(first, mesh, experiment.batch_axis)
    training = prepare(experiment, optimizer, example, seed, mesh, accumulate)
    restored = checkpoints.restore(training.shapes, data, identity or {})
    state, progress = restored or (training.make(), {'seconds': 0.0, 'evaluated': False})
    start, seconds = int(state['step']), progress['seconds']
    evaluated = progress['evaluated']  # whether `state` has been evaluated, if that is due
    if start < steps:  # a finished run is only read
      step_fn = compile_lowered(training.step.lower(state, example))
    metrics = metric_files.Metrics(workdir, run, start if restored else -1)
    bar.begin(start)
    bar.phase('first step')
    profiler = Profiler(workdir / 'profile' / run, profile)
    pending: tuple[int, Mapping[str, jax.Array]] | None = None
    clock = time.perf_counter()  # end of the last step, or of the last pause

    def evaluate(step: int) -> None:
      nonlocal evaluated
      bar.phase('evaluating')
      variables = processes.gather_to_host(state['variables'], mesh)
      found: dict[str, Mapping[str, Any]] = {}
      measure = lambda: found.update(
        (name, of(variables)) for name, of in experiment.evaluations.items()
      )
      with jax.set_mesh(processes.local_mesh(mesh)):
        evaluated = stop.undisturbed(measure)
      for name, values in found.items() if evaluated else ():
        metrics.write(step, {f'{name}/{k}': v for k, v in values.items()} | {'seconds': seconds})

    def save(step: int) -> None:
      if mirror and processes.is_primary():
        mirror.send()
      progress = {'seconds': seconds, 'evaluated': evaluated}
      checkpoints.save(step, state, data, progress, identity or {})

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
      if step == start:
        bar.restart()  # it took long: something was compiled
      if step % log_every == 0 or step == steps - 1:
        line = metric_files.summarise(host, elapsed)
        metric_files.show(bar, line)
        metrics.write(step + 1, line | {'seconds': seconds, 'steps': steps})

    with contextlib.closing(metrics), contextlib.closing(profiler), stop:
      for step in range(start, steps):
        # NOTE: keep this order. Evaluate and save the *old* state, then take the next batch: so a
        # checkpoint at step s has the data position of batch s, and step 0 is covered. Before
        # either, settle: a state may be kept only once its own loss is known to be finite.
        due_save = step > start and step % checkpoint_every == 0
        due_evaluation = step % evaluate_every == 0 and not evaluated
        if stop.stops(step) or due_save or due_evaluation:
          settle()
          if due_evaluation:
            evaluate(step)
          if stop.number or due_save:
            save(step)
          if stop.number:
            checkpoints.wait()
            raise Stopped(
              f'stopped by {stop.name} at step {step}, saved; the same command resumes it.',
              stop.number,
            )
          clock = time.perf_counter()
        with profiler.step(step):
          batch = sharding.global_batch(next(data), mesh, experiment.batch_axis)
          with jax.transfer_guard('disallow'):
            state, values = step_fn(state, batch)
        evaluated = False
        settle()  # the step before, read while this one runs
        pending = (step, values)
        checkpoints.wait(seconds=0)  # report a full disk now, not at the next save
        bar.update()
      settle()
      if start < steps or (start == steps and not evaluated):
        evaluate(steps)
        save(steps)
        checkpoints.wait()
      if stop.stops(steps):
        raise Stopped(
          f'stopped by {stop.name} after step {steps}, saved; the same command resumes it.',
          stop.number,
        )
    state = state | {'variables': processes.gather_to_host(state['variables'], mesh)}
    processes.wait(f'{run} is trained')  # its history is written by the first
  return state, metric_files.read(workdir / 'metrics.jsonl', run)
