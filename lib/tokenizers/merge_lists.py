# SPDX-License-Identifier: Apache-2.0
"""The merges of any BPE tokenizer, and how its trainer split and counted text, for a replay."""

import dataclasses
import functools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from lib.errors import InputError
from lib.tokenizers import base, bpe_learn, foreign, pretokenizers
from lib.tokenizers.bpe import BPE
from lib.tokenizers.bpe_replay import Pieces
from lib.tokenizers.ranks import Ranks
from lib.tokenizers.sentencepiece import SentencePiece
from lib.tokenizers.wordpiece import byte_characters

LONGEST = 16  # characters of a SentencePiece piece, by its trainer's default


@dataclasses.dataclass(frozen=True)
class MergeList:
  """Merges in the order in which they were learned.

  Attributes:
    tokens: the bytes of each of the V ids.
    merges: int32 [M, 3], (left, right, made).
    first: a character of the trainer's alphabet -> its id; others end a piece.
    count: documents -> how often each piece, which no merge crosses, occurs in them.
    by_bytes: characters are bytes; else Unicode characters.
    overlap: the trainer counts 'aaa' as two pairs (`bpe_replay.replay`).
    lines: the trainer cut its text after line ends.
    allowed: whether the trainer would make a token of these bytes, however frequent its pair.
  """

  tokens: Sequence[bytes]
  merges: np.ndarray
  first: Mapping[int, int]
  count: Callable[[Sequence[bytes]], Mapping[bytes, int]]
  by_bytes: bool = True
  overlap: bool = True
  lines: bool = False
  allowed: Callable[[bytes], bool] | None = None

  def pieces(self, documents: Sequence[bytes]) -> Pieces:
    """The pieces of a sample as the trainer would count them, equal pieces once."""
    if self.lines:
      documents = [line for one in documents for line in one.splitlines(keepends=True)]
    counted = self.count(documents)
    if self.by_bytes:
      codes, sizes = np.frombuffer(b''.join(counted), np.uint8), [*map(len, counted)]
    else:
      texts = [piece.decode('utf-8', 'replace') for piece in counted]
      codes, sizes = np.frombuffer(''.join(texts).encode('utf-32-le'), '<u4'), [*map(len, texts)]
    known = np.array(sorted(self.first))
    at = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    ids = np.array([self.first[one] for one in known.tolist()])[at]
    widths = np.array(sizes, np.int64) + 1
    cells = np.full(widths.sum(), -1, np.int32)
    inside = np.ones(len(cells), bool)
    inside[np.cumsum(widths) - 1] = False
    cells[inside] = np.where(known[at] == codes, ids, -1)
    times = np.fromiter(counted.values(), np.int32, len(counted))
    return Pieces(cells, np.repeat(times, widths))

  def learned(self, documents: Sequence[bytes], merges: int) -> 'MergeList':
    """The merges that a trainer of this kind would learn on other text, but without its vetoes."""
    letters = sorted(set(self.first.values()))
    number = np.full(max(letters) + 1, -1, np.int32)
    number[letters] = np.arange(len(letters))
    tokens = [self.tokens[letter] for letter in letters]
    cells, times = self.pieces(documents)
    joined = bpe_learn.learn(
      np.where(cells < 0, -1, number[cells]),
      len(tokens) + merges,
      tokens,
      times.astype(np.int64),
      min_count=2,
      overlap=self.overlap,
      shared=self.overlap,
    )
    known, found = {token: i for i, token in enumerate(tokens)}, []
    for left, right in joined.tolist():
      token = tokens[left] + tokens[right]
      made = known[token] if self.overlap and token in known else len(tokens)
      if made == len(tokens):
        known[token] = made
        tokens.append(token)
      found.append((left, right, made))
    first = {character: int(number[letter]) for character, letter in self.first.items()}
    table = np.array(found, np.int32).reshape(-1, 3)
    return dataclasses.replace(self, tokens=tokens, merges=table, first=first, allowed=None)

  def could_join(self, pairs: np.ndarray) -> np.ndarray:
    """Which of pairs [P, 2] the trainer could have joined, bool [P]."""
    if self.allowed is None:
      return np.ones(len(pairs), bool)
    joined = (self.tokens[left] + self.tokens[right] for left, right in pairs.tolist())
    return np.fromiter(map(self.allowed, joined), bool, len(pairs))

  @property
  def lengths(self) -> np.ndarray:
    """How many characters of the trainer's alphabet each token has, int32 [V]."""
    size = len if self.by_bytes else lambda token: len(token.decode('utf-8', 'replace'))
    return np.array([*map(size, self.tokens)], np.int32)


def of(tokenizer: base.Tokenizer, lines: bool | None = None) -> MergeList:
  """The merges of a BPE: ours, a `tokenizer.json`, ranks of tiktoken or a SentencePiece model.

  Args:
    tokenizer: as `registry.load` gives it.
    lines: the trainer cut its text after line ends, as Hugging Face's does with files; None: if no
      token has text after one. SentencePiece's always cuts, before them.

  Raises:
    InputError: a tokenizer without merges.
  """
  found = None
  if isinstance(tokenizer, BPE):
    found = _of_bpe(tokenizer)
  elif isinstance(tokenizer, foreign.ByteLevel):
    found = _of_json(tokenizer)
  elif isinstance(tokenizer, Ranks):
    found = _of_ranks(tokenizer)
  elif isinstance(tokenizer, SentencePiece):
    found = _of_sentencepiece(tokenizer)
  if found is None or not len(found.merges):
    raise InputError(f'this {tokenizer.family} tokenizer has no merges: give one of BPE.')
  if lines is None:
    lines = found.by_bytes and not any(
      b'\n' in found.tokens[made][:-1] for made in found.merges[:, 2]
    )
  return dataclasses.replace(found, lines=lines)


