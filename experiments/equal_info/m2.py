# SPDX-License-Identifier: Apache-2.0
"""Table m2: language models over each tokenizer, at equal tokens, and some at equal text."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import coders, fit
from experiments.coders import Method
from experiments.equal_info import pictures
from experiments.equal_info.m2_text import Corpus, train_bytes
from experiments.fit import Fitted
from experiments.recipe import Run, Table, TrainSpec, TrainSpecs, naming, text_of
from lib import stats
from lib.compression import coded_text, teacher_forced
from lib.data import epochs, excerpts
from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.evals import ngram, token_scores
from lib.evals.token_scores import Scores
from lib.models.decoder import LanguageModel
from lib.report.results import Rows, name
from lib.stats import Estimate
from lib.tokenizers.coding.stepping import Stepped
from lib.train.experiment import Variables

LN2 = np.log(2)
OPAQUE = ('ac', 'static_ac')  # what the paper finds M2 cannot learn
CLOSE = 0.01  # nats per token from ln V that count as learning nothing
OPENING = 8  # first tokens of a stream, where all streams are aligned
REFERENCES = (
  'bytes',
  'sentencepiece',
  'bpe',
  'bpe_unsplit',
)  # kinds of reference tokenizers
# Models that learn almost nothing hardly vary by seed, so their variance is not pooled with others.
UNPOOLED = (*OPAQUE, 'gzip')
TEXT = {'budget': 'text'}  # in the rows of models that read equal bytes in training
DECODED = 200  # examples whose windows are decoded
ALONE = 'paired by seed and document; with a separate variance'

Size = tuple[str, int, int, int, int]  # one of m2.models


def check(config: ConfigDict) -> None:
  """Raises InputError for tokenizers or models that cannot be built."""
  options = config.m2
  coders.check_m1(config)
  fit.check(options, 'm2')
  for size in options.models:
    fit.check(sized(config, size), f'm2.models {size[0]}')
  methods = chosen(options.methods, 'm2')
  for method in chosen(options.equal_text, 'm2'):
    if method not in methods:
      raise InputError(f'm2.equal_text {method.name!r} is not one of m2.methods; add it there.')
  with naming('m2.example_bytes'):
    for split in ('train', 'validation', 'test'):
      excerpts.of_split(config.data.source, split, length=options.example_bytes, total=1)
  for method in methods:  # a token of 1 byte is the least; `fit_all` knows the tokens
    _check_epochs(config, method, 1.0, options.steps)


def _check_epochs(config: ConfigDict, method: Method, ratio: float, steps: int) -> None:
  """Raises InputError if M2 reads its text too often, at `ratio` bytes per token."""
  options = config.m2
  rows = steps * options.batch_size
  drawn = rows * (options.length * ratio if options.pack else options.example_bytes)
  limit = train_bytes(options, method)
  epochs.check('data.source', config.data.source, drawn, config.scale, limit)


def chosen(pairs: Sequence[tuple[str, int]], where: str) -> list[Method]:
  """The tokenizers of (name, bits of a token) pairs; raises InputError for unknown ones."""
  found = []
  for which, bits in pairs:
    if not (widths := coders.widths([which], [bits])):
      raise InputError(f'{where}.methods: {which} has no tokens of {bits} bits; use fewer.')
    found.append(widths[0][0])
  return found


def sized(config: ConfigDict, size: Size) -> ConfigDict:
  """The section m2 with the sizes of one of its models."""
  fields = dict(zip(('layers', 'dim', 'heads', 'mlp_dim'), size[1:], strict=True))
  return ConfigDict(config.m2.to_dict() | fields)


def make_model(config: ConfigDict, options: ConfigDict, vocab_size: int) -> LanguageModel:
  """The model of a section over `vocab_size` ids: M2, or one that decompresses."""
  rows = Learned(
    vocab_size,
    options.dim,
    tied=False,
    init_std=1.0,
    logit_scale=options.dim**-0.5,
    z_loss=options.z_loss,
    dtype=fit.dtype(config),
  )
  return LanguageModel(rows, fit.make_decoder(options, fit.dtype(config), options.length))


def train_specs(config: ConfigDict) -> TrainSpecs:
  """The models from the largest, over the largest vocabulary that tokens have."""
  vocab_size = max(config.tokenizers.sentencepiece, *(1 << bits for _, bits in config.m2.methods))

  def train_spec(size: Size) -> TrainSpec:
    options = sized(config, size)
    return fit.train_spec(options, make_model(config, options, vocab_size))

  return {
    f'm2/{name(model=size[0], v=vocab_size)}': functools.partial(train_spec, size)
    for size in reversed(config.m2.models)
  } | coders.m1_specs(config)


def where_of(size: Size, method: Method) -> dict[str, Any]:
  """The row of a model over a tokenizer."""
  return {'model': size[0], **method.where}


def train(config: ConfigDict, run: Run, size: Size, corpus: Corpus, **changes: Any) -> list[Fitted]:
  """M2 over a tokenizer, trained now or by another table of this run.

  `changes` are of the section m2, such as other `steps`.
  """
  options, where = sized(config, size), where_of(size, corpus.method)
  steps = changes.get('steps', options.steps)
  if steps != options.steps:
    where |= TEXT
    options.warmup *= options.steps / steps  # as many steps as the others have
  options.update(changes)
  model = make_model(config, options, corpus.vocab_size)
  return fit.fit(
    config, run, options, f'm2/{name(**where)}', model, corpus.batches,
    scores={'validation': functools.partial(_watch, corpus, model)}, tokenizer=corpus.tokenizer,
  )  # fmt: skip


def fit_all(
  config: ConfigDict, run: Run, size: Size, corpus: Corpus, **changes: Any
) -> tuple[list[Fitted], list[Scores]]:
  """The models of all seeds and their scores on test text; arguments as of `train`."""
  steps = changes.get('steps', config.m2.steps)
  _check_epochs(config, corpus.method, corpus.bytes_per_token, steps)
  trained = train(config, run, size, corpus, **changes)
  model = make_model(config, sized(config, size), corpus.vocab_size)
  documents = corpus.texts['test'].documents
  return trained, [
    token_scores.score(model, one.variables, corpus.rows(corpus.test), documents) for one in trained
  ]


def _watch(corpus: Corpus, model: LanguageModel, variables: Variables) -> dict[str, Any]:
  """Validation: bits per byte, and accuracy by position in the window where it has several."""
  documents, several = corpus.texts['validation'].documents, corpus.window > 1
  scores = token_scores.score(
    model, variables, corpus.rows(corpus.validation), documents, guess=several
  )
  values: dict[str, Any] = {'bits_per_byte': scores.nats.sum() / scores.bytes.sum() / LN2}
  if scores.right is not None:
    found = token_scores.by_position(scores.right, scores, corpus.window)
    values['accuracy_by_position'] = np.array([one.value for one in found])
    values['sem_by_position'] = np.array([one.sem or 0.0 for one in found])
  return values


def measure(config: ConfigDict, run: Run) -> Rows:
  """Trains M2 over every tokenizer and scores it on the same held-out text."""
  rows, steps = Rows('m2', coders.lossy), config.m2.steps
  found: dict[Size, dict[Method, np.ndarray]] = {}
  lean: dict[tuple[Size, Method], np.ndarray] = {}  # AC without its ends and rounding
  rates: dict[tuple[Size, Method], float] = {}
  for method in chosen(config.m2.methods, 'm2'):
    corpus = Corpus(config, run, method)
    for size in config.m2.models:
      trained, scores = fit_all(config, run, size, corpus)
      found.setdefault(size, {})[method] = token_scores.per_byte(scores) / LN2
      rates[size, method], where = trained[0].rate, where_of(size, method)
      _add_loss(rows, where, corpus, scores, steps)
      _add_levels(rows, where, corpus, scores)
      add_window_levels(rows, where, corpus, scores)
      _add_restored(rows, where, corpus)
      _add_cost(rows, where, corpus, trained[0].model.parameters, size[2], scores[0])
      fit.add_rate(rows, where, config.m2, trained[0].rate)
      if method.name == 'ac':
        lean[size, method] = _add_packaging(rows, where, corpus, scores)
      if method.name in OPAQUE:
        _add_opaque(rows, where, corpus, scores)
  for size, by_method in found.items():
    _add_against(rows, size, by_method)
    _add_equal_text(rows, config, run, size, rates)
  for (size, method), one in lean.items():
    for other, bits in found[size].items():
      if other.kind in REFERENCES:
        column = f'bits_without_end_and_rounding_above_{other.name}'
        rows.add(where_of(size, method), column, stats.crossed(one - bits), 'bits/byte', ALONE)
  return rows


def _add_loss(rows: Rows, where: dict, corpus: Corpus, scores: list[Scores], steps: int) -> None:
  """Bits per byte, with what the model was trained on."""
  options, size = corpus.config.m2, corpus.train.bytes
  read = corpus.read_bytes(steps)
  note = (
    f'{scores[0].bytes.sum():,} held-out bytes of {corpus.texts["test"].distinct} documents in '
    f'examples of {options.example_bytes}; {steps} training steps; one M1'
  )
  if not corpus.method.lossless:
    note += (
      '; not lossless: texts that share a window are not distinguished, so its bits are too few'
    )
  if isinstance(corpus.tokenizer, Stepped):
    note += '; encoded in one pass over the known text, which equals the codec up to rounding'
  bits = stats.crossed(token_scores.per_byte(scores)).times(1 / LN2)
  rows.add(where, 'bits_per_byte', bits, 'bits/byte', note)
  source = f'of {size:,} bytes, so {read / size:.2f} times'
  rows.add(where, 'training_bytes', read, 'bytes', source)


def _bits(scores: list[Scores], nats: Sequence[np.ndarray]) -> Estimate:
  """Bits per byte of nats [N, T] for each seed."""
  found = token_scores.contributions(scores, nats, [s.bytes for s in scores])
  return stats.crossed(found).times(1 / LN2)


def _level(scores: Scores, nats: np.ndarray) -> Estimate:
  """Bits per byte of nats [N, T] that depend only on the text."""
  [found] = token_scores.contributions([scores], [nats], [scores.bytes])
  return stats.mean(found, 'documents').times(1 / LN2)


def _add_levels(rows: Rows, where: dict, corpus: Corpus, scores: list[Scores]) -> None:
  """What a uniform and a unigram model would score on the same tokens, and M2's gain."""
  first = scores[0]
  uniform = np.log2(corpus.vocab_size) * first.real.sum() / first.bytes.sum()
  counted = ngram.NGram(corpus.train.tokens[0], 0, corpus.vocab_size)
  unigram = np.zeros(first.nats.shape)
  unigram[first.real] = counted.nats(first.targets[first.real])
  gain = _bits(scores, [unigram - s.nats for s in scores])
  rows.add(where, 'uniform_bits_per_byte', uniform, 'bits/byte')
  rows.add(where, 'unigram_bits_per_byte', _level(first, unigram), 'bits/byte')
  rows.add(where, 'bits_below_unigram', gain, 'bits/byte', 'paired on the same tokens')


