# SPDX-License-Identifier: Apache-2.0
"""Mutated input for everything that reads data: `make fuzz`, or python -m tests.fuzz [NAME …].

A target takes bytes, makes of them a damaged or hostile input, and reads it: InputError is the one
exception that may come of it. atheris (libFuzzer) looks for bytes that reach new lines of lib, for
$SECONDS_EACH (20) a target, in a process of its own; without it the bytes are random. A file that
is signed carries the right checksums, so that what lies behind them is reached too. Compiled loops
check every index.
"""

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
import types
import zlib

import numpy as np

from lib import tokenizers
from lib.data import corpora, encoded, files, fonts, glyphs, questions
from lib.errors import InputError
from lib.report import results
from lib.tokenizers import container
from lib.tokenizers import files as tokenizer_files
from lib.tokenizers.coding import tabulate
from lib.train import metrics

TEXT = (
  'A text of words, the same words again, \u00e9t\u00e9 \u4e2d\u6587 the words 0123\n'.encode() * 8
)
# Compiled loops that check each index, and so have a cache of their own.
CHECKED = {'NUMBA_BOUNDSCHECK': '1', 'NUMBA_CACHE_DIR': '.cache/numba-checked'}
SECONDS = float(os.environ.get('SECONDS_EACH', '20'))


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
    'bpe': lambda: tokenizers.train_bpe(TEXT, 300, letters),
    'byte_level': lambda: tokenizers.ByteLevel(tokenizer_json()),
    'foreign': lambda: tokenizers.Foreign(tokenizer_json(lower=True), '.json'),
    'blocks': lambda: tokenizers.Blocks(b'01', 3),
    'characters': tokenizers.Characters,
    'dictionary': lambda: tokenizers.Dictionary(singles + pieces, 'minimal'),
    'equal_info': lambda: tokenizers.EqualInfo(tabulate.number({*singles, *pieces}, 12), 12),
    'gzip': lambda: tokenizers.GZip(16),
    'lzw': lambda: tokenizers.train_lzw(TEXT, 300, letters),
    'restricted': lambda: tokenizers.train_restricted([TEXT], 400),
    'sentencepiece': lambda: tokenizers.train_sentencepiece([TEXT * 20], 330),
    'static_ac': lambda: tokenizers.train_static_ac([TEXT]),
    'unicode': lambda: tokenizers.Unicode(['the', 'th']),
    'wordpiece': lambda: tokenizers.train_wordpiece([TEXT * 20], 530),
  }
  return make[name]()


FAMILIES = tuple(sorted(tokenizers.FAMILIES))


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
  tokenizer_files.write(path, name, state)
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


@functools.cache
def table() -> bytes:
  chosen = glyphs.render(['a', 'b', 'ab', b'\xff'], fonts.find_font('dejavu'), 16)
  glyphs.save(chosen, folder() / 'glyphs')
  return (folder() / 'glyphs').read_bytes()


def glyph_table(data: bytes) -> None:
  content = edited(table(), data[1:])
  if data[:1] < b'\x80':  # signed
    line, _, payload = content.partition(b'\n')
    line = b' '.join(line.split(b' ')[:5])
    digest = hashlib.sha256(line + b'\n' + payload).hexdigest().encode()
    content = line + b' ' + digest + b'\n' + payload
  loaded = glyphs.load(written(content, 'glyphs'))
  loaded.pixels()
  assert loaded.shared.shape == loaded.covered.shape


HEX = b''.join(b'%04X:%s\n' % (point, b'0F' * (16 << point % 2)) for point in range(0x41, 0x5B))


def hex_font(data: bytes) -> None:
  content, name = edited(HEX, data[1:]), 'font.hex'
  if data[:1] < b'\x60':
    import gzip

    content, name = edited(gzip.compress(HEX), data[1:]), 'font.hex.gz'
  font = fonts.HexFont(written(content, name))
  font.draw(np.arange(0x30, 0x60), 16)


JSON = json.dumps({'question': 'Who?', 'choices': ['a', 'b'], 'answer': 1}).encode() + b'\n'
CSV = b'question,A,B,answer\nWho?,a,"b, c",B\n'


def question_file(data: bytes) -> None:
  name, content = [
    ('q.jsonl', JSON * 2), ('q.json', b'[' + JSON + b',' + JSON + b']'), ('q.csv', CSV),
  ][data[0] % 3 if data else 0]  # fmt: skip
  for question in questions.read_questions(str(written(edited(content, data[1:]), name))):
    questions.prompt(question)


def metrics_lines(data: bytes) -> None:
  line = b'{"run": "a", "step": 3, "loss": 1.5}\n'
  metrics.read(written(edited(line * 3, data), 'metrics.jsonl'), 'a')


def table_rows(data: bytes) -> None:
  path = folder() / 'rows.json'
  results.write_rows(path, [results.Row('t', 'k=1', 'nats', 1.0, 0.1, None, '', 'note')], 2.0)
  path.write_bytes(edited(path.read_bytes(), data))
  results.read_rows(path)


def corpus_plan(data: bytes) -> None:
  place = folder() / 'corpus'
  place.mkdir(exist_ok=True)
  plan = corpora.Plan('stdlib', 'train', 9, 2, 'bpe', 300, 'ab')
  path = place / 'train.plan.json'
  path.unlink(missing_ok=True)
  corpora.begin(place, plan)
  path.write_bytes(edited(path.read_bytes(), data))
  for found in corpora.plans(place):
    found.span(0)


