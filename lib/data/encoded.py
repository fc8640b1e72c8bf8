# SPDX-License-Identifier: Apache-2.0
"""Documents that are tokens already, kept in a file: for tokenizers too slow to run twice."""

import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lib.errors import InputError
from lib.tokenizers import files
from lib.tokenizers.base import Coded

FAMILY = 'encoded'  # of the file


class Encoded:
  """A source whose documents are int32 [2, n]: ids, and the bytes that each covers.

  Args:
    ids: int32, those of all documents end to end.
    byte_lengths: int32, of the same length.
    counts: int64 [documents], ids in each.
  """

  def __init__(self, ids: np.ndarray, byte_lengths: np.ndarray, counts: np.ndarray):
    stops = np.cumsum(counts)
    if not ids.size == byte_lengths.size == (stops[-1] if stops.size else 0):
      raise InputError('the tokens of the encoded documents do not add up')
    self.tokens = np.stack([ids, byte_lengths]).astype(np.int32)
    self.counts, self._stops = counts, stops

  def __len__(self) -> int:
    return self.counts.size

  def __getitem__(self, index: int) -> np.ndarray:
    stop = int(self._stops[index])
    return self.tokens[:, stop - int(self.counts[index]) : stop]

  def __iter__(self) -> Iterator[np.ndarray]:
    return (self[index] for index in range(len(self)))

  @property
  def bytes(self) -> int:
    """Bytes that all tokens cover."""
    return int(self.tokens[1].sum(dtype=np.int64))


def encode(
  folder: str | os.PathLike,
  fingerprint: str,
  documents: Sequence[bytes],
  encode_all: Callable[[Sequence[bytes]], Sequence[Coded]],
) -> Encoded:
  """The documents as tokens: encoded now, or read from the file that an earlier call left in
  `folder`.

  Args:
    folder: gets one file, atomically, named by a hash of what it is made from.
    fingerprint: of the tokenizer.
    documents: to be encoded.
    encode_all: all documents as tokens.

  Raises:
    InputError: the file is damaged.
  """
  digest = hashlib.sha256(fingerprint.encode())
  for document in documents:
    digest.update(b'%d\n' % len(document) + document)
  path = pathlib.Path(folder) / f'{digest.hexdigest()[:32]}.tokens'
  if not path.exists():
    coded, none = encode_all(documents), np.zeros(0, np.int32)
    state = {
      'ids': np.concatenate([none, *(one.ids for one in coded)]),
      'byte_lengths': np.concatenate([none, *(one.byte_lengths for one in coded)]),
      'counts': np.array([len(one.ids) for one in coded], np.int64),
    }
    files.write(path, FAMILY, state)
  _, state = files.read(path)
  return Encoded(state['ids'], state['byte_lengths'], state['counts'])
