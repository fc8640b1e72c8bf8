# SPDX-License-Identifier: Apache-2.0
"""Growth on a frozen substrate (arXiv 2507.07129): layers one by one, and experts side by side.

All models share the frozen rows, and the training compute of the monolithic one, counted as in
`lib.models.growth.Flops`.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.visual_unicode import models, scores, text
from lib import stats
from lib.data import pipeline, sources
from lib.errors import InputError
from lib.models.decoder import LanguageModel
from lib.models.growth import Flops, Stage
from lib.report import plots
from lib.report.results import Row, name
from lib.train import language_model, replicas
from lib.train.experiment import Batch, Experiment, Variables

CAPTION = (
  'Bits per byte of held-out text after equal training compute. `grown`: one layer is trained and '
  'frozen, the next put on it, and so on; the LM head is trained throughout. `experts`: models '
  'trained apart, each on its own part of the documents and with its share of the compute; their '
  'logits are averaged. Differences are paired by seed; their residual variance is pooled over the '
  'ways of training, with the variance over documents added. Each way has its own `learning_rate`, '
  'chosen by validation text with one seed and a share of the steps. '
  'Compute is that of matrix products: 2 operations a multiply-add, backward twice forward, '
  'nothing backward through frozen layers.'
)
SUMMARY = (
  'model=',
  (
    'bits_per_byte',
    'difference_bits_per_byte',
    'learning_rate',
    'training_tokens',
    'training_flops',
  ),
)
WAYS = ('monolithic', 'grown', 'experts')  # of training; methods of `Seeds`
ANOTHER = 1000  # between seeds of streams that one model reads one after the other


class Part:
  """Every `count`-th document of a source, from `first`."""

  def __init__(self, source: sources.Source, first: int, count: int):
    self._source, self._first, self._count = source, first, count

  def __len__(self) -> int:
    return len(range(self._first, len(self._source), self._count))

  def __getitem__(self, index: int) -> bytes:
    return self._source[self._first + index * self._count]


class Result(NamedTuple):
  """One way of training.

  Attributes:
    nats: of each held-out excerpt, [N], for each seed.
    tokens: that one seed was trained on.
    flops: of the training of one seed.
  """

  nats: list[np.ndarray]
  tokens: int
  flops: int


def check(config: ConfigDict) -> None:
  """Raises InputError for text or models that cannot be had."""
  options = config.growth
  text.check(config)
  models.check(options, 'growth')
  text.check_sizes(config, options)
  if options.layers < 2 or options.experts < 2 or options.steps < options.experts:
    raise InputError(
      'growth needs 2 layers, 2 experts and a step for each expert, or more; got '
      f'{options.layers} layers, {options.experts} experts and {options.steps} steps.'
    )


def flops(options: ConfigDict, vocab_size: int) -> Flops:
  """What a token costs."""
  return Flops(options.dim, 4 * options.dim, options.length, vocab_size)


def stage_steps(options: ConfigDict, vocab_size: int) -> int:
  """Steps of each stage, such that all together cost what the monolithic model does."""
  per_token = flops(options, vocab_size)
  stages = sum(per_token.step(1, below) for below in range(options.layers))
  return max(1, round(options.steps * per_token.step(options.layers) / stages))


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Trains the three ways and compares them seed by seed."""
  options, opened = config.growth, text.open_text(config)
  test = text.held_out(opened, options, 'test', options.test)
  dtype = jnp.dtype(config.dtype)
  whole = models.make_model(options, options.arms[0], opened.glyphs, dtype)
  results: dict[str, Result] = {}
  rows = []
  for way in WAYS:
    best = _at_best_rate(config, run, opened, whole, way)
    rows.append(
      Row('growth', name(model=way), 'learning_rate', best.peak, note='at its peak; of each stage')
    )
    for first in range(config.seed, config.seed + options.seeds, options.side_by_side):
      last = min(first + options.side_by_side, config.seed + options.seeds)
      seeds = Seeds(config, run, best, 'growth', range(first, last), opened, whole, test)
      for model, result in getattr(seeds, way)().items():
        before = results[model].nats if model in results else []
        results[model] = result._replace(nats=before + result.nats)
  bits = {model: scores.bits_by_document(result.nats, test) for model, result in results.items()}
  rows += [row for model in results for row in _rows(config, model, results[model], bits[model])]
  for model, reference, row in comparisons(list(results)):
    found = stats.arms(bits, reference, 'seeds×documents')[model]
    note = 'above 0: worse than the reference'
    rows.append(
      Row.of('growth', row, 'difference_bits_per_byte', found, unit='bits/byte', note=note)
    )
  return rows