def add_window_levels(rows: Rows, where: dict, corpus: Corpus, scores: list[Scores]) -> None:
  """Two unigrams over windows, which ignore the text before a window, and M2's gain over them."""
  if not corpus.window:
    return
  seeds = fit.seeds(corpus.config, corpus.config.m2)
  test = scores[0].windows(corpus.window)

  def nats(windows: np.ndarray) -> np.ndarray:
    bag = ngram.WindowUnigram(windows, corpus.vocab_size)
    return scores[0].of_windows(bag.nats(test))

  whole = nats(corpus.windows(corpus.train))
  counted = {
    '': [nats(corpus.windows_read(seed)) for seed in seeds],
    '_whole_corpus': [whole] * len(seeds),
  }
  notes = {
    '': 'counted on the windows that M2 reads in training',
    '_whole_corpus': f'counted on all {corpus.train.bytes:,} bytes of the train corpus',
  }
  levels = {'': _bits(scores, counted['']), '_whole_corpus': _level(scores[0], whole)}
  for which, level in levels.items():
    rows.add(where, f'window_unigram_bits_per_byte{which}', level, 'bits/byte', notes[which])
  stronger = min(counted, key=lambda which: np.sum(counted[which]))
  gain = _bits(scores, [n - s.nats for n, s in zip(counted[stronger], scores, strict=True)])
  note = 'paired on the same tokens; against the stronger unigram, ' + notes[stronger]
  rows.add(where, 'bits_below_window_unigram', gain, 'bits/byte', note)


