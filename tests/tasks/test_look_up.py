# SPDX-License-Identifier: Apache-2.0
"""In-context tasks against an independent solver, generation against models that are known."""

import itertools
import math
import re

import numpy as np
import pytest
import scipy.stats

from lib import stats
from lib.errors import InputError
from lib.tasks.look_up import (
  FORMAT,
  Example,
  ExampleDocuments,
  LookUp,
  Permutation,
  Symbols,
  above_chance,
  generated_answers,
  guesses,
  guessing,
)
from lib.tokenizers.characters import Characters

LETTERS = b'ABCDEFGHIJKLMNOP0123456789'
WEIGHTS = tuple(range(1, 27))
CHARACTERS = Characters(bytes(sorted(LETTERS + FORMAT)))
KINDS = {'lookup': LookUp, 'permutation': Permutation}


def documents(kind: str, count: int, weights=None, seed: int = 7) -> ExampleDocuments:
  return ExampleDocuments(KINDS[kind](Symbols(LETTERS, weights)), count, seed)


def lines(prompt: str) -> tuple[list[list[str]], str]:
  *shown, asked = prompt.split('\n')
  assert asked.endswith('->')
  return [line.split('->') for line in shown], asked.removesuffix('->')


def solutions(prompt: str) -> set[str]:
  """Every answer that agrees with all that the prompt shows."""
  shown, asked = lines(prompt)
  if ' ' not in asked:
    return {value for key, value in shown if key == asked}
  arrange = lambda text, places: ' '.join(text.split(' ')[place] for place in places)
  return {
    arrange(asked, places)
    for size in range(1, 4)
    for places in itertools.permutations(range(len(asked.split(' '))), size)
    if all(arrange(before, places) == after for before, after in shown)
  }


def answering(write):
  """The model that writes, after each text, the next byte that `write` (text -> byte) gives."""

  def generate(prompts, count):
    texts = [CHARACTERS.decode(prompt).decode() for prompt in prompts]
    for _ in range(count):
      texts = [text + write(text).decode() for text in texts]
    written = [CHARACTERS.encode(text.encode())[-count:] for text in texts]
    return np.array(written, np.int32)

  return generate


def solve(text: str) -> bytes:
  """The next byte of a right answer; newline for a text that asks nothing."""
  prompt, arrow, written = text.rpartition('->')
  if not arrow:
    return b'\n'
  [answer] = solutions(prompt + arrow)
  return answer[len(written)].encode()


@pytest.mark.parametrize('kind', KINDS)
def test_documents_depend_on_seed_and_index_alone(kind):
  first, again = documents(kind, 40), documents(kind, 900)
  backwards = [again[i] for i in reversed(range(40))][::-1]
  assert [first[i] for i in range(40)] == backwards
  assert len({first[i] for i in range(40)}) == 40
  assert not {first[i] for i in range(40)} & {documents(kind, 40, seed=8)[i] for i in range(40)}
  prompt, answer = first.example(np.int64(3))
  assert first[3] == prompt + answer + b'\n'
  assert len({len(document) for document in backwards}) == 1
  for index in (-1, 40):
    with pytest.raises(IndexError):
      first[index]


@pytest.mark.parametrize('weights', [None, WEIGHTS])
def test_lookup_has_distinct_keys_and_one_answer(weights):
  form = re.compile(r'([A-P0-9]->[A-P0-9]\n){8}[A-P0-9]->')
  examples = documents('lookup', 200, weights)
  asked = []
  for i in range(200):
    prompt, answer = (part.decode() for part in examples.example(i))
    assert form.fullmatch(prompt)
    keys = [key for key, _ in lines(prompt)[0]]
    assert len(set(keys)) == 8
    assert solutions(prompt) == {answer}
    asked.append(keys.index(prompt[-3]))
  assert scipy.stats.chisquare(np.bincount(asked, minlength=8)).pvalue > 1e-3


