# SPDX-License-Identifier: Apache-2.0
"""Files and corpora as tokens, with any trained tokenizer (docs/compress.md).

python -m experiments.tools.compress encode FILE --tokenizer=PATH [--out=PATH --force]
python -m experiments.tools.compress decode FILE --tokenizer=PATH [--out=PATH --force]
python -m experiments.tools.compress corpus SOURCE --tokenizer=PATH --out=DIR [--split=train]
"""

import contextlib
import os
import pathlib
import signal
import sys
from collections.abc import Iterator
from typing import BinaryIO

import tqdm
from absl import app, flags

from experiments.tools import command, corpus
from lib import atomic, tokenizers
from lib.data import corpora
from lib.errors import InputError
from lib.tokenizers import container
from lib.tokenizers.base import Tokenizer

COMMANDS = ('encode', 'decode', 'corpus')
SUFFIX = '.tokens'

TOKENIZER = flags.DEFINE_string(
  'tokenizer', None, 'A tokenizer file; docs/compress.md says whence.'
)
OUT = flags.DEFINE_string('out', None, 'What to write: a file, or the folder of a corpus.')
FORCE = flags.DEFINE_bool('force', False, 'Overwrite a file that is there.')
VERIFY = flags.DEFINE_bool('verify', False, 'Decode while encoding, lossless or not.')
SPLIT = flags.DEFINE_string('split', 'train', 'Corpus: the split of the source.')
SHARDS = flags.DEFINE_integer('shards', None, 'Corpus: files to write; by default by its size.')
WORKERS = flags.DEFINE_integer('workers', None, 'Corpus: processes; by default one a core.')
RUNNER = flags.DEFINE_enum('runner', 'processes', ('processes', 'beam'), 'Corpus: what runs it.')
BEAM = flags.DEFINE_multi_string(
  'beam', [], "Corpus: an option of Beam's, such as --beam=--runner=X."
)
DATA_DIR = flags.DEFINE_string('data_dir', None, 'Corpus: where prepared TFDS sets lie.')


def encode(path: pathlib.Path, out: pathlib.Path, tokenizer: Tokenizer) -> str:
  """Writes the container of a file; returns what to say."""
  with _opened(path) as source, _written(out) as target:
    size = os.fstat(source.fileno()).st_size
    verify = VERIFY.value or not tokenizer.lossless
    with _bar(size * (1 + verify), 'encoding', tokenizer):
      chunks = container.chunks(source, size, tokenizer)
      header = container.write(target, tokenizer, chunks, verify)
  ratio = f'{8 * header.length / header.size:.3f} bits per byte' if header.size else 'no text'
  return f'{out}: {header.size:,} bytes in {header.length:,} ({ratio}, container included)'


def decode(path: pathlib.Path, out: pathlib.Path, tokenizer: Tokenizer) -> str:
  """Writes the text of a container; returns what to say."""
  with _opened(path) as source, _written(out) as target:
    size = container.read_header(source, str(path)).size
    source.seek(0)
    with _bar(size, 'decoding', tokenizer):
      for data in container.read(source, tokenizer, str(path)):
        target.write(data)
  return f'{out}: {size:,} bytes'


def encode_corpus(spec: str) -> str:
  """Writes the shards of a corpus that are missing, and its metadata; returns what to say."""
  tokenizer, out = _named(TOKENIZER, 'a tokenizer file'), _named(OUT, 'a folder')
  job = corpus.begin(spec, SPLIT.value, tokenizer, out, SHARDS.value, DATA_DIR.value)
  if RUNNER.value == 'beam':
    from experiments.tools import corpus_beam

    corpus_beam.run(job, BEAM.value)
  else:
    corpus.run(job, WORKERS.value)
  written = corpora.finish(out)[SPLIT.value]
  documents, tokens, size = (
    sum(getattr(shard, field) for shard in written)
    for field in ('documents', 'tokens', 'text_bytes')
  )
  return (
    f'{out}: {documents:,} documents of {size:,} bytes as {tokens:,} tokens '
    f'({size / max(tokens, 1):.3f} bytes per token) in {len(written):,} shards'
  )


@contextlib.contextmanager
def _bar(size: int, what: str, tokenizer: Tokenizer) -> Iterator[None]:
  """A bar of the bytes that the tokenizer goes on by, with the time left."""
  options = dict(desc=what, unit='B', unit_scale=True, delay=1, leave=False, disable=None)
  with tqdm.tqdm(total=size, **options) as bar:
    # The end of a text can count as a byte.
    tokenizer.progress = lambda more: bar.update(min(more, bar.total - bar.n))
    try:
      yield
    finally:
      del tokenizer.progress


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[BinaryIO]:
  try:
    source = path.open('rb')
  except OSError as error:
    raise InputError(f'cannot read {path}: {error.strerror}') from error
  with source:
    yield source


@contextlib.contextmanager
def _written(out: pathlib.Path) -> Iterator[BinaryIO]:
  if out.exists() and not FORCE.value:
    raise InputError(f'{out} is there already: name another --out, or give --force')
  try:
    with atomic.writing(out) as target:
      yield target
  except OSError as error:
    raise InputError(f'cannot write {out}: {error.strerror}') from error


def _named(flag: flags.FlagHolder, what: str) -> str:
  if not flag.value:
    raise InputError(f'name {what} with --{flag.name}=PATH (docs/compress.md)')
  return flag.value


def _default_out(command: str, path: pathlib.Path) -> pathlib.Path:
  if command == 'encode':
    return path.with_name(path.name + SUFFIX)
  return path.with_suffix('') if path.suffix == SUFFIX else path.with_name(path.name + '.text')


def execute(argv: list[str]) -> None:
  """Runs the command that the arguments name."""
  command, name = argv[1:]
  if command == 'corpus':
    print(encode_corpus(name))
    return
  path = pathlib.Path(name)
  out = pathlib.Path(OUT.value) if OUT.value else _default_out(command, path)
  tokenizer = tokenizers.load(_named(TOKENIZER, 'a tokenizer file'))
  print({'encode': encode, 'decode': decode}[command](path, out, tokenizer))


def main() -> None:
  """Runs the command and exits: 0 done, 1 a fault, 2 bad input, 130 stopped."""
  if command.help_shown():
    return
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing half-written stays
  try:
    app.run(execute, flags_parser=_parse_flags)
  except (InputError, flags.Error) as error:
    print(f'compress: {error}', file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    print('compress: stopped; `corpus` goes on where it was', file=sys.stderr)
    sys.exit(130)


def _parse_flags(argv: list[str]) -> list[str]:
  rest = flags.FLAGS(argv)
  if len(rest) != 3 or rest[1] not in COMMANDS:
    raise InputError(
      f'give one of {", ".join(COMMANDS)} and one file or source; see docs/compress.md'
    )
  return rest


if __name__ == '__main__':
  main()
