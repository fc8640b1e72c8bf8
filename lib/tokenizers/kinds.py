# SPDX-License-Identifier: Apache-2.0
"""The kind of a tokenizer file, by its content, never by its name."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

BOM = b'\xef\xbb\xbf'
HEAD = 1 << 14  # first bytes that identify other files than JSON
SETTINGS = 'has the settings of a tokenizer alone: give the tokenizer.json next to it'
# A key of a JSON object -> what file has it.
KEYS = {
  'tokenizer_class': SETTINGS,
  'added_tokens_decoder': SETTINGS,
  'model_type': 'is the config.json of a model: give the tokenizer.json next to it',
}


def kind_of(head: bytes) -> str | None:
  """'.json' or '.model' (SentencePiece) by the first bytes of a file, None for any other."""
  if head.removeprefix(BOM).lstrip().startswith(b'{'):
    return '.json'
  return '.model' if head.startswith(b'\n') else None  # the tag of the first field, its pieces


def is_tekken(content: bytes) -> bool:
  """Whether it is JSON with the fields of a tekken.json of Mistral."""
  fields = _fields(content)
  return fields is not None and {'config', 'vocab'} <= fields.keys()


def other(content: bytes) -> str | None:
  """A sentence on a known file that is not a tokenizer, and what to give instead.

  None for a file of unknown kind, and for any tokenizer.json.
  """
  if content.startswith(b'version https://git-lfs'):
    return 'is a pointer of Git LFS, not the file: fetch it with `git lfs pull`'
  if content.startswith((b'#version', b'#Version')):
    return 'has the merges of a BPE alone (merges.txt): give the tokenizer.json next to it'
  if has_ranks(content):
    return 'has ranks of tiktoken, without the rule that splits text: add it, as in FILE:cl100k'
  return _of_json(content) if kind_of(content) == '.json' else None


def _fields(content: bytes) -> Mapping[str, Any] | None:
  try:
    fields = json.loads(content.decode('utf-8-sig'))
  except (ValueError, RecursionError):
    return None
  return fields if isinstance(fields, Mapping) else None


def _of_json(content: bytes) -> str | None:
  fields = _fields(content)
  if fields is None or isinstance(fields.get('model'), Mapping):
    return None
  if fields and all(isinstance(value, int) for value in fields.values()):
    return 'has a vocabulary alone (vocab.json): give the tokenizer.json next to it'
  found = [what for key, what in KEYS.items() if key in fields]
  return found[0] if found else "is JSON, but no tokenizer.json: it has no 'model'"


def has_ranks(content: bytes) -> bool:
  """Whether the first lines are each a token in base64 and its number."""
  lines = content[:HEAD].split(b'\n')
  return len(lines) > 1 and all(map(_is_rank, lines[:-1]))


def _is_rank(line: bytes) -> bool:
  found = re.fullmatch(rb'(\S+) \d+\r?', line)
  try:
    return found is not None and bool(base64.b64decode(found[1], validate=True))
  except binascii.Error:
    return False
