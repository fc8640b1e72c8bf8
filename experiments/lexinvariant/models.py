# SPDX-License-Identifier: Apache-2.0
"""The models of the recipe: one decoder under trained or random rows.

Two training aids, both removed before evaluation, get a small model past a plateau of thousands of
steps: rows that at first are nearly the same for a symbol in every sequence, and probes that teach
each layer the current symbol. The weight of both falls to zero.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict
from numpy.typing import ArrayLike

from experiments import rates, runner
from lib.data import pipeline
from lib.decoding import sampling
from lib.embeddings.learned import Learned
from lib.embeddings.lexinvariant import AnnealedLexinvariant, Lexinvariant
from lib.embeddings.partial import Interchangeable, Mixed, PermutedIds
from lib.embeddings.preceding import Preceding
from lib.errors import InputError
from lib.evals.in_context import Generate
from lib.models.decoder import Decoder, LanguageModel
from lib.models.probe import Deciphering
from lib.objectives.next_token import next_token
from lib.report.results import Row
from lib.train import optimizer
from lib.train.experiment import Batch, Experiment, Variables

EMBEDDINGS = ('learned', 'lexinvariant')  # those that the paper sets side by side
PARTIAL = ('permuted', 'mixed', 'interchangeable')  # names hidden as far as the batch says


@dataclasses.dataclass(frozen=True)
class Trained:
  """A model that was trained, ready for evaluation.

  Attributes:
    model: with the embedding that evaluation is about, without aids of training.
    variables: of the model.
    history: the metrics of its run.
  """

  model: LanguageModel
  variables: Variables
  history: list[dict[str, Any]]


def check(options: ConfigDict, where: str, vocab_size: int) -> None:
  """Raises InputError for a model that cannot be built."""
  if not options.rates or min(options.rates) <= 0 or not 0 < options.rates_after <= 1:
    raise InputError(
      f'{where}.rates must be positive and {where}.rates_after above 0 and at most 1; got '
      f'{tuple(options.rates)} and {options.rates_after}.'
    )
  for field in ('steps', 'batch_size', 'length', 'layers', 'heads', 'dim'):
    if options[field] < 1:
      raise InputError(f'{where}.{field} must be 1 or more; got {options[field]}.')
  if not options.head_dim and options.dim % options.heads:
    raise InputError(f'{where}.dim {options.dim} is no multiple of {options.heads} heads.')
  if not 0 <= options.reveal < 1:
    raise InputError(f'{where}.reveal must be at least 0 and below 1; got {options.reveal}.')
  if len(options.anneal) != 2 or not 0 <= options.anneal[0] < options.anneal[1] <= 1:
    raise InputError(
      f'{where}.anneal must be two rising fractions of the steps; got {options.anneal}.'
    )
  width = options.row_dim or options.dim
  if options.law == 'orthonormal' and vocab_size > width:
    raise InputError(
      f'{vocab_size} symbols cannot have orthonormal rows of width {width}: make {where}.row_dim '
      f'{vocab_size} or more, or {where}.law gaussian.'
    )


def make_embedding(
  options: ConfigDict, kind: str, vocab_size: int, dtype: Any, aided: bool = False
) -> Any:
  """The embedding of a kind, a module; `aided` is the form that training anneals."""
  learned = Learned(
    vocab_size, options.dim, init_std=1.0, readout_scale=options.dim**-0.5, dtype=dtype
  )
  if kind == 'learned':
    return learned
  if kind == 'permuted':
    return PermutedIds(learned, per=options.per)
  if kind == 'mixed':
    return Mixed(vocab_size, options.dim, dtype=dtype)
  if kind == 'interchangeable':
    return Interchangeable(vocab_size, options.dim, dtype=dtype)
  if kind != 'lexinvariant':
    raise InputError(f'embedding {kind!r} is not one of {", ".join((*EMBEDDINGS, *PARTIAL))}.')
  form = AnnealedLexinvariant if aided and options.reveal else Lexinvariant
  return form(
    vocab_size,
    options.dim,
    draw_kind=options.draw_kind,
    law=options.law,
    row_dim=options.row_dim or None,
    readout_scale=options.readout_scale,
    dtype=dtype,
  )


def make_model(
  options: ConfigDict, kind: str, vocab_size: int, dtype: Any, aided: bool = False
) -> LanguageModel:
  """The decoder of the options around an embedding."""
  decoder = Decoder(
    layers=options.layers,
    dim=options.dim,
    heads=options.heads,
    head_dim=options.head_dim or None,
    mlp_dim=options.mlp_dim,
    position='t5',
    norm='rms',
    gated=options.gated,
    activation=options.activation,
    init_std=None,
    max_distance=options.max_distance,
    remat=options.remat,
    dtype=dtype,
  )
  embedding = make_embedding(options, kind, vocab_size, dtype, aided)
  if options.preceding:
    embedding = Preceding(embedding, options.preceding)
  return LanguageModel(embedding, decoder)


def make_experiment(
  options: ConfigDict,
  kind: str,
  vocab_size: int,
  dtype: Any,
  batches: Iterable[Batch],
  evaluations: Mapping[str, Callable] | None = None,
) -> Experiment:
  """What the loop trains; parameters of the model lie under 'model'."""
  steps = options.steps
  aided = kind == 'lexinvariant'
  model = make_model(options, kind, vocab_size, dtype, aided)
  taught = Deciphering(model, options.layers) if aided and options.decipher else None
  schedules: dict[str, Callable] = {}
  if aided and options.reveal:
    first, last = (int(part * steps) for part in options.anneal)
    schedules['revealed'] = optax.linear_schedule(options.reveal, 0.0, max(1, last - first), first)
  if taught:
    schedules['decipher'] = optax.linear_schedule(options.decipher, 0.0, steps)

  plain_init, plain_loss = next_token(model)
  # The loss 'decipher' of the probes is scheduled by its name.
  taught_init, taught_loss = next_token(taught) if taught else (None, None)

  def init_fn(key: jax.Array, batch: Batch) -> Variables:
    if taught_init:
      return taught_init(key, batch)
    return {kind: {'model': tree} for kind, tree in plain_init(key, batch).items()}

  def loss_fn(variables: Variables, batch: Batch, key: jax.Array):
    if taught_loss and 'decipher' in batch:  # else an evaluation
      return taught_loss(variables, batch, key)
    return plain_loss({'params': variables['params']['model']}, batch, key)

  return Experiment(init_fn, loss_fn, batches, evaluations or {}, schedules=schedules)


def make_optimizer(options: ConfigDict) -> optax.GradientTransformation:
  """The optax chain of the options, at the first of their rates."""
  warmup = int(options.warmup * options.steps)
  schedule = optimizer.make_schedule(
    options.schedule, options.rates[0], options.steps, warmup, options.final
  )
  return optimizer.make_optimizer(
    options.optimizer, schedule, b2=options.b2, clip_norm=options.clip_norm or None
  )


def plan(config: ConfigDict, options: ConfigDict, kind: str, vocab_size: int) -> runner.Plan:
  """What `fit` would train."""
  experiment = make_experiment(options, kind, vocab_size, jnp.dtype(config.dtype), ())
  batch = pipeline.shapes(options.batch_size, options.length)
  if kind in PARTIAL:
    batch['concealed'] = jax.ShapeDtypeStruct((options.batch_size,), np.float32)
  return runner.Plan(experiment, make_optimizer(options), batch, vocab_size)


def fit(
  config: ConfigDict,
  run: runner.Run,
  options: ConfigDict,
  name: str,
  kind: str,
  vocab_size: int,
  batches: Iterable[Batch],
  evaluations: Mapping[str, Callable[[LanguageModel], Callable]] | None = None,
  seed: int = 0,
) -> Trained:
  """Trains a model under its name in the workdir, or continues from its last checkpoint.

  `evaluations` are functions of the evaluated model: name -> (model -> (variables -> values)).
  """
  dtype = jnp.dtype(config.dtype)
  model = make_model(evaluated(options), kind, vocab_size, dtype)
  after_bare = lambda f: lambda variables: f(bare(variables))
  scored = {key: after_bare(make(model)) for key, make in (evaluations or {}).items()}
  experiment = make_experiment(options, kind, vocab_size, dtype, batches, scored)
  state, history = runner.train(
    experiment,
    make_optimizer(options),
    config,
    run,
    options,
    name=name,
    seed=seed,
  )
  return Trained(model, bare(state['variables']), history)


def choose_rate(
  options: ConfigDict, validation_loss: Callable[[ConfigDict, float], float]
) -> ConfigDict:
  """The options with the best of their rates, chosen by validation text with one seed.

  Args:
    options: whose `rates` are compared after the part `rates_after` of their steps.
    validation_loss: (options of a short training, its rate) -> the loss after it.
  """
  found = options.copy_and_resolve_references()

  def loss(rate: float) -> float:
    short = options.copy_and_resolve_references()
    short.rates = (rate,)
    short.steps = max(1, int(options.steps * options.rates_after))
    short.evaluate_every = short.checkpoint_every = short.steps
    return validation_loss(short, rate)

  found.rates = (rates.choose(options.rates, loss),)
  return found


def last(history: Iterable[Mapping[str, Any]], key: str) -> float:
  """The newest value of a metric."""
  return [float(line[key]) for line in history if key in line][-1]


def rate_row(table: str, row: str, options: ConfigDict, chosen: ConfigDict) -> Row:
  """The learning rate of an arm."""
  note = 'the only one tried'
  if len(options.rates) > 1:
    grid = ', '.join(f'{rate:g}' for rate in options.rates)
    note = f'of {grid}: lowest validation loss after {options.rates_after:g} of the steps, one seed'
  return Row(table, row, 'learning_rate', chosen.rates[0], note=note)


def bare(variables: Variables) -> Variables:
  """The evaluated model's variables out of those that were trained, without the aids."""

  def without(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
      key: without(value) if isinstance(value, Mapping) else value
      for key, value in tree.items()
      if key != 'annealed_table'
    }

  return {'params': without(variables['params']['model'])}


