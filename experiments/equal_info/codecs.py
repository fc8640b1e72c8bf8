# SPDX-License-Identifier: Apache-2.0
"""The tokenizers of this experiment by name, each made once a workdir and kept in one file.

  bytes, sentencepiece, static_ac, gzip   the paper's baselines
  ac                                      one stream a document under M1, no windows
  greedyB, exactB                         equal-info windows of B bits; B of 12 and 16 as a table,
                                          24, 32, 64 and 128 by stepping M1
  delayB, numberedB                       the paper's lossless variant, and greedy's texts numbered
  topB, parsedB, prunedB                  dictionaries of 2^B texts that M1 chooses
  bpeB                                    byte-pair encoding of as many

A name and the width of a token make a tokenizer; those with a vocabulary of their own (bytes,
sentencepiece, prunedB, bpeB) have no other width.
"""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.equal_info import m1, texts
from lib.data import encoded
from lib.data.encoded import Encoded
from lib.errors import InputError
from lib.models import codec_files
from lib.models.byte_model import ByteModel
from lib.report.results import name as row_name
from lib.tokenizers import (
  Characters,
  Dictionary,
  EqualInfo,
  GZip,
  train_bpe,
  train_sentencepiece,
  train_static_ac,
)
from lib.tokenizers.base import Tokenizer
from lib.tokenizers.coding import slices, window_dictionaries
from lib.tokenizers.coding.model import Remembered
from lib.tokenizers.coding.stepping import Stepped
from lib.tokenizers.coding.streams import SteppedAC
from lib.tokenizers.coding.tabulate import LIMIT_BITS, number, tabulate
from lib.tokenizers.coding.window_streams import SteppedEqualInfo
from lib.tokenizers.documents import encode
from lib.train import processes

PLAIN = ('bytes', 'sentencepiece', 'static_ac', 'gzip', 'ac')
WINDOWS = ('greedy', 'delay', 'exact', 'numbered')  # of equal information
NUMBERED = re.compile(r'(greedy|delay|exact|numbered|top|parsed|pruned|bpe)(\d+)')
OWN_VOCABULARY = ('bytes', 'sentencepiece', 'pruned', 'bpe')


class Method(NamedTuple):
  """A tokenizer of this experiment.

  Attributes:
    name: such as greedy16.
    token_bits: 8, 12 or 16; None for a vocabulary of its own.
  """

  name: str
  token_bits: int | None

  @property
  def vocab_size(self) -> int:
    """Ids, where a token has a width."""
    assert self.token_bits
    return 1 << self.token_bits

  @property
  def lossless(self) -> bool:
    """Whether every text comes back; of greedy windows several texts share a code."""
    return not self.name.startswith('greedy')

  @property
  def row(self) -> str:
    """Its name in the tables."""
    if self.token_bits is None:
      return row_name(method=self.name)
    return row_name(method=self.name, v=1 << self.token_bits)


def parse(name: str) -> tuple[str, int]:
  """A name's kind and bits, 0 where it has none; raises InputError for an unknown name."""
  if name in PLAIN:
    return name, 0
  if not (match := NUMBERED.fullmatch(name)):
    raise InputError(
      f'tokenizer {name!r} is unknown: use one of {", ".join(PLAIN)}, or a kind and its bits such '
      'as greedy16 (kinds: greedy, delay, exact, numbered, top, parsed, pruned, bpe).'
    )
  return match[1], int(match[2])


def widths(names: Sequence[str], token_bits: Sequence[int]) -> list[list[Method]]:
  """Each name with each width of a token that it can have, narrowest first."""
  found = []
  for name in names:
    kind, bits = parse(name)
    if kind in OWN_VOCABULARY:
      found.append([Method(name, None)])
    elif there := [Method(name, t) for t in sorted(token_bits) if not bits or t <= bits]:
      found.append(there)
  return found


def steps_m1(method: Method) -> bool:
  """Whether M1 has to step through a text to encode it: all of AC, and windows without a table."""
  kind, bits = parse(method.name)
  return kind == 'ac' or (kind in ('greedy', 'exact') and bits > LIMIT_BITS)


