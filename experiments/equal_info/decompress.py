# SPDX-License-Identifier: Apache-2.0
"""Table decompress: a model reads a compressed text and then writes its bytes.

A row has the tokens of a text, padded to one length, and then its bytes, which alone are scored.
The control sees no tokens: it is a language model of the same bytes. If tokens can be decoded, the
model that sees them predicts more bytes correctly. Tokens that cannot be decoded can hurt, so there
is a second control: the same model with the tokens of another text.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments import coders, fit
from experiments.coders import Method
from experiments.equal_info import m2, pictures
from experiments.fit import Fitted
from experiments.recipe import Run, Table, TrainSpec, naming, text_of
from lib import stats
from lib.data import epochs, excerpts, pipeline
from lib.data.encoded import Encoded
from lib.errors import InputError
from lib.evals import token_scores
from lib.models.decoder import LanguageModel
from lib.report.results import Rows, name
from lib.train.experiment import Variables

CONTROL = 'none'
OTHERS = '_of_another_text'  # after a method's name: the second control
VALIDATION = 512  # texts
TOGETHER = 128  # rows that are scored at once


class Texts(NamedTuple):
  """Texts of equal length, with their tokens under each method.

  Attributes:
    data: uint8 [N, bytes].
    documents: int64 [N], the document of each text.
    tokens: method -> one int32 [n] for each text.
    left_out: share of texts left out because some method needs more tokens than fit.
  """

  data: np.ndarray
  documents: np.ndarray
  tokens: Mapping[str, Sequence[np.ndarray]]
  left_out: float


def check(config: ConfigDict) -> None:
  """Raises InputError for missing text, or tokenizers or models that cannot be built."""
  options = config.decompress
  coders.check_m1(config)
  fit.check(options, 'decompress')
  if room(options) < 1:
    raise InputError(
      f'decompress.length must be above decompress.text_bytes {options.text_bytes}, to have room '
      f'for tokens; got {options.length}.'
    )
  for method in options.mismatched:
    if method not in options.methods:
      raise InputError(f'decompress.mismatched {method!r} is not one of decompress.methods.')
  for method in options.methods:
    with naming('decompress.methods'):
      [one, *_] = coders.widths([method], [options.token_bits])
    if not one[0].token_bits:
      raise InputError(f'decompress.methods: {method!r} has its own vocabulary; use others.')
  with naming('decompress.text_bytes'):
    for split in ('train', 'validation', 'test'):
      excerpts.of_split(config.data.source, split, length=options.text_bytes, total=1)
  read = options.steps * options.batch_size
  epochs.check('data.source', config.data.source, read * options.text_bytes, config.scale)
  if config.scale in epochs.REFUSED_AT and read > epochs.MOST * options.train_texts:
    raise InputError(
      f'decompress.train_texts {options.train_texts} would be read more than {epochs.MOST} '
      f'times in {options.steps} steps; {-(-read // epochs.MOST)} or more are right.'
    )


def room(options: ConfigDict) -> int:
  """The most tokens of a text."""
  return options.length - options.text_bytes


def where_of(config: ConfigDict, arm: str) -> dict[str, Any]:
  """The row of an arm."""
  return Method(arm, None if arm == CONTROL else config.decompress.token_bits).where


def make_texts(config: ConfigDict, run: Run, split: str, count: int) -> Texts:
  """Texts of a split whose tokens fit under every method: the same for all arms."""
  options = config.decompress
  length = options.text_bytes
  found = excerpts.of_split(config.data.source, split, length=length, total=count * length)
  coded: dict[str, Encoded] = {}
  for arm in options.methods:
    tokenizer = coders.make(config, run, Method(arm, options.token_bits))
    coded[arm] = coders.encode(run, tokenizer, found.texts, known=True)
  fits = np.all([coded[arm].counts <= room(options) for arm in coded], axis=0)
  kept = np.flatnonzero(fits)
  if not kept.size:
    raise InputError(
      f'no text of {options.text_bytes} bytes has {room(options)} tokens or fewer: raise '
      'decompress.length.'
    )
  data = np.stack([np.frombuffer(text, np.uint8) for text in found.where(fits).texts])
  tokens = {arm: [coded[arm][i][0] for i in kept.tolist()] for arm in coded}
  return Texts(data, found.documents[kept], tokens, 1 - kept.size / len(found))


def make_rows(config: ConfigDict, found: Texts, arm: str) -> dict[str, np.ndarray]:
  """The fields of a row for each text, int32 [N, room + bytes], or [N, bytes] for the control.

  Ids of tokens come after the 256 of bytes. Bytes begin at one place in every row.
  """
  given = [256 + ids for ids in found.tokens.get(arm.removesuffix(OTHERS), ())]
  if arm.endswith(OTHERS):
    given = [*given[1:], *given[:1]]
  first = 0 if arm == CONTROL else room(config.decompress)
  return pipeline.prefixed(given, found.data, first, vocab_size(config))


def vocab_size(config: ConfigDict) -> int:
  """Ids of bytes and of tokens; every arm has all, so that all models are of one size."""
  return 256 + (1 << config.decompress.token_bits)


def make_model(config: ConfigDict) -> LanguageModel:
  """The model of every arm."""
  return m2.make_model(config, config.decompress, vocab_size(config))


def train_spec(config: ConfigDict) -> TrainSpec:
  """The model of any arm but the control, whose rows are shorter."""
  options = config.decompress
  scored = pipeline.shapes(options.batch_size, options.length)['segments']
  return fit.train_spec(options, make_model(config), more={'scored': scored})


def read(
  model: LanguageModel, variables: Variables, rows: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
  """Which bytes of the rows are predicted, bool [N, bytes], and their nats."""
  size, count = int(rows['scored'][0].sum()), len(rows['targets'])
  # In batches of one size, the last filled up with the first rows.
  parts = [np.arange(start, start + TOGETHER) % count for start in range(0, count, TOGETHER)]
  batches = [{field: values[part] for field, values in rows.items()} for part in parts]
  found = token_scores.score(model, variables, batches, np.arange(count), guess=True)
  assert found.right is not None
  return found.right[:count, -size:], found.nats[:count, -size:]


def measure(config: ConfigDict, run: Run) -> Rows:
  """Trains every arm and compares it with the controls, paired by seed and document."""
  options, rows = config.decompress, Rows('decompress', coders.lossy)
  sizes = {'train': options.train_texts, 'validation': VALIDATION, 'test': options.test_texts}
  found = {split: make_texts(config, run, split, count) for split, count in sizes.items()}
  model = make_model(config)
  right: dict[str, np.ndarray] = {}
  for arm in (CONTROL, *options.methods, *(method + OTHERS for method in options.mismatched)):
    known = {split: make_rows(config, one, arm) for split, one in found.items()}

    def watch(variables: Variables, known=known) -> dict[str, Any]:
      correct, nats = read(model, variables, known['validation'])
      return {'accuracy': correct.mean(), 'nats_per_byte': nats.mean()}

    where = where_of(config, arm)
    # Arms of one seed see the same texts in the same order.
    batches = lambda seed, known=known: pipeline.batches_of_rows(
      known['train'], batch_size=options.batch_size, seed=seed
    )
    trained = fit.fit(
      config, run, options, f'decompress/{name(**where)}', model, batches,
      scores={'validation': watch}, choose_by='validation/nats_per_byte',
    )  # fmt: skip
    fit.add_rate(rows, where, options, trained[0].rate)
    scores = [read(model, one.variables, known['test']) for one in trained]
    right[arm], nats = (np.stack(part).astype(np.float64) for part in zip(*scores))
    _add_arm(rows, config, arm, found, right[arm], nats, trained)
  guess = np.bincount(found['train'].data.ravel(), minlength=256).argmax()
  share = float((found['test'].data == guess).mean())
  note = (
    'always the most frequent byte; a share above the control is already corrected for guessing'
  )
  rows.add(where_of(config, CONTROL), 'chance', share, 'share', note)
  add_against(rows, config, found['test'].documents, right)
  return rows


def contributions(values: np.ndarray, documents: np.ndarray) -> np.ndarray:
  """Contributions [S, D] of documents to the mean of values [S, N, bytes] of N texts."""
  below = np.full(documents.size, values.shape[-1])
  return stats.contributions(
    stats.by_group(values.sum(axis=-1), documents), stats.by_group(below, documents)
  )


def parts(size: int) -> dict[str, slice]:
  """Suffix of a column -> the part of a text of `size` bytes: all of it, and its halves."""
  halves = {'_first_half': slice(0, size // 2), '_second_half': slice(size // 2, size)}
  return {'': slice(None)} | halves


def _add_arm(
  rows: Rows, config: ConfigDict, arm: str, found: Mapping[str, Texts], right: np.ndarray,
  nats: np.ndarray, trained: Sequence[Fitted],
) -> None:  # fmt: skip
  """Accuracy and nats [S, N, bytes] of one arm, and validation accuracy by step."""
  options, where, test = config.decompress, where_of(config, arm), found['test']
  times = options.steps * options.batch_size / len(found['train'].data)
  note = (
    f'{len(test.data):,} held-out texts of {options.text_bytes} bytes; trained on '
    f'{found["train"].data.size:,} bytes, {times:.2f} times over; {test.left_out:.1%} of the '
    f'texts need more than {room(options)} tokens and are left out of all arms; one M1'
  )
  of = lambda values: stats.crossed(contributions(values, test.documents))
  for part, half in parts(options.text_bytes).items():
    rows.add(where, f'accuracy{part}', of(right[..., half]), 'share', '' if part else note)
  rows.add(where, 'nats_per_byte', of(nats), 'nats/byte')
  if arm != CONTROL:
    tokens = np.array([len(ids) for ids in test.tokens[arm.removesuffix(OTHERS)]])
    count = stats.ratio(tokens, np.ones_like(tokens), test.documents)
    rows.add(where, 'tokens_per_text', count, 'tokens')
  curves = [one.curve('validation/accuracy') for one in trained]
  for step in curves[0]:
    rows.add(where, f'accuracy_at_step_{step}', stats.mean([one[step] for one in curves]), 'share')


def add_against(
  rows: Rows, config: ConfigDict, documents: np.ndarray, right: Mapping[str, np.ndarray]
) -> None:
  """Accuracy of arms above the controls, paired by seed and document [N].

  `right`: which bytes an arm predicts, [S, N, bytes].
  """
  for part, half in parts(config.decompress.text_bytes).items():
    by_arm = {arm: contributions(one[..., half], documents) for arm, one in right.items()}
    found = {
      (arm, 'control'): one for arm, one in stats.arms(by_arm, CONTROL, 'seeds×documents').items()
    }
    for arm in config.decompress.mismatched:
      above = stats.arms(by_arm, arm + OTHERS, 'seeds×documents')
      found[arm, 'another_text'] = above[arm]
    for (arm, other), one in found.items():
      half_width = one.half_width()
      note = 'paired by seed and document; residual variance pooled over the arms'
      if half_width is not None:
        low, high = one.value - half_width, one.value + half_width
        note = f'95 % interval {low:+.4f} to {high:+.4f}; {note}'
      rows.add(where_of(config, arm), f'accuracy_above_{other}{part}', one, 'share', note)


TABLE = Table(
  'decompress',
  measure,
  'A decoder reads the tokens of a text and then writes its bytes: the share of bytes that it '
  'predicts, and that share above the same model without tokens (method=none), which '
  'corrects for guessing. M1 has no context at the beginning of an AC stream, so its first tokens '
  'are an equal-info window; the second half of a text shows what is read beyond them. Tokens of '
  'another text are a second control: they carry no information on the text. ± is one standard '
  'error over seeds and documents.',
  (
    'accuracy', 'chance', 'nats_per_byte', 'accuracy_above_control',
    'accuracy_above_control_second_half', 'accuracy_above_another_text_second_half',
  ),
  check=check,
  pictures=lambda rows, config, run: {'decompress.png': pictures.decompress(rows)},
  train_specs=lambda config: {'decompress': lambda: train_spec(config)} | coders.m1_specs(config),
  sources=text_of,
)  # fmt: skip