def _add_restored(rows: Rows, where: dict, corpus: Corpus) -> None:
  """The share of windows that are restored, if not all."""
  if corpus.method.lossless:
    return
  every = corpus.texts['test']
  some = every.where(np.arange(len(every)) < DECODED)
  coded = coders.encode(corpus.run, corpus.tokenizer, some.texts)
  same, windows = coded_text.windows_restored(corpus.tokenizer, some.texts, coded)
  found = stats.ratio(same, windows, some.documents)
  rows.add(where, 'windows_restored', found, 'share', 'not lossless')


def _add_cost(
  rows: Rows, where: dict, corpus: Corpus, parameters: int, width: int, scores: Scores
) -> None:
  """FLOPs per byte and bytes per step of generation."""
  covered = stats.ratio(scores.bytes.sum(axis=1), scores.real.sum(axis=1), scores.documents)
  coder = coders.m1_flops(corpus.config, corpus.run, corpus.method.name)
  flops = 2 * parameters / covered.value + coder
  note = (
    '2 × parameters without embeddings / (bytes per step), as the paper counts, and 2 × those of '
    f'M1 where it encodes: here {coder / 1e6:.2f} of {flops / 1e6:.2f}'
  )
  if coder and 0 < coders.parse(corpus.method.name)[1] <= 16:
    note += '; windows of up to 16 bits are a table here, which needs no M1'
  with_head = flops + 2 * corpus.vocab_size * width / covered.value
  rows.add(where, 'bytes_per_step', covered, 'bytes/token')
  rows.add(where, 'mflops_per_byte', flops / 1e6, 'MFLOP/byte', note)
  note = 'and 2 × the parameters of the LM head'
  rows.add(where, 'mflops_per_byte_with_lm_head', with_head / 1e6, 'MFLOP/byte', note)


