# SPDX-License-Identifier: Apache-2.0
"""What single tables of frozen visual Unicode do with text, letters, neighbours and notes."""

import json
import pathlib
import re
import types

import numpy as np
import pytest

from configs import visual_unicode
from experiments import fit
from experiments.fit import Fitted
from experiments.visual_unicode import loss, models, neighbours, text, unseen_script
from lib.data import sources
from lib.data.word_classes import ENGLISH, word_classes
from lib.evals import nearest
from lib.glyphs import letter_names, look_alikes, row_kinds
from lib.glyphs.pixel_rows import unit
from lib.report import published
from lib.report.results import Row, Rows
from lib.tokenizers.restricted import Restricted, train_restricted
from lib.tokenizers.unicode import Unicode

ROOT = pathlib.Path(__file__).parents[2]
NOTES = ROOT.parent / 'shared/papers/visual_unicode.md'
UDHR = ROOT.parent / 'shared/corpora/udhr'
SCALE = f'smoke,tables={"+".join(visual_unicode.TABLES)}'


@pytest.fixture(scope='module')
def config():
  return visual_unicode.get_config(SCALE)


# Homoglyphs.


def test_attacks_replace_letters_that_have_look_alikes(config):
  alike = {'a': 'а', 'o': 'оο'}
  attacked = look_alikes.attack('a toad, o!' * 50, alike, 1.0, seed=0)
  assert len(attacked) == 500
  assert not {'a', 'o'} & set(attacked)
  assert {'а', 'о', 'ο'} <= set(attacked)
  some = look_alikes.attack('a' * 4000, alike, 0.25, seed=1)
  assert some.count('а') / 4000 == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 4000))


@pytest.mark.parametrize('kind', ['bytes', 'restricted'])
def test_both_contexts_are_asked_for_the_same_clean_tokens(config, kind):
  tokenizer = text.open_text(config, kind).tokenizer
  clean = 'the other then, and\nthe end'
  attacked = look_alikes.attack(clean, {'e': 'е', 't': 'т'}, 0.5, seed=2)
  assert attacked != clean
  one, other = look_alikes.aligned(tokenizer, clean, attacked, 64)
  sought = [row['targets'][row['bytes'] > 0].tolist() for row in (one, other)]
  assert sought[0] == sought[1]
  assert one['bytes'].sum() == other['bytes'].sum() >= 0.5 * len(clean)
  read = tokenizer.encode(attacked.encode())
  assert other['inputs'][1 : len(read)].tolist() == read[:-1].tolist()
  # The text before each target is the attacked text up to the same character.
  for place in np.flatnonzero(other['bytes']):
    before = tokenizer.decode(read[:place]).decode()
    target = tokenizer.decode([other['targets'][place]]).decode()
    assert clean[len(before) :].startswith(target)
    assert before == attacked[: len(before)]


def test_without_an_attack_all_tokens_count(config):
  tokenizer = text.open_text(config).tokenizer
  clean = 'nothing here was changed'
  one, other = look_alikes.aligned(tokenizer, clean, clean, 64)
  assert all((one[field] == other[field]).all() for field in one)
  assert one['bytes'].sum() == len(clean)


def test_look_alikes_of_one_picture_cost_frozen_glyphs_nothing(config):
  opened = text.open_text(config)
  rows = row_kinds.glyph(opened.glyphs, config.loss.dim)
  a, cyrillic = (int(opened.tokenizer.encode(c.encode())[0]) for c in 'aа')
  assert a != cyrillic
  assert (rows[a] == rows[cyrillic]).all()


# Unseen scripts.


def test_letters_to_be_tested_are_in_no_training_line(config):
  seen, validation, groups = unseen_script.split(config)
  assert validation
  assert not set(seen) & set(validation)
  for group, members in groups.items():
    assert members, group
    assert not set(validation) & set(members)
    if group[1] == 'unseen':
      assert not set(seen) & set(members)
  assert letter_names.line('Ё') == 'Ё capital letter io\n'.encode()


