# SPDX-License-Identifier: Apache-2.0
"""Real processes on one machine: the same losses, one set of files, checkpoints for any number."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from experiments.tools import launch
from lib.data import pipeline
from lib.parallel import sharding
from tests.helpers import tiny

POD = pytest.mark.skipif('POD' not in os.environ, reason='takes minutes: see `make processes`')


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """Losses of one process with one device."""
  folder = tmp_path_factory.mktemp('alone')
  return tiny.losses(tiny.run(folder, 6, data=tiny.lane_batches(tiny.Texts()))[1])


@pytest.fixture(
  scope='module',
  params=[
    pytest.param(how, marks=POD)
    for how in ((2, {'data': 2}), (4, {'fsdp': 4}), (4, {'data': 2, 'tensor': 2}))
  ],
  ids=str,
)
def joined(request, tmp_path_factory):
  """The folder that several processes leave after four steps."""
  count, axes = request.param
  folder = tmp_path_factory.mktemp('joined-' + '-'.join(axes))
  assert launch.run(['-m', 'tests.helpers.joined', str(folder), '4', json.dumps(axes)], count) == 0
  return folder


def test_any_number_of_processes_has_the_losses_of_one(joined, alone):
  lines = [json.loads(line) for line in (joined / 'metrics.jsonl').read_text().splitlines()]
  found = [(line['step'], line['loss']) for line in lines if 'loss' in line]
  assert [step for step, _ in found] == [1, 2, 3, 4]  # each once: only the first process writes
  # Float32 sums in another order: relative 1e-5 over four steps.
  assert [loss for _, loss in found] == pytest.approx([alone[s] for s, _ in found], rel=1e-5)


def test_each_process_reads_the_lanes_of_its_rows(joined, tmp_path, monkeypatch):
  monkeypatch.setattr(pipeline, '_reading', lambda readers: pipeline.AT_HAND)
  texts = tiny.Texts()
  tiny.run(tmp_path, 4, data=tiny.lane_batches(texts))
  read = [int(path.read_text()) for path in joined.glob('documents-*.txt')]
  same = 2 if 'tensor' in str(joined) else 1  # processes along a tensor axis have the same rows
  assert sum(read) == same * texts.read
  assert max(read) <= 1.5 * same * texts.read / len(read)


@pytest.mark.parametrize('devices', [1, 2, 8])
def test_their_checkpoint_is_continued_on_any_devices(joined, alone, tmp_path, devices):
  shutil.copytree(joined / 'checkpoints', tmp_path / 'checkpoints')
  mesh = sharding.make_mesh({'fsdp': -1}, jax.devices()[:devices])
  again = tiny.losses(tiny.run(tmp_path, 6, mesh, data=tiny.lane_batches(tiny.Texts()))[1])
  assert sorted(again) == [5, 6]
  assert list(again.values()) == pytest.approx([alone[5], alone[6]], rel=1e-5)


def test_one_failed_process_ends_the_others_and_gives_its_code():
  program = 'import os, time; time.sleep(60 * int(os.environ["JAX_PROCESS_ID"])); exit(3)'
  start = time.monotonic()
  assert launch.run(['-c', program], 3, grace=0.2) == 3
  assert time.monotonic() - start < 30


def test_sigterm_reaches_all_processes():
  program = (
    'import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7));'
    'import os; os.write(1, b"up\\n"); time.sleep(60)'
  )
  started = subprocess.Popen(
    [sys.executable, '-m', 'experiments.tools.launch', '--processes=2', '--', '-c', program],
    stdout=subprocess.PIPE, text=True,
  )  # fmt: skip
  assert [started.stdout.readline() for _ in range(2)] == ['up\n'] * 2
  started.send_signal(signal.SIGTERM)
  assert started.wait(30) == 7


def test_a_process_that_finds_no_others_says_what_it_wants():
  # In a process of its own: JAX joins others only before any device is asked for.
  environment = {k: v for k, v in os.environ.items() if k != 'JAX_COORDINATOR_ADDRESS'}
  program = 'from lib.parallel import processes; processes.join()'
  done = subprocess.run(
    [sys.executable, '-c', program], env=environment, capture_output=True, text=True
  )
  said = done.stderr.splitlines()[-1]
  assert said.startswith('lib.errors.InputError: no other process was found')
  assert 'set JAX_COORDINATOR_ADDRESS' in said


def test_a_batch_is_placed_as_it_is():
  batch = {'inputs': np.arange(16).reshape(8, 2), 'share': np.arange(8.0)}
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 2})
  placed = sharding.global_batch(batch, mesh)
  for name, values in batch.items():
    np.testing.assert_array_equal(placed[name], values)
    assert {shard.data.shape[0] for shard in placed[name].addressable_shards} == {2}
