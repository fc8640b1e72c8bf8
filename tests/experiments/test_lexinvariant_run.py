# SPDX-License-Identifier: Apache-2.0
"""The lexinvariant recipe from the command line, at smoke scale."""

import dataclasses
import functools
import json
import math
import pathlib

import jax
import pytest

from configs import common, lexinvariant
from experiments.lexinvariant import decoders, markov
from experiments.lexinvariant.recipe import RECIPE
from lib.errors import InputError
from lib.parallel import sharding
from lib.report.results import Rows, from_json
from lib.tasks.markov import renaming
from lib.tasks.markov.chains import MarkovDocuments
from tests.helpers import addresses, recipes
from tests.helpers import shapes as shape_of

ROOT = pathlib.Path(__file__).parents[2]


run = functools.partial(recipes.run, 'lexinvariant')


@pytest.fixture(scope='module')
def smoke(tmp_path_factory):
  """All rows of a run at smoke scale, by table, row and column."""
  folder = tmp_path_factory.mktemp('lexinvariant')
  done = run(folder)
  assert done.returncode == 0, done.stderr
  rows = json.loads((folder / 'results.json').read_text())['rows']
  return {(row['table'], row['row'], row['column']): row for row in rows}


def test_rules_and_published_numbers_address_rows(smoke):
  assert addresses.faults('lexinvariant', from_json([*smoke.values()])) == []


def test_every_table_has_rows(smoke):
  tables = {key[0] for key, row in smoke.items() if row['measured'] is not None}
  assert tables == {*lexinvariant.TABLES, 'in_context_audit', 'data'}
  assert all(row['measured'] is not None or row['note'] for row in smoke.values())


def test_theory_keeps_its_bounds(smoke):
  for d in (4, 5):
    value = lambda column, d=d: smoke['theory', f'd={d}', column]['measured']
    assert value('log_d_factorial_nats') == pytest.approx(math.lgamma(d + 1))
    assert value('max_prefix_regret_nats') <= math.lgamma(d + 1) + 1e-9
    for length in (16, 64):
      assert value(f'average_l1_at_{length}') < value(f'bound_l1_at_{length}')


def test_markov_predictors_are_in_order_and_no_label_leaks(smoke):
  regret = lambda predictor: smoke['markov', f'predictor={predictor}', 'regret_nats']['measured']
  assert regret('true_chain') == 0
  assert 0 < regret('exact_bayes') <= math.lgamma(5)
  assert regret('exact_bayes') < regret('counting_bigram') < regret('counting_unigram')
  for seed in (0, 1):
    row = f'predictor=lexinvariant,seed={seed}'
    assert smoke['markov', row, 'lowest_bin_z']['measured'] > -4
    leak = smoke['markov', row, 'label_leak_nats']
    assert (leak['n'], leak['over']) == ('128', 'sequences')
    assert abs(leak['measured']) < 4 * leak['sem']
    of_chain = [smoke['markov', f'predictor={p},seed={seed}', 'regret_nats']['measured']
                for p in ('exact_bayes', 'counting_bigram')]  # fmt: skip
    assert 0 < of_chain[0] < of_chain[1]
  entropies = {smoke['markov', f'predictor=true_chain,seed={seed}', 'late_perplexity']['measured']
               for seed in (0, 1)}  # fmt: skip
  assert len(entropies) == 2  # two chains
  assert smoke['markov', 'predictor=lexinvariant', 'regret_nats']['over'] == 'chains'


def test_errors_are_over_documents_seeds_and_examples(smoke):
  context = smoke['context', 'data=prose,vocabulary=letters', 'gap_shrinks_by']
  assert context['over'] == 'seeds×documents'
  seeds, documents = context['n'].split('×')
  assert (seeds, int(documents) > 40) == ('1', True)  # 64 stretches
  assert context['df'] is None  # one seed decides nothing
  solver = 'data=prose,vocabulary=letters,solver={}'
  assert smoke['cipher', solver.format('hill_climbing'), 'precision_at_last_window']['df'] == 3
  assert smoke['cipher', solver.format('majority'), 'precision_gain']['n'] == '1×4'
  for place in (
    ('cipher', solver.format('majority'), 'precision_above_2x_untrained_majority'),
    ('cipher', solver.format('hill_climbing'), 'precision_above_1.5x_majority'),
  ):
    assert smoke[place]['n'] == '1×4'
  both = 'data=prose,vocabulary=letters,symbols=uniform,task=lookup,embedding={}'
  more, less = (
    smoke['in_context', both.format(kind), 'accuracy']['measured']
    for kind in ('lexinvariant', 'learned')
  )
  above = smoke['in_context', both.format('lexinvariant'), 'accuracy_above_learned']
  assert above['measured'] == pytest.approx(more - less)
  folded = 'source=stdlib/prose folded into letters,split=test'
  assert smoke['data', folded, 'overlap']['measured'] <= 0.005
  accuracy = smoke['regularizer', 'embedding=lexinvariant', 'lookup_accuracy_held_out']
  assert accuracy['over'] == 'seeds×examples'
  assert accuracy['sem'] > 0


