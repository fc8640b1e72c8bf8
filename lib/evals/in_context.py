# SPDX-License-Identifier: Apache-2.0
"""In-context tasks: answers that a model generates, and how much one model gains on another.

The metric is the generated-token accuracy of arXiv 2305.16349, section 3.5 and appendix F.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import gmean

from lib.data.in_context import FORMAT, Example
from lib.errors import InputError
from lib.stats import Estimate, difference, mean
from lib.tokenizers.base import Tokenizer

# (prompts, ids [n] each without BOS; count) -> int32 [N, count], the ids that a model writes next.
Generate = Callable[[Sequence[np.ndarray], int], np.ndarray]


class Answers(NamedTuple):
  """What a model got right of each example.

  Attributes:
    symbols: float64 [N] share of the answer's symbols generated right, each in its place.
    answers: float64 [N] 1 where the answer is right from end to end, format bytes and all, else 0.
  """

  symbols: np.ndarray
  answers: np.ndarray


def generated_answers(
  generate: Generate, examples: Sequence[Example], tokenizer: Tokenizer
) -> Answers:
  """The answers that a model generates greedily, compared with the right ones.

  Tokens of format bytes alone, such as the space in `D 4`, are generated and read, but are no
  symbols. Prompt and answer are tokenized apart: where a tokenizer would join them, the answer is
  right only in the tokens that it has by itself.

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


def guesses(example: Example, commonness: Mapping[bytes, float] | None = None) -> dict[str, float]:
  """Expected share of an answer that is right by guessing, without looking anything up.

  The candidates are the values shown for LookUp (one symbol is asked), and the symbols of the last
  line for Permutation.

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

  A model that does worse than guessing has not learned to answer; how far below it is says nothing.
  """
  room = 1 - chance.value
  if room <= 0:
    raise InputError('guessing is always right: these examples ask nothing.')
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
      'geometric_mean_ratio': float(gmean(ratios, axis=None)),
      'ratio_of_means': float(above.mean() / below.mean()),
      'median_ratio': float(np.median(ratios)),
      'largest_ratio': float(ratios.max()),
    }


def _symbols(ids: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
  """bool [n] which tokens hold more than format bytes."""
  return np.array([bool(tokenizer.decode([i]).translate(None, FORMAT)) for i in ids], bool)
