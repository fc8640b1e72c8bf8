# SPDX-License-Identifier: Apache-2.0
"""The markov recipe from the command line: results, errors, resumption, what is imported."""

import functools
import json
import math
import os
import pathlib
import random
import signal
import subprocess
import time

import jax
import pytest
from matplotlib import figure

from configs import markov
from experiments.markov import dictionaries, transformer
from experiments.markov.recipe import RECIPE
from experiments.recipe import Run
from lib import language_model
from lib.errors import InputError
from lib.parallel import sharding
from lib.report.results import Row, from_json, select
from tests.helpers import addresses, recipes

ROOT = pathlib.Path(__file__).parents[2]
TABLES = 'ngram', 'blocks', 'token_ngram', 'bound', 'transformer', 'generalization', 'real_text'


command = functools.partial(recipes.command, 'markov')
run = functools.partial(recipes.run, 'markov')


@pytest.fixture(scope='module')
def smoke(tmp_path_factory):
  """A whole run at smoke scale, where to import TensorFlow is to fail."""
  folder, path = tmp_path_factory.mktemp('smoke'), tmp_path_factory.mktemp('path')
  # First on the path: reading the corpus and training would both fall over it. That preparing it
  # would too, tests/data/test_sources.py says.
  (path / 'tensorflow').mkdir()
  (path / 'tensorflow/__init__.py').write_text('raise SystemExit("tensorflow was imported")')
  done = subprocess.run(
    command(folder), cwd=ROOT, env=os.environ | {'PYTHONPATH': str(path)}, capture_output=True,
    text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  return folder, done


def rows(folder, table):
  results = json.loads((folder / 'results.json').read_text())
  return {(r['row'], r['column']): r for r in results['rows'] if r['table'] == table}


def test_results_hold_every_table_in_the_common_format(smoke):
  folder, _ = smoke
  results = json.loads((folder / 'results.json').read_text())
  assert set(results) == {
    'experiment', 'commit', 'date', 'host', 'command', 'config', 'overrides', 'versions',
    'devices', 'seconds', 'seconds_by_table', 'made', 'pictures', 'rows',
  }  # fmt: skip
  assert results['experiment'] == 'markov'
  assert tuple(dict.fromkeys(row['table'] for row in results['rows'])) == (*TABLES, 'data')
  for row in results['rows']:
    assert list(row) == [
      'table', 'row', 'column', 'measured', 'sem', 'n', 'over', 'df', 'published', 'evidence',
      'unit', 'note', 'lossy',
    ]  # fmt: skip
    assert row['measured'] is not None or row['note']
    assert row['published'] is not None or 'the paper gives no such number' in row['note']


def test_the_summary_of_the_text_is_printed_once_and_is_in_the_results(smoke):
  folder, done = smoke
  [line] = [line for line in done.stderr.splitlines() if line.startswith('stdlib/prose: ')]
  assert ' documents, ' in line
  assert ' kept)' in line
  found = rows(folder, 'data')
  assert {row for row, _ in found} == {
    f'source=stdlib/prose,split={split}' for split in ('validation', 'test')
  }
  for (_, column), row in found.items():
    value = row['measured']
    assert {'overlap': value <= 0.005, 'share_kept': value > 0.8}.get(column, value > 10)
  assert '### data' in (folder / 'report.md').read_text()


def test_rules_and_published_numbers_address_rows(smoke):
  found = from_json(json.loads((smoke[0] / 'results.json').read_text())['rows'])
  assert addresses.faults('markov', found) == []
  without = [row for row in found if row.table != 'generalization']
  assert 'no such row: generalization / k=*,dictionary=memorised,text=own / tokens' in (
    addresses.faults('markov', without)
  )


def test_report_plots_metrics_and_checkpoints_are_there(smoke):
  folder, done = smoke
  report = (folder / 'report.md').read_text()
  assert all(f'### {table}' in report for table in TABLES)
  for picture in ('token_ngram', 'bound', 'transformer', 'gain', 'real_text'):
    assert (folder / f'{picture}.png').read_bytes().startswith(b'\x89PNG')
    assert f']({picture}.png)' in report
  assert (folder / 'metrics.jsonl').exists()
  assert (folder / 'checkpoints').is_dir()
  assert {path.stem for path in (folder / 'tables').glob('*.csv')} == {*TABLES, 'data'}
  assert not list(folder.rglob('*.partial'))
  assert 'report.md' in done.stdout


def test_a_picture_shows_the_columns_that_its_legend_names():
  columns = {'lzw': 1, 'toy': 2, 'bound': 3, 'entropy_rate': 4}
  made = [
    Row('bound', {'p': 0.8, 'd': d}, f'{column}_nats_per_char', number / d)
    for d in (16, 4)
    for column, number in columns.items()
  ]
  [panel] = dictionaries.BOUND.pictures(made, None, None)['bound.png'].panels
  axis = figure.Figure().subplots()
  panel(axis)
  handles, labels = axis.get_legend_handles_labels()
  drawn = [getattr(handle, 'lines', [handle])[0] for handle in handles]  # of bars with errors
  lines = [(label, line.get_xydata().tolist()) for label, line in zip(labels, drawn, strict=True)]
  lines.sort(key=lambda line: ['LZW', 'fix', 'bou', 'ent'].index(line[0][:3]))
  assert [points for _, points in lines[:3]] == [[[4, n / 4], [16, n / 16]] for n in (1, 2, 3)]
  assert [label.split()[0] for label, _ in lines] == ['LZW,', 'fixed', 'bound', 'entropy']
  assert [y for _, y in lines[3][1]] == [4 / 16, 4 / 16]


@pytest.mark.parametrize('table', ['ngram', 'blocks'])
def test_sampled_losses_meet_their_closed_forms(smoke, table):
  folder, _ = smoke
  found = rows(folder, table)
  losses = {row: value for (row, column), value in found.items() if column == 'nats_per_char'}
  assert len(losses) >= 6
  for row, value in losses.items():
    closed = found[row, 'closed_form_nats_per_char']['measured']
    # 100,000 characters: the standard deviation of −ln P is (ln 4)·0.4 = 0.55 a character, so
    # 0.0018 in the mean; four of those.
    assert value['measured'] == pytest.approx(closed, abs=0.007)
    assert value['published'] == pytest.approx(closed, abs=1e-5)


def test_exact_unigram_losses_agree_with_sampled_ones(smoke):
  folder, _ = smoke
  errors = [
    value['measured']
    for (_, column), value in rows(folder, 'token_ngram').items()
    if column == 'unigram_above_exact_nats_per_char'
  ]
  assert len(errors) > 10
  # Two samples of 100,000 characters with deviation 0.55 to 0.8 each: 0.0018 at most; five of
  # those, as token costs are correlated.
  assert max(map(abs, errors)) < 0.009


def test_errors_name_their_units(smoke):
  folder, _ = smoke
  over = {'ngram': ('texts', '20'), 'blocks': ('texts', '20'), 'token_ngram': ('seeds', '2'),
          'bound': ('seeds', '2'), 'transformer': ('seeds', '2')}  # fmt: skip
  for row in json.loads((folder / 'results.json').read_text())['rows']:
    if row['sem'] is not None:
      assert row['df'] is not None
      assert (row['over'], row['n']) == over.get(row['table'], (row['over'], row['n']))
      assert row['over'] in ('texts', 'seeds', 'documents')


def test_differences_are_those_of_the_rows_they_compare(smoke):
  folder, _ = smoke
  tokens, text = rows(folder, 'token_ngram'), rows(folder, 'real_text')
  value = lambda table, *cell: table[cell]['measured']
  large, small = (f'k=2,tokenizer=bpe,encoder=merges,d={d}' for d in (64, 10))
  column = 'unigram_nats_per_char'
  assert value(tokens, large, 'unigram_above_smaller_nats_per_char') == pytest.approx(
    value(tokens, large, column) - value(tokens, small, column)
  )
  large, small, byte = 'tokenizer=bpe,d=1024', 'tokenizer=bpe,d=512', 'tokenizer=bytes,order=1'
  for other, column in (
    (small, 'above_smaller_bits_per_byte'),
    (byte, 'above_byte_bigram_bits_per_byte'),
  ):
    gap = text[large, column]
    expected = value(text, large, 'bits_per_byte') - value(text, other, 'bits_per_byte')
    assert gap['measured'] == pytest.approx(expected)
    # Paired by document: smaller than the errors of the two sides together.
    apart = math.hypot(text[large, 'bits_per_byte']['sem'], text[other, 'bits_per_byte']['sem'])
    assert 0 < gap['sem'] < apart
  arms = rows(folder, 'transformer')
  row = 'k=2,tokenizer={},p=0.8,tied=True'
  losses = [value(arms, row.format(kind), 'nats_per_char_at_0') for kind in ('characters', 'bpe')]
  gap = value(arms, row.format('characters'), 'above_bpe_nats_per_char_at_0')
  assert gap == pytest.approx(losses[0] - losses[1])


def test_memorising_dictionary_has_one_token_at_home_and_ln_2_abroad(smoke):
  folder, _ = smoke
  table = rows(folder, 'generalization')
  assert table['k=2,dictionary=memorised,text=own', 'tokens']['measured'] == 1
  fresh = table['k=2,dictionary=memorised,text=fresh', 'nats_per_char']['measured']
  assert fresh == pytest.approx(0.693147, abs=1e-3)


def test_transformer_arms_say_whether_they_reached_the_entropy_rate(smoke):
  folder, _ = smoke
  table = rows(folder, 'transformer')
  reached = table['k=2,tokenizer=characters,p=0.8,tied=True', 'steps_to_within_0.02']
  assert reached['measured'] is None
  assert 'has not come within 0.02 of H∞ by step 6' in reached['note']


@pytest.mark.parametrize(
  ('field', 'value', 'config', 'message'),
  [
    ('token_ngram.sizes', (1,), 'smoke,tables=token_ngram', 'dictionary of 1 tokens'),
    ('real_text.sizes', (100,), 'smoke', 'dictionary of 100 tokens'),
    ('real_text.sizes', (), 'smoke', 'dictionary of 0 tokens'),
    ('transformer.vocab_size', 1, 'smoke', 'dictionary of 1 tokens'),
    ('data.source', '/nowhere/*.txt', 'smoke', r'/nowhere/\*.txt'),
    ('transformer.dim', 9, 'smoke', 'not a multiple of 2 heads'),
    ('transformer.seeds', 0, 'smoke', 'seeds must be 1 or more'),
    ('transformer.heads', 0, 'smoke', 'heads must be 1 or more'),
    ('bound.probabilities', (0.8, 1.0), 'smoke', 'bound.probabilities must be .* below 1'),
    ('seed', -5, 'smoke', 'seed must be 0 or more'),
    ('source.p', 1.5, 'smoke,tables=ngram', 'source.p must be below 1'),
    ('source.q', 0.0, 'smoke,tables=ngram', 'source.q must be above 0'),
    ('data.source', '/nowhere/*.txt', 'smoke,tables=real_text', r'/nowhere/\*.txt'),
  ],
)
def test_bad_fields_are_named_before_anything_is_written(field, value, config, message):
  settings = markov.get_config(config)
  settings.update_from_flattened_dict({field: value})
  with pytest.raises(InputError, match=message):
    RECIPE.check(settings)


@pytest.mark.parametrize(
  ('flags', 'config', 'message'),
  [
    (['--config.token_ngram.sizes=(1,)'], 'smoke,tables=token_ngram', 'dictionary of 1 tokens'),
    (["--config.tables=('nope',)"], 'smoke', "table 'nope' is not one of ngram"),
    ([], 'giant', "scale 'giant' is not one of"),
    (['--config.seedz=3'], 'smoke', 'Did you mean "seed"'),
    (['--config.seed.x=3'], 'smoke', 'the config has no field seed.x'),
    (['--config.mesh.data=3'], 'smoke,tables=ngram', 'mesh'),
    (['extra'], 'smoke', "argument 'extra' is not a flag"),
  ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(tmp_path, flags, config, message):
  done = run(tmp_path / 'work', *flags, config=config)
  assert done.returncode == 2, done.stderr
  assert message in done.stderr
  assert 'Traceback' not in done.stderr
  assert not list(tmp_path.iterdir())


def test_another_config_in_the_same_workdir_is_refused(smoke):
  folder, _ = smoke
  done = run(folder, '--config.seed=7')
  assert done.returncode == 2
  assert 'contains another run: seed is 0 there and 7 here' in done.stderr


def test_a_finished_run_is_not_run_again(smoke):
  folder, _ = smoke
  before = json.loads((folder / 'results.json').read_text())
  done = run(folder, config='smoke,tables=ngram')  # the others stay in the report
  after = json.loads((folder / 'results.json').read_text())
  assert done.returncode == 0
  assert after['rows'] == before['rows']
  assert after['seconds'] == before['seconds']  # of measuring, whenever that was
  assert after['seconds_by_table'].keys() == after['made'].keys() == set(TABLES)
  assert after['made'] == before['made']  # the commit and day of each table, not of this call
  assert after['command'].startswith('python -m experiments.markov ')
  assert all(after[what] for what in ('commit', 'host', 'date'))
  assert done.stderr.count('kept from an earlier call') == len(TABLES)


def kill_after(workdir, marker, sent, *flags):
  """Starts the smoke run and sends a signal some time after `marker` is in its metrics."""
  job = subprocess.Popen(
    command(workdir, *flags, config='smoke,tables=transformer'), cwd=ROOT,
    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  metrics = workdir / 'metrics.jsonl'
  deadline = time.monotonic() + 120
  while time.monotonic() < deadline and job.poll() is None:
    if metrics.exists() and marker in metrics.read_text():
      time.sleep(random.uniform(0, 1.5))
      os.kill(job.pid, sent)
      break
    time.sleep(0.02)
  _, errors = job.communicate(timeout=120)
  return job.returncode, errors


def test_killed_at_a_random_moment_ends_with_the_same_numbers(smoke, tmp_path):
  folder, _ = smoke
  flags = ['--config.orders=(1,)']  # half of the arms
  code, _ = kill_after(tmp_path, 'k=1,tokenizer=characters', signal.SIGKILL, *flags)
  assert code in (-signal.SIGKILL, 0)
  done = run(tmp_path, *flags, config='smoke,tables=transformer')
  assert done.returncode == 0, done.stderr
  timeless = lambda table: {
    key: value['measured']
    for key, value in table.items()
    if key[0].startswith('k=1,') and 'seconds' not in key[1]
  }
  assert len(timeless(rows(folder, 'transformer'))) > 20
  assert timeless(rows(tmp_path, 'transformer')) == timeless(rows(folder, 'transformer'))
  [made] = json.loads((tmp_path / 'results.json').read_text())['made'].values()
  assert ('resumed' in made) == (code != 0)


def test_sigterm_ends_cleanly(tmp_path):
  code, errors = kill_after(tmp_path, 'k=1,tokenizer=characters', signal.SIGTERM)  # of four arms
  assert code == 143
  assert 'stopped by SIGTERM' in errors
  assert 'Traceback' not in errors


@pytest.mark.parametrize('kind', ['random', 'interpolated'])
def test_other_sources_run_every_table_that_has_a_sense(tmp_path, kind):
  flags = [f'--config.source.kind={kind}', '--config.orders=(1,)']
  letters, model = (3, '+transformer') if kind == 'random' else (2, '')
  done = run(
    tmp_path, *flags, f'--config.source.alphabet_size={letters}',
    config='smoke,tables=ngram+blocks+token_ngram+bound+generalization' + model,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  table = rows(tmp_path, 'ngram')
  for m in (0, 1, 2):
    closed = table[f'k=1,m={m}', 'closed_form_nats_per_char']
    measured = table[f'k=1,m={m}', 'nats_per_char']
    assert measured['published'] is None
    assert measured['measured'] == pytest.approx(closed['measured'], abs=0.01)


def test_bpe_reaches_the_entropy_rate_within_240_steps(tmp_path):
  # The claim at cpu scale, one seed, for k = 2; the README's run has k = 1 and 3 and three seeds.
  done = run(
    tmp_path, '--config.orders=(2,)', "--config.transformer.tokenizers=('bpe',)",
    '--config.transformer.steps=240', '--config.transformer.seeds=1',
    '--config.transformer.rates=(6e-3,)', '--config.transformer.ngram_chars=100000',
    '--config.transformer.test_documents=64', config='cpu,tables=transformer',
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  table = rows(tmp_path, 'transformer')
  reached = table['k=2,tokenizer=bpe,p=0.8,tied=True', 'steps_to_within_0.02']
  assert reached['measured'] is not None
  assert reached['measured'] <= 240


def test_the_gpu_config_is_accepted_as_it_is():
  RECIPE.check(markov.get_config('gpu'))


def test_an_arm_has_the_rate_of_the_lowest_validation_loss(tmp_path):
  config = markov.get_config('smoke')
  config.orders = (1,)
  config.transformer.update(tokenizers=('bpe',), rates=(1e-7, 1e-2), rate_share=1.0, steps=8)
  place = Run(tmp_path, sharding.make_mesh({'data': -1}, jax.devices()[:1]))
  rows = transformer.measure(config, place)
  [rate] = select(rows, 'transformer', 'learning_rate', tokenizer='bpe')
  assert rate.measured == 1e-2


def test_each_seed_keeps_its_own_tokenizer(smoke):
  folder, _ = smoke
  config = markov.get_config('smoke')
  arm = transformer.arms(config)[3]
  assert (arm['k'], arm['tokenizer']) == (2, 'bpe')
  task = transformer.Task(config, arm)
  losses = rows(folder, 'transformer')
  for seed, tokenizer in task.tokenizers.items():
    kept = language_model.load(folder / 'models' / f'{transformer.run_name(arm)},seed={seed}')
    assert kept.tokenizer.fingerprint == tokenizer.fingerprint
    row = f'k=2,tokenizer=bpe,p=0.8,tied=True,seed={seed}'
    assert task.score(kept, seed)[0] == pytest.approx(losses[row, 'nats_per_char']['measured'])
