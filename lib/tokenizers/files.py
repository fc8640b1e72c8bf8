# SPDX-License-Identifier: Apache-2.0
"""A tokenizer in one file: a line of text with a checksum, and arrays."""

import contextlib
import hashlib
import io
import math
import os
import pathlib
import zipfile
from collections.abc import Iterator

import numpy as np

from lib import atomic
from lib.errors import InputError
from lib.tokenizers import kinds

MAGIC, VERSION = 'tokenizer-file', 1
LINE = 256  # length of the longest first line in bytes


def write(path: str | os.PathLike, family: str, state: dict[str, np.ndarray]) -> None:
  """Writes `state` to `path`, atomically.

  The first line is `tokenizer-file VERSION FAMILY SIZE SHA256`: SIZE counts the bytes after the
  line, an npz archive, and SHA256 covers the line before it and those bytes.
  """
  buffer = io.BytesIO()
  np.savez(buffer, allow_pickle=False, **state)
  payload = buffer.getvalue()
  line = f'{MAGIC} {VERSION} {family} {len(payload)}'
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  atomic.write(path, f'{line} {_digest(line, payload)}\n'.encode() + payload)


def place(name: str | os.PathLike) -> tuple[str, str | None]:
  """The path and the rule of FILE:RULE; no rule if there is a file of that whole name."""
  text = os.fspath(name)
  at = text.find(':regex:') if ':regex:' in text else text.rfind(':')
  return (text, None) if at < 0 or os.path.exists(text) else (text[:at], text[at + 1 :])


def head(path: str | os.PathLike) -> bytes:
  """The first bytes of a file; raises InputError where it cannot be read."""
  try:
    with open(path, 'rb') as file:
      return file.read(LINE)
  except OSError as error:
    raise InputError(f'cannot read the tokenizer file {path}: {error.strerror}') from error


def read(path: str | os.PathLike) -> tuple[str, dict[str, np.ndarray]]:
  """Returns family and state; raises InputError for a damaged file."""
  try:
    with open(path, 'rb') as file:
      fields = file.readline(LINE).decode('ascii', 'replace').removesuffix('\n').split(' ')
      if len(fields) != 5 or fields[0] != MAGIC:
        file.seek(0)
        what = kinds.other(file.read(kinds.HEAD)) or (
          f'is not a tokenizer file: ours begin with {MAGIC!r}, a tokenizer.json with a brace, and '
          'a SentencePiece .model with a newline'
        )
        raise InputError(f'{path} {what}')
      _, version, family, size, digest = fields
      found = os.fstat(file.fileno()).st_size - file.tell()
      if size != str(found):
        raise InputError(f'{path} is cut short or damaged: {found} bytes where {size} should be')
      payload = file.read()
  except OSError as error:
    raise InputError(f'cannot read the tokenizer file {path}: {error.strerror}') from error
  if digest != _digest(' '.join(fields[:4]), payload):
    raise InputError(f'{path} is damaged: its checksum differs; make or fetch the file again')
  if version != str(VERSION):
    raise InputError(f'{path} has format version {version}; this program reads version {VERSION}')
  try:
    return family, _arrays(payload)
  except Exception as error:  # a checksum does not authenticate the author
    raise InputError(f'{path} contains no arrays: {error}') from error


@contextlib.contextmanager
def rebuilding(path: str | os.PathLike, what: str) -> Iterator[None]:
  """Turns any error while `what` is made from arrays into an InputError.

  The checksum detects damage, but does not authenticate the author.
  """
  try:
    yield
  except InputError:
    raise
  except Exception as error:
    raise InputError(f'{path} contains arrays that are not a valid {what}: {error}') from error


def _arrays(payload: bytes) -> dict[str, np.ndarray]:
  """The arrays of an uncompressed npz archive, checked before memory is allocated."""
  with zipfile.ZipFile(io.BytesIO(payload)) as archive:
    entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > len(payload):
      raise ValueError('it unpacks to more than it is')
    for entry in entries:
      with archive.open(entry) as file:
        if np.lib.format.read_magic(file) != (1, 0):
          raise ValueError(f'{entry.filename} has a header of another version')
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != entry.file_size - file.tell():
          raise ValueError(f'{entry.filename} differs in size from its header')
  with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
    return dict(arrays)


def _digest(line: str, payload: bytes) -> str:
  return hashlib.sha256(f'{line}\n'.encode() + payload).hexdigest()