def encoded_file(data: bytes) -> None:
  none = lambda documents: [
    corpora.Coded(np.arange(3, dtype=np.int32), np.ones(3, np.int32), 3, 0) for _ in documents
  ]
  place = folder() / 'encoded'
  for path in place.glob('*'):
    path.unlink()
  encoded.encode(place, 'ab', [b'abc', b'abd'], none)
  (path,) = place.iterdir()
  _, state = tokenizer_files.read(path)
  name = sorted(state)[data[0] % 3] if data else 'ids'
  raw = edited(state[name].tobytes(), data[1:])
  itemsize = state[name].dtype.itemsize
  state[name] = np.frombuffer(raw[: len(raw) // itemsize * itemsize], state[name].dtype)
  tokenizer_files.write(path, encoded.FAMILY, state)
  for document in encoded.encode(place, 'ab', [b'abc', b'abd'], none):
    assert document.shape[0] == 2


def own_text(data: bytes) -> None:
  path = written(data, 'own.txt')
  parts = [files.open_files(str(path), split) for split in files.SPLITS]
  assert b''.join(part[i] for part in parts for i in range(len(part))) == data


@functools.cache
def checkpoint() -> dict[str, bytes]:
  from tests import faulty

  faulty.run(folder(), 10)
  place = folder() / 'checkpoints/train/10'
  return {
    str(path.relative_to(place)): path.read_bytes()
    for path in sorted(place.rglob('*')) if path.is_file()
  }  # fmt: skip


def checkpoint_files(data: bytes) -> None:
  """One file of a checkpoint is another: it is refused, or gives the very same state."""
  from lib.train import checkpoint as module
  from tests import faulty

  contents = checkpoint()
  names = list(contents)
  name = names[data[0] % len(names)] if data else names[0]
  place = folder() / 'damaged/10'
  for file, content in contents.items():
    path = place / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(edited(content, data[1:]) if file == name else content)
  with module.Checkpoints(folder() / 'damaged') as checkpoints:
    found = checkpoints.restore(faulty.shapes(), iter(faulty.make().batches))
  assert found is not None
  assert f'end {int(module.digest(found[0])):08x}' == faulty.record(folder())[-1]


QUICK = (
  tokenizer_file, tokenizer_arrays, tokenizer_archive, text, ids, container_file, container_signed,
  glyph_table, hex_font, question_file, metrics_lines, table_rows, corpus_plan, encoded_file,
  own_text,
)  # fmt: skip
TARGETS = (*QUICK, checkpoint_files)


def read(target, data: bytes) -> None:
  """Gives a target bytes; only what is no InputError comes out."""
  with contextlib.suppress(InputError):
    target(data)


def watch(atheris) -> None:
  """Makes atheris see which lines of lib are reached; compiled functions stay as they are."""
  for name, module in list(sys.modules.items()):
    if name.startswith('lib.'):
      parts = [part for part in vars(module).values() if getattr(part, '__module__', '') == name]
      classes = [part for part in parts if isinstance(part, type)]
      for part in [*parts, *(inner for each in classes for inner in vars(each).values())]:
        part = getattr(part, '__func__', part)  # of class methods
        if isinstance(part, types.FunctionType):
          atheris.instrument_func(part)


def fuzz(target) -> None:
  """Runs one target in this process for $SECONDS_EACH, and says how many inputs it met."""
  for name in FAMILIES:
    family(name)  # made before the time begins, and not where InputError is let pass
  read(target, b'')
  if importlib.util.find_spec('atheris'):
    import atheris

    watch(atheris)
    limits = [f'-max_total_time={SECONDS:.0f}', '-max_len=512', '-rss_limit_mb=8192', '-timeout=60']
    keep = f'-artifact_prefix={folder()}/'
    atheris.Setup([sys.argv[0], *limits, keep], functools.partial(read, target))
    atheris.Fuzz()  # ends the process
  dice, count, stop = random.Random(), 0, time.monotonic() + SECONDS
  while time.monotonic() < stop:
    data = dice.randbytes(dice.choice((1, 3, 9, 16, 30, 100, 400)))
    try:
      read(target, data)
    except BaseException:
      print(f'input: {data!r}')
      raise
    count += 1
  print(f'Done {count} runs', file=sys.stderr)


def main(names: list[str]) -> int:
  """Runs the targets one by one; 1 if one of them failed."""
  known = {target.__name__: target for target in TARGETS}
  if names[:1] == ['--here']:
    fuzz(known[names[1]])
    return 0
  engine = 'atheris' if importlib.util.find_spec('atheris') else 'random bytes'
  print(f'{engine}, {SECONDS:.0f} s for each target', flush=True)
  failed = 0
  for name in names or known:
    done = subprocess.run(
      [sys.executable, '-m', 'tests.fuzz', '--here', name], env=os.environ | CHECKED,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace', check=False,
    )  # fmt: skip
    runs = re.search(r'Done (\d+) runs', done.stdout)
    good = done.returncode == 0 and runs
    failed += not good
    words = f'{int(runs[1]):>9,} inputs' if good else f'   FAILED\n{done.stdout[-4000:]}'
    print(f'{name:18}{words}', flush=True)
  return int(failed > 0)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
