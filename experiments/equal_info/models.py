# SPDX-License-Identifier: Apache-2.0
"""The models that read tokens: M2 and those that decompress."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from experiments import rates, runner
from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.models.decoder import Decoder, LanguageModel
from lib.models.positions import SCHEMES
from lib.report.results import Row
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
  if not options.rates or min(options.rates) <= 0:
    raise InputError(f'{where}.rates must be positive; got {tuple(options.rates)}.')
  if not 0 < options.rate_share <= 1:
    raise InputError(f'{where}.rate_share must be above 0 and at most 1; got {options.rate_share}.')
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


def make_optimizer(options: ConfigDict, peak: float) -> optax.GradientTransformation:
  """The optax chain of the options with the highest learning rate `peak`, for M1 too."""
  schedule = optimizer.make_schedule(
    options.schedule, peak, options.steps, options.warmup, options.final
  )
  return optimizer.make_optimizer(
    options.optimizer, schedule, b2=options.b2, clip_norm=options.clip_norm or None
  )


def plan(
  options: ConfigDict, model: LanguageModel, batch: Mapping[str, jax.ShapeDtypeStruct], peak: float
) -> runner.Plan:
  """What `fit` would train."""
  experiment = Experiment(*language_model.loss_and_init(model, options.z_loss > 0), ())
  return runner.Plan(experiment, make_optimizer(options, peak), batch, model.embedding.vocab_size)


def choose_rate(
  options: ConfigDict, train: Callable[[ConfigDict, float], Trained], metric: str
) -> float:
  """The best of `options.rates` by validation text, after `options.rate_share` of the steps.

  Args:
    options: of the models of one arm.
    train: (options of a short training, its rate) -> the model that it trains, with one seed.
    metric: of its history, the lower the better.
  """

  def loss(rate: float) -> float:
    short = ConfigDict(options.to_dict())
    short.steps = max(1, round(options.rate_share * options.steps))
    short.evaluate_every = short.checkpoint_every = short.steps
    return [line[metric] for line in train(short, rate).history if metric in line][-1]

  return rates.choose(options.rates, loss)


def rate_row(table: str, row: str, options: ConfigDict, rate: float) -> Row:
  """The learning rate of an arm."""
  note = 'the only one tried'
  if len(options.rates) > 1:
    grid = ', '.join(f'{one:g}' for one in options.rates)
    note = f'of {grid}: lowest validation loss after {options.rate_share:g} of the steps, one seed'
  return Row(table, row, 'learning_rate', rate, note=note)


def fit(
  config: ConfigDict,
  run: runner.Run,
  options: ConfigDict,
  name: str,
  model: LanguageModel,
  batches: Iterable[Batch],
  evaluations: Mapping[str, Callable[[Variables], Mapping[str, Any]]],
  seed: int,
  rate: float,
) -> Trained:
  """Trains a model under its name in the workdir, or takes it up where it stands."""
  state, history = runner.train(
    Experiment(*language_model.loss_and_init(model, options.z_loss > 0), batches, evaluations),
    make_optimizer(options, rate),
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