def test_rows_start_at_the_length_of_random_ones_and_every_arm_answers(smoke):
  for arm in ('permuted,p=0.0,per=type', 'permuted,p=0.2,per=type', 'mixed,p=0.2'):
    norm = smoke['regularizer', f'embedding={arm},seed=0', 'row_norm_at_step_0']['measured']
    assert norm == pytest.approx(1, abs=0.2)
  for (_, _, column), row in smoke.items():
    if 'accuracy' in column:  # differences of accuracies may be negative
      lowest = -1 if 'above_learned' in column or 'above_permuted' in column else 0
      assert lowest <= row['measured'] <= 1
  arms = {
    row
    for (table, row, _), one in smoke.items()
    if table == 'regularizer' and 'seed=' not in row and one['measured'] is not None
  }
  assert len(arms) == 4


def test_a_predictor_that_sees_names_is_found_out():
  config = lexinvariant.get_config('smoke')
  source = markov.make_source(config, 0)
  sequences = MarkovDocuments(source, 16, 200, 0).symbols()
  bayes = renaming.exact_bayes(source, sequences).nats
  informed = lambda ids, draw: renaming.informed(source, ids).nats
  counting = lambda ids, draw: renaming.counting_nats(ids, 4, 1)
  rows = Rows('markov')
  markov.add_lowest_bin(rows, {}, informed(sequences, 0), bayes)
  markov.add_leak(rows, {}, informed, sequences, 4)
  leak = {row.column: row for row in rows}
  assert leak['lowest_bin_z'].measured < -4
  assert leak['label_leak_nats'].estimate.p_value() < 1e-6
  assert leak['label_leak_nats_8_16'].estimate.p_value() < 1e-6
  rows = Rows('markov')
  markov.add_leak(rows, {}, counting, sequences, 4)
  honest = {row.column: row for row in rows}
  assert honest['label_leak_nats'].measured == pytest.approx(0, abs=1e-9)


def test_evaluation_drops_the_training_aids_and_keeps_the_model():
  table = {'table': 1, 'bos': 2}
  kept = decoders.bare({'params': {'model': {'embedding': table}, 'probes': 3}})
  assert kept == {'params': {'embedding': table}}
  random = {'bos': 2, 'annealed_table': 1}
  kept = decoders.bare({'params': {'model': {'embedding': random}}})
  assert kept == {'params': {'embedding': {'bos': 2}}}


def test_bad_input_gets_one_sentence_and_exit_code_2(tmp_path):
  done = run(tmp_path / 'new', '--config.markov.row_dim=3')
  assert done.returncode == 2
  assert '4 symbols cannot have orthonormal rows of width 3' in done.stderr
  assert len(done.stderr.strip().splitlines()) == 1
  assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('markov.alphabet', 9, 'markov.alphabet 9 is too large for exact Bayes'),
    ('markov.anneal', (0.5, 0.5), 'markov.anneal must be two rising fractions'),
    ('theory.alphabets', (9,), 'theory.alphabets must be at most 8 symbols'),
    ('in_context.pairs', 27, 'a symbol for each key'),
  ],
)
def test_invalid_configs_are_refused_with_a_sentence(field, value, message):
  config = lexinvariant.get_config('smoke')
  config.update_from_flattened_dict({field: value})
  with pytest.raises(InputError, match=message):
    RECIPE.check(config)


def test_the_config_of_endless_text_is_accepted_as_it_is():
  RECIPE.check(lexinvariant.get_config('gpu'))


def test_the_paper_config_asks_for_its_sets_alone():
  config = lexinvariant.get_config('paper')
  with pytest.raises(InputError, match=r"no prepared TFDS set 'pile' .*; prepare it once"):
    RECIPE.check(config)
  config.text.corpora = lexinvariant.get_config('gpu').text.corpora
  RECIPE.check(config)


@pytest.mark.parametrize('scale', common.SCALES)
def test_every_scale_builds_and_steps(scale):
  config = lexinvariant.get_config(scale)
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 1}, jax.devices()[:4])
  options = config.markov
  dtype = jax.numpy.dtype(config.dtype)
  experiment = decoders.make_experiment(options, 'lexinvariant', options.alphabet, dtype)
  batches = markov.batches_of(config, markov.make_source(config, 0), 0)
  shape_of.check(dataclasses.replace(experiment, batches=batches), mesh)
