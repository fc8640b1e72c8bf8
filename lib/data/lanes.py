# SPDX-License-Identifier: Apache-2.0
"""Batches whose rows come from lanes; each process reads only the lanes of its own rows.

The documents of a source are divided into L lanes: lane k has documents k, k + L, k + 2L, … Each
lane is shuffled and packed independently and has its own position. Lane k fills the B / L rows of a
batch of B from row k · B / L on. The devices of a process have neighbouring rows, so with P
processes, P a divisor of L, each process reads L / P lanes: a P-th of the documents. Batches are
the same for every number of processes, since a lane does not depend on the process that reads it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from lib.errors import InputError
from lib.parallel.mesh import own_rows

MOST = 64  # default number of lanes, at most
KEY = 'lanes'  # in the state of an iterator: lane -> its place

Rows = Callable[[int, int], grain.IterDataset]  # (lane, readers that share this host) -> its rows


def default(batch_size: int, documents: int = MOST) -> int:
  """The most lanes, up to MOST and to the number of documents, that divide a batch."""
  most = min(MOST, batch_size, max(1, documents))
  return max(lanes for lanes in range(1, most + 1) if batch_size % lanes == 0)


def check(lanes: int, batch_size: int, documents: int) -> None:
  """Raises InputError for lanes that do not divide the batch, or a lane without a document."""
  if lanes < 1 or batch_size % lanes:
    raise InputError(f'lanes must be 1 or more and divide the batch of {batch_size}; got {lanes}.')
  if documents < lanes:
    raise InputError(
      f'{lanes} lanes need {lanes} documents or more, one for each; the source has {documents}.'
    )


class Lanes(grain.IterDataset):
  """Endless batches [batch_size, …] of the rows of all lanes.

  On a mesh of several processes only the rows of this process's devices are filled
  (`lib.parallel.mesh.own_rows`). The other rows are 0 and are not used.

  Args:
    rows: the rows of a lane, endless.
    lanes: how many there are.
    batch_size: a multiple of `lanes`.
  """

  def __init__(self, rows: Rows, lanes: int, batch_size: int):
    super().__init__()
    self._rows, self._lanes, self._each = rows, lanes, batch_size // lanes

  def __iter__(self) -> grain.DatasetIterator:
    return _LanesIterator(self._rows, self._lanes, self._each)


class _LanesIterator(grain.DatasetIterator):
  def __init__(self, rows: Rows, lanes: int, each: int):
    super().__init__()
    self._rows, self._lanes, self._each = rows, lanes, each
    self._places: dict[str, Any] = {}  # of lanes that have not been read yet
    self._readers: dict[int, grain.DatasetIterator] = {}

  def __next__(self) -> dict[str, np.ndarray]:
    if not self._readers:
      self._open()
    found: dict[str, np.ndarray] = {}
    for lane, reader in self._readers.items():
      for row in range(lane * self._each, (lane + 1) * self._each):
        for field, values in self._next(lane, reader).items():
          if field not in found:
            shape = (self._lanes * self._each, *values.shape)
            found[field] = np.zeros(shape, values.dtype)
          found[field][row] = values
    return found

  def _next(self, lane: int, reader: grain.DatasetIterator) -> dict[str, np.ndarray]:
    try:
      return next(reader)
    except InputError as error:
      raise InputError(f'lane {lane} of {self._lanes}: {error}') from error

  def _open(self) -> None:
    """Starts reading the lanes with a row on a device of this process."""
    own = own_rows(self._lanes * self._each).reshape(self._lanes, self._each).any(axis=1)
    for lane in np.flatnonzero(own).tolist():
      self._readers[lane] = iter(self._rows(lane, int(own.sum())))
      if str(lane) in self._places:
        self._readers[lane].set_state(self._places[str(lane)])

  def get_state(self) -> dict[str, Any]:
    """The places of the lanes that this process reads; `merge` joins those of all processes."""
    read = {str(lane): reader.get_state() for lane, reader in self._readers.items()}
    return {KEY: read or self._places, 'of': self._lanes}

  def set_state(self, state: dict[str, Any]) -> None:
    if state['of'] != self._lanes:
      raise InputError(
        f'the checkpoint has {state["of"]} lanes, this run {self._lanes}: keep the number of lanes.'
      )
    self._readers, self._places = {}, state[KEY]


def merge(states: Sequence[Any]) -> Any:
  """The state of a data iterator from those of all processes: equal but for the lanes they read.

  Raises:
    ValueError: the processes are at different positions.
  """
  one = states[0]
  if isinstance(one, Mapping) and set(one) == {KEY, 'of'}:
    return {KEY: {lane: place for s in states for lane, place in s[KEY].items()}, 'of': one['of']}
  if isinstance(one, Mapping):
    return {key: merge([state[key] for state in states]) for key in one}
  if isinstance(one, list | tuple):
    return [merge(parts) for parts in zip(*states, strict=True)]
  if any(state != one for state in states):
    raise ValueError('the processes of this run are at different places in the data')
  return one


def seed_of(seed: int, lane: int) -> int:
  """The seed of a lane; the first lane has the seed itself."""
  return seed if lane == 0 else int(np.random.SeedSequence((seed, lane)).generate_state(1)[0])
