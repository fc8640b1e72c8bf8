# SPDX-License-Identifier: Apache-2.0
"""Damaged and hostile tokenizers, containers, texts and ids for `tests.fuzz`."""

import base64
import contextlib
import functools
import hashlib
import pathlib
import struct
import tempfile
import zlib

import numpy as np

from lib import tokenizers
from lib.errors import InputError
from lib.tokenizers import container, files, registry
from lib.tokenizers.base import Dictionary
from lib.tokenizers.blocks import Blocks
from lib.tokenizers.boundless import train_boundless
from lib.tokenizers.bpe import train_bpe_unsplit
from lib.tokenizers.characters import Characters
from lib.tokenizers.coding import tabulate
from lib.tokenizers.coding.baselines import GZip, train_static_ac
from lib.tokenizers.coding.windows import EqualInfo
from lib.tokenizers.foreign import ByteLevel, Foreign
from lib.tokenizers.less_is_better import train_lib
from lib.tokenizers.lzw import train_lzw
from lib.tokenizers.ranks import Ranks
from lib.tokenizers.restricted import train_restricted
from lib.tokenizers.sentencepiece import train_sentencepiece
from lib.tokenizers.token_ends import TokenEnds
from lib.tokenizers.unicode import Unicode
from lib.tokenizers.wordpiece import train_wordpiece

TEXT = (
  'A text of words, the same words again, \u00e9t\u00e9 \u4e2d\u6587 the words 0123\n'.encode() * 8
)


def edited(content: bytes, edits: bytes) -> bytes:
  """The content after edits of seven bytes each: what, where (3), with what (3)."""
  parts = bytearray(content)
  for start in range(0, len(edits) - 6, 7):
    what, place = edits[start] % 6, int.from_bytes(edits[start + 1 : start + 4], 'big')
    place, new = place % (len(parts) + 1), edits[start + 4 : start + 7]
    if what == 0:
      parts[place : place + 1] = new[:1]
    elif what == 1:
      parts[place : place + 3] = new
    elif what == 2:
      parts[place:place] = new
    elif what == 3:
      del parts[place : place + 1 + new[0]]
    elif what == 4:
      parts[place:place] = parts[place : place + 1 + new[0]]
    else:
      del parts[place:]
  return bytes(parts)


@functools.cache
def folder() -> pathlib.Path:
  return pathlib.Path(tempfile.mkdtemp(prefix='fuzz'))


def written(content: bytes, name: str) -> pathlib.Path:
  path = folder() / name
  path.write_bytes(content)
  return path


def tokenizer_json(lower: bool = False) -> bytes:
  """A file of the library tokenizers, of GPT-2's kind."""
  from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

  tokenizer = Tokenizer(models.BPE())
  tokenizer.normalizer = normalizers.Lowercase() if lower else None
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
  tokenizer.train_from_iterator([TEXT.decode()], trainer)
  return tokenizer.to_str().encode()


@functools.cache
def family(name: str) -> tokenizers.Tokenizer:
  """A small tokenizer of each family."""
  letters = bytes(range(256))
  singles = [letters[i : i + 1] for i in letters]
  pieces = sorted({TEXT[i : i + n] for i in range(60) for n in (2, 3, 4)})
  make = {
    'boundless': lambda: train_boundless([TEXT], 300),
    'bpe': lambda: train_bpe_unsplit([TEXT], 300),
    'ranks': lambda: Ranks(train_bpe_unsplit([TEXT], 300).pieces, 'words'),
    'byte_level': lambda: ByteLevel(tokenizer_json()),
    'foreign': lambda: Foreign(tokenizer_json(lower=True), '.json'),
    'blocks': lambda: Blocks(b'01', 3),
    'characters': Characters,
    'dictionary': lambda: Dictionary(singles + pieces, 'minimal'),
    'equal_info': lambda: EqualInfo(tabulate.number({*singles, *pieces}, 12), 12),
    'gzip': lambda: GZip(16),
    'lib': lambda: train_lib([TEXT], 300),
    'lzw': lambda: train_lzw([TEXT], 300),
    'restricted': lambda: train_restricted([TEXT], 400),
    'sentencepiece': lambda: train_sentencepiece([TEXT * 20], 330, 'bpe'),
    'static_ac': lambda: train_static_ac([TEXT]),
    'token_ends': lambda: TokenEnds(train_bpe_unsplit([TEXT], 300)),
    'unicode': lambda: Unicode(['the', 'th']),
    'wordpiece': lambda: train_wordpiece([TEXT * 20], 530),
  }
  return make[name]()


FAMILIES = tuple(sorted(set(registry.readable()) - {'ac', 'stepped_equal_info'}))  # without M1


@functools.cache
def saved(name: str) -> bytes:
  path = folder() / 'saved'
  tokenizers.save(family(name), path)
  return path.read_bytes()


