# SPDX-License-Identifier: Apache-2.0
"""The command on tokenizer files: one learned, exported, looked into; what is refused."""

import subprocess
import sys

from tokenizers import Tokenizer

from lib import tokenizers
from lib.tokenizers.bpe import BPE
from tests.helpers import byte_models

# In a process of its own, as other commands have flags of the same names.
PROGRAM = """
import sys
from absl import flags
from experiments.tools import tokenizer
from lib.errors import InputError
for line in sys.stdin.read().splitlines():
  flags.FLAGS.unparse_flags()
  for name in ('rule', 'force', 'vocab_size', 'source', 'megabytes', 'parent'):
    flags.FLAGS[name].unparse()
  try:
    tokenizer.execute(*flags.FLAGS(['tokenizer', *line.split()])[1:])
  except InputError as error:
    print('refused:', error)
  print('---')
"""


def run(*lines):
  """What each line of arguments prints."""
  command = [sys.executable, '-c', PROGRAM]
  given = '\n'.join(lines)
  done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=300)
  assert done.returncode == 0, done.stderr
  return done.stdout.split('---\n')[:-1]


def test_a_tokenizer_is_learned_exported_and_looked_into(tmp_path):
  ours, other, letters = tmp_path / 'ours', tmp_path / 'a.json', tmp_path / 'letters'
  # 'xyz' is never made: x and y join first, and then no merge has them.
  odd = BPE(bytes(range(256)), [(120, 121), (121, 122), (120, 257)])
  tokenizers.save(odd, tmp_path / 'odd')
  tokenizers.save(BPE(b'ab', [(0, 1)]), letters)
  text = tmp_path / 'text'
  text.mkdir()
  for i in range(10):
    (text / f'{i}.txt').write_bytes(byte_models.sources()[i * 9000 :][:9000])
  size = f'--vocab_size=400 --source={text}'
  learned, exported, again, looked, grown, *refused = run(
    f'train bpe {ours} {size} --rule=gpt2', f'export {ours} {other}', f'inspect {ours}',
    f'inspect {tmp_path}/odd',
    f'train superbpe {tmp_path}/super --parent={ours} --vocab_size=450 --source={text}',
    f'train bpe {ours} {size}', f'train no-such {tmp_path}/b',
    f'train lzw {tmp_path}/b --rule=gpt2', f'train bpe {tmp_path}/b --vocab_size=9 --source={text}',
    f'train bpe {tmp_path}/b --megabytes=0', f'export {letters} {tmp_path}/b.json',
    f'export {letters} {tmp_path}/b --rule=gpt2', 'look', 'inspect',
  )  # fmt: skip
  made = tokenizers.load(ours)
  assert (made.vocab_size, made.rule) == (400, 'gpt2')
  assert 'bpe of 400 tokens, pretokenizer gpt2, fingerprint' in learned
  text = 'def f(x): return x'
  assert Tokenizer.from_file(str(other)).encode(text).ids == made.encode(text.encode()).tolist()
  assert made.fingerprint[:12] in exported
  assert '0 unreachable' in again
  assert "       1 unreachable (their bytes are encoded otherwise): 'xyz'" in looked
  assert 'the first 144 of its merges are, byte for byte, the 144 of' in grown
  sentences = (
    'exists: give another name, or --force', "by the name 'no-such'", 'lzw has no option rule',
    'ask for 256 or more', '--megabytes must be positive', 'a BPE with all bytes',
    'has no ranks of tiktoken', "'look' is not one of train, export, inspect", 'takes 1 names',
  )  # fmt: skip
  for found, sentence in zip(refused, sentences, strict=True):
    assert found.startswith('refused:')
    assert sentence in found
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    'a.json',
    'letters',
    'odd',
    'ours',
    'super',
    'text',
  ]
