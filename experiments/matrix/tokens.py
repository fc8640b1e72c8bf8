# SPDX-License-Identifier: Apache-2.0
"""The tokenizers of the grid by name, each made once per workdir and kept in one file.

  bytes           the 256 bytes
  characters      Unicode characters, the most frequent; others as their bytes
  blocks          the most frequent pairs of bytes; else one byte
  bpe, bpe_unsplit, lzw, sentencepiece, wordpiece, unicode
                  learned dictionaries; bpe (rule `words` of lib/tokenizers/pretokenizers.py),
                  sentencepiece and wordpiece stay within words, bpe_unsplit and lzw merge across
                  spaces, unicode has at most three characters an id
  numbered12, …   tokens by a small byte model M1, as experiments/coders.py names them
  a path          the file of a saved tokenizer, a tokenizer.json or a SentencePiece .model

All but bytes have at most `tokenizers.vocab_size` ids; with M1, a token's bits set the number.
"""

import collections
import os
import pathlib
import re
from collections.abc import Sequence

from ml_collections import ConfigDict

from experiments import coders
from experiments.recipe import Run
from lib import tokenizers
from lib.compression import byte_coders
from lib.errors import InputError
from lib.tokenizers import Tokenizer, registry

# Learned by a trainer of the registry.
LEARNED = tuple(name for name in registry.trainable() if name not in ('gzip', 'static_ac'))
DIGITS = 6  # of a fingerprint in a label


def check(config: ConfigDict, where: str, names: Sequence[str]) -> None:
  """Raises InputError for unknown tokenizers in the field `where`, or missing text."""
  coders.check_m1(config)
  prints: dict[str, str] = {}
  for name in names:
    if is_file(name):
      twin = prints.setdefault(tokenizers.load(name).fingerprint, name)
      if twin != name:
        raise InputError(f'{where}: {twin} and {name} are the same tokenizer; give it once.')
    elif name not in LEARNED:
      _method(config, where, name)
  if len(set(names)) < len(names):
    raise InputError(f'{where} names a tokenizer twice: {", ".join(names)}.')


def make(config: ConfigDict, run: Run, name: str) -> Tokenizer:
  """The tokenizer, made now or read from WORKDIR/tokenizers."""
  if is_file(name):
    return tokenizers.load(name)
  if name not in LEARNED:
    return coders.make(config, run, _method(config, 'tokenizers', name))

  def learn() -> Tokenizer:
    text = coders.train_documents(config)
    return tokenizers.train(name, text, config.tokenizers.vocab_size)

  return coders.kept(run, name, learn)


def is_file(name: str) -> bool:
  """Whether a name is the path of a saved tokenizer."""
  return name not in LEARNED and os.path.exists(name)


def labels(names: Sequence[str]) -> dict[str, str]:
  """Name -> label in rows: a built-in name, or the stem of a file.

  Many files have one name, such as tokenizer.json. So a stem that two of the names share, or that
  is a built-in name, is followed by six hex digits of the tokenizer's fingerprint.
  """
  stems = {name: pathlib.Path(name).stem if is_file(name) else name for name in names}
  stems = {name: re.sub(r'[^\w.+-]', '_', stem) for name, stem in stems.items()}
  shared = collections.Counter(stems.values())
  built_in = lambda stem: stem in LEARNED or stem in coders.PLAIN or coders.NUMBERED.fullmatch(stem)
  for name, stem in stems.items():
    if is_file(name) and (shared[stem] > 1 or built_in(stem)):
      stems[name] = f'{stem}-{tokenizers.load(name).fingerprint[:DIGITS]}'
  return stems


def by_windows(name: str) -> bool:
  """Whether its tokens are windows of equal information."""
  return re.fullmatch(rf'({"|".join(byte_coders.WINDOWS)})\d+', name) is not None


def m1_flops(config: ConfigDict, run: Run, name: str) -> int:
  """FLOPs of M1 for each byte that the tokenizer reads, or 0 without M1."""
  return 0 if name in LEARNED or is_file(name) else coders.m1_flops(config, run, name)


def _method(config: ConfigDict, where: str, name: str) -> coders.Method:
  bits = config.tokenizers.token_bits
  try:
    found = coders.widths([name], [bits])
  except InputError as error:
    raise InputError(
      f'{where}: {name!r} is not one of {", ".join(LEARNED)}, not one by M1 such as '
      'numbered12, and not the file of a saved tokenizer.'
    ) from error
  if not found:
    raise InputError(f'{where}: {name} has no tokens of tokenizers.token_bits = {bits}.')
  return found[0][0]
