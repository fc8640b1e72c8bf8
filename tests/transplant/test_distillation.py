# SPDX-License-Identifier: Apache-2.0
"""Token Distillation: alignment by bytes, exact cases, and that it fits what it should."""

import numpy as np
import pytest

from lib.errors import InputError
from lib.tokenizers.base import Dictionary
from lib.transplant import distillation, transplant
from tests.language_model.test_huggingface import own

BYTES = [bytes([i]) for i in range(256)]
TEXTS = [b'abc abd ab, the abc of abcd. ' * 4, b'dcba abc abc ' * 5]


@pytest.fixture(scope='module')
def model():
  old = Dictionary([*BYTES, b'ab', b'abc'])
  return own(tokenizer=old, position='rotary')


def test_tokens_are_aligned_where_they_end_at_the_same_byte():
  old, new = Dictionary([*BYTES, b'ab']), Dictionary([*BYTES, b'bc', b'abc'])
  read = distillation.snippets(old, new, [b'abcd'], 6, (300, 301))
  assert read.old.tolist() == [[300, 256, 99, 100, -1, -1]]
  assert read.new.tolist() == [[301, 257, 100, -1, -1, -1]]
  assert read.at.tolist() == [[-1, 2, 3, -1, -1, -1]]
  [again] = distillation.snippets(new, old, [b'abcd'], 6, None).at.tolist()
  assert again == [-1, 0, 1, -1, -1, -1]  # 'ab' ends inside of 'abc'
  parts = distillation.snippets(old, new, [b'a' * 11, b''], 4, (300, 301))
  assert (parts.old >= 0).sum(axis=1).tolist() == [4, 4, 4, 3]
  with pytest.raises(InputError, match='needs text'):
    distillation.snippets(old, new, [b''], 4, None)


def test_tokens_of_one_piece_have_no_loss_and_nothing_changes(model):
  order = np.random.default_rng(0).permutation(258)
  new = Dictionary([model.tokenizer.pieces[i] for i in order])
  made = model.with_tables(
    transplant(model.embedding_tables(), model.tokenizer, new, 'parts').tables, new
  )
  fitted, losses, tokens = distillation.distil(model, made, [b'abcd' * 9], steps=2, length=24)
  assert max(losses) < 1e-12
  assert tokens == 2 * distillation.BATCH * (1 + 9 * 2)  # BOS, and 'abc', 'd' nine times
  assert (fitted.embedding_tables().input == made.embedding_tables().input).all()
  assert fitted.module.embedding.tied


def test_new_rows_are_fitted_and_all_others_stay(model):
  new = Dictionary([*BYTES, b'ab', b'abc', b'dcba', b'the', b' abc'])
  made = model.with_tables(
    transplant(model.embedding_tables(), model.tokenizer, new, 'mean').tables, new
  )
  fitted, losses, _ = distillation.distil(model, made, TEXTS, steps=60, length=24)
  assert np.mean(losses[-5:]) < 0.7 * losses[0]
  before, after = made.embedding_tables(), fitted.embedding_tables()
  assert (after.input[:258] == before.input[:258]).all()
  assert (after.input[258:] != before.input[258:]).any(axis=1).all()
  assert (after.output == before.output).all()
  assert not fitted.module.embedding.tied
  apart = lambda one: np.abs(
    one.logits([one.bos, *new.encode(b'dcba ')])[-1, :258]
    - model.logits([model.bos, *model.tokenizer.encode(b'dcba ')])[-1]
  ).mean()
  assert apart(fitted) < apart(made)
