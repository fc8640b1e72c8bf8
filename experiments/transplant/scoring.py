# SPDX-License-Identifier: Apache-2.0
"""Trains the old model and models from scratch, and scores all models: bits per byte of one text.

The bits are split by kind of token. Rows of new tokens in the LM head take probability from the
tokens that both tokenizers have, so a method that gains on new tokens may lose on the others.
"""

import functools
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments import fit, tokenizer_names
from experiments.fit import Fitted
from experiments.recipe import Run, naming
from lib import stats
from lib.data import excerpts, pipeline, sources
from lib.data.excerpts import Excerpts
from lib.data.sources import Source
from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.language_model import TrainedModel
from lib.models.decoder import LanguageModel
from lib.report.results import Rows
from lib.tokenizers import registry
from lib.tokenizers.base import Dictionary
from lib.transplant import pieces

ANOTHER = 1000  # difference between the seeds of old models and of models from scratch
MOST = 4  # excerpts of one document at most: documents are the units of errors
LOG_2 = float(np.log(2))
LOGITS = 16  # excerpts whose logits are compared


@functools.cache
def train_tokenizer(family: str, vocab_size: int, source: str, train_bytes: int) -> Dictionary:
  """The tokenizer of a family, learned from the train split of a source."""
  documents = sources.sample(sources.open_source(source, 'train'), train_bytes)
  return pieces.dictionary(registry.train(family, documents, vocab_size), family)


def check_family(where: str, family: str, vocab_size: int) -> None:
  """Raises InputError for a family of tokenizers that is unknown, or does not have this size."""
  with naming(where):
    if family not in tokenizer_names.LEARNED:
      raise InputError(f'{family!r} must be one of {", ".join(tokenizer_names.LEARNED)}.')
    registry.check(family, (), vocab_size)


def old_tokenizer(config: ConfigDict) -> Dictionary:
  """The tokenizer of the old model."""
  old = config.old
  return train_tokenizer(old.family, old.vocab_size, config.data.source, old.train_bytes)


def old_text(config: ConfigDict) -> Source:
  """The training text of the old model."""
  return sources.open_source(config.data.source, 'train')


def validation_text(config: ConfigDict) -> Source:
  """The text of learning curves."""
  return sources.open_source(config.data.source, 'validation')


def make_model(config: ConfigDict, vocab_size: int, **changes: Any) -> LanguageModel:
  """An untrained model of the section `base` for a number of ids; `changes` replace its fields."""
  options = ConfigDict(config.base.to_dict() | changes)
  dtype = fit.dtype(config)
  embedding = Learned(vocab_size, options.dim, tied=options.tied, dtype=dtype)
  return LanguageModel(embedding, fit.make_decoder(options, dtype))


def train(
  config: ConfigDict,
  run: Run,
  name: str,
  tokenizer: Dictionary,
  documents: Source,
  *,
  validation: Source | None = None,
  start: Mapping[int, TrainedModel] | None = None,
  another: int = 0,
  text: str | None = None,
  **changes: Any,
) -> list[Fitted]:
  """Models of the section `base`, one for each seed.

  Args:
    config: of the recipe.
    run: its workdir keeps them.
    name: of the models.
    tokenizer: of the text.
    documents: the text.
    validation: text for a learning curve.
    start: seed -> the model whose training continues; by default weights are random.
    another: added to the seeds.
    text: the source of the documents, if it is not the config's.
    **changes: fields of the section.
  """
  options = ConfigDict(config.base.to_dict() | changes)
  options.evaluate_every = min(options.evaluate_every, options.steps)
  config = config.copy_and_resolve_references()
  config.seed += another
  sizes: dict[str, Any] = {'batch_size': options.batch_size, 'length': options.length}
  batches = lambda seed: pipeline.batches(
    documents, tokenizer, **sizes, seed=seed + ANOTHER * (start is not None), lanes=options.lanes
  )
  evaluations = {}
  if validation is not None:
    watched = pipeline.batches(validation, tokenizer, **sizes, seed=0)
    some = [*itertools.islice(watched, config.held_out.validation_batches)]
    evaluations['validation'] = lambda seed: some
  initial = None if start is None else lambda seed, new: start[seed].variables
  model = make_model(config, tokenizer.vocab_size, **changes)
  return fit.fit(
    config,
    run,
    options,
    name,
    model,
    batches,
    evaluations=evaluations,
    tokenizer=tokenizer,
    initial=initial,
    text=text,
  )