def _add_packaging(rows: Rows, where: dict, corpus: Corpus, scores: list[Scores]) -> np.ndarray:
  """The cost of end marks and rounding in our short streams, and M2's loss without them.

  M2 pays for these bits as for all others, since it cannot distinguish them. Examples longer than a
  row are cropped, so their ends are not scored.

  Returns:
    The loss without them, as contributions [S, D] of documents.
  """
  data = corpus.texts['test'].texts
  assert corpus.method.token_bits
  model = coders.m1(corpus.config, corpus.run)
  lengths = coded_text.code_lengths(teacher_forced.probabilities(model, data), data)
  costs = lengths.excess(corpus.test.counts * corpus.method.token_bits)
  whole = corpus.test.counts <= corpus.config.m2.length
  end, rounding = (np.where(whole, costs[part], 0) for part in ('end_mark', 'rounding'))
  spread = lambda bits: [bits[:, None] * LN2 * (np.arange(s.nats.shape[1]) == 0) for s in scores]
  rest = [s.nats - cost for s, cost in zip(scores, spread(end + rounding), strict=True)]
  per_byte = token_scores.contributions(scores, rest, [s.bytes for s in scores]) / LN2
  for column, found, note in (
    ('end_mark', _level(scores[0], spread(end)[0]), 'the mark that ends each example, of 14 bits'),
    ('rounding', _level(scores[0], spread(rounding)[0]),
     'each stream is rounded up to whole tokens'),
  ):  # fmt: skip
    rows.add(where, f'{column}_bits_per_byte', found, 'bits/byte', note)
  note = 'to compare with tokenizers that pay for neither'
  lean = stats.crossed(per_byte)
  rows.add(where, 'bits_per_byte_without_end_and_rounding', lean, 'bits/byte', note)
  return per_byte


