# SPDX-License-Identifier: Apache-2.0
"""Table m2: language models over each tokenizer, at equal tokens, and some at equal text."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import coders, runner
from experiments.equal_info import models, texts
from experiments.equal_info import scores as scoring
from experiments.equal_info.corpus import Corpus, train_bytes
from experiments.equal_info.scores import Scores
from lib import stats
from lib.data import epochs, pipeline
from lib.errors import InputError
from lib.evals import coding, ngram
from lib.models import one_pass
from lib.models.decoder import LanguageModel
from lib.report.results import Row, name
from lib.stats import Estimate
from lib.tokenizers.coding.stepping import Stepped
from lib.train.experiment import Variables

TABLE = 'm2'
LN2 = np.log(2)
OPAQUE = ('ac', 'static_ac')  # what the paper finds M2 cannot learn
CLOSE = 0.01  # nats per token from ln V that count as learning nothing
OPENING = 8  # tokens at the beginning of a stream, where all streams are aligned
REFERENCES = ('bytes', 'sentencepiece', 'bpe')  # kinds of tokenizers that others are compared with
# Models that learn next to nothing hardly vary by seed, so they say nothing on the noise of others.
UNPOOLED = (*OPAQUE, 'gzip')
TEXT = ',budget=text'  # in the rows of models that read equal bytes in training
DECODED = 200  # examples whose windows are decoded


def check(config: ConfigDict) -> None:
  """Raises InputError for tokenizers or models that cannot be had."""
  options = config.m2
  if not options.models:
    raise InputError('m2.models must name at least one model.')
  for size in options.models:
    models.check(sized(config, size), f'm2.models {size[0]}')
  methods = chosen(options.methods, 'm2')
  for method in chosen(options.equal_text, 'm2'):
    if method not in methods:
      raise InputError(f'm2.equal_text {method.name!r} is not one of m2.methods; add it there.')
  for field in ('example_bytes', 'train_bytes', 'stepped_bytes', 'validation_bytes', 'test_bytes'):
    if options[field] < 1:
      raise InputError(f'm2.{field} must be 1 or more; got {options[field]}.')
  for split in ('train', 'validation', 'test'):
    texts.stretches(config, split, options.example_bytes, options.example_bytes)
  for method in methods:  # a token of 1 byte is the least; `fit_all` knows the tokens
    _check_epochs(config, method, 1.0, options.steps)


def _check_epochs(config: ConfigDict, method: coders.Method, ratio: float, steps: int) -> None:
  """Raises InputError if M2 reads its text too often, at `ratio` bytes a token."""
  options = config.m2
  rows = steps * options.batch_size
  drawn = rows * (options.length * ratio if options.pack else options.example_bytes)
  limit = train_bytes(options, method)
  epochs.check('data.source', config.data.source, drawn, config.scale, limit)


def chosen(pairs: Sequence[tuple[str, int]], where: str) -> list[coders.Method]:
  """The tokenizers of (name, bits of a token) pairs; raises InputError where there is none."""
  found = []
  for which, bits in pairs:
    if not (widths := coders.widths([which], [bits])):
      raise InputError(f'{where}.methods: {which} has no tokens of {bits} bits; use fewer.')
    found.append(widths[0][0])
  return found


def sized(config: ConfigDict, size: tuple[str, int, int, int, int]) -> ConfigDict:
  """The section m2 with the sizes of one of its models."""
  fields = dict(zip(('layers', 'dim', 'heads', 'mlp_dim'), size[1:], strict=True))
  return ConfigDict(config.m2.to_dict() | fields)


def make_model(config: ConfigDict, size: tuple, vocab_size: int) -> LanguageModel:
  """M2 of a size over `vocab_size` ids."""
  options = sized(config, size)
  return models.make_model(options, vocab_size, options.length, models.dtype(config))


def plans(config: ConfigDict) -> dict[str, Callable[[], runner.Plan]]:
  """The models from the largest, over the largest vocabulary that tokens have."""
  vocab_size = max(config.tokenizers.sentencepiece, *(1 << bits for _, bits in config.m2.methods))
  batch = pipeline.shapes(config.m2.batch_size, config.m2.length)

  def plan(size: tuple) -> runner.Plan:
    options = sized(config, size)
    return models.plan(options, make_model(config, size, vocab_size), batch, options.rates[0])

  return {
    f'm2/{name(model=size[0], v=vocab_size)}': functools.partial(plan, size)
    for size in reversed(config.m2.models)
  }


def row_of(size: tuple, method: coders.Method) -> str:
  """The row of a model over a tokenizer."""
  return f'{name(model=size[0])},{method.row}'


def fit(
  config: ConfigDict, run: runner.Run, size: tuple, corpus: Corpus, seed: int, steps: int = 0
) -> models.Trained:
  """M2 over a tokenizer, trained now or by another table of this run.

  Args:
    config: of the recipe.
    run: its workdir keeps the model.
    size: one of m2.models.
    corpus: what M2 reads.
    seed: of its parameters and of the order of its text.
    steps: of training; 0 for those of the config.
  """
  options, row = sized(config, size), row_of(size, corpus.method)
  if steps not in (0, options.steps):
    options.steps, row = steps, row + TEXT
  rate = learning_rate(config, run, size, corpus)
  return _fit(config, run, size, corpus, seed, options, row, rate)


def _fit(
  config: ConfigDict, run: runner.Run, size: tuple, corpus: Corpus, seed: int,
  options: ConfigDict, row: str, rate: float,
) -> models.Trained:  # fmt: skip
  model = make_model(config, size, corpus.vocab_size)
  return models.fit(
    config, run, options, f'm2/{row},{name(seed=seed)}', model, corpus.batches(seed),
    {'validation': _watch(model, corpus)}, seed, rate,
  )  # fmt: skip


def learning_rate(config: ConfigDict, run: runner.Run, size: tuple, corpus: Corpus) -> float:
  """The learning rate of a model over a tokenizer, also of that trained on equal text."""
  row = row_of(size, corpus.method)

  def train(options: ConfigDict, rate: float) -> models.Trained:
    which = f'{row},{name(rate=rate)}'
    return _fit(config, run, size, corpus, config.seed, options, which, rate)

  return models.choose_rate(sized(config, size), train, 'validation/bits_per_byte')


def fit_all(
  config: ConfigDict, run: runner.Run, size: tuple, corpus: Corpus, steps: int = 0
) -> tuple[list[models.Trained], list[Scores]]:
  """The models of all seeds and their scores on test text; `steps` as in `fit`."""
  _check_epochs(config, corpus.method, bytes_per_token(corpus), steps or config.m2.steps)
  score = scoring.scorer(make_model(config, size, corpus.vocab_size))
  documents = corpus.excerpts('test').documents
  trained = [
    fit(config, run, size, corpus, seed, steps) for seed in models.seeds(config, config.m2)
  ]
  return trained, [score(one.variables, corpus.rows(corpus.test), documents) for one in trained]


def read_bytes(corpus: Corpus, steps: int) -> float:
  """Bytes of text that M2 reads in `steps` training steps."""
  options = corpus.config.m2
  return steps * options.batch_size * options.length * bytes_per_token(corpus)


def bytes_per_token(corpus: Corpus) -> float:
  """Bytes of the train corpus per token."""
  return corpus.train.bytes / corpus.train.tokens.shape[1]


def _watch(model, corpus: Corpus) -> Callable[[Variables], Mapping[str, Any]]:
  """Validation: bits per byte, and accuracy by position in the window where it has several."""
  score = scoring.scorer(model)
  documents = corpus.excerpts('validation').documents
  guess = jax.jit(
    lambda variables, batch: model.apply(
      variables, batch, jax.random.key(0), method='logits'
    ).argmax(axis=-1)
  )  # fmt: skip

  def evaluate(variables: Variables) -> dict[str, Any]:
    scores = score(variables, corpus.rows(corpus.validation), documents)
    values: dict[str, Any] = {'bits_per_byte': scores.nats.sum() / scores.bytes.sum() / LN2}
    if corpus.window > 1:
      guesses = [
        np.asarray(guess(variables, batch))[batch['segments'][:, 0] > 0]
        for batch in corpus.rows(corpus.validation)
      ]
      right = (np.concatenate(guesses) == scores.targets) & scores.real
      found = by_position(right, scores, corpus.window)
      values['accuracy_by_position'] = np.array([one.value for one in found])
      values['sem_by_position'] = np.array([one.sem or 0.0 for one in found])
    return values

  return evaluate


def by_position(values: np.ndarray, scores: Scores, window: int) -> list[Estimate]:
  """Means over tokens of values [N, T], 0 where there is no token, by position in the window."""
  where = [scoring.places(values.shape[1], window, k) for k in range(window)]
  sums = lambda part, w: part[:, w].sum(axis=1)
  return [stats.ratio(sums(values, w), sums(scores.real, w), scores.documents) for w in where]


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Trains M2 over every tokenizer and scores it on the same held-out text."""
  rows: list[Row] = []
  found: dict[tuple, dict[coders.Method, np.ndarray]] = {}
  lean: dict[tuple[tuple, coders.Method], np.ndarray] = {}  # AC without its ends and rounding
  for method in chosen(config.m2.methods, 'm2'):
    corpus = Corpus(config, run, method)
    for size in config.m2.models:
      trained, scores = fit_all(config, run, size, corpus)
      found.setdefault(size, {})[method] = scoring.per_byte(scores) / LN2
      row = row_of(size, method)
      rows += _loss(row, corpus, scores, config.m2.steps) + _levels(row, corpus, scores)
      rows += window_levels(TABLE, row, corpus, scores) + _restored(row, corpus)
      rows += _cost(row, corpus, size, trained[0], scores[0])
      rate = learning_rate(config, run, size, corpus)
      rows.append(models.rate_row(TABLE, row, config.m2, rate))
      if method.name == 'ac':
        more, lean[size, method] = _packaging(row, corpus, scores)
        rows += more
      if method.name in OPAQUE:
        rows += _opaque(row, corpus, scores)
  for size, by_method in found.items():
    rows += _against(size, by_method)
    rows += _equal_text(config, run, size)
  for (size, method), one in lean.items():
    rows += [
      _paired(row_of(size, method), f'bits_without_end_and_rounding_above_{other.name}',
              one - found[size][other])
      for other in found[size] if coders.parse(other.name)[0] in REFERENCES
    ]  # fmt: skip
  return rows