def test_only_names_are_scored(config):
  seen, _, _ = unseen_script.split(config)
  tokenizer = Restricted(Unicode(), [ord(letter) for letter in seen])
  batch = letter_names.rows(tokenizer, seen[:5], 80)
  for i, letter in enumerate(seen[:5]):
    scored = batch['targets'][i][batch['bytes'][i] > 0]
    assert letter.encode() + tokenizer.decode(scored) == letter_names.line(letter)
    assert batch['inputs'][i, 1] == tokenizer.encode(letter.encode())[0]
  drawn = iter(letter_names.batches(batch, 3, seed=0))
  first, second = next(drawn), next(drawn)
  assert first['inputs'].shape == (3, 80)
  assert (first['inputs'] != second['inputs']).any()


def test_text_that_is_not_there_is_said_to_be_not_measured(config):
  config = visual_unicode.get_config(SCALE)
  config.tokenizer.kind = 'unicode'
  config.unseen_script.texts = (('russian', '/nowhere/russian.txt'),)
  rows = unseen_script.texts(config, types.SimpleNamespace())
  assert [row.measured for row in rows] == [None] * len(config.unseen_script.arms)
  assert all('not measured: no file matches' in row.note for row in rows)


def test_declarations_in_other_scripts_are_read_with_their_glyphs(config):
  if not UDHR.exists():
    pytest.skip(f'{UDHR} is not there: no text in other scripts to read')
  opened = text.open_text(config, 'unicode')._replace(source=str(UDHR / '*.txt'))
  [batch] = opened.held_out(config.loss, 'test', config.loss.batch_size).batches
  ids = np.unique(batch['inputs'][batch['segments'] > 0])
  assert (ids[ids < opened.tokenizer.vocab_size] > 0x7F).any()
  assert batch['bytes'].sum() > 0


def test_the_capital_and_the_small_form_of_a_letter_are_one_unit():
  assert letter_names.without_case('Ж') == letter_names.without_case('ж')
  assert letter_names.without_case('ж') != letter_names.without_case('з')


# Held-out text.


def test_held_out_rows_are_stretches_of_the_document_that_they_name(config):
  opened = text.open_text(config)
  found = opened.held_out(config.loss, 'test', 13)
  assert len(found.units) == len(found.bytes) == 13
  rows = {field: np.concatenate([b[field] for b in found.batches]) for field in found.batches[0]}
  assert (rows['segments'][:13] == 1).all()
  assert (rows['segments'][13:] == 0).all()
  source = sources.open_source(config.data.source, 'test')
  for row, document in enumerate(found.units):
    ids = [rows['inputs'][row, 0], *rows['targets'][row]]
    assert (rows['inputs'][row, 1:] == rows['targets'][row, :-1]).all()
    assert opened.tokenizer.decode(ids) in source[document]
    assert len(opened.tokenizer.decode(ids[1:])) == found.bytes[row] == rows['bytes'][row].sum()
  assert np.unique(found.units, return_counts=True)[1].max() <= text.EACH


def test_scores_by_document_have_the_bits_per_byte_of_all_the_text(config):
  opened = text.open_text(config)
  found = opened.held_out(config.loss, 'test', 13)
  nats = [found.sums(lambda batch: np.full(batch['targets'].shape, value)) for value in (1, 2)]
  bits = found.bits(nats)
  assert bits.shape == (2, len(set(found.units.tolist())))
  tokens = 13 * config.loss.length
  expected = [value * tokens / found.bytes.sum() / np.log(2) for value in (1, 2)]
  assert bits.mean(axis=1) == pytest.approx(expected)


def test_the_unigram_is_that_of_the_training_counts(config):
  opened = text.open_text(config)
  found = opened.held_out(config.loss, 'test', 3)
  counted = np.concatenate([batch['targets'][batch['segments'] > 0] for batch in found.batches])
  size = opened.tokenizer.vocab_size
  nats = loss.unigram_nats(counted, size, found)
  counts = np.bincount(counted, minlength=size) + 0.5
  expected = -np.log(counts / counts.sum())[counted].sum()
  assert nats.sum() == pytest.approx(expected)


