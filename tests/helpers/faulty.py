# SPDX-License-Identifier: Apache-2.0
"""A cheap training run, for tests that kill it, and the record of its steps.

The model is a table of bigrams with noise, behind the real loop and the real pipeline: 0.8 MB of
state, no module to trace. A fork server imports everything once.
"""

import multiprocessing
import os
import pathlib
import sys
import zlib
from unittest import mock

import jax
import numpy as np
import optax
from absl import logging

from lib.data import pipeline
from lib.parallel import sharding
from lib.tokenizers.characters import Characters
from lib.train import checkpoint, loop, state
from lib.train.experiment import Experiment

STEPS, ROWS, T = 60, 4, 16
V = 256
WORDS = b'a run that was killed goes on where it was and reads what it would have read '
server = multiprocessing.get_context('forkserver')
server.set_forkserver_preload([__name__])


class Documents:
  """97 documents of 1 to 60 bytes, each of them another."""

  def __len__(self):
    return 97

  def __getitem__(self, index):
    start = 31 * index % len(WORDS)
    return (b'%d ' % index + WORDS[start:] + WORDS)[: 1 + index * 7 % 60]


def init_fn(key, batch):
  return {'params': {'table': 0.02 * jax.random.normal(key, (V + 1, V))}}


def loss_fn(variables, batch, key):
  logits = variables['params']['table'][batch['inputs']]
  logits += 0.1 * jax.random.normal(key, logits.shape)
  nats = optax.softmax_cross_entropy_with_integer_labels(logits, batch['targets']).sum()
  sums = {'nats': nats, 'bytes': batch['bytes'].sum(), 'tokens': batch['targets'].size}
  return nats / batch['targets'].size, sums | {'read': batch['inputs'] * V + batch['targets']}


def make(lanes=1):
  batches = pipeline.batches(
    Documents(), Characters(), batch_size=ROWS, length=T, seed=5, lanes=lanes
  )
  norm = lambda variables: {'norm': np.float32(jax.device_get(variables['params']['table']).std())}
  return Experiment(init_fn, loss_fn, batches, {'table': norm})


def run(workdir, steps=STEPS, mirror=None, lanes=1):
  """Trains, and leaves in `workdir`/record a line for each step that was taken, in any life."""
  pathlib.Path(workdir).mkdir(parents=True, exist_ok=True)
  record = os.open(pathlib.Path(workdir) / 'record', os.O_WRONLY | os.O_APPEND | os.O_CREAT)
  check = loop.check_finite

  def note(step, values):
    check(step, values)
    read = zlib.crc32(np.asarray(values['read']).tobytes())
    os.write(record, f'{step} {float(values["loss"]).hex()} {read:08x}\n'.encode())

  with mock.patch.object(loop, 'check_finite', note):
    final, _ = loop.train(
      make(lanes), optax.adamw(1e-2),
      steps=steps, seed=3, mesh=sharding.make_mesh({'data': -1}, jax.devices()[:1]),
      workdir=workdir, log_every=1, evaluate_every=10, checkpoint_every=10,
      mirror=mirror,
    )  # fmt: skip
  os.write(record, f'end {int(checkpoint.digest(final)):08x}\n'.encode())


def live(workdir, steps, lanes):
  """Runs as a process, whose words go to `workdir`/log."""
  logging.set_verbosity(logging.ERROR)
  os.dup2(os.open(pathlib.Path(workdir) / 'log', os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
  try:
    run(workdir, steps, lanes=lanes)
  except loop.Stopped as stopped:
    print(stopped, file=sys.stderr)


def start(workdir, lanes=1):
  """A life of its own process."""
  process = server.Process(target=live, args=(workdir, STEPS, lanes))
  process.start()
  return process


def record(workdir):
  """The lines that lives left, in order."""
  path = pathlib.Path(workdir) / 'record'
  return path.read_text().splitlines() if path.exists() else []


def shapes():
  """The abstract state on this process's device."""
  mesh = sharding.make_mesh({'data': -1}, jax.devices()[:1])
  experiment = make()
  with jax.set_mesh(mesh):
    batch = sharding.global_batch(next(iter(experiment.batches)), mesh)
    return state.prepare(experiment, optax.adamw(1e-2), batch, 3, mesh).shapes
