# SPDX-License-Identifier: Apache-2.0
"""The equal_info recipe from the command line, at smoke scale."""

import dataclasses
import itertools
import json
import pathlib
import re

import jax
import numpy as np
import pytest

from configs import common, equal_info
from experiments import coders
from experiments.equal_info import m2, recipe
from lib import tokenizers
from lib.compression import byte_model
from lib.compression.byte_model import ByteModel
from lib.data import sources
from lib.errors import InputError
from lib.parallel import sharding
from lib.report import published, results
from lib.tokenizers.coding import slices
from lib.tokenizers.coding.stepping import Stepped
from tests.helpers import addresses, byte_models, recipes
from tests.helpers import shapes as shape_of

ROOT = pathlib.Path(__file__).parents[2]
TABLES = equal_info.TABLES
TEXT = byte_models.held_out()[:150]


def run(workdir, *flags, tables=TABLES):
  return recipes.run('equal_info', workdir, *flags, config=f'smoke,tables={"+".join(tables)}')


@pytest.fixture(scope='module')
def smoke(tmp_path_factory):
  """The folder of a run at smoke scale, with what it printed in `stdout`."""
  folder = tmp_path_factory.mktemp('equal_info')
  done = run(folder, '--config.prompt=The class', '--config.generate.bytes=40')
  assert done.returncode == 0, done.stderr
  (folder / 'stdout').write_text(done.stdout)
  return folder


@pytest.fixture(scope='module')
def rows(smoke):
  """Its rows by table, row and column."""
  found = json.loads((smoke / 'results.json').read_text())['rows']
  return {(row['table'], row['row'], row['column']): row for row in found}


def test_rules_and_published_numbers_address_rows(rows):
  assert addresses.faults('equal_info', results.from_json([*rows.values()])) == []


def test_every_table_has_rows_and_plots(smoke, rows):
  tables = {key[0] for key, row in rows.items() if row['measured'] is not None}
  assert tables == {*TABLES, 'data'}
  assert all(row['measured'] is not None or row['note'] for row in rows.values())
  for file in (
    'ratio.png', 'uniformity.png', 'attested.txt', 'm2.png', 'windows.png', 'decompress.png'
  ):  # fmt: skip
    assert (smoke / file).stat().st_size > 200


def test_ratios_and_bits_say_the_same(rows):
  config = equal_info.get_config('smoke')
  for [method, *_] in coders.widths(config.ratio.methods, config.ratio.token_bits):
    value = lambda column, method=method: rows['ratio', results.name(**method.where), column][
      'measured'
    ]
    assert value('bytes_per_token') > 0
    if method.token_bits:
      assert value('bits_per_byte') * value('bytes_per_token') == pytest.approx(method.token_bits)
  assert rows['ratio', 'method=bytes', 'bits_per_byte']['measured'] == 8


def test_lossless_tokenizers_restore_text_and_greedy_reports_its_share(rows):
  shares = {row: cell for (table, row, column), cell in rows.items()
            if (table, column) == ('ratio', 'documents_restored')}  # fmt: skip
  assert len(shares) == 14
  for row, cell in shares.items():
    windows = rows.get(('ratio', row, 'windows_restored'))
    if 'greedy' in row:
      assert 0 < windows['measured'] < 1
      assert cell['measured'] < 1  # a document of a lost window is lost
      assert cell['sem'] > 0
    else:
      assert cell['measured'] == 1, row
      assert windows is None


def test_ac_has_the_code_length_of_m1_and_its_excess_adds_up(rows):
  value = lambda column: rows['ratio', 'check=ac_is_ideal', column]['measured']
  parts = [value(f'excess_of_{part}') for part in ('frequencies', 'end_mark', 'rounding')]
  assert sum(parts) == pytest.approx(value('excess'))
  ideal = rows['ratio', 'method=m1', 'bits_per_byte']['measured']
  spent = rows['ratio', 'method=ac,v=256', 'bits_per_byte']['measured']
  assert spent / ideal - 1 == pytest.approx(value('excess'))
  # Documents of 64 bytes pay 14 bits for their end: far above the bar, which the row says.
  assert parts[1] == pytest.approx(14 / (64 * ideal))
  assert 0 <= parts[2] < 10 / (64 * ideal)
  assert value('holds') == 0
  held = rows['ratio', 'method=m1', 'bytes_per_token']['measured']
  assert held == pytest.approx(8 / ideal)  # by tokens of 8 bits


