# SPDX-License-Identifier: Apache-2.0
"""The models of the tables, one for each tokenizer and seed, trained once in a workdir."""

from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from experiments import fit
from experiments.recipe import Run, TrainSpecs, naming
from lib import stats
from lib.data import excerpts, pipeline, sources, token_cache
from lib.data.excerpts import Excerpts
from lib.data.sources import Source
from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.language_model import TrainedModel
from lib.models.decoder import LanguageModel
from lib.tokenizers import registry
from lib.tokenizers.base import Tokenizer

MOST = 4  # excerpts of one document, which is the unit of errors
_TRAINED: dict[tuple, list[TrainedModel]] = {}  # of this process


def tokenizer(config: ConfigDict, name: str, size: int, text: str) -> Tokenizer:
  """A tokenizer of a family such as `bpe` with `size` ids, trained on the source `text`."""
  source = sources.open_source(text, 'train')
  size = 256 if name == 'bytes' else size
  return registry.train(name, sources.sample(source, config.model.train_bytes), size)


def module(config: ConfigDict, vocab_size: int) -> LanguageModel:
  """The module of the section `model`."""
  options, dtype = config.model, fit.dtype(config)
  return LanguageModel(
    Learned(vocab_size, options.dim, dtype=dtype),
    fit.make_decoder(options, dtype, max_length=options.length),
  )


def trained(
  config: ConfigDict, run: Run, name: str, *, label: str = '', size: int = 0, seeds: int = 0,
  text: str = '',
  read: Callable[[Source], Source] | None = None,
) -> list[TrainedModel]:  # fmt: skip
  """A model over a tokenizer for each seed, trained once.

  Args:
    config: of the recipe.
    run: for which it is trained.
    name: of the tokenizer.
    label: of the model, where it is another than the tokenizer's own.
    size: ids of the tokenizer, if others than `model.vocab_size`.
    seeds: number of models, if another than `model.seeds`.
    text: the source to train on, if another than `data.source`.
    read: documents of the source -> those to train on.
  """
  label, text = label or name, text or config.data.source
  key = run.workdir, label, config.seed
  if key not in _TRAINED:
    options = config.model.copy_and_resolve_references()
    options.seeds = seeds or options.seeds
    options.side_by_side = min(options.side_by_side, options.seeds)
    made = tokenizer(config, name, size or options.vocab_size, text)
    batches = lambda seed: pipeline.batches(
      read(sources.open_source(text, 'train'))
      if read
      else token_cache.open_tokens(config.token_cache, text, made),
      made,
      batch_size=options.batch_size,
      length=options.length,
      seed=seed,
      lanes=options.lanes,
    )
    model = module(config, made.vocab_size)
    found = fit.fit(config, run, options, label, model, batches, tokenizer=made, text=text)
    _TRAINED[key] = [one.model for one in found]
  return _TRAINED[key]


def train_specs(config: ConfigDict) -> TrainSpecs:
  """The largest model."""
  size = max(config.model.vocab_size, config.cost.vocab_size)
  return {'model': lambda: fit.train_spec(config.model, module(config, size))}


def held_out(config: ConfigDict, length: int, count: int) -> Excerpts:
  """About `count` excerpts of test text."""
  source = config.data.source
  return excerpts.of_split(source, 'test', length=length, total=length * count, most=MOST)


def check_model(config: ConfigDict) -> None:
  """Raises InputError for models that cannot be trained."""
  fit.check(config.model, 'model')
  if len(config.model.rates) != 1:
    raise InputError('model.rates must be one rate, for no text is held out to choose one.')


def check(config: ConfigDict, length: int, field: str) -> None:
  """Raises InputError for models that cannot be trained, or excerpts longer than documents."""
  check_model(config)
  with naming(field):
    held_out(config, length, 1)


def estimate(values: np.ndarray, text: Excerpts, per: float = 1.0) -> stats.Estimate:
  """The mean of values [S, N] of seeds and excerpts, its error over seeds and documents."""
  sums = stats.by_group(values, text.documents)
  counts = stats.by_group(np.full(values.shape, per), text.documents)
  return stats.crossed(stats.contributions(sums, counts))
