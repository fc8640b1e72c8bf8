# SPDX-License-Identifier: Apache-2.0
"""Every config at every scale: it builds, and its step has the right shapes."""

import jax
import pytest

from configs import common, markov
from experiments.markov import transformer
from lib.errors import InputError
from lib.train import optimizer, sharding
from lib.train.state import prepare


def shape_check(experiment, config, mesh):
  """One step by shapes alone; returns the abstract state after it."""
  batch = sharding.global_batch(
    jax.tree.map(lambda x: x, next(iter(experiment.batches))), mesh, experiment.batch_axis
  )
  chain = optimizer.make_optimizer('adamw', lambda _: 1e-3)
  training = prepare(experiment, chain, batch, 0, mesh)
  shapes = training.shapes
  after, metrics = jax.eval_shape(training.step, shapes, batch)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
    lambda x: (x.shape, x.dtype), shapes
  )
  assert {'loss', 'nats', 'bytes', 'tokens', 'gradient_norm'} <= set(metrics)
  return shapes


@pytest.mark.parametrize('scale', common.SCALES)
def test_markov_builds_and_steps(scale):
  config = markov.get_config(scale)
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 2})
  arms = transformer.arms(config)
  for arm in {str(arm): arm for arm in (*arms[:2], *arms[-2:])}.values():
    shapes = shape_check(transformer.make_experiment(config, arm), config, mesh)
    assert shapes['variables']['params']['embedding']['table'].shape[0] == config.transformer.seeds


def test_arguments_choose_scale_and_tables():
  config = markov.get_config('smoke,tables=ngram+blocks')
  assert config.scale == 'smoke'
  assert config.tables == ('ngram', 'blocks')
  assert markov.get_config().scale == 'cpu'
  assert markov.get_config().tables == markov.TABLES


@pytest.mark.parametrize(
  ('arg', 'message'),
  [
    ('huge', "scale 'huge' is not one of smoke, cpu, gpu, paper"),
    ('cpu,tables=ngram+nope', "table 'nope' is not one of ngram, blocks"),
    ('cpu,seed=3', "option 'seed=3' is not known"),
  ],
)
def test_wrong_arguments_are_named_with_the_right_ones(arg, message):
  with pytest.raises(InputError, match=message):
    markov.get_config(arg)
