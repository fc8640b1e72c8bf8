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
import shutil
import subprocess
import sys
import time
import types

import numpy as np

from lib.data import corpora, encoded, own_files
from lib.errors import InputError
from lib.glyphs import fonts, rendering
from lib.report import results
from lib.tasks import questions
from lib.tokenizers import files
from lib.train import metrics
from tests.helpers import hostile
from tests.helpers.hostile import edited, folder, written

# Compiled loops that check each index, and so have a cache of their own.
CHECKED = {'NUMBA_BOUNDSCHECK': '1', 'NUMBA_CACHE_DIR': '.cache/numba-checked'}
SECONDS = float(os.environ.get('SECONDS_EACH', '20'))


@functools.cache
def table() -> bytes:
  chosen = rendering.render(['a', 'b', 'ab', b'\xff'], fonts.find_font('dejavu'), 16)
  rendering.save(chosen, folder() / 'glyphs')
  return (folder() / 'glyphs').read_bytes()


def glyph_table(data: bytes) -> None:
  content = edited(table(), data[1:])
  if data[:1] < b'\x80':  # signed
    line, _, payload = content.partition(b'\n')
    line = b' '.join(line.split(b' ')[:5])
    digest = hashlib.sha256(line + b'\n' + payload).hexdigest().encode()
    content = line + b' ' + digest + b'\n' + payload
  loaded = rendering.load(written(content, 'glyphs'))
  loaded.pixels()
  assert loaded.shared.shape == loaded.covered.shape


HEX = b''.join(b'%04X:%s\n' % (point, b'0F' * (16 << point % 2)) for point in range(0x41, 0x5B))


def hex_font(data: bytes) -> None:
  content, name = edited(HEX, data[1:]), 'font.hex'
  if data[:1] < b'\x60':
    import gzip

    content, name = edited(gzip.compress(HEX), data[1:]), 'font.hex.gz'
  font = fonts.HexFont(written(content, name))
  font.render(np.arange(0x30, 0x60), 16)


JSON = json.dumps({'question': 'Who?', 'choices': ['a', 'b'], 'answer': 1}).encode() + b'\n'
LABELS = {'label': ['1', 2], 'text': ['a', 'b']}
LABELLED = json.dumps({'question': 'Who?', 'choices': LABELS, 'answerKey': 1}).encode() + b'\n'
CSV = b'question,A,B,answer\nWho?,a,"b, c",B\n'
COUNTED = b'0,Who?,a,b,B\n1,Why?,a,b,A\n'


def question_file(data: bytes) -> None:
  name, content = [
    ('q.jsonl', JSON + LABELLED), ('q.json', b'[' + JSON + b',' + JSON + b']'), ('q.csv', CSV),
    ('q.csv', COUNTED),
  ][data[0] % 4 if data else 0]  # fmt: skip
  for question in questions.read_questions(str(written(edited(content, data[1:]), name))):
    questions.prompt(question)


def metrics_lines(data: bytes) -> None:
  line = b'{"run": "a", "step": 3, "loss": 1.5}\n'
  metrics.read(written(edited(line * 3, data), 'metrics.jsonl'), 'a')


def table_rows(data: bytes) -> None:
  path = folder() / 'rows.json'
  results.write_rows(
    path, [results.Row('t', {'k': 1}, 'nats', 1.0, 0.1, None, '', 'note')], 2.0, {}, {}
  )
  path.write_bytes(edited(path.read_bytes(), data))
  results.read_rows(path)


