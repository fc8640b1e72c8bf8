# SPDX-License-Identifier: Apache-2.0
"""The paper's transformer on a Markov source, with and without tokens (section 6).

Each arm trains several seeds at once. A seed draws its own dictionary, model and documents, so
that errors over seeds include all three. In each step all arms see the same number of characters,
in documents of the same number of characters. At one seed they read the same characters, so that
arms are compared in pairs. Each arm has a learning rate of its own, chosen by validation text.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments import rates, runner
from experiments.markov.streams import (
  DICTIONARY,
  LN2,
  TEST,
  TRAIN,
  VALIDATION,
  draw,
  make_source,
  stream_seed,
)
from lib import stats
from lib.data import markov, pipeline
from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.evals import ngram
from lib.models.decoder import Decoder, LanguageModel
from lib.report.results import Row, name
from lib.stats import Estimate
from lib.tokenizers import Characters, Dictionary, train_bpe
from lib.train import language_model, optimizer, replicas
from lib.train.experiment import Experiment

STEPS = (0, 100, 200, 300, 400, 500, 1000, 4000, 10_000)  # whose losses are rows


def check(config: ConfigDict) -> None:
  """Raises InputError for sizes that no arm can have."""
  options = config.transformer
  for field in ('seeds', 'steps', 'batch_size', 'context_chars', 'layers', 'dim', 'heads'):
    if options[field] < 1:
      raise InputError(f'transformer.{field} must be 1 or more; got {options[field]}.')
  if options.rates and min(options.rates) <= 0:
    raise InputError(f'transformer.rates must be positive; got {tuple(options.rates)}.')
  if not 0 < options.rate_share <= 1:
    raise InputError(
      f'transformer.rate_share must be above 0 and at most 1; got {options.rate_share}.'
    )
  if options.dim % options.heads:
    raise InputError(f'transformer.dim {options.dim} is no multiple of {options.heads} heads.')
  for arm in arms(config):
    source = make_source(config, arm['k'], arm['p'])
    if options.vocab_size < source.alphabet_size:
      raise InputError(
        f'a dictionary of {options.vocab_size} tokens (transformer.vocab_size) cannot hold '
        f'{source.alphabet_size} characters.'
      )


def arms(config: ConfigDict) -> list[dict[str, Any]]:
  """Every combination of order, tokenizer, p and tying."""
  options = config.transformer
  probabilities = options.probabilities if config.source.kind == 'switching' else (None,)
  return [
    {'k': k, 'tokenizer': tokenizer, 'p': p, 'tied': tied}
    for p in probabilities
    for tied in options.tied
    for k in config.orders
    for tokenizer in options.tokenizers
  ]


def run_name(arm: dict[str, Any]) -> str:
  """Where the arm's checkpoints and metrics lie in the workdir."""
  return f'transformer/{name(**arm)}'


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Trains every arm and measures it on fresh documents."""
  options = config.transformer
  rows: list[Row] = []
  curves: dict[str, dict[int, np.ndarray]] = {}
  for arm in arms(config):
    rate = learning_rate(config, run, arm)
    experiment = make_experiment(config, arm)
    state, history = runner.train(
      experiment, make_optimizer(options, rate), config, run, options, name=run_name(arm),
      seed=config.seed,
    )  # fmt: skip
    curves[name(**arm)] = _curve(history)
    rows += experiment.tables(state['variables'], history)
    rows.append(Row('transformer', name(**arm), 'learning_rate', rate, note=_about_rate(options)))
  return rows + _behind(config, curves)


def learning_rate(config: ConfigDict, run: runner.Run, arm: dict[str, Any]) -> float:
  """The rate of an arm: the best by validation text, with one seed and `rate_share` of the steps.

  Half of the steps are enough to leave the plateau on which models over characters begin.
  """
  options, short = config.transformer, ConfigDict(config.to_dict())
  short.transformer.update(seeds=1, steps=max(1, round(options.rate_share * options.steps)))

  def validation_loss(rate: float) -> float:
    _, history = runner.train(
      make_experiment(short, arm), make_optimizer(short.transformer, rate), short, run,
      short.transformer, name=f'{run_name(arm)},{name(rate=rate)}', seed=config.seed,
    )  # fmt: skip
    return float([*_curve(history).values()][-1].mean())

  return rates.choose(options.rates or (options.peak,), validation_loss)


def _about_rate(options: ConfigDict) -> str:
  if len(options.rates) < 2:
    return 'at its peak; not chosen'
  choice = ', '.join(f'{rate:g}' for rate in options.rates)
  return (
    f'at its peak; of {choice} by validation text, one seed, {options.rate_share:.0%} of the steps'
  )


def _behind(config: ConfigDict, curves: Mapping[str, Mapping[int, np.ndarray]]) -> list[Row]:
  """How far characters are above BPE at the same step, paired by seed."""
  rows = []
  for arm in arms(config):
    other = name(**arm | {'tokenizer': 'bpe'})
    if arm['tokenizer'] == 'bpe' or other not in curves:
      continue
    row, note = name(**arm), f'less {other}, paired by seed'
    for step in (step for step in STEPS if step in curves[row]):
      losses = {'this': curves[row][step], 'bpe': curves[other][step]}
      found = stats.arms(losses, 'bpe')['this']
      column = f'above_bpe_nats_per_char_at_{step}'
      rows.append(Row.of('transformer', row, column, found, unit='nats/char', note=note))
  return rows


def plans(config: ConfigDict) -> dict[str, Callable[[], runner.Plan]]:
  """The arms; all are of about one size."""

  options = config.transformer

  def plan(arm: dict[str, Any]) -> runner.Plan:
    experiment = make_experiment(config, arm)
    batch = jax.eval_shape(lambda: next(iter(experiment.batches)))
    characters = make_source(config, arm['k'], arm['p']).alphabet_size
    ids = characters if arm['tokenizer'] == 'characters' else options.vocab_size
    return runner.Plan(experiment, make_optimizer(options, options.peak), batch, ids)

  return {run_name(arm): functools.partial(plan, arm) for arm in arms(config)}


def make_optimizer(options: ConfigDict, peak: float) -> optax.GradientTransformation:
  """AdamW on a cosine from a peak learning rate."""
  schedule = optimizer.make_schedule(
    'cosine', peak, options.steps, int(options.warmup * options.steps), options.final
  )
  return optimizer.make_optimizer('adamw', schedule, weight_decay=options.weight_decay)


def make_tokenizer(config: ConfigDict, source: markov.MarkovSource, kind: str, seed: int):
  """Characters, or BPE learned from this seed's own stream."""
  if kind == 'characters':
    return Characters(source.alphabet)
  if kind == 'bpe':
    text = draw(source, config.transformer.dictionary_chars, seed, DICTIONARY)
    return train_bpe(text, config.transformer.vocab_size, source.alphabet)
  raise InputError(f'transformer.tokenizers {kind!r} is not one of characters, bpe.')


