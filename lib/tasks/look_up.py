# SPDX-License-Identifier: Apache-2.0
"""Synthetic in-context tasks: LookUp and Permutation (arXiv 2305.16349, section 3.5, appendix F).

    LookUp    A->2        Permutation    A 2 C->C A
              C->4                       4 1 D->D 4
              G->5
              C->4

The last line is the question; its answer is scored. The paper shows the formats and samples
symbols uniformly or by token frequency. It leaves the number and length of the lines open. Here:

  LookUp       8 pairs with distinct keys; values are sampled with replacement, independently of
               the keys; the queried key is uniform over the pairs
  Permutation  4 demonstrations, then the question; a uniform arrangement of 2 out of 3 places for
               each example (possibly the identity); symbols are distinct within a line, so one
               demonstration determines the arrangement, and may recur in other lines

Answers that a model generates are scored by the generated-token accuracy of the same section.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from lib.data.alphabets import fold
from lib.errors import InputError
from lib.stats import Estimate, difference, mean
from lib.tokenizers.base import Tokenizer

FORMAT = b'-> \n'  # bytes of the formats, so never symbols
# (prompts, ids [n] each without BOS; count) -> int32 [N, count], the ids that a model writes next.
Generate = Callable[[Sequence[np.ndarray], int], np.ndarray]


class Example(NamedTuple):
  """A prompt, and the answer that follows it directly."""

  prompt: bytes
  answer: bytes


def folded(example: Example, alphabet: bytes | None) -> Example:
  """The example folded into an alphabet: in letters the arrow becomes two spaces."""
  if alphabet is None or set(FORMAT) <= set(alphabet):
    return example
  return Example(*(fold(part, alphabet) for part in example))


class Symbols:
  """The byte strings that examples are made of.

  Args:
    alphabet: distinct symbols, a bytes object for single bytes; those that contain a byte of
      `FORMAT` are left out.
    weights: [len(alphabet)] relative frequencies, such as counts in a text; uniform by default.
      They are normalised over the symbols that are left, and those of weight 0 are left out too.

  Raises:
    InputError: a repeated or empty symbol, weights that do not fit, or no symbol left.
  """

  def __init__(self, alphabet: bytes | Sequence[bytes], weights: ArrayLike | None = None):
    known = [bytes([s]) if isinstance(s, int) else s for s in alphabet]
    if len(set(known)) < len(known) or not all(known):
      raise InputError(
        f'The alphabet {_shown(known)} repeats a symbol or has an empty one; name each once.'
      )
    frequency = np.ones(len(known)) if weights is None else np.array(weights, np.float64)
    if frequency.shape != (len(known),) or not np.all((frequency >= 0) & (frequency < np.inf)):
      raise InputError(
        f'Weights of symbols must be {len(known)} finite numbers of 0 or more, one for each '
        f'symbol of the alphabet; got {frequency.size} from {frequency.min(initial=np.inf):g}.'
      )
    usable = [i for i, s in enumerate(known) if frequency[i] > 0 and s == s.translate(None, FORMAT)]
    if not usable:
      raise InputError(
        f'No symbol is left of the alphabet {_shown(known)}: give one of positive weight other '
        f'than the bytes of the format, {FORMAT!r}.'
      )
    self.known = [known[i] for i in usable]
    self.weights = frequency[usable] / frequency[usable].sum()

  def __len__(self) -> int:
    return len(self.known)

  def sample(self, rng: np.random.Generator, count: int, distinct: bool = False) -> list[bytes]:
    """`count` random symbols; with `distinct`, without repetition."""
    drawn = rng.choice(len(self.known), count, replace=not distinct, p=self.weights)
    return [self.known[i] for i in drawn]


def symbols_of(tokenizer: Tokenizer, documents: Sequence[bytes] | None = None) -> Symbols:
  """The tokens that are read back as one, all alike or as frequent as in documents."""
  pieces = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
  usable = [i for i, one in enumerate(pieces) if one and tokenizer.encode(one).tolist() == [i]]
  weights = None
  if documents is not None:
    known = tokenizer.encode(b''.join(documents))
    weights = np.bincount(known, minlength=tokenizer.vocab_size)[usable]
  return Symbols([pieces[i] for i in usable], weights)


def _shown(symbols: Sequence[bytes]) -> str:
  return repr(b' '.join(symbols[:40]))


class Task(Protocol):
  """A law of examples."""

  def example(self, rng: np.random.Generator, /) -> Example:
    """One example; all of a task have equally many symbols."""
    ...


@dataclasses.dataclass(frozen=True)
class LookUp:
  """Pairs `key->value`, and a question about one of the keys.

  Attributes:
    symbols: of keys and values.
    pairs: shown before the question.
    questions: number of questions; all but the last are answered in the prompt.

  Raises:
    InputError: no pair or question, or fewer symbols than pairs.
  """

  symbols: Symbols
  pairs: int = 8
  questions: int = 1

  def __post_init__(self):
    if not 1 <= self.pairs <= len(self.symbols) or self.questions < 1:
      raise InputError(
        f'LookUp needs at least 1 pair, a symbol for each key, and at least 1 question: '
        f'got {self.pairs} pairs over {len(self.symbols)} symbols and {self.questions} questions.'
      )

  def example(self, rng: np.random.Generator) -> Example:
    """One example, from keys, values and the place of the queried key."""
    keys = self.symbols.sample(rng, self.pairs, distinct=True)
    values = self.symbols.sample(rng, self.pairs)
    asked = rng.integers(self.pairs, size=self.questions)
    pairs = list(zip(keys, values, strict=True))
    shown = b''.join(b'%b->%b\n' % pair for pair in (*pairs, *(pairs[i] for i in asked[:-1])))
    return Example(shown + b'%b->' % keys[asked[-1]], values[asked[-1]])


@dataclasses.dataclass(frozen=True)
class Permutation:
  """Lines that rearrange their symbols in the same way; the last line's result is the answer.

  Attributes:
    symbols: of all lines.
    demonstrations: lines before the question.
    inputs: symbols before the arrow.
    outputs: symbols after it.

  Raises:
    InputError: no demonstration, more outputs than inputs, or fewer symbols than inputs.
  """

  symbols: Symbols
  demonstrations: int = 4
  inputs: int = 3
  outputs: int = 2

  def __post_init__(self):
    if self.demonstrations < 1 or not 1 <= self.outputs <= self.inputs <= len(self.symbols):
      raise InputError(
        'Permutation needs demonstrations >= 1 and 1 <= outputs <= inputs <= symbols: got '
        f'{self.demonstrations} demonstrations of {self.inputs} inputs and {self.outputs} outputs '
        f'over {len(self.symbols)} symbols.'
      )

  def example(self, rng: np.random.Generator) -> Example:
    """One example, from an arrangement and the symbols of each line."""
    arrangement = rng.permutation(self.inputs)[: self.outputs]
    shown = b''.join(b'%b->%b\n' % self._line(rng, arrangement) for _ in range(self.demonstrations))
    asked, answer = self._line(rng, arrangement)
    return Example(shown + asked + b'->', answer)

  def _line(self, rng: np.random.Generator, arrangement: np.ndarray) -> tuple[bytes, bytes]:
    line = self.symbols.sample(rng, self.inputs, distinct=True)
    spaced = lambda places: b' '.join(line[place] for place in places)
    return spaced(range(self.inputs)), spaced(arrangement)


def examples(task: Task, count: int, seed: int) -> list[Example]:
  """The examples of `ExampleDocuments`."""
  documents = ExampleDocuments(task, count, seed)
  return [documents.example(i) for i in range(count)]


class ExampleDocuments:
  """Random access to `count` independent examples as documents: prompt, answer, newline.

  Example i depends on (seed, i) alone; other seeds give other, independent examples.
  """

  def __init__(self, task: Task, count: int, seed: int):
    if count < 1 or seed < 0:
      raise InputError(f'Examples need count >= 1 and seed >= 0; got count {count}, seed {seed}.')
    self.task, self.count, self.seed = task, count, seed

  def __len__(self) -> int:
    return self.count

  def __getitem__(self, index: int) -> bytes:
    return b'%b%b\n' % self.example(index)

  def example(self, index: int) -> Example:
    """The prompt and the answer of a document."""
    if not 0 <= index < self.count:
      raise IndexError(f'Example {index} of {self.count}.')
    # A spawn key, unlike entropy [seed, index], can never repeat the stream of a plain seed.
    sequence = np.random.SeedSequence(self.seed, spawn_key=(int(index),))
    return self.task.example(np.random.default_rng(sequence))


class Answers(NamedTuple):
  """Scores of a model for each example.

  Attributes:
    symbols: float64 [N] share of the answer's symbols generated right, each in its place.
    answers: float64 [N] 1 if the whole answer is right, format bytes included, else 0.
  """

  symbols: np.ndarray
  answers: np.ndarray


def generated_answers(
  generate: Generate, examples: Sequence[Example], tokenizer: Tokenizer
) -> Answers:
  """The answers that a model generates greedily, compared with the right ones.

  Tokens of format bytes alone, such as the space in `D 4`, are generated and read, but are
  not symbols. Prompt and answer are tokenized separately: if a tokenizer would join them, only
  the separate tokens of the answer are right.

  Args:
    generate: the model.
    examples: prompts and their right answers.
    tokenizer: of prompts and answers.

  Raises:
    InputError: no example, or an answer without symbols.
  """
  if not examples:
    raise InputError('Accuracy needs at least 1 example; got none.')
  answers = [tokenizer.encode(example.answer) for example in examples]
  counted = [_symbols(answer, tokenizer) for answer in answers]
  if not all(where.any() for where in counted):
    raise InputError('Each answer needs a symbol, a token that is not format bytes alone.')
  prompts = [tokenizer.encode(example.prompt) for example in examples]
  generated = generate(prompts, max(map(len, answers)))
  right = [row[: len(answer)] == answer for row, answer in zip(generated, answers, strict=True)]
  shares = [r[where].mean() for r, where in zip(right, counted, strict=True)]
  return Answers(np.array(shares, np.float64), np.array([r.all() for r in right], np.float64))


def right_shares(
  models: Sequence[Generate], examples: Sequence[Example], tokenizer: Tokenizer
) -> np.ndarray:
  """float64 [S, N] shares of N answers' symbols that S models generate right, each in its place."""
  answers = [generated_answers(one, examples, tokenizer) for one in models]
  return np.stack([one.symbols for one in answers])


