# SPDX-License-Identifier: Apache-2.0
"""A corpus as tokens, made once: array_record shards with TFDS's metadata, restartable by shard.

A folder contains splits of one source under one tokenizer:

  SPLIT.plan.json                           the parameters of the split, written first
  tokens-SPLIT.array_record-00000-of-00004  a shard: documents in the source's order
  done/SPLIT-00000.json                     counts of the shard, written after it
  dataset_info.json, features.json          TFDS's metadata, once a split is complete

A shard is complete or absent. It depends only on the plan and its number, so writing it again gives
the same bytes.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from lib import atomic
from lib.data import token_records
from lib.data.sources import Source, read_record
from lib.errors import InputError
from lib.tokenizers.base import Coded, Tokenizer

FORMAT = 1
Record = TypeVar('Record', 'ShardPlan', 'Shard')
Note = Callable[[int], None]  # called with the number of further documents that are done


@dataclasses.dataclass(frozen=True)
class ShardPlan:
  """The parameters of one split of an encoded corpus.

  Attributes:
    source: the spec of `lib.data.sources`.
    split: of the source.
    documents: their number.
    shards: number of files; their numbers of documents differ by one at most.
    family, vocab_size, fingerprint: the tokenizer's.
    format: of the folder.
  """

  source: str
  split: str
  documents: int
  shards: int
  family: str
  vocab_size: int
  fingerprint: str
  format: int = FORMAT

  def __post_init__(self):
    if not 1 <= self.shards <= 99_999:
      raise ValueError(f'{self.shards} shards')

  def span(self, shard: int) -> range:
    """The documents of a shard."""
    first, stop = (self.documents * k // self.shards for k in (shard, shard + 1))
    return range(first, stop)

  def shard_name(self, shard: int) -> str:
    """TFDS's name for a shard's file."""
    return token_records.shard_name(self.split, shard, self.shards)


@dataclasses.dataclass(frozen=True)
class Shard:
  """Counts of a shard: documents, tokens, bytes of text, and bytes of its records."""

  documents: int
  tokens: int
  text_bytes: int
  record_bytes: int


def make_plan(
  spec: str, split: str, source: Source, tokenizer: Tokenizer, shards: int | None = None
) -> ShardPlan:
  """The plan for a source; by default a shard has some 256 documents, and there are at most 1,024.

  Raises:
    InputError: fewer than 1 shard, or more than documents.
  """
  count = len(source)
  if shards is None:
    shards = min(-(-count // 256), 1024)
  if not 1 <= shards <= min(count, 99_999):
    raise InputError(f'{shards} shards for {count} documents: choose 1 to {min(count, 99_999)}')
  return ShardPlan(
    spec, split, count, shards, tokenizer.family, tokenizer.vocab_size, tokenizer.fingerprint
  )


def begin(folder: str | os.PathLike, plan: ShardPlan) -> None:
  """Makes the folder, or continues an existing one.

  Raises:
    InputError: a folder with another plan for the split, or another source or tokenizer.
  """
  folder = pathlib.Path(folder)
  try:
    (folder / 'done').mkdir(parents=True, exist_ok=True)
    for known in plans(folder):
      same = dataclasses.replace(known, split=plan.split, documents=plan.documents)
      if known.split != plan.split:
        same = dataclasses.replace(same, shards=plan.shards)
      elif known.documents != plan.documents:
        raise InputError(
          f'{plan.source} has {plan.documents} documents where it had {known.documents} when '
          f'{folder} was started: choose a new folder'
        )
      if same != plan:
        raise InputError(
          f'{folder} contains {known.source} in {known.shards} shards under the {known.family} '
          f'tokenizer {known.fingerprint[:12]}: name those again, or choose a new folder'
        )
    path = folder / f'{plan.split}.plan.json'
    if not path.exists():
      atomic.write(path, _json(plan))
  except OSError as error:
    raise InputError(f'cannot write to {folder}: {error.strerror}') from error


def plans(folder: str | os.PathLike) -> list[ShardPlan]:
  """The plans of all splits in a folder."""
  return [_read_json(ShardPlan, path) for path in sorted(pathlib.Path(folder).glob('*.plan.json'))]


def finished(folder: str | os.PathLike, plan: ShardPlan, shard: int) -> Shard | None:
  """A shard's counts if it is there, else None."""
  note = _done(folder, plan, shard)
  if note.exists() and (pathlib.Path(folder) / plan.shard_name(shard)).exists():
    return _read_json(Shard, note)
  return None