def pick(data: bytes) -> tuple[str, bytes]:
  """A family by the first byte, and the bytes after it."""
  return FAMILIES[data[0] % len(FAMILIES)] if data else FAMILIES[0], data[1:]


def use(tokenizer: tokenizers.Tokenizer) -> None:
  """What a tokenizer of hostile arrays is put to."""
  for text in (TEXT, b'', bytes(range(256)), b'0110'):
    with contextlib.suppress(InputError):
      ids = tokenizer.encode(text)
      tokenizer.byte_lengths(ids)
      tokenizer.decode(ids)
  with contextlib.suppress(InputError):
    tokenizer.decode(np.arange(0, tokenizer.vocab_size, max(tokenizer.vocab_size // 99, 1)))


def tokenizer_file(data: bytes) -> None:
  name, edits = pick(data)
  use(tokenizers.load(written(edited(saved(name), edits), 'tokenizer')))


@functools.cache
def foreign_contents() -> tuple[bytes, ...]:
  """Files of other projects that `load` reads or refuses by name."""
  ranks = b''.join(base64.b64encode(bytes([i])) + b' %d\n' % i for i in range(256))
  model = family('sentencepiece').state()['model_proto'].tobytes()
  others = ranks, b'#version: 0.2\na b\n', b'{"a": 0, "b": 1}', b'{"tokenizer_class": "A"}'
  return tokenizer_json(), tokenizer_json(lower=True), model, *others


def foreign_file(data: bytes) -> None:
  contents = foreign_contents()
  content = contents[data[0] % len(contents)] if data else contents[0]
  use(tokenizers.load(written(edited(content, data[1:]), 'foreign')))


def tokenizer_arrays(data: bytes) -> None:
  """Signed, and every array still one: by an edit, or of another kind."""
  name, edits = pick(data)
  state = dict(family(name).state())
  chosen = sorted(state)[edits[0] % len(state)] if edits else sorted(state)[0]
  array, how, rest = state[chosen], edits[1] % 8 if len(edits) > 1 else 0, edits[2:]
  if how < 5:
    raw = edited(array.tobytes(), rest)
    raw = raw[: len(raw) - len(raw) % array.dtype.itemsize]
    state[chosen] = np.frombuffer(raw, array.dtype)
    if how == 4 and state[chosen].size == array.size:
      state[chosen] = state[chosen].reshape(array.shape)
  elif how == 5:
    del state[chosen]
  else:
    state[chosen] = array.astype('f4' if how == 6 else 'i8').reshape(-1)[::-1]
  path = folder() / 'arrays'
  files.write(path, name, state)
  use(tokenizers.load(path))


def tokenizer_archive(data: bytes) -> None:
  """Signed, with an archive that is none, or holds what it says not."""
  name, edits = pick(data)
  line, _, payload = saved(name).partition(b'\n')
  payload = edited(payload, edits)
  line = b' '.join([*line.split(b' ')[:3], str(len(payload)).encode()])
  digest = hashlib.sha256(line + b'\n' + payload).hexdigest().encode()
  use(tokenizers.load(written(line + b' ' + digest + b'\n' + payload, 'archive')))


def text(data: bytes) -> None:
  """Any bytes through encode and back."""
  name, content = pick(data)
  tokenizer = family(name)
  ids, lengths = tokenizer.cover(content)
  assert lengths.sum() == len(content) * bool(ids.size)
  if tokenizer.lossless:
    assert tokenizer.decode(ids) == content
    assert tokenizer.byte_lengths(ids).tolist() == lengths.tolist()


def ids(data: bytes) -> None:
  """Any ids, most of them in range."""
  name, content = pick(data)
  tokenizer = family(name)
  numbers = np.frombuffer(content[: len(content) // 4 * 4], '<i4')
  tokenizer.decode(numbers if data[-1:] == b'!' else np.abs(numbers) % tokenizer.vocab_size)


@functools.cache
def contained(name: str) -> bytes:
  chosen = family(name)
  return container.to_bytes(chosen, TEXT if name != 'blocks' else b'0110' * 9)


def container_file(data: bytes) -> None:
  name, edits = pick(data)
  container.from_bytes(family(name), edited(contained(name), edits))


def container_signed(data: bytes) -> None:
  """With the checksums of what it says now, so that sizes and ids are hostile."""
  name, edits = pick(data)
  content = edited(contained(name), edits)
  head, rest = content[:68], content[72:]
  if len(head) == 68:
    head = head[:56] + struct.pack('>Q', len(rest)) + head[64:]
  parts = [head, struct.pack('>I', zlib.crc32(head))]
  width = container.id_bits(family(name).vocab_size)
  while len(rest) >= 16:
    entry, need = rest[:12], (struct.unpack('>I', rest[8:12])[0] * width + 7) // 8
    packed, rest = rest[16 : 16 + need], rest[16 + need :]
    parts += [entry, struct.pack('>I', zlib.crc32(packed, zlib.crc32(entry))), packed]
  container.from_bytes(family(name), b''.join([*parts, rest]))
