# SPDX-License-Identifier: Apache-2.0
"""The lexinvariant recipe on text: windows, gaps, ciphers, prompts and averaged draws."""

import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import lexinvariant
from experiments.lexinvariant import cipher, context, decoders, draws, prompt, text_models
from lib import stats
from lib.data import alphabets, overlap, pipeline, sources
from lib.data.ngram_text import NgramText
from lib.data.own_files import SPLITS
from lib.errors import InputError
from lib.evals.sequences import token_nats
from lib.language_model import TrainedModel
from lib.report.results import Rows, name
from lib.tasks import ciphers
from lib.tasks.markov import renaming
from lib.tokenizers.characters import Characters
from tests.helpers import slow_overlap

LETTERS = text_models.ALPHABETS['letters']


@pytest.fixture(scope='module')
def config() -> ConfigDict:
  return lexinvariant.get_config('smoke')


@pytest.fixture(scope='module')
def corpus(config) -> text_models.Corpus:
  return text_models.corpora(config)[0]


def by_column(rows, where):
  return {one.column: one.measured for one in rows if one.where == where}


def test_held_out_text_is_of_its_split_alone(corpus):
  splits = {split: corpus.documents(split) for split in ('train', 'validation', 'test')}
  whole = {
    split: b'\n'.join(documents[i] for i in range(len(documents)))
    for split, documents in splits.items()
  }
  held = text_models.held_out(corpus, 'test', 200, 20)
  ids, documents = held.ids, held.documents
  assert ids.shape == (20, 200)
  assert len(set(documents.tolist())) == 20  # as many documents as can be
  np.testing.assert_array_equal(ids, text_models.held_out(corpus, 'test', 200, 20).ids)
  for one, document in zip(ids, documents, strict=True):
    assert corpus.tokenizer.decode(one) in splits['test'][int(document)]
    stretch = corpus.tokenizer.decode(one)
    assert stretch in whole['test']
    assert stretch not in whole['train']
    assert stretch not in whole['validation']


def test_folded_held_out_text_hardly_overlaps_with_training_text(config, corpus):
  splits = {split: sources.sample(corpus.documents(split)) for split in SPLITS}
  unfolded = sources.sample(sources.open_source(corpus.source, 'test'))
  whole = [alphabets.fold(one, LETTERS) for one in unfolded]
  before, after = (slow_share(held, splits['train']) for held in (whole, splits['test']))
  assert after <= overlap.LIMIT < before  # folding made text equal that was not
  assert slow_share(splits['validation'], splits['train']) <= overlap.LIMIT
  assert all(set(one) <= set(LETTERS) for one in splits['test'])
  [described] = text_models.describe(config)
  assert described.overlaps['test'].before == pytest.approx(before)
  assert described.overlaps['test'].after == pytest.approx(after)
  assert described.bytes['test'] == sum(map(len, splits['test']))


def slow_share(held, train):
  """`slow_overlap.share` of the stretches of training text that are held-out text at all."""
  stretches = lambda texts: (text[i : i + 100] for text in texts for i in range(len(text) - 99))
  known = set(stretches(held))
  return slow_overlap.share(held, list(known.intersection(stretches(train))))


def test_documents_of_endless_text_are_longer_than_sequences():
  config = lexinvariant.get_config('gpu')
  for corpus in text_models.corpora(config):
    source = corpus.documents('test')
    assert isinstance(source, NgramText)
    assert source.length >= config.text.length
    assert len(source) >= max(config.text.test_sequences, config.cipher.texts)


def test_text_without_a_long_document_is_named(corpus):
  with pytest.raises(InputError, match='is 10000000 long: choose shorter'):
    text_models.held_out(corpus, 'test', 10_000_000, 1)


def test_windows_begin_at_the_papers_places_and_end_at_the_last_symbol():
  assert context.starts(512, 100) == [1, 25, 50, 100, 200, 300, 400, 413]
  assert context.starts(32, 16) == [1, 17]
  assert context.starts(100, 100) == [1]


