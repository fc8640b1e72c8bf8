# SPDX-License-Identifier: Apache-2.0
"""Training of all recipes: from a section of the config to a trained model for each seed.

A section has the fields of `configs.common.MODEL` and `TRAINING`.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import rates
from experiments.recipe import Run, TrainSpec, plain
from lib import language_model, provenance
from lib.data import pipeline
from lib.errors import InputError
from lib.evals.held_out import held_out
from lib.language_model import Provenance, TrainedModel
from lib.models import hierarchy
from lib.models.decoder import Decoder, LanguageModel
from lib.objectives.next_token import next_token
from lib.parallel import processes, sharding
from lib.report.results import Rows
from lib.tokenizers.base import Tokenizer
from lib.train import loop, metrics, optimizer, replicas
from lib.train.experiment import Batch, Experiment, Variables
from lib.train.state import State

Batches = Callable[[int], Iterable[Batch]]  # of a seed
Initial = Callable[[int, Variables], Variables]  # (seed, initialised) -> what training starts from
Tokens = Tokenizer | Callable[[int], Tokenizer] | None  # the same for all seeds, or of a seed


@dataclasses.dataclass(frozen=True)
class Fitted:
  """A trained model with the history of its training.

  Attributes:
    model: with the variables of one seed.
    history: the metrics of its run, those of this seed alone.
    rate: its learning rate at the peak.
  """

  model: TrainedModel
  history: list[dict[str, Any]]
  rate: float

  @property
  def variables(self) -> Variables:
    """Of the model."""
    return self.model.variables

  def curve(self, metric: str) -> dict[int, Any]:
    """Training step -> metric, where it was measured."""
    return {line['step']: line[metric] for line in self.history if metric in line}

  def last(self, metric: str) -> float:
    """The newest value of a metric; NaN if it was no number."""
    value = [*self.curve(metric).values()][-1]
    return math.nan if value is None else float(value)


def check(options: ConfigDict, where: str) -> None:
  """Raises InputError for a section, called `where`, from which no model can be made or trained."""
  if not options.head_dim and options.dim % options.heads:
    raise InputError(f'{where}.dim {options.dim} is not a multiple of {options.heads} heads.')
  if options.position == 'rotary' and options.head_dim % 2:
    raise InputError(f'{where}.head_dim must be even; got {options.head_dim}.')
  if options.position == 'rotary' and not options.head_dim and options.dim // options.heads % 2:
    raise InputError(f'{where}.dim {options.dim} is not an even multiple of {options.heads} heads.')
  if options.replicas == 'pmap' and jax.process_count() > 1:
    raise InputError(f'{where}.replicas must be vmap or auto for several processes; got pmap.')
  if options.replicas == 'pmap' and _width(options) > jax.device_count():
    raise InputError(
      f'{where}.side_by_side must be at most {jax.device_count()}, the number of devices, where '
      f'{where}.replicas is pmap; got {options.side_by_side}.'
    )
  if options.replicas != 'pmap' and options.side_by_side > 1 and options.clip_norm:
    raise InputError(
      f'{where}.clip_norm must be 0 where {where}.side_by_side is above 1, for the gradients of '
      f'seeds would be clipped together; got {options.clip_norm}. Or choose {where}.replicas=pmap.'
    )
  if options.get('lanes') and options.batch_size % options.lanes:
    raise InputError(
      f'{where}.lanes must divide the batch of {options.batch_size}, or be 0; got {options.lanes}.'
    )
  if options.initial and not os.path.isfile(os.path.join(options.initial, 'model.json')):
    raise InputError(f'{where}.initial {options.initial} is not the folder of a trained model.')


def make_decoder(options: ConfigDict, dtype: Any, max_length: int = 1024) -> Decoder:
  """The decoder of the section; learned positions have `max_length` rows."""
  return Decoder(
    layers=options.layers,
    dim=options.dim,
    heads=options.heads,
    head_dim=options.head_dim or None,
    mlp_dim=options.mlp_dim or 4 * options.dim,
    position=options.position,
    norm=options.norm,
    gated=options.gated,
    activation=options.activation,
    init_std=options.init_std or None,
    max_length=max_length,
    max_distance=options.max_distance,
    remat=options.remat,
    dtype=dtype,
  )


def make_optimizer(options: ConfigDict) -> optimizer.Optimizer:
  """The optax chain of the section, at the first of its rates."""
  warmup = int(options.warmup * options.steps)
  schedule = optimizer.make_schedule(
    options.schedule, options.rates[0], options.steps, warmup, options.final
  )
  return optimizer.make_optimizer(
    options.optimizer,
    schedule,
    b2=options.b2,
    weight_decay=options.weight_decay,
    clip_norm=options.clip_norm or None,
    factors=hierarchy.stage_factors(options.get('stage_rates', ())),
  )


def way(options: ConfigDict, run: Run) -> str:
  """How the seeds of a section train in parallel, 'vmap' or 'pmap'; '' if one after another."""
  if not options.side_by_side:
    return ''
  if options.replicas != 'auto':
    return options.replicas
  fits = jax.process_count() == 1 and 1 < _width(options) <= run.mesh.size
  return 'pmap' if fits else 'vmap'


def seeds(config: ConfigDict, options: ConfigDict) -> range:
  """Seeds of the models of a section."""
  return range(config.seed, config.seed + options.seeds)


def train_spec(
  options: ConfigDict,
  model: LanguageModel,
  trained: Experiment | None = None,
  more: Mapping[str, jax.ShapeDtypeStruct] | None = None,
) -> TrainSpec:
  """The model and training of `fit`, without data; `more` are additional fields of a batch."""
  experiment = trained or _experiment(model)
  batch = pipeline.shapes(options.batch_size, options.length) | dict(more or {})
  alone = experiment if options.side_by_side and options.replicas != 'vmap' else None
  if options.side_by_side:
    count = _width(options)
    experiment = replicas.replicate(experiment, count, ())
    batch = {
      field: jax.ShapeDtypeStruct((count, *one.shape), one.dtype) for field, one in batch.items()
    }
  return TrainSpec(experiment, make_optimizer(options), batch, model.embedding.vocab_size, alone)


def fit(
  config: ConfigDict,
  run: Run,
  options: ConfigDict,
  name: str,
  model: LanguageModel,
  batches: Batches,
  *,
  evaluations: Mapping[str, Batches] | None = None,
  scores: Mapping[str, Callable[[Variables], Mapping[str, Any]]] | None = None,
  choose_by: str = 'validation/bits_per_byte',
  tokenizer: Tokens = None,
  trained: Callable[[ConfigDict], Experiment] | None = None,
  bare: Callable[[Variables], Variables] = lambda variables: variables,
  initial: Initial | None = None,
  text: str | None = None,
) -> list[Fitted]:
  """Trains the seeds of a model, resuming each from its checkpoint, and saves them in the workdir.

  Of several learning rates the best one is chosen first, with one seed (`choose_rate`).

  Args:
    config: of the run.
    run: whose workdir has checkpoints, metrics, and each model as `models/NAME,seed=S`.
    options: the section with the model's training.
    name: of the model in the workdir.
    model: what is evaluated: ids to nats.
    batches: seed -> its training batches, without end.
    evaluations: name -> (seed -> held-out batches), whose bits per byte are in the history.
    scores: name -> (variables of `model` -> further values), for one seed at a time.
    choose_by: the metric in the history by which the rate is chosen; the lowest wins.
    tokenizer: that made the batches' ids, or seed -> its own; None for symbols that are not text.
    trained: section -> what is trained instead of the model alone, such as the model with training
      aids, whose schedules depend on the section's steps.
    bare: variables of `trained` -> those of `model`.
    initial: (seed, variables as they are initialised) -> those of `trained` that training starts
      from, instead of the former or of the section's `initial`.
    text: the source of the batches, if it is not the config's; '' for text that was generated.

  Returns:
    A model for each seed config.seed, config.seed + 1, …
  """

  job = _Job(
    config,
    run,
    model,
    batches,
    evaluations or {},
    scores or {},
    tokenizer,
    trained,
    bare,
    initial,
    text,
  )

  def loss(short: ConfigDict) -> float:
    [one] = job.train(short, f'{name},rate={short.rates[0]}', [config.seed], keep=False)
    return one.last(choose_by)

  options = choose_rate(options, loss)
  return [one for part in _parts(config, options) for one in job.train(options, name, part)]


def histories(
  config: ConfigDict, run: Run, options: ConfigDict, name: str
) -> list[list[dict[str, Any]]]:
  """The metrics of each seed of a model of `fit`, read from the workdir, for pictures."""
  return [
    history
    for part in _parts(config, options)
    for history in _by_seed(
      metrics.read(run.workdir / 'metrics.jsonl', _run_name(options, name, part)), options, part
    )
  ]


def curves(histories: Iterable[list[dict[str, Any]]], metric: str) -> dict[int, np.ndarray]:
  """Training step -> metric of each seed [S], where it was measured."""
  return {
    lines[0]['step']: np.array([line[metric] for line in lines])
    for lines in zip(*histories, strict=True)
    if metric in lines[0]
  }


@dataclasses.dataclass(frozen=True)
class _Job:
  """The arguments of `fit`, for each of its trainings."""

  config: ConfigDict
  run: Run
  model: LanguageModel
  batches: Batches
  evaluations: Mapping[str, Batches]
  scores: Mapping[str, Callable[[Variables], Mapping[str, Any]]]
  tokenizer: Tokens
  trained: Callable[[ConfigDict], Experiment] | None
  bare: Callable[[Variables], Variables]
  initial: Initial | None
  text: str | None

  def train(
    self, options: ConfigDict, name: str, these: Sequence[int], keep: bool = True
  ) -> list[Fitted]:
    """Trains the seeds `these`, one or several in parallel; `keep` saves each model in the
    workdir.
    """
    start = language_model.load(options.initial) if options.initial else None
    state, history = train(
      self._experiment(options, these, start),
      self.config,
      self.run,
      options,
      name=_run_name(options, name, these),
      seed=these if way(options, self.run) == 'pmap' else these[0],
    )
    if way(options, self.run) == 'pmap':  # from a device each to where the models are evaluated
      state['variables'] = jax.tree.map(jnp.asarray, jax.device_get(state['variables']))
    found = []
    for index, (seed, lines) in enumerate(zip(these, _by_seed(history, options, these))):
      variables = state['variables']
      if options.side_by_side:
        variables = jax.tree.map(lambda leaf, index=index: leaf[index], variables)
      kept = TrainedModel(
        self.model,
        self.bare(variables),
        self.tokenizer(seed) if callable(self.tokenizer) else self.tokenizer,
        options.length,
        provenance=self._provenance(options, seed, start),
        mesh=processes.local_mesh(self.run.mesh),  # each process has the full state
      )
      if keep:
        path = self.run.workdir / 'models' / f'{name},seed={seed}'
        processes.first_only(path, functools.partial(kept.save, path))
      found.append(Fitted(kept, lines, options.rates[0]))
    return found

  def _experiment(
    self, options: ConfigDict, these: Sequence[int], start: TrainedModel | None
  ) -> Experiment:
    """One seed, or several as replicas, with their batches, evaluations and initial variables."""
    together, each = bool(options.side_by_side), way(options, self.run) == 'pmap'
    experiment = self.trained(options) if self.trained else _experiment(self.model)
    every = [self.batches(seed) for seed in these]
    if each:
      experiment = dataclasses.replace(experiment, batches=pipeline.stack_replicas(every))
    elif together:
      experiment = replicas.replicate(experiment, len(these), pipeline.stack_replicas(every))
    else:
      experiment = dataclasses.replace(experiment, batches=every[0])
    joined = lambda trees: jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
    initial = start.variables if start else None
    if self.initial is not None:
      batch = dict(next(iter(experiment.batches)))
      begin, init_fn = jax.random.key(these[0]), experiment.init_fn
      if each:
        begin, init_fn = jax.vmap(jax.random.key)(np.array(these)), jax.vmap(init_fn)
      new = jax.device_get(jax.jit(init_fn)(begin, batch))
      of = lambda index: jax.tree.map(lambda leaf: leaf[index], new) if together else new
      begun = [self.initial(seed, of(index)) for index, seed in enumerate(these)]
      initial = joined(begun) if together else begun[0]
    elif together and initial:
      initial = joined([initial] * len(these))
    evaluations: dict[str, Callable[[Variables], Mapping[str, Any]]] = {}
    for key, make in self.evaluations.items():
      batches = _stacked([make(seed) for seed in these]) if together else make(these[0])
      evaluations[key] = held_out(
        experiment.loss_fn, batches, compiled=jax.pmap if each else jax.jit
      )
    for key, score in self.scores.items():
      evaluations[key] = functools.partial(_scored, score, self.bare)
    return dataclasses.replace(experiment, evaluations=evaluations, initial=initial)

  def _provenance(self, options: ConfigDict, seed: int, start: TrainedModel | None) -> Provenance:
    source = self.text
    if source is None:
      source = self.config.data.source if 'data' in self.config else ''
    return Provenance(
      provenance.commit(),
      plain(self.config),
      source,
      provenance.text_digest(self.run.identity, source),
      seeds=(seed,),
      steps=options.steps,
      initial=start.fingerprint if start else '',
    )


def train(
  experiment: Experiment,
  config: ConfigDict,
  run: Run,
  options: ConfigDict,
  *,
  name: str,
  seed: int | Sequence[int],
) -> tuple[State, list[dict[str, Any]]]:
  """Trains with the training loop and the section `options`, under a name in the run's workdir.

  Several seeds train on a device each; a single one is on all of the run's.
  """
  mesh = run.mesh
  if not isinstance(seed, int):
    mesh = sharding.independent_devices(mesh.devices.ravel().tolist()[: len(seed)])
  return loop.train(
    experiment,
    make_optimizer(options),
    steps=options.steps,
    seed=seed,
    mesh=mesh,
    workdir=run.workdir,
    run=name,
    evaluate_every=options.evaluate_every,
    checkpoint_every=options.checkpoint_every,
    profile=config.profile or None,
    accumulate=config.accumulate,
    identity=run.identity,
    mirror=run.mirror,
  )


def choose_rate(options: ConfigDict, loss: Callable[[ConfigDict], float]) -> ConfigDict:
  """The section with only its best rate, chosen by validation text.

  Args:
    options: with one rate or several.
    loss: section of a short training of one seed, at one rate -> loss on validation text.
  """
  steps = max(1, round(options.rate_share * options.steps))
  short = {
    'steps': steps,
    'evaluate_every': steps,
    'checkpoint_every': steps,
    'seeds': 1,
    'side_by_side': min(1, options.side_by_side),
  }
  at = lambda rate, **more: ConfigDict(options.to_dict() | more | {'rates': (rate,)})
  return at(rates.choose(options.rates, lambda rate: loss(at(rate, **short))))


def add_rate(
  rows: Rows, where: Mapping[str, Any], options: ConfigDict, rate: float, over: str = ''
) -> None:
  """Adds the row of an arm's learning rate, which was chosen on the text `over`."""
  note = 'at its peak; the only one tried'
  if len(options.rates) > 1:
    grid = ', '.join(f'{one:g}' for one in options.rates)
    text = f'validation text{over and f" over {over}"}'
    note = (
      f'at its peak; of {grid}, and beyond while an end is best, by {text}, one seed, '
      f'{options.rate_share:.0%} of the steps'
    )
  rows.add(where, 'learning_rate', rate, note=note)


