# SPDX-License-Identifier: Apache-2.0
"""Exact laws of bytes: equal to sums over all token sequences, and to a source's own law."""

import itertools

import numpy as np
import pytest

from lib.decoding.byte_view import END, ByteTexts, OfIds, Vocabulary
from lib.errors import InputError
from lib.tasks.markov import chains
from lib.tasks.markov.enumerated import Enumerated
from lib.tokenizers import covers, wordpiece
from lib.tokenizers.base import Dictionary
from lib.tokenizers.bpe import train_bpe_unsplit
from lib.tokenizers.characters import Characters
from lib.tokenizers.sentencepiece import train_sentencepiece
from lib.tokenizers.wordpiece import WordPiece


def random_law(size):
  """A law of tokens that gives mass to every sequence: rows(texts, nodes)."""

  def law(ids):
    return np.random.default_rng([7, *ids]).dirichlet(np.ones(size))

  return law, OfIds(law)


def bpe(size=24):
  text = chains.sample_text(chains.switching(0.6, 0.4, 2), 4000, 0, chains.DICTIONARY)
  return train_bpe_unsplit([text], size, b'01')


def vocabulary(tokenizer, ends=()):
  return Vocabulary(
    [*covers.spelled(tokenizer), *[b''] * len(ends)], covers.follow(tokenizer), ends
  )


def by_hand(tokenizer, law, text, letters=b''):
  """P(text) as the sum over all sequences of tokens that are its covers; letters may follow."""
  after = b'', *(bytes([byte]) for byte in letters)
  total, waiting = 0.0, [((), b'', 1.0)]
  while waiting:
    ids, read, weight = waiting.pop()
    if len(read) >= len(text):
      total += weight
      continue
    row = law(list(ids))
    for token, piece in enumerate(tokenizer.pieces):
      longer = read + piece
      agree = longer.startswith(text) or text.startswith(longer)
      if agree and any(
        tokenizer.encode(longer + more).tolist()[: len(ids) + 1] == [*ids, token] for more in after
      ):
        waiting.append(((*ids, token), longer, weight * row[token]))
  return total


def unigram():
  text = chains.sample_text(chains.switching(0.6, 0.4, 2), 4000, 0, chains.DICTIONARY)
  return train_sentencepiece([text], 290)


def word_pieces():
  """WordPiece for blanks and marks: where a run of blanks is cut depends on the byte after it."""
  singles = [bytes([byte]) for byte in range(256)]
  begin, more = [b' !', b'!!', b'   ', b' !!!'], [b'!!', b'!!!', b'  ']
  flags = [False] * 256 + [True] * 256 + [False] * len(begin) + [True] * len(more)
  return WordPiece([*singles, *singles, *begin, *more], flags)


@pytest.mark.parametrize(
  ('tokenizer', 'letters'),
  [
    (bpe(), b'01'),
    (Dictionary([b'0', b'1', b'011', b'10', b'0110', b'1101']), b'01'),
    (unigram(), b'01'),
    (word_pieces(), b' !a'),
  ],
)
def test_sums_over_all_covers(tokenizer, letters):
  law, rows = random_law(tokenizer.vocab_size)
  rng = np.random.default_rng(0)
  strings = [bytes(rng.choice([*letters], n).tolist()) for n in (1, 4, 7, 10, 10)]
  texts = ByteTexts(vocabulary(tokenizer), rows, len(strings))
  texts.begin(range(len(strings)))
  texts.nats(strings)
  expected = [np.log(by_hand(tokenizer, law, string, letters)) for string in strings]
  np.testing.assert_allclose(texts.log_probability, expected, rtol=0, atol=1e-12)
  for i, string in enumerate(strings):  # the tokens are one way to write the bytes
    ids = tokenizer.encode(string).tolist()
    tokens = sum(np.log(law(ids[:n])[token]) for n, token in enumerate(ids))
    assert texts.log_probability[i] >= tokens - 1e-12
  sums = np.exp(texts.log_probability) * (1 - texts.next_bytes().sum(axis=1))
  assert (sums > 0).all()  # the leak of sequences that no text has