def test_regret_is_over_the_exact_law_of_the_excerpts(config, monkeypatch, tmp_path):
  rng = np.random.default_rng(0)
  for index in range(40):  # with characters of two bytes
    (tmp_path / f'{index}.txt').write_text(''.join(rng.choice(list('abcdé ж\n'), size=600)))
  changed = visual_unicode.get_config(SCALE)
  changed.data.source = f'ngram:{tmp_path}/*.txt,order=2,length=400'
  changed.tokenizer.kind = 'bytes'
  changed.loss.test, changed.loss.arms = 12, ('glyph',)
  opened = text.open_text(changed)
  test = opened.held_out(changed.loss, 'test', 12)
  source = sources.open_source(changed.data.source, 'test')
  law = test.law_nats(source)
  targets = np.concatenate([batch['targets'] for batch in test.batches])
  for row, index in enumerate(test.units):
    written = opened.tokenizer.decode(targets[row])
    document = source[index]
    [start] = [at for at in range(401) if document[at:].startswith(written)]
    assert start == test.starts[row]
    nats = source.nats(document)
    assert law[row] == pytest.approx(nats[start : start + len(written)].sum())
  model = models.make_model(changed, changed.loss, 'glyph', opened.glyphs)
  length = changed.loss.length
  untrained = fit.untrained(model, test.batches[0], (0, 1), length, opened.tokenizer)
  trained = [Fitted(one, [], 1e-3) for one in untrained]
  monkeypatch.setattr(loss, 'train', lambda *_: trained)
  rows = {(row.row, row.column): row for row in loss.measure(changed, None)}
  of = lambda row, column: rows[row, column].measured
  exact = of('text=test', 'law_bits_per_byte')
  assert exact == pytest.approx(law.sum() / test.bytes.sum() / np.log(2))
  regret = rows['arm=glyph', 'regret_bits_per_byte']
  assert regret.measured == pytest.approx(of('arm=glyph', 'bits_per_byte') - exact)
  assert regret.measured > 0
  assert regret.over == 'seeds×documents'


# Neighbours.


def test_neighbours_are_judged_by_picture_and_form():
  written = ['a', 'A', 'b', '1', '2']
  vectors = unit(np.array([[1, 0.1], [1, 0], [0.8, 0.6], [0, 1], [-0.1, 1]]))
  alike = np.full((5, 5), 0.5)
  alike[0, 1] = alike[1, 0] = 1.0
  found = nearest.judge(vectors, alike, written)
  # a-A, A-a, b-a, 1-2, 2-1
  assert found['case_pair'].tolist() == [1, 1]
  assert found['same_form'].tolist() == [0, 0, 1, 1, 1]
  assert found['alike'].tolist() == [1, 1, 0.5, 0.5, 0.5]
  chance = nearest.chance(alike, written)
  assert chance['case_pair'] == pytest.approx(1 / 4)
  assert chance['same_form'] == pytest.approx(4 / 20)


def test_hidden_states_are_means_over_occurrences():
  batch = {
    'inputs': np.array([[9, 3, 4, 3]]),
    'segments': np.array([[1, 1, 1, 0]]),
  }
  vectors = np.array([[[9.0, 9], [1, 2], [5, 6], [100, 100]]])
  means = nearest.token_states([batch], np.array([3, 4]), lambda batch: vectors)
  np.testing.assert_allclose(means, [[-2, -2], [2, 2]])
  assert nearest.frequent([batch], 9, 5).tolist() == [3, 4]


def test_states_of_words_are_those_after_whole_words_and_their_spaces():
  documents = [b'the of in is at by '] * 2
  tokenizer = train_restricted(documents, 300, 3)
  ids = tokenizer.encode(b'the other the is (is) is the_ ')
  inputs = np.concatenate([[tokenizer.vocab_size], ids])[None]
  batch = {'inputs': inputs, 'segments': np.ones_like(inputs)}
  words = nearest.known_words(tokenizer, [batch], 1)
  assert dict(zip(words.written, words.ids)) == {
    word: tokenizer.encode(word.encode())[0] for word in ('the', 'is')
  }
  places = np.arange(inputs.size, dtype=float)[None, :, None]
  states = nearest.word_states(tokenizer, [batch], words, lambda batch: places)
  read = [tokenizer.decode([i]) for i in ids]
  the = [i for i, piece in enumerate(read) if piece == b'the']
  found = dict(zip(words.written, states[:, 0]))
  # Not the "the" in "other", nor that before "_"; inputs are one place later, the space another.
  assert found['the'] == pytest.approx(np.mean([the[0] + 2, the[-2] + 2]))