def _at_best_rate(
  config: ConfigDict, run: runner.Run, opened: text.Text, whole: LanguageModel, way: str
) -> ConfigDict:
  """The options of a way of training, with the rate that is best on validation text."""
  options = config.growth
  validation = text.held_out(opened, options, 'validation', options.validation)

  def validation_loss(short: ConfigDict) -> float:
    folder, seed = f'growth/{name(rate=short.peak)}', range(config.seed, config.seed + 1)
    seeds = Seeds(config, run, short, folder, seed, opened, whole, validation)
    [nats] = getattr(seeds, way)()[way].nats
    return nats.sum() / validation.bytes.sum()

  return models.at_best_rate(options, validation_loss)


def comparisons(trained: Sequence[str]) -> list[tuple[str, str, str]]:
  """(model, reference, row): with the monolithic model, one layer fewer, and each expert alone."""
  stages = [model for model in trained if model.partition(',')[0] == 'grown']
  fewer = [
    (model, before, name(model='grown', layers=depth, against='one_layer_fewer'))
    for depth, (before, model) in enumerate(zip(stages, stages[1:]), start=2)
  ]
  return [
    (model, 'monolithic', name(model=model, against='monolithic'))
    for model in trained
    if model != 'monolithic'
  ] + [
    *fewer,
    *(
      ('experts', expert, name(model='experts', against=expert.replace('=', '_')))
      for expert in trained
      if expert.startswith('expert=')
    ),
  ]


