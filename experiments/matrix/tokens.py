# SPDX-License-Identifier: Apache-2.0
"""The tokenizers of the grid by name, each made once a workdir and kept in one file.

  bytes           the 256 bytes
  characters      Unicode characters, the most frequent; others as their bytes
  blocks          two bytes at a time, the most frequent pairs; else one byte
  bpe, lzw, sentencepiece, wordpiece, unicode
                  learned dictionaries; unicode has at most three characters an id
  numbered12, …   tokens by a small byte model M1, as experiments/equal_info/codecs.py names them
  a path          the file of a saved tokenizer, a tokenizer.json or a SentencePiece .model

All but bytes have at most `tokenizers.vocab_size` ids; those by M1 have as many as a token's bits
allow.
"""

import collections
import os
import pathlib
import re
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from experiments import runner
from experiments.equal_info import codecs, m1, texts
from experiments.equal_info.m2 import BY_M1
from lib.errors import InputError
from lib.models import codec_files
from lib.tokenizers import (
  Characters,
  Dictionary,
  Tokenizer,
  train_bpe,
  train_lzw,
  train_restricted,
  train_sentencepiece,
  train_unicode,
  train_wordpiece,
)
from lib.train import processes

BYTES = bytes(range(256))
WHOLE = 0x10000  # ids from which `unicode` is not restricted


def train_blocks(documents: Sequence[bytes], vocab_size: int) -> Dictionary:
  """All bytes and the most frequent blocks of two: fixed blocks, but for what is not among them."""
  counts: collections.Counter[bytes] = collections.Counter()
  for document in documents:
    counts.update(document[i : i + 2] for i in range(0, len(document) - 1, 2))
  frequent = [block for block, _ in counts.most_common(max(0, vocab_size - 256))]
  return Dictionary([*(bytes([byte]) for byte in BYTES), *frequent])


def _unicode(documents: Sequence[bytes], vocab_size: int) -> Tokenizer:
  if vocab_size < WHOLE:
    return train_restricted(documents, vocab_size)
  return train_unicode(documents)


LEARNED: dict[str, Callable[[Sequence[bytes], int], Tokenizer]] = {
  'bytes': lambda documents, size: Characters(),
  'characters': lambda documents, size: train_restricted(documents, size, longest=1),
  'blocks': train_blocks,
  'bpe': lambda documents, size: train_bpe(b''.join(documents), size, BYTES),
  'lzw': lambda documents, size: train_lzw(b''.join(documents), size, BYTES),
  'sentencepiece': lambda documents, size: train_sentencepiece(documents, size, 'unigram'),
  'wordpiece': train_wordpiece,
  'unicode': _unicode,
}


def check(config: ConfigDict) -> None:
  """Raises InputError for a tokenizer that is none, or text that is not there."""
  m1.check(config)
  for name in set(config.grid.tokenizers) - LEARNED.keys():
    if os.path.exists(name):
      codec_files.load(name)
    else:
      _method(config, name)


def make(config: ConfigDict, run: runner.Run, name: str) -> Tokenizer:
  """The tokenizer, made now or read from WORKDIR/tokenizers."""
  if name not in LEARNED:
    if os.path.exists(name):
      return codec_files.load(name)
    return codecs.make(config, run, _method(config, name))
  path = run.workdir / 'tokenizers' / name

  def learn() -> None:
    codec_files.save(LEARNED[name](texts.train(config), config.tokenizers.vocab_size), path)

  processes.once(path, learn)
  return codec_files.load(path)


def label(name: str) -> str:
  """What rows call it."""
  return pathlib.Path(name).stem if os.path.exists(name) and name not in LEARNED else name


def by_windows(name: str) -> bool:
  """Whether its tokens are windows of equal information."""
  return re.fullmatch(rf'({"|".join(codecs.WINDOWS)})\d+', name) is not None


def m1_flops(config: ConfigDict, run: runner.Run, name: str) -> int:
  """FLOPs of M1 for each byte that the tokenizer reads: 2 a parameter, or none without M1.

  Counted as in the paper, though windows of up to 16 bits are a table that needs no M1.
  """
  if name in LEARNED or os.path.exists(name) or codecs.parse(name)[0] not in BY_M1:
    return 0
  return 2 * m1.ready(config, run).parameters


def _method(config: ConfigDict, name: str) -> codecs.Method:
  bits = config.tokenizers.token_bits
  try:
    found = codecs.widths([name], [bits])
  except InputError as error:
    raise InputError(
      f'grid.tokenizers: {name!r} is none of {", ".join(LEARNED)}, nor one by M1 such as '
      'numbered12, nor the file of a saved tokenizer.'
    ) from error
  if not found:
    raise InputError(f'grid.tokenizers: {name} has no tokens of tokenizers.token_bits = {bits}.')
  return found[0][0]