def _add_opaque(rows: Rows, where: dict, corpus: Corpus, scores: list[Scores]) -> None:
  """The gap of the loss to ln V; the paper finds that nothing is learned."""
  top = np.log(corpus.vocab_size)
  notes = {
    0: f'ln {corpus.vocab_size} = {top:.4f} nats is the loss of a model that has learned nothing; '
    f'within {CLOSE} of it counts as that',
    OPENING: f'without the first {OPENING} tokens of each stream, where all streams are aligned',
  }
  for first, note in notes.items():
    below = [(top * s.real - s.nats)[:, first:] for s in scores]
    found = token_scores.contributions(scores, below, [s.real[:, first:] for s in scores])
    column = 'nats_below_ln_v' + f'_after_{first}' * bool(first)
    rows.add(where, column, stats.crossed(found), 'nats/token', note)


def _add_against(
  rows: Rows, size: Size, arms: Mapping[Method, np.ndarray], also: Mapping[str, str] = {}
) -> None:
  """Bits per byte of each arm [S, D] above those of the references, paired by seed and document.

  Arms with similar noise share one residual variance; each of the others has its own. GZip is
  also compared with greedy windows in tokens of the same width. `also` are further coordinates.
  """
  where = lambda method: where_of(size, method) | dict(also)
  pooled = {method: one for method, one in arms.items() if method.name not in UNPOOLED}
  alone = {method: one for method, one in arms.items() if method.name in UNPOOLED}
  for method, reference in arms.items():
    column = f'bits_above_{method.name}'
    if method.kind in REFERENCES and len(pooled) > 1:
      note = f'paired by seed and document; residual variance pooled over {len(pooled)} tokenizers'
      for which, found in stats.arms(pooled, method, 'seeds×documents').items():
        rows.add(where(which), column, found, 'bits/byte', note)
    for other, one in alone.items():
      same_width = (method.kind, other) == ('greedy', Method('gzip', method.token_bits))
      if method.kind in REFERENCES or same_width:
        rows.add(where(other), column, stats.crossed(one - reference), 'bits/byte', ALONE)


def _add_equal_text(
  rows: Rows, config: ConfigDict, run: Run, size: Size, rates: Mapping[tuple[Size, Method], float]
) -> None:
  """Models that read the same number of bytes in training: those of the method with the fewest
  bytes
  per token in table m2, so no method is trained for longer than there."""
  corpora = [Corpus(config, run, method) for method in chosen(config.m2.equal_text, 'm2')]
  fewest = min((corpus.bytes_per_token for corpus in corpora), default=0.0)
  arms = {}
  for corpus in corpora:
    steps = round(config.m2.steps * fewest / corpus.bytes_per_token)
    rate = rates[size, corpus.method]
    _, scores = fit_all(config, run, size, corpus, steps=steps, rates=(rate,))
    arms[corpus.method] = token_scores.per_byte(scores) / LN2
    _add_loss(rows, where_of(size, corpus.method) | TEXT, corpus, scores, steps)
  _add_against(rows, size, arms, TEXT)


TABLE = Table(
  'm2',
  measure,
  'Language models over tokens, trained on equally many tokens (rows with budget=text: on equally '
  'many bytes) and scored on the same held-out text, in bits per byte. window_unigram is a unigram '
  'over whole windows, which reads nothing before a window: only a model below it has learned from '
  'context. Greedy windows are not lossless, so their bits are too few. ± is one standard error '
  'over seeds and documents; all rows rest on one M1. Differences are paired by seed and document. '
  'Their variance over seeds is pooled over the tokenizers that can be learned; AC, StaticAC and '
  'GZip, which hardly vary by seed, are compared by their own differences alone.',
  (
    'bits_per_byte', 'unigram_bits_per_byte', 'uniform_bits_per_byte', 'bits_below_window_unigram',
    'windows_restored', 'bytes_per_step', 'mflops_per_byte', 'nats_below_ln_v',
  ),
  check=check,
  pictures=lambda rows, config, run: {'m2.png': pictures.m2(rows)},
  train_specs=train_specs,
  sources=text_of,
)  # fmt: skip
