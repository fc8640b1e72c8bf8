# SPDX-License-Identifier: Apache-2.0
"""A workdir in a bucket, with a local copy.

Files are written to the local folder, and uploaded with each table and checkpoint. Checkpoints are
not copied: orbax writes and reads them in the bucket directly, each process its part.
"""

import hashlib
import os
import pathlib
import shutil

import fsspec

from lib import cache
from lib.errors import InputError

APART = 'checkpoints'  # the folder that is not copied


def opened(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
  """The store of a workdir at a URL, and its path there.

  Raises:
    InputError: no such kind of URL, or its package is not installed.
  """
  try:
    return fsspec.core.url_to_fs(url.rstrip('/'))
  except (ImportError, ValueError) as error:
    raise InputError(
      f'cannot use the workdir {url} ({error}); gs:// needs pip install "anytoken[gcs]".'
    ) from error


class Mirror:
  """The local copy of a workdir at a URL that fsspec knows, such as gs://BUCKET/RUN.

  Args:
    url: of the workdir.
    copy: a number for each process of this machine.

  Raises:
    InputError: no such kind of URL, or its package is not installed.
  """

  def __init__(self, url: str, copy: int = 0):
    self.url = url.rstrip('/')
    self._there, self._root = opened(url)
    name = hashlib.sha256(self.url.encode()).hexdigest()[:16]
    self.folder = cache.folder('workdirs') / f'{name}-{copy}'
    self._sent: dict[str, tuple[int, int]] = {}

  def fetch(self) -> None:
    """Replaces the local folder with a copy of the bucket's."""
    shutil.rmtree(self.folder, ignore_errors=True)
    self.folder.mkdir(parents=True)
    for found in self._there.find(self._root):
      name = found.removeprefix(self._root).lstrip('/')
      if not name.startswith(f'{APART}/'):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._there.get_file(found, str(path))
        self._sent[name] = _stamp(path)

  def send(self) -> None:
    """Copies what has changed, oldest first, into the bucket; a file is replaced whole."""
    files = (path for path in self.folder.rglob('*') if path.suffix != '.partial')
    for path in sorted(filter(pathlib.Path.is_file, files), key=_stamp):
      name = path.relative_to(self.folder).as_posix()
      if self._sent.get(name) != _stamp(path):
        stamp = _stamp(path)  # before sending, since it may grow meanwhile
        self._there.makedirs(os.path.dirname(f'{self._root}/{name}'), exist_ok=True)
        self._there.put_file(str(path), f'{self._root}/{name}')
        self._sent[name] = stamp


def _stamp(path: pathlib.Path) -> tuple[int, int]:
  found = path.stat()
  return found.st_mtime_ns, found.st_size
