# SPDX-License-Identifier: Apache-2.0
"""The recipe of hierarchies: a smoke run, its claims, exactness of its arms, mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common, hierarchy
from experiments import decoders
from experiments.hierarchy import arms, chunking, noise
from experiments.hierarchy.arms import Arm
from experiments.hierarchy.recipe import RECIPE
from experiments.recipe import Run
from lib import language_model, memory
from lib.data import epochs
from lib.errors import InputError
from lib.evals import word_cuts
from lib.models.routers import Seen, entropy, spacelike
from lib.parallel import sharding
from lib.report.results import Rows, select
from tests.helpers import addresses


@pytest.fixture(scope='module')
def smoke(tmp_path_factory):
  mesh = sharding.make_mesh({'data': -1}, jax.devices()[:1])
  run, config = Run(tmp_path_factory.mktemp('hierarchy'), mesh), hierarchy.get_config('smoke')
  RECIPE.check(config)
  rows = [row for table in RECIPE.chosen(config) for row in table.measure(config, run)]
  return rows, config, run


def test_claims_and_published_numbers_address_rows_of_a_run(smoke):
  assert not addresses.faults('hierarchy', smoke[0])


def test_nothing_leaks_and_steps_are_the_pass(smoke):
  for name in smoke[1].causality.arms:
    of = lambda column, name=name: select(smoke[0], 'causality', column, arm=name)[0].measured
    assert of('largest_future_gradient') == of('largest_cross_document_gradient') == 0
    assert of('largest_visible_gradient') > 0.01
    assert of('step_error') <= 1e-5


def test_costs_are_those_of_the_chunks(smoke):
  rows, config, _ = smoke
  of = lambda column, **where: select(rows, 'chunking', column, **where)[0].measured
  one = arms.model(config, Arm('hnet', 5))
  for row in select(rows, 'chunking', 'overflow_share'):
    assert 0 <= row.measured < 1
  assert of('mflop_per_byte', arm='hnet') < of('padded_mflop_per_byte', arm='hnet')
  room = decoders.flops(one, config.training.example_bytes)
  assert of('padded_mflop_per_byte', arm='hnet') == pytest.approx(room / 1e6)
  assert 0 < of('inner_chunks_per_byte', arm='two_stages') < of('chunks_per_byte', arm='two_stages')
  counted = [of('bits_per_byte', arm='counting', order=order) for order in chunking.ORDERS]
  assert counted[2] < counted[1] < counted[0]
  gap = of('difference_bits_per_byte', arm='hnet', less='bpe')
  bits = [
    row.measured
    for arm in ('hnet', 'bpe')
    for row in select(rows, 'chunking', 'bits_per_byte', arm=arm)
    if 'seed' not in row.where
  ]
  assert gap == pytest.approx(bits[0] - bits[1])


@pytest.mark.parametrize('name', arms.MARKED)
def test_chunks_by_a_rule_are_counted_before_training(smoke, name):
  _, config, run = smoke
  corpus = arms.examples(config, run, arms.tokenizer_of(config, run, Arm(name)))
  bos = corpus.tokenizer.vocab_size
  ids = np.stack([[bos, *ids[:-1]] for ids, _ in corpus.train])
  before = np.pad(ids, ((0, 0), (1, 0)))[:, :-1]
  router = arms.model(config, Arm(name)).decoder.router
  begins = np.array(
    router.apply({}, Seen(None, None, jnp.asarray(ids), jnp.asarray(before), None, None))[0]
  )
  begins[:, 0] = 1
  assert arms.share_marked(Arm(name), corpus) == pytest.approx(begins.mean())


def test_the_network_over_chunks_starts_from_a_model_of_tokens(smoke):
  _, _, run = smoke
  [folder] = run.workdir.glob('models/arms/arm=bpe,*seed=0')
  config = hierarchy.get_config('smoke')
  config.inner.initial = str(folder)
  RECIPE.check(config)
  given = language_model.load(folder).variables['params']['decoder']
  before = {'params': {'decoder': {'inner': {'inner': {}, 'fill': 1}, 'encoder': 2}}}
  after = arms.inner_from(config, 2)(0, before)['params']['decoder']
  assert after['encoder'] == 2
  assert after['inner']['fill'] == 1
  np.testing.assert_array_equal(
    after['inner']['inner']['final_norm']['scale'], given['final_norm']['scale']
  )
  config.inner.layers = 2
  with pytest.raises(InputError, match='has other layers or widths than inner says'):
    RECIPE.check(config)


def test_routers_by_entropy_are_paid_for_kept_and_one_per_seed(smoke):
  _, config, run = smoke
  trained = arms.train(config, run, Arm('entropy'), arms.Chosen())
  [*folders] = sorted(run.workdir.glob('models/arms/entropy_model,*'))
  small = [language_model.load(folder) for folder in folders]
  assert len(small) == len(trained.fitted) == config.training.seeds
  for before, after in zip(small, trained.fitted, strict=True):
    router = after.variables['params']['decoder']['router']
    jax.tree.map(np.testing.assert_array_equal, router['model'], before.variables['params'])
    # Over the texts by which the threshold was chosen, one byte in `stride` is above it.
    texts = np.stack([ids for ids, _ in trained.corpus.validation])[:64]
    logits = jnp.asarray(before.logits(np.insert(texts, 0, 256, axis=1)[:, :-1]))
    share = float((entropy(logits) > router['threshold']).mean())
    assert share == pytest.approx(1 / config.router.stride, abs=2 / texts.size)
  assert small[0].fingerprint != small[1].fingerprint
  # One training step is three passes of a model that learns, and one of a model that does not.
  model, length = trained.fitted[0].model, config.training.example_bytes
  apart = decoders.flops(small[0].module, length)
  rest = decoders.flops(model.module, length, decoders.train_shares(trained.fitted)) - apart
  steps = [one.provenance.steps for one in (small[0], model)]
  spent = (3 * apart * steps[0] + (3 * rest + apart) * steps[1]) * trained.corpus.step_bytes
  assert trained.teraflops == pytest.approx(spent / 1e12)
  assert trained.teraflops > config.entropy.share * config.training.teraflops / 2


def test_ablations_are_compared_with_the_whole_model():
  rng, rows = np.random.default_rng(0), Rows('ablation')
  bits = {Arm('hnet', 5, without): rng.random((2, 3)) for without in ('', *hierarchy.ABLATIONS)}
  chunking.add_differences(rows, bits, ('hnet',))
  found = {row.where['without']: row.measured for row in rows}
  assert [*found] == [*hierarchy.ABLATIONS]
  whole, *others = (one.mean() for one in bits.values())
  np.testing.assert_allclose([*found.values()], np.array(others) - whole)


def test_noise_drops_repeats_and_raises_letters():
  rng, text = np.random.default_rng(0), b'A small text, of words.' * 40
  assert noise.noisy(text, 'none', rng, 0.1) == text
  assert noise.noisy(text, 'capitals', rng, 0.1) == text.upper()
  assert noise.noisy(text, 'random_case', rng, 0.1).upper() == text.upper()
  assert len(noise.noisy(text, 'drop', rng, 0.1)) / len(text) == pytest.approx(0.9, abs=0.05)
  assert len(noise.noisy(text, 'repeat', rng, 0.1)) == len(text)


def test_every_picture_is_drawn(smoke):
  rows, config, run = smoke
  drawn = {name for table in RECIPE.chosen(config) for name in table.pictures(rows, config, run)}
  assert drawn == {'chunking.png', 'curve.png'}
  assert '|' in (run.workdir / 'cuts.txt').read_text()


@pytest.mark.parametrize('scale', common.SCALES[1:])
def test_the_largest_models_of_every_scale_build(scale):
  config = hierarchy.get_config(scale)
  config.check()
  if not config.data.source.startswith('tfds'):  # whose text is not here
    RECIPE.check(config)
  specs = RECIPE.train_specs(config)
  assert {*specs} >= {'arm=two_stages', 'arm=spaces', 'arm=byte_recurrent', 'arm=byte_transformer'}
  ablations = [name for name in specs if 'without' in name] if scale == 'cpu' else []
  assert len(ablations) in (0, len(config.ablation.without))
  for name in ('arm=two_stages', *ablations):
    spec = specs[name]()
    assert spec.batch['inputs'].shape[-1] == config.training.example_bytes
    jax.eval_shape(spec.experiment.init_fn, jax.random.key(0), dict(spec.batch))


def test_paper_is_refused_where_its_text_would_be_read_too_often():
  config = hierarchy.get_config('paper')
  config.data.source, config.training.example_bytes = 'stdlib/prose', 128
  with pytest.raises(InputError, match=r'training.teraflops and training.train_bytes: .* epochs'):
    RECIPE.check(config)
  config.training.teraflops = 100.0
  RECIPE.check(config)


def test_paper_reads_a_stream_larger_than_memory(monkeypatch):
  monkeypatch.setattr(epochs, '_size', lambda source: 8e11)  # bytes, about those of C4
  monkeypatch.setattr(memory, 'of_host', lambda: 2**32)
  config = hierarchy.get_config('paper')
  config.data.source, config.training.example_bytes = 'stdlib/prose', 128
  RECIPE.check(config)
  config.training.stream = False
  with pytest.raises(InputError, match=r'has 2.68e\+08 bytes .* at most 4 epochs'):
    RECIPE.check(config)
  config.training.update(stream=True, train_bytes=2**32)
  with pytest.raises(InputError, match='take 17 GB of memory or more'):
    RECIPE.check(config)


def test_words_begin_after_spaces_and_chance_is_the_mean_of_random_cuts():
  text = b'To be, or not: \xc3\xa4hm 12'
  assert np.flatnonzero(word_cuts.word_starts(text)).tolist() == [0, 3, 7, 10, 15, 20]
  spaces = spacelike(bytes([i]) for i in range(256))
  assert {*b' ,.:\n'} <= {*spaces}
  assert not {*b'aZ09\x80\xff'} & {*spaces}
  rng = np.random.default_rng(0)
  wanted = rng.random((200, 100)) < 0.2
  wanted[:, 1:] &= ~wanted[:, :-1]  # no word begins right after the first byte of another
  spaces_before = np.roll(wanted, -1, axis=1) & (np.arange(100) < 99)
  found = rng.permuted(rng.random((200, 100)) < 0.3, axis=1)
  assert word_cuts.f1(wanted, wanted) == 1
  assert np.array_equal(word_cuts.moved(spaces_before, wanted)[:, 1:], wanted[:, 1:])
  chance = word_cuts.chance_f1(float(found.mean()), wanted)
  assert word_cuts.f1(word_cuts.moved(found, wanted), wanted) == pytest.approx(chance, abs=0.02)


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('router.targets', (0,), 'router.targets must be a tuple'),
    ('router.room', 0.1, 'router.room must be at least 1 / 3'),
    ('training.example_bytes', 4, 'two stages of router.room'),
    ('router.targets_of_two', (3, 3, 3), 'must be two numbers'),
    ('inner.dim', 4, 'inner.dim must be at least outer.dim, 8'),
    ('middle.dim', 4, 'middle.dim must be from outer.dim'),
  ],
)
def test_mistakes_are_named_before_anything_is_measured(field, value, message):
  config = hierarchy.get_config('smoke')
  config.update_from_flattened_dict({field: value})
  with pytest.raises(InputError, match=message):
    RECIPE.check(config)
