# SPDX-License-Identifier: Apache-2.0
"""A language model that trains in a second, for tests of the loop."""

import dataclasses
import os
import signal

import grain
import jax
import numpy as np

from lib.data import pipeline
from lib.embeddings.learned import Learned
from lib.evals import held_out
from lib.models.decoder import Decoder, LanguageModel
from lib.objectives.next_token import next_token
from lib.parallel import sharding
from lib.tokenizers.characters import Characters
from lib.train import loop, optimizer
from lib.train.experiment import Experiment

V, T, ROWS = 7, 8, 8


def row(index, poison=None, kill_at=None):
  """A row whose next token is the last plus one: soon learned. Row numbers can kill or poison."""
  if kill_at is not None and index == kill_at * ROWS:
    os.kill(os.getpid(), signal.SIGKILL)
  start = np.random.default_rng(int(index)).integers(V)
  targets = ((start + np.arange(T)) % V).astype(np.int32)
  ones = np.ones(T, np.int32)
  return {
    'inputs': np.concatenate([[V], targets[:-1]]).astype(np.int32),
    'targets': targets,
    'segments': ones,
    'positions': np.arange(T, dtype=np.int32),
    'bytes': ones,
    'scale': np.float32(np.nan if poison is not None and index == poison * ROWS else 1.0),
  }


def batches(**faults):
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
  data = grain.MapDataset.range(10_000).map(lambda index: row(index, **faults)).batch(ROWS)
  return data.to_iter_dataset(options)


class Texts:
  """Documents whose next letter is the last plus one; counts those that are read."""

  def __init__(self, documents=160):
    self.documents, self.read = documents, 0

  def __len__(self):
    return self.documents

  def __getitem__(self, index):
    self.read += 1
    start, length = np.random.default_rng(int(index)).integers((0, 3), (V, 20))
    return bytes((start + np.arange(length)) % V)


def lane_batches(texts, lanes=4):
  """Batches of texts, whose rows come from lanes."""
  data = pipeline.batches(
    texts, Characters(bytes(range(V))), batch_size=ROWS, length=T, seed=0, lanes=lanes
  )
  return data.map(lambda batch: batch | {'scale': np.ones(ROWS, np.float32)})


def make(data=None, **faults):
  model = LanguageModel(
    Learned(V, 16), Decoder(layers=2, dim=16, heads=2, mlp_dim=32, max_length=T)
  )
  init_fn, plain_loss = next_token(model)

  def loss_fn(variables, batch, key):
    loss, aux = plain_loss(variables, batch, key)
    return loss * batch['scale'].mean(), aux

  score = held_out.held_out(plain_loss, [next(iter(batches()))])
  data = batches(**faults) if data is None else data
  return Experiment(init_fn, loss_fn, data, {'validation': score})


def run(workdir, steps, mesh=None, profile=None, initial=None, data=None, identity=None, **faults):
  mesh = mesh or sharding.make_mesh({'data': -1}, jax.devices()[:1])
  schedule = optimizer.make_schedule('cosine', 1e-2, 20, 2, 0.1)
  return loop.train(
    dataclasses.replace(make(data, **faults), initial=initial),
    optimizer.make_optimizer('adamw', schedule, weight_decay=1e-3),
    steps=steps, seed=3, mesh=mesh, workdir=workdir, profile=profile, identity=identity,
    log_every=1, evaluate_every=5, checkpoint_every=4,
  )  # fmt: skip


def losses(history):
  return {line['step']: line['loss'] for line in history if 'loss' in line}


if __name__ == '__main__':
  import sys

  run(sys.argv[1], 14, kill_at=int(sys.argv[2]))
