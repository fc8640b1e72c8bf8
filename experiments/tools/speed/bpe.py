# SPDX-License-Identifier: Apache-2.0
"""BPE within words: ours, tiktoken and Hugging Face with the same merges, in turns on one core.

Bytes in, int32 ids out; the ids must be equal. No cache of words is kept from one call to the next.
Then the learning of the merges, on all cores. Where rustbpe is installed, it learns from the same
text, and encodes by what it learned.
"""

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import pathlib
import statistics
import sysconfig
import time
from collections.abc import Callable, Iterator

import numpy as np

from lib.errors import InputError
from lib.report.results import Row
from lib.tokenizers import pretokenizers
from lib.tokenizers.bpe import BPE, train_bpe

RULE, SIZE = 'cl100k', 1 << 15
LEARNED = 60_000_000  # bytes of distinct files that merges are learned from
PROCESS = pathlib.Path('/proc/self')
RUN = 1 << 20  # bytes of each text of one letter, of spaces, and of noise


def table(held_out: bytes, repeats: int) -> Iterator[list[Row]]:
  """Rows of both encoding and learning.

  Raises:
    InputError: a peer is not installed.
  """
  try:
    import tiktoken
    from tokenizers import Tokenizer
  except ImportError as error:
    raise InputError('tiktoken and tokenizers are needed: install the extra `dev`') from error
  documents = distinct_files(LEARNED)
  ours, others, rows = _learning(documents)
  yield rows
  [pattern] = pretokenizers.patterns(RULE)
  ranks = {piece: i for i, piece in enumerate(ours.pieces)}
  theirs = tiktoken.Encoding('ours', pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
  library, uncached = (Tokenizer.from_str(ours.to_json()) for _ in range(2))
  uncached.model._resize_cache(0)

  def by_library(data: bytes) -> np.ndarray:
    library.model._clear_cache()
    return np.array(library.encode_batch_fast([data.decode()])[0].ids, np.int32)

  by_uncached = lambda data: np.array(uncached.encode_batch_fast([data.decode()])[0].ids, np.int32)
  text = held_out.decode('utf-8', 'ignore').encode()
  works: dict[str, Callable[[bytes], np.ndarray]] = {
    'ours': ours.apply,
    'ours without a cache of words': lambda data: ours.apply(data, cache=False),
    peer('tiktoken'): lambda data: np.array(theirs.encode_ordinary(data.decode()), np.int32),
    peer('tokenizers'): by_library,
    f'{peer("tokenizers")} without a cache of words': by_uncached,
  }
  yield _encoding(works, others, text, repeats)
  walk = {'method': 'ours by the last token of every prefix', 'text': 'held_out'}
  rate = len(text) / min(_seconds(lambda: ours.last_tokens(text)) for _ in range(repeats)) / 1e6
  yield [Row('bpe', walk, 'encode_mb_per_core_s', rate, unit='MB/s', note='in one walk')]
  for kind, data in (
    ('letters', b'a' * RUN), ('spaces', b' ' * RUN), ('noise', np.random.default_rng(0).bytes(RUN))
  ):  # fmt: skip
    row = {'method': 'ours', 'text': kind}
    whole, quarter = (
      min(_seconds(functools.partial(ours.apply, part)) for _ in range(repeats))
      for part in (data, data[: RUN // 4])
    )
    note = '1 MiB, one piece or so'
    yield [
      Row('bpe', row, 'encode_mb_per_core_s', RUN / whole / 1e6, unit='MB/s', note=note),
      Row('bpe', row, 'seconds_over_a_quarter', whole / quarter, note='4 is linear in the length'),
    ]


def distinct_files(size: int) -> list[bytes]:
  """Text of the standard library and of installed packages, each content once."""
  found: dict[bytes, bytes] = {}
  left = size
  for folder in (sysconfig.get_path('stdlib'), sysconfig.get_path('purelib')):
    for path in sorted(pathlib.Path(folder).rglob('*.py*')):
      if left <= 0 or path.suffix not in ('.py', '.pyi') or not path.is_file():
        continue
      data = path.read_bytes().decode('utf-8', 'ignore').encode()
      key = hashlib.sha256(data).digest()
      if key not in found:
        found[key] = data
        left -= len(data)
  return list(found.values())


def peer(package: str) -> str:
  """A package with its version."""
  return f'{package} {importlib.metadata.version(package)}'


def _seconds(work: Callable[[], object]) -> float:
  begin = time.process_time()
  work()
  return time.process_time() - begin


def _resident(field: str) -> float:
  """MB of this process, on Linux: VmRSS now, VmHWM at most since the peak was reset."""
  lines = (PROCESS / 'status').read_text().splitlines()
  [line] = [line for line in lines if line.startswith(field)]
  return int(line.split()[1]) * 1024 / 1e6


Work = Callable[[bytes], np.ndarray]


def _encoding(
  works: dict[str, Work], others: dict[str, Work], text: bytes, repeats: int
) -> list[Row]:
  """Rows of encoders by the same merges, and of `others` by merges of their own."""
  every = works | others
  times: dict[str, list[float]] = {name: [] for name in every}
  expected = works['ours'](text)
  for name, work in works.items():
    if not np.array_equal(work(text), expected):
      raise RuntimeError(f'{name} gives other ids than ours')
  for _ in range(repeats):
    for name, work in every.items():
      times[name].append(_seconds(functools.partial(work, text)))
  rows, ours = [], statistics.median(times['ours'])
  for name, seconds in times.items():
    row, median = {'method': name, 'text': 'held_out'}, statistics.median(seconds)
    rate = len(text) / median / 1e6
    note = f'rule {RULE}, {SIZE:,} ids' + ', merges of its own' * (name in others)
    rows += [
      Row('bpe', row, 'encode_mb_per_core_s', rate, unit='MB/s', note=note),
      Row('bpe', row, 'encode_seconds_over_ours', median / ours),
    ]
  return rows


def _learning(documents: list[bytes]) -> tuple[BPE, dict[str, Work], list[Row]]:
  """Our tokenizer; encoders by the merges that another library learned; rows of the learning."""
  from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

  size = sum(map(len, documents))
  train_bpe(documents[:4], 300, RULE)  # compiled before it is timed
  found = pretokenizers.count(documents, RULE)
  share = found.starts.size / found.counts.sum()
  made: list[BPE] = []
  library = Tokenizer(models.BPE())
  [pattern] = pretokenizers.patterns(RULE)
  written = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  library.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Split(Regex(pattern), 'isolated'), written]
  )
  trainer = trainers.BpeTrainer(
    vocab_size=SIZE, min_frequency=2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )  # fmt: skip
  works: dict[str, Callable[[], object]] = {
    'ours': lambda: made.append(train_bpe(documents, SIZE, RULE)),
    peer('tokenizers'): lambda: library.train_from_iterator(map(bytes.decode, documents), trainer),
  }
  others: dict[str, Work] = {}
  if importlib.util.find_spec('rustbpe'):
    rust = importlib.import_module('rustbpe').Tokenizer()
    works[peer('rustbpe')] = lambda: rust.train_from_iterator(
      map(bytes.decode, documents), SIZE, pattern=pattern
    )
    others[peer('rustbpe')] = lambda data: np.array(rust.encode(data.decode()), np.int32)
  rows = []
  for name, work in works.items():
    (PROCESS / 'clear_refs').write_text('5')  # resets the peak
    before = _resident('VmRSS')
    begin, cpu = time.perf_counter(), _seconds(work)
    wall, memory = time.perf_counter() - begin, _resident('VmHWM') - before
    row = {'method': name, 'text': 'learned'}
    note = (
      f'{SIZE:,} ids from {size:,} bytes of {len(documents):,} distinct files, '
      f'{share:.1%} of words unique, {os.cpu_count()} cores'
    )
    rows += [
      Row('bpe', row, 'learn_seconds', wall, unit='s', note=note),
      Row('bpe', row, 'learn_core_seconds', cpu, unit='s', note=note),
      Row('bpe', row, 'learn_mb', memory, unit='MB', note='above the text, at most'),
    ]
  return made[0], others, rows
