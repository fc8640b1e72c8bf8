# SPDX-License-Identifier: Apache-2.0
"""Training by a section of a config: seeds one by one or side by side, rates, models."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from experiments import fit
from experiments.recipe import Run
from lib import language_model, provenance
from lib.data import pipeline
from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.models.decoder import LanguageModel
from lib.parallel import sharding
from lib.report.results import Rows
from lib.tokenizers.bpe import train_bpe_unsplit
from lib.tokenizers.characters import Characters

TEXT = [b'abracadabra, said the cat. ' * 3, b'a cadabra is no abra; ' * 4] * 8
ALPHABET = bytes(range(256))


def config_of(**changes) -> tuple[ConfigDict, ConfigDict]:
  section = common.MODEL | common.TRAINING | {'steps': 4, 'evaluate_every': 2} | changes
  config = common.build('smoke', ('t',), {'one': section})
  return config, config.one


def batches(options: ConfigDict, seed: int, repeat: bool = True):
  return pipeline.batches(
    TEXT, Characters(), batch_size=4, length=options.length, seed=seed, repeat=repeat
  )


def trained(tmp_path, name='m', begin=None, devices=1, first=0, **changes):
  config, options = config_of(**changes)
  config.seed = first
  read = provenance.identity({}, {'some text': 'ab' * 32}, 2)
  run = Run(tmp_path, sharding.make_mesh(config.mesh, jax.devices()[:devices]), identity=read)
  model = LanguageModel(Learned(256, options.dim), fit.make_decoder(options, fit.dtype(config)))
  return fit.fit(
    config, run, options, name, model, lambda seed: batches(options, seed),
    evaluations={'validation': lambda seed: batches(options, 9, repeat=False)},
    tokenizer=Characters(), initial=begin, text='some text',
  )  # fmt: skip


def test_seeds_side_by_side_are_the_seeds_of_their_own_batches_and_models(tmp_path):
  one, other = trained(tmp_path, seeds=2, side_by_side=2)
  assert one.curve('validation/bits_per_byte').keys() == {0, 2, 4}
  assert one.last('validation/bits_per_byte') != other.last('validation/bits_per_byte')
  assert one.last('bits_per_byte') != other.last('bits_per_byte')
  for found, seed in ((one, 0), (other, 1)):
    kept = language_model.load(tmp_path / 'models' / f'm,seed={seed}')
    assert kept.fingerprint == found.model.fingerprint
    assert kept.provenance.seeds == (seed,)
    assert (kept.provenance.text, kept.provenance.text_digest) == ('some text', 'ab' * 6)
    assert kept.bits_per_byte([b'a cat']).value == found.model.bits_per_byte([b'a cat']).value


def test_a_seed_a_device_by_pmap_is_that_seed_alone(tmp_path):
  # Gradients are clipped, each seed's by its own norm.
  changes = {'clip_norm': 1e-2, 'replicas': 'pmap', 'devices': 2}
  apart = trained(tmp_path / 'apart', seeds=2, side_by_side=2, **changes)
  [alone] = trained(tmp_path / 'alone', first=1, **changes)
  found = apart[1]
  assert found.model.provenance.seeds == alone.model.provenance.seeds == (1,)
  # Another program, float32, four steps: relative 1e-5 of metrics, 1e-5 of weights.
  for metric in ('loss', 'gradient_norm', 'bits_per_byte', 'validation/nats_per_byte'):
    assert found.curve(metric).keys() == alone.curve(metric).keys()
    assert found.last(metric) == pytest.approx(alone.last(metric), rel=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found.variables, alone.variables
  )
  # The checkpoint is one that vmap reads.
  read = trained(
    tmp_path / 'apart', seeds=2, side_by_side=2, **changes | {'replicas': 'vmap', 'devices': 1}
  )
  assert [one.model.fingerprint for one in read] == [one.model.fingerprint for one in apart]


def test_seeds_have_a_device_each_if_there_are_as_many(tmp_path):
  config, options = config_of(seeds=5, side_by_side=3, replicas='auto')
  for devices, wanted in ((8, 'pmap'), (3, 'pmap'), (2, 'vmap')):
    run = Run(tmp_path, sharding.make_mesh(config.mesh, jax.devices()[:devices]))
    assert fit.way(options, run) == wanted
  options.side_by_side = 0
  assert fit.way(options, run) == ''


def test_each_seed_can_have_a_tokenizer_and_text_of_its_own(tmp_path):
  config, options = config_of(seeds=2, side_by_side=2)
  run = Run(tmp_path, sharding.make_mesh(config.mesh, jax.devices()[:1]))
  model = LanguageModel(Learned(268, options.dim), fit.make_decoder(options, fit.dtype(config)))
  own = {
    seed: train_bpe_unsplit([b''.join(TEXT[seed::2])], 260 + 8 * seed, ALPHABET) for seed in (0, 1)
  }
  batches = lambda seed, repeat=True: pipeline.batches(
    TEXT, own[seed], batch_size=4, length=options.length, seed=seed, repeat=repeat, pack=False
  )
  fitted = fit.fit(
    config, run, options, 'own', model, batches,
    evaluations={'validation': lambda seed: batches(seed, False)}, tokenizer=own.__getitem__,
  )  # fmt: skip
  kept = [language_model.load(tmp_path / 'models' / f'own,seed={seed}') for seed in (0, 1)]
  assert [one.tokenizer.fingerprint for one in kept] == [own[0].fingerprint, own[1].fingerprint]
  assert own[0].fingerprint != own[1].fingerprint
  # The metrics on disk are those of the models, a curve for each seed.
  read = fit.curves(fit.histories(config, run, options, 'own'), 'validation/nats_per_byte')
  assert read.keys() == {0, 2, 4}
  assert read[4].tolist() == [one.last('validation/nats_per_byte') for one in fitted]


def test_a_model_starts_from_the_weights_of_another(tmp_path):
  [base] = trained(tmp_path, 'base')
  # At a rate of next to nothing training leaves the weights as they were given.
  for changes in ({}, {'seeds': 2, 'side_by_side': 2}):
    start = {'initial': str(tmp_path / 'models' / 'base,seed=0'), 'rates': (1e-12,), 'steps': 2}
    later = trained(tmp_path, f'later{len(changes)}', **start, **changes)
    for one in later:
      assert one.model.provenance.initial == base.model.fingerprint
      np.testing.assert_allclose(
        one.variables['params']['embedding']['table'],
        base.variables['params']['embedding']['table'], atol=1e-6,
      )  # fmt: skip


@pytest.mark.parametrize(('side_by_side', 'replicas'), [(0, 'vmap'), (2, 'vmap'), (2, 'pmap')])
def test_each_seed_starts_from_variables_given_in_memory(tmp_path, side_by_side, replicas):
  asked = {}

  def initial(seed, new):
    asked[seed] = new
    return jax.tree.map(lambda leaf: leaf + seed, new)

  changes = {'rates': (1e-12,), 'steps': 2, 'seeds': 2, 'side_by_side': side_by_side}
  changes |= {'replicas': replicas, 'devices': 2 if replicas == 'pmap' else 1}
  plain = trained(tmp_path, 'plain', **changes)
  found = trained(tmp_path, 'given', initial, **changes)
  table = lambda variables: variables['params']['embedding']['table']
  for seed, (one, without) in enumerate(zip(found, plain, strict=True)):
    np.testing.assert_allclose(table(asked[seed]), table(without.variables), atol=1e-6)
    np.testing.assert_allclose(table(one.variables), table(asked[seed]) + seed, atol=1e-6)


def test_the_best_of_several_rates_is_chosen_and_only_its_models_are_kept(tmp_path):
  [found] = trained(tmp_path, rates=(1e-9, 1e-2), rate_share=1.0, steps=8)
  assert found.rate == 1e-2
  assert [path.name for path in (tmp_path / 'models').iterdir()] == ['m,seed=0']
  _, options = config_of(rates=(1e-9, 1e-2))
  rows = Rows('t')
  fit.add_rate(rows, {'arm': 'm'}, options, found.rate)
  assert (rows[0].row, rows[0].measured) == ('arm=m', 1e-2)
  assert '1e-09, 0.01' in rows[0].note


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'steps': 0}, 'one.steps must be 1 or more'),
    ({'rates': ()}, 'one.rates must be a tuple of 1 or more'),
    ({'rates': (0.0,)}, 'one.rates must be .* above 0'),
    ({'rate_share': 0.0}, 'one.rate_share'),
    ({'position': 'nowhere'}, 'one.position must be one of'),
    ({'heads': 3}, 'not a multiple of 3 heads'),
    ({'dim': 6}, 'not an even multiple'),
    ({'optimizer': 'nope'}, 'nope'),
    ({'side_by_side': 2, 'clip_norm': 1.0}, 'one.clip_norm must be 0 where'),
    ({'replicas': 'nope'}, 'one.replicas must be one of'),
    ({'seeds': 9, 'side_by_side': 9, 'replicas': 'pmap'}, 'must be at most 8, the number of dev'),
    ({'lanes': 3}, 'one.lanes must divide the batch of 8'),
    ({'schedule': 'nope'}, 'nope'),
    ({'initial': '/nowhere'}, 'not the folder of a trained model'),
  ],
)
def test_sections_that_cannot_be_trained_are_refused(changes, words):
  config, options = config_of(**changes)
  with pytest.raises(InputError, match=words):  # noqa: PT012
    config.check()
    fit.check(options, 'one')


def test_a_plan_has_the_batches_of_its_seeds():
  config, options = config_of(seeds=3, side_by_side=2)
  model = LanguageModel(Learned(256, options.dim), fit.make_decoder(options, fit.dtype(config)))
  assert fit.train_spec(options, model).batch['targets'].shape == (2, 8, 32)
  options.side_by_side = 0
  assert fit.train_spec(options, model).batch['targets'].shape == (8, 32)
