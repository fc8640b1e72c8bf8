# SPDX-License-Identifier: Apache-2.0
"""Endless text: the law against brute force, samples against the law, streams, specs, epochs."""

import collections

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data import epochs, sources
from lib.data.ngram_text import NgramLaw, open_text
from lib.errors import InputError

texts = st.lists(st.integers(0, 3), min_size=1, max_size=40).map(lambda s: np.array(s, np.uint8))
LETTERS = b'abcdefghijklmnopqrstuvwxyz \n'


def brute_force(text, order, vocab_size, context):
  """P(· | context) [V] by counting the ring in plain Python."""
  grams: collections.Counter[tuple[int, ...]] = collections.Counter()
  for level in range(order + 1):
    for i in range(len(text)):
      grams[tuple(text[(i + j) % len(text)] for j in range(level + 1))] += 1
  law = [(grams[(w,)] + 0.5) / (len(text) + vocab_size / 2) for w in range(vocab_size)]
  for level in range(1, min(order, len(context)) + 1):
    known = tuple(context[-level:])
    after = [grams[(*known, w)] for w in range(vocab_size)]
    total, distinct = sum(after), sum(count > 0 for count in after)
    if total:
      law = [(c + distinct * p) / (total + distinct) for c, p in zip(after, law)]
  return np.array(law)


@settings(max_examples=60, deadline=None)
@given(texts, texts, st.integers(0, 4))
def test_nats_are_those_of_plain_counting(text, document, order):
  law = NgramLaw(text, order, 5)
  expected = [
    brute_force(text.tolist(), order, 5, document[:i].tolist())[symbol]
    for i, symbol in enumerate(document)
  ]
  np.testing.assert_allclose(np.exp(-law.nats(document)), expected, rtol=1e-12)


def test_samples_have_the_law_that_is_stated():
  rng = np.random.default_rng(0)
  law = NgramLaw(rng.choice(3, 60, p=[0.6, 0.3, 0.1]).astype(np.uint8), 2, 4)
  count = 40_000
  seeds = (np.random.SeedSequence(1, spawn_key=(i,)) for i in range(count))
  drawn = collections.Counter(law.sample(4, seed).tobytes() for seed in seeds)
  every = [np.array(one, np.uint8) for one in np.ndindex(4, 4, 4, 4)]
  probabilities = np.exp([-law.nats(one).sum() for one in every])
  assert probabilities.sum() == pytest.approx(1, abs=1e-12)
  observed = np.array([drawn[one.tobytes()] for one in every])
  often = probabilities * count > 5
  expected = np.append(probabilities[often], probabilities[~often].sum()) * count
  found = np.append(observed[often], observed[~often].sum())
  statistic = ((found - expected) ** 2 / expected).sum()
  freedom = len(expected) - 1
  assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)  # chi-squared


def test_documents_depend_on_seed_split_and_index_alone():
  opened = {split: open_text('ngram:stdlib/prose', split) for split in
            ('train', 'validation', 'test')}  # fmt: skip
  train = opened['train']
  assert len(train) * train.length > 2**35
  assert train[7] == open_text('ngram:stdlib/prose', 'train')[7]
  assert train[7] == sources.open_source('ngram:stdlib/prose', 'train')[7]
  assert len(train[len(train) - 1]) == train.length == 4096
  other = sources.open_source('ngram:stdlib/prose,seed=1,length=100', 'train')
  assert len(other[7]) == 100
  documents = [*(train[i] for i in range(5)), opened['validation'][0], opened['test'][0], other[0]]
  assert len({document[:100] for document in documents}) == len(documents)
  with pytest.raises(IndexError):
    train[len(train)]


