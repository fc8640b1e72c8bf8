# SPDX-License-Identifier: Apache-2.0
"""The programs of docs/bring_your_own.md: they run, and the page has them as they are."""

import json
import os
import pathlib
import re
import runpy
import subprocess
import sys

import jax
import numpy as np
import pytest

from lib import language_model
from lib.data import pipeline
from lib.embeddings.learned import Learned
from lib.language_model import TrainedModel
from lib.models.decoder import Decoder, LanguageModel
from lib.tokenizers.characters import Characters

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / 'docs/examples').glob('*.py'))
WORDS = ['the', 'cat', 'sat', 'on', 'a', 'mat', 'and', 'lay', 'by', 'my', 'old', 'hat']
TEXT = ''.join(  # text that repeats itself would be cut out of the test split
  'The ' + ' '.join(np.random.default_rng(i).choice(WORDS, 10)) + '.\n' for i in range(400)
)


def run(name, monkeypatch, *arguments):
  path = ROOT / 'docs/examples' / name
  monkeypatch.setattr(sys, 'argv', [str(path), *map(str, arguments)])
  runpy.run_path(str(path), run_name='__main__')


@pytest.fixture
def book(tmp_path):
  path = tmp_path / 'book.txt'
  path.write_text(TEXT)
  return path


def test_the_page_has_the_programs_as_they_are():
  page = (ROOT / 'docs/bring_your_own.md').read_text()
  shown = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
  assert sorted(shown) == sorted(path.read_text() for path in EXAMPLES)
  assert all(len(text.splitlines()) <= 30 for text in shown)


def test_my_text(book, monkeypatch, capsys):
  run('my_text.py', monkeypatch, book)
  said = capsys.readouterr().out
  assert 0.8 < float(re.search(r'tokens: ([\d.]+)', said)[1]) < 1.5  # ten of eleven words a line
  assert 'targets (4, 64)' in said


def test_my_tokenizer(book, tmp_path, monkeypatch, capsys):
  from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

  tokenizer = Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
  tokenizer.train_from_iterator([TEXT], trainer)
  tokenizer.save(str(tmp_path / 'exact.json'))
  tokenizer.normalizer = normalizers.Lowercase()
  tokenizer.save(str(tmp_path / 'lower.json'))
  for name, lossless, documents in (('exact', True, '100.0%'), ('lower', False, '0.0%')):
    run('my_tokenizer.py', monkeypatch, tmp_path / f'{name}.json', book)
    out = capsys.readouterr().out
    assert f'lossless: {lossless}; restored: ' in out
    assert f', {documents} of the documents; unknown: 0.0%' in out


def test_my_embedding(tmp_path, monkeypatch, capsys):
  run('my_embedding.py', monkeypatch, tmp_path)
  # A uniform model has 8 bits per byte; the letters' frequencies alone give below 5.
  assert float(re.match(r'[\d.]+', capsys.readouterr().out)[0]) < 5.5


def test_my_model(tmp_path, monkeypatch, capsysbinary):
  tokenizer = Characters()
  module = LanguageModel(Learned(256, 16), Decoder(layers=1, dim=16, heads=2, mlp_dim=16))
  batch, key = pipeline.batch_from_ids([[1, 2]], 256), jax.random.key(0)
  model = TrainedModel(module, jax.jit(module.init)(key, batch, key), tokenizer, context=16)
  model.save(tmp_path / 'model')
  (tmp_path / 'book.txt').write_text('The cat sat.\n\nThe mat lay.\n\nAnd so on.\n')
  run('my_model.py', monkeypatch, tmp_path / 'model', tmp_path / 'book.txt')
  said = capsysbinary.readouterr().out
  # A model of nearly equal logits has 8 bits per byte.
  assert re.search(rb'^[78]\.\d\d \xc2\xb1 0\.\d\d bits per byte .*, n = 3\n', said)
  assert b'12 tokens of 12 bytes' in said
  twin = language_model.load(tmp_path / 'model-shuffled').embedding_tables()
  assert (twin.input == model.embedding_tables().input[::-1]).all()
  assert (twin.output == model.embedding_tables().output).all()


def test_my_paper(tmp_path):
  program = ROOT / 'docs/examples/my_paper.py'
  done = subprocess.run(
    [sys.executable, str(program), f'--config={program}', f'--workdir={tmp_path}'],
    cwd=ROOT, env=os.environ | {'PYTHONPATH': str(ROOT)}, capture_output=True, text=True,
    check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  rows = json.loads((tmp_path / 'results.json').read_text())['rows']
  assert [row['row'] for row in rows if row['table'] == 'orders'] == ['m=0', 'm=1', 'm=2']
  assert rows[2]['measured'] < rows[0]['measured']
  assert '### orders' in (tmp_path / 'report.md').read_text()
