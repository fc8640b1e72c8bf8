# SPDX-License-Identifier: Apache-2.0
"""BPE as tiktoken and Mistral's tekken have it: tokens by rank, and a pretokenizer."""

import base64
import functools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from lib import errors
from lib.errors import InputError
from lib.tokenizers import base, bpe_apply, kinds, pretokenizers

MOST_SPECIAL = 1 << 20  # special tokens of a tekken.json: more are damage


class Ranks(base.Dictionary):
  """Joins the two neighbours whose bytes are the token of the lowest id, again and again.

  A piece that is a token is that token, whether such steps make it or not.

  Args:
    pieces: the bytes of each id, all 256 single ones among them; empty ones are never emitted.
    rule: of `pretokenizers`, how a text is cut into pieces.
    special: names of ids without text; their pieces are empty.

  Raises:
    InputError: a byte is missing, two ids have the same bytes, or the rule is unknown.
  """

  family = 'ranks'

  def __init__(self, pieces: Sequence[bytes], rule: str, special: Mapping[int, str] | None = None):
    pretokenizers.patterns(rule)
    super().__init__(pieces, alphabet=base.BYTES)
    self.rule, self._special = rule, dict(special or {})
    self._ids = {piece: i for i, piece in enumerate(pieces) if piece}
    if len(self._ids) < len(list(filter(None, pieces))):
      raise InputError('two ranks have the same bytes: each token may have one')
    if missing := [byte for byte in range(256) if bytes([byte]) not in self._ids]:
      raise InputError(f'byte {missing[0]:#04x} has no rank: every byte must be a token')

  @property
  def special_tokens(self) -> Mapping[int, str]:
    """As given."""
    return self._special

  def encode(self, data: bytes) -> np.ndarray:
    """Returns ids, int32 [n]."""
    return bpe_apply.encode(data, pretokenizers.cut(data, self.rule), self.tables)

  @functools.cached_property
  def tables(self) -> bpe_apply.Tables:
    """What the compiled encoder reads."""
    ids = self._ids
    rows = [
      (ids[piece[:at]], ids[piece[at:]], i)
      for piece, i in ids.items()
      for at in range(1, len(piece))
      if piece[:at] in ids and piece[at:] in ids
    ]
    pairs = bpe_apply.rules(np.array(rows, np.int32).reshape(-1, 3))
    symbols = np.array([ids[bytes([byte])] for byte in range(256)], np.int32)
    made, twice = np.arange(self.vocab_size, dtype=np.int32), np.zeros((0, 2), np.int32)
    return bpe_apply.tables(self.pieces, symbols, pairs, made, twice, self.lengths > 0)

  def state(self) -> base.State:
    """The pieces end to end with their lengths, the rule, and special tokens if any."""
    found = {
      'bytes': base.byte_array(b''.join(self.pieces)),
      'lengths': self.lengths,
      'rule': base.byte_array(self.rule.encode()),
    }
    if self._special:
      found['special'] = base.byte_array(json.dumps(sorted(self._special.items())).encode())
    return found

  @classmethod
  def from_state(cls, state: base.State) -> 'Ranks':
    """Rebuilds from `state()`."""
    pieces = base.split(state['bytes'].tobytes(), state['lengths'])
    special = dict(json.loads(state['special'].tobytes())) if 'special' in state else {}
    return cls(pieces, state['rule'].tobytes().decode(), special)


def read(path: str | os.PathLike, rule: str) -> Ranks:
  """The tokenizer of a rank file of tiktoken: on each line a token in base64 and its rank.

  Ranks that are left out are ids that are never emitted.

  Args:
    path: of the file.
    rule: such as 'cl100k'; the file does not say it.

  Raises:
    InputError: no such file, or what `Ranks` refuses.
  """
  try:
    content = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise InputError(f'cannot read the tokenizer file {path}: {error.strerror}') from error
  if not kinds.has_ranks(content):
    raise InputError(f'{path} has no ranks of tiktoken: its lines must be base64 and a number')
  try:
    rows = [line.split() for line in content.splitlines() if line.strip()]
    tokens = {int(rank): base64.b64decode(token, validate=True) for token, rank in rows}
  except ValueError as error:
    raise InputError(f'{path} is damaged: a line is not base64 and a number') from error
  if len(tokens) < len(rows) or max(tokens) > 2 * len(rows):
    raise InputError(f'{path} is damaged: ranks repeat, or most are missing')
  return Ranks([tokens.get(rank, b'') for rank in range(max(tokens) + 1)], rule)


def of_tekken(path: str | os.PathLike, content: bytes) -> Ranks:
  """The tokenizer of a tekken.json of Mistral (the package mistral_common).

  Its special tokens have the first ids; ranks are counted after them, up to the vocabulary's size.

  Raises:
    InputError: fields are missing or do not agree, or what `Ranks` refuses.
  """
  with errors.refused(f'{path} is not a complete tekken.json'):
    fields = json.loads(content.decode('utf-8-sig'))
    config = fields['config']
    rule, first = pretokenizers.REGEX + config['pattern'], int(config['default_num_special_tokens'])
    count = int(config['default_vocab_size']) - first
    rows = [row for row in fields['vocab'] if 0 <= row['rank'] < count]
    tokens = {row['rank']: base64.b64decode(row['token_bytes'], validate=True) for row in rows}
    special = {row['rank']: row['token_str'] for row in fields.get('special_tokens') or ()}
  if not 0 <= first <= MOST_SPECIAL or not 0 < len(tokens) == len(rows) == count:
    raise InputError(f'{path} is damaged: its ranks are not as many as its config says')
  if any(not 0 <= i < first for i in special):
    raise InputError(f'{path} is damaged: a special token is not one of the first {first} ids')
  return Ranks([b''] * first + [tokens[rank] for rank in range(count)], rule, special)
