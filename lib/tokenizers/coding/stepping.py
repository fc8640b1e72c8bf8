# SPDX-License-Identifier: Apache-2.0
"""Coding many documents in parallel with one byte model, one byte of each per step."""

import abc
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike

from lib.errors import InputError
from lib.tokenizers import base
from lib.tokenizers.base import Coded
from lib.tokenizers.coding import arithmetic, slices
from lib.tokenizers.coding.model import Stepper

M1 = 'm1/'  # in a file, before the names of its arrays


class Coder(Protocol):
  """An encoder or decoder of N parallel jobs; `step` gets the byte model's frequencies for each.

  Attributes:
    marks: symbols that it needs besides the 256 bytes.
    precision: log2 of the sum of its frequencies.
  """

  marks: int
  precision: int

  def begin(self, lane: int, job: Any) -> bool:
    """Sets a lane to a job; returns whether there is anything to do."""
    ...

  def step(
    self, cumulative: np.ndarray, active: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One step: the bytes for the byte model, where to reset it first, and which jobs are done."""
    ...

  def take(self, lane: int) -> Any:
    """A lane's result; the lane is then free."""
    ...


def drive(
  stepper: Stepper, coder: Coder, jobs: Sequence, progress: Callable[[int], object]
) -> list:
  """Runs all jobs, each in the next free lane; their results in order."""
  root = arithmetic.quantise(stepper.start()[None], coder.precision, coder.marks)
  cumulative = np.repeat(root, stepper.streams, axis=0)
  job = np.full(stepper.streams, -1)
  results: list = [None] * len(jobs)
  fresh = np.ones(stepper.streams, bool)  # texts to reset before the next byte
  coming = 0
  while True:
    for lane in np.flatnonzero(job < 0).tolist():
      while coming < len(jobs) and job[lane] < 0:
        if coder.begin(lane, jobs[coming]):
          job[lane] = coming
        else:
          results[coming] = coder.take(lane)
        coming += 1
      fresh[lane], cumulative[lane] = True, root[0]
    if not (job >= 0).any():
      return results
    symbols, forget, done = coder.step(cumulative, job >= 0)
    progress(int((job >= 0).sum()))
    for lane in np.flatnonzero(done).tolist():
      results[job[lane]] = coder.take(lane)
      job[lane] = -1
    if (job >= 0).any():
      stepper.reset(fresh | forget)
      fresh[:] = False
      cumulative = arithmetic.quantise(stepper.step(symbols), coder.precision, coder.marks)


class Stepped(base.Tokenizer):
  """A tokenizer that runs the byte model over every document, most efficiently over many at once.

  The byte model's name is part of the fingerprint; a file includes the byte model if it is a
  `ByteModel`.

  Args:
    stepper: the byte model.
    model: the byte model's name, such as a digest of its weights.
    token_bits: 8, 12 or 16.
  """

  def __init__(self, stepper: Stepper, model: str, token_bits: int):
    self.stepper = stepper
    self.model = model
    self.token_bits = slices.check(token_bits)

  @property
  def vocab_size(self) -> int:
    """Number of ids."""
    return 1 << self.token_bits

  @property
  def preferred_batch(self) -> int:
    """Number of texts that the byte model reads in parallel."""
    return self.stepper.streams

  @abc.abstractmethod
  def cover_batch(self, documents: Sequence[bytes]) -> list[Coded]:
    """Each document as tokens, many in parallel."""

  @abc.abstractmethod
  def decode_all(self, ids: Sequence[ArrayLike]) -> list[tuple[bytes, np.ndarray]]:
    """The bytes of each row of ids, and how many each id covers, int32 [n].

    Raises:
      InputError: an id out of range, or a stream cut short.
    """

  def restore(self, documents: Sequence[Coded]) -> list[bytes]:
    """The documents of `cover_batch`; raises InputError for the first that is not restored."""
    found = [data for data, _ in self.decode_all([document.ids for document in documents])]
    for i, (data, document) in enumerate(zip(found, documents, strict=True)):
      if (len(data), zlib.crc32(data)) != (document.size, document.crc):
        raise InputError(
          f'document {i} decodes to {len(data)} bytes with CRC32 {zlib.crc32(data):08x} where '
          f'{document.size} with {document.crc:08x} should be: its tokens are damaged, or M1 does '
          'not give the probabilities that it gave when they were made'
        )
    return found

  def encode(self, data: bytes) -> np.ndarray:
    """Returns ids, int32 [n]."""
    return self.cover_batch([data])[0].ids

  def encode_batch(self, documents: Sequence[bytes]) -> list[np.ndarray]:
    """The ids of each document, int32 [n] each."""
    return [coded.ids for coded in self.cover_batch(documents)]

  def cover(self, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids, and how many bytes each covers, int32 [n] both."""
    [coded] = self.cover_batch([data])
    return coded.ids, coded.byte_lengths

  def decode(self, ids: ArrayLike) -> bytes:
    """The text of `ids` [n]; raises InputError as `decode_all` does."""
    return self.decode_all([ids])[0][0]

  def decode_batch(self, rows: Sequence[ArrayLike]) -> list[bytes]:
    """The text of each row; raises InputError as `decode_all` does."""
    return [data for data, _ in self.decode_all(rows)]

  def byte_lengths(self, ids: ArrayLike) -> np.ndarray:
    """Bytes covered by each of `ids` [n], int32 [n], computed by decoding."""
    return self.decode_all([ids])[0][1]

  def state(self) -> base.State:
    """The byte model's name and the width of a token."""
    name = base.byte_array(self.model.encode())
    return {'model': name, 'token_bits': np.array(self.token_bits, np.int32)}

  def file_state(self) -> base.State:
    """The state, and the byte model; raises InputError unless that is a `ByteModel`."""
    # Brings JAX, which most tokenizers do without.
    from lib.compression.byte_stepper import ByteStepper

    if not isinstance(self.stepper, ByteStepper):
      raise InputError(
        f'a {type(self).__name__} cannot be saved with an M1 that is a '
        f'{type(self.stepper).__name__}: use a ByteStepper'
      )
    return self.state() | {M1 + name: x for name, x in self.stepper.model.state().items()}

  @classmethod
  def from_state(cls, state: base.State) -> Self:
    """Rebuilds from `file_state()`; raises InputError without the byte model, or with another
    one.
    """
    from lib.compression.byte_model import ByteModel
    from lib.compression.byte_stepper import ByteStepper

    arrays = {name.removeprefix(M1): x for name, x in state.items() if name.startswith(M1)}
    if not arrays:
      raise InputError(f'a {cls.family} tokenizer cannot be rebuilt without its M1: make it again')
    model = ByteModel.from_state(arrays)
    if state['model'].tobytes().decode() != model.fingerprint:
      raise InputError(f'the M1 in this {cls.family} file is not the one that its codec names')
    return cls(ByteStepper(model), model.fingerprint, **cls.options(state))

  @classmethod
  def options(cls, state: base.State) -> dict[str, Any]:
    """The other arguments of the constructor, by name."""
    return {'token_bits': int(state['token_bits'])}
