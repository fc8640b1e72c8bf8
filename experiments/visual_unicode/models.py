# SPDX-License-Identifier: Apache-2.0
"""The models of the recipe: one decoder and one trained readout over input rows that are given.

The arms differ in their rows alone: seeds of equal number have the same decoder, the same readout
and the same batches in every arm, so that their losses are compared in pairs.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import rates, runner
from lib.data import pipeline
from lib.data.glyphs import GlyphTable
from lib.embeddings import glyph_rows
from lib.embeddings.glyph import Given
from lib.errors import InputError
from lib.models.decoder import Decoder, LanguageModel
from lib.report.results import name as row_name
from lib.train import language_model, optimizer, replicas
from lib.train.experiment import Batch, Experiment, Variables

IDENTITY = 0.5  # of the glyph's norm: a random direction for each token of 'glyph_deduped'


class Arm(NamedTuple):
  """The input rows of a model.

  Attributes:
    rows: (glyphs of V tokens, D, seed) -> rows [V, D].
    frozen: whether they stay as they are.
  """

  rows: Callable[[GlyphTable, int, int], np.ndarray]
  frozen: bool = True


@functools.cache
def glyph(glyphs: GlyphTable, dim: int) -> np.ndarray:
  """The paper's rows [V, D]: centred pixels, rotated, of norm 1; look-alikes share one."""
  return glyph_rows.glyph_rows(glyphs, dim)


@functools.lru_cache(maxsize=2)
def deduped(glyphs: GlyphTable, dim: int, seed: int) -> np.ndarray:
  """The paper's rows; each row that tokens share gets a random direction for each of them."""
  return glyph_rows.glyph_rows(glyphs, dim, identity=IDENTITY, seed=seed)


def normal(std: float) -> Callable[[GlyphTable, int, int], np.ndarray]:
  """Rows as tables that are trained begin."""
  return lambda glyphs, dim, seed: np.random.default_rng(seed).normal(
    scale=std, size=(len(glyphs.bits), dim)
  )


def random_code(width: int) -> Callable[[GlyphTable, int, int], np.ndarray]:
  """Random binary codes, no two alike."""
  return lambda glyphs, dim, seed: glyph_rows.random_code_rows(len(glyphs.bits), dim, width, seed)


ARMS: dict[str, Arm] = {
  'glyph': Arm(lambda glyphs, dim, seed: glyph(glyphs, dim)),
  'glyph_deduped': Arm(deduped),
  # A trained table's first rows have this root mean square: the frozen table at its scale.
  'glyph_rms_0.02': Arm(lambda glyphs, dim, seed: glyph_rows.with_rms(glyph(glyphs, dim), 0.02)),
  'glyph_rms_1': Arm(lambda glyphs, dim, seed: glyph_rows.with_rms(glyph(glyphs, dim), 1.0)),
  'shuffled': Arm(lambda glyphs, dim, seed: glyph_rows.shuffled(glyph(glyphs, dim), seed)),
  'random': Arm(lambda glyphs, dim, seed: glyph_rows.gaussian_rows(len(glyphs.bits), dim, seed)),
  # 16 bits are the token's id in binary, as in the paper; wider codes are random.
  'code_16': Arm(lambda glyphs, dim, seed: glyph_rows.id_code_rows(len(glyphs.bits), dim, 16)),
  'code_64': Arm(random_code(64)),
  'code_256': Arm(random_code(256)),
  'code_1024': Arm(random_code(1024)),
  # All rows equal: nothing of the input is read, whatever the decoder does.
  'equal': Arm(lambda glyphs, dim, seed: np.full((len(glyphs.bits), dim), dim**-0.5)),
  'trainable_0.02': Arm(normal(0.02), frozen=False),
  'trainable_1': Arm(normal(1.0), frozen=False),
  # Three starts of one root mean square, that of the glyph rows: which of them are their forms?
  'trainable_glyph': Arm(lambda glyphs, dim, seed: glyph(glyphs, dim), frozen=False),
  'trainable_shuffled': Arm(
    lambda glyphs, dim, seed: glyph_rows.shuffled(glyph(glyphs, dim), seed), frozen=False
  ),
  'trainable_random': Arm(
    lambda glyphs, dim, seed: glyph_rows.gaussian_rows(len(glyphs.bits), dim, seed), frozen=False
  ),
}
LABELS = {
  'glyph': 'glyphs, frozen',
  'glyph_deduped': 'glyphs made distinct, frozen',
  'glyph_rms_0.02': 'glyphs of rms 0.02, frozen',
  'glyph_rms_1': 'glyphs of rms 1, frozen',
  'shuffled': 'shuffled glyphs, frozen',
  'random': 'random, frozen',
  'code_16': 'id in 16 bits, frozen',
  'code_64': 'random code of 64 bits, frozen',
  'code_256': 'random code of 256 bits, frozen',
  'code_1024': 'random code of 1,024 bits, frozen',
  'equal': 'all rows equal, frozen',
  'trainable_0.02': 'trained from rms 0.02',
  'trainable_1': 'trained from rms 1',
  'trainable_glyph': 'trained from glyphs',
  'trainable_shuffled': 'trained from shuffled glyphs',
  'trainable_random': 'trained from random rows of norm 1',
}  # in plots