class Seeds:
  """Some seeds, trained side by side; trees of variables have a leading axis for them.

  Args:
    config: of the run.
    run: where it lies.
    options: of the training.
    folder: of its checkpoints.
    seeds: what is trained.
    opened: the text.
    model: the monolithic one.
    held_out: what the models are scored on.
  """

  def __init__(
    self, config: ConfigDict, run: runner.Run, options: ConfigDict, folder: str, seeds: range,
    opened: text.Text, model: LanguageModel, held_out: text.HeldOut,
  ):  # fmt: skip
    self._config, self._run, self._seeds = config, run, seeds
    self._options, self._folder, self._text = options, folder, opened
    self._model, self._held_out = model, held_out
    self._whole = language_model.loss_and_init(model)

  def monolithic(self) -> dict[str, Result]:
    """All layers at once."""
    options = self._options
    trained = self._train(
      'monolithic', self._whole, self._batches(), options.steps, self._begin(0)
    )  # fmt: skip
    return {
      'monolithic': self._result(self._model, [trained], [(options.steps, options.layers, 0)])
    }

  def grown(self) -> dict[str, Result]:
    """Layer by layer, from the beginning of the monolithic model."""
    each = stage_steps(self._options, self._text.tokenizer.vocab_size)
    variables = self._begin(0)
    found, stages = {}, []
    for depth in range(1, self._options.layers + 1):
      stage = Stage(self._model, depth)
      trained = self._train(
        f'grown,layers={depth}',
        language_model.loss_and_init(_Plain(stage)),
        self._batches(depth - 1),
        each,
        self._host((variables,), stage.start),
      )
      variables = self._host((variables, trained), stage.put_back)
      stages.append((each, 1, depth - 1))
      label = 'grown' if depth == self._options.layers else f'grown,layers={depth}'
      shallow = self._host((variables,), stage.shallow)
      found[label] = self._result(stage.so_far, [shallow], stages)
    return found

  def experts(self) -> dict[str, Result]:
    """Models of equal shares of the documents and of the compute, and the mean of their logits."""
    count = self._options.experts
    each = (max(1, self._options.steps // count), self._options.layers, 0)
    found, trained = {}, []
    for part in range(count):
      batches = self._batches(part=part, parts=count)
      begin = self._begin(part)
      trained.append(self._train(f'expert={part}', self._whole, batches, each[0], begin))
      found[f'expert={part}'] = self._result(self._model, trained[-1:], [each])
    return found | {'experts': self._result(self._model, trained, [each] * count)}

  def _batches(self, stream: int = 0, part: int = 0, parts: int = 1) -> list:
    """Training batches of each seed: another stream of them, or of a part of the documents."""
    source = Part(sources.open_source(self._text.source, 'train'), part, parts)
    return [
      pipeline.batches(
        source, self._text.tokenizer, batch_size=self._options.batch_size,
        length=self._options.length, seed=seed + stream * ANOTHER,
      )
      for seed in self._seeds
    ]  # fmt: skip

  def _experiment(self, functions: tuple[Callable, Callable], batches: list) -> Experiment:
    single = Experiment(*functions, batches=())
    return replicas.replicate(single, len(self._seeds), pipeline.stack(batches))

  def _train(
    self, what: str, functions: tuple[Callable, Callable], batches: list, steps: int,
    begin: Variables,
  ) -> Variables:  # fmt: skip
    """Variables after training from those given."""
    experiment = dataclasses.replace(self._experiment(functions, batches), initial=begin)
    options = ConfigDict(self._options.to_dict() | {'steps': steps})
    seeds = name(seeds=f'{self._seeds[0]}-{self._seeds[-1]}')
    state, _ = runner.train(
      experiment, models.make_optimizer(options), self._config, self._run, options,
      name=f'{self._folder}/{what},{seeds}', seed=self._seeds[0],
    )  # fmt: skip
    return state['variables']

  def _begin(self, number: int) -> Variables:
    """The whole model before training: another one for each number."""
    init, batch = self._init
    return self._host((init(jax.random.key(self._seeds[0] + number * ANOTHER), batch),))

  @functools.cached_property
  def _init(self) -> tuple[Callable, Batch]:
    """(key, batch) -> variables, compiled once, and a batch for it."""
    experiment = self._experiment(self._whole, self._batches())
    return jax.jit(experiment.init_fn), jax.tree.map(jnp.asarray, next(iter(experiment.batches)))

  def _host(self, trees: tuple, change: Callable = lambda tree: tree) -> Variables:
    """What a function makes of the trees of each seed, as numpy."""
    return jax.device_get(jax.jit(jax.vmap(change))(*trees))

  def _result(
    self, model: LanguageModel, several: Sequence[Variables], steps: Sequence[tuple]
  ) -> Result:
    """Nats by the mean logits of `several`; cost of (steps, trained, frozen layers)."""
    per_token = flops(self._options, self._text.tokenizer.vocab_size)
    tokens = self._options.batch_size * self._options.length
    score = _scorer(model)
    one = lambda tree, index: jax.tree.map(lambda leaf: leaf[index], tree)
    nats = [
      score([one(tree, index) for tree in several], self._held_out)
      for index in range(len(self._seeds))
    ]
    spent = sum(count * tokens * per_token.step(top, below) for count, top, below in steps)
    return Result(nats, tokens * sum(count for count, _, _ in steps), spent)


class _Plain:
  """A stage as `language_model.loss_and_init` takes it."""

  def __init__(self, stage: Stage):
    self._stage = stage

  def init(self, *args: Any, **options: Any) -> Variables:
    return self._stage.start(self._stage.model.init(*args, **options))

  def apply(self, *args: Any, mutable: Any) -> tuple[jax.Array, dict]:
    return self._stage.nats(*args), {}


@functools.cache
def _scorer(model: LanguageModel) -> Callable:
  """(variables of several models, held-out text) -> nats of each excerpt by their mean logits."""
  return scores.row_nats(functools.partial(_nats_of_mean_logits, model))


def _nats_of_mean_logits(
  model: LanguageModel, several: Sequence[Variables], batch: Batch
) -> jax.Array:
  """Nats [B, T] of the targets by the mean of several models' logits."""
  if len(several) == 1:
    nats: Any = model.apply(several[0], batch, None)
    return nats

  def row(example: Batch) -> jax.Array:
    alone = jax.tree.map(lambda leaf: leaf[None], example)
    logits: list[Any] = [model.apply(one, alone, None, method='logits') for one in several]
    log_probs = jax.nn.log_softmax(jnp.stack(logits).mean(axis=0))
    return -jnp.take_along_axis(log_probs, alone['targets'][..., None], axis=-1)[0, :, 0]

  return jax.lax.map(row, dict(batch))  # row by row, since it holds logits


def _rows(config: ConfigDict, model: str, result: Result, bits: np.ndarray) -> list[Row]:
  """What one way of training reached, and at what cost."""
  row = name(model=model)
  of = lambda row, estimate: Row.of('growth', row, 'bits_per_byte', estimate, unit='bits/byte')
  return [
    of(row, stats.crossed(bits)),
    Row('growth', row, 'training_tokens', result.tokens, unit='tokens'),
    Row('growth', row, 'training_flops', result.flops, unit='operations',
        note='counted, not measured'),
  ] + [
    of(f'{row},{name(seed=seed)}', stats.mean(one, 'documents'))
    for seed, one in enumerate(bits, start=config.seed)
  ]  # fmt: skip


def panels(rows: Sequence[Row]) -> list[Callable]:
  """Bits per byte against training compute; the grown model after each layer."""
  found = {(row.row, row.column): row for row in rows if row.table == 'growth'}
  points: dict[str, list[tuple[float, Row]]] = {}
  for (row, column), cell in found.items():
    if column == 'training_flops' and cell.measured is not None:
      label = row.removeprefix('model=').partition(',')[0].partition('=')[0]
      points.setdefault(label, []).append((cell.measured, found[row, 'bits_per_byte']))
  if not points:
    return []
  series, errors = {}, {}
  for label, some in points.items():
    ordered = sorted(some, key=lambda point: point[0])
    series[label] = [x for x, _ in ordered], [row.measured or 0.0 for _, row in ordered]
    errors[label] = [row.sem for _, row in ordered]
  label = 'bits per byte ± standard error'
  return [plots.curves('Growth', 'operations of training', label, series, errors=errors)]
