# SPDX-License-Identifier: Apache-2.0
"""Table m2: language models over each tokenizer, at equal tokens a step."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.equal_info import codecs, m1, models, texts
from experiments.equal_info.corpus import Corpus
from experiments.equal_info.scores import Scores, by_position, over_seeds, ratio, scorer
from lib.data import pipeline
from lib.errors import InputError
from lib.evals import ngram
from lib.models.decoder import LanguageModel
from lib.report.results import Row, name
from lib.tokenizers.coding.stepping import Stepped
from lib.train.experiment import Variables

TABLE = 'm2'
LN2 = np.log(2)
OPAQUE = ('ac', 'static_ac')  # what the paper finds M2 cannot learn
CLOSE = 0.01  # nats a token from ln V that count as learning nothing
OPENING = 8  # tokens at the begin of a stream, where all streams are aligned
BY_M1 = ('ac', *codecs.WINDOWS)  # the paper counts M1 for these


def check(config: ConfigDict) -> None:
  """Raises InputError for tokenizers or models that cannot be had."""
  options = config.m2
  if not options.models:
    raise InputError('m2.models must name at least one model.')
  for size in options.models:
    models.check(sized(config, size), f'm2.models {size[0]}')
  chosen(options.methods, 'm2')
  for field in (
    'example_bytes', 'train_bytes', 'stepped_bytes', 'validation_bytes',
    'test_bytes',
  ):  # fmt: skip
    if options[field] < 1:
      raise InputError(f'm2.{field} must be 1 or more; got {options[field]}.')
  for split in ('train', 'validation', 'test'):
    texts.stretches(config, split, options.example_bytes, options.example_bytes)


def chosen(pairs: Sequence[tuple[str, int]], where: str) -> list[codecs.Method]:
  """The tokenizers of (name, bits of a token) pairs; raises InputError where there is none."""
  found = []
  for which, bits in pairs:
    if not (widths := codecs.widths([which], [bits])):
      raise InputError(f'{where}.methods: {which} has no tokens of {bits} bits; use fewer.')
    found.append(widths[0][0])
  return found


def sized(config: ConfigDict, size: tuple[str, int, int, int, int]) -> ConfigDict:
  """The section m2 with the sizes of one of its models."""
  fields = dict(zip(('layers', 'dim', 'heads', 'mlp_dim'), size[1:], strict=True))
  return ConfigDict(config.m2.to_dict() | fields)


def make_model(config: ConfigDict, size: tuple, vocab_size: int) -> LanguageModel:
  """M2 of a size over so many ids."""
  options = sized(config, size)
  return models.make_model(options, vocab_size, options.length, models.dtype(config))


def plans(config: ConfigDict) -> dict[str, Callable[[], runner.Plan]]:
  """The models from the largest, over the largest vocabulary that tokens have."""
  vocab_size = max(
    config.tokenizers.sentencepiece, *(1 << bits for _, bits in config.m2.methods)
  )  # fmt: skip
  batch = pipeline.shapes(config.m2.batch_size, config.m2.length)

  def plan(size: tuple) -> runner.Plan:
    return models.plan(sized(config, size), make_model(config, size, vocab_size), batch)

  return {
    f'm2/{name(model=size[0], v=vocab_size)}': functools.partial(plan, size)
    for size in reversed(config.m2.models)
  }


def row_of(size: tuple, method: codecs.Method) -> str:
  """The row of a model over a tokenizer."""
  return f'{name(model=size[0])},{method.row}'


def fit(
  config: ConfigDict, run: runner.Run, size: tuple, corpus: Corpus, seed: int
) -> models.Trained:
  """M2 over a tokenizer, trained now or by another table of this run."""
  model = make_model(config, size, corpus.vocab_size)
  return models.fit(
    config, run, sized(config, size), f'm2/{row_of(size, corpus.method)},{name(seed=seed)}', model,
    corpus.batches(seed), {'validation': _watch(model, corpus)}, seed,
  )  # fmt: skip


def _watch(model, corpus: Corpus) -> Callable[[Variables], Mapping[str, Any]]:
  """Validation: bits a byte, and accuracy and nats by position in the window where it has some."""
  score = scorer(model)
  guess = jax.jit(
    lambda variables, batch: model.apply(
      variables, batch, jax.random.key(0), method='logits'
    ).argmax(axis=-1)
  )  # fmt: skip

  def evaluate(variables: Variables) -> dict[str, Any]:
    scores = score(variables, corpus.rows(corpus.validation))
    values: dict[str, Any] = {'bits_per_byte': scores.per_byte()[0] / LN2}
    if corpus.window > 1:
      guesses = [
        np.asarray(guess(variables, batch))[batch['segments'][:, 0] > 0]
        for batch in corpus.rows(corpus.validation)
      ]
      right = np.concatenate(guesses) == scores.targets
      values['accuracy_by_position'] = by_position(right, scores.real, corpus.window)
      values['nats_by_position'] = by_position(scores.nats, scores.real, corpus.window)
    return values

  return evaluate


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Trains M2 over every tokenizer and scores it on the same held-out text."""
  rows: list[Row] = []
  for method in chosen(config.m2.methods, 'm2'):
    corpus = Corpus(config, run, method)
    for size in config.m2.models:
      trained, scores = fit_all(config, run, size, corpus)
      row = row_of(size, method)
      rows += _loss(row, corpus, scores) + _levels(row, corpus, scores)
      rows += _cost(row, corpus, size, trained[0], scores[0])
      if method.name in OPAQUE:
        rows += _opaque(row, corpus, scores)
  return rows


