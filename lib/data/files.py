# SPDX-License-Identifier: Apache-2.0
"""The user's own files as documents: chunks of at most 64 KiB, read by offset when asked for."""

import contextlib
import glob
import hashlib
import mmap
import os
from collections.abc import Iterator, Sequence

import numpy as np

from lib.errors import InputError

SPLITS = ('train', 'validation', 'test')
CHUNK = 64 * 1024  # bytes: the longest document
FEW = 10  # with fewer files than this a split is a stretch of bytes, else a set of files


class FileChunks:
  """Random access to spans of files; holds offsets, never text."""

  def __init__(self, paths: Sequence[str], spans: np.ndarray):
    """`spans` [chunks, 3] holds (index into `paths`, first byte, end)."""
    self._paths = list(paths)
    self._spans = spans

  def __len__(self) -> int:
    return len(self._spans)

  def __getitem__(self, index: int) -> bytes:
    file, start, stop = self._spans[index].tolist()
    with _opened(self._paths[file]) as stream:
      stream.seek(start)
      chunk = stream.read(stop - start)
    if len(chunk) < stop - start:
      raise InputError(
        f'{self._paths[file]} became shorter while in use; leave the files of a corpus alone '
        'during a run.'
      )
    return chunk


def open_files(pattern: str, split: str) -> FileChunks:
  """Chunks of one split of the files that `pattern` (a file, a folder or a glob) names.

  From ten files on, the files ordered by a hash of their path below the common parent are dealt
  80/10/10; fewer files are laid end to end and cut after 80 % and 90 % of the bytes. Chunks end at
  line ends, and inside a line (between UTF-8 characters) only where it is longer than a chunk.
  """
  if split not in SPLITS:
    raise InputError(f'split {split!r} of {pattern!r} does not exist; choose {_either(SPLITS)}.')
  paths = find_files(pattern)
  sizes = [os.path.getsize(path) for path in paths]
  if not sum(sizes):
    raise InputError(f'{pattern!r} holds no bytes; name files with text in them.')
  portions = _by_file(paths, sizes) if len(paths) >= FEW else _by_position(sizes)
  spans = []
  for file, start, stop in portions[split]:
    with _mapped(paths[file]) as data:
      start, stop = _cut(data, start), _cut(data, stop)
      spans += [(file, *span) for span in _chunks(data, start, stop)]
  if not spans:
    raise InputError(f'the {split} split of {pattern!r} is empty; give more or longer text.')
  return FileChunks(paths, np.array(spans, np.int64))


def find_files(pattern: str) -> list[str]:
  """Sorted absolute paths of the files that `pattern` names; a folder means all below it."""
  pattern = os.path.expanduser(pattern)
  if os.path.isdir(pattern):
    pattern = os.path.join(glob.escape(pattern), '**')
  names = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)
  paths = sorted({os.path.abspath(name) for name in names if os.path.isfile(name)})
  if not paths:
    raise InputError(
      f'no file matches {pattern!r}; a source is stdlib, stdlib/prose, stdlib/source, '
      'tfds:NAME, or a path or glob of your own files.'
    )
  return paths


Portions = dict[str, list[tuple[int, int, int]]]  # split -> (file, first byte, end)


def _by_file(paths: Sequence[str], sizes: Sequence[int]) -> Portions:
  """Whole files, dealt in the order of a hash so that no split of ten files is empty."""
  parent = os.path.commonpath([os.path.dirname(path) for path in paths])

  def order(file: int) -> bytes:
    name = os.path.relpath(paths[file], parent).replace(os.sep, '/')
    return hashlib.sha256(os.fsencode(name)).digest()

  dealt = sorted(range(len(paths)), key=order)
  ends = _tenths(len(paths))
  return {
    split: [(file, 0, sizes[file]) for file in sorted(dealt[start:stop]) if sizes[file]]
    for split, start, stop in zip(SPLITS, ends, ends[1:], strict=False)
  }


def _by_position(sizes: Sequence[int]) -> Portions:
  """Stretches of the files laid end to end; the ends are moved to line ends by the caller."""
  ends = _tenths(sum(sizes))
  portions: Portions = {split: [] for split in SPLITS}
  for split, start, stop in zip(SPLITS, ends, ends[1:], strict=False):
    offset = 0
    for file, size in enumerate(sizes):
      first, end = (min(max(at - offset, 0), size) for at in (start, stop))
      if first < end:
        portions[split].append((file, first, end))
      offset += size
  return portions


def _tenths(total: int) -> list[int]:
  return [0, total * 8 // 10, total * 9 // 10, total]


def _chunks(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int]]:
  while start < stop:
    end = stop if start + CHUNK >= stop else _cut(data, start + CHUNK)
    yield start, end
    start = end


def _cut(data: mmap.mmap, at: int) -> int:
  """The last place at or before `at` where a document may end."""
  if at in (0, len(data)):
    return at
  newline = data.rfind(b'\n', max(0, at - CHUNK), at)
  if newline >= 0:
    return newline + 1
  if at < CHUNK:  # the file's first line is not known to be longer than a chunk
    return 0
  for back in range(4):  # a UTF-8 character has at most three continuation bytes 10xxxxxx
    if data[at - back] & 0xC0 != 0x80:
      return at - back
  return at


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
