# SPDX-License-Identifier: Apache-2.0
"""Which tokens may follow: equal to what encodings of all texts begin with."""

import itertools

import numpy as np
import pytest

from lib import tokenizers
from lib.errors import InputError
from lib.tokenizers import bpe_apply, covers, pretokenizers, registry, wordpiece
from lib.tokenizers.base import Dictionary
from lib.tokenizers.bpe import BPE, train_bpe, train_bpe_unsplit
from lib.tokenizers.covers_in_pieces import _OF_CLASS
from lib.tokenizers.foreign import ByteLevel
from lib.tokenizers.lzw import train_lzw
from lib.tokenizers.ranks import Ranks
from lib.tokenizers.sentencepiece import train_sentencepiece
from lib.tokenizers.wordpiece import WordPiece, train_wordpiece

LENGTH = 4  # bytes of the sequences that are compared
WIDE = [*map(str.encode, _OF_CLASS.values())]  # characters of every class that pretokenizers know
WIDE += [b'll', b've', b'\xc3', b'\x97', b'\xa9', b'\xff']


def learned(letters, rule, size=16):
  """BPE whose merges know nothing of the rule; letters alone are tokens, so it is small."""
  rng = np.random.default_rng(len(letters))
  texts = [bytes(rng.choice([*letters], 40).tolist()) for _ in range(40)]
  alphabet = bytes(sorted({*letters, *b''.join(WIDE)}))
  merges = train_bpe_unsplit(texts, len(alphabet) + size, alphabet).merges
  return BPE(alphabet, merges, rule=rule)


def canonical(tokenizer, letters, more):
  """All beginnings of encodings, of at most LENGTH bytes of these letters."""
  found, letters = set(), [bytes([byte]) for byte in letters]
  texts = [b''.join(t) for n in range(LENGTH + 1) for t in itertools.product(letters, repeat=n)]
  after = [b''.join(t) for n in range(3) for t in itertools.product(more, repeat=n)]
  pairs = [(text, one) for text in texts for one in after]
  for (text, _), ids in zip(pairs, encoded(tokenizer, [a + b for a, b in pairs]), strict=True):
    size = 0
    for count, token in enumerate(ids, start=1):
      size += len(tokenizer.pieces[token])
      if size > len(text):
        break
      found.add(tuple(ids[:count]))
  return found


def encoded(tokenizer, texts):
  """The ids of each text; of BPE in one call, which cuts each by itself."""
  if not isinstance(tokenizer, BPE):
    return [tokenizer.encode(text).tolist() for text in texts]
  stops = pretokenizers.cut_each(texts, tokenizer.rule)
  ids = bpe_apply.encode(b''.join(texts), stops, tokenizer.tables)
  ends = np.cumsum(tokenizer.byte_lengths(ids))
  last = np.searchsorted(ends, np.cumsum([*map(len, texts)]), side='right').tolist()
  return [ids[a:b].tolist() for a, b in itertools.pairwise([0, *last])]


def followed(tokenizer, letters):
  """The same by what may follow."""
  follow, found = covers.follow(tokenizer), set()
  waiting = [((), 0, follow.start)]
  while waiting:
    ids, size, state = waiting.pop()
    for token in np.flatnonzero(follow.allowed(state)).tolist():
      piece = tokenizer.token_bytes(token)
      if size + len(piece) <= LENGTH and set(piece) <= set(letters):
        found.add((*ids, token))
        waiting.append(((*ids, token), size + len(piece), follow.after(state, token)))
  return found


@pytest.mark.parametrize(
  ('rule', 'letters'),
  [
    ('none', b'aab'),
    ('words', b'a \n'),
    ('words', b'\xc3\xa9 !'),
    ('gpt2', b"'l "),
    ('digit3_r2l', b'1a'),
    ('digits_punct', b'! 1'),
    ('o200k', b'Aa '),
  ],
)
def test_bpe_is_followed_as_all_texts_are_encoded(rule, letters):
  tokenizer = learned(letters, rule)
  assert followed(tokenizer, letters) == canonical(tokenizer, letters, WIDE)


def test_merges_that_make_a_token_twice():
  merges = [[0, 0], [0, 1], [2, 1], [0, 3], [3, 0]]
  tokenizer = BPE(b'ab', merges, shared=True)
  assert tokenizer.shared
  assert followed(tokenizer, b'ab') == canonical(tokenizer, b'ab', [b'a', b'b'])


def test_longest_matches():
  lzw = train_lzw([b'abaabbabaabbbabab' * 3], 12, b'ab')
  for one in (Dictionary([b'a', b'b', b'abb', b'ba', b'', b'abba', b'ba']), lzw):
    assert followed(one, b'ab') == canonical(one, b'ab', [b'a', b'b', b'abba'])


def word_pieces(letters):
  """WordPiece with half of the pairs and triples of letters, each as a start or continuation."""
  singles, rng = [bytes([byte]) for byte in range(256)], np.random.default_rng(0)
  longer = [bytes(one) for n in (2, 3) for one in itertools.product(letters, repeat=n)]
  kept = [(one, flag) for one in longer for flag in (False, True) if rng.random() < 0.5]
  flags = [False] * 256 + [True] * 256 + [flag for _, flag in kept]
  return WordPiece([*singles, *singles, *(one for one, _ in kept)], flags)


@pytest.mark.parametrize(
  ('most', 'letters'), [(64, b"'l "), (3, b'a \xff'), (2, b'\xc3\xa9 '), (3, b'\xc2\xa0a')]
)
def test_longest_matches_in_words_of_at_most_some_bytes(most, letters, monkeypatch):
  monkeypatch.setattr(wordpiece, 'WORD', most)
  tokenizer = word_pieces(letters)
  more = [b'a', b'l', b' ', b'\n', b'!', b'\xaa', b'\xa0', b'\xff']
  assert followed(tokenizer, letters) == canonical(tokenizer, letters, more)