def test_gaps_and_regret_are_those_of_hand_made_scores(config, corpus):
  learned = np.full((3, 4, 32), np.log(2.0))
  random = learned + np.log(np.where(np.arange(32) < 16, 4.0, 1.5))[None]
  scores = {
    context.LEARNED: learned,
    context.RANDOM: random,
    ('predictor', 'counting_bigram'): learned[:1] + np.log(3.0),
    context.LAW: learned[:1] - 0.1,
  }
  rows = context.of_scores(config, corpus, scores, np.arange(4))
  row = by_column(rows, corpus.where)
  assert row['relative_gap_at_1'] == pytest.approx(3.0)
  assert row['relative_gap_at_17'] == row['relative_gap_at_last_window'] == pytest.approx(0.5)
  assert row['gap_shrinks_by'] == pytest.approx(6.0)
  assert row['regret_nats_over_32'] == pytest.approx(16 * np.log(4) + 16 * np.log(1.5))
  assert row['log_v_factorial_nats'] == pytest.approx(np.log(np.arange(1, 29)).sum())
  counting = by_column(rows, corpus.where | {'predictor': 'counting_bigram'})
  assert counting['gap_shrinks_by'] == pytest.approx(1)
  lexinvariant = by_column(rows, corpus.where | {'embedding': 'lexinvariant'})
  assert lexinvariant['nats_below_counting_bigram_first'] == pytest.approx(np.log(3 / 4))
  assert lexinvariant['nats_below_counting_bigram_last'] == pytest.approx(np.log(3 / 1.5))
  assert lexinvariant['regret_nats'] == pytest.approx(row['regret_nats_over_32'] + 3.2)
  learned = by_column(rows, corpus.where | {'embedding': 'learned'})
  assert learned['regret_nats'] == pytest.approx(3.2)


def test_errors_of_gaps_are_over_documents_and_seeds(config, corpus):
  rng = np.random.default_rng(0)
  of_document = np.repeat(rng.normal(0, 0.3, (1, 12, 1)), 4, axis=1)  # 4 stretches of each
  documents = np.repeat(np.arange(12), 4)
  learned = np.log(2.0) + of_document + rng.normal(0, 0.1, (3, 48, 32))
  random = np.log(4.0) + of_document + rng.normal(0, 0.1, (3, 48, 32))
  scores = {context.LEARNED: learned, context.RANDOM: random}
  found = {
    n: {(row.row, row.column): row for row in context.of_scores(config, corpus, scores, groups)}
    for n, groups in (('3×12', documents), ('3×48', np.arange(48)))
  }
  corpus_row = name(**corpus.where)
  place = f'{corpus_row},embedding=learned', 'perplexity_at_1'
  by_document, by_stretch = (found[n][place] for n in ('3×12', '3×48'))
  assert (by_document.n, by_stretch.n) == ('3×12', '3×48')
  assert by_document.sem > 1.6 * by_stretch.sem  # stretches of a document are not independent
  gap = found['3×12'][corpus_row, 'relative_gap_at_1']
  assert gap.measured == pytest.approx(1, abs=0.1)
  assert gap.sem < by_document.sem  # both models score the same documents
  assert gap.df is not None


def test_endless_text_has_a_floor_that_no_model_can_beat():
  corpus = text_models.Corpus('prose', 'letters', 'ngram:stdlib/prose,order=2', Characters(LETTERS))
  held = text_models.held_out(corpus, 'test', 64, 50)
  assert len(set(held.documents.tolist())) == 50
  floor = text_models.law_nats(corpus, held.ids)
  assert floor is not None
  assert floor.shape == held.ids.shape
  source = corpus.documents('test')
  assert corpus.tokenizer.decode(held.ids[0]) == source[int(held.documents[0])][:64]
  for order in (0, 1):
    counted = renaming.counting_nats(held.ids, corpus.tokenizer.vocab_size, order)
    assert (counted - floor).sum(axis=1).mean() > 20
  assert text_models.law_nats(corpus._replace(source='stdlib/prose'), held.ids) is None


def test_rows_of_the_scorer_are_drawn_for_each_sequence(config):
  model = decoders.make_model(config.text, 'lexinvariant', 28, np.float32)
  ids = np.tile(np.random.default_rng(0).integers(0, 28, 32), (40, 1))  # one text, 40 times
  batch, key = pipeline.batch_from_ids(ids[:1], 28), jax.random.key(0)
  trained = TrainedModel(model, model.init(key, batch, key), None, 32)
  means, sems = [], []
  for seed in range(40):
    nats = token_nats(trained, ids, seed).mean(axis=1)
    found = stats.mean(nats)
    means.append(found.value)
    sems.append(found.sem)
  # The text is one, so the error is that of the draw; it is what the mean has from draw to draw.
  assert np.std(means, ddof=1) == pytest.approx(np.mean(sems), rel=0.4)


def test_true_keys_give_the_plain_text_back_and_move_letters_alone(config, corpus):
  ids, truth, documents = cipher.enciphered(config, corpus)
  plain = text_models.held_out(corpus, 'test', config.text.length, config.cipher.texts).ids
  assert len(documents) == len(ids)
  np.testing.assert_array_equal(ciphers.apply_key(ids, truth, 0), plain)
  assert len({key.tobytes() for key in truth}) == len(truth)
  assert (ids != plain).mean() > 0.5
  space, newline = corpus.tokenizer.encode(b' \n')
  assert (truth[:, [space, newline]] == [space, newline]).all()
  _, shared, _ = cipher.enciphered(config, corpus, one_key=True)
  assert len({key.tobytes() for key in shared}) == 1


