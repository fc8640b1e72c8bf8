# SPDX-License-Identifier: Apache-2.0
"""The folder of a run, locked for one process, and reserved for one run."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.recipe import Run, Table
from lib import provenance
from lib.errors import InputError
from lib.parallel import processes
from lib.provenance import Identity
from lib.report import results

ASIDE = (
  'tables',
  'mesh',
  'accumulate',
  'token_cache',
  'profile',
  'prompt',
  'generate',
)  # fields of a config that may change from call to call in a workdir
KNOWN = 'identity.json'
BEGUN = ('tables', 'checkpoints', 'tokenizers', 'm1', 'models')


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
  """The fields of a config that may not change in a workdir."""
  return {key: value for key, value in config.items() if key not in ASIDE}


def check_place(place: str) -> None:
  """Raises InputError for an invalid name of a folder."""
  if not place:
    raise InputError('--workdir must name a folder; got nothing.')
  try:
    if not stat.S_ISDIR(os.stat(place).st_mode):
      raise InputError(f'--workdir must name a folder; {place} is not a folder.')
  except FileNotFoundError:
    return
  except (OSError, ValueError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise InputError(f'cannot write to the workdir {place[:80]}: {reason}.') from error


@contextlib.contextmanager
def opened(folder: pathlib.Path, identity: Identity) -> Iterator[None]:
  """The folder, new or with the run of the same identity, locked for this process.

  Raises:
    InputError: it contains another run (the sentence names what differs), another process runs in
      it, or it cannot be written.
  """
  _check(folder, identity)
  processes.wait('the workdir is looked at')
  with contextlib.ExitStack() as held:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      if processes.is_primary():
        held.enter_context(locked(folder / 'lock', folder))
        results.write_json(folder / 'config.json', identity['config'])
        results.write_json(folder / KNOWN, identity)
    except OSError as error:
      raise InputError(f'cannot write to the workdir {folder}: {error.strerror}.') from error
    yield


@contextlib.contextmanager
def locked(path: pathlib.Path, place: str | os.PathLike) -> Iterator[None]:
  """The lock file of the workdir `place`; it is released when this process ends.

  File systems without locks are not protected.

  Raises:
    InputError: another process has it.
    OSError: the file cannot be made.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('a') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
        raise InputError(
          f'another process runs in {place}; wait for its end, or choose a new --workdir.'
        ) from error
    yield


def table_of(run: Run, table: Table) -> pathlib.Path:
  """The file that has a finished table."""
  return run.workdir / 'tables' / f'{table.name}.json'


def _check(folder: pathlib.Path, identity: Identity) -> None:
  """Raises InputError if the folder contains another run; the sentence names the difference."""
  if any((folder / part).exists() for part in BEGUN):
    for there in _identities(folder):
      if other := provenance.difference(there, identity):
        raise InputError(
          f'{folder} contains another run: {other}; choose a new --workdir, or delete it.'
        )


def _identities(folder: pathlib.Path) -> Iterator[Identity]:
  """The identities that a run stored in the workdir and in each finished table."""
  known = folder / KNOWN
  if known.exists():
    try:
      yield json.loads(known.read_text())
    except ValueError as error:
      raise InputError(f'{known} is damaged ({error}): delete it.') from error
  for path in sorted((folder / 'tables').glob('*.json')):
    yield results.read_rows(path)['identity']
