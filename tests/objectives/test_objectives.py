# SPDX-License-Identifier: Apache-2.0
"""Losses and metrics by name: what a model sows is minimised and logged, however it is trained."""

import dataclasses
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lib.data import pipeline
from lib.errors import InputError
from lib.objectives.next_token import next_token
from lib.parallel import sharding
from lib.train import loop, replicas
from lib.train.experiment import Experiment
from tests.helpers import tiny

KEY = jax.random.key(0)


class Layer(nn.Module):
  """Sows a loss of its own in every layer."""

  @nn.compact
  def __call__(self, x, _):
    kernel = self.param('kernel', nn.initializers.normal(), (8, 8))
    self.sow('losses', 'weights', (kernel**2).sum())
    self.sow('losses', 'activations', (x**2).mean(-1))
    return x + x @ kernel, None


class Sower(nn.Module):
  """A bigram model that reports a ratio, and counts for each token."""

  layers: int = 2

  @nn.compact
  def __call__(self, batch, key):
    x = nn.Embed(tiny.V + 1, 8)(batch['inputs'])
    axes = {'params': 0, 'losses': 0, 'metrics': 0}
    x, _ = nn.scan(Layer, variable_axes=axes, split_rngs={'params': True}, length=self.layers)()(
      x, None
    )
    logits = nn.Dense(tiny.V)(x)
    self.sow('metrics', 'ratio', batch['segments'].mean() / 4)
    self.sow('metrics', 'even', batch['inputs'] % 2 == 0)
    targets = jnp.maximum(batch['targets'], 0)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets)


@pytest.fixture(scope='module')
def batch():
  found = pipeline.batch_from_ids(np.arange(12).reshape(3, 4) % tiny.V, tiny.V)
  found['segments'] = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
  return found


def test_named_losses_are_weighted_and_summed_over_layers(batch):
  init_fn, loss_fn = next_token(Sower(), {'weights': 0.5})
  variables = init_fn(KEY, batch)
  assert list(variables) == ['params']  # what is sown is no state
  params = variables['params']
  squares = float((params['ScanLayer_0']['kernel'] ** 2).sum())
  real = batch['segments'] > 0
  x, activations = params['Embed_0']['embedding'][batch['inputs']], 0.0
  for kernel in params['ScanLayer_0']['kernel']:
    activations += float((x**2).mean(-1)[real].mean())
    x = x + x @ kernel
  loss, sums = loss_fn(variables, batch, KEY)
  tokens = real.sum()
  assert sums['tokens'] == tokens
  assert sums['weights'] / tokens == pytest.approx(squares, rel=1e-5)
  assert sums['activations'] / tokens == pytest.approx(activations, rel=1e-5)
  assert sums['even'] / tokens == pytest.approx((batch['inputs'] % 2 == 0)[real].mean())
  expected = float(sums['nats'] / tokens) + 0.5 * squares + activations
  assert float(loss) == pytest.approx(expected, rel=1e-5)
  # A schedule of the loss's name multiplies its weight.
  scheduled, _ = loss_fn(variables, batch | {'weights': 0.1, 'activations': 0.0}, KEY)
  assert float(scheduled) == pytest.approx(float(sums['nats'] / tokens) + 0.05 * squares, rel=1e-5)


@pytest.mark.parametrize(
  ('sown', 'weights', 'message'),
  [
    ({'metrics': {'nats': (1.0,)}}, {}, "cannot be called 'nats'"),
    ({'metrics': {'a': (1.0,)}, 'losses': {'a': (1.0,)}}, {}, "cannot be called 'a'"),
    ({'losses': {'z_loss': (1.0,)}}, {'zloss': 1.0}, "'zloss' applies to no loss: .* sows z_loss"),
  ],
)
def test_names_that_mean_two_things_or_nothing_are_refused(batch, sown, weights, message):
  model = types.SimpleNamespace(apply=lambda *_, mutable: (np.ones((3, 4)), sown))
  with pytest.raises(InputError, match=message):
    next_token(model, weights)[1]({}, batch, KEY)


def train(workdir, experiment, **options):
  mesh = sharding.make_mesh({'data': 2}, jax.devices()[:2])
  chain = optax.adam(1e-2)
  return loop.train(
    experiment, chain, steps=3, seed=0, mesh=mesh, workdir=workdir, log_every=1, **options
  )[1]


def test_what_a_model_reports_is_in_the_history(tmp_path):
  schedules = {'weights': optax.linear_schedule(1.0, 0.0, 2)}
  experiment = Experiment(*next_token(Sower()), tiny.batches(), schedules=schedules)
  whole = train(tmp_path / 'whole', experiment)
  parts = train(tmp_path / 'parts', experiment, accumulate=2)
  both = replicas.replicate(
    experiment, 2, pipeline.stack_replicas([tiny.batches(), tiny.batches()])
  )
  pair = train(tmp_path / 'pair', dataclasses.replace(both, batches=both.batches))
  rows = iter(tiny.batches())
  for one, part, two in zip(*([x for x in run if 'loss' in x] for run in (whole, parts, pair))):
    even = (next(rows)['inputs'] % 2 == 0).mean()
    assert one['ratio'] == part['ratio'] == 0.25
    assert two['ratio'] == [0.25, 0.25]
    assert one['even'] == pytest.approx(even)
    assert part['even'] == pytest.approx(even)
    assert two['even'] == pytest.approx([even, even])
    assert part['activations'] == pytest.approx(one['activations'], rel=1e-4)
    assert {'weights', 'loss', 'bits_per_byte'} <= one.keys()
    weight = {1: 1.0, 2: 0.5, 3: 0.0}[one['step']]
    nats = one['bits_per_byte'] * np.log(2)
    expected = nats + weight * one['weights'] + one['activations']
    assert one['loss'] == pytest.approx(expected, rel=1e-5)
