# SPDX-License-Identifier: Apache-2.0
"""Atomic writes: a file is complete or absent."""

import contextlib
import errno
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from lib.errors import InputError


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[BinaryIO]:
  """A file to write, also to read and to seek in, that takes its place when the block ends.

  A reader, or a kill at any moment, finds the old content or the new. A block that fails leaves
  nothing behind. A link stays, and the file that it names is replaced. Devices and pipes are never
  replaced: they get the content when the block ends.
  """
  if is_stream(path):
    with open(path, 'wb') as target, through(target) as file:
      yield file
    return
  path = pathlib.Path(os.path.realpath(path))
  if path.is_dir() or path.is_symlink():  # a link to itself
    number = errno.ELOOP if path.is_symlink() else errno.EISDIR
    raise OSError(number, os.strerror(number), str(path))
  partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
  try:
    with partial.open('w+b') as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(partial, path)
  finally:
    with contextlib.suppress(FileNotFoundError):
      partial.unlink()


@contextlib.contextmanager
def through(target: BinaryIO) -> Iterator[BinaryIO]:
  """A file to write, to read and to seek in, that goes to `target` when the block ends well."""
  with tempfile.TemporaryFile() as file:
    yield file
    file.seek(0)
    shutil.copyfileobj(file, target)
    target.flush()


def is_stream(path: str | os.PathLike) -> bool:
  """Whether a path names a device, a pipe, or an open file of a process (/dev/stdout)."""
  if os.path.abspath(path).startswith(('/dev/std', '/dev/fd/', '/proc/')):
    return True
  return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def write(path: str | os.PathLike, content: bytes | str) -> None:
  """Writes a file whole, as `writing` does; text is written as UTF-8."""
  with writing(path) as file:
    file.write(content.encode() if isinstance(content, str) else content)


def check_free(path: str | os.PathLike) -> None:
  """Raises InputError unless a new `folder` can take this name."""
  path = pathlib.Path(path)
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise InputError(f'there is something at {path} already: choose another path, or delete it.')


@contextlib.contextmanager
def folder(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """A new folder to fill, that takes its name `path` when the block ends.

  Nothing, or an empty folder, must be at `path`. A block that fails leaves nothing behind, and a
  kill leaves at most a folder whose name ends with '.partial'. The files can be read by whoever can
  read the folder, also where a library makes them for the owner alone.
  """
  path = pathlib.Path(path)
  partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir()
  try:
    yield partial
    mode = partial.stat().st_mode & 0o666
    for file in partial.iterdir():
      file.chmod(mode)
    for file in [*partial.iterdir(), partial]:
      descriptor = os.open(file, os.O_RDONLY)
      try:
        os.fsync(descriptor)
      finally:
        os.close(descriptor)
    os.rename(partial, path)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