def _loss(row: str, corpus: Corpus, scores: list[Scores], steps: int) -> list[Row]:
  """Bits per byte, with what the model was trained on."""
  options, train = corpus.config.m2, corpus.train
  read = read_bytes(corpus, steps)
  test = corpus.excerpts('test')
  note = (
    f'{scores[0].bytes.sum():,} held-out bytes of {test.distinct} documents in examples of '
    f'{options.example_bytes}; {steps} training steps; one M1'
  )
  if not corpus.method.lossless:
    note += '; not lossless: texts that share a window are one to this model, and its bits too few'
  if isinstance(corpus.tokenizer, Stepped):
    note += '; M1 read the known text ahead, which gives the streams of the codec but for rounding'
  source = f'of {train.bytes:,} bytes, so {read / train.bytes:.2f} times over'
  return [
    Row.of(TABLE, row, 'bits_per_byte', stats.crossed(scoring.per_byte(scores)).times(1 / LN2),
           unit='bits/byte', note=note),
    Row(TABLE, row, 'training_bytes', read, unit='bytes', note=source),
  ]  # fmt: skip


def _bits(scores: list[Scores], nats: Sequence[np.ndarray]) -> Estimate:
  """Bits per byte of nats [N, T] for each seed."""
  found = scoring.contributions(scores, nats, [s.bytes for s in scores])
  return stats.crossed(found).times(1 / LN2)


