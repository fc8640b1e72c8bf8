# SPDX-License-Identifier: Apache-2.0
"""Sampled text: it goes on from the prompt's very bytes, follows the model, and streams."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib.data import pipeline
from lib.decoding import constraints, generated_text, sampling
from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.models.decoder import Decoder, LanguageModel
from lib.tokenizers.base import Dictionary
from lib.tokenizers.characters import Characters
from lib.tokenizers.coding.baselines import GZip
from lib.tokenizers.coding.tabulate import tabulate
from lib.tokenizers.coding.windows import EqualInfo
from tests.helpers import byte_models, weights

PROMPT = byte_models.held_out()[:400]
KEY = jax.random.key(0)


@functools.cache
def table(mode):
  return tabulate(byte_models.ngram(2), 12, mode)


@functools.cache
def make(vocab_size):
  """A model of random weights whose next id depends on those before it."""
  decoder = Decoder(layers=1, dim=16, heads=2, mlp_dim=16, position='relative', init_std=0.5)
  model = LanguageModel(Learned(vocab_size, 16, bias=True, init_std=0.5), decoder)
  batch = pipeline.batch_from_ids(np.zeros((1, 4), np.int32), vocab_size)
  return model, weights.draw(model.init, KEY, batch, KEY, std=0.5)


def generate(tokenizer, prompts, seed=0, variables=None, **options):
  model, random = make(tokenizer.vocab_size)
  return generated_text.generate(
    model, variables or random, tokenizer, prompts, bos=tokenizer.vocab_size, context=256,
    keys=jax.random.split(jax.random.key(seed), len(prompts)), **options,
  )  # fmt: skip


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
def test_every_continuation_begins_with_the_bytes_of_the_prompt(kind, monkeypatch):
  tokenizer = TOKENIZERS[kind]()
  window = constraints.pieces(tokenizer).tokens.shape[1]
  prompts = [PROMPT[:size] for size in (0, 1, 2, 37, 101, 102, 103, 104)]
  read = []  # what the model read of each text

  def recording(model, variables, prompts, **options):
    read.extend(map(list, prompts))
    for part in stream(model, variables, prompts, **options):
      for ids, new in zip(read, part):
        ids += new.tolist()
      yield part

  stream = sampling.stream
  monkeypatch.setattr(sampling, 'stream', recording)
  given = list(itertools.islice(generate(tokenizer, prompts), 3))
  healed = 0
  for prompt, parts, ids in zip(prompts, zip(*given), read):
    assert ids[0] == tokenizer.vocab_size
    whole = ids[1 : 1 + len(ids[1:]) // window * window]
    assert tokenizer.decode(np.array(whole)) == prompt + b''.join(parts)
    encoded = tokenizer.encode(prompt).tolist()
    healed += encoded != whole[: len(encoded)]
  assert healed  # else nothing was held back


@pytest.mark.parametrize('kind', TOKENIZERS)
def test_tokens_kept_stay_whatever_follows(kind):
  tokenizer = TOKENIZERS[kind]()
  window = constraints.pieces(tokenizer).tokens.shape[1]
  for size in (1, 50, 51, 52, 200):
    kept, held = constraints.hold_back(tokenizer, PROMPT[:size], window)
    assert tokenizer.decode(kept) + held == PROMPT[:size]
    for following in (b'e', b'\n', b'\xff', PROMPT[size : size + 1]):
      longer = tokenizer.encode(PROMPT[:size] + following)
      assert longer[: kept.size].tolist() == kept.tolist()
  # A window that has ended is not held back.
  assert kept.size >= tokenizer.encode(PROMPT[:size]).size - 8 * window


def test_samples_follow_the_models_distribution_among_allowed_tokens():
  tokenizer = Dictionary([*Characters().pieces, b'ab', b'ac', b'abc', b'b'])
  probabilities = np.full(tokenizer.vocab_size, 1e-9)
  # Far from even, so that a temperature other than 1 shows.
  shares = {b'ab': 0.6, b'ac': 0.02, b'abc': 0.18, b'a': 0.1, b'z': 0.1}
  for piece, share in shares.items():
    probabilities[tokenizer.pieces.index(piece)] = share
  params = jax.tree.map(jnp.zeros_like, make(tokenizer.vocab_size)[1]['params'])
  params['embedding']['lm_head_bias'] = jnp.log(probabilities)
  go_on = functools.partial(generate, tokenizer, variables={'params': params})
  firsts = [b''.join(parts) for parts in zip(*go_on([b'a'] * 500, max_bytes=1))]
  # 'a' is held back: z cannot be; a alone yields nothing, then the next window speaks.
  among = 0.6 + 0.02 + 0.18 + 0.1
  for begin, share in ((b'b', 0.6 + 0.18), (b'c', 0.02), (b'z', 0.1 * 0.1)):
    expected = share / among
    error = math.sqrt(expected * (1 - expected) / 500)
    assert abs(firsts.count(begin) / 500 - expected) < 5 * error, begin
  [likeliest] = zip(*go_on([b'a'], max_bytes=5, how=sampling.GREEDY))
  assert b''.join(likeliest) == b'babab'


def test_texts_end_at_max_bytes():
  tokenizer = TOKENIZERS['dictionary']()
  for size in (0, 1, 30):
    given = list(generate(tokenizer, [PROMPT[:9], b'', PROMPT[:50]], max_bytes=size))
    assert all(any(parts) for parts in given)
    assert [len(b''.join(parts)) for parts in zip(*given)] == ([size] * 3 if size else [])


def test_a_text_is_the_same_whatever_is_sampled_next_to_it():
  tokenizer = TOKENIZERS['exact']()
  together = zip(*generate(tokenizer, [PROMPT[:40], PROMPT[7:50]], max_bytes=60))
  first, _ = (b''.join(parts) for parts in together)
  other, _ = (
    b''.join(parts) for parts in zip(*generate(tokenizer, [PROMPT[:40], b''], max_bytes=60))
  )
  assert first == other


def test_text_streams_with_invalid_utf8_replaced():
  parts = [b'caf', b'\xc3', b'\xa9 ', b'\xff', b'ok', b'\xe2\x82']
  texts = list(generated_text.as_text(parts))
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
  with pytest.raises(InputError, match=message):
    generate(tokenizer(), [prompt])


def test_bytes_that_no_windows_spell_are_named_before_a_token_is_sampled():
  windows = constraints.Pieces(np.array([[0], [1], [2]]), [b'ab', b'cd', b'c'])
  for held in (b'x', b'abx', b'cdd'):
    with pytest.raises(InputError, match=f'no windows of this tokenizer spell {held!r}'):
      constraints.spell(windows, [b'', held], 3)
  # After 'cd' nothing spells 'd', and so 'c' alone leads on: it does where 'd…' is a text.
  found = constraints.spell(windows, [b'ca'], 3)
  assert (found.next_state[found.start[0]] >= 0).tolist() == [False, False, True]
