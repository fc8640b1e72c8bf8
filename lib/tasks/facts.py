# SPDX-License-Identifier: Apache-2.0
"""A synthetic base of facts: sentences that state them, and multiple-choice questions.

Entities with made-up names have one value per attribute, sampled uniformly and independently. There
are three kinds of facts and three splits of questions:

| kind     | in sentences      | in questions      | what a score on it measures                  |
|----------|-------------------|-------------------|----------------------------------------------|
| `asked`  | yes               | yes               | recall under unseen wordings                 |
| `told`   | yes               | no                | use of what was read                         |
| `unseen` | no                | no                | a control: above chance only by a leak       |

| split        | wordings              | options                |
|--------------|-----------------------|------------------------|
| `train`      | `ASKED['train']`      | drawn in each document |
| `validation` | `ASKED['validation']` | drawn once, by a seed  |
| `test`       | `ASKED['test']`       | drawn once, by a seed  |

Wrong options are other values of the same attribute, so all options are equally likely a priori.
Each place is right equally often.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lib.errors import InputError
from lib.tasks.questions import LETTERS, Question, prompt

_WORDS = {
  'colour': 'red blue green black white yellow brown grey pink purple orange silver',
  'town': 'Rome Paris Cairo Lima Oslo Delhi Tokyo Quito Dakar Prague Seoul Vienna',
  'craft': 'baker tailor sailor farmer doctor miner potter weaver hunter singer lawyer pilot',
  'pet': 'cat dog horse parrot rabbit turtle goat snake mouse lizard pony hen',
}
VALUES = {attribute: words.split() for attribute, words in _WORDS.items()}
TOLD = (
  'The {attribute} of {entity} is {value}.',
  '{entity} has the {attribute} {value}.',
  '{value} is the {attribute} of {entity}.',
)
ASKED = {
  'train': (
    'What is the {attribute} of {entity}?',
    'Which {attribute} does {entity} have?',
    '{entity} has which {attribute}?',
    'Name the {attribute} that {entity} has.',
  ),
  'validation': ('Tell me the {attribute} of {entity}.',),
  'test': ('The {attribute} of {entity} is what?', 'Of {entity}, which is the {attribute}?'),
}
KINDS = ('asked', 'told', 'unseen')
SYLLABLES = ('BDFKLMNPRSTV', 'aeiou', 'bdklmnrst', 'aeiou')
NAMES = [''.join(letters) for letters in itertools.product(*SYLLABLES)]


class Fact(NamedTuple):
  """`entity`'s `attribute` is `value`; `kind`: what training shows of it."""

  entity: str
  attribute: str
  value: str
  kind: str