def evaluated(options: ConfigDict) -> ConfigDict:
  """The options of evaluation: each sequence has rows of its own, so that errors hold the draw.

  Under one table that the sequences of a batch share, which training may use (`draw_kind` shared),
  the scores of a batch would vary together.
  """
  found = options.copy_and_resolve_references()
  found.draw_kind = 'per_sequence' if options.draw_kind == 'shared' else options.draw_kind
  return found


def at_once(model: LanguageModel) -> int:
  """Sequences of a call: 128, or fewer where the rows of each fill 2^28 numbers."""
  embedding = model.embedding
  while hasattr(embedding, 'inner'):
    embedding = embedding.inner
  return max(1, min(128, 2**28 // (embedding.vocab_size * embedding.dim)))


def scorer(model: LanguageModel, vocab_size: int, seed: int = 0) -> Callable:
  """(variables, ids [N, T]) -> nats [N, T] of whole documents, each under rows of its own."""
  nats = _compiled(model)

  def score(variables: Variables, ids: np.ndarray) -> np.ndarray:
    size = min(at_once(model), len(ids))
    parts = [ids[start : start + size] for start in range(0, len(ids), size)]
    keys = jax.random.split(jax.random.key(seed), len(parts))
    found = []
    for part, key in zip(parts, keys):
      full = np.resize(part, (size, ids.shape[1]))  # one shape, compiled once
      batch = pipeline.whole(full, vocab_size)
      found.append(np.asarray(nats(variables, batch, key))[: len(part)])
    return np.concatenate(found)

  return score


def generator(
  trained: Trained,
  seed: int = 0,
  length: int | None = None,
  batch_size: int | None = None,
  **fields: ArrayLike,
) -> Generate:
  """(prompts, count) -> the likeliest ids after each, under rows of each place in a batch.

  Args:
    trained: the model.
    seed: of the rows.
    length: places of a text, for its prompt and what follows; as many as needed by default.
    batch_size: prompts in a batch, and so draws of rows; all prompts by default.
    fields: of the batch that the embedding draws for.
  """
  model, variables, key = trained.model, trained.variables, jax.random.key(seed)

  def generate(prompts: Sequence[np.ndarray], count: int) -> np.ndarray:
    rows = [[model.embedding.vocab_size, *prompt.tolist()] for prompt in prompts]
    size, needed = batch_size or len(rows), max(map(len, rows)) - 1 + count
    slots = length or needed
    if slots < needed:
      raise InputError(f'Prompt and answer take up to {needed} tokens; got places for {slots}.')
    rows += [rows[0][:1]] * (-len(rows) % size)  # so that all batches have one shape
    batch = {'inputs': np.zeros((size, slots), np.int32), **fields}
    draw = _compiled(model)(variables, key, batch, method=_draw)
    found: list[np.ndarray] = []
    for start in range(0, len(rows), size):
      found += sampling.sample(
        model, variables, rows[start : start + size], limit=count, slots=slots,
        keys=jax.random.split(key, size), how=sampling.GREEDY, draw=draw,
      )  # fmt: skip
    return np.stack(found[: len(prompts)])

  return generate


def _draw(model: LanguageModel, key: jax.Array, batch: Mapping[str, jax.Array]) -> Any:
  return model.embedding.draw(key, batch)


@functools.cache
def _compiled(model: LanguageModel) -> Callable:
  """`model.apply`, traced and compiled once for all equal models."""
  return jax.jit(model.apply, static_argnames='method')