def test_forgetting_less_costs_no_bytes_beyond_the_error(rows):
  # M1 of 20 steps gains nothing from context yet, on 256 bytes: here the three are alike.
  cells = [rows['reset', f'reset={reset},v=256', 'bytes_per_token']
           for reset in ('every_window', 'every_other', 'never')]  # fmt: skip
  for before, after in itertools.pairwise(cells):
    assert after['measured'] > before['measured'] - 2 * max(before['sem'], after['sem'])


def test_ac_is_nearer_to_random_bits_than_gzip(rows):
  excess = {method: rows['uniformity', f'method={method},kind=tokens,n=4', 'excess_kl_bits']
            for method in ('gzip', 'greedy24', 'ac')}  # fmt: skip
  assert excess['ac']['measured'] < excess['gzip']['measured']
  for cell in excess.values():
    assert cell['sem'] > 0
    assert (cell['over'], cell['df']) == ('documents', int(cell['n']) - 1)
  for method, after in (('gzip', 'greedy24'), ('greedy24', 'greedy128'), ('greedy128', 'ac')):
    above = rows['uniformity', f'method={method},kind=tokens,n=4', f'excess_kl_bits_above_{after}']
    found = [rows['uniformity', f'method={one},kind=tokens,n=4', 'excess_kl_bits']['measured']
             for one in (method, after)]  # fmt: skip
    assert above['measured'] == pytest.approx(found[0] - found[1])


def test_a_changed_prefix_changes_more_of_ac_than_of_subwords(rows):
  share = {method: rows['stability', f'method={method}', 'changed_share']['measured']
           for method in ('sentencepiece', 'ac,v=256')}  # fmt: skip
  assert 0 < share['sentencepiece'] < share['ac,v=256']
  above = rows['stability', 'method=ac,v=256', 'changed_share_above_greedy12']
  greedy = rows['stability', 'method=greedy12,v=256', 'changed_share']['measured']
  assert above['measured'] == pytest.approx(share['ac,v=256'] - greedy)
  assert (above['n'], above['over'], above['df']) == ('2', 'documents', 1)
  texts = rows['stability', 'method=sentencepiece', 'texts_per_token']['measured']
  assert texts == 1  # an id of a dictionary stands for one text


def test_m2_is_scored_on_all_bytes_and_compared_with_unigrams(rows):
  config = equal_info.get_config('smoke')
  [size] = config.m2.models
  for method in m2.chosen(config.m2.methods, 'm2'):
    row = results.name(**m2.where_of(size, method))
    value = lambda column, row=row: rows['m2', row, column]['measured']
    bits = {'sentencepiece': 9, 'bpe_unsplit12': 12}.get(method.name, 8)
    assert value('uniform_bits_per_byte') == pytest.approx(bits / value('bytes_per_step'))
    gain = value('unigram_bits_per_byte') - value('bits_per_byte')
    assert value('bits_below_unigram') == pytest.approx(gain)
    cell = rows['m2', row, 'bits_per_byte']
    covered, documents = map(int, re.match(r'(\d+) held-out bytes of (\d+) documents',
                                           cell['note']).groups())  # fmt: skip
    assert 0.9 * config.m2.test_bytes < covered <= config.m2.test_bytes
    assert (cell['over'], cell['df']) == ('seeds×documents', None)  # one seed decides nothing
    assert cell['n'] == f'1×{documents}'
    assert documents == config.m2.test_bytes // config.m2.example_bytes  # one example of each
  ac = [cell for (table, row, column), cell in rows.items() if column == 'nats_below_ln_v']
  assert len(ac) == 1
  assert 'ln 256 = 5.5452' in ac[0]['note']


