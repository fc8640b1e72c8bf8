# SPDX-License-Identifier: Apache-2.0
"""Tokenizers as configs name them: a family of the registry, or the path of a saved one."""

import collections
import os
import pathlib
import re
from collections.abc import Sequence

from experiments import coders
from experiments.recipe import naming
from lib import tokenizers
from lib.errors import InputError
from lib.tokenizers import files, registry

# Learned by a trainer of the registry.
LEARNED = tuple(name for name in registry.trainable() if name not in ('gzip', 'static_ac'))
DIGITS = 6  # of a fingerprint in a label


def check(where: str, names: Sequence[str]) -> None:
  """Raises InputError for a tokenizer that the field `where` names twice, or a bad file."""
  prints: dict[str, str] = {}
  for name in filter(is_file, names):
    with naming(where):
      twin = prints.setdefault(tokenizers.load(name).fingerprint, name)
    if twin != name:
      raise InputError(f'{where}: {twin} and {name} are the same tokenizer; give it once.')
  if len(set(names)) < len(names):
    raise InputError(f'{where} names a tokenizer twice: {", ".join(names)}.')


def check_families(where: str, names: Sequence[str], vocab_size: int) -> None:
  """As `check`, and InputError for what is neither a file nor a family that has this size."""
  check(where, names)
  for name in names:
    if name not in LEARNED and not is_file(name):
      raise InputError(
        f'{where}: {name!r} is not the file of a saved tokenizer, and not one of '
        f'{", ".join(LEARNED)}.'
      )
    if name in LEARNED:
      with naming(where):
        registry.check(name, (), vocab_size)


def is_file(name: str) -> bool:
  """Whether a name is the path of a saved tokenizer."""
  return name not in LEARNED and os.path.exists(files.place(name)[0])


def labels(names: Sequence[str]) -> dict[str, str]:
  """Name -> label in rows: a built-in name, or the stem of a file.

  Many files have one name, such as tokenizer.json. So a stem that two of the names share, or that
  is a built-in name, is followed by six hex digits of the tokenizer's fingerprint.
  """
  stem_of = lambda name: pathlib.Path(files.place(name)[0]).stem if is_file(name) else name
  stems = {name: stem_of(name) for name in names}
  stems = {name: re.sub(r'[^\w.+-]', '_', stem) for name, stem in stems.items()}
  shared = collections.Counter(stems.values())
  built_in = lambda stem: stem in LEARNED or stem in coders.PLAIN or coders.NUMBERED.fullmatch(stem)
  for name, stem in stems.items():
    if is_file(name) and (shared[stem] > 1 or built_in(stem)):
      stems[name] = f'{stem}-{tokenizers.load(name).fingerprint[:DIGITS]}'
  return stems
