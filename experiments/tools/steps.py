# SPDX-License-Identifier: Apache-2.0
"""A recipe's training step without its data: found by name, compiled, ready to run."""

import functools
import importlib
import pathlib
import time

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments.recipe import Recipe, TrainSpec
from lib.errors import InputError
from lib.parallel import sharding
from lib.profiling import compiled_step
from lib.train import state


def load(path: str) -> Recipe:
  """The recipe of a config file."""
  name = pathlib.Path(path.partition(':')[0]).stem
  return importlib.import_module(f'experiments.{name}.recipe').RECIPE


def chosen(recipe: Recipe, config: ConfigDict, model: str) -> str:
  """The requested model, or the largest; raises InputError with the known ones for an unknown
  one.
  """
  names = list(recipe.train_specs(config))
  if not names:
    raise InputError(f'the models of {recipe.name} depend on its data: none can be compiled.')
  if model and model not in names:
    raise InputError(f'--model={model} is not one of {"; ".join(names)}.')
  return model or names[0]


class Ready:
  """A compiled step with its state and one batch of random tokens, which it reads every time.

  Attributes:
    compiled: the step, (state, batch) -> (state, metrics), as `loop.train` runs it.
    state: the training state, from which each run continues.
    batch: on the devices.
    seconds: of compilation, CPU time of all threads.
  """

  def __init__(self, one: TrainSpec, mesh: Mesh, seed: int = 0, accumulate: int = 1):
    experiment = one.experiment
    with jax.set_mesh(mesh):
      self.batch = sharding.global_batch(one.random_batch(), mesh, experiment.batch_axis)
      training = state.prepare(experiment, one.optimizer, self.batch, seed, mesh, accumulate)
      self.state, self._training = training.make(), training
      lowered = training.step.lower(self.state, self.batch)
      begin = time.process_time()
      self.compiled = state.compile_lowered(lowered)
      self.seconds = time.process_time() - begin

  @functools.cached_property
  def account(self) -> compiled_step.Step:
    """The compiler's figures for the step."""
    training = self._training
    variables = training.shapes['variables']
    return compiled_step.account(self.compiled, variables, training.flops, self.seconds)

  def run(self) -> tuple[float, dict[str, jax.Array]]:
    """Runs the step once and waits for it; returns its seconds and its metrics."""
    begin = time.perf_counter()
    self.state, metrics = self.compiled(self.state, self.batch)
    jax.block_until_ready((self.state, metrics))
    return time.perf_counter() - begin, metrics

  def pace(self, count: int) -> float:
    """Mean seconds of a number of steps, dispatched without waiting, as in `loop.train`."""
    before: dict[str, jax.Array] = {}
    begin = time.perf_counter()
    for _ in range(count):
      self.state, metrics = self.compiled(self.state, self.batch)
      jax.block_until_ready(before)
      before = metrics
    jax.block_until_ready((self.state, before))
    return (time.perf_counter() - begin) / count


def prepare(recipe: Recipe, config: ConfigDict, model: str) -> Ready:
  """The step of a recipe's model, on the devices of the config's mesh."""
  one, mesh = recipe.train_specs(config)[model](), sharding.make_mesh(config.mesh)
  return Ready(one, mesh, config.seed, config.accumulate)
