# SPDX-License-Identifier: Apache-2.0
"""The models of frozen visual Unicode at every scale, their frozen rows, and what is refused."""

import functools
import re

import jax
import numpy as np
import pytest

from configs import common, visual_unicode
from experiments import fit
from experiments.fit import Fitted
from experiments.visual_unicode import growth, loss, models, reasoning, text
from experiments.visual_unicode.recipe import RECIPE
from lib.data import pipeline
from lib.errors import InputError
from lib.glyphs import fonts, rendering, row_kinds
from lib.models.stages import Stage
from lib.objectives.next_token import next_token
from lib.parallel import sharding
from lib.parameters import path_name
from lib.tokenizers.characters import Characters
from lib.tokenizers.strings import token_strings
from lib.train import replicas
from lib.train.experiment import Experiment
from lib.train.state import prepare
from tests.helpers import shapes as shape_of

SCALE = f'smoke,tables={"+".join(visual_unicode.TABLES)}'


@pytest.fixture(scope='module')
def config():
  return visual_unicode.get_config(SCALE)


def test_the_table_is_no_part_of_the_optimiser_and_sharded_like_the_lm_head(config):
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 2})
  experiment = recipe(config, 'glyph')
  batch = sharding.global_batch(next(iter(experiment.batches)), mesh, experiment.batch_axis)
  chain = fit.make_optimizer(config.loss)
  shapes = prepare(experiment, chain, batch, 0, mesh).shapes
  frozen = shapes['variables']['frozen']['embedding']['table']
  lm_head = shapes['variables']['params']['embedding']['lm_head_table']
  assert frozen.shape == lm_head.shape
  assert frozen.sharding == lm_head.sharding
  assert frozen.sharding.shard_shape(frozen.shape)[1:] == (frozen.shape[1] // 2, 8)
  paths = [path_name(path) for path, _ in jax.tree.leaves_with_path(shapes['optimizer'])]
  assert any(path.endswith('embedding/lm_head_table') for path in paths)
  assert not any(path.endswith('embedding/table') for path in paths)


def recipe(config, arm):
  opened = text.open_text(config)
  model = models.make_model(config, config.loss, arm, opened.glyphs)
  seeds = range(min(2, config.loss.side_by_side))
  batches = pipeline.stack_replicas([opened.batches(config.loss, seed) for seed in seeds])
  single = Experiment(*next_token(model), ())
  return replicas.replicate(single, len(seeds), batches)


def test_the_rows_are_no_constant_of_the_step(config):
  wide = visual_unicode.get_config(SCALE)
  wide.loss.dim = 1024
  experiment = recipe(wide, 'code_16')
  batch = next(iter(experiment.batches))
  key = jax.random.key(0)
  shapes = jax.eval_shape(experiment.init_fn, key, batch)
  rows = shapes['frozen']['embedding']['table']
  for function, arguments in (
    (experiment.init_fn, (key, batch)),
    (experiment.loss_fn, (shapes, batch, key)),
  ):
    assert len(jax.jit(function).lower(*arguments).as_text()) < 0.5 * rows.size


@pytest.mark.parametrize('scale', common.SCALES)
def test_every_scale_builds_and_steps(scale):
  config = visual_unicode.get_config(scale)
  config.data.source = 'stdlib/prose'
  config.glyphs.font = 'dejavu'
  config.tokenizer.train_bytes = 200_000
  config.loss.batch_size = 4
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 1}, jax.devices()[:4])
  shapes = shape_of.check(recipe(config, 'code_16'), mesh)
  size = lambda tree: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
  if scale == 'paper':  # 335.5 million: two tables and 16 layers, less norms and begin
    total = size(shapes['variables'])
    assert total == pytest.approx(2 * 65_536 * 1024 + 16 * 12 * 1024**2, rel=2e-4)
  for arm in config.loss.arms:
    assert arm in models.ARMS
  assert set(config.loss.references) <= set(models.ARMS)
  assert set(config.neighbours.arms) <= set(config.loss.arms)
  assert set(config.homoglyphs.arms) <= set(config.loss.arms)


@pytest.mark.parametrize('scale', common.SCALES)
def test_every_scale_of_reasoning_and_growth_builds_and_steps(scale):
  config = visual_unicode.get_config(scale)
  config.glyphs.font = 'dejavu'
  config.tokenizer.kind = 'restricted'
  config.reasoning.vocab_size, config.reasoning.sample = 400, 100
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 1}, jax.devices()[:4])
  opened = reasoning.open_text(config)
  model = models.make_model(config, config.reasoning, 'code_16', opened.glyphs)
  length = config.reasoning.length
  batches = pipeline.batches(
    reasoning.documents(config, 0), opened.tokenizer, batch_size=4, length=length, seed=0
  )
  shape_of.check(Experiment(*next_token(model), batches), mesh)
  model = models.make_model(config, config.growth, 'code_16', opened.glyphs)
  stage = Stage(model, config.growth.layers)
  shapes = shape_of.check(Experiment(*next_token(stage), batches), mesh)
  lower = shapes['variables']['frozen']['lower']['up']['kernel']
  assert lower.shape[0] == config.growth.layers - 1
  assert lower.sharding.spec == jax.P(None, 'fsdp', 'tensor')


