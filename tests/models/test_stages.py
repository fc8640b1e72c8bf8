# SPDX-License-Identifier: Apache-2.0
"""Growth: a stage is the language model it says it is, and what is frozen stays and costs less."""

import functools
import types

import jax
import numpy as np
import pytest

from configs import visual_unicode
from experiments.visual_unicode import growth, text
from lib.data import pipeline, sources, token_excerpts
from lib.embeddings.fixed import FixedRows
from lib.glyphs.pixel_rows import gaussian_rows
from lib.language_model import TrainedModel, ensemble
from lib.models.decoder import Decoder, LanguageModel
from lib.models.stages import Flops, Stage
from lib.objectives.next_token import next_token

V, D, T, LAYERS = 11, 8, 6, 3
MODEL = LanguageModel(
  FixedRows(V, D, lambda seed: gaussian_rows(V, D, seed % 2**31)),
  Decoder(layers=LAYERS, dim=D, heads=2, mlp_dim=16, position='rotary', init_std=0.3),
)
KEY = jax.random.key(0)
BATCH = pipeline.batch_from_ids(np.random.default_rng(0).integers(V, size=(4, T)), V)
EQUAL = {'rtol': 1e-5, 'atol': 1e-6}


@pytest.fixture(scope='module')
def variables():
  return jax.jit(MODEL.init)(KEY, BATCH, KEY)


def shallow(variables, depth):
  """Variables of the first layers of a model."""
  decoder = variables['params']['decoder']
  blocks = jax.tree.map(lambda leaf: leaf[:depth], decoder['blocks'])
  return variables | {'params': variables['params'] | {'decoder': decoder | {'blocks': blocks}}}


@pytest.mark.parametrize('depth', [1, LAYERS])
def test_a_stage_is_the_model_of_its_layers(variables, depth):
  stage = Stage(MODEL, depth)
  start, own = stage.start(variables), shallow(variables, depth)
  expected = jax.jit(stage.so_far.apply)(own, BATCH, KEY)
  np.testing.assert_allclose(jax.jit(stage.nats)(start, BATCH, KEY), expected, **EQUAL)
  jax.tree.map(np.testing.assert_array_equal, stage.joined(start), own)
  jax.tree.map(np.testing.assert_array_equal, jax.jit(stage.init)(KEY, BATCH, KEY), start)
  if depth == LAYERS:
    np.testing.assert_allclose(jax.jit(MODEL.apply)(variables, BATCH, KEY), expected, **EQUAL)


def test_a_stage_has_the_layers_trained_before_it_and_a_new_one(variables):
  other = jax.tree.map(lambda leaf: -leaf, variables)
  found = Stage(MODEL, 3).joined(
    Stage(MODEL, 3).above(shallow(other, 2), Stage(MODEL, 3).start(variables))
  )
  blocks = lambda tree, part: jax.tree.map(
    lambda leaf: leaf[part], tree['params']['decoder']['blocks']
  )
  equal = functools.partial(jax.tree.map, np.testing.assert_array_equal)
  equal(blocks(found, slice(2)), blocks(other, slice(2)))
  equal(blocks(found, 2), blocks(variables, 2))
  equal(found['params']['embedding'], other['params']['embedding'])
  equal(found['frozen'], other['frozen'])


def test_training_a_stage_changes_its_layer_and_the_readout_alone(variables):
  stage = Stage(MODEL, 2)
  start = stage.start(variables)
  loss = lambda params: stage.nats(start | {'params': params}, BATCH, KEY).mean()
  gradient = jax.jit(jax.grad(loss))(start['params'])
  begin = gradient['embedding'].pop('bos')  # read below the frozen layer
  assert not np.any(begin)
  assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
  gradient['embedding']['bos'] = begin
  moved = jax.tree.map(lambda leaf, step: leaf - 0.1 * step, start['params'], gradient)
  after = stage.joined(start | {'params': moved})
  same = jax.tree.map(
    lambda new, old: np.array([np.array_equal(a, b) for a, b in zip(new, old)]),
    after['params']['decoder']['blocks'], shallow(variables, 2)['params']['decoder']['blocks'],
  )  # fmt: skip
  assert all(leaf[0] and not leaf[1] for leaf in jax.tree.leaves(same))
  table = lambda tree: tree['frozen']['embedding']['table']
  np.testing.assert_array_equal(table(after), table(variables))