def fit_all(
  config: ConfigDict, run: runner.Run, size: tuple, corpus: Corpus
) -> tuple[list[models.Trained], list[Scores]]:
  """The models of all seeds and their scores on test text."""
  score = scorer(make_model(config, size, corpus.vocab_size))
  trained = [fit(config, run, size, corpus, seed) for seed in models.seeds(config, config.m2)]
  return trained, [score(one.variables, corpus.rows(corpus.test)) for one in trained]


def _loss(row: str, corpus: Corpus, scores: list[Scores]) -> list[Row]:
  """Bits a byte, with what the model was trained on."""
  options = corpus.config.m2
  value, sem = over_seeds([s.per_byte() for s in scores])
  step = options.batch_size * options.length
  epochs = options.steps * step / corpus.train.tokens.shape[1]
  note = (
    f'{scores[0].bytes.sum():,} held-out bytes in examples of {options.example_bytes}'
    f'; error over {"seeds" if len(scores) > 1 else "examples, one seed"}'
    f'; trained on {corpus.train.bytes:,} bytes, {epochs:.1f} times over at most'
  )
  if isinstance(corpus.tokenizer, Stepped):
    note += '; M1 read the known text ahead, which gives the streams of the codec but for rounding'
  bits = lambda nats: None if nats is None else nats / LN2
  return [
    Row(TABLE, row, 'bits_per_byte', bits(value), bits(sem), unit='bits/byte', note=note),
  ]


def _levels(row: str, corpus: Corpus, scores: list[Scores]) -> list[Row]:
  """What a uniform and a unigram model would score on the same tokens, and the gain on these."""
  first = scores[0]
  put = lambda column, value, sem=None, note='': Row(
    TABLE, row, column, value / LN2, None if sem is None else sem / LN2,
    unit='bits/byte', note=note,
  )  # fmt: skip
  uniform = np.log(corpus.vocab_size) * first.real.sum() / first.bytes.sum()
  counted = ngram.NGram(corpus.train.tokens[0], 0, corpus.vocab_size)
  unigram = np.zeros(first.nats.shape)
  unigram[first.real] = counted.nats(first.targets[first.real])
  gains = [ratio(unigram - s.nats, s.bytes) for s in scores]
  return [
    put('uniform_bits_per_byte', uniform),
    put('unigram_bits_per_byte', *ratio(unigram, first.bytes)),
    put('bits_below_unigram', *over_seeds(gains), 'paired on the same tokens'),
  ]


def _cost(
  row: str, corpus: Corpus, size: tuple, trained: models.Trained, scores: Scores
) -> list[Row]:
  """FLOPs a byte and bytes a step of generation."""
  covered, sem = ratio(scores.bytes, scores.real)
  kind, bits = codecs.parse(corpus.method.name)
  coder = 2 * m1.ready(corpus.config, corpus.run).parameters if kind in BY_M1 else 0
  readout = corpus.vocab_size * size[2]
  flops = 2 * trained.parameters / covered + coder
  note = (
    '2 × parameters without embeddings / (bytes a step), as the paper counts, and 2 × those of M1 '
    f'where it encodes: here {coder / 1e6:.2f} of {flops / 1e6:.2f}'
  )
  if coder and 0 < bits <= 16:
    note += '; windows of up to 16 bits are a table here, which needs no M1'
  return [
    Row(TABLE, row, 'bytes_per_step', covered, sem, unit='bytes/token'),
    Row(TABLE, row, 'mflops_per_byte', flops / 1e6, unit='MFLOP/byte', note=note),
    Row(TABLE, row, 'mflops_per_byte_with_readout', (flops + 2 * readout / covered) / 1e6,
        unit='MFLOP/byte', note='and 2 × those of the readout'),
  ]  # fmt: skip


def _opaque(row: str, corpus: Corpus, scores: list[Scores]) -> list[Row]:
  """How far below ln V the model came: the paper finds that nothing is learned."""
  top = np.log(corpus.vocab_size)
  gain, sem = over_seeds([(top - nats, error) for nats, error in (s.per_token() for s in scores)])
  late = over_seeds(
    [(top - nats, error) for nats, error in (s.per_token(OPENING) for s in scores)]
  )  # fmt: skip
  stays = abs(gain) <= CLOSE
  words = 'stays within' if stays else 'does not stay within'
  return [
    Row(TABLE, row, 'nats_below_ln_v', gain, sem, unit='nats/token',
        note=f'{words} {CLOSE} nats of ln {corpus.vocab_size} = {top:.4f}'),
    Row(TABLE, row, 'stays_at_ln_v', float(stays), unit='yes = 1'),
    Row(TABLE, row, f'nats_below_ln_v_after_{OPENING}', *late, unit='nats/token',
        note=f'without the first {OPENING} tokens of each stream, where all streams are aligned'),
  ]  # fmt: skip
