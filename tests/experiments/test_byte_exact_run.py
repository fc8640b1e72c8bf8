# SPDX-License-Identifier: Apache-2.0
"""The recipe of exact byte probabilities: a smoke run, and what must hold of its rows."""

import pytest

from configs import byte_exact, common
from experiments.byte_exact.recipe import RECIPE
from experiments.recipe import Run
from lib.parallel import sharding
from lib.report import plots
from lib.report.results import select
from tests.helpers import addresses


@pytest.fixture(scope='module')
def smoke(tmp_path_factory):
  run = Run(tmp_path_factory.mktemp('byte_exact'), sharding.make_mesh({'data': -1}))
  config = byte_exact.get_config('smoke')
  RECIPE.check(config)
  rows = [row for table in RECIPE.chosen(config) for row in table.measure(config, run)]
  return rows, config, run


def test_claims_and_published_numbers_address_rows_of_a_run(smoke):
  assert not addresses.faults('byte_exact', smoke[0])


def test_exact_is_exact_and_the_others_are_not(smoke):
  of = lambda column, method: [
    row.measured for row in select(smoke[0], 'bias', column, method=method)
  ]
  assert max(of('max_abs_error', 'exact') + of('sum_error', 'exact')) <= 1e-12
  assert min(of('total_variation', 'naive')) > 0.1
  assert max(of('total_variation', 'heal1')) > 0.01


def test_every_table_has_a_picture_or_none(smoke, tmp_path):
  rows, config, run = smoke
  for table in RECIPE.chosen(config):
    plots.save(tmp_path, table.pictures(rows, config, run))
  assert [path.name for path in tmp_path.iterdir()] == ['bias.png']


@pytest.mark.parametrize('scale', common.SCALES)
def test_every_scale_builds(scale):
  RECIPE.check(byte_exact.get_config(scale))
