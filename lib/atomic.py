# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole or not at all."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import BinaryIO

from lib.errors import InputError


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[BinaryIO]:
  """A file to write, also to read and to seek in, that takes its place when the block ends.

  A reader, or a kill at any moment, finds the old content or the new. A block that fails leaves
  nothing behind.
  """
  path = pathlib.Path(path)
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
  kill leaves at most a folder whose name ends with '.partial'.
  """
  path = pathlib.Path(path)
  partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir()
  try:
    yield partial
    for file in [*partial.iterdir(), partial]:
      descriptor = os.open(file, os.O_RDONLY)
      try:
        os.fsync(descriptor)
      finally:
        os.close(descriptor)
    os.rename(partial, path)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
