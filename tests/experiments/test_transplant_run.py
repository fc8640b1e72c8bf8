# SPDX-License-Identifier: Apache-2.0
"""The recipe of transplants: a smoke run, its claims, what is refused."""

import jax
import numpy as np
import pytest

from configs import common, transplant
from experiments.recipe import Run
from experiments.transplant import languages, learning, noise_anchor, scoring
from experiments.transplant.recipe import RECIPE
from lib.data import relexified
from lib.errors import InputError
from lib.parallel import sharding
from lib.report import plots
from lib.report.results import select
from lib.train import metrics
from lib.transplant import vectors
from tests.helpers import addresses


@pytest.fixture(scope='module')
def smoke(tmp_path_factory):
  config = transplant.get_config('smoke')
  RECIPE.check(config)
  run = Run(tmp_path_factory.mktemp('transplant'), sharding.make_mesh({}, jax.devices()[:1]))
  rows = [row for table in RECIPE.chosen(config) for row in table.measure(config, run)]
  return rows, config, run


def test_claims_and_published_numbers_address_rows_of_a_run(smoke):
  assert not addresses.faults('transplant', smoke[0], names=['zero', 'omp32'])


def test_the_two_nats_add_up_and_ratios_are_of_the_old_model(smoke):
  rows, config, _ = smoke
  of = lambda column, **where: select(rows, 'transplant', column, **where)
  [old] = of('bits_per_byte', method='unchanged', step=0)
  for row in of('bits_per_byte'):
    [exact], [new] = of('nats_exact', **row.where), of('nats_new', **row.where)
    assert exact.measured + new.measured == pytest.approx(row.measured * np.log(2))
    [ratio] = of('ratio_to_old', **row.where)
    assert ratio.measured == pytest.approx(row.measured / old.measured)
  unchanged, further = of('ratio_to_old', method='unchanged')
  assert unchanged.measured == 1
  assert further.measured != 1
  assert further.where['step'] == str(config.transplant.long_steps)
  for row in of('share_bytes_new', new='larger'):
    assert 0 < row.measured < 1
  steps = {row.where['step'] for row in of('bits_per_byte', new='larger', method='random')}
  assert steps == {'0', '2'}
  batch = config.base.batch_size * config.base.length
  for step in (0, 2, config.base.steps):
    method = 'random' if step < config.base.steps else 'scratch'
    [read] = of('tokens_trained', new='larger', method=method, step=step)
    assert read.measured == step * batch
  [gap] = of('bits_above_parts', new='code', method='mean', step=0)
  one, other = (
    of('bits_per_byte', new='code', method=method, step=0)[0] for method in ('mean', 'parts')
  )
  assert gap.measured == pytest.approx(one.measured - other.measured)


def test_the_split_is_of_the_tokens_that_the_old_tokenizer_lacks(smoke):
  _, config, run = smoke
  old = scoring.old_tokenizer(config)
  [model] = [
    one.model
    for one in scoring.train(config, run, 'transplant/old', old, scoring.old_text(config))[:1]
  ]
  text = scoring.held_out(config)
  is_new = np.arange(old.vocab_size) % 3 == 0
  found = scoring.score([model], text, is_new)
  losses = model.token_loss(text.texts)
  by_hand = sum(loss.nats[loss.ids % 3 == 0].sum() for loss in losses)
  assert found.nats[0, :, 1].sum() == pytest.approx(by_hand)
  assert found.bytes.sum() == sum(map(len, text.texts))
  assert found.bits.mean() == pytest.approx(model.bits_per_byte(text.texts).value)
  texts = losses[0].ids[:9], losses[1].ids[:5]
  shares = []
  for ids in texts:  # both are cut to five tokens
    powers = np.exp(model.logits([model.first_id, *ids[:5]]).astype(np.float64))
    shares.append(powers[:, is_new].sum(axis=1) / powers.sum(axis=1))
  assert scoring.mass_of_new(model, texts, is_new) == pytest.approx(np.mean(shares), rel=1e-4)


def test_speed_is_the_steps_of_a_model_from_scratch_to_the_same_loss(smoke):
  rows, config, run = smoke
  of = lambda column, **where: select(rows, 'languages_learning', column, **where)[0].measured
  every, last = config.base.steps, max(config.languages.steps)
  bits = [of('validation_bits_per_byte', method='scratch', step=step) for step in (0, 2, every)]
  assert bits == sorted(bits, reverse=True)
  lines = metrics.read(
    run.workdir / 'metrics.jsonl', f'languages/scratch,step={every},seed=1000-1001'
  )
  [middle] = [
    line[learning.METRIC] for line in lines if line['step'] == 2 and learning.METRIC in line
  ]
  assert np.mean(middle) != pytest.approx(bits[1], rel=1e-6)  # its learning rate is not yet low
  worth = of('steps_of_scratch', method='wechsel', step=last)
  assert 0 <= worth <= every
  assert of('speed_up', method='wechsel', step=last) == pytest.approx(worth / last)
  curve = {0: 8.0, 10: 4.0, 20: 3.0, 30: 3.5}
  for level in (7.0, 4.0, 3.2):  # as numpy does it, where the curve falls
    expected = np.interp(-level, [-8.0, -4.0, -3.0], [0, 10, 20])
    assert learning.steps_to(curve, level) == (pytest.approx(expected), True)
  assert learning.steps_to(curve, 9.0) == (0, True)
  assert learning.steps_to(curve, 2.0) == (30, False)


