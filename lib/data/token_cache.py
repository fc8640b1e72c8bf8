# SPDX-License-Identifier: Apache-2.0
"""Tokens of a text's documents, kept on disk by the first epoch for later epochs and runs.

Below the cache's folder each training text under each tokenizer has a folder, named by a digest of
both. A process adds array_record shards to it, each with a list of its documents:

  1f0c…/tokens-7b1e….array_record     documents as tokens, in the order in which they were read
  1f0c…/tokens-7b1e….json             their numbers in the source, written after the shard

What a killed process had not written yet is tokenized again. Documents that two processes have both
written are equal.
"""

import atexit
import functools
import hashlib
import json
import pathlib
import threading
import uuid

import numpy as np

from lib import atomic
from lib.data import sources, token_records
from lib.data.sources import Source
from lib.errors import InputError
from lib.tokenizers.base import Coded, Tokenizer

VERSION = 1  # of the records and of what the digest is made of
SHARD_TOKENS = 2**22  # that a process holds before it writes them, in some 32 MB
_OPEN: dict[pathlib.Path, 'TokenCache'] = {}


def open_tokens(folder: str, spec: str, tokenizer: Tokenizer) -> 'Source | TokenCache':
  """The training documents of a source; as tokens that `folder` keeps, if it is not empty.

  Args:
    folder: of the cache, such as a mounted bucket; '' for none.
    spec: of the source (`sources.open_source`).
    tokenizer: that makes the tokens.

  Raises:
    InputError: as by `open_source`, endless text, or a folder that cannot be written.
  """
  source = sources.open_source(spec, 'train')
  if not folder:
    return source
  digest = hashlib.sha256(
    f'{VERSION} {sources.identify(spec, "train")} {tokenizer.fingerprint}'.encode()
  )
  path = pathlib.Path(folder) / digest.hexdigest()[:32]
  if path not in _OPEN:  # else another seed or model of this process reads it
    _OPEN[path] = TokenCache(path, source, tokenizer)
    atexit.register(_OPEN[path].write)
  return _OPEN[path]


class TokenCache:
  """A source whose documents are int32 [2, n]: ids, and the bytes that each covers.

  A document is tokenized when it is read first. `SHARD_TOKENS` tokens at once are written to the
  folder, and the rest when no document is missing, or at the end of the process.

  Raises:
    InputError: the folder cannot be written; on reading, a damaged shard.
  """

  def __init__(self, folder: pathlib.Path, source: Source, tokenizer: Tokenizer):
    # Here, not in a thread that reads: while TFDS is imported it replaces what `import` does.
    import tensorflow_datasets.proto  # noqa: F401

    self._folder, self._source, self._tokenizer = folder, source, tokenizer
    self._places = np.full((len(source), 2), -1, np.int32)  # of each document: shard, record
    self._shards: list[pathlib.Path] = []
    self._new: dict[int, Coded] = {}  # tokenized, but not written
    self._tokens = 0  # of these
    self._missing = len(source)  # documents that are in no shard
    self._lock = threading.Lock()
    self._reader = functools.lru_cache(maxsize=256)(token_records.Shard)
    try:
      folder.mkdir(parents=True, exist_ok=True)
      for note in sorted(folder.glob('*.json')):
        self._know(note.with_suffix('.array_record'), json.loads(note.read_text()))
    except (OSError, ValueError, IndexError) as error:
      raise InputError(f'the token cache {folder} cannot be used ({error}): delete it.') from error

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, index: int) -> np.ndarray:
    index = range(len(self))[index]
    with self._lock:
      coded, (shard, record) = self._new.get(index), self._places[index].tolist()
    if coded is None and shard >= 0:
      coded = self._reader(self._shards[shard])[record]
    elif coded is None:
      [coded] = self._tokenizer.cover_batch([self._source[index]])
      self._add(index, coded)
    return np.stack([coded.ids, coded.byte_lengths])

  def _know(self, shard: pathlib.Path, documents: list[int]) -> None:
    self._places[documents, 0] = len(self._shards)
    self._places[documents, 1] = np.arange(len(documents))
    self._shards.append(shard)
    self._missing = int(np.count_nonzero(self._places[:, 0] < 0))

  def _add(self, index: int, coded: Coded) -> None:
    """Keeps a document, and writes a shard if there are enough, or all."""
    with self._lock:
      if index in self._new or self._places[index, 0] >= 0:
        return  # another thread read it at the same moment
      self._new[index] = coded
      self._tokens += coded.ids.size
      if self._tokens >= SHARD_TOKENS or len(self._new) >= self._missing:
        self._write()

  def write(self) -> None:
    """Writes the documents that are in memory only, as at the end of the process."""
    with self._lock:
      if self._new:
        self._write()

  def _write(self) -> None:
    shard = self._folder / f'tokens-{uuid.uuid4().hex}.array_record'
    with token_records.writing(shard) as add:
      for one in self._new.values():
        add(one)
    atomic.write(shard.with_suffix('.json'), json.dumps(list(self._new)))
    self._know(shard, list(self._new))
    self._new, self._tokens = {}, 0