def corpus_plan(data: bytes) -> None:
  place = folder() / 'corpus'
  place.mkdir(exist_ok=True)
  plan = corpora.ShardPlan('stdlib', 'train', 9, 2, 'bpe', 300, 'ab')
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
  _, state = files.read(path)
  name = sorted(state)[data[0] % 3] if data else 'ids'
  raw = edited(state[name].tobytes(), data[1:])
  itemsize = state[name].dtype.itemsize
  state[name] = np.frombuffer(raw[: len(raw) // itemsize * itemsize], state[name].dtype)
  files.write(path, encoded.FAMILY, state)
  for document in encoded.encode(place, 'ab', [b'abc', b'abd'], none):
    assert document.shape[0] == 2


def own_text(data: bytes) -> None:
  path = written(data, 'own.txt')
  parts = [own_files.open_files(str(path), split) for split in own_files.SPLITS]
  rest = iter(data)  # but for a byte order mark and repeated text
  assert all(byte in rest for part in parts for i in range(len(part)) for byte in part[i])
  assert len(data) > 100 or sum(part.size for part in parts) >= len(data) - 3


FIXTURES = pathlib.Path(__file__).parent / 'fixtures/hf'


@functools.cache
def model_folder(layout: str) -> tuple[pathlib.Path, dict[str, bytes]]:
  """A Hugging Face folder, and the contents of its files."""
  place = folder() / layout
  shutil.copytree(FIXTURES / layout, place)
  (place / 'tokenizer.json').unlink()  # has a target of its own
  return place, {path.name: path.read_bytes() for path in sorted(place.iterdir())}


def hugging_face(data: bytes) -> None:
  """One file of a model's folder is another; of weights, the header."""
  from lib.language_model import huggingface

  place, contents = model_folder(('gpt2', 'llama3')[data[0] % 2 if data else 0])
  names = [name for name in contents if name != 'expected.npz']
  name = names[data[1] % len(names)] if len(data) > 1 else names[0]
  content = contents[name]
  size = len(content)
  if name.endswith('.safetensors'):
    size = 8 + int.from_bytes(content[:8], 'little')
  (place / name).write_bytes(edited(content[:size], data[2:]) + content[size:])
  try:
    huggingface.load(place)
  finally:
    (place / name).write_bytes(content)


def changed_header(header: bytes, data: bytes) -> bytes:
  """A header of safetensors that says something else of one tensor."""
  tensors = json.loads(header)
  what, which, number, *name = (data + bytes(4))[:9]
  key = sorted(tensors)[which % len(tensors)]
  one = tensors[key]
  wrong = (-1, 0, 1, 2**31, 2**62, 2**63, 2**64, number, 1.5, None, 'F32', [], {}, 'F64')
  value = wrong[number % len(wrong)]
  kind = ('shape', 'data_offsets', 'data_offsets', 'dtype', key, '')[what % 6]
  if kind in ('shape', 'data_offsets') and isinstance(one.get(kind), list):
    one[kind][what // 6 % len(one[kind])] = value
  elif kind == key:
    tensors[bytes(name).decode(errors='replace')] = tensors.pop(key)
  elif kind:
    one[kind] = value
  else:
    del tensors[key]
  return json.dumps(tensors).encode()


def hugging_face_header(data: bytes) -> None:
  """The header of weights is another, by bytes or by what it says; no number is read."""
  from lib.language_model import huggingface

  place, contents = model_folder('gpt2' if data[:1] < b'\x80' else 'qwen3')
  content = contents['model.safetensors']
  size = 8 + int.from_bytes(content[:8], 'little')
  change = changed_header if data[1:2] >= b'\x40' else edited
  header = change(content[8:size], data[2:])
  length = data[2:10].ljust(8, b'\0') if data[1:2] < b'\x08' else len(header).to_bytes(8, 'little')
  (place / 'model.safetensors').write_bytes(length + header + content[size:])
  try:
    shape = huggingface.read_shape(place)
    with huggingface._tensors(place) as tensors:
      huggingface._places(place, shape, tensors)
  finally:
    (place / 'model.safetensors').write_bytes(content)


@functools.cache
def checkpoint() -> dict[str, bytes]:
  from tests.helpers import faulty

  faulty.run(folder(), 10)
  place = folder() / 'checkpoints/train/10'
  return {
    str(path.relative_to(place)): path.read_bytes()
    for path in sorted(place.rglob('*')) if path.is_file()
  }  # fmt: skip


def checkpoint_files(data: bytes) -> None:
  """One file of a checkpoint is another: it is refused, or gives the very same state."""
  from lib.train import checkpoint as module
  from tests.helpers import faulty

  contents = checkpoint()
  names = list(contents)
  name = names[data[0] % len(names)] if data else names[0]
  place = folder() / 'damaged/10'
  for file, content in contents.items():
    path = place / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(edited(content, data[1:]) if file == name else content)
  with module.Checkpoints(folder() / 'damaged') as checkpoints:
    found = checkpoints.restore(faulty.shapes(), iter(faulty.make().batches), {})
  assert found is not None
  assert f'end {int(module.digest(found[0])):08x}' == faulty.record(folder())[-1]


QUICK = (
  hostile.tokenizer_file, hostile.tokenizer_arrays, hostile.tokenizer_archive, hostile.text,
  hostile.foreign_file,
  hostile.ids, hostile.container_file, hostile.container_signed, glyph_table, hex_font,
  question_file, metrics_lines, table_rows, corpus_plan, encoded_file, own_text, hugging_face,
  hugging_face_header,
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
  for name in hostile.FAMILIES:
    hostile.family(name)  # made before the time begins, and not where InputError is let pass
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
