# SPDX-License-Identifier: Apache-2.0
"""The paper's transformer on a Markov source, with and without tokens (section 6).

Each arm trains several seeds at once. Each seed has its own dictionary, model and documents, so
standard errors over seeds include all three. In each step all arms see the same number of
characters, in documents of the same number of characters. At one seed they read the same
characters, so that arms are compared in pairs. Each arm has its own learning rate, chosen by
validation text.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np
from ml_collections import ConfigDict

from experiments import fit
from experiments.markov import markov_source
from experiments.markov.markov_source import PER_CHAR, make_source
from experiments.recipe import Pictures, Run, Table, TrainSpec, TrainSpecs
from lib import stats
from lib.data import pipeline
from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.evals import ngram
from lib.language_model import TrainedModel
from lib.models.decoder import LanguageModel
from lib.report import plots
from lib.report.plots import Panel, Picture
from lib.report.results import Row, Rows, name, select
from lib.tasks.markov import chains
from lib.tokenizers.base import Dictionary
from lib.tokenizers.bpe import train_bpe_unsplit
from lib.tokenizers.characters import Characters

STEPS = (0, 100, 200, 300, 400, 500, 1000, 4000, 10_000)  # whose losses are rows
LOSS = 'validation/nats_per_byte'
STROKES = {'characters': '--', 'bpe': '-'}

Arm = dict[str, Any]  # k, tokenizer, p, tied


def check(config: ConfigDict) -> None:
  """Raises InputError for invalid sizes."""
  fit.check(config.transformer, 'transformer')
  markov_source.check(config, (config.transformer.vocab_size,), 'transformer.vocab_size')
  for arm in arms(config):
    make_source(config, arm['k'], arm['p'])


def arms(config: ConfigDict) -> list[Arm]:
  """Every combination of order, tokenizer, p and tying."""
  options = config.transformer
  given = markov_source.probabilities(config, options.probabilities)
  return [
    {'k': k, 'tokenizer': tokenizer, 'p': p, 'tied': tied}
    for p, tied, k, tokenizer in itertools.product(
      given, options.tied, config.orders, options.tokenizers
    )
  ]


def run_name(arm: Arm) -> str:
  """The name of the arm's checkpoints and metrics in the workdir."""
  return f'transformer/{name(**arm)}'


def make_tokenizer(
  options: ConfigDict, source: chains.MarkovSource, kind: str, seed: int
) -> Dictionary:
  """Characters, or BPE learned from this seed's own stream."""
  if kind == 'characters':
    return Characters(source.alphabet)
  if kind == 'bpe':
    text = chains.sample_text(source, options.dictionary_chars, seed, chains.DICTIONARY)
    return train_bpe_unsplit([text], options.vocab_size, source.alphabet)
  raise InputError(f'transformer.tokenizers {kind!r} is not one of characters, bpe.')


