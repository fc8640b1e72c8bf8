# SPDX-License-Identifier: Apache-2.0
"""Tokenizers that other projects made: a Hugging Face `tokenizer.json`, a SentencePiece `.model`.

Those that cut bytes as they are become dictionaries, exact for every byte string. All others
(lowercase, added or dropped spaces, unknown words) are taken as they are, and are not lossless.
"""

import contextlib
import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lib.errors import InputError
from lib.tokenizers import base, utf8
from lib.tokenizers.sentencepiece import SentencePiece
from lib.tokenizers.wordpiece import byte_characters

MOST = 1 << 24  # ids: more are damage
BOS = '<|bos|>'  # an added token
# What tokenizers often change: case, spaces, line ends, compatible and combining characters.
PROBE = "A  b\r\n\tÀ\u00a0\ufb01 e\u0301\u200d漢\U0001f600 1,234.5 it's\x00 "


def kind_of(head: bytes) -> str | None:
  """'.json' or '.model' by the first bytes of a file, None for any other."""
  if head.lstrip().startswith(b'{'):
    return '.json'
  return '.model' if head.startswith(b'\n') else None  # the tag of the first field, its pieces


def read(path: str | os.PathLike, kind: str) -> base.Tokenizer:
  """The tokenizer of a `tokenizer.json` or a SentencePiece `.model`, exact where it can be.

  Raises:
    InputError: a file that its library does not read.
  """
  content = pathlib.Path(path).read_bytes()
  exact: Callable[[bytes], base.Tokenizer] = ByteLevel if kind == '.json' else SentencePiece
  whole = Foreign(content, kind)  # first, so that a file that is none is named as such
  try:
    return exact(content)
  except InputError:
    return whole


class ByteLevel(utf8.TextDictionary):
  """A `tokenizer.json` whose tokens are written in GPT-2's characters for bytes, as it cuts them.

  A text that it does not give back in its pieces (where an added token takes spaces with it) is
  written in single bytes, so that every byte string comes back; `fallback_bytes` counts them.

  Args:
    content: of the file.

  Raises:
    InputError: it changes text, or has no token for some byte.
  """

  family = 'byte_level'

  def __init__(self, content: bytes):
    self.content = content
    self._tokenizer = _library(content)
    added = {i: token.content for i, token in self._tokenizer.get_added_tokens_decoder().items()}
    written = {i: token for token, i in self._tokenizer.get_vocab().items()}
    of_byte = {character: byte for byte, character in enumerate(byte_characters())}
    pieces = []
    for i in range(_size(self._tokenizer)):
      if i in added or i not in written:
        pieces.append(added.get(i, '').encode())
      elif set(written[i]) <= of_byte.keys():
        pieces.append(bytes(of_byte[character] for character in written[i]))
      else:
        raise InputError(f'token {written[i]!r} is not written in the characters of bytes')
    super().__init__(pieces)
    self._first = {piece: i for i, piece in reversed(list(enumerate(pieces)))}
    missing = [byte for byte in range(256) if bytes([byte]) not in self._first]
    if missing or self._tokenizer.normalizer is not None or not self._keeps(PROBE):
      raise InputError('this tokenizer.json changes text, or has no token for some byte')

  def _keeps(self, text: str) -> bool:
    return self._joined(self._cut(text)) == text.encode()

  def _cut(self, text: str) -> list[int]:
    with _refusals('cut this text'):
      return self._tokenizer.encode(text, add_special_tokens=False).ids

  def _joined(self, ids: list[int]) -> bytes:
    return b''.join(map(self.pieces.__getitem__, ids))

  @functools.cached_property
  def byte_ids(self) -> np.ndarray:
    """The id of each single byte, int32 [256]."""
    return np.array([self._first[bytes([byte])] for byte in range(256)], np.int32)

  def encode_text(self, text: str) -> list[int]:
    """The library's ids, or those of the bytes."""
    ids, data = self._cut(text), text.encode()
    return ids if self._joined(ids) == data else self.byte_ids[base.byte_array(data)].tolist()

  def text_fallback(self, text: str) -> int:
    """All bytes of a text of which a part does not come back."""
    return 0 if self._keeps(text) else len(text.encode())

  def state(self) -> base.State:
    """The file."""
    return {'content': base.byte_array(self.content)}

  @classmethod
  def from_state(cls, state: base.State) -> 'ByteLevel':
    """Rebuilds from `state()`."""
    return cls(state['content'].tobytes())


