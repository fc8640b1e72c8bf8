# SPDX-License-Identifier: Apache-2.0
"""What single tables of frozen visual Unicode do with text, letters, neighbours and notes."""

import json
import pathlib
import re
import types

import numpy as np
import pytest

from configs import visual_unicode
from experiments.visual_unicode import homoglyphs, models, neighbours, text, unseen_script
from lib import tokenizers
from lib.embeddings.glyph_rows import unit
from lib.report import published
from lib.report.results import Row

ROOT = pathlib.Path(__file__).parents[1]
NOTES = ROOT.parent / 'shared/papers/visual_unicode.md'
UDHR = ROOT.parent / 'shared/corpora/udhr'
SCALE = f'smoke,tables={"+".join(visual_unicode.TABLES)}'


@pytest.fixture(scope='module')
def config():
  return visual_unicode.get_config(SCALE)


# Homoglyphs.


def test_attacks_replace_letters_that_have_look_alikes(config):
  alike = {'a': 'а', 'o': 'оο'}
  attacked = homoglyphs.attack('a toad, o!' * 50, alike, 1.0, seed=0)
  assert len(attacked) == 500
  assert not {'a', 'o'} & set(attacked)
  assert {'а', 'о', 'ο'} <= set(attacked)
  some = homoglyphs.attack('a' * 4000, alike, 0.25, seed=1)
  assert some.count('а') / 4000 == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 4000))


@pytest.mark.parametrize('kind', ['bytes', 'restricted'])
def test_both_contexts_are_asked_for_the_same_clean_tokens(config, kind):
  tokenizer = text.open_text(config, kind).tokenizer
  clean = 'the other then, and\nthe end'
  attacked = homoglyphs.attack(clean, {'e': 'е', 't': 'т'}, 0.5, seed=2)
  assert attacked != clean
  one, other = homoglyphs.aligned(tokenizer, clean, attacked, 64)
  sought = [row['targets'][row['bytes'] > 0].tolist() for row in (one, other)]
  assert sought[0] == sought[1]
  assert one['bytes'].sum() == other['bytes'].sum() >= 0.5 * len(clean)
  read = tokenizer.encode(attacked.encode())
  assert other['inputs'][1 : len(read)].tolist() == read[:-1].tolist()
  # What stands before each target is the attacked text up to the same character.
  for place in np.flatnonzero(other['bytes']):
    before = tokenizer.decode(read[:place]).decode()
    target = tokenizer.decode([other['targets'][place]]).decode()
    assert clean[len(before) :].startswith(target)
    assert before == attacked[: len(before)]


def test_without_an_attack_all_tokens_count(config):
  tokenizer = text.open_text(config).tokenizer
  clean = 'nothing here was changed'
  one, other = homoglyphs.aligned(tokenizer, clean, clean, 64)
  assert all((one[field] == other[field]).all() for field in one)
  assert one['bytes'].sum() == len(clean)


def test_look_alikes_of_one_picture_cost_frozen_glyphs_nothing(config):
  opened = text.open_text(config)
  rows = models.glyph(opened.glyphs, config.loss.dim)
  a, cyrillic = (int(opened.tokenizer.encode(c.encode())[0]) for c in 'aа')
  assert a != cyrillic
  assert (rows[a] == rows[cyrillic]).all()


# Unseen scripts.


def test_letters_to_be_tested_are_in_no_training_line(config):
  seen, groups = unseen_script.split(config)
  for group, members in groups.items():
    assert members, group
    if 'unseen' in group:
      assert not set(seen) & set(members)
  assert unseen_script.line('Ё') == 'Ё capital letter io\n'.encode()


def test_only_names_are_scored(config):
  seen, _ = unseen_script.split(config)
  tokenizer = tokenizers.Restricted(tokenizers.Unicode(), [ord(letter) for letter in seen])
  batch = unseen_script.names(tokenizer, seen[:5], 80)
  for i, letter in enumerate(seen[:5]):
    scored = batch['targets'][i][batch['bytes'][i] > 0]
    assert letter.encode() + tokenizer.decode(scored) == unseen_script.line(letter)
    assert batch['inputs'][i, 1] == tokenizer.encode(letter.encode())[0]
  drawn = iter(unseen_script.batches(batch, 3, seed=0))
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
  [batch] = text.held_out(opened, config.loss, 'test', 1)
  ids = np.unique(batch['inputs'][batch['segments'] > 0])
  assert (ids[ids < opened.tokenizer.vocab_size] > 0x7F).any()
  assert batch['bytes'].sum() > 0


# Neighbours.


def test_neighbours_are_judged_by_form_and_class():
  written = ['a', 'A', 'b', '1', '2']
  vectors = unit(np.array([[1, 0.1], [1, 0], [0.8, 0.6], [0, 1], [-0.1, 1]]))
  alike = np.full((5, 5), 0.5)
  alike[0, 1] = alike[1, 0] = 1.0
  found = neighbours.judge(vectors, alike, written)
  # a-A, A-a, b-a, 1-2, 2-1
  assert found['case_pair'] == 1
  assert found['same_class'] == pytest.approx(3 / 5)
  assert found['alike'] == pytest.approx((1 + 1 + 3 * 0.5) / 5)
  chance = neighbours._chance(alike, written)
  assert chance['case_pair'] == pytest.approx(1 / 4)
  assert chance['same_class'] == pytest.approx(4 / 20)


def test_hidden_states_are_means_over_occurrences():
  batch = {
    'inputs': np.array([[9, 3, 4, 3]]),
    'segments': np.array([[1, 1, 1, 0]]),
  }
  vectors = np.array([[[9.0, 9], [1, 2], [5, 6], [100, 100]]])
  means = neighbours.hidden(lambda batch, draw: (vectors, None), [batch], np.array([3, 4]))
  np.testing.assert_allclose(means, [[-2, -2], [2, 2]])
  assert neighbours.frequent([batch], 9, 5).tolist() == [3, 4]


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


def test_published_numbers_stand_apart_at_other_scales():
  row = Row('reasoning', 'model=best_bvv_ru,benchmark=mmlu,protocol=sampled_1', 'accuracy', 0.25)
  [beside] = published.attach([row], 'visual_unicode', {'scale': 'paper'})
  assert beside.published == pytest.approx(0.2229)
  [apart] = published.attach([row], 'visual_unicode', {'scale': 'cpu'})
  assert apart.published is None
