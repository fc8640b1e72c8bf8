# SPDX-License-Identifier: Apache-2.0
"""What modules declare: where parameters lie, which are matrices, and what a token costs."""

import json
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging

from lib.data import pipeline
from lib.embeddings.fixed import FixedRows
from lib.embeddings.learned import Learned
from lib.embeddings.lexinvariant import Lexinvariant
from lib.embeddings.partial import Interchangeable, PartlyRandom
from lib.embeddings.short_conv import ShortConv
from lib.models.decoder import Decoder, LanguageModel
from lib.models.probe import Deciphering
from lib.parallel import sharding
from lib.parameters import Declaration, declare_flops, declared, describe, describe_model, path_name
from lib.profiling import compiled_step
from lib.train import optimizer, state
from lib.train.experiment import Experiment
from lib.train.replicas import replicate
from tests.helpers import tiny
from tests.profiling.test_compiled_step import RECIPES, train_specs

KEY = jax.random.key(0)
# Written by the regular expressions on names that declarations replaced: for each model a layout
# (path -> axes of the mesh {data: 2, fsdp: 2, tensor: 2}, Muon's axes, weight decay) and its FLOPs.
KNOWN = json.loads(
  (pathlib.Path(__file__).parents[1] / 'fixtures' / 'declarations.json').read_text()
)


def one_by_one(tree):
  is_leaf = lambda node: node is None or isinstance(node, optax.contrib.MuonDimensionNumbers)
  leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
  return {path_name(path): leaf for path, leaf in leaves}