class Foreign(base.Tokenizer):
  """A tokenizer of another library, as it is: what it changes in a text does not come back.

  Bytes that are no UTF-8 are read as U+FFFD. A token covers what follows the token before it, up
  to its own end, and the last one all that is left: so what is dropped counts too, and bits a byte
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
    parts = [part if isinstance(part, str) else '\ufffd' * len(part) for part in utf8.cut(data)]
    widths = [
      width
      for part in utf8.cut(data)
      for width in ([len(c.encode()) for c in part] if isinstance(part, str) else [1] * len(part))
    ]
    ids, stops = self._library.encode(''.join(parts))
    if parts and not ids:
      ids, stops = [self._library.unknown or 0], [len(widths)]
    ends = np.concatenate([[0], np.cumsum(widths, dtype=np.int64)])[np.array(stops, int)]
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
    model = json.loads(content)['model']
    self.unknown = model.get('unk_id')  # as Unigram has it; all others name the token
    if self.unknown is None and model.get('unk_token') is not None:
      self.unknown = self._tokenizer.token_to_id(model['unk_token'])

  def encode(self, text: str) -> tuple[list[int], list[int]]:
    """Ids, and the character after the last of each."""
    with _refusals('cut this text'):
      found = self._tokenizer.encode(text, add_special_tokens=False)
    return found.ids, [stop for _, stop in found.offsets]

  def decode(self, ids: list[int]) -> str:
    with _refusals('join these ids'):
      return self._tokenizer.decode(ids, skip_special_tokens=False)


class _Model:
  def __init__(self, content: bytes):
    import sentencepiece

    try:
      self._processor = sentencepiece.SentencePieceProcessor(model_proto=content)
    except RuntimeError as error:
      raise InputError(f'these {len(content)} bytes are no SentencePiece model') from error
    self.vocab_size = self._processor.vocab_size()
    unknown = self._processor.unk_id()
    self.unknown = unknown if unknown >= 0 else None

  def encode(self, text: str) -> tuple[list[int], list[int]]:
    """Ids, and the character after the last of each."""
    pieces = self._processor.encode(text, return_type='proto').pieces
    ends = np.cumsum([len(character.encode()) for character in text])  # its places are of UTF-8
    stops = np.searchsorted(ends, [piece.end for piece in pieces], side='right')
    return [piece.id for piece in pieces], stops.tolist()

  def decode(self, ids: list[int]) -> str:
    return self._processor.decode(ids)


def to_json(tokenizer: base.Tokenizer, bos: int | None) -> bytes:
  """A tokenizer.json that cuts text as the tokenizer does.

  Args:
    tokenizer: one that was read from such a file, bytes, or BPE of all bytes without words.
    bos: the id of BOS. Where it is the one after the tokenizer's ids, it becomes an added token.

  Raises:
    InputError: any other tokenizer, or a BOS in the midst of nothing.
  """
  import tokenizers

  made: Any
  if isinstance(tokenizer, ByteLevel) or getattr(tokenizer, 'kind', '') == '.json':
    made = tokenizers.Tokenizer.from_str(tokenizer.content.decode())  # type: ignore[attr-defined]
  else:
    made = _byte_pairs(tokenizer)
  if bos is not None and bos >= tokenizer.vocab_size:
    made.add_special_tokens([tokenizers.AddedToken(BOS, special=True, normalized=False)])
    if made.token_to_id(BOS) != bos:
      raise InputError(
        f'the BOS id {bos} cannot be added to a tokenizer.json of {tokenizer.vocab_size} ids.'
      )
  elif made is not None and hasattr(tokenizer, 'content'):
    return tokenizer.content
  return made.to_str().encode()


def _byte_pairs(tokenizer: base.Tokenizer) -> Any:
  """Merges over the characters of bytes, across words, as a `tokenizers` object."""
  from tokenizers import Tokenizer, decoders, models, pre_tokenizers

  merges = getattr(tokenizer, 'merges', np.zeros((0, 2), int))
  pieces = getattr(tokenizer, 'pieces', [])
  known = tokenizer.family == 'characters' or (
    tokenizer.family == 'bpe' and getattr(tokenizer, 'encoder', '') == 'merges'
  )
  if not known or len(tokenizer.alphabet) < 256 or len(set(pieces)) < len(pieces):
    raise InputError(
      f'this {tokenizer.family} tokenizer cannot be written as a tokenizer.json: use bytes, '
      'bpe_unsplit over all bytes, or one that was read from such a file.'
    )
  characters = byte_characters()
  written = [''.join(characters[byte] for byte in piece) for piece in pieces]
  pairs = [(written[left], written[right]) for left, right in np.asarray(merges).tolist()]
  made = Tokenizer(models.BPE({piece: i for i, piece in enumerate(written)}, pairs))
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  made.decoder = decoders.ByteLevel()
  return made


def _library(content: bytes):
  """The `tokenizers` object, without what it would cut off or fill up."""
  import tokenizers

  with _refusals('read this as a tokenizer.json'):
    tokenizer = tokenizers.Tokenizer.from_str(content.decode())
  tokenizer.no_truncation()
  tokenizer.no_padding()
  return tokenizer


def _size(tokenizer) -> int:
  """Ids, those between that stand for nothing too; raises InputError for none or too many."""
  size = max(tokenizer.get_vocab().values(), default=-1) + 1
  if not 0 < size <= MOST:
    raise InputError(f'this tokenizer.json has {size} ids: there must be 1 to {MOST}')
  return size


@contextlib.contextmanager
def _refusals(what: str) -> Iterator[None]:
  """InputError for whatever the library raises, panics of its own among them."""
  try:
    yield
  except BaseException as error:
    if isinstance(error, Exception) or type(error).__name__ == 'PanicException':
      raise InputError(f'the library tokenizers cannot {what}: {error}') from error
    raise
