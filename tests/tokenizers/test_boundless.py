# SPDX-License-Identifier: Apache-2.0
"""BoundlessBPE by its definition, in plain Python, and by its laws."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import tokenizers
from lib.tokenizers import pretokenizers
from lib.tokenizers.boundless import Boundless, train_boundless
from lib.tokenizers.bpe import gpt2_alphabet, train_bpe
from tests.helpers import byte_models

DOCUMENTS = [byte_models.sources()[i : i + 6000] for i in range(0, 60_000, 6000)]
TEXTS = st.lists(
  st.text('aab  ,.1é', min_size=1, max_size=40).map(str.encode), min_size=1, max_size=5
)


def split(text, rule):
  stops = pretokenizers.cut(text, rule).tolist()
  return [text[a:b] for a, b in zip([0, *stops], stops)]


def runs_of(text):
  """A text as runs of words, each a list of tokens."""
  return [
    [[bytes([byte]) for byte in word] for word in split(run, 'words')]
    for run in split(text, 'digits_punct')
  ]


def pairs_of(run):
  """(word, place in it or -1, left, right): pairs in a word, or of two words of one token."""
  for i, word in enumerate(run):
    yield from ((i, k, word[k], word[k + 1]) for k in range(len(word) - 1))
    if i + 1 < len(run) and len(word) == len(run[i + 1]) == 1:
      yield i, -1, word[0], run[i + 1][0]


def join(run, i, k):
  """Joins a pair of `pairs_of`."""
  if k < 0:
    run[i : i + 2] = [[run[i][0] + run[i + 1][0]]]
  else:
    run[i][k : k + 2] = [run[i][k] + run[i][k + 1]]


def by_definition(documents, size, min_count=2):
  """The pairs of bytes that are merged."""
  ids = {bytes([byte]): i for i, byte in enumerate(gpt2_alphabet())}
  runs, merges = [run for text in documents for run in runs_of(text)], []
  while len(ids) < size:
    counts = Counter((a, b) for run in runs for _, _, a, b in pairs_of(run))
    best = min(counts, key=lambda pair: (-counts[pair], ids[pair[0]], ids[pair[1]]), default=None)
    if best is None or counts[best] < min_count:
      break
    merges.append(best)
    ids.setdefault(b''.join(best), len(ids))
    for run in runs:
      while found := [(i, k) for i, k, *pair in pairs_of(run) if tuple(pair) == best]:
        join(run, *found[0])
  return merges


def encoded_by_definition(text, merges):
  ranks = {pair: rank for rank, pair in reversed([*enumerate(merges)])}
  runs = runs_of(text)
  for run in runs:
    while found := [(ranks[a, b], i, k) for i, k, a, b in pairs_of(run) if (a, b) in ranks]:
      join(run, *min(found)[1:])
  return [token for run in runs for word in run for token in word]


def merged(tokenizer):
  pieces = tokenizer.pieces
  return [(pieces[left], pieces[right]) for left, right in tokenizer.merges.tolist()]


@settings(max_examples=40, deadline=None)
@given(TEXTS, TEXTS)
def test_merges_and_ids_are_those_of_the_definition(documents, others):
  tokenizer = train_boundless(documents, 275)
  merges = by_definition(documents, 275)
  assert merged(tokenizer) == merges
  for text in [*documents, *others]:
    found = [tokenizer.token_bytes(i) for i in tokenizer.encode(text).tolist()]
    assert found == encoded_by_definition(text, merges)


def test_it_is_bpe_until_words_are_joined():
  boundless = train_boundless(DOCUMENTS, 800)
  words = train_bpe(DOCUMENTS, 800, boundless.rule)
  crosses = [b' ' in piece.strip(b' ') for piece in boundless.pieces[256:]]
  first = crosses.index(True)
  assert 50 < first < 500
  assert boundless.pieces[: 256 + first] == words.pieces[: 256 + first]
  alone = train_boundless(DOCUMENTS, 800, most_words=1)
  assert all(len(piece.split()) <= 1 for piece in alone.pieces)
  # A word of one letter can be joined with marks alone, so that no pair is the same as in BPE.
  text = DOCUMENTS[3]
  assert boundless.encode(text).size < words.encode(text).size


def test_words_are_joined_whole_and_every_merge_shortens_the_training_text():
  boundless = train_boundless(DOCUMENTS, 700)
  for text in (DOCUMENTS[0], byte_models.sources()[60_000:66_000], bytes(range(256)) * 2, b''):
    ids = boundless.encode(text)
    assert boundless.decode(ids) == text
    stops = set(pretokenizers.cut(text, boundless.rule).tolist()) | {0}
    ends = np.cumsum(boundless.byte_lengths(ids)).tolist()
    for begin, end in zip([0, *ends], ends):
      inside = stops & set(range(begin + 1, end))
      assert not inside or {begin, end} <= stops
  sizes = [
    sum(boundless.smaller(size).encode(document).size for document in DOCUMENTS)
    for size in range(300, 701, 100)
  ]
  assert np.all(np.diff(sizes) < 0)
  assert boundless.smaller(400).pieces == train_boundless(DOCUMENTS, 400).pieces


def test_its_file_is_read_back(tmp_path):
  made = tokenizers.train('boundless', DOCUMENTS, 400, outer_rule='digit1')
  tokenizers.save(made, tmp_path / 'file')
  back = tokenizers.load(tmp_path / 'file')
  assert isinstance(back, Boundless)
  assert back.fingerprint == made.fingerprint
  assert back.rule == 'digit1+words'
  assert back.encode(DOCUMENTS[0]).tolist() == made.encode(DOCUMENTS[0]).tolist()
