# SPDX-License-Identifier: Apache-2.0
"""Documents as tokens in the files of a TFDS set: array_record shards, with its metadata."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from lib.errors import InputError
from lib.tokenizers.coding.stepping import Coded

NAME = 'tokens'  # of the set
FIELDS = ('ids', 'byte_lengths', 'size', 'crc')  # of a record


def shard_name(split: str, shard: int, shards: int) -> str:
  """TFDS's name for a shard's file."""
  return f'{NAME}-{split}.array_record-{shard:05}-of-{shards:05}'


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[Callable[[Coded], int]]:
  """Yields a function that adds a document and gives the bytes of its record.

  The file takes its place when the block ends.
  """
  from array_record.python.array_record_module import ArrayRecordWriter

  partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
  try:
    writer = ArrayRecordWriter(os.fspath(partial), 'group_size:1')

    def add(coded: Coded) -> int:
      record = _serialise(coded)
      writer.write(record)
      return len(record)

    try:
      yield add
    finally:
      writer.close()
    with partial.open('rb') as file:
      os.fsync(file.fileno())
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)


class Shard:
  """Random access to the documents of one file.

  Raises:
    InputError: on reading, a damaged file, which the sentence names with the record.
  """

  def __init__(self, path: os.PathLike):
    self._path = os.fspath(path)

  @functools.cached_property
  def _records(self) -> Any:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return ArrayRecordDataSource([self._path])

  def __getitem__(self, index: int) -> Coded:
    from tensorflow_datasets.proto import tf_example_pb2

    try:
      example = tf_example_pb2.Example.FromString(self._records[index])
    except (RuntimeError, ValueError, DecodeError) as error:
      raise damaged(self._path, index, error) from error
    return read(
      {name: np.array(one.int64_list.value) for name, one in example.features.feature.items()}
    )


def damaged(path: str | os.PathLike, record: int, error: Exception) -> InputError:
  """The refusal of a record that cannot be read."""
  reason = str(error).split('; ')[0] or 'the file is damaged'
  return InputError(
    f'record {record} of {os.fspath(path)} cannot be read ({reason}): make or fetch this file '
    'again.'
  )


def read(record: Mapping[str, Any]) -> Coded:
  """The document of a record: arrays by the names of its fields."""
  ids, byte_lengths = record['ids'].astype(np.int32), record['byte_lengths'].astype(np.int32)
  return Coded(ids, byte_lengths, *(np.asarray(record[field]).item() for field in ('size', 'crc')))


def write_info(
  folder: pathlib.Path, description: str, splits: Mapping[str, tuple[Sequence[int], int]]
) -> None:
  """Writes TFDS's metadata: dataset_info.json and features.json.

  Args:
    folder: of the shards.
    description: of the set.
    splits: name -> the documents of each shard, and the bytes of all its records.
  """
  import tensorflow_datasets as tfds

  template = tfds.core.ShardedFileTemplate(
    data_dir=folder, dataset_name=NAME, filetype_suffix='array_record'
  )
  infos = [
    tfds.core.SplitInfo(
      name=split,
      shard_lengths=list(lengths),
      num_bytes=size,
      filename_template=template.replace(split=split),
    )
    for split, (lengths, size) in splits.items()
  ]
  identity = tfds.core.dataset_info.DatasetIdentity(
    name=NAME, version=tfds.core.Version('1.0.0'), data_dir=os.fspath(folder), module_name=''
  )
  info = tfds.core.DatasetInfo(
    builder=identity,
    features=_features(),
    description=description,
    homepage='',
    disable_shuffling=True,  # records come in the source's order
  )
  info.set_file_format('array_record')
  info.set_splits(tfds.core.splits.SplitDict(infos))
  info.write_to_directory(folder)


def _features():
  import tensorflow_datasets as tfds

  row = tfds.features.Tensor(shape=(None,), dtype=np.int32)
  return tfds.features.FeaturesDict(
    {'ids': row, 'byte_lengths': row, 'size': np.int64, 'crc': np.int64}
  )


def _serialise(coded: Coded) -> bytes:
  from tensorflow_datasets.proto import tf_example_pb2

  example = tf_example_pb2.Example()
  for field in FIELDS:
    values = np.atleast_1d(getattr(coded, field)).tolist()
    example.features.feature[field].int64_list.value.extend(values)
  # The fields are a map, which every process would write in an order of its own.
  return example.SerializeToString(deterministic=True)
