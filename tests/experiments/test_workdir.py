# SPDX-License-Identifier: Apache-2.0
"""One run in a workdir, one process at a time."""

import json
import subprocess
import sys

import pytest

from experiments import workdir
from lib import atomic, errors, provenance
from lib.errors import InputError
from lib.report import results

CONFIG = {'seed': 0, 'one': {'rates': [0.1], 'dim': 8}}


def identity(config=CONFIG, text='0' * 64, splitting=2):
  return provenance.identity(config, {'prose': text}, splitting)


def prepare(folder, run):
  with workdir.opened(folder, run):
    pass


def leave_table(folder, run):
  (folder / 'tables').mkdir()
  results.write_rows(folder / 'tables' / 'ngram.json', [], 1.0, run, {})


@pytest.mark.parametrize('forgotten', ['nothing', 'config.json', 'identity.json'])
@pytest.mark.parametrize(
  ('changes', 'named'),
  [
    ({'config': CONFIG | {'seed': 7}}, 'seed is 0 there and 7 here'),
    (
      {'config': CONFIG | {'one': {'rates': [0.2], 'dim': 8}}},
      'one.rates is [0.1] there and [0.2]',
    ),
    ({'config': {'seed': 0, 'one': {'rates': [0.1]}}}, 'one.dim is 8 there and unknown here'),
    ({'text': 'f' * 64}, 'the text of prose is another'),
    ({'splitting': 3}, 'the version of the rules that split text is another: 2 there and 3 here'),
  ],
)
def test_another_run_in_a_workdir_is_refused_and_the_difference_named(
  tmp_path, changes, named, forgotten
):
  prepare(tmp_path, identity())
  leave_table(tmp_path, identity())
  (tmp_path / forgotten).unlink(missing_ok=True)
  before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
  with pytest.raises(InputError) as caught:
    prepare(tmp_path, identity(**changes))
  assert named in str(caught.value)
  assert {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()} == before


def test_a_swapped_file_is_another_run_and_other_tables_are_the_same(tmp_path):
  file = tmp_path / 'tokenizer.json'
  config = CONFIG | {'tokenizers': ['bpe', str(file)]}
  file.write_text('one')
  before = provenance.identity(config, {}, 2)
  assert provenance.difference(before, json.loads(json.dumps(before))) == ''
  more = provenance.identity(config, {'prose': '0' * 64}, 2)  # a table that reads text
  assert provenance.difference(before, more) == provenance.difference(more, before) == ''
  file.write_text('two')
  after = provenance.identity(config, {}, 2)
  assert f'the content of {file} is another' in provenance.difference(before, after)


@pytest.mark.parametrize('place', ['', 'x' * 300, 'zero\0byte', __file__])
def test_a_workdir_that_can_be_no_folder_is_refused(place):
  with pytest.raises(InputError, match='workdir'):
    workdir.check_place(place)


def test_a_workdir_without_results_takes_another_config(tmp_path):
  prepare(tmp_path / 'new', identity())
  prepare(tmp_path / 'new', identity(CONFIG | {'seed': 7}))
  assert json.loads((tmp_path / 'new' / 'config.json').read_text())['seed'] == 7


def test_a_second_process_is_refused_until_the_first_is_gone_even_if_killed(tmp_path):
  hold = 'import fcntl, sys; f = open(sys.argv[1], "a"); fcntl.flock(f, 2); print(); input()'
  command = [sys.executable, '-c', hold, str(tmp_path / 'lock')]
  with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
    first.stdout.readline()
    with pytest.raises(InputError, match='another process runs in'):
      prepare(tmp_path, identity())
    assert [path.name for path in tmp_path.iterdir()] == ['lock']
    first.kill()
    first.wait()
    prepare(tmp_path, identity())


def test_a_folder_in_the_place_of_a_file_is_for_the_user_to_mend(tmp_path):
  with pytest.raises(OSError, match='directory') as caught:
    atomic.write(tmp_path, 'results')
  assert errors.refusal(caught.value) == 'Is a directory'