@pytest.mark.parametrize('weights', [None, WEIGHTS])
def test_permutation_has_distinct_symbols_and_one_answer(weights):
  line = '[A-P0-9] [A-P0-9] [A-P0-9]->'
  form = re.compile(f'({line}[A-P0-9] [A-P0-9]\n){{4}}{line}')
  examples = documents('permutation', 200, weights)
  arrangements = []
  for i in range(200):
    prompt, answer = (part.decode() for part in examples.example(i))
    assert form.fullmatch(prompt)
    shown, asked = lines(prompt)
    for before in [before for before, _ in shown] + [asked]:
      assert len(set(before.split(' '))) == 3
    assert solutions(prompt) == {answer}
    # One demonstration is enough.
    assert solutions('\n'.join(prompt.split('\n')[-2:])) == {answer}
    arrangements.append(tuple(asked.index(symbol) for symbol in answer.split(' ')))
  counts = [arrangements.count(places) for places in itertools.permutations((0, 2, 4), 2)]
  assert sum(counts) == 200
  assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_sizes_are_those_asked_for():
  symbols = Symbols(b'xyz')
  rng = np.random.default_rng(0)
  assert LookUp(symbols, pairs=3).example(rng).prompt.count(b'\n') == 3
  prompt, answer = Permutation(symbols, demonstrations=2, inputs=2, outputs=1).example(rng)
  assert re.fullmatch(rb'(. .->.\n){2}. .->', prompt)
  assert len(answer) == 1
  assert {answer.decode()} == solutions(prompt.decode())


def test_symbols_follow_their_weights_without_the_format_bytes():
  rng = np.random.default_rng(1)
  symbols = Symbols(b'a- b>\nc0', [5, 100, 100, 3, 100, 100, 2, 0])
  assert symbols.known == [b'a', b'b', b'c']
  law = np.array([0.5, 0.3, 0.2])
  np.testing.assert_allclose(symbols.weights, law)
  drawn = symbols.sample(rng, 20000)
  counts = [drawn.count(symbol) for symbol in symbols.known]
  assert scipy.stats.chisquare(counts, law * 20000).pvalue > 1e-3
  # Drawn one after the other: the second has the law of those left.
  pairs = [symbols.sample(rng, 2, distinct=True) for _ in range(6000)]
  orders = list(itertools.permutations(range(3), 2))
  found = [pairs.count([symbols.known[i], symbols.known[j]]) for i, j in orders]
  expected = [6000 * law[i] * law[j] / (1 - law[i]) for i, j in orders]
  assert sum(found) == 6000
  assert scipy.stats.chisquare(found, expected).pvalue > 1e-3


def test_values_follow_the_weights():
  values = [documents('lookup', 4000, WEIGHTS).example(i).answer for i in range(4000)]
  counts = [values.count(bytes([byte])) for byte in LETTERS]
  law = np.array(WEIGHTS) / sum(WEIGHTS)
  assert scipy.stats.chisquare(counts, law * 4000).pvalue > 1e-3
  assert scipy.stats.chisquare(counts).pvalue < 1e-6


@pytest.mark.parametrize(
  'wrong',
  [
    lambda: Symbols(b'AAB'),
    lambda: Symbols(b'AB', [1.0]),
    lambda: Symbols(b'AB', [1.0, -1.0]),
    lambda: Symbols(b'AB', [1.0, math.nan]),
    lambda: Symbols(b'-> \n'),
    lambda: Symbols(b'A-', [0, 1]),
    lambda: LookUp(Symbols(b'ABC-'), pairs=4),
    lambda: LookUp(Symbols(b'ABC'), pairs=0),
    lambda: Permutation(Symbols(b'AB')),
    lambda: Permutation(Symbols(b'ABC'), outputs=4),
    lambda: Permutation(Symbols(b'ABC'), demonstrations=0),
    lambda: ExampleDocuments(LookUp(Symbols(b'ABC'), 2), 0, 0),
  ],
)
def test_what_cannot_be_made_is_refused(wrong):
  with pytest.raises(InputError):
    wrong()


@pytest.mark.parametrize('kind', KINDS)
def test_a_model_that_solves_the_prompt_is_always_right(kind):
  source = documents(kind, 50)
  examples = [source.example(i) for i in range(50)]
  score = generated_answers(answering(solve), examples, CHARACTERS)
  assert score.symbols.tolist() == score.answers.tolist() == [1] * 50