def _level(scores: Scores, nats: np.ndarray) -> Estimate:
  """Bits per byte of nats [N, T] that depend on the text alone."""
  [found] = scoring.contributions([scores], [nats], [scores.bytes])
  return stats.mean(found, 'documents').times(1 / LN2)


def _levels(row: str, corpus: Corpus, scores: list[Scores]) -> list[Row]:
  """What a uniform and a unigram model would score on the same tokens, and M2's gain."""
  first = scores[0]
  uniform = np.log2(corpus.vocab_size) * first.real.sum() / first.bytes.sum()
  counted = ngram.NGram(corpus.train.tokens[0], 0, corpus.vocab_size)
  unigram = np.zeros(first.nats.shape)
  unigram[first.real] = counted.nats(first.targets[first.real])
  put = functools.partial(Row.of, TABLE, row, unit='bits/byte')
  return [
    Row(TABLE, row, 'uniform_bits_per_byte', uniform, unit='bits/byte'),
    put('unigram_bits_per_byte', _level(first, unigram)),
    put('bits_below_unigram', _bits(scores, [unigram - s.nats for s in scores]),
        note='paired on the same tokens'),
  ]  # fmt: skip


def window_levels(table_: str, row: str, corpus: Corpus, scores: list[Scores]) -> list[Row]:
  """Two unigrams over whole windows, which read nothing before a window, and M2's gain on them."""
  if not corpus.window:
    return []
  seeds = models.seeds(corpus.config, corpus.config.m2)
  steps, test = corpus.config.m2.steps, scores[0].windows(corpus.window)

  def nats(windows: np.ndarray) -> np.ndarray:
    bag = ngram.WindowUnigram(windows, corpus.vocab_size)
    return scores[0].of_windows(bag.nats(test))

  whole = nats(corpus.windows(corpus.train))
  counted = {
    '': [nats(corpus.windows_read(seed, steps)) for seed in seeds],
    '_whole_corpus': [whole] * len(seeds),
  }
  notes = {
    '': 'counted on the windows that M2 reads in training',
    '_whole_corpus': f'counted on all {corpus.train.bytes:,} bytes of the train corpus',
  }
  put = functools.partial(Row.of, table_, row, unit='bits/byte')
  column = 'window_unigram_bits_per_byte'
  rows = [
    put(column, _bits(scores, counted['']), note=notes['']),
    put(f'{column}_whole_corpus', _level(scores[0], whole), note=notes['_whole_corpus']),
  ]
  stronger = min(counted, key=lambda which: np.sum(counted[which]))
  gain = _bits(scores, [n - s.nats for n, s in zip(counted[stronger], scores, strict=True)])
  note = 'paired on the same tokens; against the stronger unigram, ' + notes[stronger]
  return [*rows, put('bits_below_window_unigram', gain, note=note)]


