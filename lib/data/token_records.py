# SPDX-License-Identifier: Apache-2.0
"""Documents as tokens in the files of a TFDS set: array_record shards, with its metadata."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lib.tokenizers.coding.stepping import Coded

NAME = 'tokens'  # of the set


def shard_name(split: str, shard: int, shards: int) -> str:
  """TFDS's name for a shard's file."""
  return f'{NAME}-{split}.array_record-{shard:05}-of-{shards:05}'


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[Callable[[Coded], int]]:
  """Yields a function that adds a document and gives the bytes of its record.

  The file takes its place when the block ends.
  """
  from array_record.python.array_record_module import ArrayRecordWriter

  serialise = _serialiser()
  partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
  try:
    writer = ArrayRecordWriter(os.fspath(partial), 'group_size:1')

    def add(coded: Coded) -> int:
      record = serialise(coded)
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


def read(record: Mapping[str, Any]) -> Coded:
  """The document of a record as TFDS reads it."""
  ids, byte_lengths = record['ids'].astype(np.int32), record['byte_lengths'].astype(np.int32)
  return Coded(ids, byte_lengths, int(record['size']), int(record['crc']))


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


def _serialiser() -> Callable[[Coded], bytes]:
  from tensorflow_datasets.core import example_serializer

  features = _features()
  serializer = example_serializer.ExampleSerializer(features.get_serialized_info())

  def serialise(coded: Coded) -> bytes:
    example = serializer.get_tf_example(
      features.encode_example({field: getattr(coded, field) for field in features})
    )
    # The fields are a map, which every process would write in an order of its own.
    return example.SerializeToString(deterministic=True)

  return serialise
