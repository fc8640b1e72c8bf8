# SPDX-License-Identifier: Apache-2.0
"""Files through the command: every one comes back, and what is refused leaves nothing behind."""

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from absl import flags
from tokenizers import AddedToken, Tokenizer

from experiments.tools import compress
from experiments.tools.speed import stepped
from lib import tokenizers
from lib.errors import InputError
from lib.tokenizers.characters import Characters
from lib.tokenizers.coding.baselines import train_static_ac
from lib.tokenizers.coding.tabulate import tabulate
from lib.tokenizers.coding.window_streams import SteppedEqualInfo
from lib.tokenizers.coding.windows import EqualInfo
from tests.helpers import byte_models, hostile, recipes

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def codecs(tmp_path_factory):
  """Files of a lossless tokenizer, one that is not, and another."""
  folder = tmp_path_factory.mktemp('codecs')
  table = {
    'exact': EqualInfo(tabulate(byte_models.ngram(), 12, 'exact'), 12),
    'greedy': EqualInfo(tabulate(byte_models.ngram(), 12, 'greedy'), 12),
    'static_ac': train_static_ac([byte_models.sources()]),
    'letters': Characters(b'abc'),
  }
  for name, tokenizer in table.items():
    tokenizers.save(tokenizer, folder / name)
  return folder


def call(*arguments, **options):
  """The command in this process: exit code and its two outputs would need a second to start."""
  given = [f'--{name}={value}' for name, value in options.items()]
  flags.FLAGS.unparse_flags()
  for name in ('tokenizer', 'out', 'force', 'verify'):
    flags.FLAGS[name].unparse()
  compress.execute(compress._parse_flags(['compress', *map(str, arguments), *given]))


def refused(folder, *arguments, **options):
  """The sentence of a refusal, which left the folder as it was."""
  before = {path: path.read_bytes() for path in folder.iterdir()}
  with pytest.raises(InputError) as caught:
    call(*arguments, **options)
  assert {path: path.read_bytes() for path in folder.iterdir()} == before
  assert '\n' not in str(caught.value)
  return str(caught.value)


FILES = {
  'empty': b'',
  'one_byte': b'\x80',
  'text': byte_models.held_out(),
  'binary': bytes(range(256)) * 50,
  'invalid_utf8': 'Grüße'.encode() + b'\xc3\x28\xff\xfe' + '漢字'.encode()[:-1],
  'ten_megabytes': np.random.default_rng(0).bytes(10_000_000),
}


@pytest.mark.parametrize('name', FILES)
def test_every_file_comes_back(name, codecs, tmp_path, capsys):
  path = tmp_path / name
  path.write_bytes(FILES[name])
  call('encode', path, tokenizer=codecs / 'exact')
  packed = tmp_path / f'{name}.tokens'
  said = capsys.readouterr().out
  assert f'{len(FILES[name]):,} bytes in {packed.stat().st_size:,}' in said
  if FILES[name]:
    assert f'{8 * packed.stat().st_size / len(FILES[name]):.3f} bits per byte' in said
  path.unlink()
  call('decode', packed, tokenizer=codecs / 'exact')
  assert path.read_bytes() == FILES[name]
  assert sorted(tmp_path.iterdir()) == sorted([path, packed])


