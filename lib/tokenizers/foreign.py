# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of other projects: a Hugging Face `tokenizer.json`, a SentencePiece `.model`.

Tokenizers that only split text become dictionaries, exact for every byte string. All others
(lowercasing, added or dropped spaces, unknown words) are used as they are, and are not lossless.
The rules in a file decide which kind it is; no text is encoded to find out.
"""

import abc
import functools
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from lib import errors
from lib.errors import InputError
from lib.tokenizers import base, kinds, ranks, sentencepiece, utf8
from lib.tokenizers.sentencepiece import SentencePiece
from lib.tokenizers.wordpiece import byte_characters

MOST = 1 << 24  # most ids; more mean damage
BOS = '<|bos|>'  # an added token
CUTS = ('Digits', 'FixedLength', 'Punctuation', 'Split', 'UnicodeScripts')  # rules that cut text


def read(path: str | os.PathLike, kind: str) -> base.Tokenizer:
  """The tokenizer of a JSON file or a SentencePiece `.model`, exact where it can be.

  Raises:
    InputError: a file that its library does not read.
  """
  content = pathlib.Path(path).read_bytes()
  exact: Callable[[bytes], base.Tokenizer] = ByteLevel if kind == '.json' else SentencePiece
  try:
    whole = Foreign(content, kind)  # first, so that the error names a file of another kind
  except InputError as error:
    if kinds.is_tekken(content):
      return ranks.of_tekken(path, content)
    raise InputError(f'{path} {kinds.other(content) or f"cannot be used: {error}"}') from error
  try:
    return exact(content)
  except InputError:
    return whole


class JsonDictionary(utf8.TextDictionary):
  """A `tokenizer.json` whose tokens are fixed bytes.

  If a token drops bytes (an added token that also removes spaces), the missing bytes are encoded
  one by one, so every byte string is restored; `fallback_bytes` counts these bytes.

  Args:
    content: of the file.

  Raises:
    InputError: its rules change text, or it has no token for some byte.
  """

  def __init__(self, content: bytes):
    self.content = content
    self._tokenizer = _library(content)
    rules = json.loads(content.decode('utf-8-sig'))
    used = self.rules(rules)
    if used != rules:
      self._tokenizer = _library(json.dumps(used).encode())
    added = {i: token.content for i, token in self._tokenizer.get_added_tokens_decoder().items()}
    pieces = [b''] * _size(self._tokenizer)
    for token, i in self._tokenizer.get_vocab().items():
      pieces[i] = added[i].encode() if i in added else self.piece(token)
    super().__init__(pieces)
    if np.any(self.byte_ids < 0):
      raise InputError('this tokenizer.json has no token for some byte')

  @classmethod
  @abc.abstractmethod
  def rules(cls, rules: dict[str, Any]) -> dict[str, Any]:
    """The rules by which text is cut; raises InputError for those of a file that change text."""

  @classmethod
  @abc.abstractmethod
  def piece(cls, token: str) -> bytes:
    """The bytes of a token; raises InputError if it is not written as all are."""

  @functools.cached_property
  def special_tokens(self) -> Mapping[int, str]:
    """Added tokens that are marked as special."""
    added = self._tokenizer.get_added_tokens_decoder()
    return {i: token.content for i, token in added.items() if token.special}

  @functools.cached_property
  def byte_ids(self) -> np.ndarray:
    """The id of each single byte, int32 [256]; -1 where there is none."""
    single = {self.pieces[i]: i for i in np.flatnonzero(self.lengths == 1)[::-1].tolist()}
    return np.array([single.get(bytes([byte]), -1) for byte in base.BYTES], np.int32)

  def encode_text(self, text: str) -> list[int]:
    """The library's ids."""
    with errors.refused('the library tokenizers cannot cut this text'):
      return self._tokenizer.encode(text, add_special_tokens=False).ids

  def encode_places(self, text: str) -> tuple[list[int], list[int]]:
    """The library's ids, and the character after the last of each."""
    return _places(self._tokenizer, text)

  def state(self) -> base.State:
    """The file."""
    return {'content': base.byte_array(self.content)}

  @classmethod
  def from_state(cls, state: base.State) -> Self:
    """Rebuilds from `state()`."""
    return cls(state['content'].tobytes())