@pytest.mark.parametrize('name', RECIPES)
def test_declarations_say_what_rules_on_names_said(name):
  _, made = train_specs(name, 'smoke')
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 2})
  keys = [key for key in KNOWN['models'] if key.startswith(f'{name}/')]
  assert set(keys) == {f'{name}/{key}' for key in made}
  for key, make in made.items():
    index, flops = KNOWN['models'][f'{name}/{key}']
    layout, one = KNOWN['layouts'][index], make()
    batch = compiled_step.placed_shapes(one.batch, mesh, one.experiment.batch_axis)
    found = describe(one.experiment.init_fn, batch)
    training = state.prepare(one.experiment, one.optimizer, batch, 0, mesh)
    variables = one_by_one(training.shapes['variables'])
    # Models without aids of training were under the name of the aided module then.
    bare = {path.replace('params/model/', 'params/'): known for path, known in layout.items()}
    layout = layout if variables.keys() == layout.keys() else bare
    assert variables.keys() == layout.keys()
    views = one_by_one(optimizer.matrices(found.declared, found.shapes['params']))
    decays = one_by_one(optimizer.are_matrices(found.declared, found.shapes['params']))
    for path, leaf in variables.items():
      axes, view, decayed = layout[path]
      assert (list(leaf.sharding.spec) if any(leaf.sharding.spec) else []) == axes, path
      if path.startswith('params/'):
        own = path.removeprefix('params/')
        assert (views[own] and [list(axes) for axes in views[own]]) == view, path
        # A probe's matrix is no matrix of the model, and no recipe with probes decays weights.
        assert decays[own] == (decayed and 'probes/' not in path), path
    # The old count had all pairs of tokens, and no LM heads over random rows or maps of embeddings.
    rows, length = one.batch['targets'].shape[-2:]
    queries = [leaf for path, leaf in variables.items() if path.endswith('query/kernel')]
    width = sum(leaf.size // leaf.shape[-3] for leaf in queries)  # of all layers and replicas
    least = flops - 3 * 4 * width * rows * np.triu(np.ones((length, length)), 1).sum()
    assert training.flops == least if name != 'lexinvariant' else training.flops >= least


@pytest.mark.parametrize('window', [None, 1, 5, 8, 99])
def test_attention_is_counted_over_the_pairs_that_the_mask_lets_through(window):
  decoder = Decoder(layers=3, dim=8, heads=2, head_dim=6, mlp_dim=4, window=window)
  model, length = LanguageModel(Learned(7, 8), decoder), 8
  distance = np.arange(length)[:, None] - np.arange(length)[None]
  visible = (distance >= 0) & (distance < (window or length))
  kernels = 2 * 3 * 8 * (4 * 12 + 2 * 4) + 2 * 7 * 8
  scores = 4 * 3 * 12 * visible.sum() / length
  assert describe_model(model, length).flops == kernels + scores


V, D, T = 192, 96, 64


@pytest.mark.parametrize(
  'embedding',
  [
    Learned(V, D, tied=False),
    Lexinvariant(V, D),
    Lexinvariant(V, D, row_sampling='per_sequence', row_dim=64),
    ShortConv(Learned(V, D), 2),
    PartlyRandom(V, D),
    Interchangeable(V, D),
    FixedRows(V, D, lambda seed: np.zeros((V, 48), np.float32)),
  ],
  ids=lambda module: type(module).__name__,
)
@pytest.mark.parametrize('gated', [True, False])
def test_flops_are_those_that_the_compiler_counts(embedding, gated):
  # One layer: XLA counts the body of a loop once.
  decoder = Decoder(layers=1, dim=D, heads=4, mlp_dim=256, gated=gated, position='rotary')
  model, batch = (
    LanguageModel(embedding, decoder),
    pipeline.batch_from_ids(np.zeros((8, T), int), V),
  )
  variables = jax.eval_shape(model.init, KEY, batch, KEY)
  run = jax.jit(lambda variables: model.apply(variables, batch, KEY))
  counted = run.lower(variables).compile().cost_analysis()['flops'] / (8 * T)
  masked = 4 * D * (T - 1) / 2  # which the program computes too
  assert describe_model(model, T).flops + masked == pytest.approx(counted, rel=0.15)


def test_a_description_puts_nothing_on_a_device():
  experiment, batch = tiny.make(), jax.eval_shape(lambda: next(iter(tiny.batches())))
  with jax.transfer_guard('disallow'):  # `aot` describes models for devices that are absent
    assert describe(experiment.init_fn, batch).declared


def test_what_was_described_is_made_to_the_bit_without_the_modules():
  model = LanguageModel(
    FixedRows(7, 16, lambda seed: np.eye(7, 16)), Decoder(layers=1, dim=16, heads=2, mlp_dim=32)
  )
  calls = []

  def init_fn(key, batch):
    calls.append(key)
    return model.init(key, batch, key)

  batch = pipeline.batch_from_ids(np.zeros((1, 8), int), 7)
  found = describe(init_fn, batch).init_fn
  made = jax.jit(lambda key: found(key, batch))(jax.random.key(5))
  assert len(calls) == 1
  expected = jax.jit(lambda key: init_fn(key, batch))(jax.random.key(5))
  jax.tree.map(np.testing.assert_array_equal, made, dict(expected))


def test_layers_probes_and_replicas_are_counted_each():
  model = LanguageModel(Learned(7, 16), Decoder(layers=3, dim=16, heads=2, mlp_dim=32))
  layer = 2 * (4 * 16 * 16 + 2 * 16 * 32) + 4 * 16 * np.tril(np.ones((8, 8))).sum() / 8
  assert describe_model(model, 8).flops == 3 * layer + 2 * 7 * 16
  taught = describe_model(Deciphering(model, 3), 8)
  assert taught.flops == 3 * (layer + 2 * 7 * 16) + 2 * 7 * 16
  init = lambda key, batch: model.init(key, batch, key)
  batch = jax.tree.map(
    lambda x: np.stack([x] * 5), pipeline.batch_from_ids(np.zeros((1, 8), int), 7)
  )
  every = describe(replicate(Experiment(init, None, ()), 5, ()).init_fn, batch)
  assert every.flops == 5 * (3 * layer + 2 * 7 * 16)
  assert every.declared['params/decoder/blocks/out/kernel'] == Declaration(
    ('tensor', None, 'fsdp'), 2
  )
  mesh = sharding.make_mesh({'fsdp': 4, 'tensor': 2})
  places = sharding.shardings(every.shapes, every.declared, mesh)
  spec = places['params']['decoder']['blocks']['out']['kernel'].spec
  assert spec == jax.P(None, None, 'tensor', None, 'fsdp')  # replicas and layers in front


class Expert(nn.Module):
  """One that declares all there is to say."""

  @nn.compact
  def __call__(self, x):
    declare_flops(self, 2 * 8 * 8)
    kernel = declared(nn.initializers.normal(), (None, 'tensor'), inputs=1)
    return nn.Dense(8, kernel_init=kernel)(x)


class Plain(nn.Module):
  """One that declares nothing of its own."""

  width: int = 8

  @nn.compact
  def __call__(self, batch, key):
    x = nn.Embed(16, 8)(batch['inputs'])
    return nn.Dense(self.width)(Expert()(x)).sum(-1)


def test_a_module_is_declared_by_its_parts_and_else_is_whole():
  batch = {'inputs': jnp.zeros((2, 4), int)}
  init = lambda key, batch: Plain().init(key, batch, key)
  found = describe(init, batch)
  assert found.declared == {'params/Expert_0/Dense_0/kernel': Declaration((None, 'tensor'), 1)}
  assert found.flops == 2 * 8 * 8
  made = init(KEY, batch)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), made) == jax.tree.map(
    lambda x: (x.shape, x.dtype), found.shapes
  )
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(made))
  mesh = sharding.make_mesh({'tensor': 8})
  moments = jax.eval_shape(
    optimizer.make_optimizer('adamw', lambda _: 1.0)(found.declared).init, found.shapes['params']
  )
  places = jax.tree.leaves(sharding.moment_shardings(moments, found.declared, mesh))
  spread = [place.spec for place in places if any(place.spec)]
  assert spread == 2 * [jax.P(None, 'tensor')]  # both moments of the one kernel


def test_large_arrays_without_axes_are_said_once(monkeypatch):
  said = []
  monkeypatch.setattr(logging, 'log_first_n', lambda *of: said.append(of[1] % of[3]))
  monkeypatch.setattr(state, 'LARGE', 1024)
  batch = {name: jax.ShapeDtypeStruct((8, 4), np.int32) for name in ('inputs', 'targets')}
  init = lambda key, batch: Plain(1024).init(key, batch, key)
  experiment = Experiment(init, None, ())
  chain = optimizer.make_optimizer('muon', lambda _: 1.0)
  for axes in ({'data': 8}, {'fsdp': 8}):
    state.prepare(experiment, chain, batch, 0, sharding.make_mesh(axes))
  [text] = said  # on the mesh that spreads weights
  assert 'params/Dense_0/bias, params/Dense_0/kernel: every device' in text
