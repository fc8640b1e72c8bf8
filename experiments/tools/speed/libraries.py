# SPDX-License-Identifier: Apache-2.0
"""Coders and tokenizers of other libraries, for the speed table."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from experiments.tools.timing import rates
from lib.errors import InputError
from lib.report.results import Row
from lib.tokenizers.base import Tokenizer
from lib.tokenizers.bpe import BPE
from lib.tokenizers.coding import arithmetic
from lib.tokenizers.coding.baselines import StaticAC
from lib.tokenizers.sentencepiece import SentencePiece

ROWS = 50_000  # symbols that get a row of frequencies each


class Peer(NamedTuple):
  """A timed library: `encode(bytes)`, `decode` of its result, and the number of units in the
  result.
  """

  encode: Callable[[bytes], Any]
  decode: Callable[[Any], Any] | None
  tokens: Callable[[Any], float]
  note: str


def peers(plain: dict[str, Tokenizer], text: bytes) -> dict[str, Peer]:
  """The peers of those of our tokenizers that are there."""
  try:
    import constriction  # noqa: F401
    import tiktoken  # noqa: F401
  except ImportError as error:
    raise InputError('constriction and tiktoken are needed: install the extra `dev`') from error
  found: dict[str, Peer] = {}
  for method, codec in plain.items():
    if isinstance(codec, StaticAC) and codec.token_bits == 8:
      found[f'constriction ({method})'] = _constriction(codec)
    elif isinstance(codec, BPE):
      found[f'tiktoken ({method})'] = _tiktoken(codec, text)
    elif isinstance(codec, SentencePiece):
      found[f'sentencepiece ({method})'] = _sentencepiece(codec)
  rows = _bigrams(text[:ROWS])
  found['constriction (a row a byte)'] = _constriction_rows(rows)
  found['ours (a row a byte)'] = _our_rows(rows)
  return found


def table(found: dict[str, Peer], text: bytes, repeats: int) -> Iterator[list[Row]]:
  """The rows of each peer."""
  for method, peer in found.items():
    part = text[:ROWS] if 'row' in method else text
    row = dict(method=method, text='held_out')
    rows, made = rates('peers', row, lambda: peer.encode(part), 'encode', len(part), repeats)
    if (decode := peer.decode) is not None:
      more, data = rates('peers', row, lambda: decode(made), 'decode', len(part), repeats)
      if data is not None and bytes(data) != part:
        raise RuntimeError(f'{method} does not give the text back')
      rows += more
    per_token = len(part) / peer.tokens(made)
    rows.append(Row('peers', row, 'bytes_per_token', per_token, unit='bytes', note=peer.note))
    yield rows


def _constriction(codec: StaticAC) -> Peer:
  import constriction

  shares = np.diff(codec.cumulative.astype(np.int64))[:256].astype(np.float32)
  model = constriction.stream.model.Categorical(shares / shares.sum(), perfect=False)

  def encode(data: bytes) -> tuple[np.ndarray, int]:
    coder = constriction.stream.queue.RangeEncoder()
    coder.encode(np.frombuffer(data, np.uint8).astype(np.int32), model)
    return coder.get_compressed(), len(data)

  def decode(made: tuple[np.ndarray, int]) -> np.ndarray:
    return constriction.stream.queue.RangeDecoder(made[0]).decode(model, made[1]).astype(np.uint8)

  return Peer(encode, decode, lambda made: 4 * made[0].size, 'a token is a byte of its code')


def _bigrams(text: bytes) -> np.ndarray:
  """Probabilities of each byte after the one before it, float32 [n, 256], by counts of the text."""
  symbols = np.frombuffer(text, np.uint8)
  before = np.append(np.uint8(0), symbols[:-1])
  counts = np.full((256, 256), 0.1, np.float32)
  np.add.at(counts, (before, symbols), 1)
  return (counts / counts.sum(axis=1, keepdims=True))[before]


def _constriction_rows(rows: np.ndarray) -> Peer:
  import constriction

  family = constriction.stream.model.Categorical(perfect=False)
  # Of the integers that our coder uses, so that both have the same probabilities.
  shares = np.diff(arithmetic.quantise(rows).astype(np.int64)).astype(np.float32)
  shares /= 1 << arithmetic.PRECISION

  def encode(data: bytes) -> np.ndarray:
    coder = constriction.stream.queue.RangeEncoder()
    coder.encode(np.frombuffer(data, np.uint8).astype(np.int32), family, shares)
    return coder.get_compressed()

  def decode(made: np.ndarray) -> np.ndarray:
    return constriction.stream.queue.RangeDecoder(made).decode(family, shares).astype(np.uint8)

  return Peer(encode, decode, lambda made: 4 * made.size, 'a token is a byte of its code')


def _our_rows(rows: np.ndarray) -> Peer:
  cumulative = arithmetic.quantise(rows)

  def encode(data: bytes) -> tuple[bytes, int]:
    return arithmetic.encode(np.frombuffer(data, np.uint8), cumulative)

  return Peer(encode, None, lambda made: len(made[0]), 'a token is a byte of its code')


def _tiktoken(codec: BPE, text: bytes) -> Peer:
  import tiktoken

  ranks: dict[bytes, int] = {}
  for i, piece in enumerate(codec.pieces):
    ranks.setdefault(piece, i)
  coder = tiktoken.Encoding(
    'ours', pat_str=r'[^\n]*\n|[^\n]+', mergeable_ranks=ranks, special_tokens={}
  )
  decoded = text.decode('utf-8', 'replace')
  same = coder.encode_ordinary(decoded) == codec.encode(text).tolist()
  note = f'our merges, line by line; ids {"equal" if same else "differ from"} ours'
  return Peer(lambda data: coder.encode_ordinary(data.decode()), coder.decode_bytes, len, note)


def _sentencepiece(codec: SentencePiece) -> Peer:
  import sentencepiece

  processor = sentencepiece.SentencePieceProcessor(model_proto=codec.model_proto)
  return Peer(
    lambda data: processor.encode(data.decode()),
    lambda ids: processor.decode(ids).encode(),
    len,
    'the model of our codec, in the library itself',
  )
