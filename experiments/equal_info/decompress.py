# SPDX-License-Identifier: Apache-2.0
"""Table decompress: a model reads a compressed text and then writes its bytes.

A row holds the tokens of a text, padded to one length, and then its bytes, which alone are scored.
The control sees no tokens: it is a language model of the same bytes. If tokens can be read, the
model that sees them predicts more bytes correctly. Tokens that cannot be read are a burden, so
there is a second control: the same model before the tokens of another text.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import coders, runner
from experiments.equal_info import models, texts
from lib import stats
from lib.data import epochs, pipeline
from lib.data.encoded import Encoded
from lib.errors import InputError
from lib.models.decoder import LanguageModel
from lib.report.results import Row, name
from lib.stats import Estimate
from lib.train.experiment import Batch, Variables

TABLE = 'decompress'
CONTROL = 'none'
OTHERS = '_of_another_text'  # after a method's name: the second control
VALIDATION = 512  # texts


class Texts(NamedTuple):
  """Texts of equal length, with their tokens under each method.

  Attributes:
    data: uint8 [N, bytes].
    documents: int64 [N], the document that each text is cut from.
    tokens: method -> one int32 [n] for each text.
    left_out: share of texts left out, whose tokens need more room under some method.
  """

  data: np.ndarray
  documents: np.ndarray
  tokens: Mapping[str, Sequence[np.ndarray]]
  left_out: float


def check(config: ConfigDict) -> None:
  """Raises InputError for text, tokenizers or models that cannot be had."""
  options = config.decompress
  models.check(options, 'decompress')
  for field in ('text_bytes', 'room', 'train_texts', 'test_texts'):
    if options[field] < 1:
      raise InputError(f'decompress.{field} must be 1 or more; got {options[field]}.')
  for method in options.mismatched:
    if method not in options.methods:
      raise InputError(f'decompress.mismatched {method!r} is not one of decompress.methods.')
  for method in options.methods:
    if not coders.widths([method], [options.token_bits])[0][0].token_bits:
      raise InputError(f'decompress.methods: {method!r} has a vocabulary of its own; use others.')
  for split in ('train', 'validation', 'test'):
    texts.stretches(config, split, options.text_bytes, options.text_bytes)
  read = options.steps * options.batch_size
  epochs.check('data.source', config.data.source, read * options.text_bytes, config.scale)
  if config.scale in epochs.REFUSED_AT and read > epochs.MOST * options.train_texts:
    raise InputError(
      f'decompress.train_texts {options.train_texts} would be read more than {epochs.MOST} times '
      f'over in {options.steps} steps; {-(-read // epochs.MOST)} or more are right.'
    )


def arms(config: ConfigDict) -> list[str]:
  """The control, the methods, and the second controls of some."""
  options = config.decompress
  return [CONTROL, *options.methods, *(method + OTHERS for method in options.mismatched)]


def row_of(config: ConfigDict, arm: str) -> str:
  """The row of an arm."""
  if arm == CONTROL:
    return name(method=CONTROL)
  return name(method=arm, v=1 << config.decompress.token_bits)


def make_texts(config: ConfigDict, run: runner.Run, split: str, count: int) -> Texts:
  """Texts of a split whose tokens fit under every method: the same for all arms."""
  options = config.decompress
  found = texts.stretches(config, split, options.text_bytes, count * options.text_bytes)
  coded: dict[str, Encoded] = {}
  for arm in options.methods:
    tokenizer = coders.make(config, run, coders.Method(arm, options.token_bits))
    coded[arm] = coders.encode(run, tokenizer, found.texts, known=True)
  fits = np.all([coded[arm].counts <= options.room for arm in coded], axis=0)
  kept = np.flatnonzero(fits)
  if not kept.size:
    raise InputError(
      f'no text of {options.text_bytes} bytes has {options.room} tokens or fewer: raise '
      'decompress.room.'
    )
  data = np.stack([np.frombuffer(text, np.uint8) for text in found.where(fits).texts])
  tokens = {arm: [coded[arm][i][0] for i in kept.tolist()] for arm in coded}
  return Texts(data, found.documents[kept], tokens, 1 - kept.size / len(found))


def make_rows(config: ConfigDict, found: Texts, arm: str) -> dict[str, np.ndarray]:
  """The fields of a row for each text, int32 [N, room + bytes], or [N, bytes] for the control.

  Ids of tokens come after the 256 of bytes. Bytes begin at one place in every row.
  """
  size, room = found.data.shape[1], 0 if arm == CONTROL else config.decompress.room
  table = np.zeros((5, len(found.data), room + size), np.int32)
  targets, inputs, covered, segments, scored = table
  targets[:, room:], covered[:, room:] = found.data, 1
  segments[:, room:], scored[:, room:] = 1, 1
  given = found.tokens[arm.removesuffix(OTHERS)] if room else []
  if arm.endswith(OTHERS):
    given = [*given[1:], *given[:1]]
  for i, tokens in enumerate(given):
    targets[i, : tokens.size], segments[i, : tokens.size] = 256 + tokens, 1
  inputs[:, 1:], inputs[:, 0] = targets[:, :-1], vocab_size(config)
  if room:
    inputs[:, room] = vocab_size(config)  # the bytes begin: not the last token's room
  positions = np.tile(np.arange(room + size, dtype=np.int32), (len(found.data), 1))
  return {
    'targets': targets, 'inputs': inputs, 'bytes': covered, 'segments': segments,
    'positions': positions, 'scored': scored,
  }  # fmt: skip


def vocab_size(config: ConfigDict) -> int:
  """Ids of bytes and of tokens; every arm has all, so that all models are of one size."""
  return 256 + (1 << config.decompress.token_bits)


def plan(config: ConfigDict) -> runner.Plan:
  """The model of any arm but the control, whose rows are shorter."""
  options = config.decompress
  batch = pipeline.shapes(options.batch_size, options.room + options.text_bytes)
  batch['scored'] = batch['segments']
  return models.plan(options, make_model(config), batch, options.rates[0])


def make_model(config: ConfigDict):
  """The model of every arm."""
  options = config.decompress
  length = options.room + options.text_bytes
  return models.make_model(options, vocab_size(config), length, models.dtype(config))


def reader(model) -> Callable[[Variables, Mapping[str, np.ndarray]], tuple[np.ndarray, np.ndarray]]:
  """(variables, rows) -> which bytes are predicted, bool [N, bytes], and their nats."""

  @jax.jit
  def read(variables: Variables, batch: Batch):
    logits = model.apply(variables, batch, jax.random.key(0), method='logits')
    logits = jax.nn.log_softmax(logits)
    nats = -jax.numpy.take_along_axis(logits, batch['targets'][..., None], axis=-1)[..., 0]
    return logits.argmax(axis=-1) == batch['targets'], nats

  def over_rows(variables: Variables, rows: Mapping[str, np.ndarray]):
    size = int(rows['scored'][0].sum())
    parts = [read(variables, batch) for batch in _parts(rows, 128)]
    right, nats = (np.concatenate([np.asarray(p[i]) for p in parts])[:, -size:] for i in (0, 1))
    count = len(rows['targets'])
    return right[:count], nats[:count].astype(np.float64)

  return over_rows


def _parts(rows: Mapping[str, np.ndarray], size: int) -> Iterator[Batch]:
  """Rows in parts of one size, the last filled up with rows from the begin."""
  count = len(rows['targets'])
  for start in range(0, count, size):
    picked = np.arange(start, start + size) % count
    yield {field: values[picked] for field, values in rows.items()}


def make_batches(config: ConfigDict, rows: Mapping[str, np.ndarray], seed: int):
  """Training batches; arms of one seed see the same texts in the same order."""
  return pipeline.rows(
    rows, batch_size=config.decompress.batch_size, seed=seed,
  )  # fmt: skip


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Trains every arm and compares it with the controls, paired by seed and document."""
  options = config.decompress
  sizes = {'train': options.train_texts, 'validation': VALIDATION, 'test': options.test_texts}
  found = {split: make_texts(config, run, split, count) for split, count in sizes.items()}
  model, read = make_model(config), reader(make_model(config))
  rows: list[Row] = []
  right: dict[str, np.ndarray] = {}
  for arm in arms(config):
    by_split = {split: make_rows(config, texts_, arm) for split, texts_ in found.items()}

    def watch(variables: Variables, rows=by_split['validation']) -> dict[str, Any]:
      correct, nats = read(variables, rows)
      return {'accuracy': correct.mean(), 'nats_per_byte': nats.mean()}

    fit = functools.partial(_fit, config, run, arm, model, by_split['train'], watch)
    rate = models.choose_rate(options, fit, 'validation/nats_per_byte')
    rows.append(models.rate_row(TABLE, row_of(config, arm), options, rate))
    scores, histories = [], []
    for seed in models.seeds(config, options):
      trained = fit(options, rate, seed)
      scores.append(read(trained.variables, by_split['test']))
      histories.append(trained.history)
    right[arm], nats = (np.stack(part).astype(np.float64) for part in zip(*scores))
    rows += _arm(config, arm, found, right[arm], nats) + _curve(config, arm, histories)
  return rows + _chance(found) + against(config, found['test'].documents, right)


