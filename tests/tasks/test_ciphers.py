# SPDX-License-Identifier: Apache-2.0
"""Ciphers and their solvers: round trips, folding, votes, scores, and keys found in real text."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data import alphabets, sources
from lib.errors import InputError
from lib.tasks import ciphers
from lib.tokenizers.characters import Characters

LETTERS = b'abcdefghijklmnopqrstuvwxyz'
ALPHABET = LETTERS + b' \n'
TOKENIZER = Characters(ALPHABET)
V = len(ALPHABET)

some_alphabet = st.sets(st.integers(0, 255), min_size=1).map(lambda symbols: bytes(sorted(symbols)))


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200), some_alphabet, st.integers(0, 255))
def test_folding_keeps_length_alphabet_and_what_is_folded(document, alphabet, place):
  stand_in = alphabet[place % len(alphabet) :][:1]
  folded = alphabets.fold(document, alphabet, stand_in)
  assert len(folded) == len(document)
  assert not folded.translate(None, alphabet)
  assert alphabets.fold(folded, alphabet, stand_in) == folded
  assert all(new == old for new, old in zip(folded, document) if old in alphabet)


def test_folding_lowers_and_spaces():
  assert alphabets.fold(b'Ab\t\r\n\xc3\x84?', ALPHABET, b'\n') == b'ab  \n\n\n\n'
  assert alphabets.fold(b'Aa', b'Aa ') == b'Aa'


def test_folded_source_is_the_source_folded():
  documents = [b'One\tTwo', b'', b'3']
  folded = alphabets.Folded(documents, ALPHABET)
  assert [folded[i] for i in range(len(folded))] == [b'one two', b'', b' ']


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), some_alphabet, st.data())
def test_every_key_permutes_the_movable_and_comes_back(document, alphabet, data):
  movable = bytes(data.draw(st.lists(st.sampled_from(alphabet), min_size=1, unique=True)))
  key = ciphers.random_key(alphabet, movable, data.draw(st.integers(0, 9)))
  text = alphabets.fold(document, alphabet, alphabet[:1])
  secret = ciphers.encipher(text, key, alphabet)
  assert ciphers.decipher(secret, key, alphabet) == text
  assert sorted(movable.translate(key)) == sorted(movable)
  fixed = bytes(set(range(256)) - set(movable))
  assert fixed.translate(key) == fixed


def test_keys_are_uniform_and_of_their_seed():
  keys = [ciphers.random_key(b'abc', b'abc', seed) for seed in range(3000)]
  assert keys[7] == ciphers.random_key(b'abc', b'abc', 7)
  _, counts = np.unique([b'abc'.translate(key) for key in keys], return_counts=True)
  assert counts.size == 6
  assert ((counts - 500) ** 2 / 500).sum() < 20.5  # chi-square, 5 degrees: p = .001


def enciphered(texts: list[bytes], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Plain ids [N, T], cipher ids [N, T] and true keys [N, V], every symbol movable."""
  keys = [ciphers.random_key(ALPHABET, ALPHABET, seed + n) for n in range(len(texts))]
  ids = [TOKENIZER.encode(ciphers.encipher(t, key, ALPHABET)) for t, key in zip(texts, keys)]
  truth = [TOKENIZER.encode(ciphers.decipher(ALPHABET, key, ALPHABET)) for key in keys]
  return np.stack([TOKENIZER.encode(text) for text in texts]), np.stack(ids), np.stack(truth)


def random_texts(rng: np.random.Generator, count: int, length: int) -> list[bytes]:
  """Texts of uniformly random symbols."""
  return [rng.choice(np.frombuffer(ALPHABET, np.uint8), length).tobytes() for _ in range(count)]


def test_perfect_logits_give_the_true_key():
  plain, ids, truth = enciphered(random_texts(np.random.default_rng(0), 3, 60), seed=0)
  logits = 9.0 * np.eye(V)[plain]
  seen = ciphers.seen_symbols(ids, V, 20, 30)
  votes = ciphers.window_votes(logits, ids, 20, 30)
  assert votes.sum() == 3 * 30
  for table in (votes, ciphers.window_probabilities(logits, ids, 20, 30)):
    for key in (ciphers.majority_key(table), ciphers.assignment_key(table)):
      np.testing.assert_array_equal(key, np.where(seen, truth, -1))
      np.testing.assert_array_equal(ciphers.precision(key, truth, seen), 1)
      np.testing.assert_array_equal(ciphers.accuracy(key, truth, ids, 20, 30), 1)
      decoded = ciphers.apply_key(ids, key, stand_in=99)
      np.testing.assert_array_equal(decoded[:, 20:50], plain[:, 20:50])
      assert set(np.unique(decoded[decoded != plain])) <= {99}


