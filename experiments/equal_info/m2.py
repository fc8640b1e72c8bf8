# SPDX-License-Identifier: Apache-2.0
"""Table m2: language models over each tokenizer, at equal tokens a step."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.equal_info import codecs, m1, models, texts
from lib.data import encoded, pipeline
from lib.data.encoded import Encoded
from lib.errors import InputError
from lib.evals import ngram
from lib.models.decoder import LanguageModel
from lib.report.results import Row, mean_and_sem, name
from lib.tokenizers import EqualInfo
from lib.tokenizers.base import Tokenizer
from lib.tokenizers.coding.stepping import Stepped
from lib.tokenizers.coding.window_streams import SteppedEqualInfo
from lib.train.experiment import Batch, Variables

TABLE = 'm2'
LN2 = np.log(2)
OPAQUE = ('ac', 'static_ac')  # what the paper finds M2 cannot learn
CLOSE = 0.01  # nats a token from ln V that count as learning nothing
OPENING = 8  # tokens at the begin of a stream, where all streams are aligned
HELD_OUT = 8  # examples of one held-out document at most
BY_M1 = ('ac', 'greedy', 'delay', 'exact', 'numbered')  # the paper counts M1 for these


class Corpus:
  """The text of M2 as tokens of one method, encoded once a workdir.

  Text is cut into examples of equal bytes, each a stream of its own, as in the paper.
  """

  def __init__(self, config: ConfigDict, run: runner.Run, method: codecs.Method):
    self.config, self.run, self.method = config, run, method
    self.tokenizer: Tokenizer = codecs.make(config, run, method)

  @property
  def vocab_size(self) -> int:
    """V."""
    return self.tokenizer.vocab_size

  @property
  def window(self) -> int:
    """Tokens of an equal-info window; 1 for all other tokenizers."""
    if isinstance(self.tokenizer, EqualInfo):
      bits = self.tokenizer.table.bits
    elif isinstance(self.tokenizer, SteppedEqualInfo):
      bits = self.tokenizer.bits
    else:
      return 1
    return bits // self.method.token_bits if self.method.token_bits else 1

  @functools.cached_property
  def train(self) -> Encoded:
    """Training examples; fewer where M1 has to step through them."""
    options = self.config.m2
    stepped = isinstance(self.tokenizer, Stepped)
    return self._encode('train', options.stepped_bytes if stepped else options.train_bytes)

  @functools.cached_property
  def validation(self) -> Encoded:
    """Examples that training is watched on."""
    return self._encode('validation', self.config.m2.validation_bytes)

  @functools.cached_property
  def test(self) -> Encoded:
    """Examples that the table is measured on."""
    return self._encode('test', self.config.m2.test_bytes)

  def _encode(self, split: str, total: int) -> Encoded:
    most = None if split == 'train' else HELD_OUT
    examples = texts.stretches(self.config, split, self.config.m2.example_bytes, total, most)
    work = functools.partial(codecs.encode, self.tokenizer)
    return encoded.encode(self.run.workdir / 'encoded', self.tokenizer.fingerprint, examples, work)

  def batches(self, seed: int):
    """Training batches."""
    options = self.config.m2
    return pipeline.batches(
      self.train, self.tokenizer, batch_size=options.batch_size, length=options.length, seed=seed,
      pack=options.pack, process_index=jax.process_index(), process_count=jax.process_count(),
    )  # fmt: skip

  def rows(self, examples: Encoded) -> Iterator[Batch]:
    """One pass over examples, each a row of its own, cropped to the length of training."""
    options = self.config.m2
    longest = -(-int(examples.counts.max()) // 8) * 8
    return iter(
      pipeline.batches(
        examples, self.tokenizer, batch_size=options.batch_size,
        length=min(longest, options.length), seed=0, pack=False, shuffle=False, repeat=False,
      )
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Scores:
  """A model's score of N examples of up to T tokens; all 0 where there is no token.

  Attributes:
    nats: float64 [N, T].
    bytes: int64 [N, T], what each token covers.
    real: bool [N, T].
    targets: int32 [N, T].
  """

  nats: np.ndarray
  bytes: np.ndarray
  real: np.ndarray
  targets: np.ndarray

  def per_byte(self) -> tuple[float, float]:
    """Nats a byte and the standard error over examples."""
    return _ratio(self.nats, self.bytes)

  def per_token(self, first: int = 0) -> tuple[float, float]:
    """Nats a token and the standard error over examples, from token `first` of each on."""
    return _ratio(self.nats[:, first:], self.real[:, first:])


def _ratio(above: np.ndarray, below: np.ndarray) -> tuple[float, float]:
  """Σ above / Σ below, and the error over rows [N, …]."""
  return ngram.per_character(above.sum(axis=1), below.sum(axis=1), len(above))


def check(config: ConfigDict) -> None:
  """Raises InputError for tokenizers or models that cannot be had."""
  options = config.m2
  if not options.models:
    raise InputError('m2.models must name at least one model.')
  for size in options.models:
    models.check(sized(config, size), f'm2.models {size[0]}')
  chosen(options.methods, 'm2')
  for field in ('example_bytes', 'train_bytes', 'stepped_bytes', 'validation_bytes', 'test_bytes'):
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


def scorer(model) -> Callable[[Variables, Iterator[Batch]], Scores]:
  """(variables, batches) -> the scores of all rows that hold a token."""
  apply = jax.jit(model.apply)
  key = jax.random.key(0)

  def score(variables: Variables, batches: Iterator[Batch]) -> Scores:
    parts = [[], [], [], []]  # type: ignore[var-annotated]
    for batch in batches:
      some = batch['segments'][:, 0] > 0
      real = batch['segments'][some] > 0
      nats = np.asarray(apply(variables, batch, key), np.float64)[some]
      found = (np.where(real, nats, 0), batch['bytes'][some], real, batch['targets'][some])
      for part, values in zip(parts, found, strict=True):
        part.append(values)
    return Scores(*map(np.concatenate, parts))

  return score


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


def by_position(values: np.ndarray, real: np.ndarray, window: int) -> np.ndarray:
  """Means [window] of values [N, T] by their position in the window."""
  place = np.arange(values.shape[1]) % window
  return np.array(
    [values[:, place == k][real[:, place == k]].mean() for k in range(window)]
  )  # fmt: skip


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


def over_seeds(values: list[tuple[float, float]]) -> tuple[float, float | None]:
  """Mean and error of (value, error over text) of each seed: over seeds if there are several."""
  if len(values) == 1:
    return values[0]
  return mean_and_sem([value for value, _ in values])


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
  gains = [_ratio(unigram - s.nats, s.bytes) for s in scores]
  return [
    put('uniform_bits_per_byte', uniform),
    put('unigram_bits_per_byte', *_ratio(unigram, first.bytes)),
    put('bits_below_unigram', *over_seeds(gains), 'paired on the same tokens'),
  ]


def _cost(
  row: str, corpus: Corpus, size: tuple, trained: models.Trained, scores: Scores
) -> list[Row]:
  """FLOPs a byte and bytes a step of generation."""
  ratio, sem = _ratio(scores.bytes, scores.real)
  kind, bits = codecs.parse(corpus.method.name)
  coder = 2 * m1.ready(corpus.config, corpus.run).parameters if kind in BY_M1 else 0
  readout = corpus.vocab_size * size[2]
  flops = 2 * trained.parameters / ratio + coder
  note = (
    '2 × parameters without embeddings / (bytes a step), as the paper counts, and 2 × those of M1 '
    f'where it encodes: here {coder / 1e6:.2f} of {flops / 1e6:.2f}'
  )
  if coder and 0 < bits <= 16:
    note += '; windows of up to 16 bits are a table here, which needs no M1'
  return [
    Row(TABLE, row, 'bytes_per_step', ratio, sem, unit='bytes/token'),
    Row(TABLE, row, 'mflops_per_byte', flops / 1e6, unit='MFLOP/byte', note=note),
    Row(TABLE, row, 'mflops_per_byte_with_readout', (flops + 2 * readout / ratio) / 1e6,
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
