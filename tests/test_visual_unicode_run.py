# SPDX-License-Identifier: Apache-2.0
"""The recipe of frozen visual Unicode from the command line, at smoke scale, and its parts."""

import json
import pathlib
import re
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from configs import common, visual_unicode
from experiments import runner
from experiments.visual_unicode import (
  coverage,
  growth,
  homoglyphs,
  loss,
  models,
  neighbours,
  reasoning,
  text,
  unseen_script,
)
from lib import tokenizers
from lib.data import fonts, glyphs, pipeline
from lib.embeddings.glyph_rows import unit
from lib.models.growth import Stage
from lib.report import published
from lib.report.results import Row
from lib.tokenizers import Characters
from lib.tokenizers.strings import token_strings
from lib.train import language_model, sharding
from lib.train.experiment import Experiment
from lib.train.state import state_shapes
from tests.test_configs import shape_check

ROOT = pathlib.Path(__file__).parents[1]
NOTES = ROOT.parent / 'shared/papers/visual_unicode.md'
UDHR = ROOT.parent / 'shared/corpora/udhr'
TABLES = visual_unicode.TABLES
OWN = 'Is it 1?,yes,no,perhaps,never,A\nIs it 2?,no,yes,perhaps,never,B\n'
SCALE = f'smoke,tables={"+".join(TABLES)}'


def run(workdir, *flags, scale=SCALE):
  return subprocess.run(
    [
      sys.executable, '-m', 'experiments.visual_unicode',
      f'--config={ROOT}/configs/visual_unicode.py:{scale}', f'--workdir={workdir}', *flags,
    ],
    cwd=ROOT, capture_output=True, text=True, check=False,
  )  # fmt: skip


@pytest.fixture(scope='module')
def smoke(tmp_path_factory):
  """The folder of a run at smoke scale, and its rows by table, row and column."""
  folder = tmp_path_factory.mktemp('visual')
  questions = tmp_path_factory.mktemp('questions') / 'own_test.csv'
  questions.write_text(OWN)
  done = run(folder, f'--config.reasoning.questions={questions}')
  assert done.returncode == 0, done.stderr
  rows = json.loads((folder / 'results.json').read_text())['rows']
  return folder, {(row['table'], row['row'], row['column']): row for row in rows}


@pytest.fixture(scope='module')
def config():
  return visual_unicode.get_config(SCALE)


def measured(smoke, table, row, column):
  return smoke[1][table, row, column]['measured']


# --- the run --------------------------------------------------------------------------------------


def test_every_table_has_rows_and_pictures(smoke):
  folder, rows = smoke
  assert {table for table, _, _ in rows} == set(TABLES)
  assert all(row['measured'] is not None or 'not measured' in row['note'] for row in rows.values())
  report = (folder / 'report.md').read_text()
  for picture in ('glyphs', *(table for table in TABLES if table != 'coverage')):
    assert (folder / f'{picture}.png').read_bytes().startswith(b'\x89PNG')
    assert f'![{picture}.png]' in report


def test_coverage_counts_what_the_font_has(smoke):
  font = 'font=DejaVuSans.ttf'
  assert measured(smoke, 'coverage', f'{font},block=Basic Latin', 'assigned_characters') == 128
  assert 0.7 < measured(smoke, 'coverage', f'{font},block=Basic Latin', 'covered_share') < 1
  assert measured(smoke, 'coverage', f'{font},block=Cyrillic', 'covered_share') > 0.9
  faithful, deduped = (f'{font},vocabulary=restricted,rows={form}' for form in TWO_FORMS)
  for column in coverage.PAIRS:
    if column != 'nbsp_is_space':  # not in this vocabulary: the bytes of it are
      assert measured(smoke, 'coverage', faithful, column) == 1
    assert measured(smoke, 'coverage', deduped, column) == 0
  tokens = measured(smoke, 'coverage', faithful, 'tokens')
  assert measured(smoke, 'coverage', deduped, 'distinct_rows') == tokens
  assert measured(smoke, 'coverage', faithful, 'distinct_rows') < tokens
  kept = [
    row['measured']
    for (table, row_name, column), row in smoke[1].items()
    if table == 'coverage' and column == 'variance_kept' and 'DejaVu' in row_name
    if 'restricted' in row_name
  ]
  assert kept == sorted(kept)
  assert kept[-1] == pytest.approx(1)