def test_probabilities_are_votes_split_by_the_probe():
  rng = np.random.default_rng(1)
  logits, ids = rng.normal(size=(2, 9, 4)), rng.integers(4, size=(2, 9))
  scores = ciphers.window_probabilities(logits, ids, 2, 5)
  occurrences = [np.bincount(row[2:7], minlength=4) for row in ids]
  np.testing.assert_allclose(scores.sum(axis=-1), occurrences)
  log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
  np.testing.assert_allclose(ciphers.window_probabilities(log_probs, ids, 2, 5), scores)
  sharp = ciphers.window_probabilities(1e6 * logits, ids, 2, 5)
  np.testing.assert_allclose(sharp, ciphers.window_votes(logits, ids, 2, 5), atol=1e-9)


def test_hungarian_settles_a_plain_symbol_claimed_twice():
  # Cipher symbols 0 and 1 both read as plain 0; 0 is the surer, and 1 has plain 1 for second.
  votes = np.array([[[9, 1, 0], [4, 3, 0], [0, 0, 0]]])
  truth, seen = np.array([0, 1, 2]), np.array([[True, True, False]])
  majority, assignment = ciphers.majority_key(votes), ciphers.assignment_key(votes)
  assert majority.tolist() == [[0, 0, -1]]
  assert assignment.tolist() == [[0, 1, -1]]
  assert ciphers.precision(majority, truth, seen) == [0.5]
  assert ciphers.precision(assignment, truth, seen) == [1]


def test_precision_counts_symbols_and_accuracy_counts_characters():
  ids, truth = np.array([[0, 0, 0, 1, 2]]), np.array([[1, 0, 2, 3]])
  seen = ciphers.seen_symbols(ids, 4, 0, 4)
  assert seen.tolist() == [[True, True, False, False]]
  for unseen in itertools.product(range(-1, 4), repeat=2):  # whatever they are said to be
    key = np.array([[1, 3, *unseen]])
    assert ciphers.precision(key, truth, seen) == [0.5]
    assert ciphers.accuracy(key, truth, ids, 0, 4) == [0.75]
  assert np.isnan(ciphers.precision(key, truth, np.zeros((1, 4), bool)))


def test_frequency_matching_is_exact_where_frequencies_are_apart():
  counts = np.arange(1, V + 1)  # of a plain text, all different
  text = np.random.default_rng(2).permutation(np.repeat(np.arange(V), counts))
  _, ids, truth = enciphered([TOKENIZER.decode(text)] * 3, seed=5)
  key = ciphers.frequency_matching(ids, 7 * counts, 0, text.size)
  np.testing.assert_array_equal(key, truth)


def test_solvers_read_the_text_up_to_the_end_of_the_window():
  rng = np.random.default_rng(3)
  ids, counts, table = rng.integers(V, size=(2, 40)), rng.random(V), rng.normal(size=(V, V))
  key = ciphers.frequency_matching(ids, counts, 10, 20)
  np.testing.assert_array_equal(key, ciphers.frequency_matching(ids[:, :30], counts, 0, 30))
  np.testing.assert_array_equal(key >= 0, ciphers.seen_symbols(ids, V, 0, 30))
  climbed = ciphers.hill_climb(ids, key, table, 10, 20)
  np.testing.assert_array_equal(climbed, ciphers.hill_climb(ids[:, :30], key, table, 0, 30))
  np.testing.assert_array_equal(climbed[:1], ciphers.hill_climb(ids[:1], key[:1], table, 10, 20))
  for row in climbed:
    known = row[row >= 0]
    assert np.unique(known).size == known.size


def likelihood(ids: np.ndarray, key: np.ndarray, table: np.ndarray) -> np.ndarray:
  """log P [N] of the decoded text after its first symbol."""
  plain = ciphers.apply_key(ids, key, stand_in=0)
  return table[plain[:, :-1], plain[:, 1:]].sum(axis=-1)


def test_hill_climbing_finds_the_best_of_all_keys():
  rng = np.random.default_rng(4)
  ids, table = rng.integers(5, size=(3, 30)), rng.normal(size=(5, 5))
  start = np.tile(np.arange(5), (3, 1))
  everything = np.array(list(itertools.permutations(range(5))))
  best = max(likelihood(ids[:1], key[None], table)[0] for key in everything)
  single = ciphers.hill_climb(ids, start, table, 0, 30, restarts=0)
  found = ciphers.hill_climb(ids, start, table, 0, 30, seed=1)
  assert likelihood(ids, found, table)[0] == pytest.approx(best)
  assert (likelihood(ids, found, table) >= likelihood(ids, single, table) - 1e-9).all()
  for a, b in itertools.combinations(range(5), 2):  # no exchange helps a single climb's key
    swapped = single.copy()
    swapped[:, [a, b]] = single[:, [b, a]]
    assert (likelihood(ids, swapped, table) <= likelihood(ids, single, table) + 1e-8).all()


