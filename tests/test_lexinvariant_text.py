# SPDX-License-Identifier: Apache-2.0
"""The lexinvariant recipe on text: windows, gaps, ciphers, prompts and averaged draws."""

import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import lexinvariant
from experiments.lexinvariant import cipher, context, draws, prompt, text
from lib.data import ciphers
from lib.errors import InputError
from lib.evals import cipher as keys


@pytest.fixture(scope='module')
def config() -> ConfigDict:
  return lexinvariant.get_config('smoke')


@pytest.fixture(scope='module')
def corpus(config) -> text.Corpus:
  return text.corpora(config)[0]


def by_column(rows, row):
  return {one.column: one.measured for one in rows if one.row == row}


def test_held_out_text_is_of_its_split_alone(corpus):
  splits = {split: corpus.documents(split) for split in ('train', 'validation', 'test')}
  whole = {
    split: b'\n'.join(documents[i] for i in range(len(documents)))
    for split, documents in splits.items()
  }
  ids = text.held_out(corpus, 'test', 200, 20)
  assert ids.shape == (20, 200)
  np.testing.assert_array_equal(ids, text.held_out(corpus, 'test', 200, 20))
  for one in ids:
    stretch = corpus.tokenizer.decode(one)
    assert stretch in whole['test']
    assert stretch not in whole['train']
    assert stretch not in whole['validation']


def test_text_without_a_long_document_is_named(corpus):
  with pytest.raises(InputError, match='has 10000000 symbols: choose a shorter'):
    text.held_out(corpus, 'test', 10_000_000, 1)


def test_windows_begin_at_the_papers_places_and_end_at_the_last_symbol():
  assert context.starts(512, 100) == [1, 25, 50, 100, 200, 300, 400, 413]
  assert context.starts(32, 16) == [1, 17]
  assert context.starts(100, 100) == [1]


def test_gaps_and_regret_are_those_of_hand_made_scores(config, corpus):
  learned = np.full((4, 32), np.log(2.0))
  random = learned + np.log(np.where(np.arange(32) < 16, 4.0, 1.5))[None]
  row = by_column(context._gap(corpus, config, [learned], [random]), corpus.row)
  assert row['relative_gap_at_1'] == pytest.approx(3.0)
  assert row['relative_gap_at_17'] == pytest.approx(0.5)
  assert row['gap_shrinks_by'] == pytest.approx(6.0)
  assert row['regret_nats_over_32'] == pytest.approx(16 * np.log(4) + 16 * np.log(1.5))
  assert row['late_regret_nats_per_symbol'] == pytest.approx(np.log(1.5))
  assert row['log_v_factorial_nats'] == pytest.approx(np.log(np.arange(1, 29)).sum())


def test_true_keys_give_the_plain_text_back_and_move_letters_alone(config, corpus):
  ids, truth = cipher.enciphered(config, corpus)
  plain = text.held_out(corpus, 'test', config.text.test_length, config.cipher.texts)
  np.testing.assert_array_equal(keys.apply_key(ids, truth, 0), plain)
  assert len({key.tobytes() for key in truth}) == len(truth)
  assert (ids != plain).mean() > 0.5
  space, newline = corpus.tokenizer.encode(b' \n')
  assert (truth[:, [space, newline]] == [space, newline]).all()
  _, shared = cipher.enciphered(config, corpus, one_key=True)
  assert len({key.tobytes() for key in shared}) == 1


def reader_that(truth, share, rng):
  """A reader whose probe is right at this share of positions."""

  def logits(ids):
    right = np.take_along_axis(truth, ids[:, :-1], axis=1)
    wrong = rng.integers(0, truth.shape[1], right.shape)
    said = np.where(rng.random(right.shape) < share, right, wrong)
    return 5 * np.eye(truth.shape[1])[said]

  return cipher.Reader(logits, {})


def test_a_reader_that_is_mostly_right_solves_long_texts(corpus):
  rng = np.random.default_rng(0)
  plain = text.held_out(corpus, 'test', 400, 5)
  key = ciphers.random_key(corpus.alphabet, text.LETTERS, 3)
  ids = np.stack([
    corpus.tokenizer.encode(ciphers.encipher(corpus.tokenizer.decode(one), key, corpus.alphabet))
    for one in plain
  ])  # fmt: skip
  truth = corpus.tokenizer.encode(ciphers.decipher(corpus.alphabet, key, corpus.alphabet))
  found = cipher.solve(reader_that(np.repeat(truth[None], 5, 0), 0.7, rng), ids)
  solved = keys.accuracy(found, truth, ids, 0, 400)
  guessed = cipher.solve(reader_that(np.repeat(truth[None], 5, 0), 0.0, rng), ids)
  assert solved.mean() > 0.95
  assert keys.accuracy(guessed, truth, ids, 0, 400).mean() < 0.3


def test_a_probe_of_another_model_is_named(tmp_path):
  run = types.SimpleNamespace(workdir=tmp_path)
  tree = {'a': np.zeros(3), 'b': {'c': np.ones((2, 2))}}
  cipher._check_same(run, 'cipher/x', tree, {'a': np.zeros(3), 'b': {'c': np.ones((2, 2))}})
  for other in ({'a': np.ones(3), 'b': tree['b']}, {'a': np.zeros(4), 'b': tree['b']}):
    with pytest.raises(InputError, match='cipher/x was trained on another model'):
      cipher._check_same(run, 'cipher/x', tree, other)


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ('wkh txlfn, eurzq ira mxpsv', "holds b',' at byte 9, outside the alphabet"),
    ('wkh txlfn', 'has 9 symbols; give 20 to 1000'),
  ],
)
def test_prompts_that_cannot_be_read_are_named(given, message):
  config = lexinvariant.get_config('smoke')
  config.prompt = given
  with pytest.raises(InputError, match=message):
    prompt.check(config)
  config.prompt = 'wkh txlfn eurzq ira mxpsv'
  prompt.check(config)


def test_averaged_draws_gain_what_their_mean_probability_gains(config, corpus):
  rng = np.random.default_rng(0)
  nats = rng.exponential(size=(2, 5, 32))
  rows = draws._rows(config, corpus, 0, nats)
  mixed = -np.log(np.exp(-nats).mean(axis=0))
  row = by_column(rows, f'{corpus.row},draws=2,seed=0')
  assert row['nats_per_symbol'] == pytest.approx(mixed.mean())
  assert row['gain_nats_per_symbol'] == pytest.approx(nats.mean() - mixed.mean())
  assert row['gain_nats_per_symbol'] > 0
  alike = by_column(draws._rows(config, corpus, 0, nats[[0, 0]]), f'{corpus.row},draws=2,seed=0')
  assert alike['gain_nats_per_symbol'] == pytest.approx(0, abs=1e-12)
