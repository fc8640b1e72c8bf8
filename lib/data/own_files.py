# SPDX-License-Identifier: Apache-2.0
"""The user's own files as documents: chunks of at most 64 KiB, read by offset on demand."""

import codecs
import contextlib
import dataclasses
import functools
import hashlib
import json
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lib import atomic, cache
from lib.data import overlap, paths
from lib.errors import InputError
from lib.tokenizers import utf8

SPLITS = ('train', 'validation', 'test')
CHUNK = 64 * 1024  # bytes: the longest document
FEW = 10  # with fewer files than this each file is cut into splits, else a split is a set of files
HEAD = 4096  # bytes of a file that show whether it is UTF-16 or UTF-32
MARK = b'\xef\xbb\xbf'  # the byte order mark of UTF-8
SEPARATORS = ' \n\u3001\u3002\uff0c'  # the last three end the clauses of Chinese and Japanese
WIDE = {  # encodings other than UTF-8, by their byte order marks; the longer marks come first
  'utf-32-le': b'\xff\xfe\0\0',
  'utf-32-be': b'\0\0\xfe\xff',
  'utf-16-le': b'\xff\xfe',
  'utf-16-be': b'\xfe\xff',
}


class File(NamedTuple):
  """A file of text.

  Attributes:
    path: absolute.
    start: its first byte of text: a byte order mark is left out.
    size: its end.
    digest: sha256 of its text.
  """

  path: str
  start: int
  size: int
  digest: bytes


Span = tuple[int, int, int]  # index of the file, first byte, end


class FileChunks:
  """Random access to documents, each of one or more spans of files, kept as offsets."""

  def __init__(self, names: Sequence[str], documents: Sequence[Sequence[Span]]):
    """`documents` are the spans of each document, whose files are indices of `names`."""
    self._paths = list(names)
    self._spans = np.array([span for spans in documents for span in spans], np.int64)
    self._ends = np.cumsum([len(spans) for spans in documents], dtype=np.int64)

  def __len__(self) -> int:
    return len(self._ends)

  def __getitem__(self, index: int) -> bytes:
    end = int(self._ends[index])
    begin = int(self._ends[index - 1]) if index % len(self) else 0
    return b''.join(self._read(*span) for span in self._spans[begin:end].tolist())

  @property
  def size(self) -> int:
    """Bytes of all documents."""
    return int((self._spans[:, 2] - self._spans[:, 1]).sum()) if len(self) else 0

  def _read(self, file: int, start: int, stop: int) -> bytes:
    with _opened(self._paths[file]) as stream:
      stream.seek(start)
      chunk = stream.read(stop - start)
    if len(chunk) < stop - start:
      raise InputError(
        f'{self._paths[file]} became shorter while in use; leave the files of a corpus alone '
        'during a run.'
      )
    return chunk


@dataclasses.dataclass(frozen=True)
class Corpus:
  """Own files, split.

  Attributes:
    files: the files with text, each content once.
    copies: files left out because another has the same content.
    splits: split -> its documents, possibly none.
    overlaps: split -> overlap of validation and test with train, before and after cutting.
    digest: of the documents of all splits.
  """

  files: Sequence[File]
  copies: int
  splits: Mapping[str, FileChunks]
  overlaps: Mapping[str, overlap.Overlap]
  digest: str


def open_files(pattern: str, split: str) -> FileChunks:
  """Chunks of one split of the files that `pattern` (a file, a folder or a glob) names.

  From ten files on, the files ordered by a hash of their path below the common parent are split
  80/10/10; with fewer files, each is cut after 80 % and 90 % of its bytes. Chunks end at line ends,
  and inside a line (between UTF-8 characters) only where it is longer than a chunk, or where the
  text is so short that a split would be empty. A file counts once, even with several names or
  copies. Text of train is cut out of validation and test (`lib.data.overlap`).
  """
  if split not in SPLITS:
    raise InputError(f'split {split!r} of {pattern!r} does not exist; choose {_either(SPLITS)}.')
  found = open_corpus(pattern)
  chunks = found.splits[split]
  if not len(chunks):
    cut = found.overlaps.get(split)
    if cut and cut.before:
      raise InputError(
        f'all text of the {split} split of {pattern!r} is also in its other splits; give '
        'text that repeats itself less.'
      )
    raise InputError(f'the {split} split of {pattern!r} is empty; give more or longer text.')
  return chunks