TWO_FORMS = ('faithful', 'deduped')


def test_differences_are_those_of_the_seeds(smoke):
  scores = {
    arm: [measured(smoke, 'loss', f'arm={arm},seed={seed}', 'bits_per_byte') for seed in (0, 1)]
    for arm in ('glyph', 'trainable_0.02')
  }
  difference = np.subtract(scores['glyph'], scores['trainable_0.02'])
  row = 'arm=glyph,against=trainable_0.02'
  assert measured(smoke, 'loss', row, 'difference_bits_per_byte') == pytest.approx(
    difference.mean()
  )
  low, high = (measured(smoke, 'loss', row, f'difference_{end}') for end in ('low', 'high'))
  assert low < difference.mean() < high
  assert measured(smoke, 'loss', row, 'equivalent') in (0, 1)


def test_arms_differ_in_their_rows_alone(smoke):
  sizes = [
    sum(measured(smoke, 'loss', f'arm={arm}', f'{kind}_parameters') for kind in KINDS)
    for arm in ('glyph', 'trainable_0.02')
  ]
  assert sizes[0] == sizes[1]
  assert measured(smoke, 'loss', 'arm=trainable_0.02', 'frozen_parameters') == 0


KINDS = ('trained', 'frozen')


def test_frozen_rows_of_trained_models_are_bit_identical(smoke, config):
  folder, _ = smoke
  here = runner.Run(folder, sharding.make_mesh(config.mesh, ONE))
  rows = models.glyph(text.open_text(config).glyphs, config.loss.dim)
  for one in loss.fit(config, here, 'glyph'):  # a run that is done is read
    assert set(one.variables) == {'params', 'frozen'}
    assert 'table' not in one.variables['params']['embedding']
    held = np.asarray(one.variables['frozen']['embedding']['table'])
    assert held.tobytes() == rows.tobytes()


ONE = jax.devices()[:1]


def test_the_table_is_no_part_of_the_optimiser_and_sharded_like_the_readout(config):
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 2})
  experiment = recipe(config, 'glyph')
  batch = sharding.global_batch(next(iter(experiment.batches)), mesh, experiment.batch_axis)
  chain = models.make_optimizer(config.loss)
  _, shapes = state_shapes(experiment, chain, batch, 0, config.rules, mesh)
  frozen = shapes['variables']['frozen']['embedding']['table']
  readout = shapes['variables']['params']['embedding']['readout_table']
  assert frozen.shape == readout.shape
  assert frozen.sharding == readout.sharding
  assert frozen.sharding.shard_shape(frozen.shape)[1:] == (frozen.shape[1] // 2, 8)
  paths = [sharding.path_name(path) for path, _ in jax.tree.leaves_with_path(shapes['optimizer'])]
  assert any(path.endswith('embedding/readout_table') for path in paths)
  assert not any(path.endswith('embedding/table') for path in paths)


def recipe(config, arm):
  opened = text.open_text(config)
  model = models.make_model(config.loss, arm, opened.glyphs, jax.numpy.dtype(config.dtype))
  seeds = range(min(2, config.loss.side_by_side))
  return models.make_experiment(model, [text.batches(opened, config.loss, seed) for seed in seeds])


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


# --- configs --------------------------------------------------------------------------------------


@pytest.mark.parametrize('scale', common.SCALES)
def test_every_scale_builds_and_steps(scale):
  config = visual_unicode.get_config(scale)
  config.data.source = 'stdlib/prose'
  config.glyphs.font = 'dejavu'
  config.tokenizer.train_bytes = 200_000
  config.loss.batch_size = 4
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 1}, jax.devices()[:4])
  shapes = shape_check(recipe(config, 'code_16'), config, mesh)
  size = lambda tree: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
  if scale == 'paper':  # 335.5 million: two tables and 16 layers, less norms and begin
    total = size(shapes['variables'])
    assert total == pytest.approx(2 * 65_536 * 1024 + 16 * 12 * 1024**2, rel=2e-4)
  for arm in config.loss.arms:
    assert arm in models.ARMS
  assert set(config.loss.references) <= set(config.loss.arms)
  assert set(config.homoglyphs.arms) <= set(config.loss.arms)