class Task:
  """An arm: documents in the tokens of each seed's own tokenizer, and a model of them.

  The tokens that begin within the context count. The model is the official code's
  GPT-2: pre-norm without biases, but a bias on the LM head.
  """

  def __init__(self, config: ConfigDict, arm: Arm):
    options, dtype = config.transformer, fit.dtype(config)
    self.source, self._context = make_source(config, arm['k'], arm['p']), options.length
    self.tokenizers = {
      seed: make_tokenizer(options, self.source, arm['tokenizer'], seed)
      for seed in fit.seeds(config, options)
    }
    longest = max(len(piece) for made in self.tokenizers.values() for piece in made.pieces)
    # Longer than the context, so that its tokens do not depend on where the document ends (for
    # ordered merges: but for chains of merges longer than the margin, which we have not seen).
    self._chars = self._context + 4 * longest
    # Tokens of a row: the most that 200 documents need, and a tenth more. Training and validation
    # crop a document that needs still more; its scored characters are counted all the same.
    some = self._documents(0, chains.TRAIN, 200)
    most = max(len(self._tokens(seed, text)[0]) for seed in self.tokenizers for text in some)
    length = min(self._context, -(-int(1.1 * most) // 8) * 8)
    self.options = ConfigDict(options.to_dict() | {'length': length})
    ids = max(tokenizer.vocab_size for tokenizer in self.tokenizers.values())
    embedding = Learned(ids, options.dim, tied=arm['tied'], bias=True, dtype=dtype)
    self.model = LanguageModel(embedding, fit.make_decoder(options, dtype, max_length=length))

  def _documents(self, seed: int, stream: int, count: int) -> chains.MarkovDocuments:
    drawn = chains.stream_seed(seed, stream, self.source.order)
    return chains.MarkovDocuments(self.source, self._chars, count, drawn)

  def _tokens(self, seed: int, document: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Ids [n] of a document within the context, and the characters [n] that each covers."""
    ids, covered = self.tokenizers[seed].cover(document)
    begun = np.cumsum(covered) - covered < self._context
    return ids[begun], covered[begun]

  def batches(self, stream: int, count: int, batch_size: int, seed: int) -> grain.IterDataset:
    """[batch, length] batches of a seed's own documents; those of TRAIN are endless."""
    return pipeline.batches(
      self._documents(seed, stream, count),
      self.tokenizers[seed],
      batch_size=batch_size,
      length=self.options.length,
      seed=seed,
      lanes=self.options.lanes,
      pack=False,
      context_bytes=self._context,
      shuffle=False,  # the documents are independent samples
      repeat=stream == chains.TRAIN,
    )

  def train(self, config: ConfigDict, run: Run, arm: Arm) -> list[fit.Fitted]:
    """Trains the model of every seed."""
    size, held_out = self.options.batch_size, self.options.validation_documents
    fresh = functools.partial(self.batches, chains.TRAIN, self.options.steps * size, size)
    scored = functools.partial(
      self.batches, chains.VALIDATION, held_out, min(64, -(-held_out // 16))
    )
    return fit.fit(
      config,
      run,
      self.options,
      run_name(arm),
      self.model,
      fresh,
      evaluations={'validation': scored},
      tokenizer=self.tokenizers.__getitem__,
      text='',
    )

  def score(self, model: TrainedModel, seed: int) -> tuple[float, float]:
    """Nats per character of fresh documents, and characters per token."""
    drawn = self._documents(seed, chains.TEST, self.options.test_documents)
    ids, covered = zip(*(self._tokens(seed, document) for document in drawn), strict=True)
    chars = sum(part.sum() for part in covered)
    return sum(nats.sum() for nats in model.id_loss(ids)) / chars, chars / sum(map(len, ids))

  def ngrams(self) -> dict[str, np.ndarray]:
    """Loss [S] of m-gram models over the same tokens, which the network must beat."""
    scores = []
    for seed, tokenizer in self.tokenizers.items():
      counted, scored = (
        chains.sample_text(self.source, self.options.ngram_chars, seed, stream)
        for stream in (chains.TRAIN, chains.TEST)
      )
      found = ngram.token_loss(tokenizer, [counted], [scored], [0, 1])
      scores.append([one.value for one in found])
    return dict(zip(('unigram', 'bigram'), np.transpose(scores), strict=True))


def train_specs(config: ConfigDict) -> TrainSpecs:
  """The arms; all are of about one size."""

  def train_spec(arm: Arm) -> TrainSpec:
    task = Task(config, arm)
    return fit.train_spec(task.options, task.model)

  return {run_name(arm): functools.partial(train_spec, arm) for arm in arms(config)}


def measure(config: ConfigDict, run: Run) -> Rows:
  """Trains every arm and measures it on fresh documents."""
  rows = Rows('transformer')
  curves = {name(**arm): _measure(config, run, rows, arm) for arm in arms(config)}
  for arm in arms(config):  # how far characters are above BPE at the same step
    other = name(**arm | {'tokenizer': 'bpe'})
    if arm['tokenizer'] != 'bpe' and other in curves:
      for step in [step for step in STEPS if step in curves[other]]:
        both = {'this': curves[name(**arm)][step], 'bpe': curves[other][step]}
        gap, note = stats.arms(both, 'bpe')['this'], f'less {other}, paired by seed'
        rows.add(arm, f'above_bpe_nats_per_char_at_{step}', gap, 'nats/char', note)
  return rows


def _measure(config: ConfigDict, run: Run, rows: Rows, arm: Arm) -> dict[int, np.ndarray]:
  """Adds the final loss of an arm, and its validation losses [S] by step."""
  task, options = Task(config, arm), config.transformer
  fitted, source = task.train(config, run, arm), task.source
  scores = [task.score(one.model, seed) for seed, one in zip(task.tokenizers, fitted, strict=True)]
  final, covered = np.transpose(scores)
  note = (
    f'{options.length} characters of context, {options.batch_size} documents a step; '
    f'mean over {options.seeds} seeds'
  )
  rows.add_loss(arm, '', stats.mean(final), note)
  rows.add(arm, 'entropy_rate_nats_per_char', source.entropy_rate, 'nats/char')
  floor = source.window_floor(options.length)
  rows.add(arm, 'window_floor_nats_per_char', floor, 'nats/char')
  rows.add(arm, 'chars_per_token', stats.mean(covered), 'chars/token')
  curve, reached = fit.curves([one.history for one in fitted], LOSS), None
  about = f'has not come within {options.within} of H∞ by step {options.steps} with every seed'
  seconds, about_seconds = None, about
  for step, nats in curve.items():
    if reached is None and nats.max() <= source.entropy_rate + options.within:
      reached, seconds = step, fitted[0].curve('seconds')[step]
      about = f'reaches within {options.within} of H∞ at step {step}, all seeds'
      about_seconds = 'training seconds of all seeds together, on the devices of this run'
  rows.add(arm, f'steps_to_within_{options.within}', reached, 'steps', about)
  rows.add(arm, f'seconds_to_within_{options.within}', seconds, 'seconds', about_seconds)
  for step in [step for step in STEPS if step in curve]:
    rows.add(arm, f'nats_per_char_at_{step}', stats.mean(curve[step]), 'nats/char')
  for what, nats in task.ngrams().items():
    note = 'm-gram over the same tokens'
    rows.add(arm, f'{what}_nats_per_char', stats.mean(nats), 'nats/char', note)
    note = f'the transformer less that {what}, paired by seed'
    rows.add(arm, f'above_{what}_nats_per_char', stats.mean(final - nats), 'nats/char', note)
  for seed, nats in zip(task.tokenizers, final, strict=True):
    rows.add(arm | {'seed': seed}, 'nats_per_char', nats, 'nats/char')
  fit.add_rate(rows, arm, options, fitted[0].rate)
  return curve


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """The learning curve of each arm, and its gains."""
  curves = (
    'Loss on fresh text while the same transformer trains on characters and on BPE tokens, for '
    'sources of order k. Bands: one standard error over seeds.'
  )
  gain = (
    'What each model saves over the one before it: a unigram over tokens, a bigram over tokens, '
    'the transformer; and the transformer over characters. Bars: one standard error over seeds.'
  )
  return {
    'transformer.png': Picture(curves, _curves(config, run)),
    'gain.png': Picture(gain, _gain(rows, config)),
  }


def _curves(config: ConfigDict, run: Run) -> list[Panel]:
  """Validation loss by step, a panel for each p and tying."""
  panels = []
  for p, tied in dict.fromkeys((arm['p'], arm['tied']) for arm in arms(config)):
    series, errors = {}, {}
    for arm in (arm for arm in arms(config) if (arm['p'], arm['tied']) == (p, tied)):
      histories = fit.histories(config, run, config.transformer, run_name(arm))
      curve = {step: stats.mean(nats) for step, nats in fit.curves(histories, LOSS).items()}
      label = f'{arm["tokenizer"].replace("bpe", "BPE")}, order k = {arm["k"]}'
      series[label] = [*curve], [found.value for found in curve.values()]
      errors[label] = [found.sem for found in curve.values()]
    levels = markov_source.levels(make_source(config, config.orders[0], p))
    switches = f'switching probabilities p = q = {p}, ' if p else f'{config.source.kind}, '
    title = f'Transformer, {switches}{"tied" if tied else "untied"} rows'
    panels.append(plots.curves(title, 'training step', PER_CHAR, series, levels, errors=errors))
  return panels


def _gain(rows: Sequence[Row], config: ConfigDict) -> list[Panel]:
  """The gain of each model over the one before it: token unigram, token bigram, network."""
  first = arms(config)[0]
  gains: dict[str, list[float]] = {}
  errors: dict[str, list[float | None]] = {}
  for k in config.orders:
    of = lambda column, tokenizer, k=k: [  # the rows over all seeds
      row.estimate
      for row in select(
        rows, 'transformer', f'{column}_per_char', **first | {'k': k, 'tokenizer': tokenizer}
      )
      if row.estimate and 'seed' not in row.where
    ]
    columns = ('unigram_nats', 'bigram_nats', 'above_bigram_nats')
    found = [*(of(column, 'bpe') for column in columns), of('nats', 'characters')]
    if not all(found):
      return []
    (unigram,), (bigram,), (above,), (alone,) = found
    start = stats.Estimate(make_source(config, k, first['p']).ngram_loss(0), 0.0)
    for label, gain in {
      'token unigram below character unigram': stats.difference(start, unigram),
      'token bigram below token unigram': stats.difference(unigram, bigram),
      'transformer below token bigram': above.times(-1),
      'transformer on characters below unigram': stats.difference(start, alone),
    }.items():
      gains.setdefault(label, []).append(gain.value)
      errors.setdefault(label, []).append(gain.sem)
  source = make_source(config, config.orders[0], first['p'])
  levels = {'all there is to gain': source.ngram_loss(0) - source.entropy_rate}
  groups = [f'k = {k}' for k in config.orders]
  title = f'Gains with {config.transformer.vocab_size} BPE tokens, and with characters'
  return [plots.bars(title, PER_CHAR, groups, gains, levels, errors)]


TABLE = Table(
  'transformer',
  measure,
  caption='The same small transformer on characters and on BPE tokens, at equal characters '
  'of context and equal characters seen; loss on fresh documents, mean ± one standard error over '
  'seeds. Differences are paired by seed. '
  'The last token of a document may end past the context; its characters count.',
  shown=(
    'nats_per_char',
    'entropy_rate_nats_per_char',
    'steps_to_within_0.02',
    'nats_per_char_at_200',
  ),
  check=check,
  pictures=pictures,
  train_specs=train_specs,
)
