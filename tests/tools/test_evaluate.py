# SPDX-License-Identifier: Apache-2.0
"""What `evaluate` says of a model from elsewhere."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from scipy.special import softmax

from experiments.tools import models, scores
from lib import language_model
from lib.data import sources
from lib.language_model import byte_law
from lib.tasks import questions

FIXTURE = pathlib.Path(__file__).parents[1] / 'fixtures/hf/gpt2'


@pytest.fixture(scope='module')
def model():
  return language_model.load(FIXTURE)


def test_answers_are_those_of_the_logits_after_the_prompt(model, tmp_path):
  file, rights = tmp_path / 'exam.jsonl', [1, 0, 2]
  lines = [
    {'question': text, 'choices': ['one', 'two', 'three'], 'answer': right}
    for text, right in zip(('Who?', 'Why is it?', 'When?'), rights, strict=True)
  ]
  file.write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
  decode = lambda i: model.tokenizer.decode([i]).decode(errors='replace').strip().upper()[:1]
  read = np.array([decode(i) for i in range(model.tokenizer.vocab_size)])
  found = []
  asked = questions.read_questions(str(file))
  for question in asked:
    ids = [model.bos, *model.tokenizer.encode(questions.prompt(question))]
    law = softmax(model.logits(ids)[-1].astype(float))
    found.append(law[: len(read)][read == 'ABC'[question.answer]].sum())
  lines = list(scores.answered(model, asked))
  assert lines[0].startswith('3 questions')
  value, error = np.mean(found), np.std(found, ddof=1) / np.sqrt(3)
  [line] = [line for line in lines if 'the first token is the right letter' in line]
  assert [float(part) for part in line.split()[:3:2]] == pytest.approx([value, error], abs=1e-4)


def test_a_text_that_was_in_training_is_named_whatever_its_path(model, tmp_path, capsys):
  for name, word in (('own.txt', 'line'), ('other.txt', 'row')):
    (tmp_path / name).write_text(''.join(f'{word} {i} of {i**2}\n' for i in range(20_000)))
  own, other = (str(tmp_path / name) for name in ('own.txt', 'other.txt'))
  told = language_model.Provenance(
    text='its old path', text_digest=sources.describe(own).digest[:12]
  )
  trained = dataclasses.replace(model, provenance=told)
  for source, split, warned in (
    (own, 'train', True),
    (own, 'test', False),
    (other, 'train', False),
  ):
    models.open_texts(trained, source, split, 100)
    assert ('was trained on the train split' in capsys.readouterr().err) is warned


def test_of_one_document_no_error_is_known(model):
  texts = [b'the cat']
  line = next(scores.summary(model, texts, model.token_loss(texts), 1.0))
  assert line.endswith('bits_per_byte, of one document, so its error is unknown')


def test_bytes_of_a_folder_of_hugging_face(model):
  texts = [b'the cat is on the m', 'né\n'.encode()]
  losses, found = model.token_loss(texts), byte_law.byte_loss(model, texts)
  lines = list(scores.of_bytes(texts, losses, found))
  value = {line.split()[1].rstrip(',:'): float(line.split()[0]) for line in lines}
  assert value['bits_per_byte_bytes'] <= value['bits_per_byte_tokens']
  assert value['next_byte_sum_error'] <= 1e-12
  assert value['leak_nats_per_token'] > 0
  scaled = byte_law.byte_loss(model, texts, renormalise=True)
  assert next(scores.of_bytes(texts, losses, scaled, 'renormalise')).endswith('scaled to 1')
  for one, other in zip(scaled.nats, found.nats, strict=True):
    assert (one <= other).all()
    assert one.sum() < other.sum()