def untrained(
  model: LanguageModel, batch: Batch, seeds: Iterable[int], length: int, tokenizer: Tokenizer | None
) -> list[TrainedModel]:
  """The initial model of each seed."""
  init = jax.jit(model.init)
  keys = [jax.random.key(seed) for seed in seeds]
  return [TrainedModel(model, init(key, batch, key), tokenizer, length) for key in keys]


def dtype(config: ConfigDict) -> Any:
  """The dtype of activations."""
  return jnp.dtype(config.dtype)


def _experiment(model: LanguageModel) -> Experiment:
  return Experiment(*next_token(model), batches=())


def _scored(score: Callable, bare: Callable, variables: Variables) -> Mapping[str, Any]:
  return score(bare(variables))


def _stacked(every: list[Iterable[Batch]]) -> Iterable[Batch]:
  """Batches of several seeds in parallel."""
  for batch in zip(*every, strict=True):
    yield {field: np.stack([one[field] for one in batch]) for field in batch[0]}


def _parts(config: ConfigDict, options: ConfigDict) -> list[range]:
  """The seeds of a section, in groups that train in parallel."""
  every, width = seeds(config, options), _width(options)
  return [every[first : first + width] for first in range(0, len(every), width)]


def _width(options: ConfigDict) -> int:
  """Most seeds that train in parallel."""
  return min(options.seeds, options.side_by_side) or 1


def _run_name(options: ConfigDict, name: str, these: Sequence[int]) -> str:
  """The name of the checkpoints and metrics of seeds that train in parallel."""
  return f'{name},seed={these[0]}' + (f'-{these[-1]}' if options.side_by_side else '')


def _by_seed(
  history: list[dict[str, Any]], options: ConfigDict, these: Sequence[int]
) -> list[list[dict[str, Any]]]:
  """The metrics of each of the seeds `these`, which are lists if seeds train in parallel."""
  if not options.side_by_side:
    return [history]
  of_all = lambda value: isinstance(value, list) and len(value) == len(these)
  own = lambda value, index: value[index] if of_all(value) else value
  return [
    [{key: own(value, index) for key, value in line.items()} for line in history]
    for index in range(len(these))
  ]
