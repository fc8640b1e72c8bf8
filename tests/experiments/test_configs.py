# SPDX-License-Identifier: Apache-2.0
"""Every config at every scale: it builds, and its step has the right shapes."""

import pathlib
import re
import runpy

import pytest

from configs import common, markov
from experiments.markov import transformer
from lib.errors import InputError
from lib.parallel import sharding
from tests.helpers.shapes import check


@pytest.mark.parametrize('scale', common.SCALES)
def test_markov_builds_and_steps(scale):
  config = markov.get_config(scale)
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 2})
  made = [*transformer.train_specs(config).values()]
  for train_spec in (made[0], made[-1]):  # characters and BPE; one step of each by shapes alone
    one = train_spec()
    shapes = check(one.experiment, mesh, one.random_batch())
    assert shapes['variables']['params']['embedding']['table'].shape[0] == config.transformer.seeds


def test_arguments_choose_scale_and_tables():
  config = markov.get_config('smoke,tables=ngram+blocks')
  assert config.scale == 'smoke'
  assert config.tables == ('ngram', 'blocks')
  assert markov.get_config().scale == 'cpu'
  assert markov.get_config().tables == markov.TABLES


@pytest.mark.parametrize(
  ('arg', 'message'),
  [
    ('huge', "scale 'huge' is not one of smoke, cpu, gpu, paper"),
    ('cpu,tables=ngram+nope', "table 'nope' is not one of ngram, blocks"),
    ('cpu,seed=3', "option 'seed=3' is not known"),
  ],
)
def test_wrong_arguments_are_named_with_the_right_ones(arg, message):
  with pytest.raises(InputError, match=message):
    markov.get_config(arg)


def test_the_written_pages_are_those_of_the_code():
  root = pathlib.Path(__file__).parents[2]
  pages = runpy.run_path(str(root / 'docs/reference.py'))['PAGES']
  for name, page in pages.items():
    text = page()
    assert (root / name).read_text() == text, 'run: python docs/reference.py'
  config = pages['docs/config.md']()
  for field in (*common.MODEL, *common.TRAINING, *common.base('cpu', ())['mesh'], 'seed', 'prompt'):
    assert re.search(rf'^\| `(mesh\.)?{field}` \| .* \| .+ \|$', config, re.MULTILINE), field
