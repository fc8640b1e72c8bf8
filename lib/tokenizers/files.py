# SPDX-License-Identifier: Apache-2.0
"""A tokenizer in one file: a line of text that vouches for the arrays after it."""

import hashlib
import io
import os
import pathlib
import zipfile

import numpy as np

from lib import atomic
from lib.errors import InputError

MAGIC, VERSION = 'tokenizer-file', 1


def write(path: str | os.PathLike, family: str, state: dict[str, np.ndarray]) -> None:
  """Writes `state` to `path`, whole or not at all.

  The first line is `tokenizer-file VERSION FAMILY SIZE SHA256`: SIZE counts the bytes after the
  line, an npz archive, and SHA256 covers the line before it and those bytes.
  """
  buffer = io.BytesIO()
  np.savez(buffer, allow_pickle=False, **state)
  payload = buffer.getvalue()
  line = f'{MAGIC} {VERSION} {family} {len(payload)}'
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  atomic.write(path, f'{line} {_digest(line, payload)}\n'.encode() + payload)


def read(path: str | os.PathLike) -> tuple[str, dict[str, np.ndarray]]:
  """Returns family and state; raises InputError for a file that is not just as it was written."""
  try:
    content = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise InputError(f'cannot read the tokenizer file {path}: {error.strerror}') from error
  header, _, payload = content.partition(b'\n')
  fields = header.decode('ascii', 'replace').split(' ')
  if len(fields) != 5 or fields[0] != MAGIC:
    raise InputError(f'{path} is not a tokenizer file: its first line should begin with {MAGIC!r}')
  _, version, family, size, digest = fields
  if size != str(len(payload)):
    raise InputError(f'{path} is cut short or damaged: {len(payload)} bytes where {size} should be')
  if digest != _digest(' '.join(fields[:4]), payload):
    raise InputError(f'{path} is damaged: its checksum differs; make or fetch the file again')
  if version != str(VERSION):
    raise InputError(f'{path} has format version {version}; this program reads version {VERSION}')
  try:
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
      return family, dict(arrays)
  except (EOFError, ValueError, zipfile.BadZipFile) as error:
    raise InputError(f'{path} holds no arrays: {error}') from error


def _digest(line: str, payload: bytes) -> str:
  return hashlib.sha256(f'{line}\n'.encode() + payload).hexdigest()