def open_corpus(pattern: str) -> Corpus:
  """All splits of the files that `pattern` names, cached while the files do not change.

  Raises:
    InputError: no file, none with text, one that cannot be read, or one in UTF-16 or UTF-32.
  """
  names = tuple(paths.find_files(pattern))
  found = _corpus(tuple(_stamped(name) for name in names))
  if not found.files:
    raise InputError(f'{pattern!r} contains no bytes; give files with text.')
  return found


def blocks(file: File) -> Iterator[bytes]:
  """The text of a file in blocks of a megabyte."""
  with _opened(file.path) as stream:
    stream.seek(file.start)
    while block := stream.read(1 << 20):
      yield block


Stamp = tuple[str, int, int]  # path, bytes, nanoseconds of the last change


def _stamped(path: str) -> Stamp:
  status = os.stat(path)
  return path, status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=8)
def _corpus(stamps: tuple[Stamp, ...]) -> Corpus:
  files: dict[bytes, File] = {}
  texts = 0
  for stamp in stamps:
    file = _file(*stamp)
    if file.start < file.size:
      texts += 1
      files.setdefault(file.digest, file)
  once = list(files.values())
  documents = _documents(once)
  chunks = {split: FileChunks([file.path for file in once], documents[split]) for split in SPLITS}
  digest = _digest(once, documents)
  cuts = _cuts(chunks, digest)
  for split, cut in cuts.items():
    kept = [
      _parts(spans, pieces)
      for spans, pieces in zip(documents[split], cut.pieces, strict=True)
      if pieces
    ]
    chunks[split] = FileChunks([file.path for file in once], kept)
  overlaps = {split: cut.overlap for split, cut in cuts.items()}
  return Corpus(once, texts - len(once), chunks, overlaps, digest)


@functools.lru_cache(maxsize=1 << 16)
def _file(path: str, size: int, changed: int) -> File:
  del changed  # a changed file is a new file
  with _opened(path) as stream:
    head = stream.read(HEAD)
    _check_narrow(path, head)
    start = len(MARK) if head.startswith(MARK) else 0
    stream.seek(start)
    digest = hashlib.file_digest(stream, 'sha256').digest()
  return File(path, start, size, digest)


def _check_narrow(path: str, head: bytes) -> None:
  """Raises InputError for text in UTF-16 or UTF-32, with or without a byte order mark."""
  marked = [name for name, mark in WIDE.items() if head.startswith(mark)][:1]
  for encoding in marked or WIDE:
    try:
      text = codecs.getincrementaldecoder(encoding)().decode(head).removeprefix('\ufeff')
    except UnicodeDecodeError:
      continue
    if not (marked or _padded(head, encoding) or _separated(head, encoding)):
      continue
    if sum(one.isprintable() or one.isspace() for one in text) >= 0.95 * len(text):
      name = encoding.upper()
      raise InputError(
        f'{path} is text in {name}; convert it to UTF-8 (iconv -f {name} -t UTF-8 FILE > NEW).'
      )


