# SPDX-License-Identifier: Apache-2.0
"""Growth on a frozen substrate (arXiv 2507.07129): layers one at a time, and experts in parallel.

All models share the frozen rows, and the training compute of the monolithic one, counted as in
`lib.models.stages.Flops`.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments import fit, recipe
from experiments.recipe import Pictures, Run
from experiments.visual_unicode import models, text
from experiments.visual_unicode.text import Text
from lib import stats
from lib.data import pipeline, sources
from lib.data.token_excerpts import HeldOut
from lib.errors import InputError
from lib.language_model import TrainedModel, ensemble
from lib.models.stages import Flops, Stage
from lib.objectives.next_token import next_token
from lib.report import plots
from lib.report.plots import Picture
from lib.report.results import Row, name, select
from lib.train.experiment import Experiment

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
    """The contribution of each document to bits per byte, [S, D]."""
    of = lambda several: test.sums(functools.partial(ensemble.row_loss, several))
    return test.bits([of(several) for several in self.models])


def check(config: ConfigDict) -> None:
  """Raises InputError for missing text or models that cannot be built."""
  options = config.growth
  text.check(config)
  models.check(options, 'growth')
  text.check_sizes(config, options)
  if options.steps < options.experts:
    raise InputError(
      f'growth.steps must be growth.experts {options.experts} or more; got {options.steps}.'
    )
  if options.initial:
    raise InputError('growth.initial must be empty: a model grows from its first layer.')


def flops(options: ConfigDict, vocab_size: int) -> Flops:
  """FLOPs of a token."""
  return Flops(options.dim, options.mlp_dim or 4 * options.dim, options.length, vocab_size)


def stage_steps(options: ConfigDict, vocab_size: int) -> int:
  """Steps of each stage; all stages together cost as much as the monolithic model."""
  per_token = flops(options, vocab_size)
  stages = sum(per_token.step(1, below) for below in range(options.layers))
  return max(1, round(options.steps * per_token.step(options.layers) / stages))


def measure(config: ConfigDict, run: Run) -> list[Row]:
  """Trains the three ways and compares them seed by seed."""
  options, opened = config.growth, text.open_text(config)
  test = opened.held_out(options, 'test')
  rows = text.rows(config, 'growth')
  found: dict[str, Result] = {}
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


def comparisons(found: Mapping[str, Result]) -> Iterator[tuple[str, str, dict[str, Any]]]:
  """(model, reference, row): with the monolithic model, one layer fewer, and each expert alone."""
  for model, result in found.items():
    if model != 'monolithic':
      yield model, 'monolithic', dict(result.where) | {'against': 'monolithic'}
  stages = [model for model in found if model.startswith('grown')]
  for depth, (before, model) in enumerate(zip(stages, stages[1:]), start=2):
    yield model, before, {'model': 'grown', 'layers': depth, 'against': 'one_layer_fewer'}
  for model in found:
    if model.startswith('expert='):
      yield 'experts', model, {'model': 'experts', 'against': model.replace('=', '_')}


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
    return {'monolithic': self._fit('monolithic', self.options.steps)}

  def grown(self) -> dict[str, Result]:
    """Layer by layer, from the beginning of the monolithic model."""
    steps, layers = stage_steps(self.options, self.opened.tokenizer.vocab_size), self.options.layers
    found: list[Result] = []
    for depth in range(1, layers + 1):
      one = self._fit(f'grown,layers={depth}', steps, depth=depth, below=found[-1:])
      where = {'model': 'grown'} | ({'layers': depth} if depth < layers else {})
      found.append(_together(where, one.models, [*found[-1:], one]))
    return {name(**one.where).removeprefix('model='): one for one in found}

  def experts(self) -> dict[str, Result]:
    """Models of equal shares of the documents and of the compute, and the mean of their logits."""
    count = self.options.experts
    steps = max(1, self.options.steps // count)
    parts = [self._fit(f'expert={part}', steps, part=part, parts=count) for part in range(count)]
    several = [[model for [model] in of_seed] for of_seed in zip(*(one.models for one in parts))]
    found = {one.where['model']: one for one in parts}
    return found | {'experts': _together({'model': 'experts'}, several, parts)}

  def _fit(
    self,
    label: str,
    steps: int,
    *,
    part: int = 0,
    parts: int = 1,
    depth: int = 0,
    below: Sequence[Result] = (),
  ) -> Result:
    """A model for each seed.

    Args:
      label: of the model.
      steps: of its training.
      part: of the documents, from 0. Models of different parts begin apart: with other seeds.
      parts: number of parts.
      depth: layers of a grown model, of which the top one is trained; 0 trains all of all layers.
      below: of a grown model, the model of one layer fewer, if there is one.
    """
    config, options = self.config.copy_and_resolve_references(), self.options
    config.seed += part * ANOTHER
    tokenizer, stream, trained, frozen = self.opened.tokenizer, 0, options.layers, 0
    model = models.make_model(config, options, options.arms[0], self.opened.glyphs)
    more: dict[str, Any] = {}
    if depth:
      stage = Stage(model, depth)
      model, stream, trained, frozen = stage.so_far, depth - 1, 1, depth - 1
      experiment = Experiment(*next_token(stage), ())
      more = {'trained': lambda options: experiment, 'bare': stage.joined}
      for one in below:
        before = [of_seed.variables for [of_seed] in one.models]
        more['initial'] = lambda seed, new: stage.above(before[seed - config.seed], new)
    source = sources.Part(self.opened.documents, part, parts)
    batches = lambda seed: pipeline.batches(
      source,
      tokenizer,
      batch_size=options.batch_size,
      length=options.length,
      seed=seed + (stream - part) * ANOTHER,
      lanes=options.lanes,
    )
    short = ConfigDict(options.to_dict() | {'steps': steps})
    path = f'growth/{label}{self.ending}'
    found = fit.fit(config, self.run, short, path, model, batches, tokenizer=tokenizer, **more)
    tokens = steps * options.batch_size * options.length
    spent = tokens * flops(options, tokenizer.vocab_size).step(trained, frozen)
    return Result({'model': label}, [[one.model] for one in found], tokens, spent)


def _together(
  where: Mapping[str, Any], several: Sequence[Sequence[TrainedModel]], parts: Sequence[Result]
) -> Result:
  """Models whose cost is the sum of several trainings."""
  return Result(
    where, several, sum(part.tokens for part in parts), sum(part.flops for part in parts)
  )


LABELS = {  # in the picture
  'monolithic': 'one model',
  'grown': 'grown layer by layer',
  'experts': 'experts together',
  'expert': 'an expert alone',
}


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Bits per byte against training compute; the grown model after each layer."""
  bits = {row.row: row for row in select(rows, 'growth', 'bits_per_byte')}
  points: dict[str, list[tuple[float, Row]]] = {}
  for row in select(rows, 'growth', 'training_flops'):
    label = LABELS[row.where['model'].partition('=')[0]]
    points.setdefault(label, []).append(((row.measured or 0.0) / 1e9, bits[row.row]))
  x_label = 'GFLOP of training'
  panel = plots.row_curves('Loss by compute of training', x_label, 'bits per byte', points)
  caption = (
    'A model grown layer by layer, one model of equal compute, and experts whose logits are '
    'averaged. Bars: one standard error over seeds and documents.'
  )
  return {'growth.png': Picture(caption, [panel])}


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
  train_specs=lambda config: models.train_specs(config, 'growth', config.tokenizer.vocab_size),
  sources=recipe.text_of,
)