def test_encodings_of_words_that_are_cut_again_and_again():
  tokenizer = word_pieces(b'a- ')
  text = b'-' * 500 + b' ' * 200 + b'aA\xc3\xa9' * 150 + "'/!\u0300".encode() * 80 + b"'s"
  follow = covers.follow(tokenizer)
  state = follow.start
  for token in tokenizer.encode(text).tolist():
    assert follow.allowed(state)[token]
    state = follow.after(state, token)


@pytest.fixture(scope='module')
def unigram():
  letters = np.random.default_rng(0).choice([*'aaabb\u00e9 '], 4000)
  return train_sentencepiece([''.join(letters).encode()], 290)


@pytest.mark.parametrize('letters', [b'aab ', b'a\xc3\xa9', b'a\xe2\x96\x81', b'b\xc3\xa8\xff'])
def test_best_scores(unigram, letters):
  assert followed(unigram, letters) == canonical(unigram, letters, [b'a', b'b', b'\xa9', b'\xff'])


def test_ties_of_best_scores_are_those_of_rounded_sums(unigram):
  text = b'aaaaaaabababbbbbabaabaaaab ' * 20 + b'zz\xe2\x96\x81 \xffaaaab'
  follow, ids, size = covers.follow(unigram), unigram.encode(text).tolist(), 0
  state = follow.start
  for count, token in enumerate(ids):
    if count % 50 == 0:
      found = np.flatnonzero(follow.allowed(state)).tolist()
      expected = [
        one
        for one, piece in enumerate(unigram.pieces)
        if piece and unigram.encode(text[:size] + piece).tolist() == [*ids[:count], one]
      ]
      assert found == expected
    assert follow.allowed(state)[token]
    state, size = follow.after(state, token), size + len(unigram.pieces[token])


# Families whose tokens can be read as bytes, in full or by some of their encoders; all others.
READ = {'bytes', 'characters', 'bpe', 'bpe_unsplit', 'superbpe', 'dictionary', 'lzw', 'ranks'}
READ |= {'sentencepiece', 'wordpiece'}


def test_every_family_is_read_or_refused_by_name():
  texts = [b'The law of the next byte, and of the next one after it. ' * 40]
  known = dict.fromkeys(registry.trainable(), 300) | {'wordpiece': 520, 'sentencepiece': 280}
  del known['gzip'], known['static_ac'], known['blocks'], known['unicode'], known['restricted']
  for name, size in known.items():
    one = tokenizers.train(name, texts, size)
    if name in READ and name != 'characters':
      assert covers.follow(one)
    else:
      reason = covers.REASONS.get(one.family, 'lossless' if not one.lossless else 'no rule says')
      with pytest.raises(
        InputError, match=f'the bytes of {one.family} tokens cannot be read .*{reason}'
      ):
        covers.follow(one)
  with pytest.raises(InputError, match='not a plain unigram model'):
    covers.follow(tokenizers.train('sentencepiece', texts, 280, kind='bpe'))
  for one in (Dictionary([b'a', b'ab'], 'minimal'), BPE(b'ab', [[0, 1]], 'minimal')):
    with pytest.raises(InputError, match='depends on all of it'):
      covers.follow(one)
  pieces = [bytes([byte]) for byte in range(256)]
  assert covers.follow(Ranks([*pieces, b'ab'], 'words'))
  with pytest.raises(InputError, match='whole pieces of text that no merges make'):
    covers.follow(Ranks([*pieces, b'abc'], 'words'))
  with pytest.raises(InputError, match='looks ahead is not known'):
    covers.follow(BPE(bytes(range(256)), [[97, 98]], rule='regex:a+'))


@pytest.mark.parametrize('rule', ['words', 'gpt2'])
def test_a_tokenizer_json_is_followed_as_the_bpe_that_wrote_it(rule):
  text = b"It's the law of the next byte, isn't it? The next one's the same.\n\n  The next. " * 9
  bpe = train_bpe([text], 300, rule)
  one, other = covers.follow(bpe), covers.follow(ByteLevel(bpe.to_json().encode()))
  a, b = one.start, other.start
  for token in bpe.encode(text[:120]).tolist():
    np.testing.assert_array_equal(one.allowed(a), other.allowed(b))
    assert one.allowed(a)[token]
    a, b = one.after(a, token), other.after(b, token)


@pytest.mark.parametrize('rule', ['words', 'gpt2', 'digit3_r2l', 'o200k', 'wordpiece'])
def test_tokens_that_are_certain_stay_whatever_comes(rule):
  text = b"It's the   law\n\n  of 1234567 bytes,don't it?  Caf\xc3\xa9s \xff\xe2\x80 'll x" * 2
  words = rule == 'wordpiece'
  tokenizer = train_wordpiece([text * 9], 530) if words else train_bpe([text * 9], 300, rule)
  follow, known = covers.follow(tokenizer), []
  for size in range(len(text)):
    ids, state, sure = tokenizer.encode(text[:size]).tolist(), follow.start, 0
    for number, token in enumerate(ids):
      sure = number if follow.certain(state, token) else sure
      state = follow.after(state, token)
    for more in [*WIDE, *(one + b' a' for one in WIDE)]:
      assert tokenizer.encode(text[:size] + more)[:sure].tolist() == ids[:sure]
    known.append(sure)
  assert known[-1] > len(tokenizer.encode(text)) / 2  # and not too few of them