def test_solvers_are_compared_on_the_same_texts(corpus):
  rng = np.random.default_rng(0)
  of_text = rng.uniform(0.1, 0.3, 40)  # some texts are easier for all solvers
  precisions = {
    'majority': 2 * of_text + rng.normal(0.05, 0.01, (3, 40)),
    'untrained_majority': of_text + rng.normal(0, 0.005, (3, 40)),
    'frequency_matching': 2 * of_text[None],
    'hill_climbing': 3 * of_text[None] + 0.1,
  }
  rows, documents = Rows('cipher'), np.arange(40)
  texts = cipher.Texts(documents, documents, documents)
  cipher.add_compared(rows, corpus.where, texts, precisions)
  found = {row.column: row for row in rows}
  twice = found['precision_above_2x_untrained_majority']
  assert twice.measured == pytest.approx(0.05, abs=0.01)
  assert twice.n == '3×40'
  assert twice.sem < 0.006 < of_text.std() / np.sqrt(40)  # the texts' own spread cancels
  assert found['precision_above_frequency_matching'].measured == pytest.approx(0.05, abs=0.01)
  assert found['precision_above_1.5x_majority'].measured == pytest.approx(0.025, abs=0.01)


def reader_that(truth, share, rng):
  """A reader whose probe is right at this share of positions."""

  def logits(ids):
    right = np.take_along_axis(truth, ids[:, :-1], axis=1)
    wrong = rng.integers(0, truth.shape[1], right.shape)
    said = np.where(rng.random(right.shape) < share, right, wrong)
    return 5 * np.eye(truth.shape[1])[said]

  return logits


def test_a_reader_that_is_mostly_right_solves_long_texts(corpus):
  rng = np.random.default_rng(0)
  plain = text_models.held_out(corpus, 'test', 400, 5).ids
  key = ciphers.random_key(corpus.alphabet, text_models.LETTERS, 3)
  ids = np.stack([
    corpus.tokenizer.encode(ciphers.encipher(corpus.tokenizer.decode(one), key, corpus.alphabet))
    for one in plain
  ])  # fmt: skip
  truth = corpus.tokenizer.encode(ciphers.decipher(corpus.alphabet, key, corpus.alphabet))
  found = cipher.solve(reader_that(np.repeat(truth[None], 5, 0), 0.7, rng), ids)
  solved = ciphers.accuracy(found, truth, ids, 0, 400)
  guessed = cipher.solve(reader_that(np.repeat(truth[None], 5, 0), 0.0, rng), ids)
  assert solved.mean() > 0.95
  assert ciphers.accuracy(guessed, truth, ids, 0, 400).mean() < 0.3


def test_a_probe_of_another_model_is_named(tmp_path):
  run = types.SimpleNamespace(workdir=tmp_path)
  tree = {'a': np.zeros(3), 'b': {'c': np.ones((2, 2))}}
  cipher.check_same(run, 'cipher/x', tree, {'a': np.zeros(3), 'b': {'c': np.ones((2, 2))}})
  for other in ({'a': np.ones(3), 'b': tree['b']}, {'a': np.zeros(4), 'b': tree['b']}):
    with pytest.raises(InputError, match='cipher/x was trained on another model'):
      cipher.check_same(run, 'cipher/x', tree, other)


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ('wkh txlfn, eurzq ira mxpsv', "contains b',' at byte 9, outside the alphabet"),
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


def test_the_gain_of_averaged_samples_is_that_of_their_mean_probability(config, corpus):
  rng = np.random.default_rng(0)
  nats = rng.exponential(size=(3, 2, 5, 32))
  rows = draws.of_nats(config, corpus, nats, np.array([0, 1, 2, 3, 4]))
  mixed = -np.log(np.exp(-nats).mean(axis=1))
  row = by_column(rows, corpus.where | {'draws': '2'})
  assert row['nats_per_symbol'] == pytest.approx(mixed.mean())
  assert row['gain_nats_per_symbol'] == pytest.approx(nats.mean() - mixed.mean())
  assert row['gain_nats_per_symbol'] > 0
  assert {one.n for one in rows if one.column == 'nats_per_symbol'} == {'3×5'}
  alike = by_column(draws.of_nats(config, corpus, nats[:, [0, 0]], np.arange(5)),
                    corpus.where | {'draws': '2'})  # fmt: skip
  assert alike['gain_nats_per_symbol'] == pytest.approx(0, abs=1e-12)