def sliced(ids: np.ndarray, method: Method, other: Method) -> np.ndarray:
  """The ids of a method as those of the same method with another width of a token."""
  assert method.token_bits is not None
  assert other.token_bits is not None
  count = -(-ids.size * method.token_bits // other.token_bits)
  return slices.unpack(slices.pack(ids, method.token_bits), other.token_bits)[:count]


def make(config: ConfigDict, run: runner.Run, method: Method) -> Tokenizer:
  """The tokenizer, made now or read from WORKDIR/tokenizers.

  Those that step M1 share one stepper, so that only one may be at work at a time.
  """
  width = '' if method.token_bits is None else f'-v{1 << method.token_bits}'
  path = run.workdir / 'tokenizers' / f'{method.name}{width}'
  kind, bits = parse(method.name)
  if processes.agreed(path.exists()) and not steps_m1(method):
    return codec_files.load(path)
  tokenizer = _make(config, run, kind, bits, method)
  processes.once(path, lambda: codec_files.save(tokenizer, path))
  return tokenizer


def tokens(run: runner.Run, tokenizer: Tokenizer, documents: Sequence[bytes]) -> Encoded:
  """Ids of each document and the bytes of it that each stands for, kept in WORKDIR/encoded."""
  work = functools.partial(encode, tokenizer)
  return encoded.encode(run.workdir / 'encoded', tokenizer.fingerprint, documents, work)


def windows_restored(
  tokenizer: Tokenizer, documents: Sequence[bytes], coded: Encoded
) -> tuple[np.ndarray, np.ndarray]:
  """Windows of each document that come back as they were, and all of its windows, int64 [N] both.

  Args:
    tokenizer: of equal-info windows.
    documents: N texts.
    coded: their tokens, as `tokens` gives them.
  """
  found = decode(tokenizer, [ids for ids, _ in coded])
  same = []
  for document, (text, lengths), (_, meant) in zip(documents, found, coded, strict=True):
    pairs = zip(_windows(document, meant), _windows(text, lengths), strict=True)
    same.append([one == other for one, other in pairs])
  return np.array([sum(one) for one in same]), np.array([len(one) for one in same])


def _windows(text: bytes, lengths: np.ndarray) -> list[bytes]:
  """The texts of the windows of a document, from the bytes that each token covers."""
  ends = np.cumsum(lengths[lengths > 0]).tolist()
  return [text[a:b] for a, b in zip([0, *ends], ends)]


def decode(tokenizer: Tokenizer, ids: Sequence[np.ndarray]) -> list[tuple[bytes, np.ndarray]]:
  """The bytes of each row of ids, and how many each id covers."""
  if isinstance(tokenizer, Stepped):
    return tokenizer.decode_all(ids)
  return [(tokenizer.decode(row), tokenizer.byte_lengths(row)) for row in ids]


def _make(config, run, kind: str, bits: int, method: Method) -> Tokenizer:
  if kind in (*WINDOWS, 'top', 'parsed', 'ac'):
    return _by_m1(config, run, kind, bits, method)
  if kind == 'bytes':
    return Characters()
  if kind == 'gzip':
    return GZip(method.token_bits or 8)
  text = texts.train(config)
  if kind == 'static_ac':
    return train_static_ac(text, 1 << (method.token_bits or 8))
  if kind == 'sentencepiece':
    return train_sentencepiece(text, config.tokenizers.sentencepiece, 'unigram')
  if kind == 'bpe':
    return train_bpe(b''.join(text), 1 << bits, bytes(range(256)))
  candidates, _ = window_dictionaries.likely(
    _remembered(m1.ready(config, run)), window_dictionaries.POOL << bits
  )
  pieces = window_dictionaries.pruned(candidates, b''.join(text), bits, 'minimal')
  return Dictionary(pieces, 'minimal', bytes(range(256)))


def _by_m1(config, run, kind: str, bits: int, method: Method) -> Tokenizer:
  """Windows, AC, and dictionaries that hold the beginnings of their texts."""
  token_bits = method.token_bits or 8
  if kind == 'ac' or bits > LIMIT_BITS:
    stepper = m1.stepper(config, run)
    fingerprint = stepper.model.fingerprint
    if kind == 'ac':
      return SteppedAC(stepper, fingerprint, token_bits)
    return SteppedEqualInfo(stepper, fingerprint, bits, kind, token_bits)
  widest = max(width for width in slices.WIDTHS if width <= bits)
  if token_bits != widest:  # the same table, sliced otherwise
    whole = make(config, run, Method(method.name, widest))
    assert isinstance(whole, EqualInfo)
    return EqualInfo(whole.table, token_bits)
  model = _remembered(m1.ready(config, run))
  if kind == 'top':
    return EqualInfo(number(window_dictionaries.top(model, bits), bits), token_bits)
  if kind == 'parsed':
    text = b''.join(texts.train(config))
    return EqualInfo(number(window_dictionaries.parsed(model, text, bits), bits), token_bits)
  return EqualInfo(tabulate(model, bits, kind), token_bits)


@functools.cache
def _remembered(model: ByteModel) -> Remembered:
  return Remembered(model)