class ByteLevel(JsonDictionary):
  """A `tokenizer.json` whose tokens are written in GPT-2's characters for bytes."""

  family = 'byte_level'

  @classmethod
  def rules(cls, rules: dict[str, Any]) -> dict[str, Any]:
    """Those of the file."""
    if not _cuts_bytes(rules):
      raise InputError('the rules of this tokenizer.json change text')
    return rules

  @classmethod
  def piece(cls, token: str) -> bytes:
    """The bytes of a token."""
    of_byte = _bytes_of_characters()
    if not set(token) <= of_byte.keys():
      raise InputError(f'token {token!r} is not written in the characters of bytes')
    return bytes(of_byte[character] for character in token)


class Metaspace(JsonDictionary):
  """A `tokenizer.json` that writes a space as ▁ and other bytes as <0x00> to <0xFF>.

  This is SentencePiece's form, as in Llama 2. The file may add a space before each text, which this
  class does not do. So the class shows the pieces of a file, but does not replace it in a model.
  """

  family = 'metaspace'
  refused = sentencepiece.SPACE

  @classmethod
  def rules(cls, rules: dict[str, Any]) -> dict[str, Any]:
    """Those of the file, without a space before the text."""
    space = {'type': 'Replace', 'pattern': {'String': ' '}, 'content': sentencepiece.SPACE}
    marks = lambda step: step == space
    before = lambda step: step['type'] == 'Prepend' and step['prepend'] == sentencepiece.SPACE
    metaspace = lambda cut: (
      cut['type'] == 'Metaspace' and cut.get('replacement') == sentencepiece.SPACE
    )
    steps, cuts = _steps(rules.get('normalizer')), _steps(rules.get('pre_tokenizer'))
    model = rules['model']
    if (
      not all(marks(step) or before(step) for step in steps)
      or not all(metaspace(cut) or _keeps(cut) for cut in cuts)
      or not (any(map(marks, steps)) or any(map(metaspace, cuts)))
      or not model.get('byte_fallback')
      or not _joins_bytes(model)
    ):
      raise InputError('the rules of this tokenizer.json change text')
    never: dict[str, Any] = {'prepend_scheme': 'never', 'add_prefix_space': False}
    cuts = [{**cut, **never} if metaspace(cut) else cut for cut in cuts]
    return rules | {
      'normalizer': {'type': 'Sequence', 'normalizers': [*filter(marks, steps)]},
      'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': cuts},
    }

  @classmethod
  def piece(cls, token: str) -> bytes:
    """The bytes of a token."""
    if byte := re.fullmatch('<0x([0-9A-F]{2})>', token):
      return bytes.fromhex(byte[1])
    return token.replace(sentencepiece.SPACE, ' ').encode()

  @functools.cached_property
  def byte_ids(self) -> np.ndarray:
    """The id of each byte that is written as such, int32 [256]; -1 where there is none."""
    ids = [self._tokenizer.token_to_id(f'<0x{byte:02X}>') for byte in base.BYTES]
    return np.array([-1 if i is None else i for i in ids], np.int32)