def test_windows_have_a_level_that_reads_no_context(rows):
  row = 'model=tiny,method=greedy24,v=256'
  value = lambda column: rows['m2', row, column]['measured']
  bags = [value(f'window_unigram_bits_per_byte{which}') for which in ('', '_whole_corpus')]
  assert max(bags) < value('unigram_bits_per_byte')  # a window's tokens say what follows in it
  gain = value('bits_below_window_unigram')
  assert gain == pytest.approx(min(bags) - value('bits_per_byte'))
  in_windows = rows['windows', 'b=24,mode=greedy,v=256', 'bits_below_window_unigram']['measured']
  assert in_windows == pytest.approx(gain)
  assert 0 < value('windows_restored') < 1
  assert ('m2', 'model=tiny,method=bytes', 'window_unigram_bits_per_byte') not in rows


def test_the_cost_of_end_marks_and_rounding_is_a_separate_row(rows):
  value = lambda column: rows['m2', 'model=tiny,method=ac,v=256', column]['measured']
  assert value('end_mark_bits_per_byte') == pytest.approx(14 / 64)
  assert 0 < value('rounding_bits_per_byte') < 10 / 64
  rest = value('bits_per_byte') - value('end_mark_bits_per_byte') - value('rounding_bits_per_byte')
  assert value('bits_per_byte_without_end_and_rounding') == pytest.approx(rest)


def test_ac_is_compared_with_others_as_if_it_paid_for_no_ends(rows):
  value = lambda row, column: rows['m2', f'model=tiny,{row}', column]['measured']
  lean = value('method=ac,v=256', 'bits_per_byte_without_end_and_rounding')
  for other in ('bytes', 'sentencepiece', 'bpe_unsplit12'):
    above = value('method=ac,v=256', f'bits_without_end_and_rounding_above_{other}')
    assert above == pytest.approx(lean - value(f'method={other}', 'bits_per_byte'))


def test_equal_text_is_read_at_the_steps_that_it_takes(rows):
  names = ('method=bytes', 'method=greedy24,v=256', 'method=bpe_unsplit12')
  read = [rows['m2', f'model=tiny,{name},budget=text', 'training_bytes']['measured']
          for name in names]  # fmt: skip
  tokens = [rows['m2', f'model=tiny,{name}', 'training_bytes']['measured'] for name in names]
  assert max(read) < 1.4 * min(read)  # but for whole steps, of which the shortest has 2
  assert max(tokens) > 1.8 * min(tokens)
  row = rows['m2', 'model=tiny,method=greedy24,v=256,budget=text', 'bits_above_bpe_unsplit12']
  found = [rows['m2', f'model=tiny,{name},budget=text', 'bits_per_byte']['measured']
           for name in names[1:]]  # fmt: skip
  assert row['measured'] == pytest.approx(found[0] - found[1])


def test_each_position_of_a_window_has_its_curve(rows):
  positions = [row for table, row, _ in rows if table == 'windows' and 'position=' in row]
  places = {24: (1, 2, 3), 32: (1, 2, 3, 4)}
  assert set(positions) == {
    f'b={b},mode=greedy,v=256,position={k}' for b in places for k in places[b]
  }
  for row in positions:
    for column in ('accuracy_at_step_0', 'accuracy_at_step_6', 'trivial_accuracy'):
      assert 0 <= rows['windows', row, column]['measured'] <= 1
  gap = lambda row, column='': rows['windows', row, f'gap_bits_per_token{column}']['measured']
  assert max(map(gap, positions)) < 8
  of = lambda k: f'b=32,mode=greedy,v=256,position={k}'
  assert gap(of(2), '_above_the_next') == pytest.approx(gap(of(2)) - gap(of(3)))
  assert gap(of(2), '_above_the_last') == pytest.approx(gap(of(2)) - gap(of(4)))
  narrow, wide = (f'b={b},mode=greedy,v=256' for b in (24, 32))
  assert gap(narrow, '_above_b32') == pytest.approx(gap(narrow) - gap(wide))


