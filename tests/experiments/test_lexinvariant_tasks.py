# SPDX-License-Identifier: Apache-2.0
"""The lexinvariant recipe on in-context tasks, names hidden in part, and its largest models."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import lexinvariant
from experiments.lexinvariant import decoders, in_context, regularizer, text_models
from lib import stats
from lib.data import pipeline, sources
from lib.errors import InputError
from lib.evals.sequences import generator
from lib.language_model import TrainedModel
from lib.parallel import sharding
from lib.report.results import Row
from lib.tasks.look_up import FORMAT, Symbols, folded
from lib.tokenizers.sentencepiece import train_sentencepiece
from lib.train import optimizer
from tests.helpers import shapes as shape_of
from tests.helpers import weights

KEY = jax.random.key(0)


@pytest.fixture(scope='module')
def config() -> ConfigDict:
  return lexinvariant.get_config('smoke')


@pytest.fixture(scope='module')
def corpus(config) -> text_models.Corpus:
  return text_models.corpora(config)[0]


def first_batches(config, arm, count, seed=0):
  batches = iter(regularizer.batches(config, arm, seed))
  return [next(batches) for _ in range(count)]


def documents(batches) -> list[bytes]:
  return [
    regularizer.TOKENIZER.decode(row[real > 0])
    for batch in batches
    for row, real in zip(batch['targets'], batch['segments'], strict=True)
  ]


def test_training_documents_hold_text_and_both_tasks_and_no_held_out_symbol(config):
  found = documents(first_batches(config, regularizer.STANDARD, 6))
  assert not set(b''.join(found)) & set(regularizer.HELD_OUT)
  lookup = [one for one in found if one.count(b'->') == 12]  # 4 pairs and 8 questions
  permutation = [one for one in found if one.count(b'->') == 5]
  prose = [one for one in found if b'->' not in one]
  assert min(map(len, (lookup, permutation, prose))) > 4  # of 48; they come shuffled
  assert {len(one) for one in prose} == {config.regularizer.length}
  for one in lookup:
    pairs = [line.split(b'->') for line in one.splitlines()]
    assert all(value == dict(pairs[:4])[key] for key, value in pairs[4:])


def test_questions_of_the_test_are_asked_nowhere_in_training(config):
  seen = documents(first_batches(config, regularizer.STANDARD, 6))
  options = ConfigDict(config.regularizer.to_dict() | {'examples': 20})
  for examples in regularizer.examples(options, Symbols(text_models.LETTERS)).values():
    assert not {b'%b%b\n' % example for example in examples} & set(seen)


def test_batches_say_how_many_names_are_hidden(config):
  for p in (0.0, 0.2, 1.0):
    [batch] = first_batches(config, regularizer.Arm('permuted', p), 1)
    assert batch['hidden_probability'].tolist() == pytest.approx(
      [p] * config.regularizer.batch_size
    )
  assert 'hidden_probability' not in first_batches(config, regularizer.LEXINVARIANT, 1)[0]


def test_an_example_folded_into_letters_still_determines_its_answer(config, corpus):
  alphabet = corpus.alphabet
  assert alphabet is not None
  for law in in_context.LAWS:
    symbols = in_context.symbols_of(corpus, law)
    assert b''.join(symbols.known) == text_models.LETTERS
    for task, these in regularizer.examples(config.in_context, symbols).items():
      for example in these:
        found = folded(example, alphabet)
        assert not set(found.prompt + found.answer) - set(alphabet)
        assert found.prompt.replace(b'  ', b'->') == example.prompt, task
        assert found.answer == example.answer
  weights = in_context.symbols_of(corpus, 'frequency').weights
  by_letter = dict(zip(map(chr, text_models.LETTERS), weights, strict=True))
  assert by_letter['e'] > by_letter['z'] > 0


def test_symbols_of_pieces_are_single_tokens_in_an_example(config):
  sample = sources.sample(sources.open_source('stdlib/prose', 'train'), 40_000)
  tokenizer = train_sentencepiece(sample, 500, 'unigram')
  corpus = text_models.Corpus('prose', '32k', 'stdlib/prose', tokenizer)
  symbols = in_context.symbols_of(corpus, 'uniform')
  assert len(symbols) > 256 - len(FORMAT)  # pieces of several bytes are among them
  assert not set(b''.join(symbols.known)) & set(FORMAT)
  assert all(len(tokenizer.encode(symbol)) == 1 for symbol in symbols.known)
  for these in regularizer.examples(config.in_context, symbols).values():
    for example in these:
      answer = tokenizer.encode(example.answer)
      assert sum(tokenizer.decode([i]) in symbols.known for i in answer) in (1, 2)


def test_the_fourfold_claim_is_audited_over_the_papers_pairs_and_ours():
  where = {'data': 'a', 'vocabulary': 'char', 'symbols': 'uniform', 'task': 'lookup'}
  rows = [
    Row('in_context', where | {'embedding': kind}, 'accuracy', value)
    for kind, value in (('learned', 0.0), ('lexinvariant', 0.5))
  ]
  found = {(one.row, one.column): one for one in in_context.audit(rows)}
  paper = lambda column, part='': found[f'source=paper,{part}symbols=uniform', column].measured
  assert paper('mean_ratio') == pytest.approx(4.94, abs=0.005)
  assert paper('geometric_mean_ratio') == pytest.approx(3.71, abs=0.005)
  assert paper('ratio_of_means') == pytest.approx(3.04, abs=0.005)
  assert paper('mean_ratio', 'vocabulary=char,') == pytest.approx(2.33, abs=0.005)
  ours = found['symbols=uniform', 'mean_ratio']
  assert ours.measured is None
  assert 'a standard accuracy is 0' in ours.note


def test_accuracies_are_compared_example_by_example():
  rng = np.random.default_rng(0)
  right = (rng.random((3, 200)) < 0.5).astype(float)
  better = np.maximum(right, rng.random((3, 200)) < 0.2)
  found = stats.paired_shares(better, right)
  assert found.value == pytest.approx((better - right).mean())
  assert (found.n, found.over) == ('3×200', 'seeds×examples')
  apart = stats.difference(stats.shares(better), stats.shares(right))
  assert found.sem < apart.sem  # the same examples
  alike = stats.paired_shares(right, right)
  assert (alike.value, alike.p_value()) == (0, 1)
  certain = stats.paired_shares(right * 0 + 1, right * 0)
  assert certain.value == 1
  assert certain.sem > 0


@pytest.mark.parametrize('kind', ['learned', 'lexinvariant', 'permuted'])
def test_answers_are_the_likeliest_under_one_draw_of_rows(config, kind):
  """Those of whole passes over prompts laid out as documents are in training."""
  model = decoders.make_model(config.regularizer, kind, 40, np.float32)
  blank = pipeline.batch_from_ids(np.zeros((2, 9), np.int32), 40)
  variables = weights.draw(model.init, KEY, blank, KEY, std=0.5)
  trained = TrainedModel(model, variables, None, 9)
  prompts = [np.array(ids, np.int32) for ids in ([3, 8, 3], [], [9, 4, 9, 4, 9])]
  options = {'length': 9, 'batch_size': 2, 'hidden_probability': np.float32(1)}
  generate = lambda seed: generator(trained, seed, **options)(prompts, 4)
  found = generate(0)
  logits = jax.jit(functools.partial(model.apply, method='logits'))
  for place, (prompt, ids) in enumerate(zip(prompts, found, strict=True)):
    known = prompt.tolist()
    for token in ids:
      row = np.zeros((2, 9), np.int32)
      row[:, : len(known)] = known
      batch = {**pipeline.batch_from_ids(row, 40), 'hidden_probability': np.float32(1)}
      given = logits(variables, batch, jax.random.key(0))[place % 2, len(known)]
      assert int(np.argmax(given)) == token
      known.append(int(token))
  np.testing.assert_array_equal(found, generate(0))
  assert kind == 'learned' or (found != generate(1)).any()
  with pytest.raises(InputError, match='Prompt and answer take up to 9 tokens; got places for 8'):
    generator(trained, length=8)(prompts, 4)


def test_the_rate_of_a_kind_of_rows_is_chosen_on_the_first_corpus_alone(monkeypatch):
  config = lexinvariant.get_config('smoke')
  config.text.rates, config.text.steps = (1e-3, 1e-2, 1e-1), 100
  config.text.corpora = (('prose', 'stdlib/prose'), ('code', 'stdlib/source'))
  seen = []

  def train(config, run, options, run_name, corpus, kind):
    seen.append((corpus.data, options.steps, options.rates, options.evaluate_every))
    loss = abs(np.log(options.rates[0] / 2e-2))
    return [types.SimpleNamespace(last=lambda metric: loss)]

  monkeypatch.setattr(text_models, '_train', train)
  run = object()
  for corpus in text_models.corpora(config):
    text_models.train(config, run, corpus, 'learned')
  short = [('prose', 20, (rate,), 20) for rate in (1e-3, 1e-2, 1e-1)]
  every = config.text.evaluate_every
  assert seen == [*short, ('prose', 100, (1e-2,), every), ('code', 100, (1e-2,), every)]


@pytest.mark.parametrize('field', ['text', 'regularizer'])
def test_text_is_read_at_most_four_times_at_large_scales(field):
  config = lexinvariant.get_config('gpu')
  (text_models if field == 'text' else regularizer).check(config)  # endless
  if field == 'text':
    config.text.corpora = (('prose', 'stdlib/prose'),)
    with pytest.raises(InputError, match=r'text.corpora .* times.*ngram:stdlib/prose'):
      text_models.check(config)
  else:
    config.regularizer.source = 'stdlib/prose'
    with pytest.raises(InputError, match=r'regularizer.source .* times'):
      regularizer.check(config)


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('arms', (('permuted', 1.5),), r"'permuted', 1.5, 'type'\) is not \(embedding, p, per\)"),
    ('arms', (('glyph', 0.5),), 'with an embedding of permuted, mixed, interchangeable'),
    ('length', 20, 'length 20 is too short for a task of 60 symbols'),
    ('pairs', 11, 'a symbol for each key'),
    ('anneal', (0.5,), 'regularizer.anneal must be two rising fractions'),
  ],
)
def test_invalid_tasks_and_arms_are_refused(field, value, message):
  config = lexinvariant.get_config('smoke')
  with config.unlocked():
    config.regularizer[field] = value
  with pytest.raises(InputError, match=message):
    regularizer.check(config)


@pytest.mark.parametrize(
  ('scale', 'vocabularies', 'millions'), [('gpu', (256, 32_000), 37.7), ('paper', (32_000,), 151.0)]
)
def test_the_large_models_have_the_papers_sizes_and_no_vocabulary(scale, vocabularies, millions):
  config = lexinvariant.get_config(scale)
  options = config.text
  assert options.length == 512
  assert options.batch_size == 64
  assert config.dtype == 'bfloat16'
  for vocab_size in vocabularies:
    model = decoders.make_model(options, 'lexinvariant', vocab_size, np.dtype(config.dtype))
    batch = {field: np.ones((1, 8), np.int32) for field in ('inputs', 'targets', 'positions')}
    batch['segments'] = batch['inputs']
    params = jax.eval_shape(model.init, KEY, batch, KEY)['params']
    sizes = jax.tree.map(lambda leaf: leaf.size, params)
    blocks = sum(leaf for leaf in jax.tree.leaves(sizes['decoder']['blocks']) if leaf > 1e5)
    total = sum(jax.tree.leaves(sizes))
    assert blocks / 1e6 == pytest.approx(millions, abs=0.06)
    assert total < 1.002 * blocks
    assert all(vocab_size not in leaf.shape for leaf in jax.tree.leaves(params))
  if scale == 'paper':
    assert (options.optimizer, options.schedule, options.steps) == ('adafactor', 'cosine', 250_000)
    assert (*options.rates, options.rates[0] * options.final) == pytest.approx((0.01, 0.001))
    chain = optimizer.make_optimizer(options.optimizer, lambda step: 1e-2)({})
    moments = jax.eval_shape(chain.init, params)
    kept = sum(leaf.size for leaf in jax.tree.leaves(moments))
    assert kept < 0.1 * total  # factored


def test_every_arm_builds_and_steps_at_the_scale_of_accelerators():
  config = lexinvariant.get_config('gpu')
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 1}, jax.devices()[:4])
  options = config.regularizer
  size = regularizer.TOKENIZER.vocab_size
  [hidden] = first_batches(config, regularizer.Arm('permuted', 0.2), 1)  # seconds of endless text
  plain = {field: values for field, values in hidden.items() if field != 'concealed'}
  for embedding in (*decoders.PARTIAL, 'lexinvariant'):
    experiment = decoders.make_experiment(options, embedding, size, jnp.bfloat16)
    shape_of.check(experiment, mesh, plain if embedding == 'lexinvariant' else hidden)


@pytest.mark.parametrize('scale', ['gpu', 'paper'])
def test_text_models_build_and_step_at_the_scale_of_accelerators(scale):
  config = lexinvariant.get_config(scale)
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 1}, jax.devices()[:4])
  options = config.text
  batch = pipeline.batch_from_ids(np.zeros((options.batch_size, options.length), np.int32), 32_000)
  for kind in decoders.EMBEDDINGS:
    experiment = decoders.make_experiment(options, kind, 32_000, jnp.bfloat16)
    shape_of.check(dataclasses.replace(experiment, batches=[batch]), mesh)
