# SPDX-License-Identifier: Apache-2.0
"""Replayed merges: every count is that of the text itself, merged and counted step by step."""

import itertools
from collections import Counter

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from lib.errors import InputError
from lib.tokenizers import bpe_replay, foreign, merge_lists, registry
from lib.tokenizers.bpe_replay import Pieces
from lib.tokenizers.ranks import Ranks

TEXT = [b'the cat sat on the mat, the cat sat there  \n\n\taaa aaaa bananas\n' * 3, b'thee  end']


def counted(sequences, overlap):
  """(left, right, sample) -> count of the sequences [(sample, ids)] as they are."""
  found = Counter()
  for sample, ids in sequences:
    for token, run in itertools.groupby(ids):
      length = len(list(run))
      found[token, token, sample] += length - 1 if overlap else length // 2
    for left, right in itertools.pairwise(ids):
      found[left, right, sample] += left != right
  return +found


def merged(ids, left, right, made):
  out = []
  for one in ids:
    if out and out[-1] == left and one == right:
      out[-1] = made
    else:
      out.append(one)
  return out


@pytest.mark.parametrize('overlap', [False, True])
def test_counts_are_those_of_the_text_at_every_step(overlap):
  rng = np.random.default_rng(overlap)
  for _ in range(60):
    letters, samples = rng.integers(1, 4), int(rng.integers(1, 4))
    draw = lambda: rng.integers(0, letters, rng.integers(0, 25)).astype(np.int32)
    parts = [[(draw(), int(rng.integers(1, 4))) for _ in range(3)] for _ in range(samples)]
    pieces = [
      Pieces(
        np.concatenate([[*ids, -1] for ids, _ in one]),
        np.concatenate([[times] * (len(ids) + 1) for ids, times in one]),
      )
      for one in parts
    ]
    strings, merges = [(letter,) for letter in range(letters)], []
    for _ in range(rng.integers(1, 10)):
      left, right = rng.integers(0, len(strings), 2)
      joined = strings[left] + strings[right]
      if not (overlap and joined in strings):  # only such a trainer makes a token twice
        strings.append(joined)
      made = strings.index(joined) if overlap else len(strings) - 1
      merges.append((left, right, made))
    lengths = np.array([len(one) for one in strings])
    found = bpe_replay.replay(pieces, np.array(merges), lengths, overlap)
    texts = [
      (sample, ids.tolist())
      for sample, one in enumerate(parts)
      for ids, times in one
      for _ in range(times)
    ]
    counts = np.zeros((len(found.pairs), samples), int)
    for step in range(len(merges) + 1):
      for i in range(found.offsets[step], found.offsets[step + 1]):
        counts[found.pair[i], found.sample[i]] += found.change[i]
      there = {
        (*found.pairs[i].tolist(), sample): counts[i, sample]
        for i, sample in np.argwhere(counts).tolist()
      }
      assert there == counted(texts, overlap)
      sizes = [sum(len(ids) for one, ids in texts if one == sample) for sample in range(samples)]
      assert found.tokens[step].tolist() == sizes
      if step < len(merges):
        texts = [(sample, merged(ids, *merges[step])) for sample, ids in texts]


def trained_by_hugging_face():
  one = tokenizers.Tokenizer(models.BPE())
  one.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  one.decoder = decoders.ByteLevel()
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
  one.train_from_iterator([text.decode() for text in TEXT], trainer)
  return foreign.ByteLevel(one.to_str().encode())


@pytest.mark.parametrize('kind', ['bpe', 'bpe_unsplit', 'ranks', 'tokenizer.json', 'sentencepiece'])
def test_each_merge_joins_a_most_frequent_pair_of_the_training_text(kind):
  if kind == 'tokenizer.json':
    trained = trained_by_hugging_face()
  elif kind == 'ranks':
    trained = Ranks(registry.train('bpe', TEXT, 290).pieces, 'words')
  elif kind == 'sentencepiece':
    trained = registry.train(kind, TEXT * 4, 290, kind='bpe')
  else:
    trained = registry.train(kind, TEXT, 290)
  merges = merge_lists.of(trained, lines=False if kind != 'sentencepiece' else None)
  assert len(merges.merges) > 8
  found = bpe_replay.replay([merges.pieces(TEXT)], merges.merges, merges.lengths, merges.overlap)
  counts, allowed = np.zeros(len(found.pairs), int), merges.could_join(found.pairs)
  assert np.all(found.merged >= 0)
  for merge, own in enumerate(found.merged):
    for i in range(found.offsets[merge], found.offsets[merge + 1]):
      counts[found.pair[i]] += found.change[i]
    assert counts[own] == counts[allowed].max()


@pytest.mark.parametrize('kind', ['bpe', 'bpe_unsplit', 'tokenizer.json'])
def test_a_trainer_of_this_kind_learns_the_same_merges_from_the_same_text(kind):
  trained = (
    trained_by_hugging_face() if kind == 'tokenizer.json' else registry.train(kind, TEXT, 290)
  )
  one = merge_lists.of(trained, lines=False)
  again = one.learned(TEXT, 20)
  spelled = lambda some: [tuple(some.tokens[i] for i in row) for row in some.merges[:20].tolist()]
  assert spelled(again) == spelled(one)
  np.testing.assert_array_equal(again.pieces(TEXT).times, one.pieces(TEXT).times)


def test_cut_lines_are_detected():
  text = [b'one\n\n\ntwo\n\n\n' * 9]
  for rule, lines in (('none', False), ('regex:[^\\n]*\\n', True)):
    one = merge_lists.of(registry.train('bpe', text, 290, rule=rule))
    assert (-1 in one.pieces([b'a\n\nb']).cells[:4]) == lines


def test_tokenizers_without_merges_are_refused():
  for name in ('bytes', 'lzw'):
    with pytest.raises(InputError, match='has no merges: give one of BPE'):
      merge_lists.of(registry.train(name, TEXT, 300))
