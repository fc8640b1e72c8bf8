# SPDX-License-Identifier: Apache-2.0
"""Tokenizer files: train one, convert one, or inspect one.

python -m experiments.tools.tokenizer train FAMILY OUT [--source=stdlib --vocab_size=8192]
python -m experiments.tools.tokenizer train superbpe OUT --parent=FILE
python -m experiments.tools.tokenizer export FILE OUT
python -m experiments.tools.tokenizer inspect FILE [--model=FOLDER]

`export` writes a tokenizer.json if OUT ends in .json, and otherwise a file of this project. FILE is
any tokenizer file; for tiktoken ranks, add the rule that splits text: FILE:cl100k.
"""

import collections
import math
import os
import pathlib
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from absl import flags

from experiments.tools import command
from lib import atomic, tokenizers
from lib.data import sources
from lib.errors import InputError
from lib.evals import undertrained
from lib.tokenizers import Tokenizer, registry, superbpe
from lib.tokenizers.bpe import BPE

SOURCE = flags.DEFINE_string(
  'source', 'stdlib', 'train: the text (docs/data.md); its train split is used.'
)
MEGABYTES = flags.DEFINE_float('megabytes', 10.0, 'train: most text, in 10⁶ bytes.')
VOCAB_SIZE = flags.DEFINE_integer('vocab_size', 8192, 'train: most tokens.')
RULE = flags.DEFINE_string('rule', None, 'train bpe: pretokenizer (docs/concepts.md).')
PARENT = flags.DEFINE_string(
  'parent', None, 'train superbpe: file of a BPE, whose merges become the first merges.'
)
MODEL = flags.DEFINE_string(
  'model', None, 'inspect: also list tokens on which this model was hardly trained.'
)
FORCE = flags.DEFINE_bool('force', False, 'Overwrite an existing file.')
SHOWN = 12  # examples of each kind


def train(family: str, out: str) -> str:
  """Learns a tokenizer and saves it; returns what to say."""
  options: dict[str, Any] = {} if RULE.value is None else {'rule': RULE.value}
  if PARENT.value is not None:
    options['parent'] = _bpe(PARENT.value)
  if not 0 < MEGABYTES.value < math.inf:
    raise InputError(f'--megabytes must be positive; got {MEGABYTES.value}.')
  _check_out(out)
  registry.check(family, options, VOCAB_SIZE.value)
  source = sources.open_source(SOURCE.value, 'train')
  text = sources.sample(source, int(MEGABYTES.value * 1e6))
  made = tokenizers.train(family, text, VOCAB_SIZE.value, **options)
  tokenizers.save(made, out)
  found = f'{out}: {describe(made)}, from {sum(map(len, text)):,} bytes of {SOURCE.value}'
  if (parent := options.get('parent')) and isinstance(made, BPE):
    same, own = superbpe.inherited(made, parent), len(parent.merges)
    found += f'\nthe first {same:,} of its merges are, byte for byte, the {own:,} of {PARENT.value}'
  return found


def export(path: str, out: str) -> str:
  """Writes a tokenizer in another format; returns what to say."""
  _check_out(out)
  tokenizer = tokenizers.load(path)
  if not out.endswith('.json'):
    tokenizers.save(tokenizer, out)
  elif isinstance(tokenizer, BPE):
    pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
    atomic.write(out, tokenizer.to_json())
  else:
    raise InputError(f'only bpe can be written as a tokenizer.json, not {tokenizer.family}.')
  return f'{out}: {describe(tokenizer)}'


def inspect(path: str) -> str:
  """What is remarkable in a vocabulary, a line each."""
  tokenizer = tokenizers.load(path)
  lines = [f'{path}: {describe(tokenizer)}', *kinds(tokenizer)]
  if MODEL.value is not None:
    lines += undertrained_tokens(tokenizer, MODEL.value)
  return '\n'.join(lines)


def undertrained_tokens(tokenizer: Tokenizer, folder: str) -> list[str]:
  """The tokens with the least trained rows in a model, by its output and by its input table.

  Raises:
    InputError: the model is over another tokenizer, or has no tables.
  """
  from lib import language_model  # brings JAX, which the other commands do without

  model = language_model.load(folder)
  if model.tokenizer is None or model.tokenizer.fingerprint != tokenizer.fingerprint:
    raise InputError(f'the model {folder} is not over this tokenizer: give the file it has.')
  tables = model.embedding_tables()
  pieces = [tokenizer.token_bytes(i) or b'' for i in range(tokenizer.vocab_size)]
  bytes_of = {i: piece for i, piece in enumerate(pieces) if piece}
  unused = [i for i, piece in enumerate(pieces) if not piece] + unreachable(tokenizer, bytes_of)
  found = {'input rows, by their norm': undertrained.input_norm(tables.input[: len(pieces)])}
  if len(unused) > 1:
    what = f'output rows, by their cosine distance to the mean of {len(unused):,} unused tokens'
    found[what] = undertrained.output_distance(tables.output[: len(pieces)], unused)
  lines = []
  for what, scores in found.items():
    least = np.argsort(scores, kind='stable')[: 2 * SHOWN].tolist()
    some = ' '.join(f'{pieces[i]!r}'[1:] + f' {scores[i]:.3g}' for i in least)
    lines.append(f'least trained {what}; the median is {np.median(scores):.3g}: {some}')
  return lines