# --- bad input ------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def wrong(tmp_path_factory):
  """Files that cannot serve."""
  folder = tmp_path_factory.mktemp('wrong')
  (folder / 'torn.ttf').write_bytes(b'\0\1\0\0 no font')
  (folder / 'greek.hex').write_text('0391:' + '00' * 16 + '\n')
  other = Characters()
  table = glyphs.render(token_strings(other), fonts.find_font('dejavu'), 16)
  glyphs.save(table, folder / 'other.table')
  return folder


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--config.glyphs.font=/nowhere/font.ttf'], 'cannot read the font /nowhere/font.ttf'),
    (['--config.glyphs.font={}/torn.ttf'], 'torn.ttf is no font'),
    (['--config.glyphs.font={}/greek.hex'], 'greek.hex has none of the'),
    (['--config.glyphs.table={}/other.table'], 'was rendered from another font, other tokens'),
    (['--config.glyphs.table=/nowhere.table'], 'cannot read the glyph table /nowhere.table'),
    (['--config.tokenizer.kind=runes'], "tokenizer.kind 'runes' is neither one of unicode"),
    (['--config.tokenizer.vocab_size=100'], '100 ids do not hold the'),
    (["--config.loss.arms=('glyphs',)"], "loss.arms: 'glyphs' is not one of glyph"),
    (["--config.loss.arms=('code_64',)"], 'code_64 needs a dim that 64 divides; got 16'),
    (['--config.loss.dim=9'], 'loss.dim 9 is no even multiple of 2 heads'),
    (['--config.homoglyphs.rates=(0.0,)'], 'homoglyphs.rates must lie above 0'),
    (["--config.unseen_script.tested=('KLINGON',)"], "no letters of the script 'KLINGON'"),
    (['--config.data.source=/nowhere/*.txt'], '/nowhere/*.txt'),
    (['--config.reasoning.entities=0'], 'a fact base has 1 to 2700 entities'),
    (['--config.reasoning.questions=/nowhere.csv'], "no file matches '/nowhere.csv'"),
    (["--config.reasoning.naive_arms=('code_16',)"], "naive_arms: 'code_16' is not one of"),
    (['--config.growth.layers=1'], 'growth needs 2 layers, 2 experts'),
  ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(config, wrong, flags, message):
  # In one process, what the command line does before it writes: it is here without its start-up.
  from experiments import runner
  from experiments.visual_unicode.__main__ import RECIPE

  changed = visual_unicode.get_config(SCALE)
  for flag in flags:
    path, _, value = flag.format(wrong).removeprefix('--config.').partition('=')
    section, _, field = path.partition('.')
    kind = type(changed[section][field])
    changed[section][field] = eval(value) if kind is tuple else kind(value)
  with pytest.raises(runner.InputError, match=re.escape(message)) as caught:
    RECIPE.check(changed)
  assert '\n' not in str(caught.value)


def test_the_command_line_refuses_a_font_before_it_writes(tmp_path, wrong):
  done = run(tmp_path / 'new', f'--config.glyphs.font={wrong}/torn.ttf')
  assert done.returncode == 2
  assert 'torn.ttf is no font' in done.stderr
  assert len(done.stderr.strip().splitlines()) == 1
  assert not (tmp_path / 'new').exists()


def test_a_table_that_was_drawn_before_is_taken(config, tmp_path):
  drawn = text.open_text(config)
  glyphs.save(drawn.glyphs, tmp_path / 'mine.table')
  again = visual_unicode.get_config(SCALE)
  again.glyphs.table = str(tmp_path / 'mine.table')
  taken = text.open_text(again).glyphs
  assert isinstance(taken.bits, np.memmap)
  assert (taken.bits == drawn.glyphs.bits).all()


# --- reasoning ------------------------------------------------------------------------------------


