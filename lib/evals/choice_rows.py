# SPDX-License-Identifier: Apache-2.0
"""Rows of multiple choice: what several models answered, by every protocol, with errors."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lib import stats
from lib.data.questions import Question
from lib.evals import multiple_choice as choice
from lib.report.results import Rows
from lib.stats import Estimate

# protocol of a row -> its quantity in `lib.evals.multiple_choice.quantities`
PROTOCOLS = {
  'log_likelihood': 'log_likelihood',
  'sampled_1': 'one_token',
  'sampled_2': 'two_tokens',
}
RUNS = 10  # of sampling, as published


@dataclasses.dataclass(frozen=True)
class Case:
  """Questions that several models answered, each model all or its own.

  Attributes:
    questions: of each model.
    answers: of each model.
    groups: of each model's questions, those that are not independent; None if all are.
    alike: all models answer the same questions.
    unknown: nothing that the models were trained on says the answers.
  """

  questions: Sequence[Sequence[Question]]
  answers: Sequence[choice.Answers]
  groups: Sequence[Sequence[Any]] | None = None
  alike: bool = False
  unknown: bool = False

  @functools.cached_property
  def _quantities(self) -> list[Mapping[str, choice.Ratio]]:
    """Every score of each model."""
    return [choice.quantities(one, asked) for one, asked in zip(self.answers, self.questions)]

  def _sums(self, key: str, join: Any = np.stack) -> tuple[np.ndarray, np.ndarray]:
    """What is summed above and below the line, of all models."""
    above, below = (join([one[key][part] for one in self._quantities]) for part in (0, 1))
    return above, below

  def values(self, key: str) -> np.ndarray:
    """A score of each model, [S]."""
    return np.array([choice.value(one[key]) for one in self._quantities])

  def _mean(self, key: str) -> float:
    return float(self.values(key).mean())

  def _estimate(self, key: str) -> Estimate:
    """A score, over seeds with questions of their own or over seeds × questions that all answer."""
    if self.alike:
      above, below = self._sums(key)
      if np.all(below.sum(axis=1) > 0):
        return stats.crossed(stats.contributions(above, below), 'seeds×questions')
    return stats.mean(self.values(key), 'seeds')

  def add(self, rows: Rows, where: Mapping[str, str]) -> None:
    """Adds the rows of all protocols: means over models."""
    chance = self._mean('chance')
    subjects = [question.subject for question in self.questions[0]]
    for protocol, quantity in PROTOCOLS.items():
      put = functools.partial(rows.add, dict(where) | {'protocol': protocol}, unit='ratio')
      accuracy = self._estimate(f'accuracy_{quantity}')
      put('accuracy', accuracy, note='' if self.alike else 'the seeds have different facts')
      known = choice.above_chance(accuracy, chance)
      put('accuracy_above_chance', known, note='guessing taken out')
      put('chance', chance)
      if self.alike and len(set(subjects)) > 1:  # those of MMLU
        sums = self._sums(f'accuracy_{quantity}')
        above, below = (stats.by_group(one, subjects) for one in sums)
        macro = stats.mean((above / below).mean(axis=1), 'seeds')
        put('accuracy_macro', macro, note=f'mean over {len(set(subjects))} subjects')
      if protocol == 'log_likelihood':
        self._add_likelihood(put, accuracy, chance)
      else:
        self._add_sampling(put, protocol)

  def _add_likelihood(self, put: functools.partial, accuracy: Estimate, chance: float) -> None:
    """Whether places are chosen alike, and how far from chance the answers are."""
    note = 'of the letter alone, or of a space and the letter'
    for form in ('bare', 'spaced'):
      put(f'accuracy_{form}', self._mean(f'accuracy_log_likelihood_{form}'), note=note)
    balanced, constant = self._mean('balanced_accuracy'), self._mean('best_constant')
    put('balanced_accuracy', balanced, note='each place of the right option alike')
    put('best_constant', constant, note='always naming the commonest right place')
    chosen = [self._mean(key) for key in self._quantities[0] if key.startswith('chosen_')]
    put('most_chosen', max(chosen), note='share of the place that is chosen most')
    put('truncated', self._mean('truncated'))
    if self.groups is not None:
      sums = self._sums('accuracy_log_likelihood', np.concatenate)
      labels = [str(group) for some in self.groups for group in some]
      accuracy = stats.ratio(*sums, labels, 'facts')
    if accuracy.sem:
      note = 'standard errors above chance'
      if self.unknown:
        note = 'check: no fact here was ever shown, so beyond ±4 something leaks'
      put('z_from_chance', (accuracy.value - chance) / accuracy.sem, note=note)

  def _add_sampling(self, put: functools.partial, protocol: str) -> None:
    """The factors of a sampled score, the score as drawn, and its share of what is known."""
    index, quantity = int(protocol == 'sampled_2'), f'accuracy_{PROTOCOLS[protocol]}'
    put('accuracy_given_letter', self._estimate(f'{quantity}_given_letter'))
    put('p_valid_letter', self._estimate('p_valid_letter' + '_two_tokens' * index))
    put('p_space', self._estimate('p_space'), note='of the first token')
    blank = self._estimate('p_other_blank')
    put('p_other_blank', blank, note='a letter after it would count as published')
    drawn = [
      choice.sampled(one, asked, RUNS, seed)[index]
      for seed, (one, asked) in enumerate(zip(self.answers, self.questions))
    ]
    mean, deviation = np.mean(drawn, axis=1), np.mean(drawn, axis=0).std(ddof=1)
    put('accuracy_drawn', stats.mean(mean, 'seeds'), note=f'{RUNS} runs of sampling')
    put('accuracy_drawn_deviation', deviation, note=f'standard deviation of the {RUNS} runs')
    known = self.values('accuracy_log_likelihood')
    if not self.alike and np.all(known > 0):
      share = stats.mean(self.values(quantity) / known)
      put('share_of_log_likelihood', share, note='of the accuracy by log-likelihood')