@pytest.mark.parametrize('kind', KINDS)
def test_a_model_that_guesses_is_at_chance(kind):
  rng = np.random.default_rng(3)
  source = documents(kind, 2000)
  examples = [source.example(i) for i in range(2000)]
  guess = lambda prompts, count: rng.integers(0, CHARACTERS.vocab_size, (len(prompts), count))
  score = generated_answers(guess, examples, CHARACTERS)
  chance = 1 / CHARACTERS.vocab_size
  symbols = {'lookup': 1, 'permutation': 2}[kind]
  found = stats.mean(score.symbols)
  assert found.sem == pytest.approx(math.sqrt(chance * (1 - chance) / 2000 / symbols), rel=0.2)
  assert abs(found.value - chance) < 4 * found.sem
  assert score.answers.mean() < 2 * chance


def test_a_wrong_first_symbol_is_fed_back():
  """The second symbol is right exactly if the first, wrong one is read again."""
  source = documents('permutation', 30)

  def stubborn(text: str) -> bytes:
    prompt, arrow, written = text.rpartition('->')
    if not arrow:
      return b'\n'
    [answer] = solutions(prompt + arrow)
    wrong = 'A' if answer[0] != 'A' else 'B'
    return [wrong, ' ', answer[2] if written == f'{wrong} ' else wrong][len(written)].encode()

  examples = [source.example(i) for i in range(30)]
  score = generated_answers(answering(stubborn), examples, CHARACTERS)
  assert set(score.symbols) == {0.5}
  assert set(score.answers) == {0}


def test_format_bytes_are_no_symbols_but_belong_to_the_answer():
  source = documents('permutation', 20)
  examples = [source.example(i) for i in range(20)]

  def spaceless(text: str) -> bytes:
    prompt, arrow, written = text.rpartition('->')
    if len(written) == 1:
      return b'-'
    return solve(prompt + arrow + written.replace('-', ' '))

  score = generated_answers(answering(spaceless), examples, CHARACTERS)
  assert set(score.symbols) == {1}
  assert set(score.answers) == {0}


def test_guesses_are_the_shares_of_the_heaviest_candidates():
  lookup = Example(b'A->2\nC->4\nG->5\nC->4\nA->', b'2')
  assert guesses(lookup) == pytest.approx(
    {'any_candidate': 1 / 4, 'majority': 0, 'frequency': 1 / 4}
  )
  common = {b'2': 0.5, b'4': 0.2, b'5': 0.5}
  assert guesses(lookup, common)['frequency'] == 1 / 2  # 2 and 5 are the most frequent ones
  permutation = Example(b'A 2 C->C A\n4 A D->', b'D 4')
  assert guesses(permutation, {b'D': 1.0}) == pytest.approx(
    {'any_candidate': 1 / 3, 'majority': 0, 'frequency': 1 / 2}
  )


@pytest.mark.parametrize('kind', KINDS)
def test_guessing_is_what_a_guesser_gets_right(kind):
  source, rng = documents(kind, 1000), np.random.default_rng(0)
  examples = [source.example(i) for i in range(1000)]

  def guess(example):
    *shown, asked = example.prompt.decode().split('\n')
    line = asked.removesuffix('->').split(' ')
    candidates = line if len(line) > 1 else [one.split('->')[1] for one in shown]
    wanted = example.answer.decode().split(' ')
    return np.mean([candidates[rng.integers(len(candidates))] == one for one in wanted])

  got = stats.mean([guess(example) for example in examples])
  expected = guessing(examples)['any_candidate'].value
  assert abs(got.value - expected) < 4 * got.sem


def test_guessing_is_taken_out_and_nothing_known_is_not_below_zero():
  chance = stats.Estimate(0.25, 0.01, '1000', 'examples', 999)
  found = above_chance(stats.shares(np.tile(np.arange(100) < 70, (3, 1))), chance)
  assert found.value == pytest.approx(0.45 / 0.75)
  assert (found.n, found.over) == ('3×100', 'seeds×examples')
  assert found.sem > stats.share(np.arange(100) < 70).sem / 0.75
  nothing = [above_chance(stats.shares(np.zeros((3, 100))), chance) for _ in range(2)]
  assert nothing[0].value == 0
  assert nothing[0].sem > 0
  assert stats.difference(*nothing).p_value() == 1  # so no rule decides on it
  with pytest.raises(InputError, match='guessing is always right'):
    above_chance(chance, stats.Estimate(1.0, 0.0))


def test_accuracy_refuses_what_it_cannot_count():
  good, empty = Example(b'A->', b'B'), Example(b'A->', b' ')
  for examples in ([], [good, empty]):
    with pytest.raises(InputError):
      generated_answers(answering(solve), examples, CHARACTERS)