def answered(smoke, row, protocol, column):
  return measured(smoke, 'reasoning', f'{row},protocol={protocol}', column)


@pytest.mark.parametrize('arm', ['glyph', 'trainable_0.02'])
@pytest.mark.parametrize('facts', ['asked', 'told', 'unseen'])
def test_an_untrained_model_is_at_chance_by_likelihood_and_far_below_by_sampling(smoke, arm, facts):
  row = f'arm={arm},training=none,facts={facts},wording=test'
  low, high = (answered(smoke, row, 'log_likelihood', f'accuracy_{end}') for end in ('low', 'high'))
  assert low <= answered(smoke, row, 'log_likelihood', 'chance') <= high
  for protocol in ('sampled_1', 'sampled_2'):
    letter = answered(smoke, row, protocol, 'p_valid_letter')
    assert answered(smoke, row, protocol, 'accuracy') < letter < 0.1
    assert answered(smoke, row, protocol, 'accuracy_given_letter') == pytest.approx(0.25, abs=0.05)


def test_every_case_has_every_protocol_and_nothing_leaks(smoke):
  rows = {row for table, row, _ in smoke[1] if table == 'reasoning'}
  cases = [f'facts={kind},wording={wording}' for kind, wording in reasoning.CASES]
  for arm in ('glyph', 'trainable_0.02'):
    for training in ('none', 'questions'):
      for protocol in reasoning.PROTOCOLS:
        for case in cases:
          assert f'arm={arm},training={training},{case},protocol={protocol}' in rows
      row = f'arm={arm},training={training},facts=unseen,wording=test'
      assert abs(answered(smoke, row, 'log_likelihood', 'z_from_chance')) < 4


def test_own_questions_are_answered_by_models_of_facts_and_of_text(smoke):
  for training in ('questions', 'text'):
    row = f'arm=glyph,training={training},questions=own_test'
    assert answered(smoke, row, 'log_likelihood', 'chance') == 0.25
    assert answered(smoke, row, 'log_likelihood', 'best_constant') == 0.5
    assert answered(smoke, row, 'log_likelihood', 'truncated') == 0
    assert 0 < answered(smoke, row, 'sampled_1', 'accuracy') < 0.1


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


# --- growth ---------------------------------------------------------------------------------------


def test_ways_of_growing_cost_what_the_monolithic_model_does(smoke, config):
  cost = lambda model: measured(smoke, 'growth', f'model={model}', 'training_flops')
  assert cost('experts') == 2 * cost('expert=0') == 2 * cost('expert=1')
  assert cost('experts') == pytest.approx(cost('monolithic'), rel=1e-6)
  # A stage has whole steps, and few of them here.
  assert cost('grown') == pytest.approx(cost('monolithic'), rel=0.5 / 3)
  assert cost('grown,layers=1') < cost('grown')
  cpu = visual_unicode.get_config('cpu').growth
  per_token = growth.flops(cpu, 1024)
  stages = sum(per_token.step(1, below) for below in range(cpu.layers))
  spent = growth.stage_steps(cpu, 1024) * stages
  assert spent == pytest.approx(cpu.steps * per_token.step(cpu.layers), rel=0.01)


def test_differences_of_growth_are_those_of_the_seeds(smoke):
  bits = lambda model: [
    measured(smoke, 'growth', f'model={model},seed={seed}', 'bits_per_byte') for seed in (0, 1)
  ]
  for model in ('grown', 'experts'):
    difference = np.subtract(bits(model), bits('monolithic')).mean()
    found = measured(smoke, 'growth', f'model={model}', 'difference_bits_per_byte')
    assert found == pytest.approx(difference)


