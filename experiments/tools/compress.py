# SPDX-License-Identifier: Apache-2.0
"""Files and corpora as tokens, with any trained tokenizer (docs/compress.md).

python -m experiments.tools.compress encode FILE --tokenizer=PATH [--out=PATH --force]
python -m experiments.tools.compress decode FILE --tokenizer=PATH [--out=PATH --force]
python -m experiments.tools.compress encode FILE --model=MODEL [--out=PATH --force]
python -m experiments.tools.compress corpus SOURCE --tokenizer=PATH --out=DIR [--split=train]

With --model, a trained token model takes the place of the tokenizer: it predicts each byte by the
exact byte-level probabilities (`lib.decoding.byte_view`), and an arithmetic coder writes the bytes.
Decoding needs the same model.

FILE and --out can be - for standard input and output.
"""

import contextlib
import io
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

import tqdm
from absl import app, flags, logging

from experiments.tools import corpus
from lib import atomic, tokenizers
from lib.data import corpora
from lib.errors import InputError
from lib.tokenizers import container
from lib.tokenizers.base import Tokenizer

COMMANDS = ('encode', 'decode', 'corpus')
SUFFIX = '.tokens'
STANDARD = '-'  # standard input or output

TOKENIZER = flags.DEFINE_string(
  'tokenizer', None, 'Tokenizer file (docs/compress.md: getting a tokenizer).'
)
# Tests load this command together with others that define a flag of this name.
MODEL = flags.DEFINE_string(
  'model', None, 'Folder of a trained model, which codes bytes instead.', allow_override=True
)
OUT = flags.DEFINE_string('out', None, 'Output: a file, or the folder of a corpus.')
FORCE = flags.DEFINE_bool('force', False, 'Overwrite an existing file.')
VERIFY = flags.DEFINE_bool('verify', False, 'Decode while encoding, also for lossless tokenizers.')
SPLIT = flags.DEFINE_string('split', 'train', 'Corpus: split of the source.')
SHARDS = flags.DEFINE_integer(
  'shards', None, 'Corpus: number of files; by default by size.', lower_bound=1
)
WORKERS = flags.DEFINE_integer(
  'workers', None, 'Corpus: processes; by default one per core.', lower_bound=1
)
RUNNER = flags.DEFINE_enum(
  'runner', 'processes', ('processes', 'beam'), 'Corpus: local processes or Beam.'
)
BEAM = flags.DEFINE_multi_string(
  'beam', [], 'Corpus: an option of Apache Beam, such as --beam=--runner=X.'
)
DATA_DIR = flags.DEFINE_string('data_dir', None, 'Corpus: folder of prepared TFDS sets.')


class _Source(io.FileIO):
  """A file whose errors are reported as errors of reading."""

  def __init__(self, name: str):
    self.label = _label(name, 'input')
    try:
      super().__init__(0 if name == STANDARD else name, closefd=name != STANDARD)
    except OSError as error:
      hint = '; a folder is read by `corpus`' if isinstance(error, IsADirectoryError) else ''
      raise InputError(f'cannot read {self.label}: {error.strerror}{hint}') from error

  def readinto(self, buffer) -> int | None:
    try:
      return super().readinto(buffer)
    except OSError as error:
      raise InputError(f'cannot read {self.label}: {error.strerror}') from error


def encode(source: BinaryIO, out: str, tokenizer: Tokenizer) -> str:
  """Writes the container of a file; returns a summary."""
  with _written(out) as target:
    size = os.fstat(source.fileno()).st_size
    verify = VERIFY.value or not tokenizer.lossless
    singles: list[int] = []
    tokenizer.on_fallback = singles.append
    with _bar(size * (1 + verify), 'encoding', tokenizer):
      chunks = container.chunks(source, size, tokenizer)
      header = container.write(target, tokenizer, chunks, verify)
  ratio = f'{8 * header.length / header.size:.3f} bits per byte' if header.size else 'no text'
  sizes = f'{header.size:,} bytes in {header.length:,} ({ratio}, container included)'
  single = f'; {sum(singles):,} bytes were encoded one by one' if any(singles) else ''
  return f'{_label(out, "output")}: {sizes}{single}'


