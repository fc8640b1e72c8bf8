# SPDX-License-Identifier: Apache-2.0
"""The exact unigram loss: against closed forms, an independent small solver, and samples."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import stats
from lib.errors import InputError
from lib.tasks.markov import chains
from lib.tasks.markov.dictionary_loss import exact_unigram
from lib.tokenizers.base import Dictionary
from lib.tokenizers.blocks import Blocks
from lib.tokenizers.bpe import BPE, train_bpe_unsplit
from lib.tokenizers.characters import Characters
from lib.tokenizers.lzw import train_lzw

LN2 = math.log(2)


def greedy_by_hand(pieces: list[bytes], source: chains.MarkovSource) -> np.ndarray:
  """Tokens per character from the chain over (pending string, context), all strings and dense."""
  prefixes = {piece[:stop] for piece in pieces for stop in range(1, len(piece) + 1)}

  def read(pending: bytes) -> tuple[list[bytes], bytes]:
    emitted = []
    while pending not in prefixes:
      stop = max(stop for stop in range(1, len(pending)) if pending[:stop] in pieces)
      emitted.append(pending[:stop])
      pending = pending[stop:]
    return emitted, pending

  index = {(source.alphabet[:1], 0): 0}
  moves = []
  for here, (pending, context) in enumerate(states := list(index)):
    for symbol in range(source.alphabet_size):
      emitted, rest = read(pending + source.alphabet[symbol : symbol + 1])
      after = (rest, int(source.next_contexts[context, symbol]))
      if after not in index:
        index[after] = len(index)
        states.append(after)  # the loop goes on to it
      moves.append((here, index[after], source.kernel[context, symbol], emitted))
  balance = -np.eye(len(index))
  for here, there, chance, _ in moves:
    balance[there, here] += chance
  target = np.append(np.zeros(len(index)), 1)
  law = np.linalg.lstsq(np.vstack([balance, np.ones(len(index))]), target)[0]
  rates = np.zeros(len(pieces))
  for here, _, chance, emitted in moves:
    for piece in emitted:
      rates[pieces.index(piece)] += law[here] * chance
  return rates


def sampled_gap(tokenizer: Dictionary, source: chains.MarkovSource, length: int) -> float:
  """Exact loss minus that of the exact frequencies on a sample, in its standard errors."""
  exact = exact_unigram(tokenizer, source)
  ids = tokenizer.encode(source.text(length, seed=99))[20:-20]  # its ends are cut unlike the rest
  nats, lengths = -np.log(exact.frequencies[ids]), tokenizer.byte_lengths(ids)
  blocks = np.arange(ids.size) * 50 // ids.size  # far longer than the chain's memory
  found = stats.ratio(nats, lengths, blocks, over='blocks')
  share = np.bincount(ids, minlength=tokenizer.vocab_size) / ids.size
  assert exact.chars_per_token == pytest.approx(lengths.mean(), rel=0.01)
  # Counts of tokens are correlated, hence wider than binomial: eight of its deviations are ample.
  spread = np.sqrt(exact.frequencies * (1 - exact.frequencies) / ids.size)
  assert np.all(np.abs(share - exact.frequencies) < 8 * spread + 1e-4)
  return abs(found.value - exact.nats_per_char) / found.sem


kernels = st.builds(
  lambda shape, seed: chains.random_kernel(*shape, seed),
  st.sampled_from([(1, 2), (2, 2), (3, 2), (1, 3)]),
  st.integers(0, 10**6),
)


@settings(max_examples=60, deadline=None)
@given(kernels, st.data())
def test_greedy_equals_an_independent_solver(source, data):
  symbol = st.sampled_from(list(source.alphabet))
  words = st.lists(st.lists(symbol, min_size=2, max_size=6).map(bytes), max_size=8, unique=True)
  pieces = [source.alphabet[i : i + 1] for i in range(source.alphabet_size)] + data.draw(words)
  exact = exact_unigram(Dictionary(pieces), source)
  rates = greedy_by_hand(pieces, source)
  np.testing.assert_allclose(exact.frequencies, rates / rates.sum(), atol=1e-12)
  assert exact.chars_per_token == pytest.approx(1 / rates.sum(), rel=1e-11)


@settings(max_examples=30, deadline=None)
@given(kernels, st.integers(0, 100), st.integers(4, 60))
def test_tokens_cover_every_character(source, seed, size):
  text = source.text(5000, seed)
  bpe = train_bpe_unsplit([text], size, alphabet=source.alphabet)
  greedy = BPE(bpe.alphabet, bpe.merges, encoder='greedy')
  for tokenizer in (bpe, greedy, train_lzw([text], size, alphabet=source.alphabet)):
    exact = exact_unigram(tokenizer, source)
    covered = exact.frequencies @ tokenizer.byte_lengths(np.arange(tokenizer.vocab_size))
    assert covered == pytest.approx(exact.chars_per_token, rel=1e-10)
    assert exact.frequencies.sum() == pytest.approx(1, abs=1e-12)
    assert exact.nats_per_char >= source.entropy_rate - 1e-12  # no code beats the entropy rate


@pytest.mark.parametrize('source', [chains.switching(0.8, 0.8, 3), chains.random_kernel(2, 3, 0)])
def test_characters_pay_the_entropy_of_the_marginal(source):
  exact = exact_unigram(Characters(source.alphabet), source)
  assert exact.nats_per_char == pytest.approx(source.ngram_loss(0), abs=1e-12)
  assert exact.chars_per_token == pytest.approx(1, abs=1e-12)
  np.testing.assert_allclose(exact.frequencies, source.block_law(1), atol=1e-12)


@pytest.mark.parametrize('k', [1, 2, 3, 4])
@pytest.mark.parametrize(('p', 'q'), [(0.8, 0.8), (0.5, 0.8)])
def test_blocks_equal_the_closed_form(p, q, k):
  source = chains.switching(p, q, k)
  for r in (1, 2, 3, 5, 8, 12):
    exact = exact_unigram(Blocks(source.alphabet, r), source)
    assert exact.nats_per_char == pytest.approx(source.block_entropy(r) / r, abs=1e-9)
    assert exact.chars_per_token == pytest.approx(r, abs=1e-9)


def test_one_long_token_by_hand():
  # A fair coin with tokens 0, 1, 00: a cut is before each 1 and inside runs of 0 at even places.
  # After a cut: 1 (1/2), 00 (1/4), or 0 and then, with no choice, 1 (1/4). So 5 tokens in 4 draws
  # that cover (1/2 * 1 + 1/4 * 2 + 1/4 * 2) * 4 = 6 characters; 0 : 1 : 00 = 1 : 3 : 1.
  source = chains.switching(0.5, 0.5, 1)
  for tokenizer in (Dictionary([b'0', b'1', b'00']), BPE(b'01', [(0, 0)])):
    exact = exact_unigram(tokenizer, source)
    np.testing.assert_allclose(exact.frequencies, [0.2, 0.6, 0.2], atol=1e-14)
    assert exact.chars_per_token == pytest.approx(6 / 5)
    entropy = 0.6 * math.log(1 / 0.6) + 0.4 * math.log(5)
    assert exact.nats_per_char == pytest.approx(entropy * 5 / 6)


@pytest.mark.parametrize('k', [1, 2, 3])
@pytest.mark.parametrize(('p', 'q'), [(0.8, 0.8), (0.5, 0.8)])
@pytest.mark.parametrize('size', [10, 64])
def test_exact_loss_agrees_with_samples(p, q, k, size):
  source = chains.switching(p, q, k)
  text = source.text(100_000, seed=0)
  bpe = train_bpe_unsplit([text], size, None)
  rng = np.random.default_rng(k)
  starts, lengths = rng.integers(0, 99_000, size), rng.integers(2, 9, size)
  cuts = {text[start : start + length] for start, length in zip(starts, lengths, strict=True)}
  tokenizers = {
    'merges': bpe,
    'greedy': BPE(bpe.alphabet, bpe.merges, encoder='greedy'),
    'lzw': train_lzw([text], size, None),
    'not prefix-closed': Dictionary([b'0', b'1', *sorted(cuts)]),
  }
  for name, tokenizer in tokenizers.items():
    assert sampled_gap(tokenizer, source, 500_000) < 4.5, name


def test_large_dictionaries_agree_with_samples():
  source = chains.switching(0.8, 0.8, 4)
  text = source.text(1_000_000, seed=0)
  assert sampled_gap(train_lzw([text], 4096, None), source, 1_000_000) < 4.5
  assert sampled_gap(train_bpe_unsplit([text], 1024, None), source, 1_000_000) < 4.5


def test_order_of_the_merges_matters():
  # At k = 3 the notes measure .612 for BPE of 10 tokens against .576 for the same pieces, greedy.
  source = chains.switching(0.8, 0.8, 3)
  losses = []
  for seed in range(10):
    bpe = train_bpe_unsplit([source.text(10_000, seed)], 10, None)
    greedy = BPE(bpe.alphabet, bpe.merges, encoder='greedy')
    losses.append([exact_unigram(t, source).nats_per_char for t in (bpe, greedy)])
  assert np.ptp(losses, axis=1).max() > 0.01


@pytest.mark.parametrize('k', [1, 3])
def test_memorising_the_training_text_certifies_nothing(k):
  source = chains.switching(0.8, 0.8, k)
  text = source.text(50_000, seed=0)
  tokenizer = Dictionary([b'0', b'1', text])
  assert tokenizer.encode(text).size == 1
  assert exact_unigram(tokenizer, source).nats_per_char == pytest.approx(LN2, abs=1e-9)


def test_symbols_beyond_the_source_are_never_read():
  source = chains.switching(0.7, 0.4, 2)
  pieces = [b'0', b'1', b'01', b'110', b'1101']
  small = exact_unigram(Dictionary(pieces), source)
  large = exact_unigram(Dictionary([b'2', b'021', *pieces, b'12', b'1102', b'2222']), source)
  assert large.nats_per_char == pytest.approx(small.nats_per_char, abs=1e-12)
  np.testing.assert_allclose(large.frequencies[2:-3], small.frequencies, atol=1e-13)
  merged = exact_unigram(BPE(b'012', [(0, 1), (2, 0), (3, 3)]), source)
  alone = exact_unigram(BPE(b'01', [(0, 1), (2, 2)]), source)
  assert merged.nats_per_char == pytest.approx(alone.nats_per_char, abs=1e-12)


@pytest.mark.parametrize('rare', [0.02, 0.98])
def test_rare_symbols_do_not_cost_precision(rare):
  # '0' x 40 has probability .02^40 at one end, and fills nearly all of the text at the other.
  source = chains.switching(rare, 1 - rare, 1)
  runs = [b'0' * 2**i for i in range(1, 6)] + [b'1' * 2**i for i in range(1, 6)]
  merges = [(0, 0), *((i, i) for i in range(2, 6)), (1, 1), *((i, i) for i in range(7, 11))]
  ordered, greedy = BPE(b'01', merges), Dictionary([b'0', b'1', *runs])
  assert ordered.pieces == greedy.pieces
  # Runs of one symbol are cut into powers of two, largest first, by both encoders alike.
  a, b = exact_unigram(ordered, source), exact_unigram(greedy, source)
  assert a.nats_per_char == pytest.approx(b.nats_per_char, abs=1e-12)
  np.testing.assert_allclose(a.frequencies, b.frequencies, atol=1e-13)


def test_bad_input_is_named():
  source = chains.switching(0.8, 0.8, 1)
  with pytest.raises(InputError, match='minimal'):
    exact_unigram(Dictionary([b'0', b'1'], encoder='minimal'), source)
  with pytest.raises(InputError, match='source symbol'):
    exact_unigram(Dictionary([b'0', b'10']), source)