@pytest.mark.parametrize('scale', common.SCALES)
def test_every_scale_of_reasoning_and_growth_builds_and_steps(scale):
  config = visual_unicode.get_config(scale)
  config.glyphs.font = 'dejavu'
  config.tokenizer.kind = 'restricted'
  config.reasoning.vocab_size, config.reasoning.sample = 400, 100
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 1}, jax.devices()[:4])
  opened = reasoning.open_text(config)
  dtype = jax.numpy.dtype(config.dtype)
  model = models.make_model(config.reasoning, 'code_16', opened.glyphs, dtype)
  length = config.reasoning.length
  batches = pipeline.batches(
    reasoning.documents(config, 0), opened.tokenizer, batch_size=4, length=length, seed=0
  )
  shape_check(models.make_experiment(model, [batches]), config, mesh)
  model = models.make_model(config.growth, 'code_16', opened.glyphs, dtype)
  stage = Stage(model, config.growth.layers)
  whole, loss_fn = (
    language_model.loss_and_init(model)[0],
    language_model.loss_and_init(growth._Plain(stage))[1],
  )
  begin = lambda key, batch: stage.start(whole(key, batch))
  shapes = shape_check(Experiment(begin, loss_fn, batches), config, mesh)
  lower = shapes['variables']['frozen']['lower']['up']['kernel']
  assert lower.shape[0] == config.growth.layers - 1


# --- homoglyphs -----------------------------------------------------------------------------------


def test_attacks_replace_letters_that_have_look_alikes(config):
  alike = {'a': 'а', 'o': 'оο'}
  attacked = homoglyphs.attack('a toad, o!' * 50, alike, 1.0, seed=0)
  assert len(attacked) == 500
  assert not {'a', 'o'} & set(attacked)
  assert {'а', 'о', 'ο'} <= set(attacked)
  some = homoglyphs.attack('a' * 4000, alike, 0.25, seed=1)
  assert some.count('а') / 4000 == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 4000))


@pytest.mark.parametrize('kind', ['bytes', 'restricted'])
def test_both_contexts_are_asked_for_the_same_clean_tokens(config, kind):
  tokenizer = text.open_text(config, kind).tokenizer
  clean = 'the other then, and\nthe end'
  attacked = homoglyphs.attack(clean, {'e': 'е', 't': 'т'}, 0.5, seed=2)
  assert attacked != clean
  one, other = homoglyphs.aligned(tokenizer, clean, attacked, 64)
  sought = [row['targets'][row['bytes'] > 0].tolist() for row in (one, other)]
  assert sought[0] == sought[1]
  assert one['bytes'].sum() == other['bytes'].sum() >= 0.5 * len(clean)
  read = tokenizer.encode(attacked.encode())
  assert other['inputs'][1 : len(read)].tolist() == read[:-1].tolist()
  # What stands before each target is the attacked text up to the same character.
  for place in np.flatnonzero(other['bytes']):
    before = tokenizer.decode(read[:place]).decode()
    target = tokenizer.decode([other['targets'][place]]).decode()
    assert clean[len(before) :].startswith(target)
    assert before == attacked[: len(before)]


def test_without_an_attack_all_tokens_count(config):
  tokenizer = text.open_text(config).tokenizer
  clean = 'nothing here was changed'
  one, other = homoglyphs.aligned(tokenizer, clean, clean, 64)
  assert all((one[field] == other[field]).all() for field in one)
  assert one['bytes'].sum() == len(clean)


def test_look_alikes_of_one_picture_cost_frozen_glyphs_nothing(config):
  opened = text.open_text(config)
  rows = models.glyph(opened.glyphs, config.loss.dim)
  a, cyrillic = (int(opened.tokenizer.encode(c.encode())[0]) for c in 'aа')
  assert a != cyrillic
  assert (rows[a] == rows[cyrillic]).all()


# --- unseen scripts -------------------------------------------------------------------------------


def test_letters_to_be_tested_are_in_no_training_line(config):
  seen, groups = unseen_script.split(config)
  for group, members in groups.items():
    assert members, group
    if 'unseen' in group:
      assert not set(seen) & set(members)
  assert unseen_script.line('Ё') == 'Ё capital letter io\n'.encode()


def test_only_names_are_scored(config):
  seen, _ = unseen_script.split(config)
  tokenizer = tokenizers.Restricted(tokenizers.Unicode(), [ord(letter) for letter in seen])
  batch = unseen_script.names(tokenizer, seen[:5], 80)
  for i, letter in enumerate(seen[:5]):
    scored = batch['targets'][i][batch['bytes'][i] > 0]
    assert letter.encode() + tokenizer.decode(scored) == unseen_script.line(letter)
    assert batch['inputs'][i, 1] == tokenizer.encode(letter.encode())[0]
  drawn = iter(unseen_script.batches(batch, 3, seed=0))
  first, second = next(drawn), next(drawn)
  assert first['inputs'].shape == (3, 80)
  assert (first['inputs'] != second['inputs']).any()


