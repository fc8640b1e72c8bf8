# SPDX-License-Identifier: Apache-2.0
"""M1: the small byte model that compresses, trained once a workdir and shared by all tables."""

import functools
import itertools

import grain
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.equal_info import models
from lib.data import epochs, pipeline, sources
from lib.errors import InputError
from lib.models.byte_model import BEGIN, ByteModel, Sizes, make
from lib.models.byte_stepper import ByteStepper
from lib.models.decoder import LanguageModel
from lib.models.positions import SCHEMES
from lib.tokenizers import Characters
from lib.train import language_model, processes
from lib.train.experiment import Batch, Experiment


def check(config: ConfigDict) -> None:
  """Raises InputError for an M1 that cannot be built, or text that is not there."""
  options = config.m1
  for field in ('layers', 'dim', 'heads', 'mlp_dim', 'streams', 'steps', 'batch_size'):
    if options[field] < 1:
      raise InputError(f'm1.{field} must be 1 or more; got {options[field]}.')
  if options.context < 4:
    raise InputError(f'm1.context must be 4 or more; got {options.context}.')
  if options.dim % options.heads:
    raise InputError(f'm1.dim {options.dim} is no multiple of {options.heads} heads.')
  if options.position not in SCHEMES:
    raise InputError(f'm1.position {options.position!r} is not one of {", ".join(SCHEMES)}.')
  for split in ('train', 'validation', 'test'):
    sources.open_source(config.data.source, split)
  read = options.steps * options.batch_size * options.context
  epochs.check('data.source', config.data.source, read, config.scale)


def ready(config: ConfigDict, run: runner.Run) -> ByteModel:
  """M1 of this workdir: trained now, or by an earlier table or call."""
  path = run.workdir / 'm1'
  if not processes.agreed(path.exists()):
    trained = fit(config, run)
    processes.once(path, lambda: trained.save(path))
  return _load(path)


def stepper(config: ConfigDict, run: runner.Run) -> ByteStepper:
  """M1 that codecs of this workdir share, one after the other."""
  return _stepper(ready(config, run))


_load = functools.cache(ByteModel.load)
_stepper = functools.cache(ByteStepper)


def sizes(config: ConfigDict) -> Sizes:
  """What M1 is built of."""
  names = ('layers', 'dim', 'heads', 'mlp_dim', 'context', 'streams', 'position', 'max_distance',
           'gated', 'activation')  # fmt: skip
  return Sizes(**{name: config.m1[name] for name in names})


def fit(config: ConfigDict, run: runner.Run) -> ByteModel:
  """Trains M1, or goes on where training stands."""
  options = config.m1
  state, _ = runner.train(
    make_experiment(config),
    models.make_optimizer(options, options.peak),
    config,
    run,
    options,
    name='m1',
    seed=config.seed,
  )
  return ByteModel(sizes(config), jax.device_get(state['variables']))


def make_model(config: ConfigDict) -> LanguageModel:
  """The module in the dtype of training."""
  return make(sizes(config), jnp.dtype(config.dtype), config.m1.remat, config.m1.z_loss)


def make_experiment(config: ConfigDict) -> Experiment:
  """What the loop trains."""
  init_fn, loss_fn = language_model.loss_and_init(make_model(config), config.m1.z_loss > 0)
  held_out = itertools.islice(batches(config, 'validation'), config.m1.validation_batches)
  score = language_model.held_out(loss_fn, held_out)
  return Experiment(init_fn, loss_fn, batches(config, 'train'), {'validation': score})


def batches(config: ConfigDict, split: str) -> grain.IterDataset:
  """Rows of documents end to end, each begun as if the text began there.

  So M1 learns what follows a begin amid a document, even amid a word, as windows need it.
  """
  rows = pipeline.batches(
    sources.open_source(config.data.source, split),
    Characters(),
    batch_size=config.m1.batch_size,
    length=config.m1.context,
    seed=config.seed,
  )
  return rows.map(_begun)


def _begun(batch: Batch) -> Batch:
  inputs = np.array(batch['inputs'])
  inputs[:, 0] = BEGIN
  return {**batch, 'inputs': inputs}
