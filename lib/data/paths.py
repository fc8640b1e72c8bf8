# SPDX-License-Identifier: Apache-2.0
"""The files that a path, a folder or a glob names, each of them once."""

import fnmatch
import glob
import os
from collections.abc import Iterator, Sequence

from lib.errors import InputError


def find_files(pattern: str) -> list[str]:
  """Absolute paths of the files that `pattern` names, in order; a folder means all below it.

  Links that a folder or a wildcard contains are not followed, so a folder with a link to itself
  ends; a link that the pattern itself names is followed. A file with several names (hard links)
  counts once, under the first of them. Hidden files and folders are left out, as in a shell, unless
  a part of the pattern begins with a dot.

  Raises:
    InputError: there is no such file, or a folder that cannot be read.
  """
  pattern = os.path.expanduser(pattern)
  if os.path.isfile(pattern):
    names: Iterator[str] = iter([pattern])
  elif os.path.isdir(pattern):
    names = _below(pattern, ['**'])
  else:
    drive, parts = os.path.splitdrive(pattern)
    root = drive + os.sep if parts.startswith(os.sep) else '.'
    names = _below(root, [part for part in parts.split(os.sep) if part])
  found: dict[tuple[int, int], str] = {}
  for path in sorted({os.path.abspath(name) for name in names}):
    status = os.stat(path)
    found.setdefault((status.st_dev, status.st_ino), path)
  if not found:
    raise InputError(
      f'no file matches {pattern!r} (links in folders are not followed); a source is stdlib, '
      'stdlib/prose, stdlib/source, tfds:NAME, or a path or glob of your own files.'
    )
  return list(found.values())


def _below(folder: str, parts: Sequence[str]) -> Iterator[str]:
  """The files below a folder that match the parts of a pattern, where '**' matches any folders."""
  first, *rest = parts
  if not glob.has_magic(first):
    path = os.path.join(folder, first)
    if rest and os.path.isdir(path):
      yield from _below(path, rest)
    elif not rest and os.path.isfile(path):
      yield path
    return
  if first == '**' and rest:
    yield from _below(folder, rest)
  for entry in _entries(folder):
    if entry.name.startswith('.') and not first.startswith('.'):
      continue
    if entry.is_dir(follow_symlinks=False):
      if first == '**':
        yield from _below(entry.path, parts)
      elif rest and fnmatch.fnmatch(entry.name, first):
        yield from _below(entry.path, rest)
    elif rest or not entry.is_file(follow_symlinks=False):
      continue
    elif first == '**' or fnmatch.fnmatch(entry.name, first):
      yield entry.path


def _entries(folder: str) -> list[os.DirEntry]:
  try:
    with os.scandir(folder) as entries:
      return list(entries)
  except OSError as error:
    raise InputError(
      f'cannot read the folder {folder} ({error.strerror}); give folders you can read.'
    ) from error
