# SPDX-License-Identifier: Apache-2.0
"""Which tokens may follow in the encoding of a text, so that bytes can be read through tokens.

A sequence of tokens is canonical if it begins the encoding of some text. A cover of a text x is a
canonical sequence whose bytes begin with x, while those without its last token do not. Every text
that begins with x has exactly one cover of x at its beginning, so the probability of x is the sum
over its covers (arXiv 2410.09303, 2506.14123).

Whether a token may follow is told by a state of finite size for
  tokens that are cut anywhere (bytes, characters),
  BPE: two neighbours are checked at a time, within the pieces of a pretokenizer,
  the longest match: earlier tokens must not have a longer match; WordPiece has it within words,
  the best score (unigram): the best ways to the places within reach of the next token.
A pretokenizer can place a cut by what comes later. Then both are followed, and a token may follow
if some text after it makes the cuts that it needs.
"""

import functools
import json
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from lib.errors import InputError
from lib.tokenizers import bpe_apply, merge_lists, pretokenizers, wordpiece
from lib.tokenizers.base import Dictionary, Tokenizer
from lib.tokenizers.bpe import BPE
from lib.tokenizers.characters import Characters
from lib.tokenizers.covers_by_score import BestScore
from lib.tokenizers.covers_in_pieces import Pieces
from lib.tokenizers.foreign import ByteLevel
from lib.tokenizers.lzw import LZW
from lib.tokenizers.ranks import Ranks
from lib.tokenizers.sentencepiece import SPACE, SentencePiece
from lib.tokenizers.wordpiece import WordPiece

State = Any  # hashable


class Follow(Protocol):
  """Which tokens may follow a canonical sequence.

  Attributes:
    start: the state of the empty sequence.
  """

  start: State

  def allowed(self, state: State) -> np.ndarray:
    """The tokens that may come next, bool [V]."""
    ...

  def after(self, state: State, token: int) -> State:
    """The state with one more token, which is allowed."""
    ...

  def certain(self, state: State, token: int) -> bool:
    """Whether all texts that begin with the bytes so far and the token's have the tokens so far."""
    ...


class Anything:
  """Every token with bytes may follow: for single bytes, and to count all ways to write a text."""

  start: State = None

  def __init__(self, pieces: Sequence[bytes]):
    self._allowed = np.array([len(piece) > 0 for piece in pieces])

  def allowed(self, state: State) -> np.ndarray:
    """All tokens with bytes."""
    return self._allowed

  def after(self, state: State, token: int) -> State:
    """There is one state."""
    return None

  def certain(self, state: State, token: int) -> bool:
    """Nothing is joined."""
    return True


class Neighbours:
  """BPE without pretokenizer: the state is the last token, −1 before the first."""

  start: State = -1

  def __init__(self, tables: bpe_apply.Tables, pieces: Sequence[bytes]):
    self._tables, self._pieces = tables, pieces
    self._whole = np.zeros(len(pieces), bool)
    self._whole[tables.ids[tables.ids >= 0]] = True
    self._row = functools.cache(self._meets)

  def allowed(self, state: State) -> np.ndarray:
    """Tokens that no merge joins to the last one."""
    return self._whole if state < 0 else self._row(state)

  def after(self, state: State, token: int) -> State:
    """The token."""
    return token

  def certain(self, state: State, token: int) -> bool:
    """A token far ahead can change any token."""
    return state < 0

  def settled(self, state: State) -> bool:
    """A token can have no other after it."""
    return state < 0

  def _meets(self, last: int) -> np.ndarray:
    if len(self._tables.parts):
      return bpe_apply.boundary_row(self._tables, last) & self._whole
    # Merges that make a token twice: each pair is encoded.
    both = np.flatnonzero(self._whole)
    texts = [self._pieces[last] + self._pieces[token] for token in both.tolist()]
    stops = np.cumsum([len(text) for text in texts])
    ids = bpe_apply.encode(b''.join(texts), stops, self._tables)
    ends = np.cumsum(self._tables.lengths[ids])
    first = np.searchsorted(ends, np.concatenate([[0], stops[:-1]]), side='right')
    found = np.zeros(len(self._pieces), bool)
    found[both] = (ids[first] == last) & (ids[np.minimum(first + 1, ids.size - 1)] == both)
    return found