def _restored(row: str, corpus: Corpus) -> list[Row]:
  """The share of windows that come back, where that is not all of them."""
  if corpus.method.lossless:
    return []
  some = corpus.excerpts('test').where(np.arange(len(corpus.excerpts('test'))) < DECODED)
  coded = coders.encode(corpus.run, corpus.tokenizer, some.texts)
  same, windows = coding.windows_restored(corpus.tokenizer, some.texts, coded)
  found = stats.ratio(same, windows, some.documents)
  return [Row.of(TABLE, row, 'windows_restored', found, unit='share', note='not lossless')]


def _cost(
  row: str, corpus: Corpus, size: tuple, trained: models.Trained, scores: Scores
) -> list[Row]:
  """FLOPs per byte and bytes per step of generation."""
  tokens = scores.real.sum(axis=1)
  covered = stats.ratio(scores.bytes.sum(axis=1), tokens, scores.documents)
  _, bits = coders.parse(corpus.method.name)
  coder = coders.m1_flops(corpus.config, corpus.run, corpus.method.name)
  readout = corpus.vocab_size * size[2]
  flops = 2 * trained.parameters / covered.value + coder
  note = (
    '2 × parameters without embeddings / (bytes per step), as the paper counts, and 2 × those of '
    f'M1 where it encodes: here {coder / 1e6:.2f} of {flops / 1e6:.2f}'
  )
  if coder and 0 < bits <= 16:
    note += '; windows of up to 16 bits are a table here, which needs no M1'
  return [
    Row.of(TABLE, row, 'bytes_per_step', covered, unit='bytes/token'),
    Row(TABLE, row, 'mflops_per_byte', flops / 1e6, unit='MFLOP/byte', note=note),
    Row(TABLE, row, 'mflops_per_byte_with_lm_head', (flops + 2 * readout / covered.value) / 1e6,
        unit='MFLOP/byte', note='and 2 × the parameters of the LM head'),
  ]  # fmt: skip