def _fit(
  config: ConfigDict, run: runner.Run, arm: str, model: LanguageModel,
  known: Mapping[str, np.ndarray], watch: Callable[[Variables], dict[str, Any]],
  options: ConfigDict, rate: float, seed: int | None = None,
) -> models.Trained:  # fmt: skip
  """The model of an arm and a seed; without one, that which tells how good a rate is."""
  part = name(rate=rate) if seed is None else name(seed=seed)
  seed = config.seed if seed is None else seed
  return models.fit(
    config, run, options, f'decompress/{row_of(config, arm)},{part}', model,
    make_batches(config, known, seed), {'validation': watch}, seed, rate,
  )  # fmt: skip


def contributions(values: np.ndarray, documents: np.ndarray) -> np.ndarray:
  """Contributions [S, D] of documents to the mean of values [S, N, bytes] of N texts."""
  below = np.full(documents.size, values.shape[-1])
  return stats.contributions(
    stats.by_group(values.sum(axis=-1), documents), stats.by_group(below, documents)
  )


def parts(size: int) -> dict[str, slice]:
  """A text of `size` bytes and its halves, by what their columns end with."""
  halves = {'_first_half': slice(0, size // 2), '_second_half': slice(size // 2, size)}
  return {'': slice(None)} | halves


def _arm(config, arm, found, right, nats) -> list[Row]:
  """Accuracy and nats of one arm, of the mean over seeds."""
  options, row = config.decompress, row_of(config, arm)
  texts_ = found['test']
  times = options.steps * options.batch_size / len(found['train'].data)
  note = (
    f'{len(texts_.data):,} held-out texts of {options.text_bytes} bytes; trained on '
    f'{found["train"].data.size:,} bytes, {times:.2f} times over; {texts_.left_out:.1%} of the '
    f'texts need more than {options.room} tokens and are left out of all arms; one M1'
  )
  of = lambda values: stats.crossed(contributions(values, texts_.documents))
  rows = [
    Row.of(TABLE, row, 'accuracy', of(right), unit='share', note=note),
    Row.of(TABLE, row, 'nats_per_byte', of(nats), unit='nats/byte'),
  ]
  for part, where in parts(options.text_bytes).items():
    if part:
      rows.append(Row.of(TABLE, row, f'accuracy{part}', of(right[..., where]), unit='share'))
  if arm != CONTROL:
    tokens = np.array([len(ids) for ids in texts_.tokens[arm.removesuffix(OTHERS)]])
    count = stats.ratio(tokens, np.ones_like(tokens), texts_.documents)
    rows.append(Row.of(TABLE, row, 'tokens_per_text', count, unit='tokens'))
  return rows


def _chance(found: Mapping[str, Texts]) -> list[Row]:
  """The accuracy of always guessing the most frequent byte."""
  guess = np.bincount(found['train'].data.ravel(), minlength=256).argmax()
  share = float((found['test'].data == guess).mean())
  note = 'always the most frequent byte; a share above the control has guessing taken out already'
  return [Row(TABLE, name(method=CONTROL), 'chance', share, unit='share', note=note)]


def _curve(config: ConfigDict, arm: str, histories: list[list[dict]]) -> list[Row]:
  """Validation accuracy by step."""
  lines = [[line for line in h if 'validation/accuracy' in line] for h in histories]
  return [
    Row.of(TABLE, row_of(config, arm), f'accuracy_at_step_{at[0]["step"]}',
           stats.mean([line['validation/accuracy'] for line in at]), unit='share')
    for at in zip(*lines)
  ]  # fmt: skip


def against(
  config: ConfigDict, documents: np.ndarray, right: Mapping[str, np.ndarray]
) -> list[Row]:
  """Accuracy of each arm above the controls, paired by seed and document.

  Args:
    config: of the recipe.
    documents: int64 [N], of the texts.
    right: arm -> which bytes it predicts, [S, N, bytes].
  """
  rows = []
  for part, where in parts(config.decompress.text_bytes).items():
    by_arm = {arm: contributions(one[..., where], documents) for arm, one in right.items()}
    above = lambda reference, found=by_arm: stats.arms(found, reference, 'seeds×documents')
    for arm, found in above(CONTROL).items():
      rows.append(_difference(config, arm, f'accuracy_above_control{part}', found))
    for arm in config.decompress.mismatched:
      found = above(arm + OTHERS)[arm]
      rows.append(_difference(config, arm, f'accuracy_above_another_text{part}', found))
  return rows


def _difference(config: ConfigDict, arm: str, column: str, found: Estimate) -> Row:
  half = found.half_width()
  note = 'paired by seed and document; residual variance pooled over the arms'
  if half is not None:
    note = f'95 % interval {found.value - half:+.4f} to {found.value + half:+.4f}; {note}'
  return Row.of(TABLE, row_of(config, arm), column, found, unit='share', note=note)
