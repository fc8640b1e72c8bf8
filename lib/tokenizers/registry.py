# SPDX-License-Identifier: Apache-2.0
"""All tokenizers by name: `train` makes one, `save` keeps it in a file, `load` reads any file.

A new family is one entry of FAMILIES. Modules are imported when they are used: to import this one
brings neither JAX nor the tokenizer libraries.
"""

import importlib
import inspect
import os
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from lib import progress
from lib.errors import InputError
from lib.tokenizers import files, foreign, kinds, ranks
from lib.tokenizers.base import Tokenizer


class Family(NamedTuple):
  """Places, `module:name` in lib.tokenizers, of what a name stands for.

  Attributes:
    tokenizer: the class that files of this family hold.
    train: a function of documents, a vocabulary size and options; '' if nothing is trained by this
      name.
    least: the fewest ids that it trains, whatever the documents; '' if the bytes are enough.
  """

  tokenizer: str
  train: str = ''
  least: str = ''


# A file of `bpe` holds the rule by which text is cut first; that of `bpe_unsplit` is `none`, as in
# older files. A file of `characters` has an id a byte, as `bytes` has, while training by that name
# gives Unicode characters, the most frequent, in a file of `restricted`.
FAMILIES: dict[str, Family] = {
  'ac': Family('coding.streams:SteppedAC'),
  'blocks': Family('blocks:Blocks', 'blocks:train_blocks'),
  'boundless': Family('boundless:Boundless', 'boundless:train_boundless'),
  'bpe': Family('bpe:BPE', 'bpe:train_bpe'),
  'bpe_unsplit': Family('bpe:BPE', 'bpe:train_bpe_unsplit'),
  'byte_level': Family('foreign:ByteLevel'),
  'bytes': Family('characters:Characters', 'characters:train_bytes'),
  'characters': Family('characters:Characters', 'restricted:train_characters'),
  'dictionary': Family('base:Dictionary'),
  'equal_info': Family('coding.windows:EqualInfo'),
  'foreign': Family('foreign:Foreign'),
  'gzip': Family('coding.baselines:GZip', 'coding.baselines:train_gzip'),
  'lib': Family('less_is_better:LiB', 'less_is_better:train_lib'),
  'lzw': Family('lzw:LZW', 'lzw:train_lzw'),
  'ranks': Family('ranks:Ranks'),
  'restricted': Family('restricted:Restricted', 'restricted:train_restricted'),
  'sentencepiece': Family(
    'sentencepiece:SentencePiece', 'sentencepiece:train_sentencepiece', 'sentencepiece:LEAST'
  ),
  'static_ac': Family('coding.baselines:StaticAC', 'coding.baselines:train_static_ac'),
  'stepped_equal_info': Family('coding.window_streams:SteppedEqualInfo'),
  'superbpe': Family('bpe:BPE', 'superbpe:train_superbpe'),
  'token_ends': Family('token_ends:TokenEnds'),
  'unicode': Family('unicode:Unicode', 'restricted:train_largest'),
  'wordpiece': Family('wordpiece:WordPiece', 'wordpiece:train_wordpiece', 'wordpiece:BASE'),
}


def trainable() -> list[str]:
  """The names that `train` knows."""
  return [name for name, family in FAMILIES.items() if family.train]


def readable() -> list[str]:
  """The families that a file can hold."""
  return [name for name in FAMILIES if _class_of(name)]


def train(name: str, documents: Sequence[bytes], vocab_size: int, **options: Any) -> Tokenizer:
  """A tokenizer learned from documents, of which no learned piece crosses a border.

  Args:
    name: one of `trainable()`.
    documents: any bytes.
    vocab_size: the most ids.
    **options: of the family; see its function.

  Raises:
    InputError: an unknown name or option, or what the family's function refuses.
  """
  check(name, options)
  with progress.waiting(f'training {name}, {vocab_size:,} ids'):
    return resolve(FAMILIES[name].train)(documents, vocab_size, **options)


def check(name: str, options: Collection[str], vocab_size: int | None = None) -> None:
  """Raises InputError for a name that `train` does not know, options that it does not take, or a
  size that is too small for any documents."""
  if name not in trainable():
    raise InputError(f'no tokenizer is trained by the name {name!r}: use {", ".join(trainable())}')
  known = list(inspect.signature(resolve(FAMILIES[name].train)).parameters)[2:]
  if unknown := sorted(set(options) - set(known)):
    raise InputError(
      f'{name} has no option {", ".join(unknown)}: it has {", ".join(known) or "none"}'
    )
  least = resolve(FAMILIES[name].least) if FAMILIES[name].least else 256
  if vocab_size is not None and vocab_size < least:
    raise InputError(f'{name} has {least} ids or more; got {vocab_size}')


def save(tokenizer: Tokenizer, path: str | os.PathLike) -> None:
  """Writes the tokenizer to one file with a checksum, atomically.

  Raises:
    InputError: its class is not the one that FAMILIES names for its family, so that `load` could
      not give it back; or it runs a model that cannot be saved.
  """
  if _class_of(tokenizer.family) is not type(tokenizer):
    raise InputError(
      f'{type(tokenizer).__name__} cannot be saved: give it its own family and add it to '
      'FAMILIES in lib/tokenizers/registry.py'
    )
  files.write(path, tokenizer.family, tokenizer.file_state())


def load(path: str | os.PathLike) -> Tokenizer:
  """Reads what `save` wrote, or a file of another library.

  Those are a `tokenizer.json` of Hugging Face, a SentencePiece `.model`, a `tekken.json` of Mistral
  and ranks of tiktoken. The kind is recognised by the content. Ranks come without the rule that
  splits text, so it is added to their path: `FILE:cl100k`.

  Raises:
    InputError: any other or a damaged file, or a rule where none belongs.
  """
  path, rule = files.place(path)
  if rule is not None:
    return ranks.read(path, rule)
  if kind := kinds.kind_of(files.head(path)):
    return foreign.read(path, kind)
  family, state = files.read(path)
  found = _class_of(family)
  if found is None:
    raise InputError(f'{path} contains a {family!r} tokenizer: known are {", ".join(readable())}')
  with files.rebuilding(path, f'{family} tokenizer'):
    return found.from_state(state)


def resolve(place: str) -> Any:
  """What is at `module:name` in lib.tokenizers."""
  module, name = place.split(':')
  return getattr(importlib.import_module(f'lib.tokenizers.{module}'), name)


def _class_of(family: str) -> type[Tokenizer] | None:
  """The class of a family of files."""
  found = resolve(FAMILIES[family].tokenizer) if family in FAMILIES else None
  return found if found is not None and found.family == family else None
