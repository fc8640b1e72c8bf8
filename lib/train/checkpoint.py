# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of state, data position, progress and identity, written by orbax v1."""

import concurrent.futures
import functools
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from etils import epath
from orbax.checkpoint import v1 as ocp

from lib import provenance
from lib.data import lanes
from lib.errors import InputError
from lib.parallel import processes
from lib.provenance import Identity
from lib.train.state import State

KEPT = 2  # the last, and one before it in case that is damaged


@jax.jit
def digest(state: State) -> jax.Array:
  """A 32-bit checksum (uint32 scalar) of all bits of a state; any single flipped bit changes it."""
  total = jnp.uint32(0)
  for leaf in jax.tree.leaves(state):
    bits = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f'uint{8 * leaf.dtype.itemsize}'))
    words = bits.astype(jnp.uint32).ravel()
    odd = 2 * jax.lax.iota(jnp.uint32, words.size) + 1  # odd factors keep every bit's weight
    total = total * jnp.uint32(16777619) + (words * odd).sum(dtype=jnp.uint32)
  return total


def _voucher(state: State, text: str) -> str:
  """The checksums of a checkpoint: of its state, and of its notes."""
  return f'{int(digest(state)):08x}-{hashlib.sha256(text.encode()).hexdigest()}'


class Checkpoints:
  """The checkpoints of one run, newest last; a damaged one is reported and the previous one used.

  A checkpoint is written in the background during training, and gets its name when it is complete.

  Args:
    folder: on a disk, or in a bucket: gs://BUCKET/…; the last KEPT are kept.
  """

  def __init__(self, folder: str | os.PathLike):
    place = os.fspath(folder).removeprefix('file://')
    self._manager = ocp.training.Checkpointer(
      epath.Path(place if '://' in place else os.path.abspath(place)),
      preservation_policy=ocp.training.preservation_policies.LatestN(KEPT),
      cleanup_tmp_directories=True,
    )
    self._saving: ocp.AsyncResponse[bool] | None = None

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *_: Any) -> None:
    self._manager.close()

  def save(
    self, step: int, state: State, data: Any, progress: Mapping[str, Any], identity: Identity
  ) -> None:
    """Starts writing a checkpoint, once the previous one is on disk.

    Args:
      step: names it.
      state: may be donated as soon as this returns.
      data: the batch iterator; may be advanced as soon as this returns.
      progress: comes back from `restore`; JSON-like.
      identity: of the run; JSON-like.

    Raises:
      OSError and others: the previous checkpoint failed.
    """
    self.wait()
    # The positions of all lanes, so that any number of processes can resume.
    place = lanes.merge(processes.gathered(data.get_state()))
    kept = {'data': place, 'progress': dict(progress), 'identity': dict(identity)}
    text = json.dumps(kept)
    notes = {'text': text, 'voucher': _voucher(state, text)}
    self._saving = self._manager.save_checkpointables_async(
      step, {'state': state, 'notes': notes}, force=True, overwrite=True
    )

  def wait(self, seconds: float | None = None) -> bool:
    """Waits at most `seconds` for the last checkpoint; whether it is on disk.

    Raises:
      OSError and others: it failed.
    """
    try:
      if self._saving:
        self._saving.result(seconds)
    except concurrent.futures.TimeoutError:
      return False
    self._saving = None
    return True

  def restore(
    self, shapes: State, data: Any, identity: Identity
  ) -> tuple[State, dict[str, Any]] | None:
    """The newest undamaged state and its progress, with `data` set to its position; None without
    one.

    Args:
      shapes: abstract state carrying the shardings of *this* run's mesh.
      data: a fresh batch iterator.
      identity: of this run.

    Raises:
      InputError: the checkpoints are of another run; or all are damaged, or of a version with
        another data position.
    """
    start = data.get_state()
    steps = sorted((found.step for found in self._manager.checkpoints), reverse=True)
    for step in steps:
      try:
        load = functools.partial(self._manager.load_checkpointables, step)
        notes = load({'notes': None})['notes']
        kept = json.loads(notes['text'])
        if other := provenance.difference(kept['identity'], identity):
          raise InputError(
            f'{self._manager.directory} has checkpoints of another run: {other}; choose a new '
            '--workdir, or delete it.'
          )
        state = load({'state': shapes})['state']
        if notes['voucher'] != _voucher(state, notes['text']):
          raise ValueError('its checksum does not match its content')
        data.set_state(kept['data'])
        return state, kept['progress']
      except InputError:
        raise
      except Exception as error:  # damage raises many types of errors
        data.set_state(start)
        reason = str(error).split('\n')[0][:200]
        logging.error('checkpoint %s/%d is damaged: %s', self._manager.directory, step, reason)
    if steps:
      raise InputError(
        f'every checkpoint in {self._manager.directory} is damaged, or of a version that read its '
        'data otherwise: delete it to train again.'
      )
    return None
