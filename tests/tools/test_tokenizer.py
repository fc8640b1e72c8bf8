# SPDX-License-Identifier: Apache-2.0
"""The command on tokenizer files: one learned, exported, looked into; what is refused."""

import subprocess
import sys

import jax
import numpy as np
from tokenizers import Tokenizer

from lib import tokenizers
from lib.data import pipeline
from lib.embeddings.learned import Learned
from lib.embeddings.table_pairs import Tables
from lib.language_model import TrainedModel
from lib.models.decoder import Decoder, LanguageModel
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
  for name in ('rule', 'force', 'vocab_size', 'source', 'megabytes', 'parent', 'model'):
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


def save_model(tokenizer, unused, path):
  """A model of which some tokens have short input rows, and output rows in one direction."""
  size = tokenizer.vocab_size
  module = LanguageModel(Learned(size, 16), Decoder(layers=1, dim=16, heads=2, mlp_dim=16))
  batch, key = pipeline.batch_from_ids([[1, 2]], size), jax.random.key(0)
  model = TrainedModel(module, jax.jit(module.init)(key, batch, key), tokenizer, context=16)
  rows, output = (np.array(table) for table in model.embedding_tables()[:2])
  rows[unused] /= 100
  output[unused] = output[unused[0]] + 0.1 * output[unused]
  model.with_tables(Tables(rows, output), tokenizer).save(path)


def test_a_tokenizer_is_learned_exported_and_looked_into(tmp_path):
  ours, other, letters = tmp_path / 'ours', tmp_path / 'a.json', tmp_path / 'letters'
  # 'xyz' is never made: x and y join first, and then no merge has them; nor is 'xxyz'.
  odd = BPE(bytes(range(256)), [(120, 121), (121, 122), (120, 257), (120, 258)])
  tokenizers.save(odd, tmp_path / 'odd')
  save_model(odd, [258, 259], tmp_path / 'model')
  tokenizers.save(BPE(b'ab', [(0, 1)]), letters)
  text = tmp_path / 'text'
  text.mkdir()
  for i in range(10):
    (text / f'{i}.txt').write_bytes(byte_models.sources()[i * 9000 :][:9000])
  size = f'--vocab_size=400 --source={text}'
  learned, exported, again, looked, grown, *refused = run(
    f'train bpe {ours} {size} --rule=gpt2', f'export {ours} {other}', f'inspect {ours}',
    f'inspect {tmp_path}/odd --model={tmp_path}/model',
    f'train superbpe {tmp_path}/super --parent={ours} --vocab_size=450 --source={text}',
    f'train bpe {ours} {size}', f'train no-such {tmp_path}/b',
    f'train lzw {tmp_path}/b --rule=gpt2', f'train bpe {tmp_path}/b --vocab_size=9 --source={text}',
    f'train bpe {tmp_path}/b --megabytes=nan', f'export {letters} {tmp_path}/b.json',
    f'export {letters}:gpt2 {tmp_path}/b', 'look', 'inspect',
    f'inspect {ours} --model={tmp_path}/model',
  )  # fmt: skip
  made = tokenizers.load(ours)
  assert (made.vocab_size, made.rule) == (400, 'gpt2')
  assert 'bpe of 400 tokens, pretokenizer gpt2, fingerprint' in learned
  text = 'def f(x): return x'
  assert Tokenizer.from_file(str(other)).encode(text).ids == made.encode(text.encode()).tolist()
  assert made.fingerprint[:12] in exported
  assert '0 unreachable' in again
  assert "       2 unreachable (their bytes are encoded otherwise): 'xyz' 'xxyz'" in looked
  *_, by_input, by_output = looked.splitlines()
  for line, place in ((by_input, 'input rows'), (by_output, 'mean of 2 unused tokens')):
    assert place in line
    least = line.split(': ', 1)[1].split()
    assert {least[0], least[2]} == {"'xyz'", "'xxyz'"}
    assert 3 * float(least[3]) < float(least[5])
  assert 'the first 144 of its merges are, byte for byte, the 144 of' in grown
  sentences = (
    'exists: give another name, or --force', "by the name 'no-such'", 'lzw has no option rule',
    'bpe has 256 ids or more; got 9', '--megabytes must be positive', 'a BPE with all bytes',
    'has no ranks of tiktoken', "'look' is not one of train, export, inspect", 'takes 1 names',
    'is not over this tokenizer',
  )  # fmt: skip
  for found, sentence in zip(refused, sentences, strict=True):
    assert found.startswith('refused:')
    assert sentence in found
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    'a.json',
    'letters',
    'model',
    'odd',
    'ours',
    'super',
    'text',
  ]
