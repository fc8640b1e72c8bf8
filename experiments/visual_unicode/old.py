# SPDX-License-Identifier: Apache-2.0
"""Training as `matrix` has it until it uses `experiments.fit`."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import grain
import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from lib.data import pipeline
from lib.models.decoder import Decoder, LanguageModel
from lib.report.results import name as row_name
from lib.train import language_model, optimizer, replicas
from lib.train.experiment import Batch, Experiment, Variables


@dataclasses.dataclass(frozen=True)
class Trained:
  """One model, ready for evaluation.

  Attributes:
    model: ids to nats.
    variables: of this seed alone.
    history: metrics of its run; its values are at `index` of every list.
    index: among the seeds that were trained side by side.
    rate: the learning rate at its peak; None if it is untrained.
  """

  model: LanguageModel
  variables: Variables
  history: list[dict[str, Any]]
  index: int
  rate: float | None = None


def make_decoder(options: ConfigDict, dtype: Any) -> Decoder:
  """The decoder of the options: rotary positions, an MLP of four times the width."""
  return Decoder(
    layers=options.layers,
    dim=options.dim,
    heads=options.heads,
    mlp_dim=4 * options.dim,
    position='rotary',
    remat=options.remat,
    dtype=dtype,
  )


def make_experiment(
  model: LanguageModel,
  batches: Sequence[grain.IterDataset],
  evaluations: Mapping[str, Iterable[Batch]] | None = None,
) -> Experiment:
  """What the loop trains: one model for each data set of `batches`, side by side.

  `evaluations` are held-out batches of a single model: all are scored on the same.
  """
  count = len(batches)
  single = Experiment(*language_model.loss_and_init(model), batches=())
  every = replicas.replicate(single, count, pipeline.stack(batches))
  for_all = lambda held_out: [{k: np.stack([v] * count) for k, v in b.items()} for b in held_out]
  scores = {
    name: language_model.held_out(every.loss_fn, for_all(held_out))
    for name, held_out in (evaluations or {}).items()
  }
  return dataclasses.replace(every, evaluations=scores)


def make_optimizer(options: ConfigDict):
  """AdamW or Muon on a cosine; clipping would join the seeds that train side by side."""
  schedule = optimizer.make_schedule(
    'cosine', options.peak, options.steps, int(options.warmup * options.steps), options.final
  )
  return optimizer.make_optimizer(options.optimizer, schedule, weight_decay=options.weight_decay)


def fit_model(
  config: ConfigDict,
  run: runner.Run,
  options: ConfigDict,
  name: str,
  model: LanguageModel,
  batches: Callable[[int], grain.IterDataset],
  evaluations: Mapping[str, Iterable[Batch]] | None = None,
) -> list[Trained]:
  """Trains all seeds of a model, or resumes them from the workdir.

  Args:
    config: of the run.
    run: where it lies.
    options: the section with the model's training.
    name: of its checkpoints, less the seeds.
    model: ids to nats.
    batches: seed -> training batches.
    evaluations: name -> held-out batches, for the history.

  Returns:
    A model for each seed config.seed, config.seed + 1, …
  """
  trained = []
  for first in range(config.seed, config.seed + options.seeds, options.side_by_side):
    seeds = range(first, min(first + options.side_by_side, config.seed + options.seeds))
    state, history = runner.train(
      make_experiment(model, [batches(seed) for seed in seeds], evaluations),
      make_optimizer(options),
      config,
      run,
      options,
      name=f'{name},{row_name(seeds=f"{seeds[0]}-{seeds[-1]}")}',
      seed=first,
    )
    for index in range(len(seeds)):
      variables = jax.tree.map(lambda leaf, index=index: leaf[index], state['variables'])
      trained.append(Trained(model, variables, history, index, options.peak))
  return trained