class LongestMatch:
  """The longest match at each place: the state is what longer matches have begun with.

  A longer match of an earlier token has begun where the bytes since that token's beginning are the
  beginning of a longer piece. Tokens that complete one may not follow.
  """

  start: State = ()

  def __init__(self, pieces: Sequence[bytes]):
    self._words = Words(pieces)
    first: dict[bytes, int] = {}
    for token, piece in enumerate(pieces):
      first.setdefault(piece, token)
    self._emitted = np.array([bool(p) and first[p] == i for i, p in enumerate(pieces)])
    self._row = functools.cache(self._follow)

  def allowed(self, state: State) -> np.ndarray:
    """Tokens that complete no longer match."""
    return self._row(state)

  def after(self, state: State, token: int) -> State:
    """What longer matches have begun with now."""
    piece = self._words.pieces[token]
    begun = {known + piece for known in (*state, b'')}
    return tuple(sorted(one for one in begun if self._words.longer(one)))

  def certain(self, state: State, token: int) -> bool:
    """Where no longer match has begun."""
    return not state

  def _follow(self, state: State) -> np.ndarray:
    found = self._emitted.copy()
    for start in state:
      for piece in self._words.longer(start):
        found[self._words.tokens(piece[len(start) :])] = False
    return found


class LongestInWord:
  """The longest match within words, of pieces that begin one and pieces that continue one.

  The state is what longer matches have begun with, as (whether it continues the word, bytes), and
  the bytes of the word. A word of `most` bytes is full: a piece that begins one follows.

  Args:
    pieces: the bytes of each of V ids.
    continues: bool [V], whether a piece continues a word.
    most: bytes of a word.
  """

  start: State = ((), 0)

  def __init__(self, pieces: Sequence[bytes], continues: np.ndarray, most: int):
    self._pieces, self._continues, self._most = pieces, continues.tolist(), most
    self._lengths = np.array([*map(len, pieces)])
    self._begins = ~continues & (self._lengths > 0) & (self._lengths <= most)
    alike = lambda flag: [
      piece if one == flag else b'' for piece, one in zip(pieces, self._continues, strict=True)
    ]
    self._words = Words(alike(False)), Words(alike(True))
    self._row = functools.cache(self._follow)

  def allowed(self, state: State) -> np.ndarray:
    """Tokens that begin a word, or those that continue it, fit in and complete no longer match."""
    begun, size = state
    if size in (0, self._most):
      return self._begins
    return self._row(begun) & (self._lengths <= self._most - size)

  def after(self, state: State, token: int) -> State:
    """What longer matches have begun with now, and the bytes of the word."""
    piece, inside = self._pieces[token], self._continues[token]
    known, size = state if inside else self.start
    begun = [(flag, start + piece) for flag, start in (*known, (inside, b''))]
    size += len(piece)
    if size == self._most:
      return (), size
    return tuple(one for one in begun if self._words[one[0]].longer(one[1])), size

  def settled(self, state: State) -> bool:
    """Where no longer match has begun."""
    return not state[0]

  def _follow(self, begun: tuple[tuple[bool, bytes], ...]) -> np.ndarray:
    found = np.array(self._continues) & (self._lengths > 0)
    for flag, start in begun:
      for piece in self._words[flag].longer(start):
        found[self._words[True].tokens(piece[len(start) :])] = False
    return found


class Words:
  """Tokens in the order of their bytes, in which those with a common beginning are neighbours.

  Args:
    pieces: the bytes of each of V ids; those without any are left out.

  Attributes:
    pieces: as given.
    order: int [n], ids by their bytes.
    ordered: their bytes.
    longest: bytes of the longest.
  """

  def __init__(self, pieces: Sequence[bytes]):
    self.pieces = pieces
    found = sorted((i for i, p in enumerate(pieces) if p), key=pieces.__getitem__)
    self.order = np.array(found, np.int64)
    self.ordered = [pieces[i] for i in self.order.tolist()]
    self.longest = max(map(len, self.ordered), default=0)
    self._intervals: dict[bytes, tuple[int, int]] = {}
    self._exact: dict[bytes, range] = {}
    for place, piece in enumerate(self.ordered):
      known = self._exact.get(piece, range(place, place))
      self._exact[piece] = range(known.start, place + 1)
      for stop in range(len(piece) + 1):
        first, _ = self._intervals.get(piece[:stop], (place, place))
        self._intervals[piece[:stop]] = first, place + 1

  def interval(self, start: bytes) -> tuple[int, int]:
    """The places [first, stop) in the order of the tokens that begin with these bytes."""
    return self._intervals.get(start, (0, 0))

  def exact(self, piece: bytes) -> range:
    """The places in the order of the tokens that are these bytes, the first of the interval."""
    return self._exact.get(piece, range(0))

  def tokens(self, start: bytes) -> np.ndarray:
    """The tokens that begin with these bytes, int [n]."""
    return self.order[slice(*self.interval(start))]

  def longer(self, start: bytes) -> list[bytes]:
    """The pieces that begin with these bytes and are longer."""
    first, stop = self.interval(start)
    return self.ordered[first + len(self.exact(start)) : stop]