def _of_bpe(tokenizer: BPE) -> MergeList:
  merges = np.concatenate([tokenizer.merges, tokenizer.made[:, None]], axis=1)
  first = {byte: i for i, byte in enumerate(tokenizer.alphabet)}
  count = functools.partial(_by_rule, rule=tokenizer.rule)
  # `bpe` counts as Hugging Face's trainer does, `bpe_unsplit` without overlap.
  return MergeList(tokenizer.pieces, merges, first, count, overlap=tokenizer.rule != 'none')


def _by_rule(documents: Sequence[bytes], rule: str) -> dict[bytes, int]:
  """Pieces of a pretokenizer, and how often each occurs in the documents."""
  found = pretokenizers.count(documents, rule)
  return dict(zip(found.texts(), found.counts.tolist(), strict=True))


def _by_cut(documents: Sequence[bytes], cut: Callable[[bytes], Iterable[bytes]]) -> Counter[bytes]:
  """The same for a function that cuts one text."""
  return Counter(piece for document in documents for piece in cut(document))


def _of_ranks(tokenizer: Ranks) -> MergeList:
  """The list of tiktoken's ranks, which name no pairs."""
  known = {piece.decode('latin-1'): i for i, piece in enumerate(tokenizer.pieces) if piece}
  first = {byte: known[chr(byte)] for byte in base.BYTES}
  count = functools.partial(_by_rule, rule=tokenizer.rule)
  return MergeList(tokenizer.pieces, _ranked(list(known), known), first, count)


def _of_json(tokenizer: foreign.ByteLevel) -> MergeList | None:
  """The list of a `tokenizer.json`, whose text is in GPT-2's characters for bytes."""
  import tokenizers

  model = json.loads(tokenizer.content)['model']
  if model.get('type', 'BPE') != 'BPE':
    return None
  ids, characters = model['vocab'], byte_characters()
  pairs = [one.split(' ') if isinstance(one, str) else one for one in model['merges']]
  merges = np.array([(ids[a], ids[b], ids[a + b]) for a, b in pairs], np.int32).reshape(-1, 3)
  byte_of = {one: byte for byte, one in enumerate(characters)}
  splitter = tokenizers.Tokenizer.from_str(tokenizer.content.decode()).pre_tokenizer

  def cut(text: bytes) -> list[bytes]:
    found = splitter.pre_tokenize_str(text.decode('utf-8', 'replace'))
    return [bytes(map(byte_of.__getitem__, piece)) for piece, _ in found]

  count = functools.partial(_by_cut, cut=cut)
  return MergeList(tokenizer.pieces, merges, {byte_of[one]: ids[one] for one in characters}, count)


def _of_sentencepiece(tokenizer: SentencePiece) -> MergeList:
  """The list of a SentencePiece model of BPE: pieces by rank, each of two that precede it."""
  fallback = set(tokenizer.byte_ids.tolist())
  known = {
    piece.decode(): i for i, piece in enumerate(tokenizer.pieces) if piece and i not in fallback
  }
  first = {ord(piece): i for piece, i in known.items() if len(piece) == 1}
  return MergeList(
    tokenizer.pieces,
    _ranked(list(known), known),
    first,
    functools.partial(_by_cut, cut=_words),
    by_bytes=False,
    allowed=_one_word,
  )


def _words(text: bytes) -> list[bytes]:
  """Lines, each with the line end before it, cut before spaces."""
  return [word for line in re.split(rb'(?=\n)', text) for word in re.findall(rb' *[^ ]+| +', line)]


def _ranked(pieces: Sequence[str], ids: Mapping[str, int]) -> np.ndarray:
  """Merges int32 [M, 3] of pieces in the order of their ranks.

  A piece was made of the two tokens that the pieces before it cut it into; one that they cut into
  more was not made by a merge, and is left out.
  """
  rank = {piece: i for i, piece in enumerate(pieces) if len(piece) > 1}
  merges = []
  for piece in rank:
    parts = list(piece)
    while len(parts) > 2:
      joined = [rank.get(a + b, len(pieces)) for a, b in zip(parts, parts[1:], strict=False)]
      best = min(range(len(joined)), key=joined.__getitem__)
      if joined[best] >= rank[piece]:
        break
      parts[best : best + 2] = [parts[best] + parts[best + 1]]
    if len(parts) == 2 and all(part in ids for part in parts):
      merges.append((ids[parts[0]], ids[parts[1]], ids[piece]))
  return np.array(merges, np.int32).reshape(-1, 3)


def _one_word(token: bytes) -> bool:
  """Whether SentencePiece's trainer makes such a piece: of one script, spaces before it alone."""
  text = token.decode('utf-8', 'replace')
  if not text.strip(' '):
    return len(text) <= LONGEST
  word = text.removeprefix(' ')
  scripts = {script for one in word if (script := _script(one))}
  return len(text) <= LONGEST and ' ' not in word and len(scripts) == 1


@functools.cache
def _script(character: str) -> str:
  """The script of a character by its name: '' for marks, which are of the script before them."""
  category = unicodedata.category(character)
  if category.startswith('M'):
    return ''
  if not category.startswith('L'):
    return 'common'
  script = unicodedata.name(character, 'unnamed').split()[0].split('-')[0]
  return 'CJK' if script in ('HIRAGANA', 'KATAKANA') else script