def test_without_noise_a_linear_map_explains_all_and_noise_takes_away(smoke):
  rows, _, _ = smoke
  of = lambda **where: select(rows, 'noise_anchor', 'share_explained', **where)[0].measured
  assert of(noise=0.0, method='ridge') > 0.99
  assert of(noise=0.0, method='procrustes') > of(noise=0.5, method='procrustes')
  assert of(noise=0.0, method='omp8') > 0.999
  assert of(noise=0.5, method='ridge') < 0.95
  assert {row.where['pair'] for row in select(rows, 'noise_anchor', 'noise_over_signal')} == {
    'seeds', 'widths', 'texts',
  }  # fmt: skip
  donor, base = noise_anchor.synthetic(0, 0.0, 60, 4, 6)
  assert np.linalg.matrix_rank(np.hstack([donor, base])) == 4


def test_the_other_language_keeps_lengths_case_and_statistics(smoke):
  config = smoke[1]
  text = [b"The cat is OUT. A dog's iPod and the Cat.", b'dog cat the is']
  words = relexified.bijection(text, 1)
  assert sorted(words) == sorted(words.values())
  assert any(word != other for word, other in words.items())
  back = {new: old for old, new in words.items()}
  for one in text:
    other = relexified.relexify(one, words)
    assert len(other) == len(one)
    assert [bytes([b]).isupper() for b in other] == [bytes([b]).isupper() for b in one]
    assert relexified.relexify(other, back) == one
  assert relexified.relexify(b'unseen, Words', words) == b'unseen, Words'
  language = languages.Language(config)
  old = scoring.old_text(config)
  assert len(language.train) == len(old)
  assert len(language.train[0]) == len(old[0])


def test_a_dictionary_aligns_two_languages():
  rng = np.random.default_rng(0)
  known = [bytes(rng.integers(97, 123, 5).tolist()) for _ in range(40)]
  texts = [b' '.join(known[i] for i in (rng.integers(0, 8, 400) * 5 + j) % 40) for j in range(12)]
  pairs = relexified.bijection(texts, 0)
  others = [relexified.relexify(text, pairs) for text in texts]
  one, other = vectors.of_words(texts, 10), vectors.of_words(others, 10)
  assert {pairs[word] for word in one.rows} == set(other.rows)
  assert one.counts.sum() == sum(len(text.split()) for text in texts)
  with pytest.raises(InputError, match='a word occurs twice'):
    vectors.of_words([b'a b c'])


def test_every_table_has_a_picture(smoke, tmp_path):
  rows, config, run = smoke
  drawn = [
    name
    for table in RECIPE.chosen(config)
    for name in plots.save(tmp_path, table.pictures(rows, config, run))
  ]
  assert drawn == ['transplant.png', 'noise_anchor.png', 'languages.png']


@pytest.mark.parametrize('scale', common.SCALES)
def test_every_scale_can_be_run(scale):
  config = transplant.get_config(scale)
  config.data.source = 'stdlib/prose'
  config.transplant.new_tokenizers = tuple(
    (*new, source.replace('tfds:c4/en', 'stdlib/prose'))
    for *new, source in config.transplant.new_tokenizers
  )
  config.held_out.update(length=64, bytes=2000)
  RECIPE.check(config)


def test_mistakes_are_named(tmp_path):
  prose, code = 'stdlib/prose', 'stdlib/source'
  for field, value, message in (
    ('transplant.methods', ('best',), "no method 'best'"),
    ('transplant.long', ('omp32',), "transplant.long: 'omp32' is not in transplant.methods"),
    ('transplant.continued', 'finer', 'must be one of code, larger'),
    ('transplant.new_tokenizers', (('a', 'bpe', 100, 'stdlib/prose'),), 'must be one of a'),
    (
      'transplant.new_tokenizers',
      (('larger', 'gzip', 300, code),),
      "transplant.new_tokenizers: 'gzip' must be one of",
    ),
    (
      'transplant.new_tokenizers',
      (('larger', 'wordpiece', 300, code),),
      'wordpiece has 512 ids or more',
    ),
    (
      'transplant.new_tokenizers',
      (('larger', 'bpe', 300, prose),),
      'larger is the same .* as the old one',
    ),
    (
      'transplant.new_tokenizers',
      (('larger', 'bpe', 310, prose), ('larger', 'bpe', 320, prose)),
      'larger is there twice',
    ),
    ('transplant.methods', ('random', 'parts', 'omp17'), 'omp17 combines 17 rows; at most base'),
    ('old.family', 'ranks', "old: 'ranks' must be one of"),
    ('noise_anchor.other', 'no such', "noise_anchor.other: no file matches 'no such'"),
    ('languages.continued', ('best',), "languages.continued: 'best' is not one of random"),
    ('languages.dictionary', 'words.txt', 'give both languages.texts'),
    ('base.dim', 17, 'base.dim 17 is not a multiple'),
  ):
    config = transplant.get_config('smoke')
    config.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=message):
      RECIPE.check(config)
  file = tmp_path / 'words'
  file.write_bytes(b'Hund\tdog\nhund hound\n\n')
  assert vectors.read_dictionary(file) == {b'hund': b'dog'}
  config = transplant.get_config('smoke')
  config.languages.update(texts='stdlib/prose', dictionary=str(file))
  with pytest.raises(InputError, match='at 100 %, 0 of its pairs have two words'):
    RECIPE.check(config)
  config.vectors.dim = 2
  file.write_bytes(b'the the\nof of\n')
  RECIPE.check(config)
  file.write_bytes(b'alone')
  with pytest.raises(InputError, match='a word and its translation'):
    vectors.read_dictionary(file)
