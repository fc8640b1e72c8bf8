# SPDX-License-Identifier: Apache-2.0
"""Every config at every scale: it builds, and its step has the right shapes."""

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
  made = [*transformer.plans(config).values()]
  for plan in (made[0], made[-1]):  # characters and BPE; one step of each by shapes alone
    one = plan()
    shapes = check(one.experiment, mesh, one.drawn())
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