def make_model(config: ConfigDict, vocab_size: int, tied: bool, length: int) -> LanguageModel:
  """The official code's GPT-2: pre-norm without biases, but a bias on the readout."""
  options, dtype = config.transformer, jnp.dtype(config.dtype)
  decoder = Decoder(
    layers=options.layers,
    dim=options.dim,
    heads=options.heads,
    mlp_dim=4 * options.dim,
    max_length=length,
    dtype=dtype,
  )
  return LanguageModel(Learned(vocab_size, options.dim, tied=tied, bias=True, dtype=dtype), decoder)


def make_experiment(config: ConfigDict, arm: dict[str, Any]) -> Experiment:
  """One arm: all its seeds as replicas of one experiment."""
  options, seeds = config.transformer, range(config.seed, config.seed + config.transformer.seeds)
  source = make_source(config, arm['k'], arm['p'])
  tokenizers = [make_tokenizer(config, source, arm['tokenizer'], seed) for seed in seeds]
  longest = max(max(map(len, tokenizer.pieces)) for tokenizer in tokenizers)
  # Longer than the context, so that its tokens do not depend on where the document ends (for
  # ordered merges: but for chains of merges longer than the margin, which we have not seen).
  chars = options.context_chars + 4 * longest
  length = _row_length(source, tokenizers, options.context_chars, chars)

  def batches(stream: int, documents: int, batch_size: int, repeat: bool):
    """[seeds, batch, length] batches, each seed from documents of its own."""
    return pipeline.stack([
      pipeline.batches(
        markov.MarkovDocuments(source, chars, documents, stream_seed(seed, stream, arm['k'])),
        tokenizer,
        batch_size=batch_size,
        length=length,
        seed=seed,
        pack=False,
        context_bytes=options.context_chars,
        shuffle=False,  # the documents are independent draws
        repeat=repeat,
      )
      for seed, tokenizer in zip(seeds, tokenizers)
    ])  # fmt: skip

  vocab_size = max(tokenizer.vocab_size for tokenizer in tokenizers)
  model = make_model(config, vocab_size, arm['tied'], length)
  single = Experiment(*language_model.loss_and_init(model), batches=())
  fresh = batches(TRAIN, options.steps * options.batch_size, options.batch_size, repeat=True)
  every = replicas.replicate(single, len(seeds), fresh)
  score = lambda stream, documents: language_model.held_out(
    every.loss_fn, batches(stream, documents, min(64, -(-documents // 16)), repeat=False)
  )
  return dataclasses.replace(
    every,
    evaluations={'validation': score(VALIDATION, options.validation_documents)},
    tables=functools.partial(
      _rows, config, arm, source, score(TEST, options.test_documents)
    ),
  )  # fmt: skip


def _row_length(
  source: markov.MarkovSource, tokenizers: Sequence[Dictionary], context: int, chars: int
) -> int:
  """Tokens enough for the context: the most that 200 documents need, and a tenth more.

  A document that needs still more is cropped; its scored characters are counted all the same.
  """
  seed = stream_seed(0, TRAIN, source.order)
  documents = markov.MarkovDocuments(source, chars, 200, seed)
  most = 0
  for tokenizer in tokenizers:
    for index in range(len(documents)):
      covered = tokenizer.byte_lengths(tokenizer.encode(documents[index]))
      most = max(most, int((np.cumsum(covered) - covered < context).sum()))
  return min(context, -(-int(1.1 * most) // 8) * 8)


def _rows(config, arm, source, test, variables, history) -> list[Row]:
  """What an arm reached, when it came within reach of the entropy rate, and its way there."""
  options, row, rows = config.transformer, name(**arm), []
  measured = test(variables)
  final = np.asarray(measured['nats_per_byte'])
  note = (
    f'{options.context_chars} characters of context, {options.batch_size} documents a step; '
    f'mean over {options.seeds} seeds'
  )

  def put(column: str, found: Estimate | float | None, unit: str = '', text: str = '') -> None:
    if isinstance(found, Estimate):
      rows.append(Row.of('transformer', row, column, found, unit=unit, note=text))
    else:
      rows.append(Row('transformer', row, column, found, unit=unit, note=text))

  put('nats_per_char', stats.mean(final), 'nats/char', note)
  put('bits_per_char', stats.mean(final / LN2), 'bits/char')
  put('entropy_rate_nats_per_char', source.entropy_rate, 'nats/char')
  put('window_floor_nats_per_char', source.window_floor(options.context_chars), 'nats/char')
  put('chars_per_token', stats.mean(measured['bytes_per_token']), 'chars/token')
  for column, value, unit, text in _reached(options, source, history):
    put(column, value, unit, text)
  for step, losses in _curve(history).items():
    if step in STEPS:
      put(f'nats_per_char_at_{step}', stats.mean(losses), 'nats/char')
  for what, losses in _token_models(config, source, arm['tokenizer']).items():
    put(f'{what}_nats_per_char', stats.mean(losses), 'nats/char', 'm-gram over the same tokens')
    put(f'above_{what}_nats_per_char', stats.mean(final - losses), 'nats/char',
        f'the transformer less that {what}, paired by seed')  # fmt: skip
  for index, value in enumerate(final):
    seed_row = name(**arm, seed=config.seed + index)
    rows.append(Row('transformer', seed_row, 'nats_per_char', float(value), unit='nats/char'))
  return rows


def _curve(history: Sequence[dict[str, Any]]) -> dict[int, np.ndarray]:
  """Step -> validation loss of each seed, nats per character [S]."""
  return {line['step']: np.asarray(line['validation/nats_per_byte']) for line in evaluated(history)}


def _token_models(config: ConfigDict, source: markov.MarkovSource, kind: str) -> dict:
  """Loss [S] of m-gram models over the arm's own tokens: what is left for the network."""
  chars = config.transformer.ngram_chars
  scores = []
  for seed in range(config.seed, config.seed + config.transformer.seeds):
    counted, scored = (draw(source, chars, seed, stream) for stream in (TRAIN, TEST))
    tokenizer = make_tokenizer(config, source, kind, seed)
    found = ngram.token_loss(tokenizer, [counted], [scored], [0, 1])
    scores.append([one.value for one in found])
  return dict(zip(('unigram', 'bigram'), np.transpose(scores), strict=True))


def evaluated(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """The lines of a history with a validation loss."""
  return [line for line in history if 'validation/nats_per_byte' in line]


def _reached(options, source, history) -> list[tuple]:
  """When every seed first came within `options.within` of the entropy rate on validation text."""
  target = source.entropy_rate + options.within
  columns = (f'steps_to_within_{options.within}', f'seconds_to_within_{options.within}')
  for line in evaluated(history):
    if max(line['validation/nats_per_byte']) <= target:
      text = f'reaches within {options.within} of H∞ at step {line["step"]}, all seeds'
      seconds = 'training seconds of all seeds together, on the devices of this run'
      return [
        (columns[0], line['step'], 'steps', text),
        (columns[1], line['seconds'], 'seconds', seconds),
      ]
  text = f'has not come within {options.within} of H∞ by step {options.steps} with every seed'
  return [(columns[0], None, 'steps', text), (columns[1], None, 'seconds', text)]