def test_folded_text_has_an_exact_law_of_its_own():
  text = open_text('ngram:stdlib/prose,order=3', 'test').folded(LETTERS)
  document = text[0]
  assert not set(document) - set(LETTERS)
  mean = [text.nats(text[i]).mean() for i in range(20)]
  assert 1.0 < np.mean(mean) < 1.8  # nats a letter: between order 6 and 1
  with pytest.raises(InputError, match='fold it first'):
    text.nats(b'A')


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    ('ngram:stdlib/prose,order=x', 'order=x of .* is not one of order, seed, length'),
    ('ngram:stdlib/prose,width=3', 'width=3 of .* is not one of'),
    ('ngram:stdlib/prose,order=7', 'takes an order from 0 to 6; got 7'),
    ('ngram:stdlib/prose,length=0', 'length >= 1; got seed 0, length 0'),
    ('ngram:ngram:stdlib', 'give a finite source'),
    ('ngram:stdlib/poems', "'stdlib/poems' does not exist"),
    ('ngram:/no/such/file', 'no file matches'),
  ],
)
def test_specs_that_cannot_be_opened_are_named(spec, message):
  with pytest.raises(InputError, match=message):
    sources.open_source(spec, 'train')


def test_more_than_four_epochs_are_refused_at_large_scales(tmp_path):
  path = tmp_path / 'text.txt'
  path.write_bytes(b'line of text\n' * 1000)
  size = sum(map(len, sources.sample(sources.open_source(str(path), 'train'))))
  assert epochs.check('text.source', str(path), 4 * size, 'gpu').startswith('training reads 4 ep')
  with pytest.raises(InputError, match=r'text.source .* 4.01 times.*ngram:'):
    epochs.check('text.source', str(path), 4.01 * size, 'gpu')
  assert epochs.check('text.source', str(path), 40 * size, 'cpu') == (
    'training reads 40 epochs of its text'
  )
  assert epochs.check('text.source', str(path), size / 2, 'paper') == 'less than one epoch'
  assert epochs.check('text.source', f'ngram:{path}', 1e12, 'paper') == ''


def test_epochs_are_of_the_part_of_a_text_that_is_used(tmp_path):
  path = tmp_path / 'text.txt'
  path.write_bytes(b'line of text\n' * 1000)
  check = lambda source, read, limit: epochs.check('a.source', source, read, 'gpu', limit)
  assert check(str(path), 4000, 1000).startswith('training reads 4 ep')
  for source in (str(path), f'ngram:{path}'):  # a part of endless text has an end
    with pytest.raises(InputError, match=r'has 1e\+03 bytes .* 5 times.* larger part'):
      check(source, 5000, 1000)
  with pytest.raises(InputError, match='times'):  # no more than there is
    check(str(path), 100_000, 1e9)


class Books(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    fields = tfds.features.FeaturesDict({'text': tfds.features.Text()})
    return tfds.core.DatasetInfo(builder=self, features=fields)

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for i in range(101):
      yield i, {'text': 'x' * (100 + i)}


def test_epochs_of_a_prepared_set_are_counted_or_estimated(tmp_path, monkeypatch):
  Books(data_dir=tmp_path, file_format='array_record').download_and_prepare()
  opened = sources.open_source
  monkeypatch.setattr(sources, 'open_source', lambda spec, split: opened(spec, split, tmp_path))
  with pytest.raises(InputError, match=r"'tfds:books' has 1.52e\+04 bytes .* 4.01 times"):
    epochs.check('text.source', 'tfds:books', 4.01 * 15_150, 'gpu')
  monkeypatch.setattr(epochs, 'COUNTED', 3000)
  assert epochs._size.__wrapped__('tfds:books') == pytest.approx(15_150, rel=0.1)  # 22 documents


def test_the_order_of_an_endless_text_bounds_its_alphabet():
  with pytest.raises(InputError, match='takes an order from 0 to 6; got 7'):
    NgramLaw(np.zeros(3, np.uint8), 7, 256)
  with pytest.raises(InputError, match='got 0 symbols'):
    NgramLaw(np.zeros(0, np.uint8), 2, 3)
  with pytest.raises(InputError, match='up to 3'):
    NgramLaw(np.array([3], np.uint8), 2, 3)
