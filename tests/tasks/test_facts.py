# SPDX-License-Identifier: Apache-2.0
"""The base of facts: the same by seed, no split in another, nothing to guess by."""

import collections
import itertools

import numpy as np
import pytest

from lib.errors import InputError
from lib.tasks import facts
from lib.tasks.questions import LETTERS, prompt

BASE = facts.FactBase(entities=30, attributes=3, values=6)
DOCUMENTS = facts.FactDocuments(BASE, 3000, 0)


@pytest.fixture(scope='module')
def texts():
  return [DOCUMENTS[i].decode() for i in range(len(DOCUMENTS))]


def test_equal_arguments_give_equal_facts_and_documents():
  again = facts.FactBase(entities=30, attributes=3, values=6)
  assert again.facts == BASE.facts
  assert again.questions('told', 'test') == BASE.questions('told', 'test')
  assert facts.FactDocuments(again, 5, 0)[4] == DOCUMENTS[4]
  assert facts.FactDocuments(again, 5, 1)[4] != DOCUMENTS[4]
  assert facts.FactBase(entities=30, attributes=3, values=6, seed=1).facts != BASE.facts


def test_each_fact_is_of_one_kind_and_the_shares_are_those_asked_for():
  pairs = [(fact.entity, fact.attribute) for fact in BASE.facts]
  assert len(pairs) == len(set(pairs)) == 90
  counts = collections.Counter(fact.kind for fact in BASE.facts)
  assert counts == {'asked': 54, 'told': 18, 'unseen': 18}
  dealt = [fact for kind in facts.KINDS for fact in BASE.of_kind(kind)]
  assert sorted(dealt) == sorted(BASE.facts)


def test_training_shows_of_each_fact_what_its_kind_says(texts):
  for fact in BASE.facts:
    told = {wording.format(**fact._asdict()) + '\n' for wording in facts.TOLD}
    asked = {w.format(**fact._asdict()) for w in facts.ASKED['train']}
    here = [text for text in texts if fact.entity in text and fact.attribute in text]
    questions = [text for text in here if text.startswith('Question')]
    assert (set(here) & told != set()) == (fact.kind != 'unseen')
    assert bool(questions) == (fact.kind == 'asked')
    assert all(any(w in text for w in asked) for text in questions)


def test_no_wording_of_one_split_is_in_another(texts):
  held_out = [
    wording.format(entity=fact.entity, attribute=fact.attribute)
    for fact in BASE.facts
    for split in ('validation', 'test')
    for wording in facts.ASKED[split]
  ]
  everything = ''.join(texts)
  assert not [wording for wording in held_out if wording in everything]
  prompts = {
    split: {prompt(q) for kind in facts.KINDS for q in BASE.questions(kind, split)}
    for split in ('validation', 'test')
  }
  assert prompts['validation'].isdisjoint(prompts['test'])
  assert not any(p.decode() in everything for p in set().union(*prompts.values()))


@pytest.mark.parametrize(
  ('kind', 'split'), list(itertools.product(facts.KINDS, ('validation', 'test')))
)
def test_questions_have_one_right_option_in_every_place_alike(kind, split):
  known = {(fact.entity, fact.attribute): fact.value for fact in BASE.facts}
  places = collections.Counter()
  questions = BASE.questions(kind, split)
  assert len(questions) == len(BASE.of_kind(kind)) * len(facts.ASKED[split])
  for question in questions:
    [value] = [v for (e, a), v in known.items() if e in question.text and a in question.text]
    assert question.options[question.answer] == value
    assert len(set(question.options)) == 4
    assert question.subject == kind
    places[question.answer] += 1
  assert max(places.values()) - min(places[k] for k in range(4)) <= 1


def test_nothing_but_knowledge_tells_the_right_option():
  # Over many bases, the commonest value and the commonest option are right as often as by chance.
  hits, count = 0.0, 0
  for seed in range(40):
    base = facts.FactBase(entities=30, attributes=2, values=6, seed=seed)
    seen = collections.Counter(f.value for f in base.facts if f.kind != 'unseen')
    for question in base.questions('unseen', 'test'):
      votes = np.array([seen[option] for option in question.options])
      best = votes == votes.max()
      hits, count = hits + best[question.answer] / best.sum(), count + 1
  error = np.sqrt(0.25 * 0.75 / count * 2)  # two wordings of a fact are not independent
  assert abs(hits / count - 0.25) < 4 * error


def test_answers_stand_after_the_prompt_with_or_without_a_space(texts):
  spaced = [text for text in texts if text.startswith('Question')]
  assert 0.45 < len(spaced) / len(texts) < 0.55
  assert all(text[-4:-2] == ': ' and text[-2] in LETTERS[:4] for text in spaced)
  bare = facts.FactDocuments(BASE, 50, 0, questions=1.0, spaced=0, layout='lines')
  assert all(bare[i][-3:-2] == b':' and bare[i].count(b'\n') == 6 for i in range(50))
  either = facts.FactDocuments(BASE, 300, 0, questions=1.0, spaced=0.5)
  assert 0.4 < sum(either[i][-3:-2] == b' ' for i in range(300)) / 300 < 0.6
  told = facts.FactDocuments(BASE, 50, 0, questions=0.0)
  assert not any(b'Question' in told[i] for i in range(50))
  with pytest.raises(IndexError):
    told[50]


@pytest.mark.parametrize(
  ('build', 'message'),
  [
    (lambda: facts.FactBase(entities=0), '1 to 2700 entities'),
    (lambda: facts.FactBase(attributes=5), 'with 1 to 4 attributes'),
    (lambda: facts.FactBase(options=5, values=4), '2 <= options <= values <= 12'),
    (lambda: facts.FactBase(told=0.6, unseen=0.4), 'sum to less than 1'),
    (lambda: BASE.of_kind('known'), "'known' is not one of asked, told, unseen"),
    (lambda: BASE.questions('told', 'dev'), "'dev' is not one of train, validation, test"),
    (lambda: BASE.questions('known', 'test'), "'known' is not one of asked, told, unseen"),
    (lambda: facts.FactDocuments(BASE, 0, 0), 'count >= 1'),
    (lambda: facts.FactDocuments(facts.FactBase(1, 1, told=0.7), 9, 0), 'no fact for training'),
  ],
)
def test_bad_sizes_get_one_sentence(build, message):
  with pytest.raises(InputError, match=message):
    build()
