# SPDX-License-Identifier: Apache-2.0
"""Multiple choice, with separate scores for knowledge and for format.

The protocol of arXiv 2507.04886 samples one token after `Answer:` and reads its first character.
A model that puts a space before its letter then scores 0, and a model without knowledge that writes
a letter scores at chance. So one forward pass per question, of the prompt and a space, yields:

  log-likelihood   the letter likeliest among the options' letters, with or without a space before
                   it: knowledge
  one token        the probability that the first token is read as the right letter: knowledge
                   times format (the paper's score in expectation, without the noise of sampling)
  two tokens       the same where a space may come first
  valid letter     the probability that one of the options' letters is read: format alone

A token is read as the paper reads it: decoded, stripped, in upper case, its first character.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lib import stats
from lib.errors import InputError
from lib.parallel import sharding
from lib.report.results import Rows
from lib.stats import Estimate
from lib.tasks.questions import LETTERS, Question, prompt
from lib.tokenizers.base import Tokenizer

# Numerators [N] and denominators [N] of a score, which is the quotient of their sums.
Ratio = tuple[np.ndarray, np.ndarray]
# Arrays [B, T] as in lib/data/pipeline.py, places [B, 2] -> log-probabilities [B, 2, V] of the
# token that follows the input at each place.
NextLogProbs = Callable[[Mapping[str, Any], Any], jax.Array]
SHORTEST = 16  # tokens of a row; rows are padded to powers of two from here
# protocol of a row -> its quantity in `quantities`
PROTOCOLS = {
  'log_likelihood': 'log_likelihood',
  'sampled_1': 'one_token',
  'sampled_2': 'two_tokens',
}
RUNS = 10  # of sampling, as published


class Letters(NamedTuple):
  """How a tokenizer writes and reads the letters of K options.

  Attributes:
    bare: ids [K] of the letters by themselves.
    spaced: ids [K] of letters after a space.
    joined: bool [K] whether the id includes the space.
    space: id of the space.
    reading: [V] which option a token is read as; K if it is blank, K + 1 if anything else.
  """

  bare: np.ndarray
  spaced: np.ndarray
  joined: np.ndarray
  space: int
  reading: np.ndarray


class Answers(NamedTuple):
  """Probabilities of N questions of up to K options; letters beyond a question's options have none.

  Attributes:
    bare: [N, K] log-probability that the letter itself follows the prompt.
    spaced: [N, K] the same for a space and the letter.
    first: [N, K] probability that the first token is read as each letter.
    second: [N, K] probability that the first token is a space and the second is read so.
    space: [N] probability of the space.
    blank: [N] probability of any other blank token, after which a letter might come too.
    truncated: bool [N] the prompt lost its beginning.
  """

  bare: np.ndarray
  spaced: np.ndarray
  first: np.ndarray
  second: np.ndarray
  space: np.ndarray
  blank: np.ndarray
  truncated: np.ndarray


@functools.lru_cache(maxsize=8)
def letters(tokenizer: Tokenizer, count: int) -> Letters:
  """How `tokenizer` writes and reads the first `count` letters.

  Raises:
    InputError: a letter or the space is not one token, or is a token that is read as something
      else, such as the unknown token.
  """
  bare = [tokenizer.encode(letter.encode()) for letter in LETTERS[:count]]
  spaced = [tokenizer.encode(f' {letter}'.encode()) for letter in LETTERS[:count]]
  space = tokenizer.encode(b' ')
  after = [ids[1:] if ids[0] == space[0] and len(ids) > 1 else ids for ids in spaced]
  refusal = InputError(
    f'this tokenizer does not write the space and each of the letters {LETTERS[:count]} as one '
    'token of its own: choose one that does for multiple choice.'
  )
  if any(len(ids) != 1 for ids in (*bare, *after, space)):
    raise refusal
  alone = (tokenizer.decode([i]).decode(errors='replace') for i in range(tokenizer.vocab_size))
  option = {letter: index for index, letter in enumerate(LETTERS[:count])} | {'': count}
  reading = [option.get(text.strip().upper()[:1], count + 1) for text in alone]
  if [reading[ids[0]] for ids in (*bare, *after, space)] != [*range(count), *range(count), count]:
    raise refusal
  joined = np.array([len(ids) == 1 for ids in spaced])
  return Letters(
    np.concatenate(bare), np.concatenate(after), joined, int(space[0]), np.array(reading)
  )


def ask(
  log_probs: NextLogProbs,
  questions: Sequence[Question],
  tokenizer: Tokenizer,
  mesh: Mesh,
  *,
  length: int = 1024,
  batch_size: int = 32,
  layout: str = 'inline',
  bos: int | None = -1,
) -> Answers:
  """A model's probabilities for each question, from one forward pass.

  Args:
    log_probs: the model. It is called on batches of few shapes, split over the mesh.
    questions: with any numbers of options.
    tokenizer: of prompts and letters.
    mesh: devices.
    length: the most tokens of a row; longer prompts lose their beginning.
    batch_size: questions per batch, over all devices.
    layout: of the template (`lib.tasks.questions.LAYOUTS`).
    bos: the id that begins a row; by default the tokenizer's `vocab_size`; None for none.

  Raises:
    InputError: no question, a length without room for a prompt, or a batch that does not divide
      over the devices.
  """
  if not questions or length < SHORTEST or batch_size < 1:
    raise InputError(
      f'multiple choice needs questions, rows of {SHORTEST} tokens or more and a batch size of 1 '
      f'or more; got {len(questions)} questions, rows of {length}, batch size {batch_size}.'
    )
  known = letters(tokenizer, max(len(question.options) for question in questions))
  prompts = [tokenizer.encode(prompt(question, layout)) for question in questions]
  begin = [] if bos is None else [tokenizer.vocab_size if bos < 0 else bos]
  rows = [np.array([*begin, *ids, known.space]) for ids in prompts]
  order = np.argsort([len(row) for row in rows], kind='stable')
  parts = []
  for start in range(0, len(rows), batch_size):
    some = [rows[i][-length:] for i in order[start : start + batch_size]]
    batch = _batch(some, batch_size, min(length, _power(len(some[-1]))))
    here = sharding.global_batch(batch, mesh)
    places = here.pop('places')
    parts.append(jax.tree.map(np.asarray, _reader(mesh)(known, log_probs(here, places))))
  back = np.argsort(order)
  said = [np.concatenate(field)[: len(rows)][back] for field in zip(*parts)]
  possible = [np.arange(len(known.bare)) < len(question.options) for question in questions]
  return _answers(said, np.array(possible), np.array([len(row) > length for row in rows]))


def _power(size: int) -> int:
  return max(SHORTEST, 1 << (size - 1).bit_length())


def _batch(rows: Sequence[np.ndarray], size: int, length: int) -> dict[str, np.ndarray]:
  """Rows of begin, prompt and space [size, length], and where the prompt and the space end."""
  inputs, places = np.zeros((size, length), np.int32), np.zeros((size, 2), np.int32)
  segments = np.zeros((size, length), np.int32)
  for index, row in enumerate(rows):
    inputs[index, : len(row)], segments[index, : len(row)] = row, 1
    places[index] = len(row) - 2, len(row) - 1
  positions = np.tile(np.arange(length, dtype=np.int32), (size, 1))
  return {
    'inputs': inputs, 'targets': np.zeros_like(inputs), 'segments': segments,
    'positions': positions * segments, 'bytes': segments, 'places': places,
  }  # fmt: skip


@functools.cache
def _reader(mesh: Mesh) -> Callable:
  """`_read`, compiled once; every process gets all rows."""
  return jax.jit(_read, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _read(known: Letters, log_probs: jax.Array) -> tuple[jax.Array, ...]:
  """bare [B, K], spaced [B, K], space [B], readings of both tokens [B, 2, K + 2]."""
  count = len(known.bare)
  classes = jax.nn.one_hot(known.reading, count + 2, dtype=jnp.float32)
  readings = jnp.exp(log_probs.astype(jnp.float32)) @ classes
  space = log_probs[:, 0, known.space]
  one, two = log_probs[:, 0, known.spaced], log_probs[:, 1, known.spaced]
  spaced = jnp.where(known.joined[None], one, two + space[:, None])
  return log_probs[:, 0, known.bare], spaced, space, readings


def _answers(said: Sequence[np.ndarray], possible: np.ndarray, truncated: np.ndarray) -> Answers:
  bare, spaced, space, readings = (np.asarray(field, np.float64) for field in said)
  count, space = bare.shape[1], np.exp(space)
  return Answers(
    bare=np.where(possible, bare, -np.inf),
    spaced=np.where(possible, spaced, -np.inf),
    first=readings[:, 0, :count] * possible,
    second=space[:, None] * readings[:, 1, :count] * possible,
    space=space,
    blank=np.maximum(readings[:, 0, count] - space, 0),
    truncated=truncated,
  )


def quantities(answers: Answers, questions: Sequence[Question]) -> dict[str, Ratio]:
  """Every score as a ratio of sums over questions.

  | name                               | meaning                                                 |
  |------------------------------------|---------------------------------------------------------|
  | `accuracy_log_likelihood`          | the likeliest letter, bare or spaced; ties share credit |
  | `…_bare`, `…_spaced`               | the same for one way of writing it                      |
  | `accuracy_one_token`, `…two_tokens`| probability of reading the right letter                 |
  | `…_given_letter`                   | its share in that of any option's letter                |
  | `p_valid_letter`, `…_two_tokens`   | probability of reading any option's letter              |
  | `p_space`, `p_other_blank`         | probability that the first token is a space, or blank   |
  | `balanced_accuracy`                | of log-likelihood, each place of the right option equal |
  | `chosen_A` …                       | how often log-likelihood chooses each place             |
  | `best_constant`                    | accuracy of always naming the commonest right place     |
  | `chance`                           | 1 / options                                             |
  | `truncated`                        | share of prompts that lost their beginning              |
  """
  right = np.array([question.answer for question in questions])
  options = np.array([len(question.options) for question in questions])
  ones, rows = np.ones(len(right)), np.arange(len(right))
  both = _choice(np.logaddexp(answers.bare, answers.spaced))
  one, two = answers.first, answers.first + answers.second
  counts = np.bincount(right, minlength=one.shape[1])
  evened = len(right) / (counts[right] * np.count_nonzero(counts))
  hits = {
    'accuracy_log_likelihood': both,
    'accuracy_log_likelihood_bare': _choice(answers.bare),
    'accuracy_log_likelihood_spaced': _choice(answers.spaced),
    'accuracy_one_token': one,
    'accuracy_two_tokens': two,
  }
  found: dict[str, Ratio] = {name: (share[rows, right], ones) for name, share in hits.items()}
  return found | {
    'balanced_accuracy': (both[rows, right] * evened, ones),
    'accuracy_one_token_given_letter': (one[rows, right], one.sum(axis=1)),
    'accuracy_two_tokens_given_letter': (two[rows, right], two.sum(axis=1)),
    'p_valid_letter': (one.sum(axis=1), ones),
    'p_valid_letter_two_tokens': (two.sum(axis=1), ones),
    'p_space': (answers.space, ones),
    'p_other_blank': (answers.blank, ones),
    'chance': (1 / options, ones),
    'best_constant': ((right == counts.argmax()).astype(float), ones),
    **{f'chosen_{LETTERS[k]}': (both[:, k], ones) for k in range(one.shape[1])},
    'truncated': (answers.truncated.astype(float), ones),
  }


def value(ratio: Ratio) -> float:
  """The quotient of the sums; NaN if the denominator is 0, for example if no letter is ever
  read.
  """
  above, below = ratio[0].sum(), ratio[1].sum()
  return float(above / below) if below > 0 else np.nan


def above_chance(accuracy: Estimate, chance: float) -> Estimate:
  """Accuracy corrected for guessing: 0 at chance, 1 if all is right, negative below chance.

  If a model knows a share k of the answers and guesses the rest, its accuracy is k + (1 − k)
  chance, and this is k.
  """
  return accuracy._replace(value=accuracy.value - chance).times(1 / (1 - chance))


def _choice(scores: np.ndarray) -> np.ndarray:
  """[N, K] one for the best option, shared among ties."""
  best = scores == scores.max(axis=1, keepdims=True)
  return best / best.sum(axis=1, keepdims=True)


def sampled(
  answers: Answers, questions: Sequence[Question], runs: int = 10, seed: int = 0
) -> np.ndarray:
  """Accuracies [2, runs] of one and of two sampled tokens, with each question sampled again in each
  run.

  Sampled from the distribution over letters, which is equivalent to sampling tokens at temperature
  1 (the paper's temperature is not known). Published scores are means of 10 runs.
  """
  right = np.array([question.answer for question in questions])
  rng = np.random.default_rng(seed)
  rows = np.arange(len(right))
  probabilities = (answers.first, answers.first + answers.second)
  hit = [p[rows, right] for p in probabilities]
  uniform = rng.random((2, runs, len(right)))
  return np.array([(draw < p).mean(axis=1) for draw, p in zip(uniform, hit)])


@dataclasses.dataclass(frozen=True)
class Case:
  """Questions that several models answered: the same, or different ones for each model.

  Attributes:
    questions: of each model.
    answers: of each model.
    groups: of each model's questions, the groups within which they are dependent; None if all are
      independent.
    alike: all models answer the same questions.
    unknown: the training text does not contain the answers.
  """

  questions: Sequence[Sequence[Question]]
  answers: Sequence[Answers]
  groups: Sequence[Sequence[Any]] | None = None
  alike: bool = False
  unknown: bool = False

  @functools.cached_property
  def _quantities(self) -> list[Mapping[str, Ratio]]:
    """Every score of each model."""
    return [quantities(one, asked) for one, asked in zip(self.answers, self.questions)]

  def _sums(self, key: str, join: Any = np.stack) -> tuple[np.ndarray, np.ndarray]:
    """What is summed above and below the line, of all models."""
    above, below = (join([one[key][part] for one in self._quantities]) for part in (0, 1))
    return above, below

  def values(self, key: str) -> np.ndarray:
    """A score of each model, [S]."""
    return np.array([value(one[key]) for one in self._quantities])

  def _mean(self, key: str) -> float:
    return float(self.values(key).mean())

  def _estimate(self, key: str) -> Estimate:
    """A score, over seeds with different questions or over seeds × the same questions."""
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
      known = above_chance(accuracy, chance)
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
    """How evenly places are chosen, and how far from chance the answers are."""
    note = 'of the letter alone, or of a space and the letter'
    for form in ('bare', 'spaced'):
      put(f'accuracy_{form}', self._mean(f'accuracy_log_likelihood_{form}'), note=note)
    balanced, constant = self._mean('balanced_accuracy'), self._mean('best_constant')
    put('balanced_accuracy', balanced, note='each place of the right option has equal weight')
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
        note = 'check: no fact here is in the training text; beyond ±4 there is a leak'
      put('z_from_chance', (accuracy.value - chance) / accuracy.sem, note=note)

  def _add_sampling(self, put: functools.partial, protocol: str) -> None:
    """The factors of a sampled score, the sampled score, and its share of the knowledge."""
    index, quantity = int(protocol == 'sampled_2'), f'accuracy_{PROTOCOLS[protocol]}'
    put('accuracy_given_letter', self._estimate(f'{quantity}_given_letter'))
    put('p_valid_letter', self._estimate('p_valid_letter' + '_two_tokens' * index))
    put('p_space', self._estimate('p_space'), note='of the first token')
    blank = self._estimate('p_other_blank')
    put('p_other_blank', blank, note='a letter after it would count as published')
    drawn = [
      sampled(one, asked, RUNS, seed)[index]
      for seed, (one, asked) in enumerate(zip(self.answers, self.questions))
    ]
    mean, deviation = np.mean(drawn, axis=1), np.mean(drawn, axis=0).std(ddof=1)
    put('accuracy_drawn', stats.mean(mean, 'seeds'), note=f'{RUNS} runs of sampling')
    put('accuracy_drawn_deviation', deviation, note=f'standard deviation of the {RUNS} runs')
    known = self.values('accuracy_log_likelihood')
    if not self.alike and np.all(known > 0):
      share = stats.mean(self.values(quantity) / known)
      put('share_of_log_likelihood', share, note='of the accuracy by log-likelihood')