def write_shard(
  folder: str | os.PathLike,
  plan: ShardPlan,
  shard: int,
  source: Source,
  tokenizer: Tokenizer,
  note: Note = lambda count: None,
) -> Shard:
  """Encodes a shard's documents and writes its file and its counts; does nothing if it is there."""
  if (known := finished(folder, plan, shard)) is not None:
    note(known.documents)
    return known
  path = pathlib.Path(folder) / plan.shard_name(shard)
  tokens = text_bytes = record_bytes = 0
  with token_records.writing(path) as add:
    for coded in _encode(source, plan.span(shard), tokenizer):
      record_bytes += add(coded)
      note(1)
      tokens, text_bytes = tokens + coded.ids.size, text_bytes + coded.size
  counts = Shard(len(plan.span(shard)), tokens, text_bytes, record_bytes)
  atomic.write(_done(folder, plan, shard), _json(counts))
  return counts


def finish(folder: str | os.PathLike) -> dict[str, list[Shard]]:
  """Writes TFDS's metadata of all complete splits; returns their shards.

  Metadata that a killed process left incomplete is deleted.
  """
  folder = pathlib.Path(folder)
  whole: dict[str, list[Shard]] = {}
  for plan in plans(folder):
    shards = [finished(folder, plan, shard) for shard in range(plan.shards)]
    if None not in shards:
      whole[plan.split] = [shard for shard in shards if shard is not None]
      for pattern in (
        f'{token_records.NAME}-{plan.split}.*.partial',
        f'done/{plan.split}-*.partial',
      ):
        for partial in folder.glob(pattern):
          partial.unlink(missing_ok=True)
  token_records.write_info(
    folder,
    f'Documents as tokens of the tokenizer {plans(folder)[0].fingerprint}.',
    {
      split: ([shard.documents for shard in shards], sum(shard.record_bytes for shard in shards))
      for split, shards in whole.items()
    },
  )
  return whole


class Corpus:
  """A source whose documents are int32 [2, n]: ids, and the bytes that each covers.

  Raises:
    InputError: a folder without a complete split of that name, or made by another tokenizer.
  """

  def __init__(self, folder: str | os.PathLike, split: str, tokenizer: Tokenizer):
    import tensorflow_datasets as tfds

    found = {plan.split: plan for plan in plans(folder)}
    known = (pathlib.Path(folder) / 'dataset_info.json').exists()
    builder = tfds.builder_from_directory(folder) if known else None
    if split not in found or builder is None or split not in builder.info.splits:
      raise InputError(
        f'{folder} contains no complete encoded split {split!r}: make it, or its rest, with '
        '`experiments.tools.compress corpus`'
      )
    if found[split].fingerprint != tokenizer.fingerprint:
      raise InputError(
        f'{folder} was made by the tokenizer {found[split].fingerprint[:12]}; this one is '
        f'{tokenizer.fingerprint[:12]}: give the file that it was made with'
      )
    self.plan = found[split]
    self._records = builder.as_data_source(split)

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> np.ndarray:
    coded = self.coded(index)
    return np.stack([coded.ids, coded.byte_lengths])

  def coded(self, index: int) -> Coded:
    """A document with the size and the CRC32 of its text."""
    return token_records.read(read_record(self._records, index))


def _encode(source: Source, indices: Iterable[int], tokenizer: Tokenizer) -> Iterator[Coded]:
  group: list[bytes] = []
  for index in indices:
    group.append(source[index])
    if len(group) == tokenizer.preferred_batch:
      yield from tokenizer.cover_batch(group)
      group = []
  yield from tokenizer.cover_batch(group)


def _done(folder: str | os.PathLike, plan: ShardPlan, shard: int) -> pathlib.Path:
  return pathlib.Path(folder) / 'done' / f'{plan.split}-{shard:05}.json'


def _json(content: ShardPlan | Shard) -> str:
  return json.dumps(dataclasses.asdict(content), indent=1) + '\n'


def _read_json(kind: type[Record], path: pathlib.Path) -> Record:
  """Reads what `_json` wrote, with a check of the type of every field."""
  try:
    content = kind(**json.loads(path.read_text()))
    for field in dataclasses.fields(kind):
      if type(getattr(content, field.name)) is not field.type:
        raise TypeError(f'{field.name} is wrong')
    return content
  except (OSError, TypeError, ValueError, RecursionError) as error:
    raise InputError(
      f'{path} cannot be read ({error}): delete it, and the shard is made again'
    ) from error