def test_text_is_smaller_by_what_the_tokenizer_says(codecs, tmp_path):
  path = tmp_path / 'text'
  path.write_bytes(byte_models.held_out())
  call('encode', path, tokenizer=codecs / 'exact', out=tmp_path / 'out', verify=True)
  codec = tokenizers.load(codecs / 'exact')
  ids = codec.encode(byte_models.held_out())
  assert (tmp_path / 'out').stat().st_size == 72 + 16 + -(-ids.size * 12 // 8)


def test_what_is_there_stays_unless_forced(codecs, tmp_path):
  path, out = tmp_path / 'text', tmp_path / 'out'
  path.write_bytes(b'some text')
  out.write_bytes(b'precious')
  options = dict(tokenizer=codecs / 'static_ac', out=out)
  assert 'is there already' in refused(tmp_path, 'encode', path, **options)
  call('encode', path, **options, force=True)
  options['out'] = path
  assert 'is there already' in refused(tmp_path, 'decode', out, **options)
  call('decode', out, **options, force=True)
  assert path.read_bytes() == b'some text'


def test_a_file_that_greedy_windows_do_not_give_back_is_refused(codecs, tmp_path):
  good, bad = tmp_path / 'good', tmp_path / 'bad'
  good.write_bytes(b'a')
  bad.write_bytes(byte_models.held_out()[:20_000])
  options = dict(tokenizer=codecs / 'greedy', out=tmp_path / 'out')
  words = refused(tmp_path, 'encode', bad, **options)
  assert 'does not give these bytes back' in words
  assert 'lossless' in words
  call('encode', good, **options)
  call('decode', tmp_path / 'out', tokenizer=codecs / 'greedy', out=tmp_path / 'back')
  assert (tmp_path / 'back').read_bytes() == b'a'


def test_truncated_damaged_and_foreign_streams_are_refused(codecs, tmp_path):
  # All of them are in test_container.py; here: two of a megabyte, so that the first is decoded.
  path = tmp_path / 'text'
  path.write_bytes(b'some text ' * 150_000)
  call('encode', path, tokenizer=codecs / 'exact', out=tmp_path / 'out')
  content = (tmp_path / 'out').read_bytes()
  options = dict(tokenizer=codecs / 'exact', out=tmp_path / 'back')
  for name, changed, words in [
    ('cut', content[:-1], 'is cut short'),
    ('flipped', content[:-1] + bytes([content[-1] ^ 1]), 'document 1 differs'),
    ('empty', b'', 'not a container'),
    ('foreign', b'PK' + content, 'not a container'),
  ]:
    (tmp_path / name).write_bytes(changed)
    assert words in refused(tmp_path, 'decode', tmp_path / name, **options)
  options['tokenizer'] = codecs / 'static_ac'
  assert 'another tokenizer' in refused(tmp_path, 'decode', tmp_path / 'out', **options)


def test_other_bad_input_is_named(codecs, tmp_path):
  path = tmp_path / 'text'
  path.write_bytes(b'abd')
  codec = codecs / 'exact'
  assert '--tokenizer=PATH' in refused(tmp_path, 'encode', path)
  assert 'outside the alphabet' in refused(tmp_path, 'encode', path, tokenizer=codecs / 'letters')
  assert 'not a tokenizer file' in refused(tmp_path, 'encode', path, tokenizer=path)
  assert 'No such file' in refused(tmp_path, 'encode', tmp_path / 'none', tokenizer=codec)
  assert 'directory' in refused(tmp_path, 'encode', tmp_path, tokenizer=codec)
  out = tmp_path / 'no' / 'folder'
  assert 'cannot write' in refused(tmp_path, 'encode', path, tokenizer=codec, out=out)
  assert 'give one of encode' in refused(tmp_path, 'squeeze', path, tokenizer=codec)
  assert 'give one of encode' in refused(tmp_path, 'encode')


@contextlib.contextmanager
def standard_input(content):
  """Bytes in a pipe that is file descriptor 0."""
  end, start = os.pipe()
  kept = os.dup(0)
  os.write(start, content)
  os.close(start)
  os.dup2(end, 0)
  try:
    yield
  finally:
    os.dup2(kept, 0)
    os.close(end)
    os.close(kept)


def test_pipes_in_both_directions(codecs, tmp_path, capfdbinary):
  text, options = byte_models.held_out()[:9000], dict(tokenizer=codecs / 'exact')
  with standard_input(text):
    call('encode', '-', **options)
  tokens, said = capfdbinary.readouterr()
  assert said.startswith(b'standard output: 9,000 bytes in')
  (tmp_path / 'text.tokens').write_bytes(tokens)
  for name, out in [('-', None), ('-', '-'), ('/dev/stdin', None), (tmp_path / 'text.tokens', '-')]:
    with standard_input(tokens):
      call('decode', name, **options, **({'out': out} if out else {}))
    assert capfdbinary.readouterr() == (text, b'standard output: 9,000 bytes\n')
  with standard_input(tokens[:-1]), pytest.raises(InputError, match='standard input is cut short'):
    call('decode', '-', **options)
  with standard_input(b''):
    call('encode', '-', **options)
  assert len(capfdbinary.readouterr().out) == 72  # a header


def test_links_and_streams_are_written_through_and_stay(codecs, tmp_path, capfdbinary):
  options = dict(tokenizer=codecs / 'exact')
  path, real, link = tmp_path / 'text', tmp_path / 'real', tmp_path / 'link'
  path.write_bytes(byte_models.held_out()[:500])
  link.symlink_to('real')
  call('encode', path, out=link, **options)  # of a file that was not there
  tokens = real.read_bytes()
  assert link.is_symlink()
  assert 'is there already' in refused(tmp_path, 'encode', path, out=link, **options)
  call('decode', real, out=link, force=True, **options)
  assert (link.is_symlink(), real.read_bytes()) == (True, path.read_bytes())
  fifo = tmp_path / 'fifo'
  os.mkfifo(fifo)
  with concurrent.futures.ThreadPoolExecutor() as pool:
    found = pool.submit(fifo.read_bytes)
    call('encode', path, out=fifo, **options)
    assert found.result() == tokens
  assert stat.S_ISFIFO(fifo.stat().st_mode)
  capfdbinary.readouterr()
  call('encode', path, out='/dev/stdout', **options)
  assert capfdbinary.readouterr().out == tokens
  call('encode', path, out='/dev/null', **options)
  assert stat.S_ISCHR(os.stat('/dev/null').st_mode)
  fifo.unlink()
  assert sorted(tmp_path.iterdir()) == [link, real, path]
  link.unlink()
  link.symlink_to('link')
  with pytest.raises(InputError, match=r'cannot write .*: Too many levels'):
    call('encode', path, out=link, force=True, **options)


def test_bytes_that_a_token_does_not_give_back_are_counted(tmp_path, capsys):
  library = Tokenizer.from_str(hostile.tokenizer_json().decode())
  library.add_tokens([AddedToken('<mask>', lstrip=True)])
  (tmp_path / 'tokenizer.json').write_text(library.to_str())
  (tmp_path / 'text').write_bytes(b'the words   <mask>')
  call('encode', tmp_path / 'text', tokenizer=tmp_path / 'tokenizer.json')
  assert 'included); 3 bytes were encoded one by one' in capsys.readouterr().out
  (tmp_path / 'text').write_bytes(b'the words')
  call('encode', tmp_path / 'text', tokenizer=tmp_path / 'tokenizer.json', force=True)
  assert 'one by one' not in capsys.readouterr().out


def test_what_fails_is_named(codecs, tmp_path, monkeypatch):
  options = dict(tokenizer=codecs / 'exact', out=tmp_path / 'out')
  for folder in ('.', '..', '/', tmp_path):
    words = refused(tmp_path, 'encode', folder, tokenizer=codecs / 'exact')
    assert words == f'cannot read {folder}: Is a directory; a folder is read by `corpus`'
  assert 'cannot read /proc/self/mem' in refused(tmp_path, 'decode', '/proc/self/mem', **options)
  (tmp_path / 'text').write_bytes(b'text')
  options['out'] = tmp_path
  words = refused(tmp_path, 'encode', tmp_path / 'text', force=True, **options)
  assert words.endswith(': Is a directory')
  monkeypatch.setattr(sys.stdout, 'isatty', lambda: True)
  options['out'] = '-'
  assert 'no text for a terminal' in refused(tmp_path, 'encode', tmp_path / 'text', **options)


def command(*arguments):
  return [sys.executable, '-m', 'experiments.tools.compress', *map(str, arguments)]


def test_the_command_line_exits_with_2_and_one_sentence(codecs, tmp_path):
  (tmp_path / 'text').write_bytes(b'text')
  wrong = command('decode', tmp_path / 'text', f'--tokenizer={codecs / "exact"}')
  done = recipes.forked([*wrong, '--nonsense=1'])
  assert (done.returncode, done.stdout) == (2, '')
  assert done.stderr.startswith('compress: ')
  assert 'Traceback' not in done.stderr
  done = recipes.forked(wrong)
  assert (done.returncode, done.stdout) == (2, '')
  assert done.stderr.count('\n') == 1
  assert list(tmp_path.iterdir()) == [tmp_path / 'text']


def test_stopped_by_a_signal_nothing_half_written_stays(codecs, tmp_path):
  path = tmp_path / 'text'
  path.write_bytes(FILES['ten_megabytes'] * 10)
  process = subprocess.Popen(
    command('encode', path, f'--tokenizer={codecs / "exact"}', '--verify'), cwd=ROOT
  )
  while process.poll() is None and len(list(tmp_path.iterdir())) == 1:
    time.sleep(0.005)
  process.send_signal(signal.SIGTERM)
  assert process.wait() == 143
  assert list(tmp_path.iterdir()) == [path]


def test_the_loop_of_the_speed_table_makes_the_windows_of_the_codec():
  # What the table calls a Python loop does the same work: greedy windows, one byte after the other.
  text = byte_models.held_out()[:400]
  model = byte_models.ngram()
  stepper = byte_models.Stepping(model, streams=1)
  codec = SteppedEqualInfo(stepper, 'ngram', bits=32, mode='greedy')
  following = lambda window: model(
    np.frombuffer(window or b'\0', np.uint8)[None], np.array([len(window)])
  )[0]
  ids = codec.encode(text)
  assert stepped.loop(following, text, 32) == len(ids) * codec.token_bits // 32
