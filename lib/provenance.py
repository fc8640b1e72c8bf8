# SPDX-License-Identifier: Apache-2.0
"""The provenance of a result: the identity of its run, and the code, place and time."""

import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Identity = Mapping[str, Any]  # {'config': fields, 'content': what is read -> its digest}
TEXT = 'the text of '  # a source, among what is read


@functools.cache
def commit() -> str:
  """The commit of this code, and whether it was changed since; empty where git knows none."""
  here = pathlib.Path(__file__).parent
  asked = ['git', '-C', str(here), 'describe', '--always', '--abbrev=40', '--dirty', '--exclude=*']
  try:
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return ''


def about() -> dict[str, str]:
  """Commit, date (UTC), host and command of this process."""
  now = datetime.datetime.now(datetime.UTC)
  return {
    'commit': commit(),
    'date': now.isoformat(timespec='seconds'),
    'host': platform.node(),
    'command': shlex.join(['python', *sys.orig_argv[1:]]),
  }


def measured() -> dict[str, str]:
  """How a table is measured now: commit, day (UTC), number of CPU cores, Python and JAX."""
  return {
    'commit': commit(),
    'date': about()['date'][:10],
    'cores': str(cores()),
    'python': platform.python_version(),
    'jax': importlib.metadata.version('jax'),
  }


def cores() -> int:
  """CPU cores that this process may use."""
  one = getattr(os, 'sched_getaffinity', None)  # Linux alone
  return len(one(0)) if one else os.cpu_count() or 1


def identity(config: Mapping[str, Any], texts: Mapping[str, str], splitting: int) -> Identity:
  """The identity of a run: its config, and the content of all files that the config names.

  Two runs with equal identities measure the same. The commit is not part of it.

  Args:
    config: JSON-like; a value that is the path of a file or of a trained model is replaced by
      the digest of its content.
    texts: source of text -> digest of its documents.
    splitting: version of the rules that divide text into splits.
  """
  files = {
    f'the content of {path}': digest
    for path in dict.fromkeys(_strings(config))
    if path not in texts and (digest := _digest(path))
  }
  read = {TEXT + source: digest[:12] for source, digest in texts.items()}
  rules = {'the version of the rules that split text': splitting}
  return {'config': config, 'content': {**files, **read, **rules}}


def text_digest(identity: Identity, source: str) -> str:
  """The start of the digest of a source's documents, as `identity` was given it, or ''."""
  return identity.get('content', {}).get(TEXT + source, '')


def difference(there: Identity, here: Identity) -> str:
  """The first thing in which two identities differ, with both values; '' if they are equal.

  Inputs that only one of the two calls reads, because it chose other tables, are ignored.
  """
  one, other = flat(there.get('config', {})), flat(here.get('config', {}))
  for name in [*other, *one]:
    if one.get(name) != other.get(name):
      return f'{name} is {_short(one.get(name))} there and {_short(other.get(name))} here'
  one, other = there.get('content', {}), here.get('content', {})
  for name in one:
    if one[name] != other.get(name, one[name]):
      return f'{name} is another: {one[name]} there and {other[name]} here'
  return ''


def _strings(value: Any) -> Iterator[str]:
  if isinstance(value, str):
    yield value
  elif isinstance(value, Mapping | Sequence):
    for one in value.values() if isinstance(value, Mapping) else value:
      yield from _strings(one)


def _digest(path: str) -> str:
  """The start of the sha256 of a file, or of the description of a trained model; or ''."""
  model = os.path.join(path, 'model.json')  # which has the checksums of its weights
  for name in (path, model):
    if path and os.path.isfile(name):
      with open(name, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()[:12]
  return ''


def flat(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Nested fields by their paths: {'a': {'b': 1}} is {'a.b': 1}."""
  found: dict[str, Any] = {}
  for key, value in values.items():
    if isinstance(value, Mapping):
      found |= flat(value, f'{prefix}{key}.')
    else:
      found[prefix + key] = value
  return found


def _short(value: Any) -> str:
  text = 'unknown' if value is None else json.dumps(value, ensure_ascii=False)
  return text if len(text) <= 60 else f'{text[:57]}…'