def train_from_scratch(
  config: ConfigDict,
  run: Run,
  name: str,
  tokenizer: Dictionary,
  documents: Source,
  steps: Collection[int] = (),
  **options: Any,
) -> dict[int, list[Fitted]]:
  """Number of training steps -> models that start from random weights, one for each seed.

  Each training has a whole schedule of the learning rate, so that each is the best model from
  scratch after its steps.

  Args:
    config: of the recipe; its `base.steps` are always among the numbers of steps.
    run: its workdir keeps the models.
    name: of the models.
    tokenizer: of the text.
    documents: the text.
    steps: other numbers of steps.
    **options: of `train`.
  """
  every = sorted({*steps, config.base.steps})
  one = lambda count: train(
    config, run, f'{name},step={count}', tokenizer, documents, another=ANOTHER, steps=count,
    **options,
  )  # fmt: skip
  return {count: one(count) for count in every}


def held_out(config: ConfigDict) -> Excerpts:
  """Held-out text like that of the old model, on which models are scored."""
  return excerpts_of(config, config.data.source)


def excerpts_of(config: ConfigDict, source: str) -> Excerpts:
  """Held-out text of a source; raises InputError if none of its documents is long enough."""
  options = config.held_out
  return excerpts.of_split(source, 'test', length=options.length, total=options.bytes, most=MOST)


class Scores(NamedTuple):
  """Scores of S models on D documents.

  Attributes:
    nats: float64 [S, D, 2], of tokens that the old tokenizer has, and of new tokens.
    bytes: float64 [D, 2], covered by these two kinds of tokens.
    mass: float64 [S], the share of new ids in the softmax's denominator, on a few excerpts.
  """

  nats: np.ndarray
  bytes: np.ndarray
  mass: np.ndarray

  @property
  def bits(self) -> np.ndarray:
    """Contributions to bits per byte [S, D]."""
    return stats.contributions(self.nats.sum(axis=-1), self.bytes.sum(axis=-1)) / LOG_2


def score(models: Sequence[TrainedModel], text: Excerpts, is_new: np.ndarray) -> Scores:
  """Scores of models of one tokenizer; `is_new` marks the ids that the old tokenizer lacks."""
  nats, mass, size = [], [], np.zeros(0)
  for model in models:
    losses = model.token_loss(text.texts)
    kinds = [np.eye(2)[is_new[loss.ids].astype(int)] for loss in losses]
    of = [loss.nats @ kind for loss, kind in zip(losses, kinds, strict=True)]
    nats.append(stats.by_group(np.array(of).T, text.documents).T)
    covered = [loss.bytes @ kind for loss, kind in zip(losses, kinds, strict=True)]
    size = stats.by_group(np.array(covered).T, text.documents).T
    mass.append(mass_of_new(model, [loss.ids for loss in losses[:LOGITS]], is_new))
  return Scores(np.stack(nats), size, np.array(mass))


def mass_of_new(model: TrainedModel, texts: Sequence[np.ndarray], is_new: np.ndarray) -> float:
  """The mean probability of all new ids together, after each token of texts cut to one length."""
  length = min(model.context - 1, *map(len, texts))
  logits = model.logits(np.stack([[model.first_id, *ids[:length]] for ids in texts]))
  powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return float((powers[..., : len(is_new)] @ is_new / powers.sum(axis=-1)).mean())


def add(rows: Rows, where: Mapping[str, Any], found: Scores, unchanged: Scores) -> None:
  """Adds the columns of scores."""
  rows.add(where, 'bits_per_byte', stats.crossed(found.bits), 'bits/byte')
  both = np.stack([found.nats.sum(axis=-1), unchanged.nats.sum(axis=-1)], axis=-1)
  ratio = stats.jackknife(lambda sums: sums[0] / sums[1], both)
  rows.add(where, 'ratio_to_old', ratio, '', 'bits per byte over those of the old model')
  size = found.bytes.sum(axis=-1)
  for kind, column in enumerate(('nats_exact', 'nats_new')):
    part = stats.contributions(found.nats[..., kind], size)
    note = 'of all bytes; the two add up to all nats per byte'
    rows.add(where, column, stats.crossed(part), 'nats/byte', note)
  share = stats.contributions(found.bytes[:, 1], size)
  rows.add(where, 'share_bytes_new', stats.mean(share, 'documents'), 'of the bytes')
  note = f'of the denominator of the softmax, mean over the tokens of {LOGITS} excerpts'
  rows.add(where, 'denominator_share_new', stats.mean(found.mass), 'share', note)