def _padded(head: bytes, encoding: str) -> bool:
  """Whether bytes are 0 where they are in Latin text of an encoding, and only there."""
  width = int(encoding[4:6]) // 8
  head = head[: len(head) // width * width]
  low = 0 if encoding.endswith('le') else width - 1  # the place of the byte that is not 0
  others = len(head) - head.count(0) - len(head[low::width])  # bytes elsewhere that are not 0
  return bool(head) and not head[low::width].count(0) and others < 0.1 * len(head)


def _separated(head: bytes, encoding: str) -> bool:
  """Whether 1 % or more of the characters in an encoding are spaces, line ends or stops.

  Each of these characters has a byte below 32 there, which other encodings do not use for text.
  Lines that end with a zero byte look like such characters too, but at even and odd places alike.
  """
  here, between = (
    sum(map(data.decode(encoding, 'replace').count, SEPARATORS)) for data in (head, head[1:])
  )
  return 100 * here * int(encoding[4:6]) // 8 > len(head) and 4 * between <= here


def _documents(files: Sequence[File]) -> dict[str, list[list[Span]]]:
  """The spans of the documents of each split."""
  if len(files) >= FEW:
    portions = _by_file(files)
  else:
    portions = _by_position(files, _line_end)
    if not all(portions.values()):  # lines are cut only if a split would have no text
      portions = _by_position(files, lambda data, start, at: utf8.boundary(data, at))
  found: dict[str, list[list[Span]]] = {}
  for split, parts in portions.items():
    found[split] = []
    for file, start, stop in parts:
      with _mapped(files[file].path) as data:
        found[split] += [[(file, *span)] for span in _chunks(data, start, stop)]
  return found


Portions = dict[str, list[Span]]


def _by_file(files: Sequence[File]) -> Portions:
  """Whole files in the order of a hash, such that no split of ten files is empty."""
  parent = os.path.commonpath([os.path.dirname(file.path) for file in files])

  def order(file: int) -> bytes:
    name = os.path.relpath(files[file].path, parent).replace(os.sep, '/')
    return hashlib.sha256(os.fsencode(name)).digest()

  dealt = sorted(range(len(files)), key=order)
  ends = _tenths(0, len(files))
  return {
    split: [(file, files[file].start, files[file].size) for file in sorted(dealt[start:stop])]
    for split, start, stop in zip(SPLITS, ends, ends[1:], strict=False)
  }


def _by_position(files: Sequence[File], place) -> Portions:
  """Of each file the first 80 % of the bytes, the next and the last 10 %.

  `place(data, start, at)` moves an end `at` back to where a document may end.
  """
  portions: Portions = {split: [] for split in SPLITS}
  for index, file in enumerate(files):
    with _mapped(file.path) as data:
      ends = _tenths(file.start, file.size)
      ends[1:3] = [max(file.start, place(data, file.start, at)) for at in ends[1:3]]
    for split, start, stop in zip(SPLITS, ends, ends[1:], strict=False):
      if start < stop:
        portions[split].append((index, start, stop))
  return portions


def _tenths(start: int, stop: int) -> list[int]:
  size = stop - start
  return [start, start + size * 8 // 10, start + size * 9 // 10, stop]


def _chunks(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int]]:
  while start < stop:
    end = stop if start + CHUNK >= stop else _line_end(data, start, start + CHUNK)
    yield start, end
    start = end


def _line_end(data: mmap.mmap, start: int, at: int) -> int:
  """The last line end at or before `at`; inside a line where it is longer than a chunk."""
  if at in (start, len(data)):
    return at
  newline = data.rfind(b'\n', max(start, at - CHUNK), at)
  if newline >= 0:
    return newline + 1
  if at - start < CHUNK:  # the first line is not known to be longer than a chunk
    return start
  return utf8.boundary(data, at)


def _parts(spans: Sequence[Span], pieces: overlap.Pieces) -> list[Span]:
  """The kept spans of a document of one span."""
  [(file, begin, _)] = spans
  return [(file, begin + start, begin + stop) for start, stop in pieces]


def _digest(files: Sequence[File], documents: Mapping[str, Sequence[Sequence[Span]]]) -> str:
  """Of the documents of all splits before cutting, and of the rules by which they are cut."""
  found = hashlib.sha256(b'%d' % overlap.VERSION)
  for split in SPLITS:
    for spans in documents[split]:
      for file, start, stop in spans:
        found.update(b'%s %s %d %d\n' % (split.encode(), files[file].digest, start, stop))
  return found.hexdigest()


def _cuts(chunks: Mapping[str, FileChunks], digest: str) -> dict[str, overlap.Cut]:
  """The kept parts of validation and test, computed once and cached."""
  known = cache.folder('overlap') / f'{digest}.json'
  try:
    cuts = {
      split: overlap.Cut(pieces, overlap.Overlap(*figures))
      for split, (pieces, figures) in json.loads(known.read_text()).items()
    }
  except (OSError, KeyError, TypeError, ValueError):
    cuts = overlap.clean(chunks['train'], chunks['validation'], chunks['test'])
    with contextlib.suppress(OSError):  # without a cache only time is lost
      known.parent.mkdir(parents=True, exist_ok=True)
      atomic.write(known, json.dumps(cuts))
  return cuts


@contextlib.contextmanager
def _mapped(path: str) -> Iterator[mmap.mmap]:
  with _opened(path) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
    yield data


@contextlib.contextmanager
def _opened(path: str):
  try:
    with open(path, 'rb') as stream:
      yield stream
  except OSError as error:
    raise InputError(f'cannot read {path} ({error.strerror}); give files you can read.') from error


def _either(names: Sequence[str]) -> str:
  return ', '.join(names[:-1]) + f' or {names[-1]}'