class Foreign(base.Tokenizer):
  """A tokenizer of another library, used as it is; changes that it makes to a text are not undone.

  Invalid UTF-8 is read as U+FFFD. A token covers the text from the end of the token before it to
  its own end, and the last token covers the rest: so dropped text counts too, and bits per
    byte
  are of the text as it was. A text that the library drops as a whole is the unknown token, or id 0
  where there is none.

  Args:
    content: of the file.
    kind: '.json' or '.model'.

  Raises:
    InputError: a file that its library does not read.
  """

  family = 'foreign'
  lossless = False

  def __init__(self, content: bytes, kind: str):
    self.content, self.kind = content, kind
    self._library = _Json(content) if kind == '.json' else _Model(content)
    unknown = self._library.unknown
    self.unknown_ids = frozenset() if unknown is None else frozenset([unknown])

  @property
  def vocab_size(self) -> int:
    """Number of ids."""
    return self._library.vocab_size

  def encode(self, data: bytes) -> np.ndarray:
    """Returns ids, int32 [n]."""
    return self.cover(data)[0]

  def cover(self, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Ids, int32 [n], and the bytes of `data` that each covers, int32 [n]."""
    text, widths = '', [np.zeros(1, np.int64)]
    for part in utf8.cut(data):
      if isinstance(part, str):
        text += part
        widths.append(np.diff(utf8.character_ends(part)))
      else:
        text += '\ufffd' * len(part)
        widths.append(np.ones(len(part), np.int64))
    ids, stops = self._library.encode(text)
    if text and not ids:
      ids, stops = [self._library.unknown or 0], [len(text)]
    ends = np.cumsum(np.concatenate(widths))[np.array(stops, int)]
    ends = np.maximum.accumulate(ends) if ends.size else ends
    ends[-1:] = len(data)
    return np.array(ids, np.int32), np.diff(ends, prepend=0).astype(np.int32)

  def decode(self, ids: ArrayLike) -> bytes:
    """The text of `ids` [n] as the library writes it."""
    return self._library.decode(self.check_ids(ids).tolist()).encode('utf-8', 'replace')

  def byte_lengths(self, ids: ArrayLike) -> np.ndarray:
    """Bytes of each of `ids` [n] decoded alone, int32 [n]; `cover` counts those of a text."""
    return np.array([len(self.decode([i])) for i in self.check_ids(ids)], np.int32)

  def token_bytes(self, token: int) -> bytes:
    """The text of an id decoded alone."""
    return self.decode([token])

  def state(self) -> base.State:
    """The file and its kind."""
    kind = base.byte_array(self.kind.encode())
    return {'content': base.byte_array(self.content), 'kind': kind}

  @classmethod
  def from_state(cls, state: base.State) -> 'Foreign':
    """Rebuilds from `state()`."""
    return cls(state['content'].tobytes(), state['kind'].tobytes().decode())


class _Json:
  def __init__(self, content: bytes):
    self._tokenizer = _library(content)
    self.vocab_size = _size(self._tokenizer)
    model = json.loads(content.decode('utf-8-sig'))['model']
    self.unknown = model.get('unk_id')  # as Unigram has it; all others name the token
    if self.unknown is None and model.get('unk_token') is not None:
      self.unknown = self._tokenizer.token_to_id(model['unk_token'])

  def encode(self, text: str) -> tuple[list[int], list[int]]:
    """Ids, and the character after the last of each."""
    return _places(self._tokenizer, text)

  def decode(self, ids: list[int]) -> str:
    with errors.refused('the library tokenizers cannot join these ids'):
      return self._tokenizer.decode(ids, skip_special_tokens=False)


class _Model:
  def __init__(self, content: bytes):
    self._processor = sentencepiece.processor(content)
    self.vocab_size = self._processor.vocab_size()
    unknown = self._processor.unk_id()
    self.unknown = unknown if unknown >= 0 else None

  def encode(self, text: str) -> tuple[list[int], list[int]]:
    """Ids, and the character after the last of each."""
    return sentencepiece.places(self._processor, text)

  def decode(self, ids: list[int]) -> str:
    return self._processor.decode(ids)


def to_json(tokenizer: base.Tokenizer, bos: int | None) -> bytes:
  """A tokenizer.json that gives UTF-8 text the same ids.

  Args:
    tokenizer: one that was read from such a file, bytes, or BPE over all bytes.
    bos: the id of BOS. If it is the one after the tokenizer's ids, it becomes an added token.

  Raises:
    InputError: any other tokenizer, or a BOS that is not the next id.
  """
  import tokenizers

  from lib.tokenizers import bpe

  if isinstance(tokenizer, ByteLevel) or (
    isinstance(tokenizer, Foreign) and tokenizer.kind == '.json'
  ):
    content = tokenizer.content
  elif isinstance(tokenizer, bpe.BPE):
    content = tokenizer.to_json().encode()
  elif tokenizer.family == 'characters':
    content = bpe.BPE(tokenizer.alphabet, np.zeros((0, 2), np.int32)).to_json().encode()
  else:
    raise InputError(
      f'this {tokenizer.family} tokenizer cannot be written as a tokenizer.json: use bytes, BPE '
      'over all bytes, or one that was read from such a file.'
    )
  if bos is None or bos < tokenizer.vocab_size:
    return content
  made = tokenizers.Tokenizer.from_str(content.decode())
  made.add_special_tokens([tokenizers.AddedToken(BOS, special=True, normalized=False)])
  if made.token_to_id(BOS) != bos:
    raise InputError(
      f'the BOS id {bos} cannot be added to a tokenizer.json of {tokenizer.vocab_size} ids.'
    )
  return made.to_str().encode()


def _library(content: bytes):
  """The `tokenizers` object, without truncation, padding, added tokens and dropout."""
  os.environ['RUST_BACKTRACE'] = '0'  # failures there are reported in one sentence
  import tokenizers

  with errors.refused('the library tokenizers cannot read this as a tokenizer.json'):
    tokenizer = tokenizers.Tokenizer.from_str(content.decode('utf-8-sig'))
  tokenizer.no_truncation()
  tokenizer.no_padding()
  tokenizer.post_processor = None  # it would trim the places of tokens
  for chance in ('dropout', 'alpha'):  # of BPE and Unigram
    if getattr(tokenizer.model, chance, None) is not None:
      setattr(tokenizer.model, chance, None)
  return tokenizer


def _places(tokenizer, text: str) -> tuple[list[int], list[int]]:
  """The ids of a text, and the character after the last of each."""
  with errors.refused('the library tokenizers cannot cut this text'):
    found = tokenizer.encode(text, add_special_tokens=False)
  return found.ids, [stop for _, stop in found.offsets]


@functools.cache
def _bytes_of_characters() -> dict[str, int]:
  return {character: byte for byte, character in enumerate(byte_characters())}


def _cuts_bytes(rules: Mapping[str, Any]) -> bool:
  """Whether a tokenizer.json writes bytes as characters, and only cuts and joins them."""
  cuts = _steps(rules.get('pre_tokenizer'))
  as_bytes = [cut for cut in cuts if cut['type'] == 'ByteLevel']
  return (
    not _steps(rules.get('normalizer'))
    and len(as_bytes) == 1
    and not as_bytes[0].get('add_prefix_space', True)
    and all(_keeps(cut) or cut in as_bytes for cut in cuts)
    and _joins_bytes(rules['model'])
  )


def _keeps(cut: Mapping[str, Any]) -> bool:
  """Whether a rule cuts text and drops none of it."""
  return cut['type'] in CUTS and cut.get('behavior') != 'Removed'


def _joins_bytes(model: Mapping[str, Any]) -> bool:
  """Whether tokens are joined as they are."""
  return model.get('type', 'BPE') in ('BPE', 'Unigram') and not (
    model.get('continuing_subword_prefix') or model.get('end_of_word_suffix')
  )


def _steps(rule: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
  """The rules of a sequence, also of one in another; a single one by itself."""
  if rule is None or rule['type'] != 'Sequence':
    return [] if rule is None else [rule]
  inner = rule.get('pretokenizers', rule.get('normalizers', []))
  return [step for one in inner for step in _steps(one)]


def _size(tokenizer) -> int:
  """The number of ids, unused ids included; raises InputError for none or too many."""
  size = max(tokenizer.get_vocab().values(), default=-1) + 1
  if not 0 < size <= MOST:
    raise InputError(f'this tokenizer.json has {size} ids: there must be 1 to {MOST}')
  return size