def test_decompression_is_compared_with_its_control(rows):
  accuracy = lambda row: rows['decompress', row, 'accuracy']['measured']
  for method in ('ac', 'greedy24'):
    row = f'method={method},v=256'
    above = rows['decompress', row, 'accuracy_above_control']
    assert above['measured'] == pytest.approx(accuracy(row) - accuracy('method=none'))
    assert (above['over'], above['df']) == ('seeds×documents', None)
    halves = [
      rows['decompress', row, f'accuracy_{h}_half']['measured'] for h in ('first', 'second')
    ]
    assert np.mean(halves) == pytest.approx(accuracy(row))


def test_kept_tokenizers_open_from_their_files_alone(smoke):
  for name in ('ac-v256', 'exact12-v256', 'parsed12-v4096', 'pruned12', 'sentencepiece'):
    tokenizer = tokenizers.load(smoke / 'tokenizers' / name)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
  stepped = tokenizers.load(smoke / 'tokenizers' / 'ac-v256')
  assert isinstance(stepped, Stepped)
  assert stepped.model == ByteModel.load(smoke / 'm1').fingerprint


def test_m2_goes_on_from_the_very_bytes_of_a_prompt(smoke):
  said = (smoke / 'stdout').read_text()
  said = said[said.rindex('The class') :]
  assert len(said.encode()) >= 9 + 40


def test_every_training_row_of_m1_begins_with_bos():
  batch = next(iter(coders.m1_batches(equal_info.get_config('smoke'), 'train')))
  assert (batch['inputs'][:, 0] == byte_model.BOS).all()
  inside = batch['segments'][:, 1:] == batch['segments'][:, :-1]
  np.testing.assert_array_equal(
    batch['inputs'][:, 1:][inside], batch['targets'][:, :-1][inside]
  )  # fmt: skip