def test_starts_of_equal_norm_differ_in_the_information_of_their_rows(config):
  opened = text.open_text(config)
  of = lambda arm: row_kinds.KINDS[models.ARMS[arm].rows](opened.glyphs, 16, 1)
  rows = {arm: of(arm) for arm in visual_unicode.STARTS}
  for found in rows.values():
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
  order = lambda found: found[np.lexsort(found.T)]
  glyph, shuffled = rows['trainable_glyph'], rows['trainable_shuffled']
  assert (glyph != shuffled).any()
  assert (order(glyph) == order(shuffled)).all()
  assert not any(models.ARMS[arm].frozen for arm in rows)
  equal = of('equal')
  assert len(np.unique(equal, axis=0)) == 1
  labels = [arm.label for arm in models.ARMS.values()]
  assert len(set(labels)) == len(labels)


def test_a_model_over_equal_rows_reads_no_input(config):
  opened = text.open_text(config)
  model = models.make_model(config, config.loss, 'equal', opened.glyphs)
  batch = next(iter(opened.batches(config.loss, 0)))
  key = jax.random.key(0)
  variables = jax.jit(model.init)(key, batch, key)
  bos = opened.tokenizer.vocab_size
  other = np.where(batch['inputs'] == bos, bos, (batch['inputs'] + 7) % bos)
  apply = jax.jit(functools.partial(model.apply, method='logits'))
  logits = [
    apply(variables, {**batch, 'inputs': inputs}, key) for inputs in (batch['inputs'], other)
  ]
  np.testing.assert_array_equal(*logits)


def at_three_rates(table):
  changed = visual_unicode.get_config(SCALE)
  options = changed[table]
  options.rates, options.rate_share, options.steps = (1e-3, 1e-2, 1e-1), 0.2, 10
  options.seeds = options.side_by_side = 3
  return changed


@pytest.mark.parametrize('table', ['loss', 'reasoning'])
def test_the_learning_rate_of_an_arm_is_that_of_the_lowest_validation_loss(table, monkeypatch):
  changed, asked = at_three_rates(table), []

  def trained(job, options, name, seeds, keep=True):
    [rate] = options.rates
    asked.append((rate, len(seeds), options.steps, name))
    history = [
      {'step': 0, 'validation/bits_per_byte': 0.0},
      {'step': 2, 'validation/bits_per_byte': abs(np.log10(rate) + 2)},
    ]
    return [Fitted(None, history, rate)]

  monkeypatch.setattr(fit._Job, 'train', trained)
  if table == 'loss':
    [one], folder = loss.train(changed, None, 'glyph'), 'loss'
    rate = one.rate
  else:
    opened, folder = reasoning.open_text(changed), 'reasoning/questions'
    _, rate = reasoning.train(changed, None, opened, 'glyph', 'questions')
  assert rate == 1e-2
  assert [some[:3] for some in asked] == [(1e-3, 1, 2), (1e-2, 1, 2), (1e-1, 1, 2), (1e-2, 3, 10)]
  assert asked[0][3] == f'{folder}/arm=glyph,rate=0.001'
  assert asked[3][3] == f'{folder}/arm=glyph'


def test_each_way_of_growing_has_its_rate_by_validation_text(monkeypatch):
  changed = at_three_rates('growth')
  opened = text.open_text(changed)
  validation = opened.held_out(changed.growth, 'validation')
  best = {'monolithic': 1e-3, 'grown': 1e-2, 'experts': 1e-1}

  class Result:
    def __init__(self, bits):
      self._bits = bits

    def bits(self, held_out):
      assert (held_out.bytes == validation.bytes).all()
      return np.full((1, 5), self._bits)

  class Training:
    def __init__(self, config, run, opened, options, ending):
      assert (options.steps, options.seeds) == (2, 1)
      [rate] = options.rates
      assert ending == f',rate={rate}'
      for way, right in best.items():
        bits = 1 + abs(np.log10(rate / right))
        setattr(self, way, lambda way=way, bits=bits: {way: Result(bits)})

  monkeypatch.setattr(growth, 'Training', Training)
  for way, rate in best.items():
    assert growth.at_best_rate(changed, None, opened, way).rates == (rate,)


def test_facts_that_choose_a_rate_are_those_of_training_in_other_documents(config):
  trained = reasoning.documents(config, 1)
  validated = reasoning.documents(config, 1, stream=reasoning.VALIDATION)
  assert trained.base.facts == validated.base.facts
  assert [trained[i] for i in range(9)] != [validated[i] for i in range(9)]