def test_operations_are_those_that_the_compiler_counts():
  # One layer: XLA counts the body of a loop once. Wide, so that matrix products are nearly all.
  dim, length, vocab, mlp = 128, 128, 256, 512
  model = LanguageModel(
    FixedRows(vocab, dim, lambda seed: gaussian_rows(vocab, dim, 0)),
    Decoder(layers=1, dim=dim, heads=4, mlp_dim=mlp, position='rotary'),
  )
  batch = pipeline.batch_from_ids(np.zeros((1, length), int), vocab)
  init, loss = next_token(model)
  shapes = jax.eval_shape(init, KEY, batch)
  value = lambda params, frozen: loss({'params': params, 'frozen': frozen}, batch, KEY)[0]
  count = lambda f: (
    jax.jit(f).lower(shapes['params'], shapes['frozen']).compile().cost_analysis()['flops'] / length
  )
  flops = Flops(dim, mlp, length, vocab)
  assert flops.step(1) / 3 == flops.block + flops.lm_head
  assert count(value) == pytest.approx(flops.block + flops.lm_head, rel=0.15)
  assert count(jax.grad(value)) == pytest.approx(flops.step(1), rel=0.2)
  assert flops.step(1, 4) - flops.step(1) == 4 * flops.block


def test_mean_logits_of_one_model_twice_are_its_own(variables):
  held_out = token_excerpts.of_rows(BATCH, len(BATCH['targets']), range(len(BATCH['targets'])))
  model = lambda variables: TrainedModel(MODEL, variables, None, T)
  score = lambda several: held_out.sums(
    functools.partial(ensemble.row_loss, [model(one) for one in several])
  )
  one = score([variables])
  assert score([variables, variables]) == pytest.approx(one, rel=1e-5)
  other = jax.tree.map(lambda leaf: -leaf, variables)
  assert score([variables, other]) != pytest.approx(one, rel=1e-3)


def test_parts_of_a_source_are_disjoint_and_whole():
  source = [b'%d' % i for i in range(11)]
  parts = [sources.Part(source, first, 3) for first in range(3)]
  assert [len(part) for part in parts] == [4, 4, 3]
  assert sorted(part[i] for part in parts for i in range(len(part))) == sorted(source)


def test_experts_share_documents_and_steps_and_begin_apart(monkeypatch):
  asked = []

  def fitted(config, run, options, name, model, batches, **rest):
    batches(config.seed)
    asked.append((name, config.seed, options.steps))
    return [types.SimpleNamespace(model=name)]

  read = lambda source, tokenizer, seed, **rest: asked.append((len(source), seed))
  config = visual_unicode.get_config('smoke')
  config.growth.experts, config.growth.steps = 3, 12
  opened = text.open_text(config)
  monkeypatch.setattr(growth.fit, 'fit', fitted)
  monkeypatch.setattr(growth.pipeline, 'batches', read)
  monkeypatch.setattr(growth.sources, 'open_source', lambda source, split: [b''] * 7)
  found = growth.Training(config, None, opened, config.growth).experts()
  names = [f'growth/expert={part}' for part in range(3)]
  assert asked == [
    line
    for part, documents in enumerate((3, 2, 2))
    for line in ((documents, 0), (names[part], part * growth.ANOTHER, 4))
  ]
  assert found['experts'].models == [names]
  assert [found[f'expert={part}'].models for part in range(3)] == [[[name]] for name in names]
