# SPDX-License-Identifier: Apache-2.0
"""Properties of the decoder: causality, segments, positions, sizes of the papers' models."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.models import decoder, positions
from lib.models.decoder import Decoder, LanguageModel
from tests.helpers import weights

V, T = 11, 12
KEY = jax.random.key(0)


def make_model(tied=True, **options):
  decoder = Decoder(
    **{'layers': 2, 'dim': 16, 'heads': 2, 'mlp_dim': 32, 'max_length': T} | options
  )
  return LanguageModel(Learned(V, decoder.dim, tied=tied, init_std=0.5), decoder)


def make_batch(rows=3, segments=None, seed=0):
  targets = np.random.default_rng(seed).integers(0, V, (rows, T), dtype=np.int32)
  inputs = np.concatenate([np.full((rows, 1), V, np.int32), targets[:, :-1]], axis=1)
  segments = np.ones((rows, T), np.int32) if segments is None else segments
  places = np.tile(np.arange(T, dtype=np.int32), (rows, 1))
  return {'inputs': inputs, 'targets': targets, 'segments': segments, 'positions': places}


@functools.cache
def initial(model):
  """Some variables of a model."""
  return weights.draw(model.init, KEY, make_batch(), KEY)


SCHEMES = [{'position': scheme, 'init_std': 0.3} for scheme in positions.SCHEMES]
VARIANTS = [
  *SCHEMES,
  {'norm': 'rms', 'gated': True, 'activation': 'relu', 'init_std': None},
  {'bias': True, 'remat': True, 'tied': False},
  {
    'kv_heads': 1,
    'position': 'rotary',
    'head_norm': True,
    'bias': 'qkv',
    'activation': 'gelu_tanh',
    'rotary_scaling': (8.0, 1.0, 4.0, 8),
    'norm_eps': 1e-6,
    'head_dim': 6,
    'init_std': 0.3,
  },
]


@pytest.mark.parametrize('options', VARIANTS, ids=str)
def test_no_position_sees_its_future(options):
  model, batch = make_model(**options), make_batch()
  variables = initial(model)

  def hidden_at(vectors, place):
    decode = lambda module, x: module.decoder(x, batch['positions'], batch['segments'])[0]
    return model.apply(variables, vectors, method=decode)[:, place].sum()

  vectors = jax.random.normal(KEY, (3, T, 16))
  slopes = jax.jit(jax.grad(hidden_at))
  for place in (0, 4, T - 1):
    gradient = np.abs(slopes(vectors, place)).max(axis=(0, 2))
    assert (gradient[: place + 1] > 0).all()
    assert (gradient[place + 1 :] == 0).all()


@pytest.mark.parametrize('options', SCHEMES, ids=str)
def test_documents_in_a_row_do_not_see_each_other(options):
  # Two documents of six tokens in one row score as they do alone.
  model = make_model(**options)
  packed = make_batch(1, np.repeat([[1, 2]], T // 2, axis=1).astype(np.int32))
  packed['inputs'][:, T // 2] = V
  packed['positions'] = np.tile(np.arange(T // 2, dtype=np.int32), 2)[None]
  variables, score = initial(model), jax.jit(model.apply)
  together = score(variables, packed, KEY)
  halves = [
    score(variables, {k: v[:, part] for k, v in packed.items()}, KEY)
    for part in (slice(0, T // 2), slice(T // 2, T))
  ]
  np.testing.assert_allclose(together, np.concatenate(halves, axis=1), rtol=2e-5, atol=2e-5)


def test_nats_are_the_log_softmax_of_the_logits():
  model, batch = make_model(tied=False), make_batch()
  variables = initial(model)
  logits = jax.jit(functools.partial(model.apply, method='logits'))(variables, batch, KEY)
  expected = -jnp.take_along_axis(
    jax.nn.log_softmax(logits), jnp.asarray(batch['targets'])[..., None], axis=-1
  )[..., 0]
  found = jax.jit(model.apply)(variables, batch, KEY)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_rotation_depends_on_distance_alone():
  q, k = jax.random.normal(KEY, (2, 1, 1, 1, 8))
  rotary = positions.Rotary(base=500.0, scaling=(8.0, 1.0, 4.0, 64))
  score = lambda i, j: jnp.vdot(
    rotary.rotate(q, jnp.array([[i]])), rotary.rotate(k, jnp.array([[j]]))
  )
  np.testing.assert_allclose(score(7, 3), score(104, 100), rtol=1e-4)
  assert abs(score(7, 3) - score(7, 4)) > 1e-3


def test_t5_buckets_are_exact_near_and_shared_far():
  # 32 buckets: distances 0…15 exact; 16 starts the logarithmic half; 128 and beyond share 31.
  buckets = positions.t5_buckets(200)
  assert buckets[:17].tolist() == list(range(17))
  assert buckets[128] == buckets[199] == 31
  with pytest.raises(InputError, match='max_distance=16 of T5 positions must be above 16'):
    positions.t5_buckets(200, max_distance=16)


def test_gelu_is_exact_and_so_is_its_slope():
  x = jnp.linspace(-8, 8, 1001)
  exact = lambda x: jax.nn.gelu(x, approximate=False)
  np.testing.assert_allclose(decoder.gelu(x), exact(x), atol=1e-6)
  slope = lambda f: jax.vmap(jax.grad(f))(x)
  np.testing.assert_allclose(slope(decoder.ACTIVATIONS['gelu']), slope(exact), atol=1e-6)
  low = x.astype(jnp.bfloat16)
  np.testing.assert_allclose(
    decoder.gelu(low), exact(low.astype(jnp.float32)), rtol=5e-3, atol=1e-6
  )


def test_bfloat16_activations_keep_float32_parameters_and_losses():
  model, batch = make_model(dtype=jnp.bfloat16), make_batch()
  variables = initial(model)
  assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  assert jax.eval_shape(model.apply, variables, batch, KEY).dtype == jnp.float32


M2 = dict(position='relative', norm='rms', gated=True, activation='relu')
LEX = dict(position='t5', norm='rms', activation='relu')


@pytest.mark.parametrize(
  ('millions', 'options'),
  [
    # Without embeddings L·(4·D·H·K + (2 or 3)·D·F), plus norms and positions (under 1 %):
    # lexinvariant 12·(4·1024² + 2·1024·4096) = 151.0M; compressed text (gated) 3.15M and 113.2M.
    (151.0, dict(layers=12, dim=1024, heads=8, mlp_dim=4096, **LEX)),
    (3.15, dict(layers=3, dim=256, heads=4, mlp_dim=1024, **M2)),
    (113.25, dict(layers=12, dim=768, heads=12, mlp_dim=3072, **M2)),
  ],
)
def test_papers_models_have_the_papers_sizes(millions, options):
  decoder = Decoder(**options)
  x = jax.ShapeDtypeStruct((1, 8, options['dim']), jnp.float32)
  ids = jax.ShapeDtypeStruct((1, 8), jnp.int32)
  shapes = jax.eval_shape(decoder.init, KEY, x, ids, ids)
  count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
  assert count / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize('option', ['position', 'norm', 'activation', 'bias'])
def test_unknown_choices_are_named(option):
  with pytest.raises(InputError, match=f"{option}='nope' is not one of"):
    make_model(**{option: 'nope'}).init(KEY, make_batch(), KEY)


@pytest.mark.parametrize(('where', 'remat', 'loops'), [
  ('gpu', False, 0), ('gpu', True, 0), ('cpu', False, 0), ('cpu', True, 2),
])  # fmt: skip
def test_layers_without_a_loop_are_the_same_layers(monkeypatch, where, remat, loops):
  model, batch = make_model(remat=remat), make_batch()
  variables = initial(model)

  def gradient(backend):
    monkeypatch.setattr(decoder, 'backend', lambda: backend)
    loss = lambda variables: jnp.sin(model.apply(variables, batch, KEY)).sum()
    step = jax.jit(jax.grad(loss))
    return step.lower(variables).as_text().count('stablehlo.while'), step(variables)

  looped, expected = gradient('tpu')
  counted, found = gradient(where)
  assert (looped, counted) == (2, loops)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)
