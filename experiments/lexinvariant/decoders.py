# SPDX-License-Identifier: Apache-2.0
"""The models of the recipe: one decoder under trained or random rows.

Two training aids, both removed before evaluation, get a small model past a plateau of thousands of
steps: rows that at first are nearly the same for a symbol in every sequence, and probes that teach
each layer the current symbol. The weight of both falls to zero.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from flax import traverse_util
from ml_collections import ConfigDict

from experiments import fit
from experiments.recipe import Run, TrainSpec
from lib.embeddings.learned import Learned
from lib.embeddings.lexinvariant import AnnealedLexinvariant, Lexinvariant
from lib.embeddings.partial import Interchangeable, PartlyRandom, PermutedIds
from lib.embeddings.short_conv import ShortConv
from lib.errors import InputError
from lib.language_model import TrainedModel
from lib.models.decoder import LanguageModel
from lib.models.probe import Deciphering
from lib.objectives.next_token import next_token
from lib.tokenizers.base import Tokenizer
from lib.train.experiment import Batch, Experiment, Variables

EMBEDDINGS = ('learned', 'lexinvariant')  # those that the paper compares
PARTIAL = (
  'permuted',
  'mixed',
  'interchangeable',
)  # identities are hidden with the batch's probability


def check(options: ConfigDict, where: str, vocab_size: int) -> None:
  """Raises InputError for a model that cannot be built."""
  fit.check(options, where)
  if len(options.anneal) != 2 or not 0 <= options.anneal[0] < options.anneal[1] <= 1:
    raise InputError(
      f'{where}.anneal must be two rising fractions of the steps; got {options.anneal}.'
    )
  if options.law == 'orthonormal' and vocab_size > (options.row_dim or options.dim):
    raise InputError(
      f'{vocab_size} symbols cannot have orthonormal rows of width '
      f'{options.row_dim or options.dim}: make {where}.row_dim {vocab_size} or more, or '
      f'{where}.law gaussian.'
    )


def make_model(
  options: ConfigDict,
  kind: str,
  vocab_size: int,
  dtype: Any,
  *,
  per: str = 'type',
  training: bool = False,
) -> LanguageModel:
  """The decoder of a section around an embedding of a kind (EMBEDDINGS or PARTIAL).

  `per`: whether 'permuted' chooses types or occurrences. In training, rows may be annealed, and all
  sequences of a batch may share one table. In evaluation each sequence has its own rows: under a
  shared table the scores of a batch would be dependent.
  """
  embedding: Any
  if kind == 'lexinvariant':
    form = AnnealedLexinvariant if training and options.reveal else Lexinvariant
    shared = options.row_sampling == 'shared' and not training
    embedding = form(
      vocab_size,
      options.dim,
      row_sampling='per_sequence' if shared else options.row_sampling,
      law=options.law,
      row_dim=options.row_dim or None,
      logit_scale=options.logit_scale,
      dtype=dtype,
    )
  elif kind in ('mixed', 'interchangeable'):
    partial = {'mixed': PartlyRandom, 'interchangeable': Interchangeable}[kind]
    embedding = partial(vocab_size, options.dim, dtype=dtype)
  else:
    scale = options.dim**-0.5
    embedding = Learned(vocab_size, options.dim, init_std=1.0, logit_scale=scale, dtype=dtype)
    if kind == 'permuted':
      embedding = PermutedIds(embedding, per=per)
  if options.short_conv:
    embedding = ShortConv(embedding, options.short_conv)
  return LanguageModel(embedding, fit.make_decoder(options, dtype))


def make_experiment(
  options: ConfigDict, kind: str, vocab_size: int, dtype: Any, per: str = 'type'
) -> Experiment:
  """The experiment without batches: the model alone, or the model as 'model' with its probes."""
  model = make_model(options, kind, vocab_size, dtype, per=per, training=True)
  aided = kind == 'lexinvariant'
  taught = aided and options.decipher
  schedules: dict[str, Callable] = {}
  if aided and options.reveal:
    first, last = (int(part * options.steps) for part in options.anneal)
    schedules['revealed'] = optax.linear_schedule(options.reveal, 0.0, max(1, last - first), first)
  if taught:  # name of the probes' loss
    schedules['decipher'] = optax.linear_schedule(options.decipher, 0.0, options.steps)
  trained = Deciphering(model, options.layers) if taught else model
  return Experiment(*next_token(trained), batches=(), schedules=schedules)


def bare(variables: Variables) -> Variables:
  """The variables of the evaluated model, without the training aids."""
  params = variables['params']
  leaves = traverse_util.flatten_dict(params.get('model', params))
  kept = {path: leaf for path, leaf in leaves.items() if path[-1] != 'annealed_table'}
  return {'params': traverse_util.unflatten_dict(kept)}


def train_spec(
  config: ConfigDict, options: ConfigDict, kind: str, vocab_size: int, per: str = 'type'
) -> TrainSpec:
  """What `train` would train."""
  dtype = fit.dtype(config)
  hidden = {'hidden_probability': jax.ShapeDtypeStruct((options.batch_size,), np.float32)}
  return fit.train_spec(
    options,
    make_model(options, kind, vocab_size, dtype, per=per),
    make_experiment(options, kind, vocab_size, dtype, per),
    hidden if kind in PARTIAL else None,
  )


def train(
  config: ConfigDict,
  run: Run,
  options: ConfigDict,
  name: str,
  kind: str,
  tokenizer: Tokenizer,
  batches: Callable[[int], Iterable[Batch]],
  score: Callable[[TrainedModel], Mapping[str, Any]],
  choose_by: str,
  per: str = 'type',
  text: str = '',
) -> list[fit.Fitted]:
  """The seeds of a model, trained with the aids and evaluated without them (see `fit.fit`).

  `score` gives values of validation text; by the one called `choose_by` the rate is chosen. `text`
  is the source of the batches, '' where they are generated.
  """
  size, dtype = tokenizer.vocab_size, fit.dtype(config)
  model = make_model(options, kind, size, dtype, per=per)
  scored = lambda variables: score(TrainedModel(model, variables, tokenizer, options.length))
  trained = lambda options: make_experiment(options, kind, size, dtype, per)
  return fit.fit(
    config,
    run,
    options,
    name,
    model,
    batches,
    scores={'validation': scored},
    choose_by=f'validation/{choose_by}',
    tokenizer=tokenizer,
    trained=trained,
    bare=bare,
    text=text,
  )
