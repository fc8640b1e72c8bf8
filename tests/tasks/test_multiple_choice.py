# SPDX-License-Identifier: Apache-2.0
"""Scores of multiple choice: format and knowledge come apart, nothing hides, nothing flatters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from lib import stats
from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.models.decoder import Decoder, LanguageModel
from lib.parallel import sharding
from lib.parameters import describe_model
from lib.tasks import multiple_choice
from lib.tasks.multiple_choice import quantities
from lib.tasks.questions import Question, prompt
from lib.tokenizers.bpe import train_bpe_unsplit
from lib.tokenizers.characters import Characters
from lib.tokenizers.foreign import Foreign

BYTES = Characters(bytes(range(256)))
QUESTIONS = [Question(f'Is it {i}?', ('one', 'two', 'three', 'four'), i * 7 % 4) for i in range(32)]
MESH = sharding.make_mesh({'data': 1}, jax.devices()[:1])


def speaker(speak, tokenizer=BYTES):
  """A model that says what `speak(the bytes read so far)` says: {token's bytes: probability}."""

  def log_probs(batch, places):
    inputs, places = np.asarray(batch['inputs']), np.asarray(places)
    out = np.full((*places.shape, tokenizer.vocab_size), 1e-9)
    for row, col in np.ndindex(*places.shape):
      read = tokenizer.decode(inputs[row, 1 : places[row, col] + 1])
      for piece, probability in speak(read).items():
        [token] = tokenizer.encode(piece)
        out[row, col, token] += probability
    return jnp.log(out / out.sum(axis=-1, keepdims=True))

  return log_probs


def right(read):
  """The right letter of the question that was read."""
  return next(
    b'%c' % (65 + q.answer) for q in QUESTIONS if read.startswith(prompt(q)) or prompt(q) == read
  )


def scores(speak, questions=QUESTIONS, **options):
  answers = multiple_choice.ask(speaker(speak), questions, BYTES, MESH, **options)
  found = quantities(answers, questions)
  return {name: multiple_choice.value(ratio) for name, ratio in found.items()}, answers


def test_a_space_before_the_letter_costs_one_token_all_and_two_nothing():
  knows = lambda read: {right(read): 1.0} if read.endswith(b' ') else {b' ': 1.0}
  found, _ = scores(knows)
  assert found['accuracy_one_token'] == pytest.approx(0, abs=1e-6)
  assert found['p_valid_letter'] == pytest.approx(0, abs=1e-6)
  for name in ('accuracy_two_tokens', 'accuracy_log_likelihood', 'p_space',
               'accuracy_log_likelihood_spaced', 'p_valid_letter_two_tokens'):  # fmt: skip
    assert found[name] == pytest.approx(1, abs=1e-4), name


def test_one_who_knows_nothing_but_the_format_is_at_chance():
  found, _ = scores(lambda read: dict.fromkeys((b'A', b'B', b'C', b'D'), 0.25))
  for name in ('accuracy_one_token', 'accuracy_log_likelihood', 'balanced_accuracy',
               'accuracy_one_token_given_letter', 'chance', 'chosen_A'):  # fmt: skip
    assert found[name] == pytest.approx(0.25, abs=1e-6), name
  assert found['p_valid_letter'] == pytest.approx(1, abs=1e-4)


def test_one_who_knows_but_writes_something_else_is_found_out_by_log_likelihood():
  found, _ = scores(lambda read: {b'x': 0.98, right(read): 0.02})
  assert found['accuracy_one_token'] == pytest.approx(0.02, abs=1e-4)
  assert found['accuracy_one_token_given_letter'] == pytest.approx(1, abs=1e-4)
  assert found['accuracy_log_likelihood'] == 1


def test_the_published_pattern_is_chance_times_the_probability_of_a_letter():
  letters = dict.fromkeys((b'A', b'B', b'C', b'D'), 0.45 / 4)
  found, _ = scores(lambda read: letters | {b' ': 0.55})
  product = found['chance'] * found['p_valid_letter']
  assert found['accuracy_one_token'] == pytest.approx(product, abs=1e-6)
  assert found['accuracy_one_token'] == pytest.approx(0.1125, abs=1e-4)


def test_lower_case_letters_count_and_other_blanks_are_shown():
  found, answers = scores(lambda read: {right(read).lower(): 0.5, b'\n': 0.3, b'\t': 0.2})
  assert found['accuracy_one_token'] == pytest.approx(0.5, abs=1e-4)
  assert found['p_other_blank'] == pytest.approx(0.5, abs=1e-4)
  assert found['p_space'] == pytest.approx(0, abs=1e-4)
  assert not answers.truncated.any()


def test_always_the_same_letter_gets_its_share_and_a_balanced_score_of_chance():
  questions = [q._replace(answer=min(i % 8, 3)) for i, q in enumerate(QUESTIONS)]
  answers = multiple_choice.ask(speaker(lambda read: {b'D': 1.0}), questions, BYTES, MESH)
  found = {k: multiple_choice.value(v) for k, v in quantities(answers, questions).items()}
  assert found['accuracy_log_likelihood'] == found['best_constant'] == 5 / 8
  assert found['balanced_accuracy'] == pytest.approx(0.25)
  assert found['chosen_D'] == 1


def test_questions_may_have_different_numbers_of_options():
  questions = [q._replace(options=('x', 'y'), answer=i % 2) if i % 2 else q
               for i, q in enumerate(QUESTIONS)]  # fmt: skip
  letters = dict.fromkeys((b'A', b'B', b'C', b'D'), 0.25)
  answers = multiple_choice.ask(speaker(lambda read: letters), questions, BYTES, MESH)
  found = {k: multiple_choice.value(v) for k, v in quantities(answers, questions).items()}
  assert found['chance'] == found['accuracy_log_likelihood'] == pytest.approx(0.375)
  assert found['p_valid_letter'] == pytest.approx(0.75, abs=1e-4)  # C and D answer no such question


def test_the_expectation_is_that_of_generating_tokens_and_reading_them():
  rng = np.random.default_rng(0)
  pieces = [b'A', b'B', b'C', b'D', b' ', b'b', b'x', b'?']
  table = {state: rng.dirichlet(np.ones(len(pieces))) for state in (b':', b' ')}
  found, answers = scores(lambda read: dict(zip(pieces, table[read[-1:]])))
  hits = np.zeros((2, 400))
  for run in range(hits.shape[1]):
    for question in QUESTIONS:
      letter = 'ABCD'[question.answer]
      said = [pieces[rng.choice(8, p=table[b':'])]]
      said.append(pieces[rng.choice(8, p=table[b' '])] if said == [b' '] else b'x')
      for tokens in (1, 2):
        text = b''.join(said[:tokens]).decode().strip().upper()
        hits[tokens - 1, run] += (text[:1] == letter) / len(QUESTIONS)
  drawn = multiple_choice.sampled(answers, QUESTIONS, runs=400, seed=1)
  for row, name in enumerate(('accuracy_one_token', 'accuracy_two_tokens')):
    for values in (hits[row], drawn[row]):
      error = values.std(ddof=1) / np.sqrt(len(values))
      assert abs(values.mean() - found[name]) < 5 * error, name


def test_long_prompts_lose_their_beginning_and_are_counted():
  seen = []

  def speak(read):
    seen.append(read)
    return {b'A': 1.0}

  questions = [QUESTIONS[0], QUESTIONS[1]._replace(text='long ' * 50)]
  found, answers = scores(speak, questions, length=100)
  assert answers.truncated.tolist() == [False, True]
  assert found['truncated'] == 0.5
  tail = prompt(questions[1])[-98:]
  assert any(read == tail for read in seen)  # 100 less the first of the row and the space


def test_every_prompt_is_read_whole_in_any_order_and_batch_size():
  questions = [q._replace(text='why ' * (i * 5 % 13) + q.text) for i, q in enumerate(QUESTIONS)]
  knows = lambda read: {b'%c' % (65 + len(read.strip()) % 4): 0.7, b'x': 0.3}
  first, second = (scores(knows, questions, batch_size=size)[1] for size in (32, 5))
  for one, other in zip(first, second):
    np.testing.assert_allclose(one, other, atol=1e-6)
  expected = [len(prompt(q)) % 4 for q in questions]
  assert first.first.argmax(axis=1).tolist() == expected


@pytest.mark.parametrize('tokenizer', [
  BYTES, train_bpe_unsplit([b''.join(prompt(q) + b' A\n' for q in QUESTIONS)], 300),
])  # fmt: skip
def test_a_model_over_eight_devices_says_the_same_as_over_one(tokenizer):
  model = LanguageModel(
    Learned(tokenizer.vocab_size, 16), Decoder(layers=1, dim=16, heads=2, mlp_dim=16)
  )
  key = jax.random.key(0)
  ones = np.ones((8, 16), np.int32)
  example = dict.fromkeys(('inputs', 'targets', 'segments', 'positions', 'bytes'), ones)
  variables = jax.jit(model.init)(key, example, key)
  declared, said = describe_model(model).declared, []
  for devices in (1, 8):
    mesh = sharding.make_mesh({'data': -1}, jax.devices()[:devices])
    placed = jax.device_put(variables, sharding.shardings(variables, declared, mesh))
    run = jax.jit(functools.partial(model.apply, method='logits_at'))
    log_probs = lambda batch, places: jax.nn.log_softmax(run(placed, batch, places, key))
    said.append(multiple_choice.ask(log_probs, QUESTIONS, tokenizer, mesh, batch_size=16))
  for one, other in zip(*said):
    np.testing.assert_allclose(one, other, atol=1e-5)
  batch = dict(example, inputs=np.arange(128, dtype=np.int32).reshape(8, 16) % 64)
  places = np.tile(np.array([[3, 15]]), (8, 1))
  some = model.apply(variables, batch, places, key, method='logits_at')
  all_of_them = model.apply(variables, batch, key, method='logits')
  np.testing.assert_allclose(some, all_of_them[:, [3, 15]], atol=1e-5)


def test_with_guessing_taken_out_a_share_known_is_the_share():
  known = lambda accuracy: multiple_choice.above_chance(stats.Estimate(accuracy, 0.03), 0.25)
  # Half of the facts are known, the rest guessed among four.
  assert known(0.5 + 0.5 * 0.25).value == pytest.approx(0.5)
  assert known(0.25).value == 0
  assert [round(known(x).value, 2) for x in (0.5, 0.62, 0.9)] == [0.33, 0.49, 0.87]
  assert known(0.5).sem == pytest.approx(0.04)
  assert multiple_choice.above_chance(stats.Estimate(0.5), 0.25).sem is None


def test_a_score_of_nothing_is_not_a_number():
  assert np.isnan(multiple_choice.value((np.zeros(3), np.zeros(3))))


@pytest.mark.parametrize(
  ('questions', 'options', 'message'),
  [
    ([], {}, 'needs questions'),
    (QUESTIONS, {'length': 3}, 'rows of 3'),
    (QUESTIONS, {'layout': 'grid'}, "layout 'grid' is not one of inline, lines"),
  ],
)
def test_bad_input_gets_one_sentence(questions, options, message):
  with pytest.raises(InputError, match=message):
    multiple_choice.ask(speaker(lambda read: {b'A': 1.0}), questions, BYTES, MESH, **options)


def test_a_tokenizer_without_letters_of_their_own_is_refused():
  joined = train_bpe_unsplit([b'the end. the end. the end.'], 30, bytes(range(97, 123)) + b'. ')
  with pytest.raises(InputError):
    multiple_choice.letters(joined, 4)


def characters(*rules, letters='ABCD ') -> Foreign:
  """A tokenizer with an id for each character, after rules that change text."""
  vocab = {letter: i for i, letter in enumerate(letters)} | {'?': len(letters)}
  library = Tokenizer(models.WordLevel(vocab, unk_token='?'))
  library.normalizer = normalizers.Sequence(list(rules))
  library.pre_tokenizer = pre_tokenizers.Split(Regex('(?m).'), 'isolated')
  return Foreign(library.to_str().encode(), '.json')


@pytest.mark.parametrize(
  'tokenizer',
  [
    characters(letters=' '),
    characters(letters='ABC '),
    characters(letters='ABCD'),
    characters(normalizers.Replace('B', 'A')),
    characters(normalizers.Replace('B', '')),
    characters(normalizers.Replace(' ', '')),
    characters(normalizers.Replace(' ', 'D')),
    characters(normalizers.Replace(Regex('.'), '')),
  ],
  ids=['unknown', 'one unknown', 'no space', 'equal', 'absent', 'space absent', 'space D', 'empty'],
)
def test_letters_that_are_not_read_as_themselves_are_refused(tokenizer):
  with pytest.raises(InputError, match='ABCD as one token of its own'):
    multiple_choice.letters(tokenizer, 4)


def test_lower_case_letters_are_letters():
  lower = characters(normalizers.Lowercase(), letters='abcd ')
  known = multiple_choice.letters(lower, 4)
  assert known.bare.tolist() == known.spaced.tolist() == [0, 1, 2, 3]
  assert known.reading.tolist() == [0, 1, 2, 3, 4, 5]