def test_text_that_is_not_there_is_said_to_be_not_measured(config):
  config = visual_unicode.get_config(SCALE)
  config.tokenizer.kind = 'unicode'
  config.unseen_script.texts = (('russian', '/nowhere/russian.txt'),)
  rows = unseen_script.texts(config, types.SimpleNamespace())
  assert [row.measured for row in rows] == [None] * len(config.unseen_script.arms)
  assert all('not measured: no file matches' in row.note for row in rows)


def test_declarations_in_other_scripts_are_read_with_their_glyphs(config):
  if not UDHR.exists():
    pytest.skip(f'{UDHR} is not there: no text in other scripts to read')
  opened = text.open_text(config, 'unicode')._replace(source=str(UDHR / '*.txt'))
  [batch] = text.held_out(opened, config.loss, 'test', 1)
  ids = np.unique(batch['inputs'][batch['segments'] > 0])
  assert (ids[ids < opened.tokenizer.vocab_size] > 0x7F).any()
  assert batch['bytes'].sum() > 0


# --- neighbours -----------------------------------------------------------------------------------


def test_neighbours_are_judged_by_form_and_class():
  written = ['a', 'A', 'b', '1', '2']
  vectors = unit(np.array([[1, 0.1], [1, 0], [0.8, 0.6], [0, 1], [-0.1, 1]]))
  alike = np.full((5, 5), 0.5)
  alike[0, 1] = alike[1, 0] = 1.0
  found = neighbours.judge(vectors, alike, written)
  # a-A, A-a, b-a, 1-2, 2-1
  assert found['case_pair'] == 1
  assert found['same_class'] == pytest.approx(3 / 5)
  assert found['alike'] == pytest.approx((1 + 1 + 3 * 0.5) / 5)
  chance = neighbours._chance(alike, written)
  assert chance['case_pair'] == pytest.approx(1 / 4)
  assert chance['same_class'] == pytest.approx(4 / 20)


def test_hidden_states_are_means_over_occurrences():
  batch = {
    'inputs': np.array([[9, 3, 4, 3]]),
    'segments': np.array([[1, 1, 1, 0]]),
  }
  vectors = np.array([[[9.0, 9], [1, 2], [5, 6], [100, 100]]])
  means = neighbours.hidden(lambda batch, draw: (vectors, None), [batch], np.array([3, 4]))
  np.testing.assert_allclose(means, [[-2, -2], [2, 2]])
  assert neighbours.frequent([batch], 9, 5).tolist() == [3, 4]


# --- published numbers ----------------------------------------------------------------------------


def test_published_numbers_are_those_of_the_notes():
  entries = published.load('visual_unicode')['entries']
  assert len({(e['table'], e['row'], e['column']) for e in entries}) == len(entries)
  assert all(entry['source'] and entry['where'] == {'scale': 'paper'} for entry in entries)
  if not NOTES.exists():
    pytest.skip(f'{NOTES} is not there: its numbers cannot be compared')
  rows = json.loads(re.search(r'```json\n(.*?)\n```', NOTES.read_text(), re.DOTALL).group(1))
  factor = lambda row: {'%': 0.01, 'billion': 1e9}.get(row['unit'], 1)
  expected = sorted(row['value'] * factor(row) for row in rows)
  assert sorted(entry['value'] for entry in entries) == pytest.approx(expected)


def test_published_numbers_stand_apart_at_other_scales():
  row = Row('reasoning', 'model=best_bvv_ru,benchmark=mmlu,protocol=sampled_1', 'accuracy', 0.25)
  [beside] = published.attach([row], 'visual_unicode', {'scale': 'paper'})
  assert beside.published == pytest.approx(0.2229)
  [apart] = published.attach([row], 'visual_unicode', {'scale': 'cpu'})
  assert apart.published is None