def test_facts_of_each_seed_are_its_own_and_the_tokenizer_knows_training_text_alone(config):
  one, other = reasoning.bases(config)
  assert one.facts != other.facts
  documents = reasoning.documents(config, 1, 'sentences')
  assert not any(b'Question' in documents[i] for i in range(50))
  tokenizer = reasoning.open_text(config).tokenizer
  grams = {piece.decode() for piece in tokenizer.pieces if len(piece) > 2}
  told = ' '.join(documents[i].decode() for i in range(config.reasoning.sample))
  assert 'Question' in grams
  unseen = {fact.entity for fact in other.facts if fact.entity not in told}
  assert not unseen & grams


# Bad input.


@pytest.fixture(scope='module')
def wrong(tmp_path_factory):
  """Files that cannot serve."""
  folder = tmp_path_factory.mktemp('wrong')
  (folder / 'torn.ttf').write_bytes(b'\0\1\0\0 no font')
  (folder / 'greek.hex').write_text('0391:' + '18' * 16 + '\n')
  other = Characters()
  table = rendering.render(token_strings(other), fonts.find_font('dejavu'), 16)
  rendering.save(table, folder / 'other.table')
  return folder


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--config.glyphs.font=/nowhere/font.ttf'], 'cannot read the font /nowhere/font.ttf'),
    (['--config.glyphs.font={}/torn.ttf'], 'torn.ttf is not a font'),
    (['--config.glyphs.font={}/greek.hex'], 'greek.hex has none of the'),
    (['--config.glyphs.table={}/other.table'], 'was rendered from another font, other tokens'),
    (['--config.glyphs.table=/nowhere.table'], 'cannot read the glyph table /nowhere.table'),
    (['--config.tokenizer.kind=runes'], "tokenizer.kind 'runes' is neither one of unicode"),
    (['--config.tokenizer.vocab_size=100'], '100 ids do not hold the'),
    (["--config.loss.arms=('glyphs',)"], "loss.arms: 'glyphs' is not one of glyph"),
    (["--config.loss.arms=('code_64',)"], 'code_64 needs a dim that 64 divides; got 16'),
    (
      ['--config.loss.rates=(0.0,)'],
      'loss.rates must be a tuple such as (0.02, 0.05, 0.12), each value above 0',
    ),
    (['--config.loss.rate_share=0.0'], 'loss.rate_share must be above 0'),
    (['--config.loss.length=100000'], 'is 100001 long: choose shorter excerpts'),
    (['--config.loss.dim=9'], 'loss.dim 9 is not a multiple of 2 heads'),
    (['--config.homoglyphs.rates=(0.0,)'], 'homoglyphs.rates must be a tuple'),
    (["--config.unseen_script.tested=('KLINGON',)"], "no letters of the script 'KLINGON'"),
    (['--config.data.source=/nowhere/*.txt'], '/nowhere/*.txt'),
    (['--config.reasoning.entities=0'], 'reasoning.entities must be 2 or more'),
    (['--config.reasoning.questions=/nowhere.csv'], "no file matches '/nowhere.csv'"),
    (["--config.reasoning.naive_arms=('code_16',)"], "naive_arms: 'code_16' is not one of"),
    (['--config.growth.layers=1'], 'growth.layers must be 2 or more'),
  ],
)
def test_bad_input_gets_one_sentence(wrong, flags, message):
  # What the command line does before it writes, without its start-up.
  changed = visual_unicode.get_config(SCALE)
  for flag in flags:
    path, _, value = flag.format(wrong).removeprefix('--config.').partition('=')
    section, _, field = path.partition('.')
    kind = type(changed[section][field])
    changed[section][field] = eval(value) if kind is tuple else kind(value)
  with pytest.raises(InputError, match=re.escape(message)) as caught:
    RECIPE.check(changed)
  assert '\n' not in str(caught.value)


def test_the_default_text_of_large_scales_is_accepted_and_short_text_refused(tmp_path):
  # Without a patch: the checks learn a tokenizer from a part of the text.
  config = visual_unicode.get_config('gpu')
  assert config.data.source.startswith('ngram:stdlib')
  RECIPE.check(config)
  with pytest.raises(InputError, match=r"no prepared TFDS set 'wiki40b/en'"):
    RECIPE.check(visual_unicode.get_config('paper'))
  for table in ('loss', 'growth'):
    config = visual_unicode.get_config(f'gpu,tables={table}')
    config.data.source = 'stdlib/prose'
    config[table].steps = 10_000
    with pytest.raises(InputError, match=r"data.source 'stdlib/prose' .* at most 4 epochs"):
      RECIPE.check(config)


def test_a_table_that_was_drawn_before_is_taken(config, tmp_path):
  drawn = text.open_text(config)
  rendering.save(drawn.glyphs, tmp_path / 'mine.table')
  again = visual_unicode.get_config(SCALE)
  again.glyphs.table = str(tmp_path / 'mine.table')
  taken = text.open_text(again).glyphs
  assert isinstance(taken.bits, np.memmap)
  assert (taken.bits == drawn.glyphs.bits).all()
