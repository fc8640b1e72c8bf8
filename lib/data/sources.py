# SPDX-License-Identifier: Apache-2.0
"""Sources: random access to documents as bytes: the stdlib, own files, TFDS, n-gram laws."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any, Protocol

import numpy as np

from lib import cache
from lib.data import description, overlap, own_files, token_records
from lib.data.description import Description
from lib.data.overlap import Overlap
from lib.errors import InputError
from lib.tokenizers import utf8

STDLIB = {'stdlib': 'all', 'stdlib/prose': 'prose', 'stdlib/source': 'source'}  # spec -> config

ENDS = 2**16  # bytes of a file at either end by which it is identified
TRAIN_SAMPLE, HELD_SAMPLE = 4_000_000, 500_000  # bytes that describe a stream


class Source(Protocol):
  """Random access to documents."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> bytes: ...


class InTurn:
  """One document of each of several sources in turn; a short source begins again."""

  def __init__(self, *turns: Source):
    self._turns = turns

  def __len__(self) -> int:
    return len(self._turns) * max(map(len, self._turns))

  def __getitem__(self, index: int) -> bytes:
    turn, which = divmod(index, len(self._turns))
    return self._turns[which][turn % len(self._turns[which])]


class Records:
  """The `text` field of a TFDS data source, as bytes."""

  def __init__(self, records: Any):
    self._records = records

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> bytes:
    text = read_record(self._records, index)['text']
    return text.encode() if isinstance(text, str) else bytes(text)


class Part:
  """Every `count`-th document of a source, from `first`."""

  def __init__(self, source: Any, first: int, count: int):
    self._source, self._first, self._count = source, first, count

  def __len__(self) -> int:
    return len(range(self._first, len(self._source), self._count))

  def __getitem__(self, index: int) -> bytes:
    return self._source[self._first + index * self._count]


def open_source(spec: str, split: str, data_dir: str | os.PathLike | None = None) -> Source:
  """Documents of one split of `stdlib[/prose|/source]`, `tfds:NAME[/CONFIG]` or own files.

  `ngram:SOURCE` is endless text from the n-gram law of any of them (`lib.data.ngram_text`).

  `data_dir` is the folder of prepared TFDS sets: by default the cache folder for the stdlib corpus,
  which is made on first use, and TFDS's folder for the others, which must exist.

  Validation and test share no text with train (`lib.data.overlap`), except in TFDS sets, which keep
  their splits. Of a TFDS set without a test split, such as c4, validation and test are every second
  document of its validation.
  """
  if spec.startswith('tfds:'):
    return _open_tfds(spec.removeprefix('tfds:'), split, data_dir)
  if spec.startswith('ngram:'):
    from lib.data import ngram_text  # which reads sources itself

    return ngram_text.open_text(spec, split)
  if spec in STDLIB:
    return Records(open_records(_stdlib(spec, data_dir), split))
  if spec.startswith('stdlib/'):
    raise InputError(
      f'source {spec!r} does not exist; choose stdlib, stdlib/prose or stdlib/source '
      '(own files in a folder of that name: ./stdlib/...).'
    )
  return own_files.open_files(spec, split)


def describe(spec: str, data_dir: str | os.PathLike | None = None) -> Description:
  """A description of a source: sizes, scripts, irregularities, and the overlap of its splits.

  It takes one pass over the text; the result is cached by the documents' digest.
  A TFDS set, which may be a stream from a bucket, and endless text are described by a sample.

  Raises:
    InputError: as by `open_source`.
  """
  if spec.startswith('tfds:'):
    builder = open_prepared(spec.removeprefix('tfds:'), data_dir)
    there = {*builder.info.splits} | ({'test'} if _test_of_validation(builder) else set())
    return _describe_sample(spec, [split for split in own_files.SPLITS if split in there], data_dir)
  if spec.startswith('ngram:'):
    return _describe_sample(spec, own_files.SPLITS, data_dir)
  if spec in STDLIB:
    builder = _stdlib(spec, data_dir)
    texts = {split: sample(Records(open_records(builder, split))) for split in own_files.SPLITS}
    figures = builder.info.metadata['overlaps']
    overlaps = {split: Overlap(*figures[split]) for split in figures}
    return description.kept(
      Description(spec, _counts(texts), _sizes(texts), overlaps, description.digest(texts)),
      lambda: [[document] for split in texts.values() for document in split],
      lambda: texts['train'],
    )
  corpus = own_files.open_corpus(spec)
  return description.kept(
    Description(
      spec,
      _counts(corpus.splits),
      {split: one.size for split, one in corpus.splits.items()},
      corpus.overlaps,
      corpus.digest,
      len(corpus.files),
      corpus.copies,
    ),
    lambda: map(own_files.blocks, corpus.files),
    lambda: sample(corpus.splits['train'], HELD_SAMPLE),
  )


def _describe_sample(
  spec: str, names: Sequence[str], data_dir: str | os.PathLike | None
) -> Description:
  splits = {split: open_source(spec, split, data_dir) for split in names}
  texts = {
    split: sample(source, TRAIN_SAMPLE if split == 'train' else HELD_SAMPLE)
    for split, source in splits.items()
  }
  sampled = _counts(texts) != _counts(splits) or any(
    size >= HELD_SAMPLE for size in _sizes(texts).values()
  )
  sizes = {
    split: size * len(splits[split]) // max(len(texts[split]), 1)
    for split, size in _sizes(texts).items()
  }
  train = texts.get('train', [])
  shares = {split: overlap.share(texts[split], train) for split in names if split != 'train'}
  return description.measured(
    Description(
      spec,
      _counts(splits),
      sizes,
      {split: Overlap(before=share, after=share, kept=1.0) for split, share in shares.items()},
      description.digest(texts),
      sampled=sampled,
    ),
    [[document] for split in texts.values() for document in split],
    train,
  )