def test_slices_of_one_stream_are_those_of_its_other_widths():
  for size in (5, 6):
    ids = np.arange(250, 250 + size) % 256
    found = slices.sliced(ids, 8, 16)
    pairs = np.append(ids, 0)[: -(-size // 2) * 2].reshape(-1, 2)
    assert found.tolist() == (pairs[:, 0] * 256 + pairs[:, 1]).tolist()


@pytest.mark.parametrize(
  ('section', 'field', 'value', 'message'),
  [
    ('ratio', 'methods', ('greedy16', 'lossy'), "tokenizer 'lossy' is unknown"),
    ('m1', 'length', 3, 'm1.length must be 4 or more; got 3'),
    ('m1', 'dim', 33, 'm1.dim 33 is not a multiple of 2 heads'),
    ('m1', 'position', 'sinusoidal', "m1.position must be one of .* got 'sinusoidal'"),
    ('uniformity', 'bits', (3,), 'uniformity.bits must be .* each value one of 1, 2, 4, 8, 16'),
    ('stability', 'texts', 1, 'stability.texts must be 2 or more'),
    ('reset', 'examples', 1, 'reset.examples must be 2 or more'),
    ('uniformity', 'most', 1, 'uniformity.most must be 2 or more'),
  ],
)
def test_invalid_configs_are_refused_with_a_sentence(section, field, value, message):
  config = equal_info.get_config(f'smoke,tables={"+".join(TABLES)}')
  config[section][field] = value
  with pytest.raises(InputError, match=message):
    recipe.RECIPE.check(config)


def test_uniformity_wants_two_documents_that_are_long_enough():
  config = equal_info.get_config('smoke,tables=uniformity')
  texts = sources.open_source(config.data.source, 'test')
  config.uniformity.length = sorted(len(texts[i]) for i in range(len(texts)))[-2]
  recipe.RECIPE.check(config)
  config.uniformity.length += 1
  with pytest.raises(InputError, match='uniformity needs 2 or more documents of'):
    recipe.RECIPE.check(config)


def test_bad_input_gets_one_sentence_and_exit_code_2(tmp_path):
  done = run(tmp_path / 'new', '--config.ratio.length=10000000')
  assert done.returncode == 2
  message = 'equal_info: ratio.length: no document of stdlib/prose (test) is 10000000 long'
  assert done.stderr.startswith(message)
  assert len(done.stderr.strip().splitlines()) == 1
  assert not (tmp_path / 'new').exists()


def test_text_that_would_be_memorised_is_refused_at_large_scales():
  config = equal_info.get_config('gpu')
  config.data.source = 'stdlib/prose'
  with pytest.raises(InputError, match=r"data.source 'stdlib/prose' .* at most 4 epochs"):
    recipe.RECIPE.check(config)
  config = equal_info.get_config('gpu,tables=decompress')
  config.data.source, config.decompress.train_texts = 'ngram:stdlib/prose', 2**16
  with pytest.raises(InputError, match=r'decompress.train_texts 65536 would .* 320000 or more'):
    recipe.RECIPE.check(config)


def test_text_that_m2_is_given_counts_not_all_that_there_is():
  config = equal_info.get_config('gpu,tables=m2')
  config.m2.stepped_bytes = 2**20  # of endless text
  with pytest.raises(InputError, match=r'1.05e\+06 bytes of training text, .* at most 4 epochs'):
    m2.check(config)
  config.m2.methods = (('bytes', 8), ('numbered16', 16))  # M1 steps through neither
  config.m2.equal_text = ()
  m2.check(config)
  config.m2.train_bytes = 2**30  # half of the rows that are cut from it
  with pytest.raises(InputError, match=r'would be read 7\.32 times'):
    m2.check(config)


def test_the_gpu_config_is_valid():
  recipe.RECIPE.check(equal_info.get_config('gpu'))


@pytest.mark.parametrize('name', ['greedy', '16', 'exact16x', 'delay'])
def test_names_that_are_no_tokenizers(name):
  with pytest.raises(InputError, match=f"tokenizer '{name}' is unknown"):
    coders.parse(name)


@pytest.mark.parametrize('scale', common.SCALES)
def test_every_scale_builds_and_steps(scale):
  config = equal_info.get_config(f'{scale},tables=ratio')
  if scale == 'paper':
    config.data.source = 'stdlib'  # the paper's is not here, and shapes do not depend on it
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 1}, jax.devices()[:4])
  batch = next(iter(coders.m1_batches(config, 'train')))
  experiment = dataclasses.replace(coders.m1_spec(config).experiment, batches=[batch])
  shapes = shape_of.check(experiment, mesh)
  if scale == 'paper':
    count = sum(x.size for x in jax.tree.leaves(shapes['variables']['params']['decoder']))
    assert count / 3.15e6 == pytest.approx(1, abs=0.01)


def test_published_numbers_are_those_of_the_paper():
  entries = {
    (e['table'], e['row'], e['column'], e['where'].get('scale')): e['value']
    for e in published.load('equal_info')['entries']
  }
  ratio = lambda method: entries['ratio', f'method={method},v=256', 'bytes_per_token', 'paper']
  order = ['static_ac', 'gzip', 'greedy16', 'greedy24', 'greedy32', 'greedy64', 'greedy128', 'ac']
  assert [ratio(method) for method in order] == [1.73, 2.23, 2.66, 3.15, 3.49, 4.16, 4.61, 5.49]
  # The paper's uniform level is log2 V over the ratio.
  for method in order[:1] + order[2:3] + order[4:]:
    level = entries['ratio', f'method={method},v=256', 'bits_per_byte', 'paper']
    assert level == pytest.approx(8 / ratio(method), abs=0.01)
  assert all(entry['source'] for entry in published.load('equal_info')['entries'])


def test_rows_of_greedy_windows_are_marked_as_lossy(rows):
  marked = {(table, row) for (table, row, _), cell in rows.items() if cell['lossy']}
  greedy = {(table, row) for table, row, _ in rows if 'greedy' in row or table == 'reset'}
  assert marked == greedy
  assert {table for table, _ in marked} == {*TABLES}
