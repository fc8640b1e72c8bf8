# SPDX-License-Identifier: Apache-2.0
"""Prompts that end anywhere: their covers have the probabilities that enumeration gives them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib.errors import InputError
from lib.language_model import byte_law, prompts
from lib.tokenizers.base import Dictionary
from lib.tokenizers.bpe import BPE, train_bpe_unsplit
from lib.tokenizers.characters import Characters
from tests.language_model.test_byte_law import BPE as WORDS
from tests.language_model.test_byte_law import CONTEXT, model_of, probabilities

TEXT = b'0110100110010110' * 3
UNSPLIT = train_bpe_unsplit([TEXT, b'001110' * 9], 12, b'01')


def by_hand(model, text):
  """Each cover of a text, as ids, and its probability: of all sequences of tokens."""
  found, waiting = {}, [((), b'', 1.0)]
  while waiting:
    ids, read, weight = waiting.pop()
    if len(read) >= len(text):
      found[ids] = weight
      continue
    row = probabilities(model, list(ids))
    for token, piece in enumerate(model.tokenizer.pieces):
      longer = read + piece
      agree = longer.startswith(text) or text.startswith(longer)
      if agree and model.tokenizer.encode(longer).tolist() == [*ids, token]:
        waiting.append(((*ids, token), longer, weight * row[token]))
  return {ids: weight / sum(found.values()) for ids, weight in found.items()}


@pytest.mark.parametrize(
  'tokenizer', [UNSPLIT, Dictionary([b'0', b'1', b'011', b'10', b'0110', b'1101'])]
)
def test_covers_have_the_probabilities_of_all_sequences_of_tokens(tokenizer):
  model = model_of(tokenizer=tokenizer)
  texts = [TEXT[:size] for size in (1, 4, 7, 2 * CONTEXT)]
  found = prompts.covers(model, byte_law.vocabulary(model), texts)
  for text, several in zip(texts, found, strict=True):
    ids = [(*one.node.ids(), *([one.token] if one.token >= 0 else [])) for one in several]
    weights = np.exp([one.log_probability for one in several])
    expected = by_hand(model, text)
    assert set(ids) == set(expected)
    wanted = [expected[one] for one in ids]
    np.testing.assert_allclose(weights / weights.sum(), wanted, rtol=0, atol=1e-5)
  assert max(map(len, found)) > 2


def of_shares(tokenizer, shares):
  """A model whose tokens are independent."""
  model = model_of(tokenizer=tokenizer)
  rows = {**model.variables, 'params': jax.tree.map(jnp.zeros_like, model.variables['params'])}
  rows['params']['embedding']['lm_head_bias'] = jnp.log(jnp.array(shares))
  return dataclasses.replace(
    model, module=model.module.clone(embedding=model.module.embedding.clone(bias=True)),
    variables=rows,
  )  # fmt: skip


def test_text_goes_on_as_it_does_after_the_bytes_of_the_prompt():
  # 'abc' is a, bc: so 'ab' has two covers, 'ab' (0.25) and 'a', 'bc' (0.5 × 0.05). Token by token,
  # 'a' would be twice as likely as 'ab'.
  model = of_shares(BPE(b'abc', [[1, 2], [0, 1]]), [0.5, 0.1, 0.1, 0.05, 0.25])
  parts = model.generate([b'ab'] * 500, max_bytes=1, seed=1)
  found = [b''.join(one) for one in zip(*parts, strict=True)]
  inside = 0.025 / 0.275
  for letter, share in ((b'c', inside + (1 - inside) * 0.1), (b'b', (1 - inside) * 0.15)):
    error = (share * (1 - share) / 500) ** 0.5
    assert abs(found.count(letter) / 500 - share) < 4 * error, letter
  assert b''.join(model.generate(b'ab', max_bytes=3, temperature=0.0)) == b'aaa'


def test_a_prompt_is_read_from_its_last_certain_end_of_a_word():
  model = model_of(tokenizer=WORDS)
  known = byte_law.vocabulary(model)
  text = b'the words of the last line, and the la'
  ids, sizes = WORDS.cover(text)
  start = known.settled(ids.tolist(), sizes.tolist())
  assert text[: start.place] == b'the words of the last line, and the'
  # Every text has these tokens, as the covers say that are found from the beginning.
  assert known.tree(text).trunk().ids()[: start.depth] == start.ids()
  covers = prompts.covers(model, known, [text])[0]
  assert len(covers) > 1


def test_prompts_that_cannot_be_continued():
  model = model_of(tokenizer=UNSPLIT)
  with pytest.raises(
    InputError, match="no tokens of this model cover the text that ends with b'0102'"
  ):
    model.generate(b'0102')
  with pytest.raises(InputError, match='no BOS token: a prompt must have a token that nothing'):
    dataclasses.replace(model, bos=None).generate(b'01')
  single = dataclasses.replace(model_of(tokenizer=Characters()), bos=None)
  assert len(b''.join(single.generate(b'a', max_bytes=3))) == 3
