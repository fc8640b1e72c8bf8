# SPDX-License-Identifier: Apache-2.0
"""Sampled text: it goes on from the prompt's very bytes, follows the model, and streams."""

import functools
import itertools
import math

import jax
import numpy as np
import pytest

from lib.data import pipeline
from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.evals import generation
from lib.models.decoder import Decoder, LanguageModel
from lib.models.reader import Reader
from lib.tokenizers import Characters, Dictionary, EqualInfo, GZip
from lib.tokenizers.coding.tabulate import tabulate
from tests import byte_models

PROMPT = byte_models.held_out()[:400]


@functools.cache
def table(mode):
  return tabulate(byte_models.ngram(2), 12, mode)


class Toy:
  """Logits that depend on all ids read so far, by a hash; it remembers what it read."""

  def __init__(self, vocab_size):
    self.vocab_size, self.ids = vocab_size, []

  def __call__(self, token):
    self.ids.append(token)
    return np.random.default_rng(self.ids[-4:]).normal(size=self.vocab_size)


def two_token_windows():
  """Windows of two 8-bit tokens, of which the first does not tell the first byte."""
  return EqualInfo(tabulate(byte_models.NGram(PROMPT, 0), 16, 'numbered'), token_bits=8)


TOKENIZERS = {
  'exact': lambda: EqualInfo(table('exact'), 12),
  'delay': lambda: EqualInfo(table('delay'), 12),
  'numbered': lambda: EqualInfo(table('numbered'), 12),
  'two tokens': two_token_windows,
  'dictionary': lambda: Dictionary([*Characters().pieces, *_runs(2), *_runs(3)]),
}


def _runs(size):
  """Every stretch of so many bytes of the prompt, once."""
  return dict.fromkeys(PROMPT[i : i + size] for i in range(len(PROMPT) - size + 1))


@pytest.mark.parametrize('kind', TOKENIZERS)
def test_every_continuation_begins_with_the_bytes_of_the_prompt(kind):
  tokenizer = TOKENIZERS[kind]()
  window = generation.pieces(tokenizer).tokens.shape[1]
  healed = 0
  for size in (0, 1, 2, 37, 101, 102, 103, 104):
    prompt = PROMPT[:size]
    toy = Toy(tokenizer.vocab_size)
    parts = list(itertools.islice(generation.generate(toy, tokenizer, prompt, seed=size), 8))
    assert toy.ids[0] == tokenizer.vocab_size
    # What the model read is what is said: the prompt, then the parts, window by window.
    assert tokenizer.decode(toy.ids[1:]) == prompt + b''.join(parts)
    assert len(toy.ids[1:]) % window == 0
    healed += tokenizer.encode(prompt).tolist() != toy.ids[1:][: len(tokenizer.encode(prompt))]
  assert healed  # else nothing was held back


@pytest.mark.parametrize('kind', TOKENIZERS)
def test_tokens_kept_stay_whatever_follows(kind):
  tokenizer = TOKENIZERS[kind]()
  window = generation.pieces(tokenizer).tokens.shape[1]
  for size in (1, 50, 51, 52, 200):
    kept, held = generation.hold_back(tokenizer, PROMPT[:size], window)
    assert tokenizer.decode(kept) + held == PROMPT[:size]
    for following in (b'e', b'\n', b'\xff', PROMPT[size : size + 1]):
      longer = tokenizer.encode(PROMPT[:size] + following)
      assert longer[: kept.size].tolist() == kept.tolist()
  # A window that has ended is not held back.
  assert kept.size >= tokenizer.encode(PROMPT[:size]).size - 8 * window


def test_draws_follow_the_models_distribution_among_what_agrees():
  tokenizer = Dictionary([*Characters().pieces, b'ab', b'ac', b'abc', b'b'])
  probabilities = np.full(tokenizer.vocab_size, 1e-9)
  # Far from even, so that a temperature other than 1 shows.
  shares = {b'ab': 0.6, b'ac': 0.02, b'abc': 0.18, b'a': 0.1, b'z': 0.1}
  for piece, share in shares.items():
    probabilities[tokenizer.pieces.index(piece)] = share
  toy = lambda token: np.log(probabilities)
  firsts = [next(generation.generate(toy, tokenizer, b'a', seed=seed)) for seed in range(500)]
  # 'a' is held back: z cannot be; a alone yields nothing, then the next window speaks.
  among = 0.6 + 0.02 + 0.18 + 0.1
  for text, share in ((b'b', 0.6), (b'c', 0.02), (b'bc', 0.18), (b'z', 0.1 * 0.1)):
    expected = share / among
    error = math.sqrt(expected * (1 - expected) / 500)
    assert abs(firsts.count(text) / 500 - expected) < 5 * error, text
  likeliest = generation.generate(toy, tokenizer, b'a', temperature=0.0)
  assert list(itertools.islice(likeliest, 3)) == [b'b', b'ab', b'ab']


def test_text_streams_with_invalid_utf8_replaced():
  parts = [b'caf', b'\xc3', b'\xa9 ', b'\xff', b'ok', b'\xe2\x82']
  texts = list(generation.as_text(parts))
  assert ''.join(texts) == 'café \ufffdok\ufffd'
  assert texts[:2] == ['caf', 'é ']  # a character comes once it is whole


@pytest.mark.parametrize(
  ('tokenizer', 'prompt', 'message'),
  [
    (lambda: GZip(), b'a', 'text cannot be sampled from gzip tokens'),
    (lambda: EqualInfo(table('greedy'), 12), PROMPT, 'this mode is not lossless'),
    (lambda: EqualInfo(table('exact'), 8), b'a', 'whole numbers of tokens'),
  ],
)
def test_tokenizers_that_cannot_speak_are_refused(tokenizer, prompt, message):
  tokenizer = tokenizer()
  with pytest.raises(InputError, match=message):
    next(generation.generate(Toy(tokenizer.vocab_size), tokenizer, prompt))


def test_a_reader_gives_the_models_logits_and_goes_on_when_its_cache_is_full():
  size, length = 11, 8
  decoder = Decoder(layers=1, dim=16, heads=2, mlp_dim=16, position='relative', init_std=0.3)
  model = LanguageModel(Learned(size, 16, init_std=1.0), decoder)
  ids = np.random.default_rng(0).integers(0, size, 12).tolist()

  key = jax.random.key(0)
  batch = pipeline.whole(np.zeros((1, length), np.int32), size)
  variables = jax.jit(model.init)(key, batch, key)
  whole = jax.jit(functools.partial(model.apply, method='logits'))

  def logits_after(ids):
    rest = [0] * (length - len(ids))  # which nothing before them sees
    return whole(variables, pipeline.whole([[*ids, *rest]], size), key)[0, len(ids)]

  read = Reader(model, variables, size, length, window=2)
  found = [read(token) for token in [size, *ids]]
  for place in range(length - 1):
    np.testing.assert_allclose(found[place], logits_after(ids[:place]), atol=1e-5)
  # Full after 7 ids and the begin: the oldest 4 are forgotten, then 3 + 1 ids are in view.
  np.testing.assert_allclose(found[8], logits_after(ids[4:8]), atol=1e-5)
  np.testing.assert_allclose(found[11], logits_after(ids[4:11]), atol=1e-5)
  np.testing.assert_allclose(found[12], logits_after(ids[8:12]), atol=1e-5)
