# SPDX-License-Identifier: Apache-2.0
"""Synthetic in-context tasks: LookUp and Permutation (arXiv 2305.16349, section 3.5, appendix F).

    LookUp    A->2        Permutation    A 2 C->C A
              C->4                       4 1 D->D 4
              G->5
              C->4

The last line is asked and ends in the answer. The paper shows the formats and samples symbols
uniformly or by token frequency; how many lines, how long and how distinct is left open. Here:

  LookUp       8 pairs with distinct keys; values are drawn with replacement and apart from the
               keys; the key asked for is uniform over the pairs
  Permutation  4 demonstrations, then the question; a uniform arrangement of 2 out of 3 places for
               each example (that may keep their order); symbols are distinct within a line, so
               that one demonstration tells the arrangement, and may recur in other lines
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from lib.errors import InputError

FORMAT = b'-> \n'  # bytes of the formats, hence never symbols


class Example(NamedTuple):
  """What is asked, and the answer, which follows it without a break."""

  prompt: bytes
  answer: bytes


class Symbols:
  """The bytes that examples are made of.

  Args:
    alphabet: distinct bytes; those of `FORMAT` are left out.
    weights: [len(alphabet)] relative frequencies, such as counts in a text; uniform by default.
      They are normalised over the bytes that are left, and bytes of weight 0 are left out too.

  Raises:
    InputError: a repeated byte, weights that do not fit, or no byte left.
  """

  def __init__(self, alphabet: bytes, weights: ArrayLike | None = None):
    if len(set(alphabet)) < len(alphabet):
      raise InputError(f'The alphabet {alphabet!r} repeats a byte; name each symbol once.')
    frequency = np.ones(len(alphabet)) if weights is None else np.array(weights, np.float64)
    if frequency.shape != (len(alphabet),) or not np.all((frequency >= 0) & (frequency < np.inf)):
      raise InputError(
        f'Weights of symbols must be {len(alphabet)} finite numbers of 0 or more, one for each '
        f'byte of the alphabet; got {frequency.size} from {frequency.min(initial=np.inf):g}.'
      )
    known = np.frombuffer(alphabet, np.uint8)
    usable = (frequency > 0) & ~np.isin(known, np.frombuffer(FORMAT, np.uint8))
    if not usable.any():
      raise InputError(
        f'No symbol is left of the alphabet {alphabet!r}: give a byte of positive weight other '
        f'than those of the format, {FORMAT!r}.'
      )
    self.bytes = known[usable]
    self.weights = frequency[usable] / frequency[usable].sum()

  def __len__(self) -> int:
    return len(self.bytes)

  def sample(self, rng: np.random.Generator, count: int, distinct: bool = False) -> bytes:
    """`count` symbols, drawn one after the other; `distinct` leaves out those already drawn."""
    return rng.choice(self.bytes, count, replace=not distinct, p=self.weights).tobytes()


class Task(Protocol):
  """A law of examples."""

  def example(self, rng: np.random.Generator, /) -> Example:
    """One example; all of a task have equally many bytes."""
    ...


@dataclasses.dataclass(frozen=True)
class LookUp:
  """Pairs `key->value`, one of whose keys is asked for.

  Attributes:
    symbols: of keys and values.
    pairs: shown before the question.

  Raises:
    InputError: no pair, or fewer symbols than pairs.
  """

  symbols: Symbols
  pairs: int = 8

  def __post_init__(self):
    if not 1 <= self.pairs <= len(self.symbols):
      raise InputError(
        f'LookUp shows at least 1 pair and needs a symbol for each key: got {self.pairs} pairs '
        f'over {len(self.symbols)} symbols.'
      )

  def example(self, rng: np.random.Generator) -> Example:
    """One example, from keys, values and the place of the key asked for."""
    keys = self.symbols.sample(rng, self.pairs, distinct=True)
    values = self.symbols.sample(rng, self.pairs)
    asked = rng.integers(self.pairs)
    shown = b''.join(b'%c->%c\n' % pair for pair in zip(keys, values))
    return Example(shown + b'%c->' % keys[asked], b'%c' % values[asked])


@dataclasses.dataclass(frozen=True)
class Permutation:
  """Lines that all rearrange their symbols alike, keeping some; the last line's result is asked.

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
    spaced = lambda places: b' '.join(line[place : place + 1] for place in places)
    return spaced(range(self.inputs)), spaced(arrangement)


TASKS: dict[str, Callable[..., Task]] = {'lookup': LookUp, 'permutation': Permutation}


def make_task(kind: str, symbols: Symbols, **sizes: int) -> Task:
  """The task of a name, with the sizes that its class knows; InputError for an unknown one."""
  if kind not in TASKS:
    raise InputError(f'in-context task {kind!r} is not one of {", ".join(TASKS)}.')
  return TASKS[kind](symbols, **sizes)


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
