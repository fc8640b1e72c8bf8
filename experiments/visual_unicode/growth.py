# SPDX-License-Identifier: Apache-2.0
"""Growth on a frozen substrate (arXiv 2507.07129): layers one by one, and experts side by side.

All models share the frozen rows, and the training compute of the monolithic one, counted as in
`lib.models.growth.Flops`.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import fit, recipe
from experiments.recipe import Pictures, Run
from experiments.visual_unicode import models, text
from experiments.visual_unicode.text import Text
from lib import stats
from lib.data import pipeline, sources
from lib.errors import InputError
from lib.evals.held_out import HeldOut
from lib.language_model import TrainedModel
from lib.models.decoder import LanguageModel
from lib.models.growth import Flops, Stage
from lib.report import plots
from lib.report.results import Row, name, select
from lib.train import language_model
from lib.train.experiment import Batch, Experiment, Variables

WAYS = ('monolithic', 'grown', 'experts')  # of training; methods of `Training`
ANOTHER = 1000  # between seeds of streams that one model reads one after the other


class Result(NamedTuple):
  """Models of one way of training.

  Attributes:
    where: coordinates of the rows.
    models: of each seed: one, or those whose mean logits predict.
    tokens: that one seed was trained on.
    flops: of the training of one seed.
  """

  where: Mapping[str, Any]
  models: Sequence[Sequence[TrainedModel]]
  tokens: int
  flops: int

  def bits(self, test: HeldOut) -> np.ndarray:
    """What each document adds to bits per byte, [S, D]."""
    return test.bits([nats(several, test) for several in self.models])


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
  if options.initial:
    raise InputError('growth.initial must be empty: a model grows from its first layer.')


def flops(options: ConfigDict, vocab_size: int) -> Flops:
  """What a token costs."""
  return Flops(options.dim, options.mlp_dim or 4 * options.dim, options.length, vocab_size)


def stage_steps(options: ConfigDict, vocab_size: int) -> int:
  """Steps of each stage, such that all together cost what the monolithic model does."""
  per_token = flops(options, vocab_size)
  stages = sum(per_token.step(1, below) for below in range(options.layers))
  return max(1, round(options.steps * per_token.step(options.layers) / stages))


def measure(config: ConfigDict, run: Run) -> list[Row]:
  """Trains the three ways and compares them seed by seed."""
  options, opened = config.growth, text.open_text(config)
  test = opened.held_out(options, 'test')
  rows, found = text.rows(config, 'growth'), {}
  for way in WAYS:
    best = at_best_rate(config, run, opened, way)
    fit.add_rate(rows, {'model': way}, options, best.rates[0])
    found |= getattr(Training(config, run, opened, best), way)()
  bits = {model: result.bits(test) for model, result in found.items()}
  for model, result in found.items():
    rows.add(result.where, 'bits_per_byte', stats.crossed(bits[model]), 'bits/byte')
    rows.add(result.where, 'training_tokens', result.tokens, 'tokens')
    rows.add(result.where, 'training_flops', result.flops, 'operations', 'counted, not measured')
    for seed, one in zip(fit.seeds(config, options), bits[model]):
      where = dict(result.where) | {'seed': seed}
      rows.add(where, 'bits_per_byte', stats.mean(one, 'documents'), 'bits/byte')
  for model, reference, where in comparisons(found):
    difference = stats.arms(bits, reference, 'seeds×documents')[model]
    note = 'above 0: worse than the reference'
    rows.add(where, 'difference_bits_per_byte', difference, 'bits/byte', note)
  return rows


def at_best_rate(config: ConfigDict, run: Run, opened: Text, way: str) -> ConfigDict:
  """The options of a way of training, with the rate that is best on validation text."""
  validation = opened.held_out(config.growth, 'validation')

  def validation_loss(short: ConfigDict) -> float:
    ending = f',{name(rate=short.rates[0])}'
    result = getattr(Training(config, run, opened, short, ending), way)()[way]
    return float(result.bits(validation).mean())

  return fit.choose_rate(config.growth, validation_loss)


def comparisons(found: Mapping[str, Result]) -> list[tuple[str, str, dict[str, Any]]]:
  """(model, reference, row): with the monolithic model, one layer fewer, and each expert alone."""
  stages = [model for model in found if model.startswith('grown')]
  experts = [model for model in found if model.startswith('expert=')]
  return [
    (model, 'monolithic', dict(found[model].where) | {'against': 'monolithic'})
    for model in found
    if model != 'monolithic'
  ] + [
    (model, before, {'model': 'grown', 'layers': depth, 'against': 'one_layer_fewer'})
    for depth, (before, model) in enumerate(zip(stages, stages[1:]), start=2)
  ] + [
    ('experts', expert, {'model': 'experts', 'against': expert.replace('=', '_')})
    for expert in experts
  ]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Training:
  """The ways of training.

  Attributes:
    config: of the run.
    run: where its models are kept.
    opened: the text.
    options: of the training, with one rate.
    ending: of the models' names.
  """

  config: ConfigDict
  run: Run
  opened: Text
  options: ConfigDict
  ending: str = ''

  def monolithic(self) -> dict[str, Result]:
    """All layers at once."""
    steps = self.options.steps
    trained = self._fit('monolithic', self._model, steps)
    spent = [(steps, self.options.layers, 0)]
    return {'monolithic': self._result({'model': 'monolithic'}, zip(trained), spent)}

  def grown(self) -> dict[str, Result]:
    """Layer by layer, from the beginning of the monolithic model."""
    each, layers = stage_steps(self.options, self.opened.tokenizer.vocab_size), self.options.layers
    found, before, spent = {}, {}, []
    for depth in range(1, layers + 1):
      stage, label = Stage(self._model, depth), f'grown,layers={depth}'
      trained = self._fit(
        label,
        stage.so_far,
        each,
        stream=depth - 1,
        trained=Experiment(*language_model.loss_and_init(stage), ()),
        bare=stage.joined,
        initial=lambda seed, new: stage.above(before[seed], new) if before else new,
      )
      before = dict(zip(fit.seeds(self.config, self.options), (one.variables for one in trained)))
      spent.append((each, 1, depth - 1))
      last = depth == layers
      where = {'model': 'grown'} | ({} if last else {'layers': depth})
      found['grown' if last else label] = self._result(where, zip(trained), spent)
    return found

  def experts(self) -> dict[str, Result]:
    """Models of equal shares of the documents and of the compute, and the mean of their logits."""
    count, found = self.options.experts, {}
    each = (max(1, self.options.steps // count), self.options.layers, 0)
    parts = [
      self._fit(f'expert={part}', self._model, each[0], part=part, parts=count)
      for part in range(count)
    ]
    for part, trained in enumerate(parts):
      label = f'expert={part}'
      found[label] = self._result({'model': label}, zip(trained), [each])
    return found | {'experts': self._result({'model': 'experts'}, zip(*parts), [each] * count)}

  @property
  def _model(self) -> LanguageModel:
    return models.make_model(self.config, self.options, self.options.arms[0], self.opened.glyphs)

  def _fit(
    self, label: str, model: LanguageModel, steps: int, stream: int = 0, part: int = 0,
    parts: int = 1, **more: Any,
  ) -> list[TrainedModel]:  # fmt: skip
    """A model for each seed, on a stream of batches of a part of the documents.

    Models of different parts begin apart: their seeds are ANOTHER apart.
    """
    source = sources.Part(sources.open_source(self.opened.source, 'train'), part, parts)
    apart = self.config.copy_and_resolve_references()
    apart.seed += part * ANOTHER
    trained = fit.fit(
      apart,
      self.run,
      ConfigDict(self.options.to_dict() | {'steps': steps}),
      f'growth/{label}{self.ending}',
      model,
      lambda seed: pipeline.batches(
        source,
        self.opened.tokenizer,
        batch_size=self.options.batch_size,
        length=self.options.length,
        seed=seed + (stream - part) * ANOTHER,
      ),
      tokenizer=self.opened.tokenizer,
      **more,
    )
    return [one.model for one in trained]

  def _result(self, where: dict[str, Any], several: Any, steps: Sequence[tuple]) -> Result:
    """Of the models of each seed, and of (steps, trained, frozen layers) one after the other."""
    per_token = flops(self.options, self.opened.tokenizer.vocab_size)
    tokens = self.options.batch_size * self.options.length
    spent = sum(count * tokens * per_token.step(top, below) for count, top, below in steps)
    return Result(where, list(several), tokens * sum(count for count, _, _ in steps), spent)


def nats(several: Sequence[TrainedModel], held_out: HeldOut) -> np.ndarray:
  """Nats [N] of held-out text by the mean logits of one model or more."""
  if len(several) == 1:
    return held_out.sums(several[0].row_loss)
  of_mean = _by_mean_logits(several[0].module)
  return held_out.sums(functools.partial(of_mean, [one.variables for one in several]))


@functools.cache
def _by_mean_logits(module: LanguageModel) -> jax.stages.Wrapped:
  """(variables of several models, batch) -> nats [B, T] of the targets by their mean logits."""

  @jax.jit
  def of_batch(several: Sequence[Variables], batch: Batch) -> jax.Array:
    def row(example: Batch) -> jax.Array:
      alone = jax.tree.map(lambda leaf: leaf[None], example)
      logits: list[Any] = [module.apply(one, alone, None, method='logits') for one in several]
      log_probs = jax.nn.log_softmax(jnp.stack(logits).mean(axis=0))
      return -jnp.take_along_axis(log_probs, alone['targets'][..., None], axis=-1)[0, :, 0]

    return jax.lax.map(row, dict(batch))  # row by row, since it holds logits

  return of_batch


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Bits per byte against training compute; the grown model after each layer."""
  bits = {row.row: row for row in select(rows, 'growth', 'bits_per_byte')}
  points: dict[str, list[tuple[float, Row]]] = {}
  for row in select(rows, 'growth', 'training_flops'):
    label = row.where['model'].partition('=')[0]
    points.setdefault(label, []).append((row.measured or 0.0, bits[row.row]))
  label = 'bits per byte ± standard error'
  panel = plots.row_curves('Growth', 'operations of training', label, points)
  return {'growth.png': [panel]}


TABLE = recipe.Table(
  'growth',
  measure,
  caption='Bits per byte of held-out text after equal training compute. `grown`: one layer is '
  'trained and frozen, the next put on it, and so on; the LM head is trained throughout. '
  '`experts`: models trained apart, each on its own part of the documents and with its share of '
  'the compute; their logits are averaged. Differences are paired by seed; their residual '
  'variance is pooled over the ways of training, with the variance over documents added. Each way '
  'has its own `learning_rate`, that of each stage, chosen by validation text with one seed and a '
  'share of the steps. Compute is that of matrix products: 2 operations a multiply-add, backward '
  'twice forward, nothing backward through frozen layers.',
  shown=(
    'bits_per_byte',
    'difference_bits_per_byte',
    'learning_rate',
    'training_tokens',
    'training_flops',
  ),
  check=check,
  pictures=pictures,
  plans=lambda config: models.plans(config, 'growth', config.tokenizer.vocab_size),
  sources=recipe.text_of,
)