def test_bytes_along_a_text_and_its_end_multiply_to_its_tokens():
  tokenizer = bpe()
  _, rows = random_law(tokenizer.vocab_size + 1)
  law = random_law(tokenizer.vocab_size + 1)[0]
  texts = ByteTexts(vocabulary(tokenizer, [tokenizer.vocab_size]), rows, 1)
  texts.begin([0])
  text, product = b'0110100110', 0.0
  for byte in text:
    product += np.log(texts.next_bytes()[0, byte])
    texts.append([0], [byte])
  product += np.log(texts.next_bytes()[0, END])
  ids = [*tokenizer.encode(text).tolist(), tokenizer.vocab_size]
  expected = sum(np.log(law(ids[:n])[token]) for n, token in enumerate(ids))
  assert product == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
  ('make', 'letters', 'nodes'),
  [(lambda: bpe(4), b'01', 1), (lambda: bpe(16), b'01', 1), (word_pieces, b' !', 1.5)],
)
def test_the_law_of_a_source_cut_at_n_letters(make, letters, nodes, monkeypatch):
  monkeypatch.setattr(wordpiece, 'WORD', 3)
  source, tokenizer = chains.switching(0.8, 0.3, 1), make()
  source.alphabet = letters
  known = Enumerated(source, 7, tokenizer)
  rows = OfIds(known.next_token)
  prefixes = [text for text, _ in known.prefixes()]
  texts = ByteTexts(vocabulary(tokenizer, [known.end]), rows, len(prefixes))
  texts.begin(range(len(prefixes)))
  texts.nats(prefixes)
  found = texts.next_bytes()
  for row, prefix in zip(found, prefixes, strict=True):
    expected = np.zeros(END + 1)
    if len(prefix) == 7:
      expected[END] = 1
    else:
      last = prefix[-1] - letters[0] if prefix else 0
      expected[[*letters]] = source.kernel[last] if prefix else source.stationary
    np.testing.assert_allclose(row, expected, rtol=0, atol=1e-12)
  assert texts.leak < 1e-12 * texts.evaluations
  assert texts.evaluations <= nodes * (sum(map(len, prefixes)) + len(prefixes))  # for each byte


def test_single_bytes_are_the_identity():
  law, rows = random_law(3)
  texts = ByteTexts(vocabulary(Characters(b'abc')), rows, 1)
  texts.begin([0])
  for read, byte in zip([[], [0], [0, 2]], b'aca', strict=True):
    np.testing.assert_allclose(texts.next_bytes()[0, 97:100], law(read), rtol=1e-15)
    texts.append([0], [byte])


def test_all_ways_to_write_a_text_weigh_at_least_as_much():
  tokenizer = bpe(12)
  law, rows = random_law(12)
  text = b'01101001'
  every = 0.0
  for ends in itertools.product((0, 1), repeat=len(text) - 1):
    edges = [0, *[i + 1 for i, cut in enumerate(ends) if cut], len(text)]
    words = [text[a:b] for a, b in itertools.pairwise(edges)]
    last = words.pop()
    if all(word in tokenizer.pieces for word in words):
      ids = [tokenizer.pieces.index(word) for word in words]
      weight = np.prod([law(ids[:n])[token] for n, token in enumerate(ids)])
      every += weight * sum(
        p for p, piece in zip(law(ids), tokenizer.pieces, strict=True) if piece.startswith(last)
      )
  anything = Vocabulary(tokenizer.pieces, covers.Anything(tokenizer.pieces))
  texts = ByteTexts(anything, rows, 1, beam=1000)
  texts.begin([0])
  texts.nats([text])
  assert np.exp(texts.log_probability[0]) == pytest.approx(every, rel=1e-12)
  for beam in (1, 2, 4):  # a text of known letters is never lost
    narrow = ByteTexts(anything, rows, 1, beam)
    narrow.begin([0])
    narrow.nats([text])
    assert -np.inf < narrow.log_probability[0] < texts.log_probability[0]


def test_bytes_without_a_cover_are_refused():
  _, rows = random_law(2)
  texts = ByteTexts(vocabulary(Dictionary([b'a', b'ab'])), rows, 1)
  texts.begin([0])
  with pytest.raises(
    InputError, match="no tokens of this model cover the text that ends with b'b'"
  ):
    texts.append([0], b'b')
