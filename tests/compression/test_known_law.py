# SPDX-License-Identifier: Apache-2.0
"""A Markov source as a coder's M1: its law by hand, and what codecs reach that know it."""

import numpy as np
import pytest

from lib.compression.known_law import Chain
from lib.tasks.markov import chains
from lib.tokenizers.coding import arithmetic
from lib.tokenizers.coding.streams import SteppedAC
from lib.tokenizers.coding.tabulate import tabulate
from lib.tokenizers.coding.windows import EqualInfo

SOURCES = {
  'order1': chains.switching(0.8, 0.7, 1),
  'order2': chains.random_kernel(2, 3, 0),
  'order3': chains.interpolated(0.8, 0.7, 3, 0.5, 0),
}


def prefixes(text):
  """All beginnings of a text as `NextByte` takes them."""
  found = np.zeros((len(text) + 1, len(text)), np.uint8)
  for n in range(len(text) + 1):
    found[n, :n] = np.frombuffer(text[:n], np.uint8)
  return found, np.arange(len(text) + 1, dtype=np.int32)


def test_order_1_by_hand():
  # P(1|0) = 0.8, P(0|1) = 0.7: the stationary law is (7/15, 8/15).
  given = Chain(SOURCES['order1'])(*prefixes(b'01'))
  np.testing.assert_allclose(given[:, 48:50], [[7 / 15, 8 / 15], [0.2, 0.8], [0.7, 0.3]], atol=1e-6)
  assert not np.delete(given, [48, 49], axis=1).any()


@pytest.mark.parametrize('name', SOURCES)
def test_a_text_is_as_likely_as_its_source_says_read_whole_or_by_bytes(name):
  source = SOURCES[name]
  text = source.text(30, 1)
  chain = Chain(source, streams=3)
  whole = chain(*prefixes(text))
  np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-6)
  chain.step(np.full(3, text[5], np.uint8))  # forgotten again
  chain.reset(np.ones(3, bool))
  stepped = [chain.start(), *(chain.step(np.full(3, byte, np.uint8))[1] for byte in text)]
  np.testing.assert_array_equal(whole, stepped)
  symbols = np.frombuffer(text, np.uint8).astype(int) - 48
  law, size = source.block_law(source.order), source.alphabet_size
  likely = law[(symbols[: source.order] * size ** np.arange(source.order)).sum()]
  context = (symbols[: source.order] * size ** np.arange(source.order)).sum()
  for symbol in symbols[source.order :]:
    likely *= source.kernel[context, symbol]
    context = source.next_contexts[context, symbol]
  found = np.prod([whole[i, byte] for i, byte in enumerate(text)], dtype=np.float64)
  assert found == pytest.approx(likely, rel=1e-4)


def test_a_coder_that_knows_the_source_spends_its_entropy():
  source = SOURCES['order3']
  documents = [source.text(200, seed) for seed in range(8)]
  codec = SteppedAC(Chain(source, streams=8), 'chain', 8)
  coded = codec.cover_batch(documents)
  assert codec.restore(coded) == documents
  chain = Chain(source)
  ideal = 0.0
  for text in documents:
    given = chain(*prefixes(text))
    ideal -= np.log2([given[i, byte] for i, byte in enumerate(text)]).sum()
  spent = 8 * sum(one.ids.size for one in coded)
  # Of the frequencies, 257 go to other bytes and the mark; ending a stream takes the mark and at
  # most 9 bits to fill the last token.
  lost = -np.log2(1 - 257 / 2**arithmetic.PRECISION)
  assert ideal < spent < ideal + 8 * (200 * lost + arithmetic.PRECISION + 9)


def test_windows_of_a_known_source_come_back():
  source = SOURCES['order2']
  codec = EqualInfo(tabulate(Chain(source), 12, 'numbered'), 12)
  for text in (source.text(500, 2), bytes(range(256)), b''):
    assert codec.decode(codec.encode(text)) == text
  text = source.text(20_000, 3)
  bits = 12 * codec.encode(text).size / len(text)
  assert source.entropy_rate / np.log(2) < bits