@pytest.fixture(scope='module')
def made_up():
  """Sixty words of one form in six classes, and their rows."""
  rng = np.random.default_rng(0)
  words = nearest.Words(['abc'] * 60, np.arange(60), np.arange(60) % 6)
  return words, rng.standard_normal((60, 32))


def differences(made_up, states):
  """p-values and signs of hidden states less rows, noise and untrained states."""
  words, rows = made_up
  untrained = [rows @ np.random.default_rng(seed).standard_normal((32, 32)) for seed in range(4)]
  found = Rows('neighbours')
  neighbours.add_words(found, 'glyph', words, states, [rows] * len(states), untrained)
  return [
    (row.estimate.p_value(), row.measured)
    for row in found
    if row.column == 'difference_same_word_class'
  ]


def test_noise_is_no_meaning(made_up):
  _, rows = made_up
  states = [rows + np.random.default_rng(seed).standard_normal(rows.shape) for seed in range(4)]
  found = differences(made_up, states)
  assert len(found) == len(neighbours.BASELINES)
  # A rule needs every baseline to be beaten.
  assert not all(p is not None and p < 0.05 and value > 0 for p, value in found)


def test_states_arranged_by_word_class_are_meaning(made_up):
  words, rows = made_up
  states = []
  for seed in range(4):
    rng = np.random.default_rng(seed)
    centres = 2 * rng.standard_normal((6, 32))
    states.append(rows + centres[words.classes] + rng.standard_normal(rows.shape))
  found = differences(made_up, states)
  assert all(p < 0.01 and value > 0.2 for p, value in found)


@pytest.mark.parametrize('target', [0.9, 0.5, 0.1])
def test_noise_takes_rows_as_far_as_asked(made_up, target):
  _, rows = made_up
  found = nearest.noisy(rows, target, seed=1)
  assert nearest.similarity(rows, found) == pytest.approx(target, abs=1e-6)


def test_neighbours_are_sought_among_words_of_one_form():
  # Of one class are the long words; the nearest vector of each is a short word.
  words = nearest.Words(['of', 'in', 'through', 'without'], np.arange(4), np.array([0, 1, 2, 2]))
  vectors = np.array([[1, 0.0, 0], [0, 1, 0], [1, 0.1, 0], [0, 1, 0.1]])
  assert words.agreement(vectors).tolist() == [0, 0, 1, 1]


def test_word_classes_are_closed_lists_of_distinct_words():
  found = word_classes()
  assert found['of'] == 'preposition'
  assert found['for'] == 'preposition'  # a keyword too, but English here
  assert found['lambda'] == 'keyword'
  assert found['three'] == 'numeral'
  assert not {'as', 'not', 'that', 'True'} & set(found)
  listed = ' '.join(ENGLISH.values()).split()
  assert len(listed) == len(set(listed))


# Published numbers.


def test_published_numbers_are_those_of_the_notes():
  entries = published.load('visual_unicode')['entries']
  assert len({(e['table'], e['row'], e['column']) for e in entries}) == len(entries)
  assert all(entry['source'] and entry['where'] == {'scale': 'paper'} for entry in entries)
  if not NOTES.exists():
    pytest.skip(f'{NOTES} is not there: its numbers cannot be compared')
  rows = json.loads(re.search(r'```json\n(.*?)\n```', NOTES.read_text(), re.DOTALL).group(1))
  factor = lambda row: {'%': 0.01, 'billion': 1e9}.get(row['unit'], 1)
  expected = sorted(row['value'] * factor(row) for row in rows)
  assert sorted(entry['value'] for entry in entries) == pytest.approx(expected)


def test_published_numbers_of_other_scales_are_only_in_notes():
  where = {'model': 'best_bvv_ru', 'benchmark': 'mmlu', 'protocol': 'sampled_1'}
  row = Row('reasoning', where, 'accuracy', 0.25)
  [attached] = published.attach([row], 'visual_unicode', {'scale': 'paper'})
  assert attached.published == pytest.approx(0.2229)
  [apart] = published.attach([row], 'visual_unicode', {'scale': 'cpu'})
  assert apart.published is None
