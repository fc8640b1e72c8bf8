# SPDX-License-Identifier: Apache-2.0
"""Growth: a stage is the language model it says it is, and what is frozen stays and costs less."""

import types

import jax
import numpy as np
import pytest

from experiments.visual_unicode import growth
from lib.data import pipeline
from lib.embeddings.glyph import Given
from lib.embeddings.glyph_rows import gaussian_rows
from lib.models.decoder import Decoder, LanguageModel
from lib.models.growth import Flops, Stage
from lib.objectives.next_token import next_token

V, D, T, LAYERS = 11, 8, 6, 3
MODEL = LanguageModel(
  Given(V, D, lambda seed: gaussian_rows(V, D, seed % 2**31)),
  Decoder(layers=LAYERS, dim=D, heads=2, mlp_dim=16, position='rotary', init_std=0.3),
)
KEY = jax.random.key(0)
BATCH = pipeline.whole(np.random.default_rng(0).integers(V, size=(4, T)), V)
EQUAL = {'rtol': 1e-5, 'atol': 1e-6}


@pytest.fixture(scope='module')
def variables():
  return jax.jit(MODEL.init)(KEY, BATCH, KEY)


@pytest.mark.parametrize('depth', [1, LAYERS])
def test_a_stage_is_the_model_of_its_layers(variables, depth):
  stage = Stage(MODEL, depth)
  start = stage.start(variables)
  expected = jax.jit(stage.so_far.apply)(stage.shallow(variables), BATCH, KEY)
  np.testing.assert_allclose(jax.jit(stage.nats)(start, BATCH, KEY), expected, **EQUAL)
  back = stage.put_back(variables, start)
  jax.tree.map(np.testing.assert_array_equal, back, dict(variables))
  if depth == LAYERS:
    np.testing.assert_allclose(jax.jit(MODEL.apply)(variables, BATCH, KEY), expected, **EQUAL)


def test_training_a_stage_changes_its_layer_and_the_readout_alone(variables):
  stage = Stage(MODEL, 2)
  start = stage.start(variables)
  loss = lambda params: stage.nats(start | {'params': params}, BATCH, KEY).mean()
  gradient = jax.jit(jax.grad(loss))(start['params'])
  begin = gradient['embedding'].pop('begin')  # read below the frozen layer
  assert not np.any(begin)
  assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
  gradient['embedding']['begin'] = begin
  moved = jax.tree.map(lambda leaf, step: leaf - 0.1 * step, start['params'], gradient)
  after = stage.put_back(variables, start | {'params': moved})
  same = jax.tree.map(
    lambda new, old: np.array([np.array_equal(a, b) for a, b in zip(new, old)]),
    after['params']['decoder']['blocks'], variables['params']['decoder']['blocks'],
  )  # fmt: skip
  assert all(leaf[[0, 2]].all() and not leaf[1] for leaf in jax.tree.leaves(same))
  table = lambda tree: tree['frozen']['embedding']['table']
  np.testing.assert_array_equal(table(after), table(variables))


def test_operations_are_those_that_the_compiler_counts():
  # One layer: XLA counts the body of a loop once. Wide, so that matrix products are nearly all.
  dim, length, vocab, mlp = 128, 128, 256, 512
  model = LanguageModel(
    Given(vocab, dim, lambda seed: gaussian_rows(vocab, dim, 0)),
    Decoder(layers=1, dim=dim, heads=4, mlp_dim=mlp, position='rotary'),
  )
  batch = pipeline.whole(np.zeros((1, length), int), vocab)
  init, loss = next_token(model)
  shapes = jax.eval_shape(init, KEY, batch)
  value = lambda params, frozen: loss({'params': params, 'frozen': frozen}, batch, KEY)[0]
  count = lambda f: (
    jax.jit(f).lower(shapes['params'], shapes['frozen']).compile().cost_analysis()['flops'] / length
  )
  flops = Flops(dim, mlp, length, vocab)
  assert flops.step(1) / 3 == flops.block + flops.readout
  assert count(value) == pytest.approx(flops.block + flops.readout, rel=0.15)
  assert count(jax.grad(value)) == pytest.approx(flops.step(1), rel=0.2)
  assert flops.step(1, 4) - flops.step(1) == 4 * flops.block


def test_mean_logits_of_one_model_twice_are_its_own(variables):
  score = lambda several: np.asarray(growth._nats_of_mean_logits(MODEL, several, BATCH))
  one = score([variables])
  assert score([variables, variables]) == pytest.approx(one, rel=1e-5)
  other = jax.tree.map(lambda leaf: -leaf, variables)
  assert score([variables, other]) != pytest.approx(one, rel=1e-3)


def test_parts_of_a_source_are_disjoint_and_whole():
  source = [b'%d' % i for i in range(11)]
  parts = [growth.Part(source, first, 3) for first in range(3)]
  assert [len(part) for part in parts] == [4, 4, 3]
  assert sorted(part[i] for part in parts for i in range(len(part))) == sorted(source)


def test_experts_share_documents_and_steps_and_begin_apart(monkeypatch):
  seeds = object.__new__(growth.Seeds)
  seeds._options = types.SimpleNamespace(experts=3, steps=12, layers=2)
  seeds._model = seeds._whole = None
  monkeypatch.setattr(seeds, '_batches', lambda part, parts: (part, parts))
  monkeypatch.setattr(seeds, '_begin', lambda number: f'begin {number}')
  monkeypatch.setattr(seeds, '_train', lambda what, functions, *rest: rest)
  monkeypatch.setattr(seeds, '_result', lambda model, several, steps: several)
  trained = [((part, 3), 4, f'begin {part}') for part in range(3)]
  assert seeds.experts() == {f'expert={part}': [trained[part]] for part in range(3)} | {
    'experts': trained
  }