def describe(tokenizer: Tokenizer) -> str:
  """The family, the rule, the number of tokens and the fingerprint."""
  rule = getattr(tokenizer, 'rule', None)
  split = f', pretokenizer {rule}' if rule else ''
  return (
    f'{tokenizer.family} of {tokenizer.vocab_size:,} tokens{split}, '
    f'fingerprint {tokenizer.fingerprint[:12]}'
  )


def kinds(tokenizer: Tokenizer) -> list[str]:
  """Of each kind of token how many there are, and some."""
  pieces = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
  if None in pieces:
    raise InputError(f'{tokenizer.family} tokens have no bytes of their own to look into.')
  bytes_of = {i: piece for i, piece in enumerate(pieces) if piece}
  texts = {i: piece.decode(errors='replace') for i, piece in bytes_of.items()}
  tokens: dict[str, Iterable[int]] = {
    'unreachable (their bytes are encoded otherwise)': unreachable(tokenizer, bytes_of),
    'without bytes': [i for i, piece in enumerate(pieces) if not piece],
    'of the bytes of an earlier one': repeated(bytes_of),
    'no whole characters': [i for i, text in texts.items() if '\ufffd' in text],
    'digits': [i for i, text in texts.items() if text.strip().isdigit()],
    'whitespace': [i for i, text in texts.items() if text.isspace()],
    'with a space inside': [i for i, text in texts.items() if ' ' in text.strip()],
    'letters': [i for i, text in texts.items() if text.strip().isalpha()],
    'longest': sorted(bytes_of, key=lambda i: (-len(bytes_of[i]), i))[:SHOWN],
  }
  scripts = collections.Counter(
    unicodedata.name(text.strip()[0], 'UNNAMED').split()[0]
    for text in texts.values()
    if text.strip() and text.strip()[0].isalpha()
  )
  lines = []
  for kind, found in tokens.items():
    found = list(found)
    some = ' '.join(repr(bytes_of.get(i, b''))[1:] for i in found[:SHOWN])
    lines.append(f'{len(found):>8,} {kind}{": " + some if found else ""}')
  lengths = np.array([len(piece) for piece in bytes_of.values()])
  lines.append(f'{lengths.mean():8.2f} bytes a token, {lengths.max()} at most')
  most = ', '.join(f'{name.lower()} {count:,}' for name, count in scripts.most_common(8))
  return [*lines, f'first letters: {most}']


def unreachable(tokenizer: Tokenizer, bytes_of: dict[int, bytes]) -> list[int]:
  """The tokens whose bytes the tokenizer encodes as something else."""
  return [i for i, piece in bytes_of.items() if tokenizer.encode(piece).tolist() != [i]]


def repeated(bytes_of: dict[int, bytes]) -> list[int]:
  """The tokens that have the bytes of one of a lower id."""
  first: dict[bytes, int] = {}
  return [i for i, piece in bytes_of.items() if first.setdefault(piece, i) != i]


def _bpe(path: str) -> BPE:
  found = tokenizers.load(path)
  if not isinstance(found, BPE):
    raise InputError(f'{path} is not a BPE file of this project, so its merges cannot be kept.')
  return found


def _check_out(out: str) -> None:
  if os.path.exists(out) and not FORCE.value:
    raise InputError(f'{out} exists: give another name, or --force.')


COMMANDS: dict[str, tuple[Callable[..., str], int]] = {
  'train': (train, 2),
  'export': (export, 2),
  'inspect': (inspect, 1),
}


def execute(name: str = '', *arguments: str) -> None:
  """Runs one of COMMANDS."""
  if name not in COMMANDS:
    raise InputError(f'{name!r} is not one of {", ".join(COMMANDS)}.')
  function, count = COMMANDS[name]
  if len(arguments) != count:
    raise InputError(f'{name} takes {count} names and then flags; got {len(arguments)}.')
  print(function(*arguments))


if __name__ == '__main__':
  command.main('tokenizer', execute, more=True)