def guesses(example: Example, commonness: Mapping[bytes, float] | None = None) -> dict[str, float]:
  """Expected share of an answer that is right by guessing, without looking anything up.

  The candidates are the values shown (LookUp, whose answer is one symbol), or the symbols of the
  last line (Permutation).

  Args:
    example: of LookUp or Permutation.
    commonness: how frequent each symbol is in the training text, by default all alike.

  Returns:
    'any_candidate': one of the candidates at random; 'majority': the one that the prompt has most
    often; 'frequency': the one most frequent in the training text. Ties are broken at random.
  """
  *shown, asked = example.prompt.split(b'\n')
  line = asked.removesuffix(b'->').split(b' ')
  if len(line) > 1:
    candidates, wanted = line, example.answer.split(b' ')
  else:
    candidates, wanted = [one.split(b'->')[1] for one in shown], [example.answer]
  known = commonness or {}
  tokens = example.prompt.replace(b'->', b' ').replace(b'\n', b' ').split(b' ')
  weights = {
    'any_candidate': dict.fromkeys(candidates, 0.0),
    'majority': {one: float(tokens.count(one)) for one in candidates},
    'frequency': {one: known.get(one, 0.0) for one in candidates},
  }
  return {way: _best(candidates, weight, wanted) for way, weight in weights.items()}


