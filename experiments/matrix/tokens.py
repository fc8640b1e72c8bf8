# SPDX-License-Identifier: Apache-2.0
"""The tokenizers of the grid by name, each made once per workdir and kept in one file.

  bytes           the 256 bytes
  characters      Unicode characters, the most frequent; others as their bytes
  blocks          the most frequent pairs of bytes; else one byte
  bpe, bpe_unsplit, superbpe, boundless, lib, lzw, sentencepiece, wordpiece, unicode
                  learned dictionaries; bpe (rule `words` of lib/tokenizers/pretokenizers.py),
                  sentencepiece and wordpiece stay within words, bpe_unsplit, superbpe, boundless,
                  lib and lzw cross spaces, unicode has at most three characters an id
  numbered12, …   tokens by a small byte model M1, as experiments/coders.py names them
  a path          the file of a saved tokenizer, a tokenizer.json or a SentencePiece .model

All but bytes have at most `tokenizers.vocab_size` ids; with M1, a token's bits set the number.
"""

import re
from collections.abc import Sequence

from ml_collections import ConfigDict

from experiments import coders, tokenizer_names
from experiments.recipe import Run, naming
from experiments.tokenizer_names import LEARNED, is_file
from lib import tokenizers
from lib.compression import byte_coders
from lib.errors import InputError
from lib.tokenizers import Tokenizer, registry


def check(config: ConfigDict, where: str, names: Sequence[str]) -> None:
  """Raises InputError for unknown tokenizers in the field `where`, or missing text."""
  coders.check_m1(config)
  tokenizer_names.check(where, names)
  for name in names:
    if name in LEARNED:
      with naming('tokenizers.vocab_size'):
        registry.check(name, (), config.tokenizers.vocab_size)
    elif not is_file(name):
      _method(config, where, name)


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