def identify(spec: str, split: str) -> str:
  """A digest (hex) of the documents of a split, or of properties that identify their version.

  Own files and the embedded corpus are read whole. Of a TFDS set it is the size, the beginning and
  the end, where its index is, of each file.

  Raises:
    InputError: as by `open_source`, or for endless text.
  """
  if spec.startswith('ngram:'):
    raise InputError(f'{spec} is endless text, which is never read twice: give no token_cache.')
  if not spec.startswith(('tfds:', *STDLIB)):
    return f'{own_files.open_corpus(spec).digest} {split}'
  if spec in STDLIB:
    return description.digest({split: sample(open_source(spec, split))})
  info = open_prepared(spec.removeprefix('tfds:')).info.splits[split]
  found = hashlib.sha256(repr(info.shard_lengths).encode())
  for path in info.filepaths:
    with path.open('rb') as file:
      size = file.seek(0, os.SEEK_END)
      for start in (0, max(0, size - ENDS)):
        file.seek(start)
        found.update(b'%d ' % size + file.read(ENDS))
  return found.hexdigest()


def _counts(splits: Mapping[str, Sized]) -> dict[str, int]:
  return {split: len(documents) for split, documents in splits.items()}


def _sizes(texts: Mapping[str, Sequence[bytes]]) -> dict[str, int]:
  return {split: sum(map(len, documents)) for split, documents in texts.items()}


def sample(source: Source, limit_bytes: int | None = None, seed: int = 0) -> list[bytes]:
  """A random sample of the documents of the whole split, in the split's order.

  Documents are sampled until `limit_bytes` are reached; the last one is cut to fit, between UTF-8
  characters. The sample is stratified: any number of documents is spread evenly over the split, so
  folders of three languages are sampled in proportion to their sizes.

  Args:
    source: the split.
    limit_bytes: the most bytes of the sample; by default all documents are returned.
    seed: of the sample.
  """
  if limit_bytes is None:
    return [source[index] for index in range(len(source))]
  drawn: dict[int, bytes] = {}
  room = limit_bytes
  for index in stratified(len(source), seed):
    if room <= 0:
      break
    document = source[index]
    drawn[index] = document[: utf8.boundary(document, min(room, len(document)))]
    room -= len(document)
  return [drawn[index] for index in sorted(drawn)]


def stratified(count: int, seed: int) -> Iterator[int]:
  """A random order of `range(count)`; any first part of it is spread evenly over the range.

  The van der Corput sequence with nested uniform scrambling (Owen 1995, Randomly permuted
  (t,m,s)-nets and (t,s)-sequences): the first 2**k values are one in each of 2**k equal parts.
  """
  bits = max(count - 1, 0).bit_length()
  for draw in range(1 << bits):
    index = 0
    for level in range(bits):  # the half, the quarter, ... that the draw falls into
      flip = hashlib.blake2b(b'%d %d %d' % (seed, level, index), digest_size=1).digest()[0]
      index = index << 1 | ((draw >> level ^ flip) & 1)
    if index < count:
      yield index


def _stdlib(spec: str, data_dir: str | os.PathLike | None) -> Any:
  from lib.data import stdlib_text  # TFDS takes a second to import

  return stdlib_text.prepare(STDLIB[spec], data_dir or cache.folder('data'))


def _open_tfds(name: str, split: str, data_dir: str | os.PathLike | None) -> Source:
  builder = open_prepared(name, data_dir)
  if 'text' not in builder.info.features:
    raise InputError(
      f"tfds:{name} has no field 'text' but {sorted(builder.info.features)}; "
      'choose a set whose documents are a text field.'
    )
  if split in ('validation', 'test') and _test_of_validation(builder):
    whole = Records(open_records(builder, 'validation'))
    return Part(whole, ('validation', 'test').index(split), 2)
  return Records(open_records(builder, split))


def _test_of_validation(builder: Any) -> bool:
  """Whether a set's validation split is halved, since it has no test split."""
  return 'validation' in builder.info.splits and 'test' not in builder.info.splits


def read_record(records: Any, index: int) -> Mapping[str, Any]:
  """One record of `open_records`, whose reader verifies the checksums in its file.

  Raises:
    InputError: the file is damaged or cut short; the sentence names it and the record in it.
  """
  try:
    return records[index]
  except (RuntimeError, ValueError) as error:
    split = records.dataset_info.splits[records.split]
    ends = np.cumsum(split.shard_lengths)
    shard = int(np.searchsorted(ends, index, side='right'))
    record = index - int(ends[shard] - split.shard_lengths[shard])
    raise token_records.damaged(split.filepaths[shard], record, error) from error


def open_prepared(name: str, data_dir: str | os.PathLike | None = None) -> Any:
  """A TFDS set as a builder over its files alone, without its code and without a network.

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
      f'there is no prepared TFDS set {name!r} below {place}; prepare it once as array_record '
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
