# SPDX-License-Identifier: Apache-2.0
"""Parity-aware BPE by its definition in plain Python, and by what it is for."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.errors import InputError
from lib.evals.segmentation import gini
from lib.tokenizers import bpe_learn, pretokenizers
from lib.tokenizers.bpe import gpt2_alphabet, train_bpe
from lib.tokenizers.parity import train_parity
from tests.helpers import byte_models

WORDS = st.lists(st.text('ab ', min_size=1, max_size=12).map(str.encode), min_size=1, max_size=4)


def words_of(texts):
  for text in texts:
    stops = pretokenizers.cut(text, 'words').tolist()
    yield from ([bytes([byte]) for byte in text[a:b]] for a, b in zip([0, *stops], stops))


def by_definition(documents, parallel, size, min_count=2):
  """The merges in ids: the worst language chooses, all apply."""
  alphabet = gpt2_alphabet()
  text = lambda texts: [[alphabet.index(byte) for byte in b''.join(word)] for word in texts]
  counted = {name: text(words_of(texts)) for name, texts in documents.items()}
  scored = {name: text(words_of(texts)) for name, texts in parallel.items()}
  merges, active = [], list(documents)
  while active and len(merges) < size - 256:
    worst = max(active, key=lambda name: sum(map(len, scored[name])))
    counts = Counter(pair for word in counted[worst] for pair in zip(word, word[1:]))
    best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
    if best is None or counts[best] < min_count:
      active.remove(worst)
      continue
    for word in (word for part in (counted, scored) for texts in part.values() for word in texts):
      i = 0
      while i < len(word) - 1:
        if (word[i], word[i + 1]) == best:
          word[i : i + 2] = [256 + len(merges)]
        i += 1
    merges.append(best)
  return merges


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=2, max_size=3))
def test_merges_are_those_of_the_definition(texts):
  documents = {str(i): one for i, (one, _) in enumerate(texts)}
  parallel = {str(i): one for i, (_, one) in enumerate(texts)}
  found = train_parity(documents, parallel, 270)
  assert [*map(tuple, found.merges.tolist())] == by_definition(documents, parallel, 270)


def test_twice_the_same_language_is_bpe():
  documents = [byte_models.sources()[:30_000]]
  both = {'a': documents, 'b': documents}
  cells, weights = pretokenizers.count(documents, 'words').cells(
    np.argsort(np.frombuffer(gpt2_alphabet(), np.uint8)).astype(np.int32)
  )
  tokens = [bytes([byte]) for byte in gpt2_alphabet()]
  expected = bpe_learn.learn(cells, 900, tokens, weights, min_count=2, overlap=True)
  assert train_parity(both, both, 900).merges.tolist() == expected.tolist()


def test_a_rare_script_is_no_longer_dear():
  text = byte_models.sources()[:40_000].decode()
  other = text.translate({i: i + 0x5000 for i in range(97, 123)})  # three bytes a letter
  documents = {'latin': [text.encode()], 'rare': [other[:8000].encode()]}
  parallel = {'latin': [text[:6000].encode()], 'rare': [other[:6000].encode()]}
  cost = lambda made: [sum(made.encode(one).size for one in texts) for texts in parallel.values()]
  even = gini(cost(train_parity(documents, parallel, 700)))
  usual = gini(cost(train_bpe([*documents['latin'], *documents['rare']], 700)))
  assert even < 0.01 < usual


def test_mistakes_are_named():
  texts = {'a': [b'a b'], 'b': [b'b a']}
  with pytest.raises(InputError, match='two or more languages; got a, and a'):
    train_parity({'a': [b'a']}, {'a': [b'a']}, 300)
  with pytest.raises(InputError, match='same two or more languages; got a, b, and a, c'):
    train_parity(texts, {'a': [b'a'], 'c': [b'c']}, 300)
  with pytest.raises(InputError, match='ask for 256 or more'):
    train_parity(texts, texts, 255)
