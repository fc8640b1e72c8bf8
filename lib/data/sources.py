# SPDX-License-Identifier: Apache-2.0
"""Sources: random access to documents as bytes: the stdlib, own files, TFDS, n-gram laws."""

import math
import os
from collections.abc import Mapping
from typing import Any, Protocol

from lib import cache
from lib.data import files
from lib.errors import InputError

STDLIB = {'stdlib': 'all', 'stdlib/prose': 'prose', 'stdlib/source': 'source'}  # spec -> config


class Source(Protocol):
  """Random access to documents."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> bytes: ...


class Records:
  """The `text` field of a TFDS data source, as bytes."""

  def __init__(self, records: Any):
    self._records = records

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> bytes:
    text = read_record(self._records, index)['text']
    return text.encode() if isinstance(text, str) else bytes(text)


def open_source(spec: str, split: str, data_dir: str | os.PathLike | None = None) -> Source:
  """Documents of one split of `stdlib[/prose|/source]`, `tfds:NAME[/CONFIG]` or own files.

  `ngram:SOURCE` is endless text from the n-gram law of any of them (`lib.data.ngram_text`).

  `data_dir` holds prepared TFDS sets: by default the cache folder for the stdlib corpus, which is
  made on first use, and TFDS's own folder for the others, which must be there.
  """
  if spec.startswith('ngram:'):
    from lib.data import ngram_text  # which reads sources itself

    return ngram_text.open_text(spec, split)
  if spec.startswith('tfds:'):
    return _open_tfds(spec.removeprefix('tfds:'), split, data_dir)
  if spec in STDLIB:
    from lib.data import stdlib_text  # TFDS takes a second to import: only where it is used

    builder = stdlib_text.prepare(STDLIB[spec], data_dir or cache.folder('data'))
    return Records(open_records(builder, split))
  if spec.startswith('stdlib/'):
    raise InputError(
      f'source {spec!r} does not exist; choose stdlib, stdlib/prose or stdlib/source '
      '(own files in a folder of that name: ./stdlib/...).'
    )
  return files.open_files(spec, split)


def take(source: Source, limit_bytes: int | None = None) -> list[bytes]:
  """The documents in order, the last one cut, up to `limit_bytes` in all.

  TFDS shuffles documents when it prepares a set; files come by path.
  """
  documents: list[bytes] = []
  room = math.inf if limit_bytes is None else limit_bytes
  for index in range(len(source)):
    if room <= 0:
      break
    document = source[index]
    documents.append(document if len(document) <= room else document[: int(room)])
    room -= len(documents[-1])
  return documents


def _open_tfds(name: str, split: str, data_dir: str | os.PathLike | None) -> Records:
  builder = open_prepared(name, data_dir)
  if 'text' not in builder.info.features:
    raise InputError(
      f"tfds:{name} has no field 'text' but {sorted(builder.info.features)}; "
      'choose a set whose documents are a text field.'
    )
  return Records(open_records(builder, split))


def read_record(records: Any, index: int) -> Mapping[str, Any]:
  """One record of `open_records`, whose reader holds it against the checksums in its file.

  Raises:
    InputError: the file is damaged or cut short.
  """
  try:
    return records[index]
  except RuntimeError as error:
    reason = str(error).split('; ')[0]
    raise InputError(
      f'record {index} of the data cannot be read ({reason}): make or fetch its file again.'
    ) from error


def open_prepared(name: str, data_dir: str | os.PathLike | None = None) -> Any:
  """A TFDS set as a builder over its files alone: neither its code nor a network is asked.

  Raises:
    InputError: no such set is prepared.
  """
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import read_only_builder

  try:
    return read_only_builder.builder_from_files(name, data_dir=data_dir)
  except (tfds.core.DatasetNotFoundError, ValueError) as error:
    place = data_dir or tfds.core.constants.DATA_DIR
    raise InputError(
      f'no prepared TFDS set {name!r} lies below {place}; prepare it once as array_record '
      '(docs/data.md), and name its config if it has several.'
    ) from error


def open_records(builder: Any, split: str) -> Any:
  """Random access to the records (dicts of features) of one split of `open_prepared`.

  Raises:
    InputError: a set that only TensorFlow reads, or a split that is missing or empty.
  """
  name = builder.info.full_name
  try:
    records = builder.as_data_source(split)
  except NotImplementedError as error:
    raise InputError(
      f'{name} is prepared as {builder.info.file_format.value}, which only TensorFlow reads; '
      'convert it once to array_record (docs/data.md).'
    ) from error
  except ValueError as error:
    raise InputError(
      f'{name} has no split {split!r}; it has {", ".join(sorted(builder.info.splits))}.'
    ) from error
  if not len(records):
    raise InputError(f'the split {split!r} of {name} is empty; choose another.')
  return records