@dataclasses.dataclass(frozen=True)
class Trained:
  """One model, ready for evaluation.

  Attributes:
    model: ids to nats.
    variables: of this seed alone.
    history: metrics of its run; its values are at `index` of every list.
    index: among the seeds that were trained side by side.
    rate: the learning rate at its peak; None if it is untrained.
  """

  model: LanguageModel
  variables: Variables
  history: list[dict[str, Any]]
  index: int
  rate: float | None = None


def check(options: ConfigDict, where: str) -> None:
  """Raises InputError for models that cannot be built."""
  for field in ('layers', 'heads', 'dim', 'length', 'steps', 'batch_size', 'seeds', 'side_by_side'):
    if options[field] < 1:
      raise InputError(f'{where}.{field} must be 1 or more; got {options[field]}.')
  if options.dim % options.heads or options.dim // options.heads % 2:
    raise InputError(f'{where}.dim {options.dim} is no even multiple of {options.heads} heads.')
  if options.rates and min(options.rates) <= 0:
    raise InputError(f'{where}.rates must be positive; got {tuple(options.rates)}.')
  if not 0 < options.rate_share <= 1:
    raise InputError(f'{where}.rate_share must be above 0 and at most 1; got {options.rate_share}.')
  if not options.arms:
    raise InputError(f'{where}.arms is empty: choose among {", ".join(ARMS)}.')
  for arm in options.arms:
    if arm not in ARMS:
      raise InputError(f'{where}.arms: {arm!r} is not one of {", ".join(ARMS)}.')
    width = arm.removeprefix('code_')
    if width.isdigit() and options.dim % int(width):
      raise InputError(f'{where}.arms: {arm} needs a dim that {width} divides; got {options.dim}.')


def make_model(options: ConfigDict, arm: str, glyphs: GlyphTable, dtype: Any) -> LanguageModel:
  """The decoder of the options over an arm's rows for the tokens of a glyph table."""
  rows = lambda seed: ARMS[arm].rows(glyphs, options.dim, seed)
  return decoder_over(rows, len(glyphs.bits), ARMS[arm].frozen, options, dtype)


def decoder_over(
  rows: Callable[[int], np.ndarray], vocab_size: int, frozen: bool, options: ConfigDict, dtype: Any
) -> LanguageModel:
  """The decoder of the options over given rows [V, D]."""
  embedding = Given(vocab_size, options.dim, rows, frozen=frozen, dtype=dtype)
  return LanguageModel(embedding, make_decoder(options, dtype))


def make_decoder(options: ConfigDict, dtype: Any) -> Decoder:
  """The decoder of the options: rotary positions, an MLP of four times the width."""
  return Decoder(
    layers=options.layers,
    dim=options.dim,
    heads=options.heads,
    mlp_dim=4 * options.dim,
    position='rotary',
    remat=options.remat,
    dtype=dtype,
  )


def make_experiment(
  model: LanguageModel,
  batches: Sequence[grain.IterDataset],
  evaluations: Mapping[str, Iterable[Batch]] | None = None,
) -> Experiment:
  """What the loop trains: one model for each data set of `batches`, side by side.

  `evaluations` are held-out batches of a single model: all are scored on the same.
  """
  count = len(batches)
  single = Experiment(*language_model.loss_and_init(model), batches=())
  every = replicas.replicate(single, count, pipeline.stack(batches))
  for_all = lambda held_out: [{k: np.stack([v] * count) for k, v in b.items()} for b in held_out]
  scores = {
    name: language_model.held_out(every.loss_fn, for_all(held_out))
    for name, held_out in (evaluations or {}).items()
  }
  return dataclasses.replace(every, evaluations=scores)


def make_optimizer(options: ConfigDict):
  """AdamW or Muon on a cosine; clipping would join the seeds that train side by side."""
  schedule = optimizer.make_schedule(
    'cosine', options.peak, options.steps, int(options.warmup * options.steps), options.final
  )
  return optimizer.make_optimizer(options.optimizer, schedule, weight_decay=options.weight_decay)