def decode(source: BinaryIO, label: str, out: str, tokenizer: Tokenizer) -> str:
  """Writes the text of a container; returns a summary."""
  with _written(out) as target:
    size = container.read_header(source, label).size
    source.seek(0)
    with _bar(size, 'decoding', tokenizer):
      for data in container.read(source, tokenizer, label):
        target.write(data)
  return f'{_label(out, "output")}: {size:,} bytes'


def encode_corpus(spec: str) -> str:
  """Writes the shards of a corpus that are missing, and its metadata; returns a summary."""
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
  """A progress bar over the bytes that the tokenizer has done."""
  options = dict(desc=what, unit='B', unit_scale=True, delay=1, leave=False, disable=None)
  with tqdm.tqdm(total=size, **options) as bar:
    # The end of a text can count as a byte.
    tokenizer.progress = lambda more: bar.update(min(more, bar.total - bar.n))
    try:
      yield
    finally:
      del tokenizer.progress


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
  """A file to read and to seek in: what comes through a pipe is first read to its end."""
  with io.BufferedReader(_Source(name)) as source:
    status = os.fstat(source.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size:
      yield source
      return
    with tempfile.TemporaryFile() as whole:
      shutil.copyfileobj(source, whole)
      whole.seek(0)
      yield whole


@contextlib.contextmanager
def _written(out: str) -> Iterator[BinaryIO]:
  if os.path.isfile(out) and not atomic.is_stream(out) and not FORCE.value:
    raise InputError(f'{out} is there already: name another --out, or give --force')
  try:
    if out == STANDARD:
      with open(1, 'wb', closefd=False) as target, atomic.through(target) as file:
        yield file
    else:
      with atomic.writing(out) as file:
        yield file
  except OSError as error:
    raise InputError(f'cannot write {_label(out, "output")}: {error.strerror}') from error


def _label(name: str, what: str) -> str:
  return f'standard {what}' if name == STANDARD else name


def _named(flag: flags.FlagHolder, what: str) -> str:
  if not flag.value:
    raise InputError(f'name {what} with --{flag.name}=PATH (docs/compress.md)')
  return flag.value


def _default_out(command: str, name: str) -> str:
  if name == STANDARD or atomic.is_stream(name):
    return STANDARD
  if command == 'encode':
    return name + SUFFIX
  return name.removesuffix(SUFFIX) if name.endswith(SUFFIX) else name + '.text'


def execute(argv: list[str]) -> None:
  """Runs the command that the arguments name."""
  command, name = argv[1:]
  if command == 'corpus':
    print(encode_corpus(name))
    return
  out = OUT.value or _default_out(command, name)
  to_stream = out == STANDARD or atomic.is_stream(out)
  if command == 'encode' and out == STANDARD and sys.stdout.isatty():
    raise InputError('tokens are no text for a terminal: name a file with --out=PATH')
  if MODEL.value:
    from lib import language_model  # brings JAX, which tokenizers do without
    from lib.compression.by_model import ByModel

    if TOKENIZER.value:
      raise InputError('give --tokenizer or --model, not both.')
    tokenizer: Tokenizer = ByModel(language_model.load(MODEL.value))
  else:
    tokenizer = tokenizers.load(_named(TOKENIZER, 'a tokenizer file'))
  with _opened(name) as source:
    if command == 'encode':
      words = encode(source, out, tokenizer)
    else:
      words = decode(source, _label(name, 'input'), out, tokenizer)
  print(words, file=sys.stderr if to_stream else sys.stdout)


def main() -> None:
  """Runs the command and exits: 0 done, 1 a fault, 2 bad input, 130 stopped."""
  if '--help' in sys.argv[1:]:
    from experiments.tools import command  # imports packages that Beam's environment lacks

    command.help_shown()
    return
  logging.set_verbosity(logging.ERROR)  # JAX reports accelerators that it does not find
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing half-written stays
  try:
    app.run(execute, flags_parser=_parse_flags)
  except (InputError, flags.Error) as error:
    print(f'compress: {error}', file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    print('compress: stopped; `corpus` resumes where it stopped', file=sys.stderr)
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
