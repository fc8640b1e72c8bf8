# SPDX-License-Identifier: Apache-2.0
"""Sizes of files as tokens, compared with gzip, zstd and xz: writes the table of docs/compress.md.

  python -m experiments.tools.sizes --page=docs/compress.md [--codecs=DIR]

The tokenizers are trained on the train split of `stdlib`; those of --codecs should be trained on it
too. The files are held-out prose, held-out code, and a part of a compiled library. Sizes are those
of whole containers. Every container is decoded and compared with its file.
"""

import datetime
import functools
import gzip
import lzma
import pathlib
import sys
from collections.abc import Callable

import numpy as np
import tqdm
from absl import flags

from experiments.tools import command
from lib import atomic, tokenizers
from lib.data import sources
from lib.errors import InputError
from lib.report import tables
from lib.tokenizers import container
from lib.tokenizers.base import Tokenizer

PAGE = flags.DEFINE_string('page', 'docs/compress.md', 'Page whose table is written.')
CODECS = flags.DEFINE_string('codecs', None, 'Folder of more tokenizer files.')
BEGIN, END = '<!-- sizes -->', '<!-- end of sizes -->'
BYTES = 2_000_000  # of a file, at most
TRAINED = {  # a tokenizer's name -> its trainer's, and its ids
  'bytes': ('bytes', 256),
  'bpe_unsplit, 8,192 ids': ('bpe_unsplit', 8192),
  'bpe_unsplit, 65,536 ids': ('bpe_unsplit', 65536),
  'sentencepiece, 8,192 ids': ('sentencepiece', 8192),
  'wordpiece, 8,192 ids': ('wordpiece', 8192),
  'lzw, 65,536 ids': ('lzw', 65536),
}


def zstd(data: bytes) -> bytes:
  """By Arrow, since the standard library has none before Python 3.14."""
  import pyarrow

  return pyarrow.Codec('zstd', compression_level=19).compress(data, asbytes=True)


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
  'gzip -9': lambda data: gzip.compress(data, 9),
  'zstd -19': zstd,
  'xz -9': lambda data: lzma.compress(data, preset=9),
}


def files() -> dict[str, bytes]:
  """The encoded files: held-out text and code, and a compiled library."""
  held_out = lambda name: b''.join(
    document
    for split in ('test', 'validation')
    for document in sources.sample(sources.open_source(name, split), BYTES)
  )
  library = next(
    (pathlib.Path(np.__file__).parent / '_core').glob('_multiarray_umath*')
  ).read_bytes()
  found = {'text': held_out('stdlib/prose'), 'code': held_out('stdlib/source'), 'binary': library}
  return {name: data[:BYTES] for name, data in found.items()}


def codecs() -> dict[str, Tokenizer]:
  """The tokenizers of the table by name."""
  train = sources.sample(sources.open_source('stdlib', 'train'), BYTES)
  found = {name: tokenizers.train(how, train, ids) for name, (how, ids) in TRAINED.items()}
  if CODECS.value:
    paths = sorted(path for path in pathlib.Path(CODECS.value).glob('*') if path.is_file())
    found |= {path.name: tokenizers.load(path) for path in paths}
  return found


def size(tokenizer: Tokenizer, data: bytes) -> int | None:
  """Bytes of the container; None if the tokenizer does not restore the file."""
  try:
    content = container.to_bytes(tokenizer, data)
  except InputError:
    return None
  if container.from_bytes(tokenizer, content) != data:
    raise RuntimeError(f'a {tokenizer.family} tokenizer does not give a file back')
  return len(content)


def written(page: str, table: str) -> str:
  """The page with another table between its marks; raises InputError where it has no such marks."""
  before, begin, rest = page.partition(BEGIN)
  _, end, after = rest.partition(END)
  if not begin or not end:
    raise InputError(f'the page has no place for the table: mark it with {BEGIN} and {END}')
  return f'{before}{BEGIN}\n{table}\n{END}{after}'


def table(found: dict[str, bytes], by_name: dict[str, Tokenizer]) -> str:
  """Markdown: a row for each compressor and tokenizer, sizes in per cent of the file's."""
  measures: dict[str, Callable[[bytes], int | None]] = {
    name: functools.partial(lambda compress, data: len(compress(data)), compress)
    for name, compress in COMPRESSORS.items()
  }
  measures |= {name: functools.partial(size, codec) for name, codec in by_name.items()}
  cells = [['', *(f'{name}, {len(data):,} bytes' for name, data in found.items())]]
  for name, measure in tqdm.tqdm(measures.items(), disable=None):
    sizes = [(measure(data), len(data)) for data in found.values()]
    cells.append([name, *('–' if n is None else f'{100 * n / of:.1f} %' for n, of in sizes)])
  return tables.ruled(cells)


def execute() -> None:
  """Measures everything and writes the table into the page."""
  path = pathlib.Path(PAGE.value)
  try:
    page = path.read_text()
  except OSError as error:
    raise InputError(f'cannot read the page {path}: {error.strerror}') from error
  written(page, '')  # marks are missed before anything is measured
  how = ' '.join(['python -m experiments.tools.sizes', *sys.argv[1:]])
  caption = f'Size in per cent of the file: `{how}`, {datetime.date.today()}.'
  atomic.write(path, written(page, f'{caption}\n\n{table(files(), codecs())}'))


if __name__ == '__main__':
  command.main('sizes', execute)
