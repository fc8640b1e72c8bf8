# SPDX-License-Identifier: Apache-2.0
"""The recipe of frozen visual Unicode from the command line, at smoke scale."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest

from configs import visual_unicode
from experiments.recipe import Run
from experiments.visual_unicode import coverage, growth, loss, reasoning, text
from lib.glyphs import row_kinds
from lib.parallel import sharding
from lib.report.results import from_json
from lib.tasks import multiple_choice
from tests.helpers import addresses, recipes

ROOT = pathlib.Path(__file__).parents[2]
TABLES = visual_unicode.TABLES
OWN = 'Is it 1?,yes,no,perhaps,never,A\nIs it 2?,no,yes,perhaps,never,B\n'
SCALE = f'smoke,tables={"+".join(TABLES)}'


run = functools.partial(recipes.run, 'visual_unicode', config=SCALE)


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


def test_every_table_has_rows_and_pictures(smoke):
  folder, rows = smoke
  tables = {key[0] for key, row in rows.items() if row['measured'] is not None}
  assert tables == {*TABLES, 'data'}
  assert all(row['measured'] is not None or 'not measured' in row['note'] for row in rows.values())
  report = (folder / 'report.md').read_text()
  for picture in ('glyphs', *(table for table in TABLES if table != 'coverage')):
    assert (folder / f'{picture}.png').read_bytes().startswith(b'\x89PNG')
    assert f']({picture}.png)' in report


def test_rules_and_published_numbers_address_rows(smoke):
  rows = from_json(smoke[1].values())
  fonts = 'DejaVuSans.ttf', 'unifont.hex'
  assert addresses.faults('visual_unicode', rows, fonts) == []


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
  row = 'arm=glyph,against=trainable_0.02'
  found = smoke[1]['loss', row, 'difference_bits_per_byte']
  difference = np.subtract(scores['glyph'], scores['trainable_0.02'])
  assert found['measured'] == pytest.approx(difference.mean())
  assert found['over'] == 'seeds×documents'
  assert found['n'].startswith('2×')
  assert found['df'] > 1
  assert measured(smoke, 'loss', 'arm=glyph', 'learning_rate') == 3e-3


def test_every_arm_is_compared_with_the_unigram_of_its_tokens(smoke, config):
  unigram = measured(smoke, 'loss', 'text=test', 'unigram_bits_per_byte')
  assert 2 < unigram < 8
  for arm in config.loss.arms:
    less = measured(smoke, 'loss', f'arm={arm},against=unigram', 'difference_bits_per_byte')
    bits = measured(smoke, 'loss', f'arm={arm}', 'bits_per_byte')
    assert less == pytest.approx(bits - unigram)


def test_rows_with_a_spread_have_an_error_its_units_and_its_degrees_of_freedom(smoke):
  deterministic = ('coverage',)
  for (table, row, column), cell in smoke[1].items():
    if cell['sem'] is not None:
      assert cell['n'], (table, row, column)
      assert cell['over'], (table, row, column)
      assert cell['df'] is not None, (table, row, column)
      assert table not in deterministic
  for table, row, column in (
    ('homoglyphs', 'list=confusables,tokens=restricted,rate=0.3,arm=trainable_0.02,against=glyph',
     'difference_extra_bits_per_byte'),
    ('unseen_script', 'script=georgian,letters=unseen,arm=glyph,against=trainable_0.02',
     'difference_bits_per_byte'),
    ('neighbours', 'space=hidden,arm=glyph,against=noise', 'difference_same_word_class'),
    ('growth', 'model=grown,layers=2,against=one_layer_fewer', 'difference_bits_per_byte'),
  ):  # fmt: skip
    cell = smoke[1][table, row, column]
    assert cell['sem'] is not None
    assert cell['n'].startswith('2×')


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
  identity = json.loads((folder / 'identity.json').read_text())
  here = Run(folder, sharding.make_mesh(config.mesh, ONE), identity=identity)
  rows = row_kinds.glyph(text.open_text(config).glyphs, config.loss.dim)
  for one in loss.train(config, here, 'glyph'):  # a run that is done is read
    assert set(one.variables) == {'params', 'frozen'}
    assert 'table' not in one.variables['params']['embedding']
    held = np.asarray(one.variables['frozen']['embedding']['table'])
    assert held.tobytes() == rows.tobytes()


ONE = jax.devices()[:1]


def test_the_command_line_refuses_a_font_before_it_writes(tmp_path):
  (tmp_path / 'torn.ttf').write_bytes(b'\0\1\0\0 no font')
  done = run(tmp_path / 'new', f'--config.glyphs.font={tmp_path}/torn.ttf')
  assert done.returncode == 2
  assert 'torn.ttf is not a font' in done.stderr
  assert len(done.stderr.strip().splitlines()) == 1
  assert not (tmp_path / 'new').exists()


# Reasoning.


def answered(smoke, row, protocol, column):
  return measured(smoke, 'reasoning', f'{row},protocol={protocol}', column)


@pytest.mark.parametrize('arm', ['glyph', 'trainable_0.02'])
@pytest.mark.parametrize('facts', ['asked', 'told', 'unseen'])
def test_an_untrained_model_is_at_chance_by_likelihood_and_far_below_by_sampling(smoke, arm, facts):
  row = f'arm={arm},training=none,facts={facts},wording=test'
  assert abs(answered(smoke, row, 'log_likelihood', 'z_from_chance')) < 4
  assert answered(smoke, row, 'log_likelihood', 'chance') == 0.25
  accuracy, known = (
    answered(smoke, row, 'log_likelihood', column)
    for column in ('accuracy', 'accuracy_above_chance')
  )
  assert known == pytest.approx((accuracy - 0.25) / 0.75)
  for protocol in ('sampled_1', 'sampled_2'):
    letter = answered(smoke, row, protocol, 'p_valid_letter')
    assert answered(smoke, row, protocol, 'accuracy') < letter < 0.1
    assert answered(smoke, row, protocol, 'accuracy_given_letter') == pytest.approx(0.25, abs=0.05)


def test_every_case_has_every_protocol_and_nothing_leaks(smoke):
  rows = {row for table, row, _ in smoke[1] if table == 'reasoning'}
  cases = [f'facts={kind},wording={wording}' for kind, wording in reasoning.CASES]
  for arm in ('glyph', 'trainable_0.02'):
    for training in ('none', 'questions'):
      for protocol in multiple_choice.PROTOCOLS:
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


# Growth.


def test_ways_of_growing_cost_as_much_as_the_monolithic_model(smoke, config):
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
  for model, reference, row in (
    ('grown', 'monolithic', 'model=grown,against=monolithic'),
    ('experts', 'monolithic', 'model=experts,against=monolithic'),
    ('grown', 'grown,layers=1', 'model=grown,layers=2,against=one_layer_fewer'),
    ('experts', 'expert=1', 'model=experts,against=expert_1'),
  ):
    difference = np.subtract(bits(model), bits(reference)).mean()
    found = measured(smoke, 'growth', row, 'difference_bits_per_byte')
    assert found == pytest.approx(difference)