def test_bigram_table_holds_the_chain_that_made_the_text():
  rng = np.random.default_rng(5)
  chain = rng.dirichlet(np.ones(3), size=3)
  text, draws = [0], rng.random(30_000)
  for draw in draws:
    text.append(min(int((chain[text[-1]].cumsum() < draw).sum()), 2))
  table = ciphers.bigram_table(np.array(text), 3)
  np.testing.assert_allclose(np.exp(table).sum(axis=1), 1)
  # About 10,000 visits a symbol: a standard error of at most .005 for a probability.
  np.testing.assert_allclose(np.exp(table), chain, atol=0.025)


def prose(split: str, limit: int) -> bytes:
  """The first characters of the embedded prose, folded."""
  source = alphabets.Folded(sources.open_source('stdlib/prose', split), ALPHABET)
  return b''.join(sources.sample(source, limit))


def test_hill_climbing_beats_frequency_matching_on_english():
  reference = TOKENIZER.encode(prose('train', 500_000))
  test = prose('test', 100_000)
  texts = [test[start : start + 512] for start in range(0, 100_000 - 512, 10_000)]
  _, ids, truth = enciphered(texts, seed=11)
  seen = ciphers.seen_symbols(ids, V, 0, 512)
  matched = ciphers.frequency_matching(ids, np.bincount(reference, minlength=V), 0, 512)
  climbed = ciphers.hill_climb(ids, matched, ciphers.bigram_table(reference, V), 0, 512)
  chance = 1 / V
  matched_precision = ciphers.precision(matched, truth, seen)
  assert matched_precision.mean() > 2 * chance
  assert ciphers.precision(climbed, truth, seen).mean() > matched_precision.mean() + 0.3
  decoded = ciphers.accuracy(climbed, truth, ids, 0, 512)
  assert (decoded > ciphers.accuracy(matched, truth, ids, 0, 512)).all()


IDS, KEY = np.array([[0, 1, 2, 1]]), np.array([[2, 1, 0]])
IDENTITY = bytes(range(256))


@pytest.mark.parametrize(
  ('call', 'sentence'),
  [
    (lambda: alphabets.fold_table(b''), 'alphabet must contain at least one byte'),
    (lambda: alphabets.fold_table(b'aab '), "each only once; got b'aab '"),
    (lambda: alphabets.Folded([], b'ab'), "one byte of the alphabet b'ab'; got b' '"),
    (lambda: alphabets.fold(b'a', b'ab', b'ab'), "got b'ab'"),
    (lambda: ciphers.random_key(b'', b'a', 0), 'alphabet must contain'),
    (lambda: ciphers.random_key(b'ab', b'aa', 0), 'movable bytes must contain'),
    (lambda: ciphers.random_key(b'ab', b'', 0), 'movable bytes must contain'),
    (lambda: ciphers.random_key(b'ab', b'ac', 0), "Byte b'c' at position 1 is outside"),
    (lambda: ciphers.encipher(b'ab?', IDENTITY, b'ab'), r"Byte b'\?' at position 2"),
    (lambda: ciphers.decipher(b'Zab', IDENTITY, b'ab'), "Byte b'Z' at position 0"),
    (lambda: ciphers.encipher(b'a', b'a', b'a'), 'permutation of the 256 bytes; got 1'),
    (lambda: ciphers.decipher(b'a', bytes(256), b'a'), 'permutation of the 256 bytes'),
    (lambda: ciphers.window_votes(np.zeros((1, 3, 3)), IDS, 0, 1), r'\(1, 3, 3\) and \(1, 4\)'),
    (lambda: ciphers.window_probabilities(np.zeros((4, 3)), IDS, 0, 1), 'Logits must be'),
    (lambda: ciphers.seen_symbols(IDS, 3, 2, 3), 'start 2 and width 3'),
    (lambda: ciphers.seen_symbols(IDS, 3, -1, 3), 'start -1'),
    (lambda: ciphers.seen_symbols(IDS, 3, 0, 0), 'width 0'),
    (lambda: ciphers.seen_symbols(IDS[0], 3, 0, 1), r'ids of shape \(4,\)'),
    (lambda: ciphers.seen_symbols(IDS, 2, 0, 4), r'\[0, 2\).*got 0 to 2'),
    (lambda: ciphers.apply_key(IDS, KEY[:, :2], 0), r'\[0, 2\)'),
    (lambda: ciphers.precision(KEY, KEY[:, :2], KEY > 0), r'shape \(1, 3\), or \(3,\)'),
    (lambda: ciphers.accuracy(KEY, KEY.T, IDS, 0, 4), r'got \(3, 1\)'),
    (lambda: ciphers.frequency_matching(IDS, np.ones(3), 0, 5), 'width 5'),
    (lambda: ciphers.hill_climb(IDS, KEY, np.zeros((2, 2)), 0, 4), r'not \(2, 2\)'),
    (lambda: ciphers.hill_climb(IDS, KEY, np.full((3, 3), -np.inf), 0, 4), 'finite'),
    (lambda: ciphers.hill_climb(IDS, 0 * KEY, np.zeros((3, 3)), 0, 4), 'one-to-one'),
  ],
)
def test_error_sentences(call, sentence):
  with pytest.raises(InputError, match=sentence):
    call()