# Why no rule here follows the encodings of a family.
REASONS = {
  'sentencepiece': 'this SentencePiece model is not a plain unigram model',
}
UNKNOWN = 'no rule says which of its tokens may follow each other'


def follow(tokenizer: Tokenizer) -> Follow:
  """What may follow in the encodings of a tokenizer.

  Raises:
    InputError: a tokenizer whose ids have no bytes of their own, or whose encoding has no finite
      reach.
  """
  refused = f'the bytes of {tokenizer.family} tokens cannot be read one by one: '
  use = '; use bytes, BPE, a unigram model, WordPiece, or a dictionary of longest matches.'
  if not tokenizer.lossless:
    raise InputError(f'{refused}it is not lossless{use}')
  if isinstance(tokenizer, Characters):
    return Anything(tokenizer.pieces)
  if isinstance(tokenizer, Dictionary) and tokenizer.encoder == 'minimal':
    raise InputError(f'{refused}where a text is cut into the fewest depends on all of it{use}')
  if isinstance(tokenizer, BPE) and tokenizer.encoder == 'merges':
    return _by_merges(tokenizer.tables, tokenizer.pieces, tokenizer.rule, refused)
  if isinstance(tokenizer, Ranks):
    return _by_merges(tokenizer.tables, tokenizer.pieces, tokenizer.rule, refused)
  if isinstance(tokenizer, SentencePiece) and tokenizer.unigram_scores is not None:
    return BestScore(tokenizer.pieces, tokenizer.unigram_scores, tokenizer.byte_ids, SPACE)
  if isinstance(tokenizer, ByteLevel):
    merges = merge_lists.of(tokenizer).merges
    pairs = np.column_stack([merges[:, :2], np.arange(len(merges))]).astype(np.int32)
    tables = bpe_apply.tables(
      tokenizer.pieces, tokenizer.byte_ids, bpe_apply.rules(pairs), merges[:, 2].astype(np.int32),
      merges[:0, :2],
    )  # fmt: skip
    return _by_merges(tables, tokenizer.pieces, _rule_of(tokenizer), refused)
  if isinstance(tokenizer, WordPiece):
    inner = LongestInWord(tokenizer.pieces, tokenizer.continues, wordpiece.WORD)
    return Pieces(inner, tokenizer.pieces, 'gpt2', single=True)
  if isinstance(tokenizer, Dictionary) and type(tokenizer) in (Dictionary, BPE, LZW):
    return LongestMatch(tokenizer.pieces)
  raise InputError(f'{refused}{REASONS.get(tokenizer.family, UNKNOWN)}{use}')


def spelled(tokenizer: Dictionary) -> list[bytes]:
  """The bytes of each id, of ids with the same bytes only of those that texts have."""
  if isinstance(tokenizer, WordPiece):
    return tokenizer.pieces
  single = set(tokenizer.byte_ids.tolist()) if isinstance(tokenizer, SentencePiece) else set()
  first: dict[bytes, int] = {}
  for token in sorted(range(tokenizer.vocab_size), key=single.__contains__):
    first.setdefault(tokenizer.pieces[token], token)
  return [piece if first[piece] == i else b'' for i, piece in enumerate(tokenizer.pieces)]


def _rule_of(tokenizer: ByteLevel) -> str:
  """The rule of a tokenizer.json by which it cuts text, or its JSON where it is none of ours."""
  cuts = json.loads(tokenizer.content)['pre_tokenizer']
  cuts = cuts.get('pretokenizers', [cuts])
  if [cut['type'] for cut in cuts] == ['ByteLevel']:
    return 'gpt2' if cuts[0].get('use_regex', True) else 'none'
  found = [cut.get('pattern', {}).get('Regex') for cut in cuts[:-1]]
  known = [rule for rule in pretokenizers.RULES if pretokenizers.patterns(rule) == found]
  plain = cuts[-1]['type'] == 'ByteLevel' and not cuts[-1].get('use_regex', True)
  return known[0] if known and plain else json.dumps(cuts[0])


def _by_merges(
  tables: bpe_apply.Tables, pieces: Sequence[bytes], rule: str, refused: str
) -> Follow:
  made = bpe_apply.own(tables, tables.words.view(np.uint8))
  alone = [token for token in tables.ids[tables.ids >= 0].tolist() if not made[token]]
  if alone:
    raise InputError(
      f'{refused}{len(alone)} of them, such as {pieces[alone[0]]!r}, are whole pieces of text that '
      'no merges make.'
    )
  inner = Neighbours(tables, pieces)
  if rule == 'none':
    return inner
  if rule not in pretokenizers.RULES:
    raise InputError(f'{refused}how far {rule!r} looks ahead is not known.')
  return Pieces(inner, pieces, rule)
