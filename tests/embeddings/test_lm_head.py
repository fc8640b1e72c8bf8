# SPDX-License-Identifier: Apache-2.0
"""The LM head in training: a z-loss that is minimised but not reported, a vocabulary in shards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib.embeddings import lm_head
from lib.embeddings.learned import Learned
from lib.models.decoder import Decoder, LanguageModel
from lib.objectives.next_token import next_token
from lib.parallel import sharding

V, B, T, D = 16, 4, 6, 8
KEY = jax.random.key(0)
MODEL = LanguageModel(
  Learned(V, D, tied=False, bias=True, init_std=1.0, z_loss=0.5),
  Decoder(layers=1, dim=D, heads=2, mlp_dim=8),
)


@pytest.fixture(scope='module')
def batch():
  ids = np.random.default_rng(0).integers(0, V, (B, T)).astype(np.int32)
  segments = np.ones_like(ids)
  segments[1, 4:] = 0  # padding
  return {
    'inputs': ids,
    'targets': np.roll(ids, -1, axis=1),
    'segments': segments,
    'positions': np.broadcast_to(np.arange(T, dtype=np.int32), ids.shape),
    'bytes': np.ones_like(ids),
  }


def loss_and_gradient(batch):
  init_fn, loss_fn = next_token(MODEL)
  variables = jax.jit(init_fn)(KEY, batch)
  assert list(variables) == ['params']  # what is sown is no state
  both = jax.value_and_grad(loss_fn, has_aux=True)
  return jax.jit(both)(variables, batch, KEY), variables


def test_a_z_loss_is_minimised_and_not_reported(batch):
  ((value, sums), gradient), variables = loss_and_gradient(batch)

  def by_hand(variables):
    logits = MODEL.apply(variables, batch, KEY, method='logits')
    log_sum = jax.nn.logsumexp(logits, axis=-1)
    nats = log_sum - jnp.take_along_axis(logits, batch['targets'][..., None], axis=-1)[..., 0]
    real = batch['segments'] > 0
    mean = lambda values: jnp.where(real, values, 0).sum() / real.sum()
    return mean(nats) + 0.5 * mean(log_sum**2), mean(nats)

  (expected, nats), slopes = jax.jit(jax.value_and_grad(by_hand, has_aux=True))(variables)
  expected, nats = float(expected), float(nats)
  assert float(value) == pytest.approx(expected, rel=1e-5)
  assert float(sums['nats'] / sums['tokens']) == pytest.approx(nats, rel=1e-5)
  assert value > 1.1 * nats
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), gradient, slopes)


def test_a_mesh_that_spreads_the_vocabulary_changes_no_loss(batch):
  embedding = MODEL.embedding
  hidden = jax.random.normal(KEY, (B, T, D))
  variables = embedding.init(KEY, hidden, batch['targets'], None, method='token_loss')

  def both(variables, hidden, targets):
    def loss(variables, hidden):
      nats = embedding.apply(variables, hidden, targets, None, method='token_loss')
      return (nats * jnp.cos(jnp.arange(T))[None]).sum()

    return jax.value_and_grad(loss, argnums=(0, 1))(variables, hidden)

  expected = jax.jit(both)(variables, hidden, batch['targets'])
  mesh = sharding.make_mesh({'data': 2, 'tensor': 4})
  with jax.set_mesh(mesh):
    place = sharding.global_batch({'hidden': hidden, 'targets': batch['targets']}, mesh)
    found = jax.jit(both)(variables, place['hidden'], place['targets'])
    assert 'shard_map' in str(jax.make_jaxpr(both)(variables, **place))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, expected)


@pytest.mark.parametrize('rows', [4, 3])  # which divide among two devices, and do not
def test_a_kernel_gets_the_shard_of_each_device(monkeypatch, batch, rows):
  """Where it cannot be, the compiler splits what it can."""
  monkeypatch.setattr(lm_head, 'preferred', lambda logits, dtype: 'triton')
  embedding, hidden = MODEL.embedding, jax.random.normal(KEY, (rows, T, D))
  targets = batch['targets'][:rows]
  variables = embedding.init(KEY, hidden, targets, None, method='token_loss')
  step = lambda hidden: embedding.apply(variables, hidden, targets, None, method='token_loss')
  with jax.set_mesh(sharding.make_mesh({'data': 2}, jax.devices()[:2])):
    program = str(jax.make_jaxpr(step)(hidden))
  assert ('shard_map' in program) == (rows % 2 == 0)
  assert ('scan' in program) == (rows % 2 == 1)  # over parts of the vocabulary