def _packaging(row: str, corpus: Corpus, scores: list[Scores]) -> tuple[list[Row], np.ndarray]:
  """What end marks and rounding cost in streams as short as ours, and M2's loss without them.

  The loss is given as contributions [S, D] of documents too.

  M2 pays for these bits of a stream as for all others, since it cannot tell bits apart. Examples
  longer than a row are cropped, so their ends are not scored.
  """
  data = corpus.excerpts('test').texts
  assert corpus.method.token_bits
  model = coders.m1(corpus.config, corpus.run)
  lengths = coding.code_lengths(one_pass.probabilities(model, data), data)
  costs = lengths.excess(corpus.test.counts * corpus.method.token_bits)
  whole = corpus.test.counts <= corpus.config.m2.length
  end, rounding = (np.where(whole, costs[part], 0) for part in ('end_mark', 'rounding'))
  spread = lambda bits: [bits[:, None] * LN2 * (np.arange(s.nats.shape[1]) == 0) for s in scores]
  rest = [s.nats - cost for s, cost in zip(scores, spread(end + rounding), strict=True)]
  per_byte = scoring.contributions(scores, rest, [s.bytes for s in scores]) / LN2
  put = functools.partial(Row.of, TABLE, row, unit='bits/byte')
  rows = [
    put('end_mark_bits_per_byte', _level(scores[0], spread(end)[0]),
        note='the mark that ends each example, of 14 bits'),
    put('rounding_bits_per_byte', _level(scores[0], spread(rounding)[0]),
        note='each stream is rounded up to whole tokens'),
    put('bits_per_byte_without_end_and_rounding', stats.crossed(per_byte),
        note='to compare with tokenizers that pay for neither'),
  ]  # fmt: skip
  return rows, per_byte


def _opaque(row: str, corpus: Corpus, scores: list[Scores]) -> list[Row]:
  """How far below ln V the model came: the paper finds that nothing is learned."""
  top = np.log(corpus.vocab_size)

  def gain(first: int) -> Estimate:
    below = [(top * s.real - s.nats)[:, first:] for s in scores]
    return stats.crossed(scoring.contributions(scores, below, [s.real[:, first:] for s in scores]))

  put = functools.partial(Row.of, TABLE, row, unit='nats/token')
  return [
    put('nats_below_ln_v', gain(0), note=f'ln {corpus.vocab_size} = {top:.4f} nats is the loss of '
        f'a model that has learned nothing; within {CLOSE} of it counts as that'),
    put(f'nats_below_ln_v_after_{OPENING}', gain(OPENING),
        note=f'without the first {OPENING} tokens of each stream, where all streams are aligned'),
  ]  # fmt: skip


def _against(size: tuple, arms: Mapping[coders.Method, np.ndarray], after: str = '') -> list[Row]:
  """Bits per byte of each arm [S, D] above those of the references, paired by seed and document.

  Arms whose noise is alike share one residual variance; each of the others has its own. GZip is
  also compared with greedy windows in tokens of the same width.

  Args:
    size: of the models.
    arms: bits per byte of the arms' models, contributions of documents.
    after: what the names of rows end with.
  """
  rows = []
  row = lambda method: row_of(size, method) + after
  pooled = {row(method): one for method, one in arms.items() if method.name not in UNPOOLED}
  alone = {method: one for method, one in arms.items() if method.name in UNPOOLED}
  for method, reference in arms.items():
    kind, column = coders.parse(method.name)[0], f'bits_above_{method.name}'
    if kind in REFERENCES and len(pooled) > 1:
      note = f'paired by seed and document; residual variance pooled over {len(pooled)} tokenizers'
      rows += [
        Row.of(TABLE, which, column, found, unit='bits/byte', note=note)
        for which, found in stats.arms(pooled, row(method), 'seeds×documents').items()
      ]
    rows += [
      _paired(row(other), column, one - reference)
      for other, one in alone.items()
      if kind in REFERENCES or (kind, other) == ('greedy', coders.Method('gzip', method.token_bits))
    ]
  return rows


def _paired(row: str, column: str, differences: np.ndarray) -> Row:
  """The mean of differences [S, D] of seeds and documents."""
  note = 'paired by seed and document; with a variance of its own'
  return Row.of(TABLE, row, column, stats.crossed(differences), unit='bits/byte', note=note)


def _equal_text(config: ConfigDict, run: runner.Run, size: tuple) -> list[Row]:
  """Models that read equally many bytes in training: what the method of fewest bytes per token
  reads in table m2, so that no method is trained for longer than there."""
  corpora = [Corpus(config, run, method) for method in chosen(config.m2.equal_text, 'm2')]
  ratios = [bytes_per_token(corpus) for corpus in corpora]
  rows: list[Row] = []
  arms = {}
  for corpus, ratio in zip(corpora, ratios, strict=True):
    steps = round(config.m2.steps * min(ratios) / ratio)
    _, scores = fit_all(config, run, size, corpus, steps)
    arms[corpus.method] = scoring.per_byte(scores) / LN2
    rows += _loss(row_of(size, corpus.method) + TEXT, corpus, scores, steps)
  return rows + _against(size, arms, TEXT)