def plan(config: ConfigDict, options: ConfigDict, arm: str, vocab_size: int) -> runner.Plan:
  """The model that `fit` would train over a vocabulary of this size."""
  rows = lambda seed: np.broadcast_to(np.float32(0), (vocab_size, options.dim))
  dtype, seeds = jnp.dtype(config.dtype), min(options.seeds, options.side_by_side)
  model = decoder_over(rows, vocab_size, ARMS[arm].frozen, options, dtype)
  experiment = replicas.replicate(Experiment(*language_model.loss_and_init(model), ()), seeds, ())
  batch = {
    field: jax.ShapeDtypeStruct((seeds, *one.shape), one.dtype)
    for field, one in pipeline.shapes(options.batch_size, options.length).items()
  }
  return runner.Plan(experiment, make_optimizer(options), batch, vocab_size)


def fit(
  config: ConfigDict,
  run: runner.Run,
  options: ConfigDict,
  table: str,
  arm: str,
  glyphs: GlyphTable,
  batches: Callable[[int], grain.IterDataset],
  validation: Sequence[Batch],
  evaluations: Mapping[str, Iterable[Batch]] | None = None,
) -> list[Trained]:
  """The seeds of an arm (one of ARMS) over the tokens of `glyphs`, as `fit_model` trains them.

  The learning rate is the one of `options.rates` that is best on the batches of `validation`.
  """
  model = make_model(options, arm, glyphs, jnp.dtype(config.dtype))

  def validation_loss(short: ConfigDict) -> float:
    name = f'{table}/{row_name(rate=short.peak)}/{row_name(arm=arm)}'
    [one] = fit_model(config, run, short, name, model, batches, {'validation': validation})
    return list(curve([one]).values())[-1][0]

  options = at_best_rate(options, validation_loss)
  name = f'{table}/{row_name(arm=arm)}'
  return fit_model(config, run, options, name, model, batches, evaluations)


def at_best_rate(options: ConfigDict, validation_loss: Callable[[ConfigDict], float]) -> ConfigDict:
  """The options with the best learning rate of `options.rates` as their `peak`.

  Args:
    options: the section with a model's training.
    validation_loss: options of one seed and `rate_share` of the steps -> loss on validation data.
  """

  def loss(rate: float) -> float:
    steps = max(1, round(options.rate_share * options.steps))
    one = {'peak': rate, 'steps': steps, 'evaluate_every': steps, 'seeds': 1, 'side_by_side': 1}
    return validation_loss(ConfigDict(options.to_dict() | one))

  peak = rates.choose(options.rates or (options.peak,), loss)
  return ConfigDict(options.to_dict() | {'peak': peak})


def curve(trained: list[Trained]) -> dict[int, list[float]]:
  """Validation bits per byte of all seeds by training step."""
  key = 'validation/bits_per_byte'
  found: dict[int, list[float]] = {}
  for one in trained:
    for line in one.history:
      if key in line:
        found.setdefault(line['step'], []).append(line[key][one.index])
  return found


def untrained(model: LanguageModel, batch: Batch, seeds: Iterable[int]) -> list[Trained]:
  """A model as it is before training, for each seed."""
  begin = jax.jit(model.init)
  keys = {seed: jax.random.key(seed) for seed in seeds}
  return [Trained(model, begin(key, batch, key), [], 0) for key in keys.values()]


def fit_model(
  config: ConfigDict,
  run: runner.Run,
  options: ConfigDict,
  name: str,
  model: LanguageModel,
  batches: Callable[[int], grain.IterDataset],
  evaluations: Mapping[str, Iterable[Batch]] | None = None,
) -> list[Trained]:
  """Trains all seeds of a model, or resumes them from the workdir.

  Args:
    config: of the run.
    run: where it lies.
    options: the section with the model's training.
    name: of its checkpoints, less the seeds.
    model: ids to nats.
    batches: seed -> training batches.
    evaluations: name -> held-out batches, for the history.

  Returns:
    A model for each seed config.seed, config.seed + 1, …
  """
  trained = []
  for first in range(config.seed, config.seed + options.seeds, options.side_by_side):
    seeds = range(first, min(first + options.side_by_side, config.seed + options.seeds))
    state, history = runner.train(
      make_experiment(model, [batches(seed) for seed in seeds], evaluations),
      make_optimizer(options),
      config,
      run,
      options,
      name=f'{name},{row_name(seeds=f"{seeds[0]}-{seeds[-1]}")}',
      seed=first,
    )
    for index in range(len(seeds)):
      variables = jax.tree.map(lambda leaf, index=index: leaf[index], state['variables'])
      trained.append(Trained(model, variables, history, index, options.peak))
  return trained
