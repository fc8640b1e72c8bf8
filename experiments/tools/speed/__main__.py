# SPDX-License-Identifier: Apache-2.0
"""Measures the speed of the tokenizers and of other libraries.

  python -m experiments.tools.speed --codecs=runs/equal_info/tokenizers --out=docs

--codecs is the folder of tokenizers that the recipe equal_info writes. Writes speed.md and
speed.json; tables of an earlier run that --tables leaves out are kept, with the commit and machine
of that run. Megabytes are 10⁶ bytes of text. Times are medians over repeats of wall-clock time; for
code that runs on one core, processor time is given too.
"""

import importlib.metadata
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import tqdm
from absl import flags

from experiments.tools import command
from experiments.tools.speed import batches, bpe, libraries, record, stepped
from experiments.tools.timing import rates
from lib import atomic, provenance, tokenizers
from lib.data import sources
from lib.errors import InputError
from lib.report import results, tables
from lib.report.results import Row
from lib.tokenizers.base import Tokenizer
from lib.tokenizers.coding.stepping import Stepped
from lib.tokenizers.unicode import train_unicode

CODECS = flags.DEFINE_string('codecs', 'runs/equal_info/tokenizers', 'Folder of tokenizer files.')
SOURCE = flags.DEFINE_string(
  'source', 'stdlib', 'Text (docs/data.md); its held-out splits are used.'
)
MEGABYTES = flags.DEFINE_float('megabytes', 2.0, 'Most text, in 10⁶ bytes.')
REPEATS = flags.DEFINE_integer('repeats', 7, 'Repeats of each timing.')
STREAMS = flags.DEFINE_integer('streams', 64, 'Texts that M1 reads in parallel.')
OUT = flags.DEFINE_string('out', 'runs/speed', 'Folder for speed.md and speed.json.')

CAPTIONS = {
  'walk': 'Tokenizers of this project on one core, without a model.',
  'peers': 'Other libraries on one core, on the same text and, where possible, with the same '
  'frequencies, merges or model.',
  'bpe': 'BPE within words and other libraries with the same merges, in turns on one core; and how '
  'long the merges take to learn.',
  'steps': 'Windows that need M1 at every byte: many texts in parallel on all cores, compared with '
  'Python loops over the bytes of one text.',
  'input': 'Batches of 256 rows of 512 tokens, read and packed, for each second of processor time; '
  'and what one host must feed to its chips, at 50 % of their peak rate, for the fastest and the '
  'largest model of each recipe at `paper`.',
}
TABLES = flags.DEFINE_list('tables', list(CAPTIONS), 'Tables to write.')


def walk(codecs: dict[str, Tokenizer], texts: dict[str, bytes]) -> Iterator[list[Row]]:
  """Every tokenizer without a model on every text, which must come back if it is lossless."""
  for method, codec in codecs.items():
    for kind, text in texts.items():
      row = dict(method=method, text=kind)
      rows, ids = rates('walk', row, lambda: codec.encode(text), 'encode', len(text), REPEATS.value)
      more, data = rates('walk', row, lambda: codec.decode(ids), 'decode', len(text), REPEATS.value)
      if codec.lossless and data != text:
        raise RuntimeError(f'{method} does not give the {kind} text back')
      ratio = Row('walk', row, 'bytes_per_token', len(text) / len(ids), unit='bytes')
      yield [*rows, *more, ratio]


def execute() -> None:
  """Times everything and writes both files."""
  start = time.perf_counter()
  if unknown := set(TABLES.value) - set(CAPTIONS):
    raise InputError(f'--tables={min(unknown)} is not one of {", ".join(CAPTIONS)}.')
  train, held_out = _text('train'), _text('test') + _text('validation')
  held_out = held_out[: int(MEGABYTES.value * 1e6)]
  noise = np.random.default_rng(0).bytes(len(held_out) // 4)
  texts = {'held_out': held_out, 'random': noise}
  loaded = _codecs() if set(TABLES.value) - {'bpe'} else {}  # that one learns its own
  by_m1 = {method: codec for method, codec in loaded.items() if isinstance(codec, Stepped)}
  plain = {method: codec for method, codec in loaded.items() if method not in by_m1}
  plain['unicode'] = train_unicode([train])
  repeats = REPEATS.value
  peers = libraries.peers(plain, held_out) if 'peers' in TABLES.value else {}
  makers: dict[str, Callable[[], Iterator[list[Row]]]] = {
    'walk': lambda: walk(plain, texts),
    'peers': lambda: libraries.table(peers, held_out, repeats),
    'bpe': lambda: bpe.table(held_out, repeats),
    'steps': lambda: stepped.table(by_m1, held_out, STREAMS.value, min(repeats, 3)),
    'input': lambda: batches.table(plain, held_out, repeats),
  }
  rows: list[Row] = []
  with tqdm.tqdm(disable=None) as bar:
    for table in TABLES.value:
      for found in makers[table]():
        rows += found
        bar.update()
  _write(rows, held_out, time.perf_counter() - start)


def _text(split: str) -> bytes:
  source = sources.open_source(SOURCE.value, split)
  return b''.join(sources.sample(source, int(MEGABYTES.value * 1e6)))


def _codecs() -> dict[str, Tokenizer]:
  folder = pathlib.Path(CODECS.value)
  paths = sorted(path for path in folder.glob('*') if path.is_file())
  if not paths:
    raise InputError(f'{folder} contains no tokenizers: make them with the recipe equal_info')
  return {path.name: tokenizers.load(path) for path in paths}


def _write(rows: list[Row], text: bytes, seconds: float) -> None:
  out = pathlib.Path(OUT.value)
  try:
    out.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(f'cannot write to {out}: {error.strerror}') from error
  versions = {
    package: importlib.metadata.version(package)
    for package in (
      'constriction',
      'jax',
      'numba',
      'numpy',
      'sentencepiece',
      'tiktoken',
      'tokenizers',
    )
  }
  packages = ', '.join(f'{name} {version}' for name, version in versions.items())
  now = provenance.measured() | {'machine': command.machine(), 'packages': packages}
  rows, made = record.join(out / 'speed.json', rows, dict.fromkeys(TABLES.value, now), [*CAPTIONS])
  captions = record.captions(CAPTIONS, made)
  settings = {flag.name: flag.value for flag in (CODECS, SOURCE, MEGABYTES, REPEATS, STREAMS)}
  results.write_results(
    out / 'speed.json', rows, experiment='speed', config=settings, overrides={},
    devices=[now['machine']], seconds={'speed': seconds}, made=made,
  )  # fmt: skip
  command_line = ' '.join(['python -m experiments.tools.speed', *sys.argv[1:]])
  lines = [
    '# Speed\n',
    f'The last command was `{command_line}`, with Python {platform.python_version()}, {packages}. '
    'The caption of each table says when the table was measured; tables that a command does not '
    'measure again are kept.\n',
    f'`held_out` is {len(text):,} bytes of the validation and test splits of `{SOURCE.value}`, '
    'each document once, on which nothing was trained; `random` is random bytes, a quarter as '
    'many, each as likely as any, so that every step reads another place of a table.\n',
    tables.markdown(rows, captions),
  ]
  atomic.write(out / 'speed.md', '\n'.join(lines))
  print(tables.markdown(rows, captions))


if __name__ == '__main__':
  command.main('speed', execute)
