# SPDX-License-Identifier: Apache-2.0
"""The command line of a recipe: help, and wrong arguments without what takes long to import."""

import subprocess
import sys

import pytest

from configs import common
from configs.common import SCALES
from experiments import command_line
from lib.errors import InputError

# What takes seconds to import; counting modules is the same on a busy machine.
ANSWER = """
import sys
from experiments import command_line
try:
  command_line.main('markov')
finally:
  assert not {'jax', 'flax', 'grain', 'matplotlib', 'tensorflow_datasets'} & set(sys.modules)
  assert len(sys.modules) < 400, len(sys.modules)
"""


def answer(tmp_path, *arguments):
  """The answer of a recipe to arguments, from a folder that is not the checkout."""
  command = [sys.executable, '-c', ANSWER, *arguments]
  return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
  ('argument', 'sentence'),
  [
    ('--config=markov:huge', "scale 'huge' is not one of smoke, cpu, gpu, paper."),
    ('--config=configs/markov.py:cpu,tables=ngram+x', "table 'x' is not one of ngram, blocks"),
    ('--config=markow:cpu', "there is no config 'markow': --config is NAME:SCALE with a NAME of"),
    ('--config.seedz=1', 'the config has no field seedz. Did you mean "seed"'),
    ('--workdirs=x', "Unknown command line flag 'workdirs'"),
    ('smoke', "argument 'smoke' is not a flag"),
    (f'--config={common.__file__}:smoke', '--config names a file without get_config'),
  ],
)
def test_wrong_arguments_are_refused_before_anything_is_imported(argument, sentence, tmp_path):
  found = answer(tmp_path, argument)
  assert found.stderr.startswith(f'markov: {sentence}'), found.stderr
  assert (found.returncode, found.stdout) == (2, '')
  assert not any(tmp_path.iterdir())


def test_help_shows_scales_tables_and_an_example(tmp_path):
  found = answer(tmp_path, '--help')
  assert found.returncode == 0, found.stderr
  assert all(word in found.stdout for word in (*SCALES, 'real_text', '--workdir', 'arXiv'))
  assert 'python -m experiments.markov --config=markov:smoke' in found.stdout


def test_a_config_is_found_by_name_or_by_file(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  built_in = f'{command_line.CONFIGS / "matrix.py"}'
  assert command_line.config_file('matrix') == built_in
  assert command_line.config_file('matrix:gpu,tables=grid') == f'{built_in}:gpu,tables=grid'
  assert command_line.config_file('configs/matrix.py:gpu') == f'{built_in}:gpu'
  (tmp_path / 'mine.py').touch()
  assert command_line.config_file('mine.py:cpu') == 'mine.py:cpu'
  with pytest.raises(InputError, match='no config'):
    command_line.config_file('common:cpu')
