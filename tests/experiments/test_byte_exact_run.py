# SPDX-License-Identifier: Apache-2.0
"""The recipe of exact byte probabilities: a smoke run, and what must hold of its rows."""

import jax
import numpy as np
import pytest

from configs import byte_exact
from experiments.byte_exact.recipe import RECIPE
from experiments.recipe import Run
from lib.parallel import sharding
from lib.report import plots
from lib.report.results import select
from tests.helpers import addresses


@pytest.fixture(scope='module')
def smoke(tmp_path_factory):
  run = Run(tmp_path_factory.mktemp('byte_exact'), sharding.make_mesh({}, jax.devices()[:1]))
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


def test_bytes_of_trained_models(smoke):
  of = lambda table, column, **where: [r.measured for r in select(smoke[0], table, column, **where)]
  assert max(of('cost', 'next_byte_sum_error')) <= 1e-12
  assert max(of('cost', 'evaluations_beyond_tokens')) <= 1.3
  assert min(of('cost', 'leak_nats_per_token')) >= 0
  single = of('ensemble', 'bits_per_byte', model='bytes') + of(
    'ensemble', 'bits_per_byte', model='bpe'
  )
  [mixture] = of('ensemble', 'bits_per_byte', model='mixture')
  assert mixture <= np.mean(single) + 1e-9  # by convexity, for each text
  nats = of('cut', 'nats_of_16_bytes', cut='any')
  assert len(nats) == 5
  nats += of('fim', 'nats_of_middle')
  assert len(nats) == 10
  assert np.isfinite(nats).all()


def test_every_table_has_a_picture_or_none(smoke, tmp_path):
  rows, config, run = smoke
  for table in RECIPE.chosen(config):
    plots.save(tmp_path, table.pictures(rows, config, run))
  assert [path.name for path in tmp_path.iterdir()] == ['bias.png']
