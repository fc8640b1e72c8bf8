# SPDX-License-Identifier: Apache-2.0
"""The models that read tokens: M2 and those that decompress."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from experiments import runner
from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.models.decoder import Decoder, LanguageModel
from lib.models.positions import SCHEMES
from lib.train import language_model, optimizer
from lib.train.experiment import Batch, Experiment, Variables


@dataclasses.dataclass(frozen=True)
class Trained:
  """A model that was trained.

  Attributes:
    model: the module.
    variables: its variables.
    history: the metrics of its run.
  """

  model: LanguageModel
  variables: Variables
  history: list[dict[str, Any]]

  @property
  def parameters(self) -> int:
    """Parameters without embeddings, as the paper counts them."""
    return sum(x.size for x in jax.tree.leaves(self.variables['params']['decoder']))


def check(options: ConfigDict, where: str) -> None:
  """Raises InputError for a model that cannot be built."""
  for field in ('layers', 'heads', 'dim', 'mlp_dim', 'steps', 'batch_size', 'seeds'):
    if options[field] < 1:
      raise InputError(f'{where}.{field} must be 1 or more; got {options[field]}.')
  if options.dim % options.heads:
    raise InputError(f'{where}.dim {options.dim} is no multiple of {options.heads} heads.')
  if options.position not in SCHEMES:
    raise InputError(f'{where}.position {options.position!r} is not one of {", ".join(SCHEMES)}.')


def make_model(options: ConfigDict, vocab_size: int, length: int, dtype: Any) -> LanguageModel:
  """The decoder of the options over `vocab_size` rows, for texts of `length` tokens."""
  decoder = Decoder(
    layers=options.layers,
    dim=options.dim,
    heads=options.heads,
    mlp_dim=options.mlp_dim,
    position=options.position,
    norm='rms',
    gated=True,
    activation=options.activation,
    init_std=None,
    max_length=length,
    max_distance=options.max_distance,
    remat=options.remat,
    dtype=dtype,
  )
  scale = options.dim**-0.5
  rows = Learned(
    vocab_size,
    options.dim,
    tied=False,
    init_std=1.0,
    readout_scale=scale,
    z_loss=options.z_loss,
    dtype=dtype,
  )
  return LanguageModel(rows, decoder)


def make_optimizer(options: ConfigDict) -> optax.GradientTransformation:
  """The optax chain of the options, for M1 too."""
  schedule = optimizer.make_schedule(
    options.schedule, options.peak, options.steps, options.warmup, options.final
  )
  return optimizer.make_optimizer(
    options.optimizer, schedule, b2=options.b2, clip_norm=options.clip_norm or None
  )


def plan(
  options: ConfigDict, model: LanguageModel, batch: Mapping[str, jax.ShapeDtypeStruct]
) -> runner.Plan:
  """What `fit` would train."""
  experiment = Experiment(*language_model.loss_and_init(model, options.z_loss > 0), ())
  return runner.Plan(experiment, make_optimizer(options), batch, model.embedding.vocab_size)


def fit(
  config: ConfigDict,
  run: runner.Run,
  options: ConfigDict,
  name: str,
  model: LanguageModel,
  batches: Iterable[Batch],
  evaluations: Mapping[str, Callable[[Variables], Mapping[str, Any]]],
  seed: int,
) -> Trained:
  """Trains a model under its name in the workdir, or takes it up where it stands."""
  state, history = runner.train(
    Experiment(*language_model.loss_and_init(model, options.z_loss > 0), batches, evaluations),
    make_optimizer(options),
    config,
    run,
    options,
    name=name,
    seed=seed,
  )
  return Trained(model, state['variables'], history)


def dtype(config: ConfigDict) -> Any:
  """The dtype of activations."""
  return jnp.dtype(config.dtype)


def seeds(config: ConfigDict, options: ConfigDict) -> range:
  """Seeds of the models of a section."""
  return range(config.seed, config.seed + options.seeds)