def _best(candidates: list[bytes], weight: Mapping[bytes, float], wanted: list[bytes]) -> float:
  """Share of the wanted symbols that a random one of the heaviest candidates is."""
  heaviest = [one for one in candidates if weight[one] == max(weight.values())]
  return sum(heaviest.count(one) for one in wanted) / len(heaviest) / len(wanted)


def guessing(
  examples: Sequence[Example], commonness: Mapping[bytes, float] | None = None
) -> dict[str, Estimate]:
  """Accuracy of each way of `guesses` over examples."""
  each = [guesses(example, commonness) for example in examples]
  return {way: mean([one[way] for one in each], 'examples') for way in each[0]}


def above_chance(accuracy: Estimate, chance: Estimate) -> Estimate:
  """(accuracy − chance) / (1 − chance): 0 for guessing or worse, 1 for all right.

  How far a model is below guessing has no meaning, so the score is clipped at 0.
  """
  room = 1 - chance.value
  if room <= 0:
    raise InputError('guessing is always right in these examples; use others.')
  found = difference(accuracy, chance)
  sem = None if found.sem is None else found.sem / room
  return accuracy._replace(value=max(0.0, found.value / room), sem=sem)


def improvement(standard: ArrayLike, other: ArrayLike) -> dict[str, float]:
  """What "x times better on average" can mean for paired scores: five statistics of the ratios.

  The ratios are other / standard, cell by cell; a standard score of 0 makes its ratio infinite
  (or NaN, if the other is 0 too) and with it each statistic that depends on it.

  Raises:
    InputError: scores that are not paired, or negative.
  """
  below, above = np.asarray(standard, np.float64), np.asarray(other, np.float64)
  if below.shape != above.shape or not below.size or min(below.min(), above.min()) < 0:
    raise InputError(
      'An improvement needs equally many scores of 0 or more on both sides; '
      f'got shapes {below.shape} and {above.shape}.'
    )
  with np.errstate(divide='ignore', invalid='ignore'):
    ratios = above / below
    return {
      'mean_ratio': float(ratios.mean()),
      'geometric_mean_ratio': float(np.exp(np.log(ratios).mean())),
      'ratio_of_means': float(above.mean() / below.mean()),
      'median_ratio': float(np.median(ratios)),
      'largest_ratio': float(ratios.max()),
    }


def _symbols(ids: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
  """bool [n] which tokens contain more than format bytes."""
  return np.array([bool(tokenizer.decode([i]).translate(None, FORMAT)) for i in ids], bool)
