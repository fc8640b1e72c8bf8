# SPDX-License-Identifier: Apache-2.0
"""Text in categories: the five that every installation carries, or those of a folder."""

import functools
import importlib.util
import os
import pathlib
import sysconfig
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from lib import cache
from lib.data import overlap, own_files, sources, stdlib_text
from lib.errors import InputError
from lib.tokenizers import utf8

EMBEDDED = ('topics', 'docstrings', 'source', 'headers', 'names')
HEADERS = ('numpy', 'numba')  # packages whose C and C++ files are used with Python's headers
NAMES = range(0x20, 0x30000)  # characters whose names are text
NAMES_EACH = 200  # names in one document
FEW = 20  # documents; fewer documents are split into blocks
BLOCK = 8192  # bytes of a block at most

Categories = Mapping[str, Sequence[bytes]]  # name -> documents


def open_categories(spec: str) -> Categories:
  """The documents of each category of `stdlib`, or of a folder with a file or folder for each.

  Args:
    spec: 'stdlib' for the language reference, docstrings, Python source, C headers and names of
      characters; or a path.

  Raises:
    InputError: a path that is not a folder, or has fewer than two categories with text.
  """
  if spec == 'stdlib':
    return _embedded()
  found = {}
  for path in check(spec):
    splits = own_files.open_corpus(str(path)).splits
    whole = [splits[split] for split in own_files.SPLITS]
    found[path.stem] = [part[i] for part in whole for i in range(len(part))]
  return found


def check(spec: str) -> list[pathlib.Path]:
  """The file or folder of each category of a folder; none for 'stdlib'.

  Raises:
    InputError: as `open_categories`, before any text is read.
  """
  if spec == 'stdlib':
    return []
  folder = pathlib.Path(spec)
  if not os.path.isdir(folder):  # unlike `is_dir`, for a name of any length
    raise InputError(
      f'{spec[:100]!r} is not a folder: give one with a file or a folder for each category.'
    )
  there = [one for one in sorted(folder.iterdir()) if not one.name.startswith('.')]
  there = [one for one in there if one.is_dir() or one.suffix in ('', '.txt')]
  if len(there) < 2:
    raise InputError(f'{spec!r} has {len(there)} categories of text: two or more are needed.')
  return there


def halves(categories: Categories, seed: int, *most: int) -> tuple[Categories, Categories]:
  """Two samples of each category, of up to `most` bytes each, that share no text.

  Their `units` are assigned to one sample or the other. Text that the second shares with the first
  is cut out of it (`lib.data.overlap`).

  Raises:
    InputError: a category of which one half is empty.
  """
  rng = np.random.default_rng(seed)
  parts: tuple[dict[str, list[bytes]], ...] = ({}, {})
  for name, documents in categories.items():
    documents = units(documents)
    order = rng.permutation(len(documents))
    for half, part in enumerate(parts):
      part[name] = take([documents[i] for i in order[half::2]], most[half])
  first, second = parts
  known = [document for documents in first.values() for document in documents]
  for name, documents in second.items():
    second[name] = [text for text in overlap.cut(documents, known).join(documents) if text]
    if not (first[name] and second[name]):
      raise InputError(f'category {name!r} has too little text of its own to be cut in halves.')
  return first, second


def take(documents: Sequence[bytes], size: int) -> list[bytes]:
  """The first documents, up to `size` bytes; the last is cut to fit, between characters."""
  found: list[bytes] = []
  for document in documents:
    if size <= 0:
      break
    found.append(document[: utf8.boundary(document, min(size, len(document)))])
    size -= len(document)
  return found


def units(documents: Sequence[bytes]) -> Sequence[bytes]:
  """The units of random assignment: documents, or their blocks if there are fewer than FEW."""
  if len(documents) >= FEW:
    return documents
  return [block for document in documents for block in blocks(document)]


def blocks(document: bytes) -> list[bytes]:
  """The document in stretches of up to BLOCK bytes that end at line ends where they can."""
  found = []
  while document:
    end = document.rfind(b'\n', 0, BLOCK) + 1 if len(document) > BLOCK else len(document)
    end = end or utf8.boundary(document, BLOCK)
    found.append(document[:end])
    document = document[end:]
  return found


@functools.cache
def _embedded() -> Categories:
  found: dict[str, list[bytes]] = {name: [] for name in EMBEDDED}
  kinds = {b'topic': 'topics', b'docstrings': 'docstrings', b'source': 'source'}
  builder = stdlib_text.prepare('all', cache.folder('data'))
  for split in own_files.SPLITS:
    records = sources.open_records(builder, split)
    for index in range(len(records)):
      record = sources.read_record(records, index)
      found[kinds[record['kind']]].append(record['text'])
  for path in _header_files():
    found['headers'].append(path.read_bytes())
  names = [unicodedata.name(chr(code), '') for code in NAMES]
  for start in range(0, len(names), NAMES_EACH):
    if text := '\n'.join(filter(None, names[start : start + NAMES_EACH])):
      found['names'].append(f'{text}\n'.encode())
  return found


def _header_files() -> list[pathlib.Path]:
  """C and C++ files of this Python and of packages that are always installed."""
  folders = [pathlib.Path(sysconfig.get_path('include'))]
  for package in HEADERS:
    spec = importlib.util.find_spec(package)
    folders += map(pathlib.Path, (spec and spec.submodule_search_locations) or ())
  suffixes = {'.h', '.hpp', '.c', '.cpp'}
  return [
    path for folder in folders for path in sorted(folder.rglob('*')) if path.suffix in suffixes
  ]