@dataclasses.dataclass(frozen=True)
class FactBase:
  """Facts by seed; equal arguments give an equal base.

  Attributes:
    entities: how many have names.
    attributes: how many of `VALUES` each entity has.
    values: how many values an attribute can have.
    options: of a question.
    told: share of facts in training sentences, but not in training questions.
    unseen: share of facts that training never mentions.
    seed: of names, values and kinds.

  Raises:
    InputError: sizes that cannot be had.
  """

  entities: int = 200
  attributes: int = 4
  values: int = 12
  options: int = 4
  told: float = 0.2
  unseen: float = 0.2
  seed: int = 0

  def __post_init__(self):
    if not 1 <= self.entities <= len(NAMES) or not 1 <= self.attributes <= len(VALUES):
      raise InputError(
        f'a fact base has 1 to {len(NAMES)} entities with 1 to {len(VALUES)} attributes; got '
        f'{self.entities} and {self.attributes}.'
      )
    most = min(map(len, VALUES.values()))
    if not 2 <= self.options <= self.values <= most:
      raise InputError(
        f'a fact base needs 2 <= options <= values <= {most}; got {self.options} options and '
        f'{self.values} values.'
      )
    if min(self.told, self.unseen) < 0 or self.told + self.unseen >= 1:
      raise InputError(
        'told and unseen must be 0 or more and sum to less than 1; got '
        f'{self.told} and {self.unseen}.'
      )

  @functools.cached_property
  def facts(self) -> list[Fact]:
    """All facts, by entity and attribute; the kinds are dealt in a random order."""
    rng = np.random.default_rng([self.seed, 0])
    names = sorted(rng.choice(NAMES, self.entities, replace=False).tolist())
    pairs = list(itertools.product(names, list(VALUES)[: self.attributes]))
    ends = np.round(len(pairs) * np.cumsum([self.unseen, self.told])).astype(int)
    rank = rng.permutation(len(pairs))
    kinds = np.select([rank < ends[0], rank < ends[1]], ['unseen', 'told'], 'asked')
    return [
      Fact(entity, attribute, VALUES[attribute][rng.integers(self.values)], str(kind))
      for (entity, attribute), kind in zip(pairs, kinds)
    ]

  def of_kind(self, kind: str) -> list[Fact]:
    """The facts of one of `KINDS`."""
    if kind not in KINDS:
      raise InputError(f'kind of fact {kind!r} is not one of {", ".join(KINDS)}.')
    return [fact for fact in self.facts if fact.kind == kind]

  def question(self, fact: Fact, wording: str, place: int, rng: np.random.Generator) -> Question:
    """A question about a fact, with the right option at `place` among random wrong ones."""
    others = [v for v in VALUES[fact.attribute][: self.values] if v != fact.value]
    options = rng.choice(others, self.options - 1, replace=False).tolist()
    options.insert(place, fact.value)
    text = wording.format(entity=fact.entity, attribute=fact.attribute)
    return Question(text, tuple(options), place, fact.kind)

  def questions(self, kind: str, split: str) -> list[Question]:
    """Every fact of a kind in every wording of a split, with each place right equally often."""
    if split not in ASKED:
      raise InputError(f'split {split!r} is not one of {", ".join(ASKED)}.')
    asked = list(itertools.product(self.of_kind(kind), ASKED[split]))
    rng = np.random.default_rng([self.seed, 1 + list(ASKED).index(split), KINDS.index(kind)])
    places = rng.permutation(np.arange(len(asked)) % self.options)
    return [
      self.question(fact, wording, int(place), rng)
      for (fact, wording), place in zip(asked, places)
    ]  # fmt: skip


class FactDocuments:
  """Random access to training documents: sentences, and questions with their answers.

  Document i depends on (base, seed, i) alone.

  Args:
    base: of the facts; those of kind `unseen` are in no document.
    count: of documents.
    seed: of this stream of documents.
    questions: share of documents that are questions; the rest are sentences.
    spaced: share of questions with a space before the answer's letter.
    layout: of questions (`lib.tasks.questions.LAYOUTS`).

  Raises:
    InputError: sizes out of range, or no fact for training.
  """

  def __init__(
    self, base: FactBase, count: int, seed: int, questions: float = 0.5, spaced: float = 1.0,
    layout: str = 'inline',
  ):  # fmt: skip
    if count < 1 or seed < 0 or not 0 <= questions <= 1 or not 0 <= spaced <= 1:
      raise InputError(
        'documents of facts need count >= 1, seed >= 0 and shares of questions and of spaces from '
        f'0 to 1; got {count}, {seed}, {questions} and {spaced}.'
      )
    self.base, self.count, self.seed = base, count, seed
    self.share, self.spaced, self.layout = questions, spaced, layout
    self._asked = base.of_kind('asked')
    self._told = self._asked + base.of_kind('told')
    if not self._asked:
      raise InputError('this fact base has no fact for training: give it more entities.')

  def __len__(self) -> int:
    return self.count

  def __getitem__(self, index: int) -> bytes:
    if not 0 <= index < self.count:
      raise IndexError(f'Document {index} of {self.count}.')
    rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(int(index),)))
    if rng.random() < self.share:
      return self._question(rng)
    fact = _one(self._told, rng)
    return (_one(TOLD, rng).format(**fact._asdict()) + '\n').encode()

  def _question(self, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(self.base.options))
    question = self.base.question(_one(self._asked, rng), _one(ASKED['train'], rng), place, rng)
    return answered(question, rng.random() < self.spaced, self.layout)


def answered(question: Question, space: bool = True, layout: str = 'inline') -> bytes:
  """A question in the template with the right letter and a newline after it."""
  return prompt(question, layout) + f'{" " * space}{LETTERS[question.answer]}\n'.encode()


def _one(sequence: Sequence, rng: np.random.Generator):
  return sequence[int(rng.integers(len(sequence)))]
